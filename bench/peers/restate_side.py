"""Restate as one of the sides: `python bench/peers/restate_side.py FOLDER`, with RESTATE_SERVER as its binary.

One server with its default settings, and one worker of its Python SDK behind hypercorn; the client calls the
server's ingress over connections that are kept. `--worker` is that worker's own process.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import restate
from line import Steps, serve

bench = restate.Service("Bench")
hooks = restate.Workflow("Hooks")


async def empty(number: int) -> int:
    return number


@bench.handler()
async def sequential(ctx: restate.Context, count: int) -> int:
    for number in range(count):
        await ctx.run_typed("empty", empty, number=number)
    return count


@bench.handler()
async def gather(ctx: restate.Context, count: int) -> int:
    calls = [ctx.run_typed("empty", empty, number=number) for number in range(count)]
    await restate.gather(*calls)
    return count


@hooks.main()
async def run(ctx: restate.WorkflowContext, order: dict[str, Any]) -> int:
    async def tell(number: int) -> int:
        async with aiohttp.ClientSession() as session, session.post(order["told"], json={"number": number}):
            return number

    for number in range(order["count"]):
        await ctx.promise(f"payload-{number}", type_hint=int).value()
        await ctx.run_typed("tell", tell, number=number)
    return order["count"]


@hooks.handler()
async def send(ctx: restate.WorkflowSharedContext, number: int) -> int:
    await ctx.promise(f"payload-{number}", type_hint=int).resolve(number)
    return number


app = restate.app([bench, hooks])


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


class Deployment:
    """A server and a worker, and a client's session with them."""

    def __init__(self, folder: Path) -> None:
        self.ingress, self.admin, self.node, self.worker = free_ports(4)
        settings = {
            "RESTATE_DISABLE_TELEMETRY": "true",
            "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{self.ingress}",
            "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{self.admin}",
            "RESTATE_BIND_ADDRESS": f"127.0.0.1:{self.node}",
        }
        self.log = (folder / "log").open("ab")
        quiet = {"stdout": self.log, "stderr": self.log, "stdin": subprocess.DEVNULL}
        server = [os.environ["RESTATE_SERVER"], "--no-logo", "--base-dir", str(folder)]
        worker = [sys.executable, "-m", "hypercorn", "--bind", f"127.0.0.1:{self.worker}", "restate_side:app"]
        here = Path(__file__).parent
        self.processes = [
            subprocess.Popen(server, env={**os.environ, **settings}, **quiet),  # type: ignore[call-overload]
            subprocess.Popen(worker, cwd=here, **quiet),  # type: ignore[call-overload]
        ]

    async def ready(self, session: aiohttp.ClientSession) -> None:
        for _ in range(600):
            try:
                async with session.get(f"http://127.0.0.1:{self.admin}/health") as answer:
                    if answer.status == 200:
                        break
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)
        uri = {"uri": f"http://127.0.0.1:{self.worker}"}
        for _ in range(100):
            async with session.post(f"http://127.0.0.1:{self.admin}/deployments", json=uri) as answer:
                if answer.status in (200, 201):
                    return
                problem = await answer.text()
            await asyncio.sleep(0.1)
        raise RuntimeError(f"the worker could not be registered: {problem}")

    def close(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(20)
        self.log.close()


async def main(folder: Path) -> None:
    deployment = Deployment(folder)
    keys = (f"k{number}-{time.time_ns()}" for number in itertools.count())
    steps = Steps()
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            await deployment.ready(session)

            async def call(path: str, body: Any) -> None:
                async with session.post(f"http://127.0.0.1:{deployment.ingress}/{path}", json=body) as answer:
                    if answer.status not in (200, 202):
                        raise RuntimeError(f"{path}: {answer.status} {await answer.text()}")
                    await answer.read()

            async def many(n: int) -> None:
                await asyncio.gather(*(call("Bench/sequential", 10) for _ in range(n)))

            async def told(_request: aiohttp.web.BaseRequest) -> aiohttp.web.Response:
                steps.began()
                return aiohttp.web.Response()

            ears = aiohttp.web.ServerRunner(aiohttp.web.Server(told))
            await ears.setup()
            port = free_ports(1)[0]
            await aiohttp.web.TCPSite(ears, "127.0.0.1", port).start()

            async def hook(n: int) -> float:
                key = next(keys)
                order = {"count": n, "told": f"http://127.0.0.1:{port}/"}
                running = asyncio.create_task(call(f"Hooks/{key}/run", order))
                taken = await steps.latencies(n, lambda number: call(f"Hooks/{key}/send", number))
                await running
                return taken

            shapes = {
                "no_steps": lambda _n: call("Bench/sequential", 0),
                "sequential": lambda n: call("Bench/sequential", n),
                "gather": lambda n: call("Bench/gather", n),
                "many": many,
                "hook": hook,
            }
            about = {
                "sync": "its server's defaults: fdatasync of its log, appends grouped (by strace)",
                "records": "inputs, the result of every step",
            }
            await serve(about, shapes)
            await ears.cleanup()
    finally:
        deployment.close()


if __name__ == "__main__":
    import aiohttp.web

    asyncio.run(main(Path(sys.argv[1])))
