"""Child runs as the engine keeps them: what was asked for, and what comes of how a child ends."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from .. import failures
from ..errors import RunCancelled, RunExists
from ..events import Event, dump_json, load_json, reader
from ..runtime import ChildRun
from ..workflow import Workflow


class ChildCall:
    """A child run that workflow code asked for and of whose end it has not heard.

    `data` is what its `child_started` holds: of a child that is in the log, what the log says.
    """

    __slots__ = ("data", "detached", "future", "key", "workflow")

    def __init__(
        self, key: str, workflow: Workflow[..., Any], data: dict[str, Any], future: asyncio.Future[Any]
    ) -> None:
        self.key = key
        self.workflow = workflow
        self.data = data
        self.detached = bool(data.get("detached"))
        self.future = future

    @property
    def run(self) -> str:
        """The child's run id."""
        return str(self.data["run"])

    def matches(self, event: Event) -> bool:
        """Whether the log's `child_started` asks for this child; from then on what the log says counts."""
        logged = event.data
        chosen = self.data.get("chosen")
        same = (
            logged.get("workflow") == self.workflow.name
            and bool(logged.get("detached")) == self.detached
            # An id that we made up may have been made up otherwise by the Holdfast of that day.
            and (logged.get("run") == self.run if chosen or logged.get("chosen") else True)
            and self.workflow.arguments.same(dump_json(logged.get("args")), bytes(self.data["args"]))
        )
        if same:
            self.data = {**logged, "args": msgspec.Raw(dump_json(logged.get("args")))}
        return same


class _Ended(msgspec.Struct):
    status: str = "completed"
    value: msgspec.Raw = msgspec.Raw(b"null")
    error: msgspec.Raw = msgspec.Raw(b"{}")
    reason: str = ""
    message: str = ""


_read = reader(_Ended)


def settle(call: ChildCall, event: Event) -> asyncio.Future[Any] | None:
    """Give an await what `child_ended` tells. Raises PayloadError where today's type cannot hold the result."""
    if call.future.done():
        return None
    told = _read(event.body)
    if told.status == "completed":
        returns = call.workflow.arguments.returns
        call.future.set_result(returns.decode(told.value, f"{call.key} result"))
    elif told.status == "started":
        call.future.set_result(ChildRun(call.run))
    else:
        call.future.set_exception(_failure(call, told))
    return call.future


def _failure(call: ChildCall, told: _Ended) -> BaseException:
    if told.status == "refused":
        return RunExists(told.message or f"run {call.run!r} exists already")
    if told.status == "cancelled":
        why = f": {told.reason}" if told.reason else ""
        return RunCancelled(f"child run {call.run} was cancelled{why}", run_id=call.run, reason=told.reason)
    error = failures.rebuild(load_json(bytes(told.error)))
    if isinstance(error, StopIteration):
        cause, error = error, RuntimeError(f"{call.key} raised StopIteration")
        error.__cause__ = cause  # no future takes a StopIteration, as no coroutine raises one
    error.add_note(f"in child run {call.run}")
    return error
