"""The rows of a store, as people and workers see them; what each is for says `base.Store`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from ..events import Event
from ..schedules import Missed, Schedule

Status = Literal["pending", "running", "completed", "failed", "cancelled"]


class Link(NamedTuple):
    """One append of a log: its last position, the hash over the log up to there (law L13), and its fence.

    `after` is the view on which its commands rested (law L4). It is None for facts and records from outside, which
    rest on no view, and for an append whose commands were refused and whose facts were kept (law L5).
    """

    last: int
    hash: bytes
    after: int | None = None


class Head(msgspec.Struct, gc=False):
    """A run's row: what its log comes to. `chain` is the hash over the whole log (law L13)."""

    run: str
    workflow: str = ""
    status: Status = "pending"
    position: int = 0
    time: int = 0
    chain: bytes = b""
    command: int = 0
    fact: int = 0
    delivered: int = 0
    steps: int = 0
    timers: int = 0
    children: int = 0
    created: int = 0
    ended: int | None = None
    attributes: dict[str, str] = {}
    owner: str | None = None
    parked: str | None = None
    crashes: int = 0
    parent: str | None = None
    root: str | None = None
    row: int = 0

    @property
    def ready(self) -> bool:
        """Whether a worker has something to do or to hold for it (law L14)."""
        if self.ended is not None or self.parked is not None:
            return False
        return self.steps > 0 or self.timers > 0 or self.to_load

    @property
    def to_load(self) -> bool:
        """Whether there is more to do than to wait for a timer."""
        return self.status == "pending" or self.fact > self.delivered or self.steps > 0 or self.children > 0


class RunFilter(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which runs of a store are meant; what is None does not matter.

    `attributes`: the run has all of these. `parent`: its child runs; `root`: that run and all below it.
    """

    status: str | None = None
    workflow: str | None = None
    attributes: Mapping[str, str] | None = None
    parked: bool | None = None
    parent: str | None = None
    root: str | None = None

    def takes(self, head: Head) -> bool:
        """Whether this run is meant."""
        return (
            self.status in (None, head.status)
            and self.workflow in (None, head.workflow)
            and self.parked in (None, head.parked is not None)
            and self.parent in (None, head.parent)
            and self.root in (None, head.root, head.run)
            and all(head.attributes.get(name) == text for name, text in (self.attributes or {}).items())
        )


ALL = RunFilter()
"""Every run."""


class Hook(msgspec.Struct, frozen=True):
    """A hook as people see it. `status`: open, closed, run_ended, continued (its run goes on as another)."""

    token: str
    run: str
    key: str
    status: str
    opened: int
    schema: dict[str, Any] | None = None
    metadata: Any = None


class Timer(msgspec.Struct, frozen=True):
    """A pending timer; `due` in microseconds since 1970."""

    run: str
    key: str
    due: int


class OpenStep(msgspec.Struct, frozen=True):
    """A step that still owes an outcome; `due`, where set, is when its next attempt may start.

    One with a `queue` is not its run's worker's to run: whoever serves the queue takes it.
    """

    run: str
    key: str
    attempt: int
    due: int | None
    queue: str | None = None


class Child(msgspec.Struct, frozen=True):
    """A child run of which its parent, `run`, has not heard the end.

    `position` is that of its `child_started` in the parent's log. `status`: open, cancelling (its parent does
    not wait for it any more), detached (it is to be started, and then goes its own way). `ended`: whether a
    run with its id is there and has ended.
    """

    run: str
    key: str
    child: str
    position: int
    status: str
    ended: bool


class TakenUp(msgspec.Struct, frozen=True):
    """What a worker reads of a run that it takes up: the log, the steps that owe an outcome, the open children."""

    events: list[Event]
    steps: list[OpenStep]
    children: list[Child]


class Claim(msgspec.Struct, frozen=True):
    """A run that a worker has been given; `due` is its earliest timer, `ready` whether to load it now.

    `crashes` counts the ticks in a row that killed their worker or did not come back.
    """

    run: str
    workflow: str
    due: int | None
    ready: bool
    crashes: int = 0


class WorkerRow(msgspec.Struct, frozen=True):
    """A worker that is, or was, alive: its lease ends at `expires` (microseconds since 1970).

    `counters` is what it says of itself with each sign of life: `refusals` of its appends so far, step attempts
    that are `running` in its process.
    """

    id: str
    pid: int
    host: str
    expires: int
    counters: dict[str, int] = {}

    def alive(self, now: int) -> bool:
        """Whether its lease runs at `now` (microseconds since 1970)."""
        return self.expires >= now


class AccessToken(msgspec.Struct, frozen=True):
    """What a store keeps of a caller's token: never the token itself, but the hash of its secret half."""

    id: str
    scope: str
    hash: bytes
    created: int
    note: str = ""


class ScheduleRow(msgspec.Struct, frozen=True):
    """A workflow's schedule as the store has it, which is what runs are started by.

    Every due time up to `since` has been seen to. `keeper` is a worker whose code declares the schedule.
    """

    workflow: str
    cron: str
    timezone: str
    missed: Missed
    since: int
    paused: bool = False
    keeper: str | None = None

    @property
    def schedule(self) -> Schedule:
        """The schedule alone."""
        return Schedule(self.cron, self.timezone, self.missed)
