"""One run as a worker holds it: its live execution, made from the log, fed with facts, dropped or parked.

What it guarantees: whatever goes wrong with the view (code that diverges, a log that cannot be read, an end that
another has written) leaves nothing of it behind but what attempts in this process came to, which is kept and
recorded. `Advance` adds what is appended.
"""

from __future__ import annotations

import abc
import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from .. import faults, metrics, tracing
from ..engine.tick import Execution, failed_by_engine, replay
from ..errors import HoldfastError, KeyMissing, ReplayDivergence, Runaway, StoreError
from ..events import ENDS, Draft, Event, new
from ..keys import is_sealed
from ..logs import About
from ..store.rows import OpenStep, TakenUp
from ..workflow import Workflow
from .agenda import Turn
from .attempts import Attempts
from .children import Children
from .doubts import judge_last
from .execute import RunningStep
from .presence import Sign

if TYPE_CHECKING:
    from .worker import Worker

log = logging.getLogger("holdfast.worker")

OUTCOMES = frozenset({"step_completed", "step_failed", "step_retried"})
"""What an attempt in this process can come to; it is recorded whatever else happens."""


class LiveRun(abc.ABC):
    """A run that a worker has: what its code has seen and asked for, and what is still to be told to it."""

    retry_first, retry_most = 0.05, 2.0
    """Seconds until what the store could not answer is asked again, the first time and at most."""

    def __init__(self, worker: Worker, run_id: str, workflow: Workflow[..., Any]) -> None:
        self.worker = worker
        self.run_id = run_id
        self._sign = Sign(run_id)
        self.workflow = workflow
        self.execution: Execution | None = None
        self.after = 0
        self.closed = False
        self.busy = False  # an append is under way, or the log is being read
        self._news = False
        self._stale = False
        self.doubts = 0  # attempts of which it is being found out whether another worker is about them
        self._time = 0
        self._taken = 0  # how many of execution.asked are in _out
        self._out: list[Draft] = []
        self._has_fact = False
        self._inbox: deque[Draft] = deque()  # facts and records of this process, in order
        self.children: Children | None = None
        self.attempts = Attempts(worker, run_id, self.outcome, self.note, self.turn)
        self._retry = self.retry_first
        self._carrier: tracing.Carrier = {}  # the context of the run, where spans are made
        self._began = 0
        self._on_created: Callable[[BaseException | None], None] | None = None

    @abc.abstractmethod
    def turn(self) -> None:
        """Do what can be done now. Called whenever something has changed."""

    @abc.abstractmethod
    def outcome(self, attempt: RunningStep, draft: Draft) -> None:
        """A step attempt of this process has ended."""

    @abc.abstractmethod
    def _child_ended(self, draft: Draft) -> None:
        """A child run of this one has ended."""

    def load(self, turn: Turn | None = None) -> None:
        """Read the log and replay it, when its turn comes; then go on where it ends."""
        self.busy = True
        self.worker.spawn(self._load(turn))

    def _its_children(self) -> Children:
        """Made for the first child, for most runs have none."""
        if self.children is None:
            self.children = Children(self.worker, self.run_id, self._child_ended)
            self.children.carrier = self._carrier
        return self.children

    @property
    def _about(self) -> dict[str, str]:
        return {"run": self.run_id, "workflow": self.workflow.name, "worker": self.worker.id}

    @property
    def _log(self) -> About:
        return About(log, self._about)

    @property
    def _live(self) -> Execution:
        assert self.execution is not None
        return self.execution

    def close(self, *, ended: bool = True) -> None:
        """Take no more part in the run. Its steps are interrupted where it has ended, else they go on.

        A run that is another worker's now, or parked, still wants their outcome, and not a cancellation.
        """
        self.closed = True
        if self.children is not None:
            self.children.close()
        self.drop()
        for draft in self._inbox:
            if draft.type in OUTCOMES:
                self.worker.record_late(self.run_id, draft)
        self._inbox.clear()
        if ended:
            self.attempts.interrupt()

    def drop(self) -> None:
        """Bury the live execution; what attempts came to is kept."""
        execution, self.execution = self.execution, None
        self._keep(self._out)
        self._out.clear()
        self._taken, self._has_fact = 0, False
        self.attempts.let_go()
        if execution is not None:
            execution.bury()

    def _keep(self, drafts: list[Draft]) -> None:
        """What attempts came to must not be lost with the view, or the append, that it was delivered in."""
        for draft in reversed(drafts):
            if draft.type in OUTCOMES:
                draft.value = msgspec.UNSET  # the code that it was delivered to may have changed it
                self._inbox.appendleft(draft)

    def _started(self) -> Draft:
        return new("run_started", data={"worker": self.worker.id})

    def note(self, draft: Draft | None) -> None:
        if draft is not None:
            self._inbox.append(draft)

    def _tick(self, work: Callable[..., None], *args: Any) -> bool:
        """Let the code run; False where it diverged, broke or did not come back."""
        faults.point("worker.tick.before")
        metrics.TICKS.total += 1
        done = None if tracing.active is None else self._trace_tick(args)
        try:
            self.worker.watch.run(self._sign, work, *args)
        except ReplayDivergence as error:
            self._park("diverged", error)
        except Runaway as error:
            self.drop()
            self.busy = True
            self.worker.spawn(self._count_crash(error))
        except KeyboardInterrupt:  # from the keyboard or from the code, it ends the worker
            self.worker.struck_by(self)
            raise
        except Exception as error:  # noqa: BLE001 - a defect of ours must not end the worker
            self._log.exception("%s: the engine broke; the run is parked", self.run_id)
            self._park("broken", error)
        else:
            faults.point("worker.tick.after")
            return True
        finally:
            if done is not None:
                done()
        return False

    # ---- reading

    async def _catch_up(self) -> None:
        """Read the facts that others have appended, and deliver them."""
        self._news = False
        try:
            events = await self.worker.store.catch_up(self.run_id, self.after)
            if not events and await self._left_cut_log():
                return
        except KeyMissing as error:
            self._park("sealed", error)
            return
        except StoreError as error:
            self._log.warning("%s: cannot read the log, trying again: %s", self.run_id, error)
            self._news = True
            self.worker.later(self._retry, self._unbusy)
            return
        if self.closed:
            return
        for event in events:
            self._time = max(self._time, event.time)
            if event.type in ENDS:
                if event.cls == "record":  # its writer (`terminate`) knows nothing of the run's context
                    self._trace_end(event)
                self.worker.runs.forget(self)
                return
            if event.cls == "command":
                self._reload()  # another decider has been here
                return
            if not self._tick(self._live.feed, event):
                return
            self.after = event.position
        self._unbusy()

    async def _left_cut_log(self) -> bool:
        """Whether the log is shorter than what was read of it; then this view is nobody's, and the run free.

        A replica that lagged behind was promoted, or a backup put back: nothing in memory is true any more.
        """
        head = await self.worker.store.head(self.run_id)
        if self.closed or (head is not None and head.position >= self.after):
            return self.closed
        ends = 0 if head is None else head.position
        self._log.warning(
            "%s: its log ends at %d and was read up to %d: an older copy of the store is in its place; "
            "the run goes on from there",
            self.run_id,
            ends,
            self.after,
        )
        self.worker.runs.forget(self, ended=False)
        await self.worker.store.release(self.worker.id, {self.run_id: 0})
        return True

    def _unbusy(self) -> None:
        self.busy = False
        self.turn()

    async def _load(self, turn: Turn | None) -> None:
        try:
            found = await self._read_whole()
            if turn is not None:
                await turn.come()
            if found is not None and not self.closed:  # an execution made now would be nobody's to bury
                self._begin_from(found)
        finally:
            if turn is not None:
                turn.leave()

    async def _read_whole(self) -> TakenUp | None:
        store = self.worker.store
        self._news = False  # what is heard from here on may be about facts that this read misses
        try:
            found = await store.take_up(self.run_id)
            if found.events and is_sealed(found.events[0].body):
                raise KeyMissing("its payloads are sealed: give this worker the keys ($HOLDFAST_KEYS)")
        except KeyMissing as error:
            self._park("sealed", error)
        except StoreError as error:
            self._log.warning("%s: cannot read the log, trying again: %s", self.run_id, error)
            self.worker.later(self._retry, self._unbusy)
        else:
            return found
        return None

    def _begin_from(self, found: TakenUp) -> None:
        """Make the execution from the log, and go on."""
        events, children = found.events, found.children
        if not events or any(event.type in ENDS for event in events):
            self.worker.runs.forget(self)
            return
        self._stale = False
        self._taken, self._has_fact = 0, False
        if tracing.active is not None:
            self._trace(events[0].data, events[0].time)
        if not self._replay(events):
            return
        self.after, self._time = events[-1].position, events[-1].time
        begun = next((event for event in events if event.type == "run_started"), None)
        if begun is None:
            self._out.append(self._started())
        else:
            self.worker.runs.taken_up(self.run_id, begun.data.get("worker", ""))
        self._take_up({step.key: step for step in found.steps})
        if children or self.children is not None:
            self._its_children().take_up(self._live.children, children, self._live.root)
        self._unbusy()

    def _replay(self, events: list[Event]) -> bool:
        metrics.REPLAYS.total += 1

        def cold() -> None:
            self.execution = replay(self.workflow, events, **self.worker.engine_options)

        return self._tick(cold)

    def _take_up(self, open_steps: Mapping[str, OpenStep]) -> None:
        """What was under way when this worker took the run, or read its log anew."""
        execution = self._live
        asked = {(draft.type, draft.key) for draft in execution.asked}
        for key, timer in execution.sleepers.items():
            if ("timer_started", key) not in asked:
                self.worker.agenda.add(timer.due, self.run_id, f"timer {key}")
        self.attempts.let_go()
        self._inbox = deque(d for d in self._inbox if self._still_counts(d, open_steps))
        cared_for = self.attempts.running.keys() | {d.key for d in self._inbox if d.type in OUTCOMES}
        for call in list(execution.calls.values()):
            step = open_steps.get(call.key)
            if step is None or call.key in cared_for or ("step_scheduled", call.key) in asked:
                continue
            if self.attempts.used_up(call, step):
                judge_last(self, call, step.attempt)
            else:
                self.note(self.attempts.take_up(call, step.attempt, step.due))

    def _still_counts(self, draft: Draft, open_steps: Mapping[str, OpenStep]) -> bool:
        if draft.type == "timer_fired":
            return draft.key in self._live.sleepers
        if draft.type in ("step_started", "child_ended"):
            return False  # looked for anew, where it is still due
        if draft.type == "step_retried":
            step = open_steps.get(draft.key)
            return step is not None and step.attempt == draft.data["attempt"] and step.due is None
        return True

    def _reload(self, keep: list[Draft] | None = None) -> None:
        self._keep(keep or [])
        self.busy = False
        self.read_anew()

    def read_anew(self) -> None:
        """The log says more than this view does: begin from it again."""
        self._stale = True
        self.turn()

    # ---- spans, where somebody wants them

    def _trace(self, created: Mapping[str, Any], began: int) -> None:
        """The context of the run is known: whoever makes spans for it gets it from here."""
        self._carrier, self._began = tracing.carrier_of(self.run_id, created), began
        self.attempts.carrier = self._carrier
        if self.children is not None:
            self.children.carrier = self._carrier

    def _trace_tick(self, args: tuple[Any, ...]) -> Callable[[], None] | None:
        """The span of a tick that delivers a fact, or the run's beginning; a replay has none."""
        what = args[0] if args else None
        if tracing.active is None or not self._carrier or what is None:
            return None
        if what.cls == "record" and what.type != "run_created":
            return None
        return tracing.active.tick(self.workflow.name, self.run_id, self._carrier, what.type, what.key)

    def _trace_end(self, end: Draft | Event) -> None:
        if tracing.active is not None and self._carrier:
            times = self._began, end.time if isinstance(end, Event) else self.worker.clock.now()
            tracing.active.ended(self.workflow.name, self.run_id, self._carrier, times, end)

    # ---- ends that the code did not ask for

    def _unstarted(self, error: BaseException) -> bool:
        """Where this is a start that the store has not taken: tell its caller why."""
        created, self._on_created = self._on_created, None
        if created is None:
            return False
        self.worker.runs.unstarted(self)
        created(error)
        return True

    def _park(self, kind: str, error: BaseException) -> None:
        self.busy = True
        self.drop()
        if self._unstarted(StoreError(f"{self.run_id} was not started ({kind}): {error}")):
            return
        self._log.error("%s is parked (%s): %s", self.run_id, kind, error)
        self.worker.spawn(self.worker.runs.park(self, kind, str(error)))

    def _fail(self, error: HoldfastError) -> None:
        """The engine ends the run: a record, for the code did not ask for it."""
        self.busy = True
        self.drop()
        if self._unstarted(error):
            return
        self.worker.spawn(self._append_end(failed_by_engine(error)))

    async def _give_up(self, error: StoreError) -> None:
        created, self._on_created = self._on_created, None
        self.worker.runs.forget(self, ended=False)
        try:  # it may be there all the same, if only the answer was lost
            await self.worker.store.release(self.worker.id, {self.run_id: 0})
        except HoldfastError:
            self.worker.unsure()
        if created is not None:
            created(error)

    async def _append_end(self, end: Draft) -> None:
        try:
            await self.worker.store.append(self.run_id, [end])
            self._trace_end(end)
        except HoldfastError as error:
            self._log.warning("%s: could not record its end: %s", self.run_id, error)
        self.worker.runs.forget(self)

    async def _count_crash(self, error: Runaway) -> None:
        if self._unstarted(StoreError(f"{self.run_id} was not started: {error}")):
            return
        try:
            count = await self.worker.store.crashed(self.run_id)
        except HoldfastError as problem:
            self._log.warning("%s: its crash could not be counted: %s", self.run_id, problem)
            count = 0
        if count >= self.worker.crashes.limit:
            self._park("runaway", error)
        else:
            await asyncio.sleep(0)
            self._unbusy()
