"""What every process of a storm is told, and how it speaks with its parent.

It gets its settings as JSON in its first argument, says `ready`, and goes on until its standard input is
closed: so it leaves when its parent wants no more, and also when its parent dies.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from ...client import App, connect


class Setting(msgspec.Struct, kw_only=True):
    """What a process is told. Without the files of `trouble`, its clock and its disk are the machine's."""

    url: str
    name: str = ""
    seed: str = ""
    clock: str = ""
    sync_fails: str = ""
    disk_full: str = ""
    options: dict[str, Any] = {}
    """For `app.worker`, or for a client."""


def connected(setting: Setting) -> App:
    """The store, with the trouble in place that was asked for."""
    if not setting.clock and not setting.sync_fails:
        return connect(setting.url)
    from .trouble import JumpingClock, install_failing_disk

    if setting.sync_fails:
        install_failing_disk(setting.sync_fails, setting.disk_full)
    return connect(setting.url, clock=JumpingClock(Path(setting.clock)) if setting.clock else None)


async def until_closed() -> None:
    """Until the parent closes our standard input."""
    loop = asyncio.get_running_loop()
    closed = asyncio.Event()
    loop.add_reader(0, lambda: closed.set() if not os.read(0, 1) else None)
    await closed.wait()
    loop.remove_reader(0)


def say(text: str) -> None:
    """A line for the parent."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
