"""The decider of one run: reads facts, delivers them, appends what follows (laws L4–L6, L12, L14).

What it guarantees: its live execution and the log never disagree. Facts that happen in this process (the
outcome of a step that ran here, a timer that is due) are delivered *early*, before they are committed, and
their append says in which order; the store takes it whole only if nothing else has come in between. On any
other answer the live execution is dropped and the log replayed, and nothing is delivered early until an
append finds nothing beyond `after`.

It rests on four rules:
- at most one append of the run is under way, and no fact is delivered while it is;
- a fact is delivered early only if the command that it answers is committed, and everything up to `after`
  has been delivered;
- an append whose answer is lost is sent again under the same batch id until it is answered;
- whatever else happens (a stale log, an error of the store) ends in reading the log again.

Leases play no part in this: two deciders on one run are slow, never wrong.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from .. import faults, metrics, tracing
from ..engine.context import StepCall
from ..engine.tick import Execution, failed_by_engine, replay
from ..errors import (
    CommandMissing,
    FenceMissing,
    HoldfastError,
    InvalidAppend,
    KeyMissing,
    ReplayDivergence,
    Runaway,
    RunEnded,
    RunNotFound,
    StaleLog,
    StepEnded,
    StoreError,
    TooEarly,
    TooManyEvents,
)
from ..events import ENDS, Draft, Event, new
from ..keys import is_sealed
from ..logs import About
from ..store.messages import Append, Appended, News
from ..store.rows import OpenStep
from ..workflow import Workflow
from .attempts import Attempts, lost
from .children import Children
from .execute import RunningStep
from .presence import Sign

if TYPE_CHECKING:
    from .worker import Worker

log = logging.getLogger("holdfast.worker")
fence_log = logging.getLogger("holdfast.fence")

OUTCOMES = frozenset({"step_completed", "step_failed", "step_retried"})
"""What an attempt in this process can come to; it is recorded whatever else happens."""

_CARRIED_OUT = frozenset(
    {
        *("step_scheduled", "step_started", "step_retried", "timer_started", "timer_cancelled"),
        *("child_started", "child_cancelled"),
    }
)
"""What is for this worker to do as soon as it is committed."""

_OUR_FAULT = (CommandMissing, FenceMissing, InvalidAppend)
"""Refusals that no second try changes: the engine asked for what it may not."""

_OTHERS = 1.0
"""Seconds between looks at an attempt that another worker has."""

_CAUTION = 16
"""A refused early delivery is paid for with a replay. Replaying this many events costs about as much as what being
cautious costs an append (a commit more, and a read): so as many appends are cautious as make up for the replay."""

_RETRY_FIRST, _RETRY_MOST = 0.05, 2.0
"""Seconds between sends of an append that the store could not answer."""


class Advance:
    """One live run of a worker."""

    def __init__(self, worker: Worker, run_id: str, workflow: Workflow[..., Any]) -> None:
        self.worker = worker
        self.run_id = run_id
        self._sign = Sign(run_id)
        self.workflow = workflow
        self.execution: Execution | None = None
        self.after = 0
        self.closed = False
        self.busy = False  # an append is under way, or the log is being read
        self._wary = 0  # appends that must find nothing beyond `after` until facts are delivered early again
        self._news = False
        self._stale = False
        self._time = 0
        self._taken = 0  # how many of execution.asked are in _out
        self._out: list[Draft] = []
        self._has_fact = False
        self._inbox: deque[Draft] = deque()  # facts and records of this process, in order
        self.children: Children | None = None
        self._attempts = Attempts(worker, run_id, self.outcome, self._note, self.turn)
        self._sent: tuple[Append, int, bool] | None = (
            None  # the append, the commands in it, whether it has facts
        )
        self._retry = _RETRY_FIRST
        self._resent = False
        self._carrier: tracing.Carrier = {}  # the context of the run, where spans are made
        self._began = 0
        self._on_created: Callable[[BaseException | None], None] | None = None

    # ---- what happens to it

    def begin(self, created: Draft, answered: Callable[[BaseException | None], None]) -> None:
        """An eager start: tick before the first commit, which then holds it all."""
        self._on_created = answered
        self.execution = Execution(self.run_id, self.workflow, **self.worker.engine_options)
        created.at = self._time = self.worker.clock.now()
        if tracing.active is not None:
            self._trace(created.data, created.at)
        self._out = [created, self._started()]
        if self._tick(self.execution.deliver, created):
            self.turn()

    def load(self) -> None:
        """Read the log and replay it; then go on where it ends."""
        self.busy = True
        self.worker.spawn(self._load())

    def news(self) -> None:
        """A fact from outside has been committed."""
        self._news = True
        self.turn()

    def outcome(self, attempt: RunningStep, draft: Draft) -> None:
        """A step attempt of this process has ended."""
        if self.closed:
            self._attempts.ended(attempt)
            self.worker.record_late(self.run_id, draft)
            return
        self._inbox.append(draft)
        self._attempts.ended(attempt)
        self.turn()

    def _child_ended(self, draft: Draft) -> None:
        """A child run of this one has ended (or was refused, or, detached, is started)."""
        if self.closed or self.execution is None or draft.key not in self.execution.children:
            return  # whoever reads the log next finds it again
        self._inbox.append(draft)
        self.turn()

    def ring(self, what: str) -> None:
        """A timer of the run is due, or a step's next attempt."""
        kind, _, key = what.partition(" ")
        if kind == "timer":
            self._inbox.append(new("timer_fired", key=key))
        else:
            self._note(self._attempts.due(key, int(kind.removeprefix("retry-"))))
        self.turn()

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
    def idle(self) -> bool:
        """Whether it only waits: it may be dropped from memory, and is loaded again when needed."""
        waiting = self._out or self._inbox or self._attempts.open or self._news
        return self.execution is not None and not (
            self.busy or waiting or (self.children is not None and self.children.busy)
        )

    @property
    def mark(self) -> int:
        """The position up to which every fact is delivered and what follows from it is appended (law L14)."""
        return self.after if self.execution is not None and not self.execution.asked else 0

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
            self._attempts.interrupt()

    # ---- spans, where somebody wants them

    def _trace(self, created: Mapping[str, Any], began: int) -> None:
        """The context of the run is known: whoever makes spans for it gets it from here."""
        self._carrier, self._began = tracing.carrier_of(self.run_id, created), began
        self._attempts.carrier = self._carrier
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

    # ---- the turn: what to do next

    def turn(self) -> None:
        """Do what can be done now: deliver, append, or read. Called whenever something has changed."""
        if self.busy or self.closed:
            return
        if self.worker.stopping:
            self._record([d for d in self._inbox if d.type in OUTCOMES])
            return
        if self.execution is None or self._stale:
            self.drop()
            self.load()
            return
        if self._news and not self._out:
            self.busy = True
            self.worker.spawn(self._catch_up())
            return
        execution = self.execution
        if self._inbox and not self._take_inbox(execution):
            return
        if execution.abandoned or len(execution.asked) > self._taken:
            self._collect(execution)
        if self._out:
            self._append()
        elif self._inbox and not self._live.ended:
            self._record(list(self._inbox))

    def _take_inbox(self, execution: Execution) -> bool:
        """Deliver the facts of this process early, where that is allowed; False where a tick went wrong."""
        inbox = self._inbox
        while inbox and not execution.ended:
            if inbox[0].cls == "record":
                self._out.append(inbox.popleft())
            elif self._wary:
                # Facts are only recorded then; records are this worker's own, it acts on their commit.
                self._out.extend(draft for draft in inbox if draft.cls == "record")
                self._inbox = deque(draft for draft in inbox if draft.cls != "record")
                break
            elif not self._deliver_early(execution, inbox.popleft()):
                return False
        return True

    def _deliver_early(self, execution: Execution, draft: Draft) -> bool:
        now = self.worker.clock.now()
        if draft.type == "timer_fired":
            timer = execution.sleepers.get(draft.key)
            if timer is None:
                return True  # cancelled meanwhile
            now = max(now, timer.due)
        if now > self._time:
            self._time = now
        draft.at = self._time
        self._out.append(draft)
        self._has_fact = True
        delivered = self._tick(execution.deliver, draft)
        if delivered and (execution.asked or execution.abandoned):
            self._collect(execution)
        return delivered

    @property
    def _live(self) -> Execution:
        assert self.execution is not None
        return self.execution

    def _collect(self, execution: Execution) -> None:
        """Move what the code has asked for since, into the next append.

        A step starts in the same commit, where there is a place for it.

        A step that nobody waits for any more is called off when the log says so: a fact that was delivered
        early may turn out to have another one before it, and then its view has never been.
        """
        asked, taken = execution.asked, self._taken
        if len(asked) > taken:
            out = self._out
            for draft in itertools.islice(asked, taken, None) if taken else asked:
                out.append(draft)
                if draft.type == "step_scheduled" and "queue" not in draft.data:
                    start = self._attempts.begin(draft.key)
                    if start is not None:
                        out.append(start)
            self._taken = len(asked)
        while execution.abandoned and not self._has_fact:
            self._note(self._attempts.abandon(execution.abandoned.pop()))

    def _note(self, draft: Draft | None) -> None:
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

    # ---- appending

    def _append(self) -> None:
        if self.after + len(self._out) > self.worker.event_limit and not self._live.ended:
            self._fail(
                TooManyEvents(
                    f"{self.run_id} would have more than {self.worker.event_limit:,} events: split the work "
                    "into several runs, or raise event_limit"
                )
            )
            return
        drafts, self._out = self._out, []
        self.busy = True
        faults.point("worker.append.before")
        worker = self.worker
        store = worker.store
        batch = store.next_batch()
        request = Append(self.run_id, drafts, self.after, batch, self._answered, owner=worker.id)
        self._sent = request, self._taken, self._has_fact
        self._taken, self._has_fact = 0, False
        # Where no other step runs, no other append is about to join this one's group.
        store.submit(request, flush=not worker.executor.busy)

    def _answered(self, answer: Appended | BaseException) -> None:
        assert self._sent is not None
        request, commands, had_fact = self._sent
        faults.point("worker.append.after")
        if isinstance(answer, Appended):
            self._retry, self._sent = _RETRY_FIRST, None
            self._accepted(request, answer, commands)
        elif isinstance(answer, StaleLog):
            self._refused(request, answer, had_fact)
        elif isinstance(answer, RunEnded | RunNotFound):
            self.worker.forget(self, answer)
        elif isinstance(answer, StepEnded | TooEarly):
            # Nothing of the append is stored: what happened in this process must not be lost with it.
            self._log.debug("%s: %s", self.run_id, answer)
            self._reload(keep=list(request.drafts))
        elif self.closed and self._on_created is None:
            self._log.debug("%s: %s", self.run_id, answer)
        elif isinstance(answer, KeyMissing):
            self._park("sealed", answer)  # what it missed cannot be read
        elif isinstance(answer, StoreError) and not isinstance(answer, _OUR_FAULT):
            self._log.warning("%s: the store did not answer, trying again: %s", self.run_id, answer)
            self._send_again(request, answer)
        elif isinstance(answer, InvalidAppend) and self._on_created is None:
            self.worker.spawn(self._ask_for_log(request, answer))
        else:
            self._refused_for_good(answer)

    def _refused_for_good(self, error: BaseException) -> None:
        self._log.error("%s: the store refused an append: %s", self.run_id, error)
        self._park("broken", error)

    async def _ask_for_log(self, request: Append, refusal: InvalidAppend) -> None:
        """An append that cannot be right: the log may have lost what it rests on."""
        try:
            if not await self._left_cut_log():
                self._refused_for_good(refusal)
        except StoreError as error:
            self._send_again(request, error)

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
        self.worker.forget(self, None, ended=False)
        await self.worker.store.release(self.worker.id, {self.run_id: 0})
        return True

    def _send_again(self, request: Append, error: StoreError) -> None:
        """The outcome is unknown (law L12): the same append, under the same batch id, until it is answered.

        Two do not wait for ever: whoever starts a run is told, and may start it again under its id; and a
        worker that leaves, for what it could not record is done again by others.
        """
        if self._retry >= _RETRY_MOST and (self.worker.stopping or self._on_created is not None):
            self._log.error("%s: given up, the store does not answer: %s", self.run_id, error)
            self.worker.spawn(self._give_up(error))
            return
        self._resent = True
        self.worker.later(self._retry, lambda: self.worker.store.submit(request))
        self._retry = min(self._retry * 2, _RETRY_MOST)

    def _accepted(self, request: Append, answer: Appended, commands: int) -> None:
        execution = self.execution
        created, self._on_created = self._on_created, None
        if created is not None:
            created(None)
        if execution is None:
            self.busy = False
            self.turn()
            return
        execution.accepted(commands)
        if self._wary and not answer.missed and answer.first == self.after + 1:
            self._wary -= 1
        self.after = max(self.after, answer.last)  # what is there already may stand before it
        for event in answer.missed:
            if not self._tick(execution.feed, event):
                return
        if execution.asked or execution.abandoned:
            self._collect(execution)
        self._carry_out(execution, request, answer)
        self.busy = False
        if execution.ended and request.drafts[-1].type in ENDS:
            self._trace_end(request.drafts[-1])
            if "continued" in request.drafts[-1].data:
                self.worker.orphans_soon()
            if self._resent:  # the news of the commit may have been lost with its answer
                self.worker.store.tell([News(self.run_id, None, fact=False, ended=True, ready=False)])
            self.worker.forget(self, None)
            return
        if self._out or self._inbox or self._news or self._stale:
            self.turn()

    def _carry_out(self, execution: Execution, request: Append, answer: Appended) -> None:
        """Do what the committed commands and records ask of this worker."""
        calls, attempts = execution.calls, self._attempts
        for draft in request.drafts:
            type_ = draft.type
            if type_ not in _CARRIED_OUT:
                continue
            key, data = draft.key, draft.data
            if type_ == "step_started":
                self._begin(execution, draft, mine=draft.unique not in answer.doubles)
            elif type_ == "step_scheduled":
                if "queue" in data:
                    attempts.queued(key)
                elif key not in attempts.begun:
                    self._note(attempts.scheduled(key))
            elif type_ == "timer_started":
                if key in execution.sleepers:
                    self.worker.agenda.add(data["due"], self.run_id, f"timer {key}")
            elif type_ == "timer_cancelled":
                self.worker.agenda.remove(self.run_id, f"timer {key}")
            elif type_ == "step_retried":
                self._note(attempts.retried(calls.get(key), key, data["attempt"] + 1, data["due"]))
            else:
                self._carry_out_child(draft)

    def _begin(self, execution: Execution, start: Draft, *, mine: bool) -> None:
        """The start of an attempt is committed: run its body, unless another worker had begun it."""
        key = start.key
        if mine:
            instead = self._attempts.started(execution.calls.get(key), key, start.data["attempt"])
            if instead is not None:
                self._inbox.append(instead)
        else:
            self._attempts.others(key)
            self._await_other(execution, key)

    def _carry_out_child(self, draft: Draft) -> None:
        if draft.type == "child_started" and draft.key in self._live.children:
            self._its_children().started(self._live.children[draft.key], self._live.root)
        elif draft.type == "child_cancelled":
            self._its_children().cancelled(draft.key)

    def _await_other(self, execution: Execution, key: str) -> None:
        """An attempt that was to start here is another worker's: see to it that something comes of it.

        That worker may be gone, or have recorded the attempt's failure before this one had read so far; neither is
        a fact that anybody is told of.
        """
        self.worker.later(_OTHERS, lambda: self.worker.spawn(self._look_at_other(execution, key)))

    async def _look_at_other(self, execution: Execution, key: str) -> None:
        if self.closed or execution is not self.execution or key not in execution.calls:
            return
        try:
            under_way = await self._attempts.is_under_way(key)
        except StoreError:
            under_way = True
        if under_way:
            self._await_other(execution, key)
        elif execution is self.execution:
            self._stale = True  # with the log, it is read how far the step's attempts have come
            self.turn()

    def _refused(self, request: Append, stale: StaleLog, had_fact: bool) -> None:
        site = ", ".join(sorted({d.type for d in request.drafts if d.cls == "command"})) or "facts"
        distance = stale.position - self.after
        About(fence_log, self._about).info(
            "%s: %s refused at %d, log ends at %d (distance %d)",
            self.run_id,
            site,
            self.after,
            stale.position,
            distance,
            extra={"site": site, "after": self.after, "distance": distance},
        )
        metrics.REFUSALS.totals[site] += 1
        self.worker.refusals += 1
        created, self._on_created = self._on_created, None
        if created is not None:
            self.worker.forget(self, None)
            created(stale)
            return
        if had_fact:
            self._wary = max(1, stale.position // _CAUTION)
        self._reload()

    def _reload(self, keep: list[Draft] | None = None) -> None:
        self._keep(keep or [])
        self._stale = True
        self.busy = False
        self.turn()

    def _record(self, drafts: list[Draft]) -> None:
        """Append facts without delivering them: the worker stops, or early delivery is suspended."""
        self._inbox.clear()
        if not drafts:
            return
        self.busy = True
        request = Append(
            self.run_id,
            drafts,
            None,
            self.worker.store.next_batch(),
            lambda answer: self._recorded(request, answer),
        )
        self.worker.store.submit(request)

    def _recorded(self, request: Append, answer: Appended | BaseException) -> None:
        if isinstance(answer, StoreError) and not isinstance(answer, StepEnded | TooEarly | CommandMissing):
            self._send_again(request, answer)
            return
        self.busy = False
        self._news = True
        self.turn()

    # ---- reading

    async def _catch_up(self) -> None:
        """Read the facts that others have appended, and deliver them."""
        self._news = False
        try:
            events = await self.worker.store.read(self.run_id, self.after)
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
                self.worker.forget(self, None)
                return
            if event.cls == "command":
                self._reload()  # another decider has been here
                return
            if not self._tick(self._live.feed, event):
                return
            self.after = event.position
        self._unbusy()

    def _unbusy(self) -> None:
        self.busy = False
        self.turn()

    async def _load(self) -> None:
        store = self.worker.store
        self._news = False  # what is heard from here on may be about facts that this read misses
        try:
            events = await store.read(self.run_id)
            open_steps = {step.key: step for step in await store.open_steps(self.run_id)}
            children = await store.children(self.run_id)
            if events and is_sealed(events[0].body):
                raise KeyMissing("its payloads are sealed: give this worker the keys ($HOLDFAST_KEYS)")
        except KeyMissing as error:
            self._park("sealed", error)
            return
        except StoreError as error:
            self._log.warning("%s: cannot read the log, trying again: %s", self.run_id, error)
            self.worker.later(self._retry, self._unbusy)
            return
        if self.closed:  # meanwhile: an execution that was made now would be nobody's to bury
            return
        if not events or any(event.type in ENDS for event in events):
            self.worker.forget(self, None)
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
            self.worker.taken_up(self.run_id, begun.data.get("worker", ""))
        self._take_up(open_steps)
        if children or self.children is not None:
            self._its_children().take_up(self._live.children, children, self._live.root)
        self.busy = False
        self.turn()

    def _take_up(self, open_steps: Mapping[str, OpenStep]) -> None:
        """What was under way when this worker took the run, or read its log anew."""
        execution = self._live
        asked = {(draft.type, draft.key) for draft in execution.asked}
        for key, timer in execution.sleepers.items():
            if ("timer_started", key) not in asked:
                self.worker.agenda.add(timer.due, self.run_id, f"timer {key}")
        self._attempts.let_go()
        self._inbox = deque(d for d in self._inbox if self._still_counts(d, open_steps))
        cared_for = self._attempts.running.keys() | {d.key for d in self._inbox if d.type in OUTCOMES}
        for call in list(execution.calls.values()):
            step = open_steps.get(call.key)
            if step is None or call.key in cared_for or ("step_scheduled", call.key) in asked:
                continue
            if self._attempts.used_up(call, step):
                self.worker.spawn(self._judge_last(execution, call, step.attempt))
            else:
                self._note(self._attempts.take_up(call, step.attempt, step.due))

    async def _judge_last(self, execution: Execution, call: StepCall, attempt: int) -> None:
        """A step's last attempt was begun elsewhere: it is lost, unless whoever began it lives."""
        try:
            under_way = await self._attempts.is_under_way(call.key)
        except StoreError:
            under_way = True
        if self.closed or execution is not self.execution or call.key not in execution.calls:
            return
        if under_way:
            self._await_other(execution, call.key)
        else:
            self._note(lost(call.key, attempt, call.step.options.retries))
            self.turn()

    def _still_counts(self, draft: Draft, open_steps: Mapping[str, OpenStep]) -> bool:
        if draft.type == "timer_fired":
            return draft.key in self._live.sleepers
        if draft.type in ("step_started", "child_ended"):
            return False  # looked for anew, where it is still due
        if draft.type == "step_retried":
            step = open_steps.get(draft.key)
            return step is not None and step.attempt == draft.data["attempt"] and step.due is None
        return True

    def _replay(self, events: list[Event]) -> bool:
        metrics.REPLAYS.total += 1

        def cold() -> None:
            self.execution = replay(self.workflow, events, **self.worker.engine_options)

        return self._tick(cold)

    # ---- ends that the code did not ask for

    def _started(self) -> Draft:
        return new("run_started", data={"worker": self.worker.id})

    def _keep(self, drafts: list[Draft]) -> None:
        """What attempts came to must not be lost with the view, or the append, that it was delivered in."""
        for draft in reversed(drafts):
            if draft.type in OUTCOMES:
                draft.value = msgspec.UNSET  # the code that it was delivered to may have changed it
                self._inbox.appendleft(draft)

    def drop(self) -> None:
        """Bury the live execution; what attempts came to is kept."""
        execution, self.execution = self.execution, None
        self._keep(self._out)
        self._out.clear()
        self._taken, self._has_fact = 0, False
        self._attempts.let_go()
        if execution is not None:
            execution.bury()

    def _park(self, kind: str, error: BaseException) -> None:
        self.busy = True
        self.drop()
        created, self._on_created = self._on_created, None
        if created is not None:
            self.worker.forget(self, None)
            created(StoreError(f"{self.run_id} was not started ({kind}): {error}"))
            return
        self._log.error("%s is parked (%s): %s", self.run_id, kind, error)
        self.worker.spawn(self.worker.park(self, kind, str(error)))

    def _fail(self, error: HoldfastError) -> None:
        """The engine ends the run: a record, for the code did not ask for it."""
        self.busy = True
        self.drop()
        created, self._on_created = self._on_created, None
        if created is not None:
            self.worker.forget(self, None)
            created(error)
            return
        self.worker.spawn(self._append_end(failed_by_engine(error)))

    async def _give_up(self, error: StoreError) -> None:
        created, self._on_created = self._on_created, None
        self.worker.forget(self, None, ended=False)
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
        self.worker.forget(self, None)

    async def _count_crash(self, error: Runaway) -> None:
        created, self._on_created = self._on_created, None
        if created is not None:
            self.worker.forget(self, None)
            created(StoreError(f"{self.run_id} was not started: {error}"))
            return
        try:
            count = await self.worker.store.crashed(self.run_id)
        except HoldfastError as problem:
            self._log.warning("%s: its crash could not be counted: %s", self.run_id, problem)
            count = 0
        if count >= self.worker.crash_limit:
            self._park("runaway", error)
        else:
            await asyncio.sleep(0)
            self._unbusy()
