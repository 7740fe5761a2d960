"""`dev`: a worker, the page, and both anew with each change of the code.

The worker is a process of its own, for only that makes code new for certain: what modules have left in a process
that reloads them, nobody knows. This process serves the page, looks at the files, and has each run that ends
replayed in a third process (`checking`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Annotated

import typer

from . import output
from .frame import WORK, command
from .options import DEFAULT_STORE, AsJson, StoreUrl, ending
from .problem import Problem

_PATIENCE = 2.0
"""Seconds that running steps have to finish when the code changes; they are tried again by the new worker."""


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
    from .checking import checking
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
            await _work(
                modules,
                store,
                stop,
                lambda: checking(app.store, modules, store) if check else contextlib.nullcontext(),
            )

    asyncio.run(main())
    output.note("stopped: runs go on with the next worker")
    return 0


async def _work(
    modules: Sequence[str],
    store: str,
    stop: asyncio.Event,
    checked: Callable[[], AbstractAsyncContextManager[None]],
) -> None:
    """A worker at a time, until `stop`; one that ends by itself is missed until the code changes.

    Its runs are checked from before it starts until the code changes, and no longer: what ends while it stops is
    of the code of before.
    """
    changes = _changes(stop)
    changed: list[str] | None = []
    while changed is not None:
        worker = None
        change = asyncio.ensure_future(anext(changes, None))
        await asyncio.sleep(0)  # now it looks at the files: before the worker reads them
        try:
            async with checked():
                worker = await _start("worker", *modules, "--store", store)
                missed = asyncio.create_task(_missed(worker))
                try:
                    changed = await change
                finally:
                    missed.cancel()
                if changed is not None:
                    output.note(f"changed: {', '.join(changed)}")
        finally:
            change.cancel()
            if worker is not None:
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
