"""What the memory store holds: runs, streams, and who waits in which queue; shared by the handles of one name."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from ..chunks import Chunk
from ..events import Event, name_of
from ..queues import Queue
from .queued import Look, Queued, QueueRow, Taken, Usage, Waiting, answered, choose
from .removal import Candidate
from .rows import AccessToken, Head, Hook, Link, ScheduleRow, WorkerRow
from .streams import StreamHead

if TYPE_CHECKING:
    from .memory import MemoryStore


class Run:
    """One run: its log, and what is derived from it."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self.log: list[Event] = []
        self.uniques: dict[str, int] = {}
        self.batches: dict[str, tuple[int, int]] = {}
        self.appends: list[Link] = []
        self.steps: dict[str, tuple[int, int | None]] = {}
        self.timers: dict[str, int] = {}
        self.children: dict[str, tuple[str, int, str]] = {}
        self.queued: dict[str, Queued] = {}
        self.holders: dict[str, str] = {}
        """Of the queued steps, those that a worker has taken."""
        self.streams: dict[str, Stream] = {}


class Stream:
    """One stream of a run, with what its writes are found again by."""

    def __init__(self, head: StreamHead) -> None:
        self.head = head
        self.chunks: list[Chunk] = []
        self.keys: dict[str, int] = {}
        self.batches: dict[str, tuple[int, int]] = {}


class Data:
    """What the handles of one name share."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.runs: dict[str, Run] = {}
        self.hooks: dict[tuple[str, str], Hook] = {}
        self.tokens: dict[str, list[tuple[str, str]]] = {}
        """Of each token, its hooks (run, key) in the order in which they opened."""
        self.deliveries: dict[str, tuple[str, int, str]] = {}
        self.workers: dict[str, WorkerRow] = {}
        self.starts: dict[str, list[int]] = {}
        """When steps of a queue were taken, as far as its rate asks."""
        self.orphaned: dict[str, Run] = {}
        """Ended runs with children that nobody has seen to."""
        self.callers: dict[str, AccessToken] = {}
        self.schedules: dict[str, ScheduleRow] = {}
        self.handles: list[MemoryStore] = []

    def candidates(self, names: Sequence[str], ended_before: int) -> list[Candidate]:
        """What removing these runs takes to know, of those that ended before a time."""
        found = []
        for name in dict.fromkeys(names):
            run = self.runs.get(name)
            if run is None or run.head.ended is None or run.head.ended >= ended_before:
                continue
            parent = None if run.head.parent is None else self.runs.get(run.head.parent)
            found.append(
                Candidate(
                    name,
                    run.head.row,
                    run.head.position,
                    run.log[0].body,
                    run.log[run.head.command - 1].body if run.head.command else None,
                    bool(run.children),
                    parent is not None and any(child == name for child, *_ in parent.children.values()),
                )
            )
        return found

    def drop(self, names: Sequence[str]) -> None:
        """Forget runs, and all that belongs to them."""
        gone = set(names)
        for name in gone:
            del self.runs[name]
        self.deliveries = {key: row for key, row in self.deliveries.items() if row[0] not in gone}
        self.hooks = {place: hook for place, hook in self.hooks.items() if place[0] not in gone}
        left = {token: [at for at in places if at[0] not in gone] for token, places in self.tokens.items()}
        self.tokens = {token: places for token, places in left.items() if places}


class Queues:
    """The steps that wait in queues, and who has taken them (`queued.py`); called under the lock."""

    def __init__(self, data: Data) -> None:
        self._data = data

    def take(
        self, worker: str, queues: Sequence[Queue], known: Collection[str], room: int, now: int
    ) -> Taken:
        """Choose what a worker may begin, and mark it as held."""
        taken = Taken()
        for queue in queues:
            left = room - len(taken.steps)
            choice = choose(queue, self._usage(queue, now), left, now)
            got = answered(choice, self._look(queue, known, now))
            for step in got.steps:
                self._data.runs[step.run].holders[step.key] = worker
            if queue.rate is not None:
                self._data.starts[queue.name] += [now] * len(got.steps)
            taken = taken.plus(got, self._next_due(queue.name, now))
        return taken

    def held(self, worker: str) -> list[Waiting]:
        """What a worker holds."""
        return [
            self._waiting(name, key)
            for name, run in self._data.runs.items()
            for key, holder in run.holders.items()
            if holder == worker
        ]

    def put_back(self, worker: str, steps: Sequence[tuple[str, str]]) -> bool:
        """Give up what a worker holds; whether anything was."""
        found = False
        for name, key in steps:
            run = self._data.runs.get(name)
            if run is not None and run.holders.get(key) == worker:
                del run.holders[key]
                found = True
        return found

    def rows(self) -> list[QueueRow]:
        """The queues in which steps wait or run, by name."""
        found: dict[str, list[tuple[int, bool]]] = {}
        for run in self._data.runs.values():
            for key, queued in run.queued.items():
                found.setdefault(queued.queue, []).append((queued.time, key in run.holders))
        return [
            QueueRow(
                name,
                sum(not held for _, held in rows),
                sum(held for _, held in rows),
                min((time for time, held in rows if not held), default=None),
            )
            for name, rows in sorted(found.items())
        ]

    def _usage(self, queue: Queue, now: int) -> Usage:
        running: dict[str | None, int] = {}
        for run in self._data.runs.values():
            for key in run.holders:
                if run.queued[key].queue == queue.name:
                    limit_key = run.queued[key].limit_key
                    running[limit_key] = running.get(limit_key, 0) + 1
        if queue.rate is None:
            return Usage(running)
        since = now - round(queue.rate[1] * 1e6)
        starts = [time for time in self._data.starts.get(queue.name, ()) if time > since]
        self._data.starts[queue.name] = starts
        return Usage(running, list(starts))

    def _look(self, queue: Queue, known: Collection[str], now: int) -> Look:
        def look(full: Collection[str], limit: int) -> list[Waiting]:
            found = [
                (-queued.priority, queued.time, name, queued.position, key)
                for name, run in self._data.runs.items()
                for key, queued in run.queued.items()
                if queued.queue == queue.name
                and key not in run.holders
                and name_of(key) in known
                and queued.limit_key not in full
                and (run.steps[key][1] or 0) <= now
            ]
            return [self._waiting(run, key) for _, _, run, _, key in sorted(found)[:limit]]

        return look

    def _waiting(self, name: str, key: str) -> Waiting:
        run = self._data.runs[name]
        return Waiting(name, key, *run.steps[key], run.queued[key].limit_key, run.queued[key].position)

    def _next_due(self, queue: str, now: int) -> int | None:
        dues = (
            run.steps[key][1] or 0
            for run in self._data.runs.values()
            for key, queued in run.queued.items()
            if queued.queue == queue
        )
        return min((due for due in dues if due > now), default=None)
