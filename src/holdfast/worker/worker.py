"""A worker: a process's share in advancing runs and executing their steps.

It serves every workflow that is defined in its process and leaves runs of others alone. A run that it owns is
kept live in memory, fed with new facts only; one that merely waits may be dropped (`keep`) and is replayed
when something happens to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from .. import faults, ids, metrics
from ..errors import DefinitionError, HoldfastError, StoreError
from ..events import Draft
from ..events.steps import FirstStarts
from ..logs import About
from ..store.base import Store
from ..store.messages import Append, Appended, News
from ..store.rows import Claim
from ..streams import BUFFER, LIMIT, Streams
from ..webhooks import PUBLIC_URL
from ..workflow import Workflow, workflows
from .advance import Advance
from .agenda import Agenda, InOrder, Turn
from .children import Children
from .execute import Executor
from .live import LiveRun
from .maintain import Maintain
from .places import Places
from .presence import Presence
from .schedule import Scheduling
from .serve import Serving
from .watch import Watch

if TYPE_CHECKING:
    from ..engine.tick import Execution

log = logging.getLogger("holdfast.worker")


class Worker:
    """Advances runs of one store. Use it as `async with app.worker(): ...`.

    concurrency    step attempts that run at once
    queues         the queues to serve (None: all that the steps of this process name)
    runs           whether to advance runs; without, it only runs steps of its queues
    keep           live runs kept in memory; others are replayed when needed
    event_limit    events that one run may have
    tick_limit     seconds after which a tick that has not come back is interrupted
    exit_after     seconds after which a tick that cannot be interrupted ends the process (None: never)
    crash_limit    ticks of one run in a row that crash or do not come back, before it is parked
    stream_buffer  bytes that one step may have written to a stream and the store not yet acknowledged
    stream_limit   bytes that one stream may have
    public_url     where the server that takes webhooks is reached (None: $HOLDFAST_PUBLIC_URL, else this machine)
    poll           seconds between looks for work whose notice was lost
    lease          seconds for which the worker's runs are its own without a sign of life
    """

    def __init__(
        self,
        store: Store,
        *,
        concurrency: int = 100,
        queues: Sequence[str] | None = None,
        runs: bool = True,
        keep: int = 10_000,
        payload_limit: int,
        event_limit: int = 100_000,
        tick_limit: float = 2.0,
        exit_after: float | None = None,
        crash_limit: int = 3,
        stream_buffer: int = BUFFER,
        stream_limit: int = LIMIT,
        public_url: str | None = None,
        poll: float = 2.5,
        probe: float = 0.2,
        lease: float = 30.0,
    ) -> None:
        self.store = store
        self.clock = store.clock
        self._take_name(ids.worker_id())
        self.pid = os.getpid()
        self.host = socket.gethostname()
        self.payload_limit = payload_limit
        public_url = public_url or os.environ.get("HOLDFAST_PUBLIC_URL") or PUBLIC_URL
        self.engine_options: dict[str, Any] = {"payload_limit": payload_limit, "public_url": public_url}
        self.event_limit = event_limit
        self.crash_limit = crash_limit
        self.stopping = False
        self.refusals = 0
        self.folder: Path | None = store.presence_folder
        self.streams = Streams(store, chunk_limit=payload_limit, buffer=stream_buffer, limit=stream_limit)
        self.watch: Watch
        self.executor: Executor
        self.places: Places
        self.agenda: Agenda
        self._tick_limit, self._exit_after = tick_limit, exit_after
        self._concurrency, self._keep = concurrency, keep
        self.advances = runs
        self.serving = Serving(self, queues, concurrency)
        self.scheduling = Scheduling(self)
        self._live: OrderedDict[str, Advance] = OrderedDict()
        self._loads = InOrder()
        self._starting: dict[str, list[asyncio.Future[None]]] = {}  # runs not yet created -> who waits
        self._owned: dict[str, int] = {}  # runs that are this worker's -> delivered mark
        self._claimed: set[str] = set()  # those of them whose log this worker has not read yet
        self._parents: dict[str, str] = {}  # child runs that runs of this worker wait for -> the parent
        self._tasks: set[asyncio.Task[None]] = set()
        self._ambiguous: set[str] = set()
        self._presence: Presence | None = None
        self._struck: str | None = None  # the run whose tick ends this worker
        self._maintain = Maintain(self, poll=poll, probe=probe, lease=lease)
        self._unlisten: Callable[[], None] = lambda: None
        self._uncounted: list[Callable[[], None]] = []

    # ---- life

    async def __aenter__(self) -> Self:
        if self.folder is not None:
            self._presence = Presence(self.folder, self.id)
        self.watch = Watch(self._presence, limit=self._tick_limit, exit_after=self._exit_after)
        self.executor = Executor(self.clock, self._concurrency, self.payload_limit)
        self.places = Places(self._concurrency, asyncio.get_running_loop().time)
        self.agenda = Agenda(self.clock, self._ring)
        self._unlisten = self.store.listen(self._hear)
        self._uncounted = [
            metrics.LIVE_RUNS.follow(lambda: len(self._live)),
            metrics.STEPS_RUNNING.follow(lambda: self.executor.busy),
        ]
        try:
            await self._maintain.start()
        except BaseException as error:
            self._leave()
            if isinstance(error, HoldfastError):
                with contextlib.suppress(HoldfastError):  # what it was given is others' again
                    await self.store.discharge(self.id)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let running steps finish, hand the rest back."""
        self.stopping = True
        try:
            await self._hand_back()
        finally:
            self._leave()

    async def _hand_back(self) -> None:
        await self._maintain.stop()
        self.agenda.close()
        while self.working:
            await self.executor.drain()
            await asyncio.sleep(0.001)
        marks = dict(self._owned)
        for run_id, advance in list(self._live.items()):
            marks[run_id] = advance.mark
            advance.close()
        self._live.clear()
        try:
            if self._struck is not None:
                await self.judge_crash(self.id, self._struck)
            await self.store.release(self.id, marks)
            await self.store.discharge(self.id)
        except HoldfastError as error:
            self.log.warning("worker %s could not hand its runs back: %s", self.id, error)

    @property
    def log(self) -> About:
        """Where this worker tells what goes wrong; its records say whose they are."""
        return About(log, {"worker": self.id})

    @property
    def working(self) -> bool:
        """Whether a step runs, an append is under way or something runs beside."""
        return bool(self.executor.busy or self._tasks or any(advance.busy for advance in self._live.values()))

    @property
    def counters(self) -> dict[str, int]:
        """What others may know of this worker: it goes along with its sign of life."""
        return {"refusals": self.refusals, "running": len(self.executor.running)}

    def _leave(self) -> None:
        self._unlisten()
        for stop in self._uncounted:
            stop()
        self.agenda.close()
        for advance in self._live.values():  # where it could not start, or handing back was cut short
            advance.closed = True
            advance.drop()
        self._live.clear()
        for task in self._tasks:
            task.cancel()
        self.executor.close()
        self.watch.close()
        if self._presence is not None:
            self._presence.close()

    def _take_name(self, id: str) -> None:
        self.id = id
        self.first_starts = FirstStarts(id)

    # ---- runs

    def workflow_names(self) -> list[str]:
        """The workflows of this process; a name that two of them share is nobody's."""
        if not self.advances:
            return []
        return [name for name in workflows.names() if self.definition(name) is not None]

    def begin(self, workflow: Workflow[..., Any], run_id: str, created: Draft) -> asyncio.Future[None]:
        """Start a run here: its first tick is in the commit that creates it."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def answered(error: BaseException | None) -> None:
            for waiter in self._starting.pop(run_id, ()):
                if not waiter.done():
                    waiter.set_result(None)
            if future.done():
                return
            if error is None:
                self._owned[run_id] = 0
                future.set_result(None)
            else:
                future.set_exception(error)

        self._starting[run_id] = []
        advance = Advance(self, run_id, workflow)
        self._live[run_id] = advance
        advance.begin(created, answered)
        self._make_room()
        return future

    async def started(self, run_id: str) -> None:
        """Wait while a start of this run is under way here: whether it succeeds is not known yet."""
        while (waiting := self._starting.get(run_id)) is not None:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            waiting.append(waiter)
            await waiter

    @property
    def has_room(self) -> bool:
        """Whether this worker can take on one more run without letting others wait."""
        busy = self.executor.busy >= self._concurrency or len(self._live) >= self._keep
        return not (busy or self.stopping)

    def listen_for(self, child: str, parent: str) -> None:
        """Tell the parent when the child has ended."""
        self._parents[child] = parent

    def listen_no_more(self, child: str) -> None:
        """The parent knows."""
        self._parents.pop(child, None)

    def child_ended(self, child: str, parent: str) -> None:
        """A child of one of this worker's runs has ended."""
        advance = self._live.get(parent)
        if advance is not None:
            if advance.children is not None:
                advance.children.heard(child)
        elif parent in self._owned:
            self.wake(parent)

    def has(self, run_id: str) -> bool:
        """Whether the run is live here."""
        return run_id in self._live

    def knows(self, run_id: str) -> bool:
        """Whether the run is this worker's as far as it knows."""
        return run_id in self._owned or run_id in self._live

    def unsure(self) -> None:
        """A write about ownership was not answered: look soon what the store has this worker down for."""
        self._maintain.unsure()

    def execution(self, run_id: str) -> Execution | None:
        """The live code of a run, where it is in memory here."""
        advance = self._live.get(run_id)
        return None if advance is None else advance.execution

    def take(self, claim: Claim) -> None:
        """A run that the store has given to this worker."""
        faults.point("worker.claim.after")
        if claim.crashes >= self.crash_limit:  # counted when somebody else had it already
            self.spawn(self._set_aside(claim))
            return
        self._owned[claim.run] = 0
        self._claimed.add(claim.run)
        if claim.ready:
            self.wake(claim.run, claim.workflow)
        elif claim.due is not None:
            self.agenda.add(claim.due, claim.run, "load")

    def wake(self, run_id: str, workflow: str | None = None) -> None:
        """Something has happened to a run of this worker: go on with it."""
        advance = self._live.get(run_id)
        if advance is not None:
            self._live.move_to_end(run_id)
            advance.news()
        elif workflow is None:
            self.spawn(self._find(run_id, self._loads.join()))
        else:
            self._load(run_id, workflow)

    def check(self, run_id: str, fact: int) -> None:
        """The store says that the run has a fact at this position: look whether its notice was lost."""
        advance = self._live.get(run_id)
        if advance is None:
            self.wake(run_id)
        elif not advance.busy and advance.after < fact:
            advance.news()

    def forget(self, advance: LiveRun, *, ended: bool = True) -> None:
        """The run has ended, or (not `ended`) is not this worker's any more."""
        self._claimed.discard(advance.run_id)
        if self._live.get(advance.run_id) is advance:
            del self._live[advance.run_id]
            self._owned.pop(advance.run_id, None)
            if advance.children is not None and advance.children.open:
                self._leave_children(advance.children, ended=ended)
        advance.close(ended=ended)

    def unstarted(self, advance: LiveRun) -> None:
        """A start came to nothing. Another's may have: then this worker may have been given that run meanwhile."""
        claimed = advance.run_id in self._claimed
        self.forget(advance)
        if claimed:
            self._owned[advance.run_id] = 0
            self._claimed.add(advance.run_id)
            self.wake(advance.run_id, advance.workflow.name)

    def let_go(self, run_id: str) -> None:
        """The run is not in the store any more: an older copy of it has taken its place."""
        advance = self._live.get(run_id)
        if advance is not None:
            self.forget(advance, ended=False)

    def orphans_soon(self) -> None:
        """A run has left something to others: children, or a successor."""
        self._maintain.orphans_soon()

    def _leave_children(self, children: Children, *, ended: bool) -> None:
        for child in children.open:
            self.listen_no_more(child)
        if ended:
            self._maintain.orphans_soon()

    def taken_up(self, run_id: str, begun_by: str) -> None:
        """The log of a run has been read and replayed."""
        if run_id in self._claimed:
            self._claimed.discard(run_id)
            if begun_by != self.id:
                metrics.RECOVERIES.total += 1

    async def park(self, advance: LiveRun, kind: str, message: str) -> None:
        """Set a run aside with a reason that people can read."""
        try:
            await self.store.park(advance.run_id, json.dumps({"kind": kind, "message": message}))
        except HoldfastError as error:
            self.log.error(
                "%s could not be parked, it will be tried again: %s",
                advance.run_id,
                error,
                extra={"run": advance.run_id},
            )
            self.unsure()
        self.forget(advance, ended=False)

    async def judge_crash(self, worker: str, run_id: str) -> None:
        """A worker died in a tick of this run: count it, and park the run where that has happened too often.

        Before the worker is discharged: a run that is free is taken by the next worker at once, and kills it.
        Where another machine was quicker (it learns of the death from the store's server, and cannot see the
        culprit), the run is somebody else's now: it is counted all the same, and the next one to get it parks it.
        """
        head = await self.store.head(run_id)
        if head is None or head.ended is not None or head.parked is not None:
            return
        count = await self.store.crashed(run_id)
        if count >= self.crash_limit and head.owner in (worker, None):
            await self._park_killer(run_id, count)

    async def _set_aside(self, claim: Claim) -> None:
        try:
            await self._park_killer(claim.run, claim.crashes)
        except StoreError:
            self.unsure()  # it is this worker's, who does not serve it: the store gives it once more
            raise

    async def _park_killer(self, run_id: str, count: int) -> None:
        head = await self.store.head(run_id)
        if head is not None:
            message = f"its ticks killed {count} workers in a row; the last one at position {head.position}"
            self.log.error("%s is parked: %s", run_id, message, extra={"run": run_id})
            await self.store.park(run_id, json.dumps({"kind": "runaway", "message": message}))

    def record_late(self, run_id: str, draft: Draft) -> None:
        """The outcome of a step whose run has ended or moved on: kept in the log, as a late fact."""

        def answered(answer: Appended | BaseException) -> None:
            if isinstance(answer, HoldfastError):
                self.log.debug(
                    "%s: a late outcome was not recorded: %s", run_id, answer, extra={"run": run_id}
                )

        self.store.submit(Append(run_id, [draft], None, self.store.next_batch(), answered))

    def struck_by(self, advance: LiveRun) -> None:
        """A tick of this run is about to end the worker: it counts as a death."""
        self._struck = advance.run_id
        advance.busy = True  # whatever comes of it now is nobody's turn
        self._live.pop(advance.run_id, None)
        advance.close(ended=False)

    def deposed(self) -> None:
        """Others have declared this worker dead: let go of every run. What steps come to is still recorded."""
        for advance in list(self._live.values()):
            advance.busy = True
            self.forget(advance, ended=False)
        self._owned.clear()
        self._take_name(ids.worker_id())
        if self._presence is not None:
            self._presence.rename(self.id)

    def _load(self, run_id: str, workflow: str, turn: Turn | None = None) -> None:
        definition = self.definition(workflow)
        if definition is None:
            if turn is not None:
                turn.leave()
            self._owned.pop(run_id, None)
            self.spawn(self.store.release(self.id, {run_id: 0}))
            return
        advance = Advance(self, run_id, definition)
        self._live[run_id] = advance
        advance.load(turn)
        self._make_room()

    def definition(self, name: str) -> Workflow[..., Any] | None:
        """The workflow of this name, where this worker serves it."""
        try:
            return workflows.get(name)
        except DefinitionError as error:
            if name not in self._ambiguous:
                self._ambiguous.add(name)
                self.log.error("runs of %r are left alone: %s", name, error, extra={"workflow": name})
            return None

    async def _find(self, run_id: str, turn: Turn) -> None:
        head = None
        try:
            head = await self.store.head(run_id)
        except StoreError as error:
            # What woke the run, an alarm say, does not come again.
            self.log.warning(
                "%s: cannot be looked up, trying again: %s", run_id, error, extra={"run": run_id}
            )
            again = self.clock.now() + round(LiveRun.retry_most * 1e6)
            self.agenda.add(again, run_id, "load")
        finally:
            if head is not None and head.owner == self.id and run_id not in self._live:
                self._load(run_id, head.workflow, turn)
            else:
                turn.leave()

    def _make_room(self) -> None:
        if len(self._live) <= self._keep:
            return
        for run_id, advance in list(self._live.items()):
            if advance.idle:
                self._owned[run_id] = advance.after
                del self._live[run_id]
                advance.close()
                if len(self._live) <= self._keep:
                    return

    # ---- being told

    def _hear(self, news: Sequence[News]) -> None:
        metrics.NEWS.total += len(news)
        for item in news:
            if item.queue is not None:
                self.serving.hear(item)
                continue
            if self.serving.held:
                self.serving.hear(item)
            if item.ended:
                advance = self._live.get(item.run)
                if advance is not None:
                    advance.news()
                self._owned.pop(item.run, None)
                parent = self._parents.pop(item.run, None)
                if parent is not None:
                    self.child_ended(item.run, parent)
            elif item.fact and (item.owner == self.id or item.run in self._live):
                self.wake(item.run)
            elif item.ready and item.owner is None and not self.stopping:
                self._maintain.claim_soon()

    def _ring(self, run_id: str, what: str) -> None:
        if not run_id:
            (self.scheduling.look_soon if what == "schedules" else self.serving.take_soon)()
            return
        advance = self._live.get(run_id)
        if advance is None:
            self.wake(run_id)
        elif what == "load":
            advance.news()
        else:
            advance.ring(what)

    # ---- for its parts

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside; its failure is logged."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def later(self, delay: float, work: Callable[[], None]) -> None:
        """Do something after `delay` seconds."""
        asyncio.get_running_loop().call_later(delay, work)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            error = task.exception()
            level = logging.WARNING if isinstance(error, StoreError) else logging.ERROR
            self.log.log(level, "worker %s: %s", self.id, error, exc_info=error)
