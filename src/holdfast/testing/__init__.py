"""Help for tests of workflows, shipped for users' own: time that tests set, and runs without a store.

    from holdfast.testing import ManualClock, Rehearsal, replay_check, run_workflow

    def test_an_order_is_charged_once():
        run = run_workflow(fulfil, order, steps={"charge": Receipt("r-1"), "pack": pack_by_hand})
        assert run.result() == Result("r-1")
        assert run.calls("charge") == [{"order": order}]

`run_workflow` plays a whole run in virtual time: no store, no worker, no waiting. `Rehearsal` is the same by
hand, one fact at a time, for tests about the order of things. `replay_check` proves that code and log agree.
`ManualClock` goes into `hf.connect(url, clock=…)` for tests with a real store and worker.
"""

from .check import checking
from .clock import ManualClock
from .rehearsal import Rehearsal, replay_check, run_workflow

__all__ = ["ManualClock", "Rehearsal", "checking", "replay_check", "run_workflow"]
