"""What a trail tells of timers, hooks, child runs and the rest: each event of a log by itself, in a sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..clock import to_text
from ..events import Event, name_of, token_of
from .shorten import Redact, cut, preview
from .verdict import cause_of, said

TEXT = 1000
"""Characters of an error's message, or of a list of attributes."""
ASKED = {"timer_started": "timer", "hook_opened": "hook", "child_started": "child"}
"""The commands that say where they were asked for, and what of."""
ANSWERED = {
    "timer_fired": "timer",
    "timer_cancelled": "timer",
    "hook_received": "hook",
    "hook_refused": "hook",
    "hook_closed": "hook",
    "child_cancelled": "child",
    "child_ended": "child",
}
"""What happens to these; it belongs to where they were asked for."""


class Told(NamedTuple):
    """An event of the trail."""

    content: str
    significance: str | None = "low"
    type: str = "note"
    raw: Any = None


def related(data: Any) -> str:
    """The id of a related run, in any of the forms in which an event may hold it; '' for none."""
    if isinstance(data, Mapping):
        data = data.get("run") or data.get("run_id") or data.get("child")
    return data if isinstance(data, str) else ""


def _timer_started(event: Event, data: Mapping[str, Any], _redact: Redact) -> Told:
    due = data.get("due")
    return Told(f"{event.key} begins" + (f" until {to_text(due)}" if isinstance(due, int) else ""))


def _hook_opened(event: Event, _data: Mapping[str, Any], _redact: Redact) -> Told:
    return Told(f"Waits for payloads at {token_of(event.key)}", "medium")


def _hook_received(event: Event, data: Mapping[str, Any], redact: Redact) -> Told:
    return Told(f"{token_of(event.key)} received {preview(data.get('payload'), redact)}", "medium")


def _hook_refused(event: Event, data: Mapping[str, Any], _redact: Redact) -> Told:
    return Told(f"{token_of(event.key)} is held by run {data.get('owner')}", "medium")


def _cancel_requested(_event: Event, data: Mapping[str, Any], _redact: Redact) -> Told:
    reason = str(data.get("reason") or "")
    return Told(f"Asked to cancel{': ' if reason else ''}{reason}", "high")


def _child_started(event: Event, data: Mapping[str, Any], _redact: Redact) -> Told:
    child = related(data) or event.key
    workflow = data.get("workflow") or name_of(event.key)
    return Told(f"Child run {child} of {workflow} begins", None, "tool_call", {"childRun": child})


def _child_ended(event: Event, data: Mapping[str, Any], redact: Redact) -> Told:
    child, error = related(data) or event.key, data.get("error")
    if isinstance(error, dict):
        cause = cause_of(error)
        text = f"Child run {child} failed [{cause}]: {cut(said(redact(error)), TEXT)}"
        return Told(text, "high", "error", {"childRun": child, "cause": cause})
    how = data.get("status") or "has ended"
    result = f": {preview(data['value'], redact)}" if "value" in data else ""
    text = f"Child run {child} {how}{result}"
    return Told(text, None, "tool_result", {"childRun": child})


def _attributes_set(_event: Event, data: Mapping[str, Any], _redact: Redact) -> Told:
    changed = data.get("attributes")
    pairs = changed.items() if isinstance(changed, dict) else ()
    told = ", ".join(f"{key} removed" if value is None else f"{key} = {value}" for key, value in pairs)
    return Told(cut(told, TEXT) or "no attribute changed")


TELLS: dict[str, Callable[[Event, Mapping[str, Any], Redact], Told]] = {
    "timer_started": _timer_started,
    "timer_fired": lambda event, *_: Told(f"{event.key} is over"),
    "timer_cancelled": lambda event, *_: Told(f"{event.key} is not needed any more"),
    "hook_opened": _hook_opened,
    "hook_received": _hook_received,
    "hook_refused": _hook_refused,
    "hook_closed": lambda event, *_: Told(f"{token_of(event.key)} takes no more payloads"),
    "cancel_requested": _cancel_requested,
    "woken": lambda *_: Told("Woken: pending sleeps end early", "medium"),
    "child_started": _child_started,
    "child_cancelled": lambda event, *_: Told(f"{event.key} is asked to cancel: nobody waits for it"),
    "child_ended": _child_ended,
    "attributes_set": _attributes_set,
    "patched": lambda event, *_: Told(f"Takes the new way of the change {name_of(event.key)}"),
}
