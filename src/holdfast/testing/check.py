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
import importlib
import importlib.util
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from ..client import App
from ..errors import HoldfastError
from ..events import Event
from ..replay import check_run, read_history, workflow_name
from ..store.base import News
from ..workflow import workflows


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
    problems = await _check(app, list(dict.fromkeys(ended)))
    assert not problems, "runs that do not replay to themselves:\n" + "\n".join(problems)


async def _check(app: App, runs: Sequence[str]) -> list[str]:
    problems: list[str] = []
    tasks: list[dict[str, Any]] = []
    for run in runs:
        events = await app.store.read(run)
        place = _importable(workflow_name(events))
        if place is None:
            problems += _replay(events)
        else:
            tasks.append({**place, "log": [event.to_json().decode() for event in events]})
    if tasks:
        problems += await _elsewhere(tasks)
    return problems


def _replay(events: Sequence[Event]) -> list[str]:
    try:
        outcome = check_run(events)
    except HoldfastError as error:
        return [str(error)]
    return [str(outcome.divergence)] if outcome.divergence is not None else []


def _importable(name: str) -> dict[str, str] | None:
    """Where another process finds a workflow: its file, under its module's name."""
    workflow = workflows.get(name)
    if workflow is None or "<locals>" in workflow.fn.__qualname__:
        return None
    file = workflow.code.co_filename
    return {"module": workflow.fn.__module__, "file": file} if Path(file).is_file() else None


async def _elsewhere(tasks: list[dict[str, Any]]) -> list[str]:
    """Hand logs to a process with another hash seed; what it says of them."""
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from holdfast.testing.check import main; main()",
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    lines = "".join(json.dumps(task) + "\n" for task in tasks)
    out, _ = await process.communicate(lines.encode())
    if process.returncode != 0:
        return [f"the checking process failed with exit code {process.returncode}"]
    return [str(problem) for line in out.splitlines() for problem in json.loads(line)]


def main() -> None:
    """The other process: logs on standard input, problems on standard output, a line for each."""
    for line in sys.stdin:
        task = json.loads(line)
        _load(task["module"], task["file"])
        print(json.dumps(_replay(read_history(task["log"], task["module"]))), flush=True)  # noqa: T201


def _load(module: str, file: str) -> None:
    """Import a file under its module's name (a script's `__main__` is only another name for it)."""
    name = module if module != "__main__" else Path(file).stem
    if name in sys.modules:
        return
    with contextlib.suppress(ImportError):
        if getattr(importlib.import_module(name), "__file__", None) == file:
            return
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded
    spec.loader.exec_module(loaded)
