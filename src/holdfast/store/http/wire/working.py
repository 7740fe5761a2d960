"""Who works on what: workers, their runs, queues, schedules; what is removed, and what a commit changed."""

from __future__ import annotations

import msgspec

from holdfast.queues import Queue
from holdfast.store.queued import QueueRow, Waiting
from holdfast.store.rows import (
    Claim,
    ScheduleRow,
    WorkerRow,
)


class OfWorker(msgspec.Struct, frozen=True):
    """A worker by its id."""

    worker: str


class ListOrphans(msgspec.Struct, frozen=True, omit_defaults=True):
    """How many orphans at most."""

    limit: int = 100


class OfChild(msgspec.Struct, frozen=True):
    """A child by its parent and its key there."""

    run: str
    key: str


class Enlist(msgspec.Struct, frozen=True):
    """A worker's sign of life. `known`: it has enlisted before. Its `session` is that of its news stream."""

    worker: WorkerRow
    session: str
    known: bool = False


class Workers(msgspec.Struct):
    """Workers that have not left."""

    workers: list[WorkerRow]


class Discharge(msgspec.Struct, frozen=True):
    """A worker is gone."""

    worker: str


class ClaimRuns(msgspec.Struct, frozen=True, omit_defaults=True):
    """Free runs of these workflows, for a worker."""

    worker: str
    workflows: list[str]
    limit: int = 100
    parked: bool = False


class Claims(msgspec.Struct):
    """Runs that a worker has been given."""

    claims: list[Claim]


class Release(msgspec.Struct, frozen=True):
    """Runs that a worker gives back, each with the position up to which it delivered every fact."""

    worker: str
    marks: dict[str, int]


class Park(msgspec.Struct, frozen=True):
    """Set a run aside with a reason (JSON text), or take it up again with none."""

    run: str
    reason: str | None = None


class Crashes(msgspec.Struct):
    """How often the ticks of a run have crashed in a row."""

    count: int


class LastFact(msgspec.Struct, frozen=True, array_like=True):
    """A run, and the position of its last fact."""

    run: str
    fact: int


class Behind(msgspec.Struct):
    """Runs with facts beyond their delivered mark."""

    runs: list[LastFact]


class TakeSteps(msgspec.Struct, frozen=True):
    """Steps that wait in these queues, for a worker that knows these steps and has room for so many."""

    worker: str
    queues: list[Queue]
    steps: list[str]
    room: int


class StepsTaken(msgspec.Struct, omit_defaults=True):
    """Queued steps that a worker has; `again` is when to ask again (µs), where time alone forbids more."""

    steps: list[Waiting]
    again: int | None = None


class PutBack(msgspec.Struct, frozen=True):
    """Steps (run, key) that a worker has taken and not begun."""

    worker: str
    steps: list[tuple[str, str]]


class QueueRows(msgspec.Struct):
    """Queues in which steps wait or run."""

    queues: list[QueueRow]


class ScheduleRows(msgspec.Struct):
    """Schedules, by workflow."""

    schedules: list[ScheduleRow]


class SwapSchedule(msgspec.Struct, frozen=True):
    """One schedule in the place of another, of the same workflow; null is none."""

    was: ScheduleRow | None
    now: ScheduleRow | None


class Swapped(msgspec.Struct):
    """Whether it was done: another row may stand there."""

    done: bool


class RemoveRuns(msgspec.Struct, frozen=True, omit_defaults=True):
    """Runs to be removed if they ended before a time (µs since 1970); with `dry`, only what would be."""

    runs: list[str]
    ended_before: int
    dry: bool = False


class Done(msgspec.Struct):
    """It is done, and there is nothing to say."""
