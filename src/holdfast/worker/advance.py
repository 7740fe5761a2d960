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

import itertools
import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .. import faults, metrics, tracing
from ..engine.tick import Execution
from ..errors import (
    CommandMissing,
    FenceMissing,
    InvalidAppend,
    KeyMissing,
    RunEnded,
    RunNotFound,
    StaleLog,
    StepEnded,
    StoreError,
    TooEarly,
    TooManyEvents,
)
from ..events import ENDS, Draft, new
from ..logs import About
from ..store.messages import Append, Appended, News
from ..workflow import Workflow
from .doubts import await_other
from .execute import RunningStep
from .live import OUTCOMES, LiveRun

if TYPE_CHECKING:
    from .worker import Worker

fence_log = logging.getLogger("holdfast.fence")

_CARRIED_OUT = frozenset(
    {
        *("step_retried", "timer_started", "timer_cancelled"),
        *("child_started", "child_cancelled"),
    }
)
"""What is for this worker to do as soon as it is committed, besides what steps ask of it."""

_OUR_FAULT = (CommandMissing, FenceMissing, InvalidAppend)
"""Refusals that no second try changes: the engine asked for what it may not."""

_CAUTION = 16
"""A refused early delivery is paid for with a replay. Replaying this many events costs about as much as what being
cautious costs an append (a commit more, and a read): so as many appends are cautious as make up for the replay."""


class Advance(LiveRun):
    """One live run of a worker."""

    def __init__(self, worker: Worker, run_id: str, workflow: Workflow[..., Any]) -> None:
        super().__init__(worker, run_id, workflow)
        self._wary = 0  # appends that must find nothing beyond `after` until facts are delivered early again
        self._sent: tuple[Append, int, bool] | None = (
            None  # the append, the commands in it, whether it has facts
        )
        self._resent = False

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

    def news(self) -> None:
        """A fact from outside has been committed."""
        self._news = True
        self.turn()

    def outcome(self, attempt: RunningStep, draft: Draft) -> None:
        """A step attempt of this process has ended."""
        if self.closed:
            self.attempts.ended(attempt)
            self.worker.record_late(self.run_id, draft)
            return
        self._inbox.append(draft)
        self.attempts.ended(attempt)
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
            self.note(self.attempts.due(key, int(kind.removeprefix("retry-"))))
        self.turn()

    @property
    def idle(self) -> bool:
        """Whether it only waits: it may be dropped from memory, and is loaded again when needed."""
        waiting = self._out or self._inbox or self.attempts.open or self._news or self.doubts
        return self.execution is not None and not (
            self.busy or waiting or (self.children is not None and self.children.busy)
        )

    @property
    def mark(self) -> int:
        """The position up to which every fact is delivered and what follows from it is appended (law L14)."""
        return self.after if self.execution is not None and not self.execution.asked else 0

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
            records = [draft for draft in self._inbox if draft.cls == "record"]
            self._record([draft for draft in self._inbox if draft.cls != "record"], then=records)

    def _take_inbox(self, execution: Execution) -> bool:
        """Deliver the facts of this process early, where that is allowed; False where a tick went wrong."""
        inbox = self._inbox
        while inbox and not execution.ended:
            if inbox[0].cls == "record":
                self._out.append(inbox.popleft())
            elif self._wary:
                break  # facts are only recorded then, and before the records that follow them
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
                    start = self.attempts.begin(draft.key)
                    if start is not None:
                        out.append(start)
            self._taken = len(asked)
        while execution.abandoned and not self._has_fact:
            self.note(self.attempts.abandon(execution.abandoned.pop()))

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
        # Where no step runs and nothing else begins, no other append is about to join this one's group.
        store.submit(request, flush=not (worker.executor.busy or worker.runs.starts.crowded))

    def _answered(self, answer: Appended | BaseException) -> None:
        assert self._sent is not None
        request, commands, had_fact = self._sent
        faults.point("worker.append.after")
        if isinstance(answer, Appended):
            self._retry, self._sent = self.retry_first, None
            self._accepted(request, answer, commands)
        elif isinstance(answer, StaleLog):
            self._refused(request, answer, had_fact)
        elif isinstance(answer, RunEnded | RunNotFound):
            self._log.info("%s: %s", self.run_id, answer)
            self.worker.runs.forget(self)
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

    def _send_again(self, request: Append, error: StoreError) -> None:
        """The outcome is unknown (law L12): the same append, under the same batch id, until it is answered.

        Two do not wait for ever: whoever starts a run is told, and may start it again under its id; and a
        worker that leaves, for what it could not record is done again by others.
        """
        if self._retry >= self.retry_most and (self.worker.stopping or self._on_created is not None):
            self._log.error("%s: given up, the store does not answer: %s", self.run_id, error)
            self.worker.spawn(self._give_up(error))
            return
        self._resent = True
        self.worker.later(self._retry, lambda: self.worker.store.submit(request))
        self._retry = min(self._retry * 2, self.retry_most)

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
            self.worker.runs.forget(self)
            return
        if self._out or self._inbox or self._news or self._stale:
            self.turn()

    def _carry_out(self, execution: Execution, request: Append, answer: Appended) -> None:
        """Do what the committed commands and records ask of this worker."""
        attempts = self.attempts
        for draft in request.drafts:
            type_, key = draft.type, draft.key
            if type_ == "step_started":
                if draft.unique in answer.doubles:  # another worker had begun it
                    attempts.others(key)
                    await_other(self, key)
                else:
                    self.note(attempts.started(execution.calls.get(key), key, draft.data["attempt"]))
            elif type_ == "step_scheduled":
                if "queue" in draft.data:
                    attempts.queued(key)
                elif key not in attempts.begun:
                    self.note(attempts.scheduled(key))
            elif type_ in _CARRIED_OUT:
                self._carry_out_other(execution, draft)

    def _carry_out_other(self, execution: Execution, draft: Draft) -> None:
        """What is rarer than the steps' scheduling and start."""
        type_, key, data = draft.type, draft.key, draft.data
        if type_ == "timer_started":
            if key in execution.sleepers:
                self.worker.agenda.add(data["due"], self.run_id, f"timer {key}")
        elif type_ == "timer_cancelled":
            self.worker.agenda.remove(self.run_id, f"timer {key}")
        elif type_ == "step_retried":
            call, attempt = execution.calls.get(key), data["attempt"] + 1
            self.note(self.attempts.retried(call, key, attempt, data["due"]))
        else:
            self._carry_out_child(draft)

    def _carry_out_child(self, draft: Draft) -> None:
        if draft.type == "child_started" and draft.key in self._live.children:
            self._its_children().started(self._live.children[draft.key], self._live.root)
        elif draft.type == "child_cancelled":
            self._its_children().cancelled(draft.key)

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
        if self._unstarted(stale):
            return
        if had_fact:
            self._wary = max(1, stale.position // _CAUTION)
        self._reload()

    def _record(self, drafts: list[Draft], then: list[Draft] | None = None) -> None:
        """Append facts without delivering them: the worker stops, or early delivery is suspended.

        The records in `then` wait until that is done, for this worker acts on their commit; and a start has its
        place from an attempt that has ended: it comes behind that one's outcome (RACES H-12).
        """
        self._inbox = deque(then or ())
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
