"""What a worker does for queues: it takes steps, whoever has their runs, and records what their bodies come to.

A step is taken first (a mark in the store, within the queue's limits), then begun (`step_started` in its run's
log, which a second worker would be refused), then run, then its outcome is recorded as the fact that it is; the
worker that has the run hears of it and goes on. So a taken step costs two commits more than one that its run's
own worker runs.

It rests on the rules of `store/queued.py`: what this worker holds is its own until the outcome is recorded, it
is put back, or the worker is discharged. An answer that was lost leaves a step held that nobody runs: after
each failed call the store is asked what this worker holds (`reconcile`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from .. import faults, tracing
from ..engine.context import StepCall
from ..errors import (
    CommandMissing,
    DefinitionError,
    HoldfastError,
    RunEnded,
    RunNotFound,
    StepEnded,
    StoreError,
    TooEarly,
)
from ..events import Draft, name_of, new
from ..queues import Queue, declared
from ..store.messages import Appended, News
from ..store.queued import Waiting
from ..workflow import Step, steps
from .attempts import lost, unwanted
from .execute import RunningStep

if TYPE_CHECKING:
    from .worker import Worker

_OVER = (CommandMissing, RunEnded, RunNotFound, StepEnded)
"""Nothing is to be done about this step any more."""
_RETRY_FIRST, _RETRY_MOST = 0.05, 2.0
"""Seconds between sends of an append that the store could not answer."""


class _Command(msgspec.Struct):
    args: msgspec.Raw


_command = msgspec.json.Decoder(_Command).decode


class Serving:
    """The queues that one worker serves, and the steps that it has taken. `names` None: all that it knows."""

    def __init__(self, worker: Worker, names: Sequence[str] | None, room: int) -> None:
        self._worker = worker
        self._names = None if names is None else list(names)
        self._room = room
        self.held: dict[tuple[str, str], RunningStep | None] = {}
        """The steps that this worker has taken; None: not begun yet."""
        self._taking = False
        self._take_again = False
        self._unsure = False

    def queues(self) -> list[Queue]:
        """The queues to serve, with the limits that this process declares."""
        names = self._names
        if names is None:
            found = (_step(name) for name in steps.names())
            names = sorted({step.placement.queue for step in found if step is not None and step.placement})
        return [declared.get(name) or Queue(name) for name in names]

    # ---- taking

    def hear(self, item: News) -> None:
        """Steps may wait, or somebody may have ended one that runs here."""
        if item.queue is not None:
            self.take_soon()
        elif (item.fact or item.ended) and any(run == item.run for run, _ in self.held):
            self._worker.spawn(self._interrupt(item.run))

    def take_soon(self) -> None:
        """There may be steps to take."""
        if self._taking:
            self._take_again = True
        elif not self._worker.stopping:
            self._taking = True
            self._worker.spawn(self._take_now())

    async def _take_now(self) -> None:
        try:
            while True:
                self._take_again = False
                await self.take()
                if not self._take_again:
                    return
        except HoldfastError as error:
            self._worker.log.warning("cannot look for queued steps: %s", error)
        finally:
            self._taking = False

    async def take(self) -> None:
        """Take what there is room for. Raises StoreError."""
        worker = self._worker
        while not worker.stopping:
            room, queues = self._room - len(self.held), self.queues()
            if room <= 0 or not queues:
                return
            known = [name for name in steps.names() if _step(name) is not None]
            try:
                taken = await worker.store.take_steps(worker.id, queues, known, room)
            except StoreError:
                self._unsure = True
                raise
            for step in taken.steps:
                self._begin(step)
            if taken.again is not None:
                worker.agenda.add(taken.again, "", "queues")
            if len(taken.steps) < room:
                return

    async def reconcile(self) -> None:
        """Begin what the store has down as this worker's and this worker does not know of."""
        if not self._unsure:
            return
        self._unsure = False
        try:
            for step in await self._worker.store.held_steps(self._worker.id):
                self._begin(step)
        except StoreError:
            self._unsure = True
            raise

    # ---- one step, from its place in the queue to its outcome

    def _begin(self, step: Waiting) -> None:
        if (step.run, step.key) not in self.held:
            faults.point("worker.queue.taken")
            self.held[step.run, step.key] = None
            self._worker.spawn(self._start(step))

    async def _start(self, step: Waiting) -> None:
        """Record that an attempt begins, and run it."""
        worker, definition = self._worker, _step(name_of(step.key))
        if definition is None or worker.stopping:
            await self._put_back(step)
            return
        try:
            is_lost = step.attempt > 0 and step.due is None
            if is_lost and step.attempt > definition.options.retries:
                await self._record(step.run, lost(step.key, step.attempt, definition.options.retries))
                self._ended(step.run, step.key)
                return
            [command] = await worker.store.read(step.run, step.position - 1, 1)
            data: dict[str, Any] = {"attempt": step.attempt + 1, "worker": worker.id}
            if is_lost:
                data["reason"] = "recovered"
            carrier: tracing.Carrier = {}
            if tracing.active is not None:
                [created] = await worker.store.read(step.run, 0, 1)
                carrier = tracing.carrier_of(step.run, created.data)
            started = new("step_started", key=step.key, data=data)
            answer = await self._record(step.run, started)
        except _OVER:
            self._ended(step.run, step.key)
            return
        except HoldfastError as error:
            self._worker.log.warning(
                "%s of %s is put back: %s",
                step.key,
                step.run,
                error,
                extra={"run": step.run, "step": step.key},
            )
            await self._put_back(step)
            return
        if started.unique in answer.doubles:  # another worker has begun this attempt
            self._ended(step.run, step.key)
            return
        faults.point("worker.queue.begun")
        call = StepCall(step.key, definition, bytes(_command(command.body).args), _nobody(), True)
        running = RunningStep(step.run, call, step.attempt + 1, self._outcome, worker.streams)
        running.carrier = carrier
        self.held[step.run, step.key] = running
        worker.places.occupy()
        worker.executor.start(running)

    def _outcome(self, running: RunningStep, draft: Draft) -> None:
        self._worker.places.ended(None)
        self._worker.spawn(self._finish(running, draft))

    async def _finish(self, running: RunningStep, draft: Draft) -> None:
        faults.point("worker.queue.ended")
        try:
            await self._record(running.run_id, draft)
        except HoldfastError as error:
            self._worker.log.debug(
                "%s of %s was not recorded: %s",
                running.call.key,
                running.run_id,
                error,
                extra={"run": running.run_id, "step": running.call.key},
            )
        self._ended(running.run_id, running.call.key)

    def _ended(self, run: str, key: str) -> None:
        self.held.pop((run, key), None)
        self.take_soon()

    async def _put_back(self, step: Waiting) -> None:
        self.held.pop((step.run, step.key), None)
        try:
            await self._worker.store.put_back(self._worker.id, [(step.run, step.key)])
        except StoreError:
            self._unsure = True

    async def _record(self, run: str, draft: Draft) -> Appended:
        """Append a fact or record; the same append, under the same batch id, until it is answered (law L12)."""
        store, delay = self._worker.store, _RETRY_FIRST
        batch = store.next_batch()
        while True:
            try:
                return await store.append(run, [draft], batch=batch)
            except (*_OVER, TooEarly):
                raise
            except StoreError as error:
                if delay >= _RETRY_MOST and self._worker.stopping:
                    raise
                self._worker.log.warning(
                    "%s: the store did not answer, trying again: %s",
                    run,
                    error,
                    extra={"run": run, "step": draft.key},
                )
            await asyncio.sleep(delay)
            delay = min(delay * 2, _RETRY_MOST)

    # ---- steps that nobody waits for

    async def _interrupt(self, run: str) -> None:
        """Interrupt the bodies whose steps have their outcome already: cancelled, or their run has ended."""
        wanted = {(step.key, step.attempt) for step in await self._worker.store.open_steps(run)}
        for (owner, key), running in list(self.held.items()):
            if owner == run and running is not None and (key, running.attempt) not in wanted:
                running.cancel()

    async def call_off(self, run: str, key: str) -> None:
        """End a queued step of a run of ours whose await was cancelled, whatever attempt it is at."""
        while True:
            open_steps = {step.key: step for step in await self._worker.store.open_steps(run)}
            step = open_steps.get(key)
            if step is None:
                return
            attempt = max(step.attempt, 1) if step.due is None else step.attempt + 1
            try:
                await self._record(run, unwanted(key, attempt))
            except (*_OVER, TooEarly):
                return


def _step(name: str) -> Step[..., Any] | None:
    """A step of this process; None for a name that it does not have, or that two share."""
    try:
        return steps.get(name)
    except DefinitionError:
        return None


def _nobody() -> asyncio.Future[Any]:
    """What a call's waiter would be; that one is in another process."""
    return asyncio.get_running_loop().create_future()
