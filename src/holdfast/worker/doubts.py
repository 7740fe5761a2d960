"""Attempts that another worker may have: whether it is still about them, and what to do where it is not.

Who has begun a step's last attempt, or one that was to start here, may be alive, or gone without a word. Neither
is a fact that anybody is told of, so whoever doubts asks until the doubt is settled, and stays in memory meanwhile
(`LiveRun.doubts`): nothing else would wake the run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import StoreError
from .attempts import lost

if TYPE_CHECKING:
    from ..engine.context import StepCall
    from ..engine.tick import Execution
    from .live import LiveRun

EVERY = 1.0
"""Seconds between looks at an attempt that another worker has."""


def judge_last(run: LiveRun, call: StepCall, attempt: int) -> None:
    """A step's last attempt was begun elsewhere: it is lost, unless whoever began it lives."""
    run.doubts += 1
    run.worker.spawn(_judge_last(run, run.execution, call, attempt))


async def _judge_last(run: LiveRun, execution: Execution | None, call: StepCall, attempt: int) -> None:
    under_way = await _is_under_way(run, call.key)
    if not _is_awaited(run, execution, call.key):
        return
    if under_way:
        await_other(run, call.key)
    else:
        run.note(lost(call.key, attempt, call.step.options.retries))
        run.turn()


def await_other(run: LiveRun, key: str) -> None:
    """An attempt that was to start here is another worker's: see to it that something comes of it.

    That worker may be gone, or have recorded the attempt's failure before this one had read so far.
    """
    run.doubts += 1
    execution = run.execution
    run.worker.later(EVERY, lambda: run.worker.spawn(_look_at_other(run, execution, key)))


async def _look_at_other(run: LiveRun, execution: Execution | None, key: str) -> None:
    if run.closed:
        return
    under_way = await _is_under_way(run, key)
    if not _is_awaited(run, execution, key):
        return
    if under_way:
        await_other(run, key)
    else:
        run.read_anew()  # with the log, it is read how far the step's attempts have come


async def _is_under_way(run: LiveRun, key: str) -> bool:
    """Whether its worker lives; also where the store cannot say. The doubt that asked is over."""
    try:
        return await run.attempts.is_under_way(key)
    except StoreError:
        return True
    finally:
        run.doubts -= 1


def _is_awaited(run: LiveRun, execution: Execution | None, key: str) -> bool:
    """Whether the view that doubted is the run's still, and its code waits for this step."""
    return not run.closed and execution is not None and execution is run.execution and key in execution.calls
