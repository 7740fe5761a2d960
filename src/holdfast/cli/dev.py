"""`dev`: a worker, the page, and both anew with each change of the code.

The worker is a process of its own, for only that makes code new for certain: what modules have left in a process
that reloads them, nobody knows. This process serves the page, looks at the files, and replays each run that ends
in a third process, with another hash seed (check mode).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import output
from .frame import WORK, command
from .options import DEFAULT_STORE, AsJson, StoreUrl, ending
from .problem import Problem

if TYPE_CHECKING:
    from ..client import App
    from ..store.messages import News

_PATIENCE = 2.0
"""Seconds that running steps have to finish when the code changes; they are tried again by the new worker."""
_BACKLOG = 50
"""Runs that wait to be checked; those that end beyond it are not."""


@command(
    WORK,
    ending(
        {
            0: "stopped by SIGTERM or Ctrl-C",
            2: "cannot: the port is taken, the extra is not installed, or no such module",
        },
        ["dev shop.py", "dev shop billing --port 9000"],
    ),
)
def dev(
    modules: Annotated[
        list[str], typer.Argument(metavar="MODULE...", help="Dotted module names or .py files.")
    ],
    port: Annotated[
        int,
        typer.Option("--port", metavar="N", min=0, max=65535, help="The page's port (8470); 0: a free one."),
    ] = 8470,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Replay each run that ends; --no-check leaves it.")
    ] = True,
    trails: Annotated[
        str | None, typer.Option("--trails", metavar="FOLDER", help="A folder of trails to show.")
    ] = None,
    store: StoreUrl = DEFAULT_STORE,
    as_json: AsJson = False,
) -> int:
    """Work on the workflows of these modules, with the page, and start anew when their code changes.

    Each run that ends is replayed in another process, so that code which cannot be replayed is told at once. Says
    in one line when it is ready (on stderr; with --json on stdout).
    """
    if store.startswith("memory:"):
        raise Problem(f"{store} lives in one process, and the worker is another one")
    try:
        import watchfiles  # noqa: F401

        from ..server import Settings, serving
    except ImportError as error:
        raise Problem(
            f"`holdfast dev` needs the extra `server` ({error})", hint="pip install 'holdfast[server]'"
        ) from None
    from .modules import expect
    from .stores import connected

    for name in modules:
        expect(name)

    async def main() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        settings = Settings(port=port, trails=trails)
        async with connected(store, create=True) as app, serving(app, settings) as url:
            if as_json:
                output.data_json({"url": url, "store": store})
                sys.stdout.flush()
            else:
                output.note(f"the page: {url}")
            checker = _checking(app, modules, store) if check else contextlib.nullcontext()
            async with checker:
                await _work(modules, store, stop)

    asyncio.run(main())
    output.note("stopped: runs go on with the next worker")
    return 0


async def _work(modules: Sequence[str], store: str, stop: asyncio.Event) -> None:
    """A worker at a time, until `stop`; one that ends by itself is missed until the code changes."""
    changes = _changes(stop)
    worker = await _start("worker", *modules, "--store", store)
    missed = asyncio.create_task(_missed(worker))
    try:
        async for changed in changes:
            missed.cancel()
            output.note(f"changed: {', '.join(changed)}")
            await _end(worker)
            worker = await _start("worker", *modules, "--store", store)
            missed = asyncio.create_task(_missed(worker))
    finally:
        missed.cancel()
        await _end(worker)


async def _missed(worker: asyncio.subprocess.Process) -> None:
    """Tell that a worker has ended by itself, for nothing runs now."""
    await worker.wait()
    output.note("the worker has ended; it starts again when a Python file below this folder changes")


async def _changes(stop: asyncio.Event) -> AsyncIterator[list[str]]:
    """The Python files below the current folder that change, as they do."""
    from watchfiles import PythonFilter, awatch

    here = Path.cwd()
    async for changes in awatch(here, watch_filter=PythonFilter(), stop_event=stop, step=50):
        yield sorted({path.removeprefix(f"{here}{os.sep}") for _, path in changes})


async def _start(*words: str) -> asyncio.subprocess.Process:
    # A group of its own: Ctrl-C on the terminal is for this process, which ends its children itself.
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "holdfast", *words, process_group=0, stdin=asyncio.subprocess.DEVNULL
    )


async def _end(worker: asyncio.subprocess.Process) -> None:
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):  # gently; at once; for certain
        if worker.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            worker.send_signal(number)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(worker.wait(), _PATIENCE)


# ---- check mode


@contextlib.asynccontextmanager
async def _checking(app: App, modules: Sequence[str], store: str) -> AsyncIterator[None]:
    """Replay each run that ends while the block runs, one after the other, as `holdfast replay` does."""
    ended: asyncio.Queue[str] = asyncio.Queue(_BACKLOG)

    def hear(news: Sequence[News]) -> None:
        for item in news:
            if item.ended:
                with contextlib.suppress(asyncio.QueueFull):
                    ended.put_nowait(item.run)

    async def check() -> None:
        while True:
            run = await ended.get()
            words = ("replay", *modules, "--run", run, "--store", store)
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "holdfast", *words,
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
                process_group=0,
            )  # fmt: skip
            try:
                said, _ = await process.communicate()
            finally:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            if process.returncode == 1:
                output.note(f"run {run} does not replay to itself:\n{said.decode(errors='replace').rstrip()}")

    unlisten = app.store.listen(hear)
    task = asyncio.create_task(check())
    try:
        yield
    finally:
        unlisten()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
