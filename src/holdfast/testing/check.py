"""Check mode: every run that ends is replayed from its beginning, in a process with another hash seed.

A workflow that iterates over a set of strings, or reads something that its log does not hold, runs well until
the day it is recovered. Check mode finds that on the first day: it replays each ended run cold, in another
process, where hashes and addresses are other ones, and compares.

    async with hf.connect("memory://") as app, app.worker(), checking(app):
        ...                                         # an AssertionError at the end names what diverged

A workflow that no other process can import (one defined inside a function) is replayed in this process.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from ..client import App
from ..errors import HoldfastError
from ..events import Event
from ..replay import check_run, workflow_name
from ..store.messages import News
from ..workflow import workflows
from .elsewhere import Task, elsewhere


@contextlib.asynccontextmanager
async def checking(app: App) -> AsyncIterator[None]:
    """Replay every run of `app` that ends inside the block, in a process with another hash seed.

    Example:
        async with hf.connect("memory://") as app, app.worker(), checking(app):
            await (await app.start(fulfil, order)).result()

    Raises AssertionError at the end of the block, with a line for each run that diverged.
    """
    ended: list[str] = []

    def hear(news: Sequence[News]) -> None:
        ended.extend(item.run for item in news if item.ended)

    unlisten = app.store.listen(hear)
    try:
        yield
    finally:
        unlisten()
    logs = [await app.store.read(run) for run in dict.fromkeys(ended)]
    problems = await asyncio.to_thread(differences, logs)
    assert not problems, "runs that do not replay to themselves:\n" + "\n".join(problems)


def differences(logs: Sequence[Sequence[Event]]) -> list[str]:
    """What a process with another hash seed says of these logs: a line for each that it replays differently."""
    problems: list[str] = []
    for log in logs:
        task = _task(log)
        answer = None if task is None else elsewhere.ask(task)
        problems += _replay(log) if answer is None else answer
    return problems


def _replay(events: Sequence[Event]) -> list[str]:
    try:
        outcome = check_run(events)
    except HoldfastError as error:
        return [str(error)]
    return [str(outcome.divergence)] if outcome.divergence is not None else []


def _task(log: Sequence[Event]) -> Task | None:
    """The log, and where another process finds its workflow: a file, under its module's name."""
    workflow = workflows.get(workflow_name(log))
    if workflow is None or "<locals>" in workflow.fn.__qualname__:
        return None
    file = workflow.code.co_filename
    if not Path(file).is_file():
        return None
    return Task(workflow.fn.__module__, file, [event.to_json().decode() for event in log])
