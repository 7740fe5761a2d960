"""Another process of a benchmark: `python -m holdfast.bench.other STORE-URL ROLE`.

`steps` is a worker that serves the queue `apart.QUEUE` and no runs. `waiter N` starts a run that waits for N
payloads. `victim N` starts N runs whose steps linger, and waits to be killed. `server` has the store behind HTTP.
Each says one line when it is ready (a run's id, the server's URL), and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import os
import sys

from ..client import connect
from . import apart, flows


async def until_stdin_ends() -> None:
    """Whoever has started this process holds the other end."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    await reader.read()


async def serve(url: str, role: str) -> None:
    """Do the role until the standard input ends."""
    what, _, number = role.partition(" ")
    async with connect(url) as app:
        if what == "server":
            from ..server import Settings, serving

            async with serving(app, Settings(port=0)) as served:
                await _say(served)
        elif what == "steps":
            async with app.worker(runs=False, queues=[apart.QUEUE]):
                await _say("ready")
        elif what == "waiter":
            async with app.worker(queues=(), concurrency=1000):
                await _say((await app.start(flows.payloads, int(number))).id)
        else:
            async with app.worker(queues=(), concurrency=1000):
                runs = [await app.start(apart.lingers, os.getpid()) for _ in range(int(number))]
                await apart.begun.reach(len(runs))
                await _say(runs[0].id)


async def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - to who started it
    await until_stdin_ends()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2]))
