"""A server for tests: a real one, on a free port of the loopback, in a thread with a loop of its own."""

import asyncio
import threading
from typing import Any

from patience import PATIENCE

import holdfast as hf
from holdfast.clock import Clock
from holdfast.server import Settings, serving


class ServerThread:
    """Serves a store until `stop`; `url` is where. With `port`, a server that was there before is followed."""

    def __init__(self, store: str, *, clock: Clock | None = None, **settings: Any) -> None:
        self._store = store
        self._clock = clock
        self._settings = Settings(**{"port": 0, **settings})
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="server of a test")
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._error = error
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with hf.connect(self._store, clock=self._clock) as app, serving(app, self._settings) as url:
            self.url = url
            self.app = app
            self._ready.set()
            await self._stop.wait()

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the server did not stop"
        if self._error is not None:
            raise self._error

    def run(self, work: Any) -> Any:
        """A coroutine on the server's own loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)


async def lines_of(stream: Any) -> Any:
    """(id, type) of each event of a run's stream of server-sent events, until its end."""
    import json

    id = ""
    async for raw in stream.content:
        field, _, value = raw.decode().rstrip("\n").partition(": ")
        if field == "id":
            id = value
        elif field == "event" and value == "end":
            return
        elif field == "data" and value:
            yield id, json.loads(value)["type"]
