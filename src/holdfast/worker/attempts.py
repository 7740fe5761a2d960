"""The step attempts of one run in this worker: those that have begun, and those that wait for their turn.

An attempt begins when there is a place for it (`places.py`): then the draft of its start goes into the run's next
append, and its body runs when that is committed. Those without a place wait in line; those that failed wait for
their back-off first.

A step whose await was cancelled is nobody's any more, wherever it stands: a body that runs is interrupted, a
retry that waits is called off, and a start that is being committed does not run. Either way the step gets an
outcome, so that no step of a live run stays open for ever. Each method gives the draft of what is to be
recorded next, or None.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .. import failures, tracing
from ..engine.context import StepCall
from ..errors import StepLost
from ..events import Draft, new
from ..store.rows import OpenStep
from .execute import Outcome, RunningStep

if TYPE_CHECKING:
    from .worker import Worker


class Attempts:
    """What this worker does about the open steps of one run."""

    def __init__(
        self,
        worker: Worker,
        run_id: str,
        outcome: Outcome,
        begin: Callable[[Draft], None],
        turn: Callable[[], None],
    ) -> None:
        self.running: dict[str, RunningStep] = {}
        self.begun: set[str] = set()  # steps whose attempt has a place: its start is recorded, or about to be
        self.turn = turn
        self._begin = begin
        self._line: dict[str, Draft] = {}  # steps that wait for a place -> the start of their attempt
        self._fresh: set[str] = set()  # of these, those whose command is not committed yet
        self._places = worker.places
        self._worker = worker
        self._run_id = run_id
        self._outcome = outcome
        self._waiting: dict[str, int] = {}  # step -> the attempt that waits for its back-off
        self._unwanted: set[str] = set()  # steps that nobody waits for, before their start is committed
        self.carrier: tracing.Carrier = {}
        self._queued: set[str] = set()  # steps that wait or run in a queue: others take them

    @property
    def open(self) -> bool:
        """Whether there is anything to do about an attempt, but to wait for a back-off or a queue."""
        return bool(self.begun or self._line)

    def begin(self, key: str) -> Draft | None:
        """The start of a new step's first attempt, where there is a place for it; else it waits in line."""
        draft = self._worker.first_starts.of(key)
        if self._places.take(self):
            self.begun.add(key)
            return draft
        self._fresh.add(key)
        self._stand_in_line(draft)
        return None

    def scheduled(self, key: str) -> Draft | None:
        """A step is committed for which there was no place."""
        self._fresh.discard(key)
        if key in self._unwanted and key in self._line:
            self._unwanted.discard(key)
            return self.abandon(key)
        return None

    def granted(self) -> bool:
        """There is a place for the first one in line; whether more wait."""
        key = next(iter(self._line))
        self.begun.add(key)
        self._fresh.discard(key)
        self._begin(self._line.pop(key))
        return bool(self._line)

    def others(self, key: str) -> None:
        """Another worker has this attempt."""
        self._leave(key)

    def let_go(self) -> None:
        """The log is read anew: what waits for a place, or has one and does not run, is looked for there."""
        self._line.clear()
        self._fresh.clear()
        self._places.leave(self)
        for key in self.begun - self.running.keys():
            self._leave(key)

    def started(self, call: StepCall | None, key: str, attempt: int) -> Draft | None:
        """The start of an attempt is committed: run its body."""
        if call is None:
            self._leave(key)
            return None
        if key in self._unwanted:
            self._unwanted.discard(key)
            self._leave(key)
            return unwanted(key, attempt)
        self.running[key] = running = RunningStep(
            self._run_id, call, attempt, self._outcome, self._worker.streams
        )
        running.carrier = self.carrier
        self._worker.executor.start(running)
        return None

    def queued(self, key: str) -> None:
        """A step is committed that others will run."""
        self._queued.add(key)
        if key in self._unwanted:
            self._unwanted.discard(key)
            self.abandon(key)

    def ended(self, running: RunningStep) -> None:
        """A body has come to its end."""
        key = running.call.key
        if self.running.get(key) is running:
            del self.running[key]
            self.begun.discard(key)
        self._places.ended(self)

    def retried(self, call: StepCall | None, key: str, attempt: int, due: int) -> Draft | None:
        """The record of a failed attempt is committed: begin the next one, `attempt`, at `due`."""
        if call is None or key in self._unwanted:
            self._unwanted.discard(key)
            return unwanted(key, attempt)
        self._wait(key, attempt, due)
        return None

    def due(self, key: str, attempt: int) -> Draft | None:
        """The back-off is over: the record of the next start, where there is a place for it."""
        self._waiting.pop(key, None)
        return self._start(key, attempt)

    def take_up(self, call: StepCall, attempt: int, due: int | None) -> Draft | None:
        """A step that was begun before this worker had the run; `attempt` and `due` are from the store."""
        if call.queued:
            self._queued.add(call.key)
            return self.abandon(call.key) if call.future.done() else None
        if call.future.done():  # its await was cancelled
            return unwanted(call.key, attempt + 1 if due is not None else max(attempt, 1))
        if due is not None:
            self._wait(call.key, attempt + 1, due)
            return None
        return self._start(call.key, attempt + 1, **({"reason": "recovered"} if attempt else {}))

    def used_up(self, call: StepCall, step: OpenStep) -> bool:
        """Whether the step's last attempt has begun, and nothing is known of how it went."""
        if call.queued or call.future.done() or step.due is not None:
            return False
        return step.attempt > call.step.options.retries

    async def is_under_way(self, key: str) -> bool:
        """Whether the last attempt of this step is on, at a worker that lives. Raises StoreError."""
        store = self._worker.store
        step = next((step for step in await store.open_steps(self._run_id) if step.key == key), None)
        if step is None or step.due is not None:
            return False
        started = [e for e in await store.read(self._run_id) if e.type == "step_started" and e.key == key]
        whose, now = started[-1].data["worker"], self._worker.clock.now()
        return any(row.id == whose and row.alive(now) for row in await store.workers())

    def abandon(self, key: str) -> Draft | None:
        """Workflow code waits for this step no longer."""
        if key in self.running:
            self.running[key].cancel()
            return None
        if key in self._line and key not in self._fresh:
            start = self._line.pop(key)
            if not self._line:
                self._places.leave(self)
            return unwanted(key, start.data["attempt"])
        if key in self._queued:
            self._queued.discard(key)
            self._worker.spawn(self._worker.serving.call_off(self._run_id, key))
            return None
        attempt = self._waiting.pop(key, None)
        if attempt is None:
            self._unwanted.add(key)
            return None
        self._worker.agenda.remove(self._run_id, f"retry-{attempt} {key}")
        return unwanted(key, attempt)

    def interrupt(self) -> None:
        """The run has ended: interrupt every body."""
        for running in self.running.values():
            running.cancel()

    def _start(self, key: str, attempt: int, **more: Any) -> Draft | None:
        """The start of an attempt, or None where it has to wait in line."""
        draft = new("step_started", key=key, data={"attempt": attempt, "worker": self._worker.id, **more})
        if self._places.take(self):
            self.begun.add(key)
            return draft
        self._stand_in_line(draft)
        return None

    def _stand_in_line(self, start: Draft) -> None:
        self._line[start.key] = start
        self._places.wait(self)

    def _leave(self, key: str) -> None:
        """Give a place back that no body has used."""
        if key in self.begun:
            self.begun.discard(key)
            self._places.free(self)

    def _wait(self, key: str, attempt: int, due: int) -> None:
        self._waiting[key] = attempt
        self._worker.agenda.add(due, self._run_id, f"retry-{attempt} {key}")


def lost(key: str, attempt: int, retries: int) -> Draft:
    """The outcome of a step whose last attempt was begun by a worker that is gone."""
    error = StepLost(
        f"{key}: attempt {attempt} of {retries + 1} was under way when its worker died; "
        "whether its effect happened is unknown"
    )
    return new("step_failed", key=key, data={"attempt": attempt, "error": failures.describe(error)})


def unwanted(key: str, attempt: int) -> Draft:
    """The outcome of a step that nobody waits for: its await was cancelled before this attempt ran."""
    error = failures.describe(asyncio.CancelledError("nobody waits for this step any more"))
    return new("step_failed", key=key, data={"attempt": attempt, "error": error})
