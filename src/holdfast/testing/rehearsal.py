"""Runs without a store: a workflow's code, a log, and a test that says what happens.

`Rehearsal` guarantees what a real run guarantees: the events stand in the log in the order in which the code
saw them, a fact is delivered one at a time, and what is in the log can be replayed. It rests on the engine
alone, so it is quick, and nothing of it has to be waited for.

What it does not show: retries, time-outs of steps, several workers, and what a store refuses. `Stage` is for
these.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import msgspec

from .. import failures
from ..clock import from_datetime, to_datetime
from ..codec import DEFAULT_LIMIT, UNTYPED
from ..engine.tick import Execution, replay
from ..errors import RunCancelled
from ..events import Draft, Event, dump_json, load_json, name_of, new
from ..replay import replay_run
from ..worker.children import ended
from ..workflow import Workflow
from .owed import Owed

Answers = Mapping[str, Any]
"""What each step gives, by its name: a value, an exception (which the workflow sees), or a plain function of the
step's arguments. Child runs are answered in the same way, by their workflow's name, or played themselves."""

_STREAMS: Answers = {"stream.write": None, "stream.end": None}
"""What workflow code makes of its writes to a stream are steps too, and give nothing."""
_START = datetime(2026, 1, 1, tzinfo=UTC)


class Rehearsal:
    """One run, played by hand: you say what its steps give, when its timers fire, what its hooks receive.

    Example:
        run = Rehearsal(fulfil, order)
        assert run.steps == ["charge#1"]
        run.complete("charge#1", Receipt("r-1"))
        run.send("approve:1", {"ok": True})
        assert run.result() == ...

    Commands are committed (appended to `log`) after each fact; with `hold=True` only when `commit` is called,
    as by a slow decider: facts that come meanwhile stand before them in the log. `steps` says what `play` and
    `until_hook` answer for steps, by their names; child runs that it does not name are played too, each to its
    end (`played`). With `crash_after`, the code is dropped when the log has come
    to that position, and replayed from there, as `evict` does.
    """

    def __init__(
        self,
        workflow: Workflow[..., Any],
        *args: Any,
        steps: Answers | None = None,
        run_id: str = "rehearsal",
        seed: str = "rehearsal",
        start: datetime = _START,
        attributes: Mapping[str, str] | None = None,
        payload_limit: int = DEFAULT_LIMIT,
        hold: bool = False,
        crash_after: int | None = None,
        parent: Mapping[str, str] | None = None,
        root: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.workflow = workflow
        self.log: list[Event] = []
        self.hold = hold
        self._answers = {**_STREAMS, **(steps or {})}
        self._crash_after = crash_after
        self._run_id = run_id
        self._limit = payload_limit
        self._clock = from_datetime(start)
        self._owed = Owed()
        self._left: list[tuple[str, Any]] = []
        self.played: dict[str, Rehearsal] = {}
        self.execution = Execution(run_id, workflow, payload_limit=payload_limit)
        data: dict[str, Any] = {
            "workflow": workflow.name,
            "args": msgspec.Raw(workflow.arguments.encode(args, kwargs)),
            "seed": seed,
        }
        if workflow.version is not None:
            data["version"] = workflow.version
        if attributes:
            data["attributes"] = dict(attributes)
        if parent:
            data["parent"], data["root"] = dict(parent), root
        self._happen(new("run_created", data=data))

    # ---- how it stands

    @property
    def now(self) -> datetime:
        """The time at which the next fact will be recorded."""
        return to_datetime(self._clock)

    @property
    def ended(self) -> bool:
        """Whether the code has returned, raised or been cancelled."""
        return self.execution.ended

    @property
    def status(self) -> str:
        """running, completed, failed or cancelled."""
        if not self.ended:
            return "running"
        return self.commands[-1].type.removeprefix("run_")

    @property
    def commands(self) -> list[Event | Draft]:
        """All that the code has asked for, committed or not, in order."""
        return [*(event for event in self.log if event.cls == "command"), *self.execution.asked]

    @property
    def steps(self) -> list[str]:
        """Keys of the steps that were scheduled (committed) and owe an outcome, in order."""
        return list(self._owed.steps)

    @property
    def children(self) -> list[str]:
        """Keys of the child runs that were started and of whose end the run has not heard, in order."""
        return list(self._owed.children)

    @property
    def timers(self) -> list[str]:
        """Keys of the pending timers, the earliest first, those of one instant in order of their start."""
        return sorted(self._owed.timers, key=self._owed.timers.__getitem__)

    @property
    def hooks(self) -> list[str]:
        """Tokens of the open hooks."""
        return list(self._owed.hooks)

    @property
    def awaited(self) -> list[str]:
        """Tokens of the open hooks at which the code waits for a payload just now."""
        return [token for token, key in self._owed.hooks.items() if self.execution.hooks[key].awaited]

    def calls(self, step: str) -> list[Any]:
        """The arguments of each call of a step so far, by parameter name, as plain JSON values."""
        scheduled = [c for c in self.commands if c.type == "step_scheduled" and name_of(c.key) == step]
        return [
            command.data["args"] if isinstance(command, Event) else _data(command)["args"]
            for command in scheduled
        ]

    def result(self) -> Any:
        """What the workflow returned; raises what it raised (the exception itself, not RunFailed)."""
        end = self.commands[-1]
        data = end.data if isinstance(end, Event) else _data(end)
        if end.type == "run_completed":
            value = dump_json(data["value"])
            return self.workflow.arguments.returns.decode(value, "result")
        if end.type == "run_failed":
            raise failures.rebuild(data["error"])
        if end.type == "run_cancelled":
            raise RuntimeError(f"the run was cancelled: {data.get('reason') or 'no reason given'}")
        raise RuntimeError(f"the run has not ended: it waits for {self.waiting()}")

    def waiting(self) -> str:
        """What the run waits for, in words."""
        parts = [f"step {key}" for key in self.steps]
        parts += [f"child run {key}" for key in self.children]
        parts += [f"timer {key}" for key in self.timers]
        parts += [f"hook {token}" for token in self.hooks]
        return ", ".join(parts) or "nothing that anybody could give it"

    # ---- what happens to it

    def complete(self, key: str, value: Any = None) -> None:
        """A step, or a child run, ends well; of a detached child: it is started."""
        if self._is_child(key):
            call = self.execution.children[key]
            if call.detached:
                self._end_child(key, {"status": "started"})
                return
            raw = call.workflow.arguments.returns.encode(value, f"{key} result")
            self._end_child(key, {"status": "completed", "value": msgspec.Raw(raw)})
            return
        returns = self._step(key).arguments.returns
        raw = returns.encode(value, f"{key} result")
        returns.decode(raw, f"{key} result")
        self._happen(new("step_completed", key=key, data={"attempt": 1, "value": msgspec.Raw(raw)}))

    def fail(self, key: str, error: BaseException) -> None:
        """A step has used up its attempts, or a child run has failed (with RunCancelled: was cancelled)."""
        if self._is_child(key):
            if isinstance(error, RunCancelled):
                self._end_child(key, {"status": "cancelled", "reason": error.reason})
            else:
                self._end_child(key, {"status": "failed", "error": failures.describe(error)})
            return
        self._step(key)
        self._happen(new("step_failed", key=key, data={"attempt": 1, "error": failures.describe(error)}))

    def fire(self, key: str | None = None) -> None:
        """A timer is due (without a key, the earliest one); time moves on to it."""
        timers = self._owed.timers
        if not timers or (key is not None and key not in timers):
            raise LookupError(f"no timer {key or ''} is pending; there are: {', '.join(timers) or 'none'}")
        key = key or min(timers, key=timers.__getitem__)
        self._clock = max(self._clock, timers[key])
        self._happen(new("timer_fired", key=key))

    def send(self, token: str, payload: Any = None, *, delivery_id: str | None = None) -> None:
        """A payload comes for a hook."""
        key = self._owed.hooks.get(token)
        if key is None:
            raise LookupError(f"no hook {token!r} is open; there are: {', '.join(self.hooks) or 'none'}")
        raw = UNTYPED.encode(payload, f"{token} payload")
        delivery = delivery_id or f"delivery-{len(self.log)}"
        self._happen(new("hook_received", key=key, data={"delivery": delivery, "payload": msgspec.Raw(raw)}))

    def refuse(self, token: str, owner: str) -> None:
        """Another run holds the token."""
        self._happen(new("hook_refused", key=self._owed.hooks[token], data={"owner": owner}))

    def cancel(self, reason: str = "") -> None:
        """Somebody asks the run to cancel."""
        self._happen(new("cancel_requested", data={"reason": reason}))

    def wake(self) -> None:
        """Somebody ends its pending sleeps early."""
        self._happen(new("woken", data={"id": f"wake-{len(self.log)}"}))

    def advance(self, duration: float | timedelta) -> None:
        """Time passes until the next fact; timers that are due meanwhile fire, in order."""
        seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
        until = self._clock + round(seconds * 1e6)
        while self._owed.timers and min(self._owed.timers.values()) <= until:
            self.fire()
        self._clock = max(self._clock, until)

    # ---- what happens by itself

    def play(self, payloads: Iterable[tuple[str, Any]] = ()) -> Self:
        """Play it to its end: steps give what `steps` says, payloads are sent in order, time jumps.

        A payload (token, payload) is sent as soon as its hook is open and no step owes an outcome. At the end the
        log is replayed. Raises LookupError for a step that `steps` does not name, RuntimeError where the run waits
        for ever.
        """
        return self._play(list(payloads))

    def _play(self, left: list[tuple[str, Any]]) -> Self:
        self._left = left
        while not self.ended:
            if not self.steps and left and left[0][0] in self.hooks:
                self.send(*left.pop(0))
            else:
                self._go_on()
        replay_run(self.log, self.workflow)
        return self

    def until_hook(self, token: str | None = None) -> Self:
        """Play it until its code waits for a payload: of this token, or of any. Raises what `play` raises."""
        while self.steps or not (self.awaited if token is None else token in self.awaited):
            if self.ended:
                which = "a payload" if token is None else f"a payload at hook {token!r}"
                raise RuntimeError(f"{self.workflow.name} {self.status} without waiting for {which}")
            self._go_on()
        return self

    def _go_on(self) -> None:
        """The next thing: a step's outcome, else what is earliest of timers and ends of children."""
        waiting = [key for key in self.children if key not in self._owed.outcomes]
        ends = sorted((time, key) for key, (time, _) in self._owed.outcomes.items())
        if self.steps:
            self._answer(self.steps[0])
        elif waiting:
            self._answer_child(waiting[0])
        elif ends and not (self._owed.timers and min(self._owed.timers.values()) < ends[0][0]):
            time, key = ends[0]
            self._clock = max(self._clock, time)
            self._happen(self._owed.outcomes.pop(key)[1])
        elif self.timers:
            self.fire()
        else:
            raise RuntimeError(f"{self.workflow.name} does not go on: it waits for {self.waiting()}")

    def _answer(self, key: str) -> None:
        name = name_of(key)
        if name not in self._answers:
            raise LookupError(f"{name} was called, and steps={{…}} does not say what it gives")
        call = self.execution.calls[key]
        self._give(key, self._answers[name], *call.step.arguments.decode(call.args))

    def _answer_child(self, key: str) -> None:
        """By `steps`, else by playing the child: its end comes when it has come to it."""
        call, name = self.execution.children[key], name_of(key)
        args, kwargs = call.workflow.arguments.decode(bytes(call.data["args"]))
        if call.detached:
            self.complete(key)
        elif name in self._answers:
            self._give(key, self._answers[name], args, kwargs)
        else:
            child = self.played[key] = Rehearsal(
                call.workflow,
                *args,
                steps=self._answers,
                run_id=call.run,
                start=self.now,
                attributes=call.data.get("attributes"),
                payload_limit=self._limit,
                parent={"run": self._run_id, "key": key},
                root=self.execution.root,
                **kwargs,
            )
            child._play(self._left)
            self._owed.outcomes[key] = (child._clock, ended(key, child.log[-1]))

    def _give(self, key: str, outcome: Any, args: Iterable[Any], kwargs: Mapping[str, Any]) -> None:
        name = name_of(key)
        if inspect.iscoroutinefunction(outcome):
            raise TypeError(f"steps={{…}}: expected a plain function for {name}, got an async one")
        if callable(outcome):
            try:
                outcome = outcome(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - the outcome that the test wants
                outcome = error
        if isinstance(outcome, BaseException):
            self.fail(key, outcome)
        else:
            self.complete(key, outcome)

    # ---- the log

    def commit(self) -> None:
        """Append to the log what the code has asked for."""
        while self.execution.asked:
            event = self._append(self.execution.asked[0])
            self.execution.accepted(1)
            if event.position == self._crash_after:
                self.evict()

    def evict(self) -> None:
        """Drop the live code and replay it from the log, as a worker does that has lost it."""
        self.execution.bury()
        self.execution = replay(self.workflow, self.log, payload_limit=self._limit)

    def close(self) -> None:
        """Drop the live code; also done when the rehearsal is no longer referred to, or its `with` ends."""
        self.execution.bury()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # Before Python closes the code's coroutines itself, with no run around them: then a step that is
        # called in a `finally` would be the plain function.
        execution = getattr(self, "execution", None)
        if execution is not None:
            execution.bury()

    def _happen(self, fact: Draft) -> None:
        event = self._append(fact)
        if event.position == self._crash_after:
            self.evict()
        else:
            self.execution.feed(event)
        if not self.hold:
            self.commit()

    def _append(self, draft: Draft) -> Event:
        event = Event(self._run_id, len(self.log) + 1, draft.type, draft.key, self._clock, draft.body)
        self.log.append(event)
        self._owed.note(event)
        return event

    def _step(self, key: str) -> Any:
        call = self.execution.calls.get(key)
        if call is None or key not in self._owed.steps:
            raise LookupError(f"no step {key} is open; there are: {', '.join(self.steps) or 'none'}")
        return call.step

    def _is_child(self, key: str) -> bool:
        return key in self._owed.children and key not in self._owed.steps

    def _end_child(self, key: str, data: dict[str, Any]) -> None:
        self._happen(new("child_ended", key=key, data={**data, "run": self._owed.children[key]}))


def _data(draft: Draft) -> Any:
    return load_json(draft.body)
