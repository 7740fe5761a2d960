"""A client process of a chaos: starts runs, sends payloads, wakes and cancels, and journals what it was told.

Each act has a line before it and a line behind it, in a file of its own that outlives a `kill -9`. What has no
second line is unknown: it may have happened, or not. What has one was promised.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from ....client import App
from ....errors import HoldfastError, HookNotFound, StoreError
from ..process import Setting, connected, say, until_closed
from .errands import errand

_PAUSE = 0.03
"""Mean seconds between two acts."""
_AGAIN = 0.1


class Journal:
    """What a client intended and what it was told, a JSON line each, appended at once."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, **line: Any) -> None:
        """One whole line."""
        os.write(self._fd, msgspec.json.encode(line) + b"\n")


class Client:
    """One client. `options`: `journal`, `effects` (paths), `in_flight` (runs at once), `rounds`."""

    def __init__(self, app: App, setting: Setting) -> None:
        self._app = app
        self._name = setting.name
        self._options: Mapping[str, Any] = setting.options
        self._journal = Journal(Path(setting.options["journal"]))
        self._chance = random.Random(setting.seed)
        self._count = 0

    async def work(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._chance.expovariate(1 / _PAUSE))
            try:
                await self._act()
            except StoreError:
                await asyncio.sleep(_AGAIN)

    async def _act(self) -> None:
        what = self._chance.random()
        if what < 0.3:
            await self._start_one()
        elif what < 0.96:
            await self._send()
        else:
            await self._meddle(what)

    async def _start_one(self) -> None:
        limit = self._options["in_flight"]
        running = [run async for run in self._app.runs(status="running", limit=limit)]
        waiting = [run async for run in self._app.runs(status="pending", limit=limit)]
        if len(running) + len(waiting) >= limit:
            return
        self._count += 1
        run_id = f"{self._name}-{self._count}"
        arguments = (self._options["effects"], run_id, self._options["rounds"])
        self._journal.write(start=run_id)
        while True:
            try:
                await self._app.start(errand, *arguments, run_id=run_id)
            except StoreError:
                await asyncio.sleep(_AGAIN)
            else:
                self._journal.write(started=run_id)
                return

    async def _send(self) -> None:
        hooks = [hook async for hook in self._app.hooks()]
        if not hooks:
            return
        token = self._chance.choice(hooks).token
        self._count += 1
        delivery = f"{self._name}/{self._count}"
        self._journal.write(send=delivery, token=token)
        while True:
            try:
                resumed = await self._app.resume(token, self._count, delivery_id=delivery)
            except HookNotFound as error:
                self._journal.write(refused=delivery, reason=error.reason)
                return
            except StoreError:
                await asyncio.sleep(_AGAIN)
            else:
                self._journal.write(sent=delivery, run=resumed.run_id, position=resumed.position)
                return

    async def _meddle(self, what: float) -> None:
        running = [run async for run in self._app.runs(status="running", limit=100)]
        if not running:
            return
        run = self._app.run(self._chance.choice(running).id)
        try:
            if what < 0.994:
                await run.wake()
            else:
                await run.cancel("chaos")
        except StoreError:
            raise
        except HoldfastError:
            return


async def main(setting: Setting) -> None:
    """Act until the parent wants no more."""
    async with connected(setting) as app:
        say("ready")
        acting = asyncio.ensure_future(Client(app, setting).work())
        closed = asyncio.ensure_future(until_closed())
        await asyncio.wait([acting, closed], return_when=asyncio.FIRST_COMPLETED)
        if acting.done():
            acting.result()  # what went wrong
        acting.cancel()
        await asyncio.gather(acting, return_exceptions=True)
    say("{}")


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    asyncio.run(main(msgspec.json.decode(sys.argv[1], type=Setting)))
