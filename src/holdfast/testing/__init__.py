"""Help for tests of workflows, shipped for users' own. pytest finds the fixture `durable` by itself.

    def test_an_order_is_paid_once(durable):          # the real thing: a store in memory, a worker, real steps
        run = durable.start(fulfil, order)
        run.until_hook("approve:1")                   # days of sleep take no time
        run.send("approve:1", Approval(ok=True))
        assert run.result() == Result("r-1")

    def test_a_declined_card_is_told():               # the code alone: the test says what each step gives
        run = run_workflow(fulfil, order, steps={"charge": hf.FatalError("declined")})
        assert run.status == "failed"

    def test_yesterdays_orders_still_replay():        # today's code, what was recorded
        replay("histories/*.jsonl", [fulfil])

Which one: `run_workflow`, `run_until_hook` and `Rehearsal` play a workflow's code, `crash_check` plays it with a
crash after each event; `Stage` (the fixture `durable`) runs it with its steps, retries and time-outs, and
`fault` makes the store fail under it. `simulation` has several workers and every kind of trouble. `ManualClock`
and `checking` are for tests that bring a store of their own.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .arming import fault
    from .check import checking
    from .clock import ManualClock
    from .histories import replay
    from .play import crash_check, run_until_hook, run_workflow
    from .rehearsal import Rehearsal
    from .stage import Stage

_HOMES = {
    "ManualClock": "clock",
    "Rehearsal": "rehearsal",
    "Stage": "stage",
    "checking": "check",
    "crash_check": "play",
    "fault": "arming",
    "replay": "histories",
    "run_until_hook": "play",
    "run_workflow": "play",
}
"""Imported when first used: pytest loads this package whether its tests have workflows or not."""


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "ManualClock",
    "Rehearsal",
    "Stage",
    "checking",
    "crash_check",
    "fault",
    "replay",
    "run_until_hook",
    "run_workflow",
]
