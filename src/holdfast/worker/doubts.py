"""Attempts that another worker may have: whether it is still about them, and what to do where it is not.

Who has begun a step's last attempt, or one that was to start here, may be alive, or gone without a word. Neither
is a fact that anybody is told of, so whoever doubts asks until the doubt is settled, and stays in memory meanwhile
(`LiveRun.doubts`): nothing else would wake the run.
"""

from __future__ import annotations

from collections.abc import Callable
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

    def gone() -> None:
        run.note(lost(call.key, attempt, call.step.options.retries))
        run.turn()

    run.doubts += 1
    run.worker.spawn(_ask(run, run.execution, call.key, gone))


def await_other(run: LiveRun, key: str) -> None:
    """An attempt that was to start here is another worker's: see to it that something comes of it.

    That worker may be gone, or have recorded the attempt's failure before this one had read so far; how far the
    step's attempts have come is read with the log.
    """
    run.doubts += 1
    execution = run.execution
    run.worker.later(EVERY, lambda: run.worker.spawn(_ask(run, execution, key, run.read_anew)))


async def _ask(run: LiveRun, execution: Execution | None, key: str, gone: Callable[[], None]) -> None:
    """Ask whether an attempt's worker lives: `gone` where it does not, else ask again later.

    The answer is for the view that doubted, while its code waits for the step.
    """
    if run.closed:
        return
    under_way = await _is_under_way(run, key)
    if run.closed or execution is None or execution is not run.execution or key not in execution.calls:
        return
    if under_way:
        await_other(run, key)
    else:
        gone()


async def _is_under_way(run: LiveRun, key: str) -> bool:
    """Whether its worker lives; also where the store cannot say. The doubt that asked is over."""
    try:
        return await run.attempts.is_under_way(key)
    except StoreError:
        return True
    finally:
        run.doubts -= 1
