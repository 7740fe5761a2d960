"""The bare server of the floor: `python -m holdfast.bench.bare SQLITE-URL` commits each request's body, durably.

It says its port, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import sys

from .floor import RawFile, rows_of
from .other import until_stdin_ends


async def serve(disk: str) -> None:
    """Answer until the standard input ends."""
    from aiohttp import web

    file = RawFile(disk)

    async def commit(request: web.BaseRequest) -> web.Response:
        file.commit(rows_of(len(await request.read())))
        return web.Response()

    runner = web.ServerRunner(web.Server(commit, client_max_size=1 << 30))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)  # noqa: T201 - to who started it
    try:
        await until_stdin_ends()
    finally:
        await runner.cleanup()
        file.close()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
