"""Where in workflow code something is asked for: told where log and code differ."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from typing import Any

from .loop import Loop

_OURS = (__name__.rpartition(".")[0].rpartition(".")[0], "asyncio", "contextlib", "contextvars")


def place_of_asking(main: asyncio.Task[Any] | None) -> str:
    """File and line of the workflow code that asks: the first frame that is not ours or asyncio's."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code is not Loop.run_ready.__code__:  # beyond it is whoever ticks
        if not _is_ours(frame.f_globals):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    # A step handed to `gather` is a task without a frame of the workflow's: what awaits it has one.
    place, waiting = "", None if main is None else main.get_coro()
    while waiting is not None:
        inner = getattr(waiting, "cr_frame", None)
        if inner is not None and not _is_ours(inner.f_globals):
            place = f"{inner.f_code.co_filename}:{inner.f_lineno}"
        waiting = getattr(waiting, "cr_await", None)
    return place


def _is_ours(names: Mapping[str, Any]) -> bool:
    return str(names.get("__name__", "")).partition(".")[0] in _OURS
