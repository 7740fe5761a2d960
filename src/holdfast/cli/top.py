"""`top`: what a store and its workers are doing, live."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import output
from .frame import LOOK, command
from .options import DEFAULT_STORE, AsJson, StoreUrl, ending

if TYPE_CHECKING:
    from ..store.base import Store
    from .board import Look


@command(
    LOOK,
    ending(
        {0: "shown", 2: "cannot: there is no such store, or it does not answer"},
        ["top", "top --once", "top --json --interval 5"],
    ),
)
def top(
    interval: Annotated[
        float, typer.Option("--interval", min=0.1, metavar="SECONDS", help="Time between two looks (2).")
    ] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look twice, print once, and end.")] = False,
    store: StoreUrl = DEFAULT_STORE,
    as_json: AsJson = False,
) -> int:
    """Workers, queues, rates and what waits, live: q ends it.

    Rates are of the time between two looks, so with --once, with --json, and where stdout is no terminal, it
    takes one interval until something is printed.
    """
    return asyncio.run(_top(store, interval, once, as_json))


async def _top(url: str, interval: float, once: bool, as_json: bool) -> int:
    from .stores import existing

    async with existing(url) as store:
        looks = _looks(store, interval)
        if as_json or once or not sys.stdout.isatty():
            await anext(looks)
            look = await anext(looks)
            if as_json:
                output.data_json(look.as_json())
            else:
                _print(look)
        else:
            await _follow(store, looks, interval)
    return 0


async def _looks(store: Store, interval: float) -> AsyncIterator[Look]:
    """One look after the other; the first has no rates, for nothing lies before it."""
    from ..store.gauge import rates
    from .board import Look

    before = None
    while True:
        gauge = await store.gauge(0 if before is None else before.time)
        between = None if before is None else rates(before, gauge)
        yield Look(store.url, gauge, await store.queues(), between)
        before = gauge
        await asyncio.sleep(interval)


def _print(look: Look) -> None:
    from rich.console import Console

    from .board import drawn

    width = None if sys.stdout.isatty() else 120
    Console(highlight=False, width=width).print(drawn(look))


async def _follow(store: Store, looks: AsyncIterator[Look], interval: float) -> None:
    """Draw each look on the terminal, until somebody presses q; a store that is away for a while is no end."""
    from rich.live import Live

    from ..errors import StoreError
    from .board import drawn

    look = await anext(looks)
    ended = asyncio.Event()
    with _keys(ended.set), Live(screen=True, auto_refresh=False) as live:
        problem = ""
        while not ended.is_set():
            size = live.console.size
            live.update(drawn(look, every=interval, height=size.height, problem=problem), refresh=True)
            if problem:
                await _either(ended, asyncio.sleep(interval))
                looks = _looks(store, interval)
            try:
                look, problem = await _either(ended, anext(looks)) or look, ""
            except StoreError as error:
                problem = str(error)


async def _either(ended: asyncio.Event, work: Any) -> Any:
    """What `work` comes to, or None where the end comes first."""
    task, end = asyncio.ensure_future(work), asyncio.ensure_future(ended.wait())
    try:
        await asyncio.wait((task, end), return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        for one in (task, end):
            one.cancel()
        await asyncio.gather(task, end, return_exceptions=True)


@contextlib.contextmanager
def _keys(leave: Callable[[], None]) -> Iterator[None]:
    """Read keys one by one while this lasts; q leaves, and so does the end of the input."""
    if not sys.stdin.isatty():
        yield
        return
    import os
    import termios
    import tty

    loop, file = asyncio.get_running_loop(), sys.stdin.fileno()
    before = termios.tcgetattr(file)

    def read() -> None:
        keys = os.read(file, 64)
        if not keys or b"q" in keys.lower():
            leave()

    tty.setcbreak(file)
    loop.add_reader(file, read)
    try:
        yield
    finally:
        loop.remove_reader(file)
        termios.tcsetattr(file, termios.TCSADRAIN, before)
