"""What judging an append takes and gives: the look-ups (`Found`) and the `Verdict`, as plain data.

Every backend fills the one and writes the other; `rules` and `outcomes` lie between them.

`gc=False`: they hold no cycles and are made by the thousand; visiting them cost a seventh of a group commit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from holdfast.errors import HoldfastError
from holdfast.events import ENDS, Draft, Event

from .messages import Appended
from .queued import Queued
from .rows import Head


class Found(msgspec.Struct, gc=False):
    """What the backend looked up for one append, in the transaction that will write the verdict."""

    head: Head | None
    steps: Mapping[str, tuple[int, int | None]] = {}
    """Of the steps that the drafts name, those that owe an outcome: key -> (attempt, due)."""
    timers: Mapping[str, int] = {}
    """Of the timers that the drafts name, those that are pending: key -> due."""
    children: Mapping[str, tuple[str, int, str]] = {}
    """Of the children that the drafts name, those not ended: key -> (child, position, status)."""
    batch: tuple[int, int] | None = None
    """First and last position of this batch, where it is in the log already."""
    uniques: Mapping[str, int] = {}
    """Which of `wanted(drafts)` are in the log, and where."""
    holders: Mapping[str, tuple[str, str]] = {}
    """Of the tokens that the drafts name, those that are open: token -> (run, key)."""
    former: Mapping[str, str] = {}
    """Of those tokens, the ones that are not open but once were: token -> closed, run_ended or continued."""
    continued: Mapping[str, str] = {}
    """Of those tokens, the ones whose newest hook was left open by a run that goes on as another: -> that run."""
    deliveries: Mapping[str, tuple[str, int, str]] = {}
    """Of the deliveries that the drafts carry, those known: unique key -> (run, position, digest)."""
    beyond: Sequence[Event] = ()
    """All events beyond `after`, where there are any."""


class Row(msgspec.Struct, frozen=True, gc=False):
    """An event with its place in the log."""

    position: int
    draft: Draft
    time: int

    def event(self, run: str) -> Event:
        """The event, as the log of this run holds it."""
        draft = self.draft
        return Event(run, self.position, draft.type, draft.key, self.time, draft.body)


class Changes(msgspec.Struct, gc=False):
    """What an append changes in the projections; None in `steps`, `timers`, `children`: no longer there."""

    steps: dict[str, tuple[int, int | None] | None] = {}
    timers: dict[str, int | None] = {}
    children: dict[str, tuple[str, int, str] | None] = {}
    hooks: list[HookChange] = []
    queued: dict[str, Queued] = {}
    """Of the steps that are new, those that wait in a queue."""
    deliveries: list[tuple[str, int, str]] = []
    """(unique key, position, digest) of each payload."""
    ended: bool = False
    """The run's steps and timers go, its open hooks become run_ended, its children orphans."""
    continued: bool = False
    """It goes on as another run: its open hooks become continued instead."""
    only_steps: bool = True
    """Nothing but `steps` is changed, as by most appends."""

    def see_what_is_there(self) -> None:
        """Set `only_steps`, when everything else is set."""
        more = self.timers or self.children or self.hooks or self.queued or self.deliveries
        self.only_steps = not (more or self.ended or self.continued)


def change_rows(rows: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Bring rows by their keys up to date with `steps`, `timers` or `children` of `Changes`."""
    for key, value in changes.items():
        if value is None:
            rows.pop(key, None)
        else:
            rows[key] = value


class HookChange(msgspec.Struct, frozen=True, gc=False):
    """A hook that opens (with its event's data) or, without data, closes; in the order of the code."""

    key: str
    data: Mapping[str, Any] | None = None
    time: int = 0


class Verdict(msgspec.Struct):
    """What to write (nothing, where `rows` is empty), and the answer."""

    answer: Appended | HoldfastError
    rows: list[Row] = []
    head: Head | None = None
    changes: Changes | None = None

    def end(self) -> Event | None:
        """The event that ends the run, where this append does: for those who wait for it."""
        assert self.head is not None
        for row in self.rows:
            if row.draft.type in ENDS:
                return row.event(self.head.run)
        return None


def wanted(drafts: Iterable[Draft]) -> set[str]:
    """The unique keys that must be looked up: the drafts' own, and those of the commands they rest on."""
    keys: set[str] = set()
    for draft in drafts:
        if draft.unique is not None:
            keys.add(draft.unique)
        rests_on = command_of(draft)
        if rests_on is not None:
            keys.add(rests_on)
        if draft.type in OUTCOMES:
            keys.add(start_of(draft))
    return keys


def command_of(draft: Draft) -> str | None:
    """The unique key of the command that an event rests on (that a fact reports on, say), or None."""
    kind = RESTS_ON.get(draft.type)
    return None if kind is None else f"{kind} {draft.key}"


def start_of(outcome: Draft) -> str:
    """The unique key of the start of the attempt whose outcome this is."""
    return f"step {outcome.key} attempt {outcome.data.get('attempt', 1)} started"


RESTS_ON = {
    "step_started": "step",
    "step_retried": "step",
    "step_completed": "step",
    "step_failed": "step",
    "timer_fired": "timer",
    "hook_received": "hook",
    "child_ended": "child",
    "timer_cancelled": "timer",
    "child_cancelled": "child",
    "hook_closed": "hook",
}
"""The types that rest on a command of this kind and the same key."""
FROM_MEMORY = frozenset(
    {
        *("run_created", "run_started", "run_completed", "run_failed", "run_cancelled", "cancel_requested"),
        *("step_scheduled", "step_started", "step_retried", "step_completed", "step_failed"),
        *("timer_started", "timer_cancelled", "timer_fired"),
        *("child_started", "child_cancelled", "child_ended"),
        *("attributes_set", "noted", "patched", "woken"),
    }
)
"""The types that can be judged by a process that remembers the run: they need nothing looked up but the head and
what is open (steps, timers, children)."""
OUTCOMES = frozenset({"step_completed", "step_failed"})
"""The facts that may still be recorded after the end of their run (law L11)."""


def extend_chain(chain: bytes, rows: Iterable[tuple[int, str, str, int, bytes]]) -> bytes:
    """The hash over the previous hash and these events (position, type, key, time, body): law L13."""
    parts = [chain]
    for position, type_, key, time, body in rows:
        parts += f"{position}\0{type_}\0{key}\0{time}\0{len(body)}\0".encode(), body
    return blake2b(b"".join(parts), digest_size=16).digest()


copy_of: Callable[[Head], Head] = Head.__copy__  # type: ignore[attr-defined]
"""A shallow copy of a head (`copy.copy` costs three times as much)."""
