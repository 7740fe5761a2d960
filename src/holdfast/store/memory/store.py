"""A handle on the runs of this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from holdfast import faults
from holdfast.chunks import Chunk
from holdfast.clock import Clock
from holdfast.errors import HoldfastError, LeaseLost
from holdfast.events import Event
from holdfast.queues import Queue
from holdfast.store.gauge import Gauge, WorkerLoad, count_runs, oldest_of
from holdfast.store.group import Answers, GroupStore, Item, Job
from holdfast.store.messages import SOME_QUEUE, News
from holdfast.store.queued import QueueRow, Taken, Waiting
from holdfast.store.removal import Removal, choose, neighbours_of
from holdfast.store.rows import (
    ALL,
    AccessToken,
    Child,
    Claim,
    Head,
    Hook,
    Link,
    OpenStep,
    RunFilter,
    ScheduleRow,
    Timer,
    WorkerRow,
)
from holdfast.store.rules import copy_of
from holdfast.store.streams import PAGE_CHUNKS, StreamHead, Write, Written, first_page

from . import ownership
from .appends import append
from .data import Data, Run
from .queues import Queues
from .streams import put_chunks


class MemoryStore(GroupStore):
    """A handle on runs that live in this process."""

    def __init__(self, url: str, clock: Clock | None, data: Data) -> None:
        super().__init__(url, clock)
        self._data = data
        self._enlisted: set[str] = set()
        self._queues = Queues(data)

    async def open(self) -> None:
        """Join the handles of this name."""
        self.opened()
        self._data.handles.append(self)

    async def close(self) -> None:
        """Leave; the data of a named store stay."""
        await self.drain()
        if self in self._data.handles:
            self._data.handles.remove(self)

    # ---- writing

    def commit_group(self, group: Sequence[Item]) -> tuple[Answers, list[News]]:
        """Judge and write each append of the group, in order."""
        faults.point("store.commit.before")
        answers: Answers = []
        news: list[News] = []
        with self._data.lock:
            for item in group:
                if isinstance(item, Job):
                    answers.append(_attempt(item.work))
                else:
                    answers.append(_attempt(partial(append, self._data, item, self.clock.now(), news)))
        faults.point("store.commit.after")
        return answers, news

    def tell_others(self, news: Sequence[News]) -> None:
        """The other handles of this name hear it on their own loops."""
        for handle in tuple(self._data.handles):
            if handle is not self and handle._loop is not None and not handle._loop.is_closed():
                handle._loop.call_soon_threadsafe(handle.tell, news)

    # ---- streams

    def put_chunks(self, write: Write) -> Written | HoldfastError:
        """Judge and write chunks of a stream."""
        return put_chunks(self._data, write, self.clock.now())

    async def read_stream(
        self, run_id: str, name: str, after: int = 0, limit: int = PAGE_CHUNKS
    ) -> list[Chunk]:
        """A page of a stream beyond `after`."""
        run = self._data.runs.get(run_id)
        stream = None if run is None else run.streams.get(name)
        return [] if stream is None else first_page(stream.chunks[after : after + limit])

    async def stream(self, run_id: str, name: str) -> StreamHead | None:
        """A stream's row, or None."""
        run = self._data.runs.get(run_id)
        stream = None if run is None else run.streams.get(name)
        return None if stream is None else msgspec.structs.replace(stream.head)

    async def streams(self, run_id: str) -> list[StreamHead]:
        """The streams of a run."""
        run = self._data.runs.get(run_id)
        return [] if run is None else [msgspec.structs.replace(s.head) for s in run.streams.values()]

    # ---- reading

    async def read(self, run_id: str, after: int = 0, limit: int | None = None) -> list[Event]:
        """The events beyond `after`."""
        run = self._data.runs.get(run_id)
        if run is None:
            return []
        return run.log[after : None if limit is None else after + limit]

    async def head(self, run_id: str) -> Head | None:
        """The run's row, or None."""
        run = self._data.runs.get(run_id)
        return None if run is None else copy_of(run.head)

    async def runs(
        self, which: RunFilter = ALL, *, before: tuple[int, str] | None = None, limit: int = 100
    ) -> list[Head]:
        """A page of runs, newest first."""
        found = [
            copy_of(run.head)
            for run in self._data.runs.values()
            if which.takes(run.head) and (before is None or (run.head.created, run.head.run) < before)
        ]
        found.sort(key=lambda head: (head.created, head.run), reverse=True)
        return found[:limit]

    async def hooks(
        self,
        *,
        run: str | None = None,
        token: str | None = None,
        open_only: bool = True,
        after: tuple[str, str] | None = None,
        limit: int = 100,
    ) -> list[Hook]:
        """A page of hooks by token and run; one that ends inside a pair holds the rest of it too."""
        found = [
            hook
            for hook in self._data.hooks.values()
            if (run is None or hook.run == run)
            and (token is None or hook.token == token)
            and (not open_only or hook.status == "open")
            and (after is None or (hook.token, hook.run) > after)
        ]
        found.sort(key=lambda hook: (hook.token, hook.run))
        page, rest = found[:limit], found[limit:]
        return page + [h for h in rest if page and (h.token, h.run) == (page[-1].token, page[-1].run)]

    async def timers(self, *, run: str | None = None, limit: int = 100) -> list[Timer]:
        """Pending timers, the earliest first."""
        runs = self._data.runs
        names = [run] if run is not None else list(runs)
        found = [Timer(n, k, due) for n in names if n in runs for k, due in runs[n].timers.items()]
        found.sort(key=lambda timer: (timer.due, timer.run, timer.key))
        return found[:limit]

    async def open_steps(self, run_id: str) -> list[OpenStep]:
        """The steps of a run that still owe an outcome."""
        run = self._data.runs.get(run_id)
        if run is None:
            return []
        queue = {key: queued.queue for key, queued in run.queued.items()}
        return [OpenStep(run_id, key, *run.steps[key], queue.get(key)) for key in sorted(run.steps)]

    async def children(self, run_id: str) -> list[Child]:
        """The child runs of which this run has not heard the end."""
        run = self._data.runs.get(run_id)
        return [] if run is None else self._children_of(run)

    def _children_of(self, run: Run) -> list[Child]:
        def ended(child: str) -> bool:
            return child in self._data.runs and self._data.runs[child].head.ended is not None

        rows = sorted(run.children.items())
        return [Child(run.head.run, key, *child, ended(child[0])) for key, child in rows]

    async def chain(self, run_id: str) -> list[Link]:
        """The appends of the run, in order."""
        run = self._data.runs.get(run_id)
        return [] if run is None else list(run.appends)

    # ---- who works on what

    async def enlist(self, worker: WorkerRow) -> None:
        """Add a worker, or move its lease on."""
        known = worker.id in self._enlisted
        await self.job(lambda: ownership.enlist(self._data, worker, known=known))
        self._enlisted.add(worker.id)

    async def workers(self) -> list[WorkerRow]:
        """All workers that have not left, and owners that are not enlisted."""
        known, runs = self._data.workers, self._data.runs.values()
        owners = {run.head.owner for run in runs if run.head.owner is not None} - known.keys()
        return [*known.values(), *(WorkerRow(owner, 0, "", 0) for owner in sorted(owners))]

    async def discharge(self, worker: str) -> None:
        """Free the runs of a worker that is gone."""
        self.announce(await self.job(lambda: ownership.discharge(self._data, self._queues, worker)))

    async def claim(
        self, worker: str, workflows: Sequence[str], *, limit: int = 100, parked: bool = False
    ) -> list[Claim]:
        """Give the worker free runs that are ready."""
        return await self.job(lambda: ownership.claim(self._data, worker, workflows, limit, parked=parked))

    async def owned(self, worker: str) -> list[Claim]:
        """The live runs that are this worker's."""
        return [
            ownership.claim_of(run, ready=run.head.to_load)
            for run in self._data.runs.values()
            if run.head.owner == worker and run.head.ended is None
        ]

    async def behind(self, worker: str) -> list[tuple[str, int]]:
        """This worker's runs with facts beyond the delivered mark."""
        heads = [run.head for run in self._data.runs.values()]
        return [(h.run, h.fact) for h in heads if h.owner == worker and h.fact > h.delivered]

    async def ended_children(self, worker: str) -> list[Child]:
        """The children of this worker's runs that have ended."""
        runs = [run for run in self._data.runs.values() if run.head.owner == worker and run.children]
        return [child for run in runs for child in self._children_of(run) if child.ended]

    async def orphans(self, limit: int = 100) -> list[Child]:
        """Children whose parent has ended."""
        return [child for run in self._data.orphaned.values() for child in self._children_of(run)][:limit]

    async def bury_orphan(self, run_id: str, key: str) -> None:
        """An orphan has been seen to."""
        await self.job(lambda: ownership.bury_orphan(self._data, run_id, key))

    async def release(self, worker: str, marks: Mapping[str, int]) -> None:
        """Free these runs again."""
        self.announce(await self.job(lambda: ownership.release(self._data, worker, marks)))

    async def park(self, run_id: str, reason: str | None) -> None:
        """Set a run aside, or take it up again."""
        self.announce(await self.job(lambda: ownership.park(self._data, run_id, reason)))

    async def crashed(self, run_id: str) -> int:
        """Count one more crash of a tick."""
        return await self.job(lambda: ownership.crashed(self._data, run_id))

    # ---- schedules

    async def schedules(self) -> list[ScheduleRow]:
        """The schedules, by workflow."""
        return [row for _, row in sorted(self._data.schedules.items())]

    async def swap_schedule(self, was: ScheduleRow | None, now: ScheduleRow | None) -> bool:
        """Put one row in the place of another."""
        return await self.job(lambda: ownership.swap_schedule(self._data, was, now))

    # ---- who may call a server

    async def tokens(self) -> list[AccessToken]:
        """The tokens that callers of a server may have."""
        return list(self._data.callers.values())

    async def put_token(self, token: AccessToken) -> None:
        """Keep a token's hash."""
        self._data.callers[token.id] = token

    async def drop_token(self, token: str) -> bool:
        """Forget a token."""
        return self._data.callers.pop(token, None) is not None

    # ---- queues

    async def take_steps(
        self, worker: str, queues: Sequence[Queue], steps: Sequence[str], room: int
    ) -> Taken:
        """Give the worker steps that wait in these queues."""

        def work() -> Taken:
            if worker not in self._data.workers:
                raise LeaseLost(f"worker {worker} is not enlisted, or was declared dead")
            return self._queues.take(worker, queues, frozenset(steps), room, self.clock.now())

        return await self.job(work)

    async def held_steps(self, worker: str) -> list[Waiting]:
        """The queued steps that are this worker's."""
        return self._queues.held(worker)

    async def put_back(self, worker: str, steps: Sequence[tuple[str, str]]) -> None:
        """Give up steps that were taken and not begun."""
        if await self.job(lambda: self._queues.put_back(worker, steps)):
            self.announce([SOME_QUEUE])

    async def queues(self) -> list[QueueRow]:
        """The queues in which steps wait or run."""
        return self._queues.rows()

    async def gauge(self, since: int) -> Gauge:
        """What the runs come to at this moment; here, all of them are looked at."""
        heads = [run.head for run in self._data.runs.values()]
        live = [head for head in heads if head.ended is None]
        logs = [run.log for run in self._data.runs.values()]
        unseen = (
            (event.run, event.time)
            for head in live
            if head.parked is None and head.fact > head.delivered
            for event in self._data.runs[head.run].log[head.delivered : head.fact]
            if event.cls == "fact"
        )
        return Gauge(
            self.clock.now(),
            count_runs(heads),
            sum(head.created > since for head in heads),
            sum(map(len, logs)),
            sum(event.type in ("step_completed", "step_failed") for log in logs for event in log),
            oldest_of((head.run, head.created) for head in live),
            oldest_of((head.run, head.time) for head in live if head.owner is None and head.ready),
            oldest_of(unseen),
            [
                WorkerLoad(
                    worker,
                    sum(head.owner == worker.id for head in live),
                    len(self._queues.held(worker.id)),
                )
                for worker in self._data.workers.values()
            ],
        )

    # ---- removing

    async def remove(self, runs: Sequence[str], ended_before: int, *, dry: bool = False) -> Removal:
        """Remove runs that ended before a time, and all that belongs to them."""

        def work() -> Removal:
            candidates = self._data.candidates(runs, ended_before)
            there = {name for name in neighbours_of(candidates) if name in self._data.runs}
            going, kept = choose(candidates, there)
            if not dry:
                faults.point("prune.commit.before")
                self._data.drop([candidate.run for candidate in going])
            return Removal([c.run for c in going], sum(c.position for c in going), kept)

        removal = await self.job(work)
        faults.point("prune.commit.after")
        return removal


def _attempt(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - the answer of this job alone
        return error
