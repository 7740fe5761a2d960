"""What a log means: `fold` turns it into a `RunState`. Linear; knows nothing of code, store or clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from .event import Event, numbered, token_of


class StepState(msgspec.Struct):
    """A step as the log tells it. `status`: scheduled, running, waiting (for a retry), completed, failed."""

    key: str
    scheduled: int
    status: str = "scheduled"
    attempt: int = 0
    due: int | None = None
    started: int | None = None
    ended: int | None = None
    worker: str | None = None
    error: dict[str, Any] | None = None
    late: int = 0

    @property
    def open(self) -> bool:
        """Whether its outcome is still to come."""
        return self.ended is None


class TimerState(msgspec.Struct):
    """A durable sleep. `status`: pending, fired, cancelled."""

    key: str
    due: int
    started: int
    status: str = "pending"


class HookState(msgspec.Struct):
    """A hook. `status`: open, closed, refused, run_ended, continued (it goes on in the run's successor)."""

    key: str
    token: str
    opened: int
    status: str = "open"
    received: int = 0
    metadata: Any = None
    owner: str | None = None


class ChildState(msgspec.Struct):
    """A child run as its parent's log tells it.

    `status`: open, cancelling, detached (asked for, not started yet); then completed, failed, cancelled,
    refused (its id was another run's), started (a detached one, which goes its own way).
    """

    key: str
    run: str
    workflow: str
    started: int
    position: int
    status: str = "open"
    ended: int | None = None
    error: dict[str, Any] | None = None


class RunState(msgspec.Struct):
    """What a log means: made by `fold`, compared with the projections by `verify`."""

    run: str
    workflow: str = ""
    status: str = "pending"
    created: int = 0
    started: int | None = None
    ended: int | None = None
    version: str | None = None
    origin: str | None = None
    parent: str | None = None
    root: str | None = None
    previous: str | None = None
    first: str | None = None
    continued: str | None = None
    cancel: str | None = None
    error: dict[str, Any] | None = None
    attributes: dict[str, str] = {}
    steps: dict[str, StepState] = {}
    timers: dict[str, TimerState] = {}
    hooks: dict[str, HookState] = {}
    children: dict[str, ChildState] = {}
    left_open: list[str] = []
    received: int = 0
    read: int = 0
    head: int = 0
    command: int = 0
    fact: int = 0

    @property
    def open_steps(self) -> int:
        """How many steps still owe an outcome."""
        return 0 if self.ended else sum(step.open for step in self.steps.values())

    @property
    def unread(self) -> int | None:
        """How many payloads came and were not read; None while the run goes on, under whatever id."""
        return None if self.ended is None or self.continued else self.received - self.read

    @property
    def pending_timers(self) -> int:
        """How many timers are still to fire."""
        return 0 if self.ended else sum(t.status == "pending" for t in self.timers.values())

    @property
    def open_children(self) -> int:
        """How many child runs it still waits to hear of."""
        return 0 if self.ended else sum(child.ended is None for child in self.children.values())


def fold(events: Iterable[Event], state: RunState | None = None) -> RunState:
    """The state that a log means. Linear; knows nothing of code, store or clock.

    With `state`, which the events before these came to, it goes on from there (and changes it).

    Example:
        state = fold(await store.read("order-1"))
        state.status, state.steps["charge#1"].attempt
    """
    if state is None:
        state = RunState("")
    for event in events:
        state.run = event.run
        state.head = event.position
        cls = event.cls
        if cls == "command":
            state.command = event.position
        elif cls == "fact":
            state.fact = event.position
        _FOLDS[event.type](state, event)
    return state


def _fold_created(state: RunState, event: Event) -> None:
    data = event.data
    state.workflow = data.get("workflow", "")
    state.version = data.get("version")
    state.origin = data.get("origin")
    state.created = event.time
    state.parent = (data.get("parent") or {}).get("run")
    state.root = data.get("root")
    state.previous, state.first = data.get("previous"), data.get("first")
    for token in data.get("hooks") or ():
        key = numbered(token, 0)
        state.hooks[key] = HookState(key, token, event.time)
    state.attributes.update(data.get("attributes") or {})


def _fold_run_started(state: RunState, event: Event) -> None:
    state.status, state.started = "running", event.time


def _fold_end(state: RunState, event: Event) -> None:
    data = event.data
    state.status = event.type.removeprefix("run_")
    state.ended = event.time
    state.error = data.get("error")
    state.left_open = list(data.get("open") or ())
    state.read = data.get("read", 0)
    state.continued = data.get("continued")
    for hook in state.hooks.values():
        if hook.status == "open":
            hook.status = "continued" if state.continued else "run_ended"


def _fold_cancel(state: RunState, event: Event) -> None:
    state.cancel = event.data.get("reason") or ""


def _fold_scheduled(state: RunState, event: Event) -> None:
    state.steps[event.key] = StepState(event.key, event.time)


def _fold_step_started(state: RunState, event: Event) -> None:
    data, step = event.data, state.steps[event.key]
    attempt = data.get("attempt", 1)
    if step.open and attempt >= step.attempt:
        step.status, step.attempt, step.due = "running", attempt, None
    step.worker = data.get("worker")
    step.started = step.started or event.time


def _fold_step_retried(state: RunState, event: Event) -> None:
    data, step = event.data, state.steps[event.key]
    attempt = data.get("attempt", 1)
    if step.open and attempt >= step.attempt:  # an attempt given up long ago changes nothing
        step.status, step.due, step.attempt = "waiting", data.get("due"), attempt
    step.error = data.get("error")


def _fold_step_ended(state: RunState, event: Event) -> None:
    data, step = event.data, state.steps[event.key]
    if not step.open:
        step.late += 1
        return
    step.status = event.type.removeprefix("step_")
    step.ended, step.due, step.attempt = event.time, None, data.get("attempt", 1)
    step.error = data.get("error")


def _fold_timer_started(state: RunState, event: Event) -> None:
    state.timers[event.key] = TimerState(event.key, event.data.get("due", 0), event.time)


def _fold_timer_ended(state: RunState, event: Event) -> None:
    timer = state.timers[event.key]
    if timer.status == "pending":
        timer.status = event.type.removeprefix("timer_")


def _fold_hook_opened(state: RunState, event: Event) -> None:
    token, metadata = token_of(event.key), event.data.get("metadata")
    state.hooks[event.key] = HookState(event.key, token, event.time, metadata=metadata)
    inherited = state.hooks.get(numbered(token, 0))
    if inherited is not None and inherited.status == "open":
        inherited.status = "closed"  # the code has a hook of its own for it now


def _fold_hook_closed(state: RunState, event: Event) -> None:
    hook = state.hooks[event.key]
    if hook.status == "open":
        hook.status = "closed"


def _fold_hook_refused(state: RunState, event: Event) -> None:
    hook = state.hooks[event.key]
    hook.status, hook.owner = "refused", event.data.get("owner")


def _fold_hook_received(state: RunState, event: Event) -> None:
    state.hooks[event.key].received += 1
    state.received += 1


def _fold_child_started(state: RunState, event: Event) -> None:
    data = event.data
    state.children[event.key] = ChildState(
        event.key,
        data.get("run", ""),
        data.get("workflow", ""),
        event.time,
        event.position,
        "detached" if data.get("detached") else "open",
    )


def _fold_child_cancelled(state: RunState, event: Event) -> None:
    child = state.children[event.key]
    if child.status == "open":
        child.status = "cancelling"


def _fold_child_ended(state: RunState, event: Event) -> None:
    data, child = event.data, state.children[event.key]
    child.status, child.ended = data.get("status", "completed"), event.time
    child.error = data.get("error")


def _fold_attributes(state: RunState, event: Event) -> None:
    for name, value in event.data["attributes"].items():
        if value is None:
            state.attributes.pop(name, None)
        else:
            state.attributes[name] = value


def _fold_nothing(_state: RunState, _event: Event) -> None:
    """Nothing that a projection holds."""


_FOLDS: dict[str, Callable[[RunState, Event], None]] = {
    "run_created": _fold_created,
    "run_started": _fold_run_started,
    "run_completed": _fold_end,
    "run_failed": _fold_end,
    "run_cancelled": _fold_end,
    "cancel_requested": _fold_cancel,
    "step_scheduled": _fold_scheduled,
    "step_started": _fold_step_started,
    "step_retried": _fold_step_retried,
    "step_completed": _fold_step_ended,
    "step_failed": _fold_step_ended,
    "timer_started": _fold_timer_started,
    "timer_fired": _fold_timer_ended,
    "timer_cancelled": _fold_timer_ended,
    "hook_opened": _fold_hook_opened,
    "hook_closed": _fold_hook_closed,
    "hook_refused": _fold_hook_refused,
    "hook_received": _fold_hook_received,
    "attributes_set": _fold_attributes,
    "child_started": _fold_child_started,
    "child_cancelled": _fold_child_cancelled,
    "child_ended": _fold_child_ended,
    "woken": _fold_nothing,
    "noted": _fold_nothing,
    "patched": _fold_nothing,
}
