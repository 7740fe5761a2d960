"""asyncio in workflow code behaves as CPython's own (R-06): generated programs give one trace on both loops."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

sys.path.insert(0, str(Path(__file__).parent))

from programs import FakeTimeLoop, Play, outcome, programs

import holdfast as hf
from holdfast.testing import Rehearsal

now_playing: list[Play] = []


@hf.workflow
async def played() -> None:
    await now_playing[-1].main()


def on_holdfast(program: Any) -> tuple[list[Any], Any, Rehearsal]:
    """The trace and the outcome of a program as a workflow, its timers fired in the order of their deadlines."""
    play = Play(program)
    now_playing[:] = [play]
    run = Rehearsal(played)
    while not run.ended and run.timers:
        run.fire()
    result = outcome(run.execution._main) if run.ended else "stuck"  # type: ignore[arg-type]
    play.over = True
    return play.trace, result, run


def on_cpython(program: Any, run: Rehearsal) -> tuple[list[Any], Any]:
    """The same on CPython's loop, with the hashes and the time of that run."""
    loop = FakeTimeLoop(run.log[0].time, run.execution.loop._salt)
    return loop.play(Play(program))


# Programs that are cut off leave coroutines which nobody will await, on both loops.
pytestmark = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    # Programs leave tasks behind whose exceptions nobody retrieves: both loops log that, each in its words.
    caplog.set_level(logging.CRITICAL)
    yield
    gc.collect()


@given(programs)
def test_a_program_does_the_same_on_both_loops(program: Any) -> None:
    """R-06: gather, wait, wait_for, timeout, TaskGroup, as_completed, shield, queues, locks, cancellation."""
    ours, our_result, run = on_holdfast(program)
    run.close()
    theirs, their_result = on_cpython(program, run)
    assert ours == theirs
    assert our_result == their_result


@given(programs)
def test_a_cold_replay_sees_what_the_live_run_saw(program: Any) -> None:
    """The trace of a replay from the log is the trace of the live run, to the last callback."""
    live, _, run = on_holdfast(program)
    run.close()
    again = Play(program)
    now_playing[:] = [again]
    run.evict()
    again.over = True
    run.close()
    assert again.trace == live
