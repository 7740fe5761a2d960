"""What a worker does beside its runs: find free ones, notice the dead, keep its lease.

Commits tell workers what there is to do; this is what stands behind the telling. It looks for runs whose
notice was lost (a slow poll), for workers whose process has gone (a lock that came free, on this machine or at
the store's server) and for workers whose lease has run out (paused, or cut off). A quiet worker costs one small
statement every few seconds.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from ..errors import HoldfastError, LeaseLost, StoreError
from ..store.rows import WorkerRow
from .children import see_to_orphans
from .presence import Others

if TYPE_CHECKING:
    from .worker import Worker


class Maintain:
    """The background work of one worker."""

    def __init__(self, worker: Worker, *, poll: float, probe: float, lease: float) -> None:
        self._worker = worker
        self._poll = poll
        self._probe = probe
        self._lease = lease
        self._claiming = False
        self._claim_again = False
        self._unseen = False
        self._unsure = False
        self._orphans = False
        self._renamed = False
        self._dead: deque[tuple[str, str | None]] = deque()
        self._burying = asyncio.Lock()
        self._mourning: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._probing: asyncio.TimerHandle | None = None
        self._others = None if worker.folder is None else Others(worker.folder, worker.id)

    async def start(self) -> None:
        """Enlist, take what is free, and keep looking."""
        while not await self._arrived():
            self._worker.deposed()
        self.orphans_soon()
        self._worker.serving.take_soon()
        await self._worker.scheduling.start()
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._every(self._poll, self._look)),
            loop.create_task(self._every(self._lease / 3, self._keep_lease)),
        ]
        self._probe_again()
        self._mourn()

    async def _arrived(self) -> bool:
        """Enlist and take what is free; False where that took so long that others declared this worker dead."""
        try:
            await self._enlist()
            await self._worker.store.attend(self._worker.id)
            await self.bury_dead()
            await self._bury_expired()
            await self._claim_all(parked=True)
            await self._claim_all()
        except LeaseLost as error:
            self._worker.log.warning("%s; it comes again under another name", error)
            return False
        return True

    async def stop(self) -> None:
        """Look no more."""
        if self._probing is not None:
            self._probing.cancel()
        if self._others is not None:
            self._others.close()
            self._others = None
        tasks = [*self._tasks, self._mourning] if self._mourning is not None else self._tasks
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _probe_again(self) -> None:
        if self._others is not None:
            self._probing = asyncio.get_running_loop().call_later(self._probe, self._probe_now)

    def _probe_now(self) -> None:
        """See who is dead: the most frequent thing that a quiet worker does, so nothing more than that."""
        try:
            self._find_dead()
        except OSError as error:  # the folder cannot be read; the next look may find it again
            self._worker.log.warning(
                "cannot see which workers are dead: %s; looking again in %g s", error, self._probe
            )
        if self._dead:
            self._worker.spawn(self._bury_found())
        else:
            self._probe_again()

    async def _bury_found(self) -> None:
        try:
            await self.bury_dead()
        except HoldfastError as error:
            self._worker.log.warning("%s; looking again in %g s", error, self._probe)
        finally:
            if not self._worker.stopping:
                self._probe_again()

    def _mourn(self) -> None:
        """Listen to what the store's server tells of deaths, under the worker's present name."""
        if self._mourning is not None:
            self._mourning.cancel()
        self._mourning = asyncio.get_running_loop().create_task(self._every(self._probe, self._bury_next))

    async def _bury_next(self) -> None:
        worker = self._worker
        name = await worker.store.next_death(worker.id)
        await self.bury_dead()  # its file, if it is on this machine, says more
        if any(other.id == name for other in await worker.store.workers()):
            worker.log.warning("worker %s is gone, as the store's server says", name, extra={"gone": name})
            self._dead.append((name, None))
            await self.bury_dead()

    def claim_soon(self) -> None:
        """A free run is ready: try to get it."""
        if self._claiming:
            self._claim_again = True
            return
        self._claiming = True
        self._worker.spawn(self._claim_now())

    def orphans_soon(self) -> None:
        """A run has ended before its children: see to them."""
        if not self._orphans:
            self._orphans = True
            self._worker.spawn(self._see_to_orphans())

    async def _see_to_orphans(self) -> None:
        self._orphans = False
        try:
            await see_to_orphans(self._worker.store)
        except HoldfastError as error:
            self._worker.log.warning("cannot see to children whose parent has ended: %s", error)

    def unsure(self) -> None:
        """The store may have this worker down for runs that it does not know of: an answer was lost."""
        self._unsure = True

    async def _claim_now(self) -> None:
        try:
            while True:
                self._claim_again = False
                await self._claim_all()
                if not self._claim_again:
                    return
        except HoldfastError as error:
            self._worker.log.warning("cannot look for free runs: %s", error)
        finally:
            self._claiming = False

    async def _claim_all(self, *, parked: bool = False) -> None:
        worker = self._worker
        limit = 100
        while not worker.stopping:
            try:
                claims = await worker.store.claim(
                    worker.id, worker.workflow_names(), limit=limit, parked=parked
                )
            except StoreError:
                self._unsure = True  # it may have been given runs, and nobody else will ask for those
                raise
            for claim in claims:
                worker.runs.take(claim)
            if len(claims) < limit:
                return

    async def _every(self, interval: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(interval)
            try:
                await work()
            except HoldfastError as error:
                self._worker.log.warning("%s; looking again in %g s", error, interval)

    async def _look(self) -> None:
        """The slow poll: losing every notice costs at most its interval."""
        worker = self._worker
        if self._unsure:
            await self._reconcile()
        await worker.serving.reconcile()
        self._unseen |= await worker.store.work_waits(worker.id)
        if not self._unseen:
            return
        await self._claim_all()
        await worker.serving.take()
        for run_id, fact in await worker.store.behind(worker.id):
            worker.runs.check(run_id, fact)
        for child in await worker.store.ended_children(worker.id):
            worker.runs.child_ended(child.child, child.run)
        await see_to_orphans(worker.store)
        await worker.scheduling.look()
        self._unseen = False  # only now: where the store fails in between, the change is still to be seen

    async def _reconcile(self) -> None:
        """Take up runs that are this worker's in the store alone."""
        self._unsure = False
        try:
            for claim in await self._worker.store.owned(self._worker.id):
                if not self._worker.runs.knows(claim.run):
                    self._worker.runs.take(claim)
        except StoreError:
            self._unsure = True
            raise

    async def bury_dead(self) -> None:
        """Free the runs of workers whose process has gone."""
        worker = self._worker
        self._find_dead()
        async with self._burying:
            while self._dead:
                # Only we know of it now, for its file is gone: where the store fails, it stays in the list.
                name, culprit = self._dead[0]
                if culprit is not None:
                    await worker.crashes.judge(name, culprit)
                    self._dead[0] = (name, None)  # counted: not again, should the store fail now
                await worker.store.discharge(name)
                self._dead.popleft()
                await self._claim_all()
                worker.serving.take_soon()

    def _find_dead(self) -> None:
        for name, culprit in self._others.dead() if self._others is not None else ():
            self._worker.log.warning(
                "worker %s is gone%s",
                name,
                f"; it died in a tick of {culprit}" if culprit else "",
                extra={"gone": name, "run": culprit} if culprit else {"gone": name},
            )
            self._dead.append((name, culprit))

    async def _keep_lease(self) -> None:
        if not self._worker.watch.stuck:
            await self._renew()
        await self._bury_expired()
        await self._worker.scheduling.look()

    async def _enlist(self) -> None:
        worker = self._worker
        expires = worker.clock.now() + round(self._lease * 1e6)
        await worker.store.enlist(WorkerRow(worker.id, worker.pid, worker.host, expires, worker.counters))

    async def _renew(self) -> None:
        worker = self._worker
        try:
            await self._enlist()
        except LeaseLost as error:
            self._worker.log.error(
                "worker %s lost its lease (%s): its runs are others' now", worker.id, error
            )
            worker.deposed()
            self._renamed = True
            await self._enlist()
        if self._renamed:  # also where the store failed in between, and this is another try
            await worker.store.attend(worker.id)
            self._mourn()
            self._renamed = False

    async def _bury_expired(self) -> None:
        worker = self._worker
        now = worker.clock.now()
        for other in await worker.store.workers():
            if other.id != worker.id and not other.alive(now):
                worker.log.warning("the lease of worker %s has run out", other.id, extra={"gone": other.id})
                await worker.store.discharge(other.id)
                await self._claim_all()
                worker.serving.take_soon()
