"""Whole runs without a store: the test says what the steps give, and time jumps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..workflow import Workflow
from .rehearsal import Answers, Rehearsal


def run_workflow(
    workflow: Workflow[..., Any],
    *args: Any,
    steps: Answers | None = None,
    payloads: Iterable[tuple[str, Any]] = (),
    **kwargs: Any,
) -> Rehearsal:
    """Play a whole run in virtual time; returns it, ended: `.result()`, `.status`, `.calls(…)`, `.log`.

    `steps` says what each step gives, by its name: a value, an exception (which the workflow sees), or a
    plain function of the step's arguments. `payloads` are (token, payload), sent in this order as soon as the
    hook is open. When nothing else can happen, time jumps to the next timer. At the end the log is replayed.

    Raises LookupError for a step that `steps` does not name, RuntimeError where the run waits for ever.

    Example:
        run = run_workflow(fulfil, order, steps={"charge": hf.FatalError("declined")})
        assert run.status == "failed"
    """
    return Rehearsal(workflow, *args, steps=steps, **kwargs).play(payloads)


def run_until_hook(
    workflow: Workflow[..., Any],
    *args: Any,
    token: str | None = None,
    steps: Answers | None = None,
    **kwargs: Any,
) -> Rehearsal:
    """Play a run until its code waits for a payload (of this token, or of any).

    Send one with `.send(token, payload)`, and go on with `.play()`, or by hand.

    Raises RuntimeError where the run ends, or waits for ever, without waiting for such a payload.

    Example:
        run = run_until_hook(fulfil, order, steps={"charge": Receipt("r-1")})
        run.send("approve:1", {"ok": True})
        assert run.play().result() == Result("r-1")
    """
    return Rehearsal(workflow, *args, steps=steps, **kwargs).until_hook(token)


def crash_check(
    workflow: Workflow[..., Any],
    *args: Any,
    steps: Answers | None = None,
    payloads: Iterable[tuple[str, Any]] = (),
    **kwargs: Any,
) -> Rehearsal:
    """`run_workflow`, and then again with a crash after each event of its log: the log must come out the same.

    A crash means: the code is gone from memory, and another process goes on from the log. So this finds what the
    code keeps outside of its run (a module's variable, a cache, a counter) and what it asks of the outside. The
    functions in `steps` are called anew in each of these runs. What comes back is the run without a crash.

    Raises AssertionError with the event after which the crash made a difference, and the difference.

    Example:
        crash_check(fulfil, order, steps={"charge": Receipt("r-1")}, payloads=[("approve:1", {"ok": True})])
    """
    payloads = list(payloads)
    whole = run_workflow(workflow, *args, steps=steps, payloads=payloads, **kwargs)
    for event in whole.log[:-1]:
        run = Rehearsal(workflow, *args, steps=steps, crash_after=event.position, **kwargs)
        where = f"a crash after position {event.position} ({event.type} {event.key}".rstrip() + ")"
        try:
            run.play(payloads)
        except Exception as error:
            raise AssertionError(f"{where}: {type(error).__name__}: {error}") from error
        for one, other in zip(whole.log, run.log, strict=False):
            if (one.type, one.key, one.body) != (other.type, other.key, other.body):
                raise AssertionError(
                    f"{where}: position {one.position} was {_told(one)} without it, and is {_told(other)}"
                )
        assert len(whole.log) == len(run.log), f"{where}: {len(run.log)} events, not {len(whole.log)}"
    return whole


def _told(event: Any) -> str:
    return f"{event.type} {event.key} {event.body.decode(errors='replace'):.200}"
