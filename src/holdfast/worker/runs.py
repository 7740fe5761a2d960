"""The runs that a worker has: its own by the store's word, and of those the ones that are live in memory.

What it guarantees: a run that the store has given to this worker is either live, or woken by the first thing that
happens to it (news, a due timer, the slow poll): there is no third state in which nobody is about to do anything.

`_owned` is what the store has said, and `live` a part of it, but for a run whose creation is under way: that one
is live first, and owned when the store has answered (`_starting`). Where the start comes to nothing, another's may
have succeeded and the run been given to this worker meanwhile; so what was claimed is kept apart (`_claimed`)
until its log has been read.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from .. import faults, metrics
from ..errors import HoldfastError, StoreError
from ..events import Draft
from ..store.messages import News
from ..store.rows import Claim
from ..workflow import Workflow
from .advance import Advance
from .agenda import Bursts, InOrder, Turn
from .children import Children
from .live import LiveRun

if TYPE_CHECKING:
    from ..engine.tick import Execution
    from .worker import Worker


_STARTS = 32
"""Runs that are begun in one turn of the loop: each has its first tick then, a quarter of a millisecond in all."""


class Runs:
    """The runs of one worker; `keep` of them at most stay in memory while they wait."""

    def __init__(self, worker: Worker, *, keep: int) -> None:
        self._worker = worker
        self._keep = keep
        self.live: OrderedDict[str, Advance] = OrderedDict()
        self._owned: dict[str, int] = {}  # runs that are this worker's -> delivered mark
        self._starting: dict[str, list[asyncio.Future[None]]] = {}  # runs not yet created -> who waits
        self._claimed: set[str] = set()  # owned ones whose log this worker has not read yet
        self._parents: dict[str, str] = {}  # child runs that runs of this worker wait for -> the parent
        self._loads = InOrder()
        self.starts = Bursts(_STARTS)
        """Who wants to begin a run here waits for its turn in it first."""

    @property
    def busy(self) -> bool:
        """Whether an append or a read of one of them is under way."""
        return any(advance.busy for advance in self.live.values())

    def has(self, run_id: str) -> bool:
        """Whether the run is live here."""
        return run_id in self.live

    def knows(self, run_id: str) -> bool:
        """Whether the run is this worker's as far as it knows."""
        return run_id in self._owned or run_id in self.live

    def drives(self, run_id: str) -> bool:
        """Whether the run is live here, created, and has not ended as far as this worker has heard."""
        return run_id in self.live and run_id in self._owned

    def execution(self, run_id: str) -> Execution | None:
        """The live code of a run, where it is in memory here."""
        advance = self.live.get(run_id)
        return None if advance is None else advance.execution

    def take(self, claim: Claim) -> None:
        """A run that the store has given to this worker."""
        faults.point("worker.claim.after")
        if claim.crashes >= self._worker.crashes.limit:  # counted when somebody else had it already
            self._worker.spawn(self._set_aside(claim))
            return
        self._owned[claim.run] = 0
        self._claimed.add(claim.run)
        if claim.ready:
            self.wake(claim.run, claim.workflow)
        elif claim.due is not None:
            self._worker.agenda.add(claim.due, claim.run, "load")

    async def _set_aside(self, claim: Claim) -> None:
        try:
            await self._worker.crashes.park(claim.run, claim.crashes)
        except StoreError:
            self._worker.unsure()  # it is this worker's, who does not serve it: the store gives it once more
            raise

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
        advance = Advance(self._worker, run_id, workflow)
        self.live[run_id] = advance
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
        worker = self._worker
        busy = worker.executor.busy >= worker.concurrency or len(self.live) >= self._keep
        return not (busy or worker.stopping)

    def wake(self, run_id: str, workflow: str | None = None) -> None:
        """Something has happened to a run of this worker: go on with it."""
        advance = self.live.get(run_id)
        if advance is not None:
            self.live.move_to_end(run_id)
            advance.news()
        elif workflow is None:
            self._worker.spawn(self._find(run_id, self._loads.join()))
        else:
            self._load(run_id, workflow)

    def check(self, run_id: str, fact: int) -> None:
        """The store says that the run has a fact at this position: look whether its notice was lost."""
        advance = self.live.get(run_id)
        if advance is None:
            self.wake(run_id)
        elif not advance.busy and advance.after < fact:
            advance.news()

    async def _find(self, run_id: str, turn: Turn) -> None:
        worker, head = self._worker, None
        try:
            head = await worker.store.head(run_id)
        except StoreError as error:
            # What woke the run, an alarm say, does not come again.
            worker.log.warning(
                "%s: cannot be looked up, trying again: %s", run_id, error, extra={"run": run_id}
            )
            again = worker.clock.now() + round(LiveRun.retry_most * 1e6)
            worker.agenda.add(again, run_id, "load")
        finally:
            if head is not None and head.owner == self._worker.id and run_id not in self.live:
                self._load(run_id, head.workflow, turn)
            else:
                turn.leave()

    def _load(self, run_id: str, workflow: str, turn: Turn | None = None) -> None:
        definition = self._worker.definition(workflow)
        if definition is None:
            if turn is not None:
                turn.leave()
            self._owned.pop(run_id, None)
            self._worker.spawn(self._worker.store.release(self._worker.id, {run_id: 0}))
            return
        advance = Advance(self._worker, run_id, definition)
        self.live[run_id] = advance
        advance.load(turn)
        self._make_room()

    def _make_room(self) -> None:
        if len(self.live) <= self._keep:
            return
        for run_id, advance in list(self.live.items()):
            if advance.idle:
                self._owned[run_id] = advance.after
                del self.live[run_id]
                advance.close()
                if len(self.live) <= self._keep:
                    return

    def taken_up(self, run_id: str, begun_by: str) -> None:
        """The log of a run has been read and replayed."""
        if run_id in self._claimed:
            self._claimed.discard(run_id)
            if begun_by != self._worker.id:
                metrics.RECOVERIES.total += 1

    def forget(self, advance: LiveRun, *, ended: bool = True) -> None:
        """The run has ended, or (not `ended`) is not this worker's any more."""
        self._claimed.discard(advance.run_id)
        if self.live.get(advance.run_id) is advance:
            del self.live[advance.run_id]
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
        advance = self.live.get(run_id)
        if advance is not None:
            self.forget(advance, ended=False)

    def _leave_children(self, children: Children, *, ended: bool) -> None:
        for child in children.open:
            self.listen_no_more(child)
        if ended:
            self._worker.orphans_soon()

    def listen_for(self, child: str, parent: str) -> None:
        """Tell the parent when the child has ended."""
        self._parents[child] = parent

    def listen_no_more(self, child: str) -> None:
        """The parent knows."""
        self._parents.pop(child, None)

    def child_ended(self, child: str, parent: str) -> None:
        """A child of one of this worker's runs has ended."""
        advance = self.live.get(parent)
        if advance is not None:
            if advance.children is not None:
                advance.children.heard(child)
        elif parent in self._owned:
            self.wake(parent)

    async def park(self, advance: LiveRun, kind: str, message: str) -> None:
        """Set a run aside with a reason that people can read."""
        try:
            await self._worker.store.park(advance.run_id, json.dumps({"kind": kind, "message": message}))
        except HoldfastError as error:
            self._worker.log.error(
                "%s could not be parked, it will be tried again: %s",
                advance.run_id,
                error,
                extra={"run": advance.run_id},
            )
            self._worker.unsure()
        self.forget(advance, ended=False)

    # ---- being told

    def hear(self, news: News) -> bool:
        """Something has happened to a run. False where it is no matter of this worker's."""
        if news.ended:
            advance = self.live.get(news.run)
            if advance is not None:
                advance.news()
            self._owned.pop(news.run, None)
            parent = self._parents.pop(news.run, None)
            if parent is not None:
                self.child_ended(news.run, parent)
        elif news.fact and (news.owner == self._worker.id or news.run in self.live):
            self.wake(news.run)
        else:
            return False
        return True

    def ring(self, run_id: str, what: str) -> None:
        """Something is due: a timer of a run, or (`load`) one of a run that is not in memory."""
        advance = self.live.get(run_id)
        if advance is None:
            self.wake(run_id)
        elif what == "load":
            advance.news()
        else:
            advance.ring(what)

    # ---- leaving

    def marks(self) -> dict[str, int]:
        """Close what is live; every run with the position up to which its facts were delivered."""
        marks = dict(self._owned)
        for run_id, advance in list(self.live.items()):
            marks[run_id] = advance.mark
            advance.close()
        self.live.clear()
        return marks

    def drop_all(self) -> None:
        """Forget what is live, where it could not be handed back."""
        for advance in self.live.values():
            advance.closed = True
            advance.drop()
        self.live.clear()

    def let_all_go(self) -> None:
        """They are others' now; what their steps come to is still recorded."""
        for advance in list(self.live.values()):
            advance.busy = True
            self.forget(advance, ended=False)
        self._owned.clear()

    def strike(self, advance: LiveRun) -> None:
        """A tick of this run ends the worker: whatever comes of it now is nobody's turn."""
        advance.busy = True
        self.live.pop(advance.run_id, None)
        advance.close(ended=False)
