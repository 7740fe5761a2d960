"""What a store's rows come to at one moment: how many runs, who works, what waits and since when.

`Store.gauge` is what `holdfast top` asks every few seconds, so it must cost a busy store next to nothing, however
many runs it holds. Each part is read through an index and stops at `MOST` rows; a count that stops there says
"that many or more". Counters (`events`, `steps`) mean nothing by themselves: the difference between two looks
does.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from .rows import Head, WorkerRow

MOST = 10_000
"""Rows that one part of a look reads at most."""
STATES = ("pending", "running", "completed", "failed", "cancelled", "parked")
"""What runs are counted by: their status, and `parked` besides."""
TAIL = 20_000
"""New events that are looked at one by one, where the store keeps no counter: of more, a sample of so many."""


class Oldest(msgspec.Struct, frozen=True):
    """Of the runs in some state, the one that is in it since longest (`since`: microseconds since 1970)."""

    run: str
    since: int


class WorkerLoad(msgspec.Struct, frozen=True):
    """A worker, the runs that it owns, and the steps of queues that it holds."""

    worker: WorkerRow
    runs: int
    held: int


class Gauge(msgspec.Struct, frozen=True):
    """One look at a store.

    time         the store's clock, microseconds since 1970
    runs         how many there are of each status, and of parked ones; each counted to `MOST`
    started      runs created since the time that was asked for, counted to `MOST`
    events       a counter of events; `steps` one of steps that got their outcome
    oldest       the oldest run that has not ended, since it was created
    free         the oldest run that has work to do and no worker, since its last event
    undelivered  the oldest fact that its run's code has not seen, by the run; those of parked runs left out
    """

    time: int
    runs: dict[str, int]
    started: int
    events: int
    steps: int
    oldest: Oldest | None
    free: Oldest | None
    undelivered: Oldest | None
    workers: list[WorkerLoad]

    @property
    def live(self) -> int | None:
        """How many runs have not ended; None for more than were counted."""
        pending, running = self.runs.get("pending", 0), self.runs.get("running", 0)
        return None if max(pending, running) >= MOST else pending + running

    @property
    def refusals(self) -> int:
        """Appends that were refused as stale, as the workers that are alive have counted them."""
        return sum(load.worker.counters.get("refusals", 0) for load in self.workers)


class Rates(msgspec.Struct, frozen=True):
    """What happened in a second, between two looks. None: not known, for there was more than is counted."""

    events: float
    steps: float
    started: float | None
    ended: float | None


def rates(before: Gauge, now: Gauge) -> Rates:
    """What happened between two looks, the second of which asked for runs since the first.

    Ends are not looked for: they are the runs that were there or came, and are there no more.
    """
    seconds = max(now.time - before.time, 1) / 1e6
    started = None if now.started >= MOST else now.started
    ended = None
    if started is not None and before.live is not None and now.live is not None:
        ended = max(before.live + started - now.live, 0)
    return Rates(
        events=max(now.events - before.events, 0) / seconds,
        steps=max(now.steps - before.steps, 0) / seconds,
        started=None if started is None else started / seconds,
        ended=None if ended is None else ended / seconds,
    )


def oldest_of(found: Iterable[tuple[str, int]]) -> Oldest | None:
    """The run with the earliest time."""
    return min((Oldest(run, since) for run, since in found), key=lambda one: one.since, default=None)


def count_runs(heads: Iterable[Head]) -> dict[str, int]:
    """How many runs there are of each status, and how many are parked."""
    counted = dict.fromkeys(STATES, 0)
    for head in heads:
        counted[head.status] += 1
        counted["parked"] += head.parked is not None
    return counted
