"""The workflows that are timed. Their steps do nothing, so that what is left is Holdfast's own cost."""

from __future__ import annotations

import asyncio
import time

from ..inside import hook, run_info
from ..workflow import step, workflow

LARGE = "x" * 10_000
"""The payload of the shapes that carry one."""


@step(name="holdfast.bench.empty")
async def empty(number: int) -> int:
    return number


@step(name="holdfast.bench.carry")
async def carry(payload: str) -> str:
    return payload


@step(name="holdfast.bench.pause")
async def pause(number: int) -> int:
    await asyncio.sleep(0.001 * number)
    return number


@step(name="holdfast.bench.hear")
async def hear(_number: int) -> float:
    """When it began, by the machine's clock."""
    return time.time()


@workflow(name="holdfast.bench.none")
async def none(count: int) -> int:
    return count


@workflow(name="holdfast.bench.sequential")
async def sequential(count: int) -> int:
    for number in range(count):
        await empty(number)
    return count


@workflow(name="holdfast.bench.gather")
async def gather(count: int) -> int:
    return len(await asyncio.gather(*(empty(number) for number in range(count))))


@workflow(name="holdfast.bench.race")
async def race(count: int) -> int:
    """The first of many steps wins, the others are interrupted."""
    tasks = [asyncio.ensure_future(pause(number)) for number in range(count)]
    done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in rest:
        task.cancel()
    return len(done)


@workflow(name="holdfast.bench.sequential_10kb")
async def sequential_large(count: int) -> int:
    payload = LARGE
    for _ in range(count):
        payload = await carry(payload)
    return len(payload)


@workflow(name="holdfast.bench.gather_10kb")
async def gather_large(count: int) -> int:
    return len(await asyncio.gather(*(carry(LARGE) for _ in range(count))))


@workflow(name="holdfast.bench.first")
async def first(number: int) -> float:
    return await hear(number)


@workflow(name="holdfast.bench.payloads")
async def payloads(count: int) -> list[float]:
    """When the step after each payload began."""
    opened = hook(f"holdfast.bench:{run_info().run_id}", type=int)
    return [await hear(await opened) for _ in range(count)]


@workflow(name="holdfast.bench.sleeps")
async def sleeps(count: int) -> int:
    for _ in range(count):
        await asyncio.sleep(0.02)
    return count


@workflow(name="holdfast.bench.waits")
async def waits(_number: int) -> int:
    return await hook(f"holdfast.bench:{run_info().run_id}", type=int)


@workflow(name="holdfast.bench.parent")
async def parent(count: int) -> int:
    return sum(await asyncio.gather(*(sequential(1) for _ in range(count))))
