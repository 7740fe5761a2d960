"""Asynchronous generators of workflows are held by their loop, so that its burial can end them."""

from __future__ import annotations

import asyncio
import sys
import threading
from asyncio import events
from typing import Any

_others = threading.local()
"""The asynchronous generator hooks of the loop around us, by thread."""


def hook_generators() -> None:
    """Hold every asynchronous generator of a workflow; leave those of other loops to their hooks.

    The hooks stay in place between ticks: setting them costs more than a tick's whole queue.
    """
    if sys.get_asyncgen_hooks().firstiter is not _hold:
        _others.firstiter, _others.finalizer = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(_hold, _finish)


def _hold(generator: Any) -> None:
    hold = getattr(events._get_running_loop(), "hold_generator", None)
    if hold is not None:
        hold(generator)
    elif _others.firstiter is not None and not _is_over(_others.firstiter):
        _others.firstiter(generator)


def _finish(generator: Any) -> None:
    # A workflow's own are held until they are finished, so they never come here suspended.
    if _others.finalizer is not None and not _is_over(_others.finalizer):
        _others.finalizer(generator)


def _is_over(hook: Any) -> bool:
    # Where nobody has put hooks in place since, those that we found may be of a loop that has been closed.
    owner = getattr(hook, "__self__", None)
    return isinstance(owner, asyncio.AbstractEventLoop) and owner.is_closed()
