"""The one entrance for code that is not async: run a workflow, wait, and have its result.

result = hf.execute(fulfil, order)
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, ParamSpec, TypeVar

from .client import connect, written
from .handle import Run
from .workflow import Workflow

P = ParamSpec("P")
R = TypeVar("R")


def execute(workflow: Workflow[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a workflow to its end and give its result: one call for scripts and notebooks.

    The store is $HOLDFAST_URL, else sqlite:///.holdfast/holdfast.db. Works inside a running loop too (in a
    notebook), on a thread of its own. Raises what `run.result()` raises.

    Example:
        result = hf.execute(fulfil, order)
    """

    async def main() -> R:
        async with connect() as app, app.worker():
            raw = written(workflow, args, kwargs)
            run: Run[R] = await app.start_raw(workflow.name, raw, definition=workflow)
            return await run.result()

    return _run_sync(main())


def _run_sync(work: Coroutine[Any, Any, R]) -> R:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    outcome: list[R] = []
    failure: list[BaseException] = []

    def target() -> None:
        try:
            outcome.append(asyncio.run(work))
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            failure.append(error)

    thread = threading.Thread(target=target, name="holdfast-execute")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]
