"""Replay is checked: what the log holds must be what the code asks for, in order (law L7).

Commands are matched first in, first out; facts and records stand in between and are skipped. Whenever the log
holds a command, the code must have asked for it by then, for commands follow from the facts before them. What
is compared is kind, name, ordinal and arguments. Arguments that are written differently but mean the same
with today's types are no divergence: a new field with a default may come in while runs are in flight.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from ..errors import PayloadError, ReplayDivergence
from ..events import ASKED, ENDS, Draft, Event, load_json, reader

if TYPE_CHECKING:
    from .tick import Execution


def commands_of(events: Iterable[Event]) -> deque[Event]:
    """The commands of a log."""
    commands = deque([event for event in events if event.type in _COMMANDS])
    if commands and commands[-1].cls == "record":
        commands.pop()  # an end that the code did not ask for; no command comes after it (law L11)
    return commands


_COMMANDS = ASKED | ENDS


def match(execution: Execution, event: Event) -> None:
    """Compare a command of the log with the one that the code asked for."""
    if not execution.asked:
        raise diverged(execution, event, "nothing more")
    asked = execution.asked[0]
    if asked.type != event.type or asked.key != event.key or not _same(execution, asked, event):
        raise diverged(execution, event, _describe(asked.type, asked.key, asked.body))
    execution.asked.popleft()


def diverged(execution: Execution, event: Event, asked: str) -> ReplayDivergence:
    """The error: position, what the log holds, what the code asked for, file and line."""
    expected = _describe(event.type, event.key, event.body)
    where = execution.places[-len(execution.asked)] if execution.places and execution.asked else ""
    place = f" at {where}" if where else ""
    return ReplayDivergence(
        f"{event.run}, position {event.position}: the log holds {expected}, "
        f"but the code asks for {asked}{place}; bring back code that fits, "
        'or let the change through for old runs with hf.patched("…")',
        position=event.position,
        expected=expected,
        asked=asked,
        where=where,
    )


_CREDIT = re.compile(r'(?:,?"chapter":"note#\d+")?,?"branch":\d+}$|,?"chapter":"note#\d+"}$')
"""Where something was asked for: the end of a command's body, which takes no part in the match."""


def _describe(type_: str, key: str, body: bytes) -> str:
    text = body.decode(errors="replace")
    if type_ != "noted":
        text = _CREDIT.sub("}", text)
    if len(text) > 200:
        text = text[:200] + "…"
    return f"{type_} {key} {text}".replace("  ", " ")


class _Args(msgspec.Struct):
    args: msgspec.Raw = msgspec.Raw(b"{}")
    queue: str | None = None


class _End(msgspec.Struct):
    value: msgspec.Raw = msgspec.Raw(b"null")
    error: dict[str, Any] = {}
    read: int = 0
    continued: str | None = None
    args: msgspec.Raw = msgspec.Raw(b"{}")


def payload_of(event: Event) -> bytes:
    """What of a command the payload limit bounds."""
    with_args = event.type in ("step_scheduled", "child_started")
    return bytes(_args(event.body).args) if with_args else event.body


def _same(execution: Execution, asked: Draft, event: Event) -> bool:
    if asked.body == event.body:
        return True
    if event.type == "step_scheduled":
        call = execution.calls.get(event.key)
        if call is None:
            return False  # its outcome was delivered before the command: the log itself is out of order
        logged = _args(event.body)
        call.queued = logged.queue is not None  # where it was put then, whatever the code says today
        return call.step.arguments.same(bytes(logged.args), call.args)
    if event.type == "child_started":
        child = execution.children.get(event.key)
        return child is not None and child.matches(event)
    if event.type == "noted":
        return _essence(event.data) == _essence(load_json(asked.body))
    if event.type == "timer_started":
        return bool(event.data.get("due") == asked.data["due"])
    if event.type == "attributes_set":
        return bool(event.data.get("attributes") == asked.data["attributes"])
    if event.type == "run_completed":
        return _same_result(execution, asked, event)
    if event.type == "run_failed":
        return bool(_end(event.body).error.get("type") == _end(asked.body).error.get("type"))
    # A hook's schema and metadata and a cancel's reason may change: its token or type is its identity.
    return True


def _same_result(execution: Execution, asked: Draft, event: Event) -> bool:
    returns = execution.workflow.arguments.returns
    logged, today = _end(event.body), _end(asked.body)
    if logged.read != today.read or (logged.continued is None) is not (today.continued is None):
        return False
    if logged.continued is not None:
        return execution.workflow.arguments.same(bytes(logged.args), bytes(today.args))
    if logged.value == today.value:
        return True
    try:
        return bool(returns.decode(logged.value, "result") == returns.decode(today.value, "result"))
    except PayloadError:
        return False


def _essence(noted: dict[str, Any]) -> dict[str, Any]:
    """What a note says: not in which task, and of an exception that left a chapter its type alone.

    As with a run's end, its message may hold an address or a path.
    """
    said = {key: value for key, value in noted.items() if key not in ("branch", "error")}
    return said | {"error": (noted.get("error") or {}).get("type")}


_args = reader(_Args)
_end = reader(_End)
