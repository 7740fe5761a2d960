"""The store in memory: for tests, for simulation, and as the oracle that the other backends are held to.

`memory://` is private to its handle; `memory://name` is shared by every handle of the process, also by
handles that live on other threads' loops.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from .. import faults
from ..chunks import Chunk
from ..clock import Clock
from ..errors import HoldfastError, LeaseLost, RunNotFound
from ..events import Event, dump_json, load_json, token_of
from ..queues import Queue
from .base import Store
from .gauge import Gauge, WorkerLoad, count_runs, oldest_of
from .group import Answers, GroupStore, Item, Job
from .memory_data import Data, Queues, Run, Stream
from .messages import SOME_QUEUE, Append, Appended, News, news_of_queues
from .queued import QueueRow, Taken, Waiting
from .removal import Removal, choose, neighbours_of
from .rows import (
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
from .rules import Changes, Found, HookChange, Verdict, copy_of, judge, resolve, wanted
from .streams import PAGE_CHUNKS, StreamHead, Write, Written, first_page, judge_write
from .streams import Found as StreamFound

_shared: dict[str, Data] = {}


def open_memory(url: str, clock: Clock | None = None) -> Store:
    """A handle on the memory store of this URL."""
    name = url.removeprefix("memory://")
    data = _shared.setdefault(name, Data()) if name else Data()
    return MemoryStore(url, clock, data)


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
                    answers.append(_attempt(lambda item=item: self._append(item, news)))  # type: ignore[misc]
        faults.point("store.commit.after")
        return answers, news

    def tell_others(self, news: Sequence[News]) -> None:
        """The other handles of this name hear it on their own loops."""
        for handle in tuple(self._data.handles):
            if handle is not self and handle._loop is not None and not handle._loop.is_closed():
                handle._loop.call_soon_threadsafe(handle.tell, news)

    def _append(self, request: Append, news: list[News]) -> Appended | BaseException:
        if request.token is not None:
            refused = resolve(request, self._find(request))
            if refused is not None:
                return refused
        verdict = judge(request, self._find(request), self.clock.now())
        if verdict.rows:
            self._write(request, verdict, news)
        return verdict.answer

    def _find(self, request: Append) -> Found:
        data, run = self._data, self._data.runs.get(request.run)
        found = Found(None if run is None else run.head)
        tokens = {token_of(d.key) for d in request.drafts if d.type in ("hook_opened", "hook_received")}
        opened = {token: [data.hooks[at] for at in data.tokens.get(token, ())] for token in tokens}
        found.former = {token: hooks[-1].status for token, hooks in opened.items() if hooks}
        found.continued = {
            token: hooks[-1].run
            for token, hooks in opened.items()
            if hooks and hooks[-1].status == "continued"
        }
        found.holders = {
            # The newest open one; they are all of one run, which `rules` sees to.
            token: (hook.run, hook.key)
            for token, hooks in opened.items()
            for hook in hooks
            if hook.status == "open"
        }
        found.deliveries = {
            str(d.unique): data.deliveries[d.unique] for d in request.drafts if d.unique in data.deliveries
        }
        if run is None:
            return found
        found.batch = run.batches.get(request.batch)
        found.uniques = {key: run.uniques[key] for key in wanted(request.drafts) if key in run.uniques}
        found.steps, found.timers, found.children = run.steps, run.timers, run.children
        found.beyond = run.log[request.after :] if request.after is not None else ()
        return found

    def _write(self, request: Append, verdict: Verdict, news: list[News]) -> None:
        head, changes, data = verdict.head, verdict.changes, self._data
        assert head is not None
        assert changes is not None
        run = data.runs.setdefault(head.run, Run(head))
        was_fact = 0 if run.head is head else run.head.fact
        run.head = head
        for row in verdict.rows:
            draft = row.draft
            run.log.append(Event(head.run, row.position, draft.type, draft.key, row.time, draft.body))
            if draft.unique is not None:
                run.uniques.setdefault(draft.unique, row.position)
        whole = isinstance(verdict.answer, Appended)
        if whole:
            run.batches[request.batch] = (verdict.rows[0].position, verdict.rows[-1].position)
        run.appends.append(Link(head.position, head.chain, request.after if whole else None))
        _change_steps(run, changes)
        _apply(run.timers, changes.timers)
        _apply(run.children, changes.children)
        for change in changes.hooks:
            self._change_hook(head, change)
        for unique, position, digest in changes.deliveries:
            data.deliveries[unique] = (head.run, position, digest)
        if changes.ended:
            for rows in (run.steps, run.timers, run.queued, run.holders):
                rows.clear()
            if run.children:
                data.orphaned[head.run] = run
            self._end_hooks(head.run, "continued" if changes.continued else "run_ended")
        # Facts that come back to their writer with the answer are no news; those of a refused one are.
        outside = head.fact > was_fact and not (whole and request.after is not None)
        news.append(News(head.run, head.owner, outside, changes.ended, head.ready))
        if changes.queued:
            news += news_of_queues(head.run, changes.queued)

    def _change_hook(self, head: Head, change: HookChange) -> None:
        key, opened = change.key, change.data
        token = token_of(key)
        if opened is not None:
            schema, metadata = _plain(opened.get("schema")), _plain(opened.get("metadata"))
            hook = Hook(token, head.run, key, "open", change.time, schema, metadata)
            self._data.hooks[head.run, key] = hook
            self._data.tokens.setdefault(token, []).append((head.run, key))
            return
        hook_row = self._data.hooks.get((head.run, key))
        if hook_row is not None and hook_row.status == "open":
            self._shut(hook_row, "closed")

    def _end_hooks(self, run: str, status: str) -> None:
        for hook in list(self._data.hooks.values()):
            if hook.run == run and hook.status == "open":
                self._shut(hook, status)

    def _shut(self, hook: Hook, status: str) -> None:
        self._data.hooks[hook.run, hook.key] = Hook(
            hook.token, hook.run, hook.key, status, hook.opened, hook.schema, hook.metadata
        )

    # ---- streams

    def put_chunks(self, write: Write) -> Written | HoldfastError:
        """Judge and write chunks of a stream."""
        run = self._data.runs.get(write.run)
        stream = None if run is None else run.streams.get(write.name)
        found = StreamFound(run is not None, run is not None and run.head.ended is not None)
        author = write.author
        if author is not None and author.run in self._data.runs:
            found.open = self._data.runs[author.run].steps.get(author.step)
        if stream is not None:
            found.stream, found.keys, found.batch = stream.head, stream.keys, stream.batches.get(write.batch)
        verdict = judge_write(write, found, self.clock.now())
        if verdict.head is not None and run is not None:
            stream = run.streams.setdefault(write.name, Stream(verdict.head))
            stream.head = verdict.head
            stream.chunks += verdict.chunks
            stream.keys.update((c.key, c.position) for c in verdict.chunks if c.key is not None)
            stream.batches[write.batch] = (verdict.chunks[0].position, verdict.chunks[-1].position)
        return verdict.answer

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

        def work() -> None:
            if worker.id in self._enlisted and worker.id not in self._data.workers:
                raise LeaseLost(f"worker {worker.id} was declared dead: its runs belong to others now")
            self._data.workers[worker.id] = worker

        await self.job(work)
        self._enlisted.add(worker.id)

    async def workers(self) -> list[WorkerRow]:
        """All workers that have not left, and owners that are not enlisted."""
        known, runs = self._data.workers, self._data.runs.values()
        owners = {run.head.owner for run in runs if run.head.owner is not None} - known.keys()
        return [*known.values(), *(WorkerRow(owner, 0, "", 0) for owner in sorted(owners))]

    async def discharge(self, worker: str) -> None:
        """Free the runs of a worker that is gone."""

        def work() -> list[News]:
            self._data.workers.pop(worker, None)
            heads = [run.head for run in self._data.runs.values() if run.head.owner == worker]
            for head in heads:
                head.owner = None
            held = [(step.run, step.key) for step in self._queues.held(worker)]
            return _freed(heads) + [SOME_QUEUE] * self._queues.put_back(worker, held)

        self.announce(await self.job(work))

    async def claim(
        self, worker: str, workflows: Sequence[str], *, limit: int = 100, parked: bool = False
    ) -> list[Claim]:
        """Give the worker free runs that are ready."""

        def work() -> list[Claim]:
            if worker not in self._data.workers:
                raise LeaseLost(f"worker {worker} is not enlisted, or was declared dead")
            claims: list[Claim] = []
            for run in self._data.runs.values():
                head = run.head
                if len(claims) >= limit:
                    break
                wanted_now = _to_take_up(head) if parked else head.ready
                if head.owner is None and head.workflow in workflows and wanted_now:
                    head.owner = worker
                    if parked:
                        head.parked = None
                    claims.append(_claim(run, ready=parked or head.to_load))
            return claims

        return await self.job(work)

    async def owned(self, worker: str) -> list[Claim]:
        """The live runs that are this worker's."""
        return [
            _claim(run, ready=run.head.to_load)
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

        def work() -> None:
            run = self._data.orphaned.get(run_id)
            if run is not None:
                run.children.pop(key, None)
                if not run.children:
                    del self._data.orphaned[run_id]

        await self.job(work)

    async def release(self, worker: str, marks: Mapping[str, int]) -> None:
        """Free these runs again."""

        def work() -> list[News]:
            runs = [self._data.runs[run_id] for run_id in marks if run_id in self._data.runs]
            heads = [run.head for run in runs if run.head.owner == worker]
            for head in heads:
                head.owner = None
                head.delivered = max(head.delivered, marks[head.run])
            return _freed(heads)

        self.announce(await self.job(work))

    async def park(self, run_id: str, reason: str | None) -> None:
        """Set a run aside, or take it up again."""

        def work() -> list[News]:
            run = self._data.runs.get(run_id)
            if run is None:
                raise RunNotFound(f"no run {run_id!r} in this store")
            if run.head.ended is None:
                run.head.parked, run.head.owner = reason, None
                run.head.crashes = 0
            return _freed([run.head])

        self.announce(await self.job(work))

    async def crashed(self, run_id: str) -> int:
        """Count one more crash of a tick."""

        def work() -> int:
            run = self._data.runs.get(run_id)
            if run is None:
                raise RunNotFound(f"no run {run_id!r} in this store")
            run.head.crashes += 1
            return run.head.crashes

        return await self.job(work)

    # ---- schedules

    async def schedules(self) -> list[ScheduleRow]:
        """The schedules, by workflow."""
        return [row for _, row in sorted(self._data.schedules.items())]

    async def swap_schedule(self, was: ScheduleRow | None, now: ScheduleRow | None) -> bool:
        """Put one row in the place of another."""

        def work() -> bool:
            either = was or now
            if either is None or self._data.schedules.get(either.workflow) != was:
                return False
            if was is not None and now is not None and now.workflow != was.workflow:
                return False
            if now is None:
                del self._data.schedules[either.workflow]
            else:
                self._data.schedules[now.workflow] = now
            return True

        return await self.job(work)

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


def _to_take_up(head: Head) -> bool:
    """Parked, and not for killing or blocking its workers."""
    if head.parked is None or head.ended is not None:
        return False
    return bool(load_json(head.parked.encode()).get("kind") != "runaway")


def _claim(run: Run, *, ready: bool) -> Claim:
    due = min(run.timers.values(), default=None)
    return Claim(run.head.run, run.head.workflow, due, ready, run.head.crashes)


def _freed(heads: Sequence[Head]) -> list[News]:
    """What others may want to hear: runs that are free now and have something to do."""
    return [News(head.run, None, False, False, True) for head in heads if head.ready]


def _plain(value: object) -> Any:
    """As it comes back from JSON, which is how the other backends keep it."""
    return load_json(dump_json(value))


def _change_steps(run: Run, changes: Changes) -> None:
    _apply(run.steps, changes.steps)
    run.queued.update(changes.queued)
    for key, step in changes.steps.items():
        if step is None:
            run.queued.pop(key, None)
        if step is None or step[1] is not None:
            run.holders.pop(key, None)


def _apply(rows: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        if value is None:
            rows.pop(key, None)
        else:
            rows[key] = value


def _attempt(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - the answer of this job alone
        return error
