"""The engine: deliver facts one at a time, collect the commands that follow.

An `Execution` is one run of a workflow's code, fed from its log. What it guarantees (laws L6–L9): the
sequence of commands is a pure function of the code and of the sequence of facts, whoever ticks, however the
facts were batched; if a prefix of the log yields a command, no longer log takes it back. It rests on the
loop (`loop.py`), on delivering a fact and running until quiet before the next, and on no other input: no
clock, no store, no thread.

A live execution is fed with new facts only; a cold one is made by feeding it the log from position 1. Both
are the same code: `feed` for what the log holds, `deliver` for a fact that is not committed yet (law L5).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextvars import Context
from typing import Any

import msgspec

from .. import failures
from ..codec import DEFAULT_LIMIT
from ..errors import PayloadError, ReplayDivergence
from ..events import ASKED, ENDS, RECORDS, Draft, Event, load_json, new, numbered, reader, token_of
from ..ids import successor_id
from ..runtime import ContinueAsNew
from ..webhooks import PUBLIC_URL
from ..workflow import Workflow
from .answers import Answers
from .children import settle
from .history import commands_of, diverged, match


class _Created(msgspec.Struct):
    args: msgspec.Raw = msgspec.Raw(b"{}")
    seed: str | None = None
    version: str | None = None
    attributes: dict[str, str] | None = None
    parent: dict[str, str] | None = None
    root: str | None = None
    previous: str | None = None
    first: str | None = None
    due: int | None = None
    number: int = 1
    hooks: dict[str, Any] | None = None


class _Outcome(msgspec.Struct):
    value: msgspec.Raw = msgspec.Raw(b"null")
    error: msgspec.Raw = msgspec.Raw(b"{}")


_Settled = asyncio.Future[Any] | None
"""The inner future that a fact has given its outcome, see `Loop.create_inner_future`."""
_AT_ONCE = 1000
"""Events of a replay between two moments at which the garbage collector may run."""
_read_created = reader(_Created)
_read_outcome = reader(_Outcome)


class Execution(Answers):
    """One run's code, live: what it has asked for (`asked`) and not yet in the log stands there in order."""

    __slots__ = ("_cancel_reason", "_cancelled", "_ticking", "ended")

    def __init__(
        self,
        run_id: str,
        workflow: Workflow[..., Any],
        *,
        payload_limit: int = DEFAULT_LIMIT,
        public_url: str = PUBLIC_URL,
        locate: bool = False,
    ) -> None:
        super().__init__(run_id, workflow, payload_limit=payload_limit, public_url=public_url, locate=locate)
        self.ended = False
        self._ticking = False  # whether the loop has the thread for many ticks
        self._main = None
        self._cancel_reason = ""
        self._cancelled = False

    # ---- feeding

    def feed(self, event: Event) -> None:
        """Take one event of the log, in order: deliver a fact, match a command, skip a record.

        Raises ReplayDivergence where the log holds a command that the code does not ask for here.
        """
        deliver = _DELIVERIES.get(event.type)
        if deliver is not None:
            self._run(event.time, deliver, event)
        elif event.type in ASKED or (event.type in ENDS and event.cls == "command"):
            match(self, event)

    def feed_all(self, events: Sequence[Event]) -> None:
        """Take what a log holds from here on; the code may look ahead in it (`hf.patched`)."""
        self.ahead = commands_of(events)
        for _ in self.asked:  # what the code has asked for before comes first
            if self.ahead:
                self.ahead.popleft()
        first = 0
        while self._main is None and first < len(events):  # the run begins: now it has a loop
            self.feed(events[first])
            first += 1
        for first in range(first, len(events), _AT_ONCE):  # noqa: B020 - from there on
            if not self._feed_some(events[first : first + _AT_ONCE]):
                break
        self.ahead.clear()

    def _feed_some(self, events: Iterable[Event]) -> bool:
        """Take these; False at an end that came from outside: the code has no part in it, nor in what follows."""
        asked = self.asked
        around = self.loop.begin_ticks()
        self._ticking = True
        try:
            for event in events:
                if asked and asked[0] is event:  # type: ignore[comparison-overlap] # see `RunContext._schedule`
                    asked.popleft()
                    continue
                type_ = event.type
                deliver = _DELIVERIES.get(type_)
                if deliver is not None:
                    self._run(event.time, deliver, event)
                elif type_ in ENDS and event.cls == "record":
                    return False
                elif type_ not in RECORDS:
                    match(self, event)
        finally:
            self._ticking = False
            self.loop.end_ticks(around)
        return True

    def deliver(self, fact: Draft) -> None:
        """Deliver a fact that is not committed yet; its `at` is set (laws L5 and L8)."""
        assert fact.at is not None
        if fact.value is not msgspec.UNSET:
            self._run(fact.at, Execution.result_at_hand, fact)
        else:
            event = Event(self.run_id, 0, fact.type, fact.key, fact.at, fact.body)
            self._run(fact.at, _DELIVERIES[fact.type], event)

    def accepted(self, count: int) -> None:
        """The store has taken the first `count` commands of `asked`."""
        if count == len(self.asked):
            self.asked.clear()
            return
        for _ in range(count):
            self.asked.popleft()

    def bury(self) -> None:
        """This execution no longer counts: close its coroutines, each in a dead context."""
        if self._main is not None:
            self.loop.bury()

    # ---- delivering

    def _run(self, time: int, deliver: _Deliver, what: Event | Draft) -> None:
        if self.ended:
            return
        if time > self.clock:
            self.clock = time
        settled = deliver(self, what)
        if self._main is None:
            return
        loop = self.loop
        if loop.ready:
            (loop.run_ready if self._ticking else loop.drain)(settled)
            if self._main.done():
                self._finish(self._main)

    def run_created(self, event: Event) -> None:
        created = _read_created(event.body)
        self.begin(msgspec.structs.asdict(created), event.time)
        try:
            args, kwargs = self.workflow.arguments.decode(bytes(created.args))
        except PayloadError as error:
            raise diverged(self, event, f"arguments that today's signature refuses ({error})") from error
        # An empty context: what the starter's context holds is not in the log.
        self._main = self.loop.create_task(
            self.workflow.fn(*args, **kwargs), name=self.workflow.name, context=Context()
        )

    def step_failed(self, event: Event) -> _Settled:
        call = self.calls.pop(event.key, None)
        if call is None or call.future.done():
            return None
        error = failures.rebuild(load_json(bytes(_read_outcome(event.body).error)))
        if isinstance(error, StopIteration):
            cause, error = error, RuntimeError(f"{event.key} raised StopIteration")
            error.__cause__ = cause  # no future takes a StopIteration, as no coroutine raises one
        call.future.set_exception(error)
        return call.future

    def step_completed(self, event: Event) -> _Settled:
        call = self.calls.pop(event.key, None)
        if call is None or (future := call.future).done():
            return None  # a late outcome, or one that nobody waits for
        returns = call.step.arguments.returns
        value = returns.decode_member(event.body)
        if value is msgspec.UNSET:
            try:
                value = returns.decode(_read_outcome(event.body).value, f"{event.key} result")
            except PayloadError as error:
                raise diverged(self, event, f"a result that today's type cannot hold ({error})") from error
        future.set_result(value)
        return future

    def result_at_hand(self, fact: Draft) -> _Settled:
        """The result of a step of this process, decoded from what will be stored."""
        call = self.calls.pop(fact.key, None)
        if call is None or call.future.done():
            return None
        call.future.set_result(fact.value)
        return call.future

    def child_ended(self, event: Event) -> _Settled:
        call = self.children.pop(event.key, None)
        if call is None:
            return None
        try:
            return settle(call, event)
        except PayloadError as error:
            raise diverged(self, event, f"a result that today's type cannot hold ({error})") from error

    def timer_fired(self, event: Event) -> None:
        timer = self.sleepers.pop(event.key, None)
        if timer is not None:
            timer.fire()

    def hook_received(self, event: Event) -> None:
        self.seen = max(self.seen, event.position)
        token = token_of(event.key)
        # What came for a hook that the run before left open waits until the code opens it.
        hook = self.hooks.get(numbered(token, 1) if event.key == numbered(token, 0) else event.key)
        if hook is not None:
            hook.take(event)
        elif token in self.inherited:
            self.inherited[token].append(event)

    def hook_refused(self, event: Event) -> None:
        hook = self.hooks.get(event.key)
        if hook is not None:
            hook.refuse(event.data.get("owner", ""))

    def cancel_requested(self, event: Event) -> None:
        self._cancel_reason, self._cancelled = event.data.get("reason") or "", True
        if self._main is not None:
            self._main.cancel(self._cancel_reason)

    def woken(self, _event: Event) -> None:
        self.wake()

    # ---- the end

    def _finish(self, main: asyncio.Task[Any]) -> None:
        self.ended = True
        data: dict[str, Any] = {"read": self.read}
        waited_for = (child.key for child in self.children.values() if not child.future.done())
        still = [*self.calls, *waited_for, *self.sleepers, *(h.key for h in self._tokens.values() if h.open)]
        if still:
            data["open"] = still
        if main.cancelled():
            self.ask("run_cancelled", "", {"reason": self._cancel_reason, **data})
        elif isinstance(error := main.exception(), ContinueAsNew):
            self._continue(error, data)
        elif error is not None:
            self.ask("run_failed", "", {"error": failures.describe(error), **data})
        else:
            self._complete(main.result(), data)
        self.loop.bury()

    def _continue(self, error: ContinueAsNew, data: dict[str, Any]) -> None:
        """The end of a run that goes on as another: all that its successor is made of stands in this log.

        Payloads that nobody has read are named by their positions; those that are committed between `seen` and
        this end have reached nobody either.
        """
        unread = [position for hook in self.hooks.values() if hook.open for position in hook.unread]
        unread += [event.position for events in self.inherited.values() for event in events]
        more: dict[str, Any] = {
            "args": msgspec.Raw(error.arguments),
            "unread": sorted(unread),
            "seen": self.seen,
        }
        if self.workflow.version is not None:
            more["version"] = self.workflow.version
        if self._cancelled:
            more["cancel_seen"] = True  # the code went on all the same
        successor = successor_id(self.first, self.number + 1, self.seed)
        self.ask("run_completed", "", {"continued": successor, **more, **data})

    def _complete(self, result: object, data: dict[str, Any]) -> None:
        returns = self.workflow.arguments.returns
        try:
            raw = returns.encode(result, f"{self.workflow.name} result")
            returns.decode(raw, f"{self.workflow.name} result")
            self.check_limit(raw, "run_completed", "", f"{self.workflow.name} result")
        except PayloadError as error:
            self.ask("run_failed", "", {"error": failures.describe(error), **data})
        else:
            self.ask("run_completed", "", {"value": msgspec.Raw(raw), **data})


_Deliver = Callable[[Execution, Any], _Settled]
_DELIVERIES: dict[str, _Deliver] = {
    "run_created": Execution.run_created,
    "step_completed": Execution.step_completed,
    "step_failed": Execution.step_failed,
    "child_ended": Execution.child_ended,
    "timer_fired": Execution.timer_fired,
    "hook_received": Execution.hook_received,
    "hook_refused": Execution.hook_refused,
    "cancel_requested": Execution.cancel_requested,
    "woken": Execution.woken,
}


def replay(
    workflow: Workflow[..., Any],
    events: Sequence[Event],
    *,
    payload_limit: int = DEFAULT_LIMIT,
    public_url: str = PUBLIC_URL,
) -> Execution:
    """Run today's code against a log, from its beginning; raises ReplayDivergence where they differ.

    A divergence is found without knowing where the code asked; so it is looked for a second time with the
    places noted, which would cost each ordinary tick.
    """
    options: dict[str, Any] = {"payload_limit": payload_limit, "public_url": public_url}
    execution = Execution(events[0].run, workflow, **options)
    try:
        execution.feed_all(events)
    except ReplayDivergence:
        execution.bury()
        again = Execution(events[0].run, workflow, **options, locate=True)
        try:
            again.feed_all(events)
        finally:
            again.bury()
        raise  # it went well the second time: the code does not do the same twice
    except BaseException:
        execution.bury()
        raise
    return execution


def tick(workflow: Workflow[..., Any], history: Iterable[Event]) -> list[Draft]:
    """The commands that follow from a log and are not in it yet: the engine as a pure function.

    Example:
        commands = tick(fulfil, await store.read("order-1"))

    Raises ReplayDivergence.
    """
    execution = replay(workflow, list(history))
    commands = list(execution.asked)
    execution.bury()
    return commands


def failed_by_engine(error: BaseException) -> Draft:
    """The end that the engine, not the code, writes; a record (law: event classes)."""
    return new("run_failed", data={"error": failures.describe(error), "by": "engine"})
