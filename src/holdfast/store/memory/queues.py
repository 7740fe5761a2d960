"""The steps that wait in queues, and who has taken them; who may take which says `store/queued.py`."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from holdfast.events import name_of
from holdfast.queues import Queue
from holdfast.store.queued import Look, QueueRow, Taken, Usage, Waiting, answered, choose

from .data import Data


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
