"""What an accepted event changes besides the log: the head of its run, and the projections.

One method for each type, called while an append is judged: in memory only. `events.fold` says the same of a whole
log, written for itself, and `holdfast verify` holds one against the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from holdfast.events import ENDS, numbered, token_of

from .messages import Append
from .queued import Queued
from .rows import Head
from .verdict import Changes, Found, HookChange, Row

CONTINUED = "continued"
"""The key under which a run that goes on as another has its successor among its children."""


def begin_run(head: Head, data: Mapping[str, Any], owner: str | None, time: int) -> None:
    """What `run_created` says of a new run's head; `data` is the event's, `time` too."""
    head.workflow = data.get("workflow", "")
    head.created = time
    head.attributes = dict(data.get("attributes") or {})
    head.owner = owner
    head.parent = (data.get("parent") or {}).get("run")
    head.root = data.get("root")


def end_run(head: Head, type_: str) -> None:
    """What an end of this type, the last event by now, makes of the head."""
    head.status = type_.removeprefix("run_")  # type: ignore[assignment]
    head.ended = head.time
    head.steps = head.timers = head.children = 0
    head.owner = head.parked = None


class Effects:
    """The head and the projections of a run as they will be after the rows so far; the last row is the event's."""

    __slots__ = ("changes", "found", "head", "request", "rows", "run")

    def __init__(self, request: Append, found: Found, head: Head) -> None:
        self.request = request
        self.run = request.run
        self.found = found
        self.head = head
        self.rows: list[Row] = []
        self.changes = Changes()

    def created(self, data: Mapping[str, Any], _key: str) -> None:
        begin_run(self.head, data, self.request.owner, self.head.time)
        for token, schema in (data.get("hooks") or {}).items():  # open in the run that continues as this one
            hook = HookChange(numbered(token, 0), {"schema": schema}, self.head.time)
            self.changes.hooks.append(hook)

    def started(self, _data: Mapping[str, Any], _key: str) -> None:
        self.head.status = "running"

    def step_scheduled(self, data: Mapping[str, Any], key: str) -> None:
        self.head.steps += 1
        self.changes.steps[key] = (0, None)
        if "queue" in data:
            self.changes.queued[key] = Queued(
                data["queue"],
                data.get("limit_key"),
                data.get("priority", 0),
                self.head.time,
                self.rows[-1].position,
            )

    def step_attempted(self, data: Mapping[str, Any], key: str) -> None:
        step = self._open_step(key)
        attempt = data.get("attempt", 1)
        if step is not None and attempt >= step[0]:  # what an attempt given up long ago says changes nothing
            self.changes.steps[key] = (attempt, data.get("due"))

    def step_ended(self, _data: Mapping[str, Any], key: str) -> None:
        if self._open_step(key) is not None:
            self.head.steps -= 1
            self.changes.steps[key] = None

    def _open_step(self, key: str) -> tuple[int, int | None] | None:
        steps = self.changes.steps
        return steps[key] if key in steps else self.found.steps.get(key)

    def timer_started(self, data: Mapping[str, Any], key: str) -> None:
        self.head.timers += 1
        self.changes.timers[key] = data.get("due", 0)

    def timer_ended(self, _data: Mapping[str, Any], key: str) -> None:
        if self.changes.timers.get(key, self.found.timers.get(key)) is not None:
            self.head.timers -= 1
            self.changes.timers[key] = None

    def child_started(self, data: Mapping[str, Any], key: str) -> None:
        self.head.children += 1
        status = "detached" if data.get("detached") else "open"
        self.changes.children[key] = (data.get("run", ""), self.head.position, status)

    def child_cancelled(self, _data: Mapping[str, Any], key: str) -> None:
        child = self._open_child(key)
        if child is not None and child[2] == "open":
            self.changes.children[key] = (child[0], child[1], "cancelling")

    def child_ended(self, _data: Mapping[str, Any], key: str) -> None:
        if self._open_child(key) is not None:
            self.head.children -= 1
            self.changes.children[key] = None

    def _open_child(self, key: str) -> tuple[str, int, str] | None:
        children = self.changes.children
        return children[key] if key in children else self.found.children.get(key)

    def hook_opened(self, data: Mapping[str, Any], key: str) -> None:
        inherited = numbered(token_of(key), 0)
        if self.found.holders.get(token_of(key)) == (self.run, inherited):
            self.changes.hooks.append(HookChange(inherited))
        self.changes.hooks.append(HookChange(key, data, self.head.time))

    def hook_closed(self, _data: Mapping[str, Any], key: str) -> None:
        self.changes.hooks.append(HookChange(key))

    def hook_refused(self, _data: Mapping[str, Any], key: str) -> None:
        self.changes.hooks = [change for change in self.changes.hooks if change.key != key]

    def hook_received(self, data: Mapping[str, Any], _key: str) -> None:
        row = self.rows[-1]
        if row.draft.unique is not None:
            self.changes.deliveries.append((row.draft.unique, row.position, data.get("digest", "")))

    def attributes_set(self, data: Mapping[str, Any], _key: str) -> None:
        merged = {**self.head.attributes, **data["attributes"]}
        self.head.attributes = {name: value for name, value in merged.items() if value is not None}

    def ended(self, data: Mapping[str, Any], _key: str) -> None:
        if data.get("continued"):
            # Whoever sees to orphans creates it: it must not be lost with the worker that ends this run.
            self.changes.children[CONTINUED] = (data["continued"], self.head.position, "continued")
            self.changes.continued = True
        end_run(self.head, self.rows[-1].draft.type)
        self.changes.ended = True


EFFECTS: Mapping[str, Callable[[Effects, Mapping[str, Any], str], None]] = {
    "run_created": Effects.created,
    "run_started": Effects.started,
    "step_scheduled": Effects.step_scheduled,
    "step_started": Effects.step_attempted,
    "step_retried": Effects.step_attempted,
    "step_completed": Effects.step_ended,
    "step_failed": Effects.step_ended,
    "timer_started": Effects.timer_started,
    "timer_fired": Effects.timer_ended,
    "timer_cancelled": Effects.timer_ended,
    "child_started": Effects.child_started,
    "child_cancelled": Effects.child_cancelled,
    "child_ended": Effects.child_ended,
    "hook_opened": Effects.hook_opened,
    "hook_closed": Effects.hook_closed,
    "hook_refused": Effects.hook_refused,
    "hook_received": Effects.hook_received,
    "attributes_set": Effects.attributes_set,
    **dict.fromkeys(ENDS, Effects.ended),
}
"""The effect of each type; the others have none."""
