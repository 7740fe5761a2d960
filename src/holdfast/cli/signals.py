"""Ctrl-C and SIGTERM while a command works: they ask first, and insist when they come again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from . import output
from .problem import INTERRUPTED


@contextlib.contextmanager
def on_signals(call: Callable[[int], None]) -> Iterator[None]:
    """Call with 1, 2 … for each SIGINT or SIGTERM while the block runs."""
    loop, count = asyncio.get_running_loop(), 0

    def received() -> None:
        nonlocal count
        count += 1
        call(count)

    handled = []
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):  # not the main thread
            loop.add_signal_handler(number, received)
            handled.append(number)
    try:
        yield
    finally:
        for number in handled:
            loop.remove_signal_handler(number)


def interruptible(work: Coroutine[Any, Any, Any]) -> Any:
    """Run `work`; the first Ctrl-C or SIGTERM cancels it, a second one leaves at once. Returns 130 then."""

    async def guarded() -> Any:
        task, interrupted = asyncio.current_task(), False

        def asked(count: int) -> None:
            nonlocal interrupted
            interrupted = True
            if count > 1:
                os._exit(INTERRUPTED)
            output.note("interrupted: running steps finish first (once more: leave at once)")
            assert task is not None
            task.cancel()

        with on_signals(asked):
            try:
                return await work
            except asyncio.CancelledError:
                if interrupted:
                    return INTERRUPTED
                raise

    return asyncio.run(guarded())
