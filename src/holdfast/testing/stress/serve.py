"""A worker process of a storm: `python -m holdfast.testing.stress.serve '{"url": "sqlite:///storm.db"}'`.

It says `ready`, serves until its standard input is closed, hands its runs back, and says as JSON what it alone
knows: how many of its appends were refused as stale, by what they asked for. If its parent dies, it leaves.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections import Counter
from typing import Any

import msgspec

import holdfast as hf

from . import flows  # noqa: F401 - the workflows that are served


class Serving(msgspec.Struct, kw_only=True):
    """What a worker process is told."""

    url: str
    options: dict[str, Any] = {}
    """For `app.worker`."""


class Refusals(logging.Handler):
    """Counts what `holdfast.fence` tells: refused appends, by the commands in them."""

    def __init__(self) -> None:
        super().__init__()
        self.by_site: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        """One refused append; its second argument names what it asked for."""
        assert isinstance(record.args, tuple)
        self.by_site[str(record.args[1])] += 1


def count_refusals() -> Refusals:
    """From now on, in this process."""
    refusals = Refusals()
    log = logging.getLogger("holdfast.fence")
    log.addHandler(refusals)
    log.setLevel(logging.INFO)
    log.propagate = False
    return refusals


async def _until_closed() -> None:
    """Until the parent closes our standard input."""
    loop = asyncio.get_running_loop()
    closed = asyncio.Event()
    loop.add_reader(0, lambda: closed.set() if not os.read(0, 1) else None)
    await closed.wait()
    loop.remove_reader(0)


async def serve(serving: Serving) -> None:
    """Work until the parent wants no more."""
    refusals = count_refusals()
    async with hf.connect(serving.url) as app, app.worker(**serving.options):
        _say("ready")
        await _until_closed()
    _say(msgspec.json.encode({"stale": refusals.by_site}).decode())


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> None:
    """The program."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    asyncio.run(serve(msgspec.json.decode(sys.argv[1], type=Serving)))


if __name__ == "__main__":
    main()
