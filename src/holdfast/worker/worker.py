"""A worker: a process's share in advancing runs and executing their steps.

It serves every workflow that is defined in its process and leaves runs of others alone. A run that it owns is
kept live in memory, fed with new facts only; one that merely waits may be dropped (`keep`) and is replayed
when something happens to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Self

from .. import ids, metrics
from ..errors import DefinitionError, HoldfastError, StoreError
from ..events import Draft
from ..events.steps import FirstStarts
from ..logs import About
from ..store.base import Store
from ..store.messages import Append, Appended, News
from ..streams import BUFFER, LIMIT, Streams
from ..webhooks import PUBLIC_URL
from ..workflow import Workflow, workflows
from .agenda import Agenda
from .crashes import Crashes
from .execute import Executor
from .live import LiveRun
from .maintain import Maintain
from .places import Places
from .presence import Presence
from .runs import Runs
from .schedule import Scheduling
from .serve import Serving
from .watch import Watch

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
        self.crashes = Crashes(self, crash_limit)
        self.stopping = False
        self.refusals = 0
        self.folder: Path | None = store.presence_folder
        self.streams = Streams(store, chunk_limit=payload_limit, buffer=stream_buffer, limit=stream_limit)
        self.watch: Watch
        self.executor: Executor
        self.places: Places
        self.agenda: Agenda
        self._tick_limit, self._exit_after = tick_limit, exit_after
        self.concurrency = concurrency
        self.advances = runs
        self.serving = Serving(self, queues, concurrency)
        self.scheduling = Scheduling(self)
        self.runs = Runs(self, keep=keep)
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
        self.executor = Executor(self.clock, self.concurrency, self.payload_limit)
        self.places = Places(self.concurrency, asyncio.get_running_loop().time)
        self.agenda = Agenda(self.clock, self._ring)
        self._unlisten = self.store.listen(self._hear)
        self._uncounted = [
            metrics.LIVE_RUNS.follow(lambda: len(self.runs.live)),
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
        marks = self.runs.marks()
        try:
            if self._struck is not None:
                await self.crashes.judge(self.id, self._struck)
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
        return bool(self.executor.busy or self._tasks or self.runs.busy)

    @property
    def counters(self) -> dict[str, int]:
        """What others may know of this worker: it goes along with its sign of life."""
        return {"refusals": self.refusals, "running": len(self.executor.running)}

    def _leave(self) -> None:
        self._unlisten()
        for stop in self._uncounted:
            stop()
        self.agenda.close()
        self.runs.drop_all()  # where it could not start, or handing back was cut short
        for task in self._tasks:
            task.cancel()
        self.executor.close()
        self.watch.close()
        if self._presence is not None:
            self._presence.close()

    def _take_name(self, id: str) -> None:
        self.id = id
        self.first_starts = FirstStarts(id)

    # ---- what it serves, and what it tells

    def workflow_names(self) -> list[str]:
        """The workflows of this process; a name that two of them share is nobody's."""
        if not self.advances:
            return []
        return [name for name in workflows.names() if self.definition(name) is not None]

    def unsure(self) -> None:
        """A write about ownership was not answered: look soon what the store has this worker down for."""
        self._maintain.unsure()

    def orphans_soon(self) -> None:
        """A run has left something to others: children, or a successor."""
        self._maintain.orphans_soon()

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
        self.runs.strike(advance)

    def deposed(self) -> None:
        """Others have declared this worker dead: let go of every run. What steps come to is still recorded."""
        self.runs.let_all_go()
        self._take_name(ids.worker_id())
        if self._presence is not None:
            self._presence.rename(self.id)

    def definition(self, name: str) -> Workflow[..., Any] | None:
        """The workflow of this name, where this worker serves it."""
        try:
            return workflows.get(name)
        except DefinitionError as error:
            if name not in self._ambiguous:
                self._ambiguous.add(name)
                self.log.error("runs of %r are left alone: %s", name, error, extra={"workflow": name})
            return None

    # ---- being told

    def _hear(self, news: Sequence[News]) -> None:
        metrics.NEWS.total += len(news)
        for item in news:
            if item.queue is not None:
                self.serving.hear(item)
                continue
            if item.fact or item.ended:
                if self.serving.held:
                    self.serving.hear(item)
                if self.runs.hear(item):
                    continue
            if item.ready and item.owner is None and not self.stopping:
                self._maintain.claim_soon()

    def _ring(self, run_id: str, what: str) -> None:
        if run_id:
            self.runs.ring(run_id, what)
        elif what == "schedules":
            self.scheduling.look_soon()
        else:
            self.serving.take_soon()

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
