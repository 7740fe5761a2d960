"""A worker process of a storm: `python -m holdfast.testing.stress.serve '{"url": "sqlite:///storm.db"}'`.

It serves until its standard input is closed, hands its runs back, and says as JSON what it alone knows: how
many of its appends were refused as stale, by what they asked for.
"""

from __future__ import annotations

import asyncio
import logging
import sys

import msgspec

from . import flows  # noqa: F401 - the workflows that are served
from .chaos import errands  # noqa: F401
from .process import Setting, connected, say, until_closed
from .refusals import count_refusals


async def serve(setting: Setting) -> None:
    """Work until the parent wants no more."""
    refusals = count_refusals()
    async with connected(setting) as app, app.worker(**setting.options):
        say("ready")
        await until_closed()
    say(msgspec.json.encode({"stale": refusals.by_site}).decode())


def main() -> None:
    """The program."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    asyncio.run(serve(msgspec.json.decode(sys.argv[1], type=Setting)))


if __name__ == "__main__":
    main()
