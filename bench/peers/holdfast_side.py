"""Holdfast as one of the sides: `python bench/peers/holdfast_side.py STORE-URL`."""

from __future__ import annotations

import asyncio
import itertools
import sys

from line import Steps, serve

import holdfast as hf

steps = Steps()


@hf.step
async def empty(number: int) -> int:
    return number


@hf.step
async def after_payload(number: int) -> int:
    steps.began()
    return number


@hf.workflow
async def sequential(count: int) -> int:
    for number in range(count):
        await empty(number)
    return count


@hf.workflow
async def gather(count: int) -> int:
    return len(await asyncio.gather(*(empty(number) for number in range(count))))


@hf.workflow
async def payloads(count: int) -> None:
    hook = hf.hook(f"peers:{hf.run_info().run_id}", type=int)
    for _ in range(count):
        await after_payload(await hook)


async def main(url: str) -> None:
    ids = (f"r{number}" for number in itertools.count())
    async with hf.connect(url) as app, app.worker(concurrency=1000):

        async def no_steps(_n: int) -> None:
            await (await app.start(sequential, 0, run_id=next(ids))).result()

        async def one_by_one(n: int) -> None:
            await (await app.start(sequential, n, run_id=next(ids))).result()

        async def at_once(n: int) -> None:
            await (await app.start(gather, n, run_id=next(ids))).result()

        async def many(n: int) -> None:
            async def one() -> None:
                await (await app.start(sequential, 10, run_id=next(ids))).result()

            await asyncio.gather(*(one() for _ in range(n)))

        async def hook(n: int) -> float:
            run = await app.start(payloads, n, run_id=next(ids))
            taken = await steps.latencies(n, lambda number: app.resume(f"peers:{run.id}", number))
            await run.result()
            return taken

        about = {
            "sync": "synchronous=FULL, WAL" if url.startswith("sqlite") else "synchronous_commit=on",
            "records": "arguments, starts, results of every step, in a hash chain",
        }
        shapes = {
            "no_steps": no_steps,
            "sequential": one_by_one,
            "gather": at_once,
            "many": many,
            "hook": hook,
        }
        await serve(about, shapes)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
