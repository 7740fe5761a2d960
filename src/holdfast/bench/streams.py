"""Shapes of streams: a megabyte is 1,048,576 bytes in chunks of 64 KiB, and each chunk is durable when it is read.

A run's time begins before `app.start` and ends when the last byte has been read. The floor is the same bytes in
commits of at most 1 MiB.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ..publish import Stream, stream
from ..workflow import Workflow, step, workflow
from .shape import Commits, Sample, Shape, now

if TYPE_CHECKING:
    from .place import Place

BLOCK, BLOCKS = 64 * 1024, 16
PART = BLOCK // 10
"""What a dealer writes at once: ten streams have a block together."""
MEGABYTE = BLOCK * BLOCKS


@step(name="holdfast.bench.speak")
async def speak(count: int) -> None:
    async with stream("out") as out:
        for _ in range(count):
            await out.write(b"x" * 100)


@step(name="holdfast.bench.fill")
async def fill(out: Stream) -> None:
    async with out:
        for _ in range(BLOCKS):
            await out.write(b"x" * BLOCK)


@step(name="holdfast.bench.transform")
async def transform(given: Stream, out: Stream) -> None:
    async with out:
        async for chunk in given:
            await out.write(chunk.data.swapcase())


@step(name="holdfast.bench.deal")
async def deal(outs: list[Stream]) -> None:
    for number in range(BLOCKS * 10):
        await outs[number % len(outs)].write(b"x" * PART)
    await asyncio.gather(*(out.end() for out in outs))


@step(name="holdfast.bench.merge")
async def merge(given: list[Stream], out: Stream) -> None:
    async def pour(one: Stream) -> None:
        async for chunk in one:
            await out.write(chunk.data)

    async with out:
        await asyncio.gather(*(pour(one) for one in given))


@step(name="holdfast.bench.pace")
async def pace(count: int, interval: float) -> float:
    """A chunk every `interval` seconds; gives when it began."""
    loop = asyncio.get_running_loop()
    at, begun = time.time(), loop.time()
    async with stream("out") as out:
        for number in range(count):
            await asyncio.sleep(max(0, begun + (number + 1) * interval - loop.time()))
            await out.write(time.time())
    return at


@workflow(name="holdfast.bench.stream")
async def speaks(count: int) -> None:
    await speak(count)


@workflow(name="holdfast.bench.stream_pipeline")
async def pipeline(count: int) -> None:
    stages = [stream(f"stage-{number}") for number in range(count + 1)]
    await asyncio.gather(fill(stages[0]), *(transform(a, b) for a, b in pairwise(stages)))


@workflow(name="holdfast.bench.stream_parallel")
async def parallel(count: int) -> None:
    await asyncio.gather(*(fill(stream(f"out-{number}")) for number in range(count)))


@workflow(name="holdfast.bench.stream_fan")
async def fan(count: int) -> None:
    dealt = [stream(f"dealt-{number}") for number in range(count)]
    changed = [stream(f"changed-{number}") for number in range(count)]
    transforms = [transform(a, b) for a, b in zip(dealt, changed, strict=True)]
    await asyncio.gather(deal(dealt), *transforms, merge(changed, stream("out")))


@workflow(name="holdfast.bench.stream_paced")
async def paced(count: int, interval: float) -> float:
    return await pace(count, interval)


Names = Callable[[int], list[str]]
"""The streams that are read of a run of some size."""


def _read(source: Workflow[[int], Any], names: Names, total: Callable[[int], int]) -> Any:
    """A shape's `go`: start the run, read these streams to their ends; `total` bytes have come."""

    async def go(place: Place, size: int) -> Sample:
        begun = now()
        run = await place.app.start(source, size)

        async def read(name: str) -> tuple[float, float, int]:
            first, got = 0.0, 0
            async for chunk in run.stream(name):
                first = first or now() - begun
                got += len(chunk.body)
            return first, now() - begun, got

        taken = await asyncio.gather(*(read(name) for name in names(size)))
        assert sum(got for _, _, got in taken) == total(size), "a stream was not whole"
        await run.result()
        return Sample(max(last for _, last, _ in taken), run.id, first=min(first for first, _, _ in taken))

    return go


def _paced(interval: float, figure: Callable[[list[float], float], float]) -> Any:
    async def go(place: Place, size: int) -> Sample:
        run = await place.app.start(paced, size, interval)
        delays = [time.time() - chunk.data async for chunk in run.stream("out")]
        ended = time.time()
        return Sample(figure(delays, ended - await run.result() - size * interval), run.id)

    go_typed: Callable[[Place, int], Awaitable[Sample]] = go
    return go_typed


SHAPES = (
    Shape(
        "stream", "chunks of 100 bytes", (50,), _read(speaks, lambda _: ["out"], lambda n: 100 * n),
        lambda n: Commits(1, 100 * n),
    ),
    Shape(
        "stream-pipeline", "1 MB through so many transforms, a step each", (5,),
        _read(pipeline, lambda n: [f"stage-{n}"], lambda _: MEGABYTE), lambda n: Commits(n + 1, MEGABYTE),
    ),
    Shape(
        "stream-parallel", "so many streams of 1 MB, a step each", (10,),
        _read(parallel, lambda n: [f"out-{i}" for i in range(n)], lambda n: n * MEGABYTE),
        lambda n: Commits(n, MEGABYTE),
    ),
    Shape(
        "stream-fan", "1 MB dealt out to so many transforms, and merged", (10,),
        _read(fan, lambda _: ["out"], lambda _: BLOCKS * 10 * PART), lambda _: Commits(3, MEGABYTE),
    ),
    Shape(
        "stream-latency", "a chunk every 10 ms: from its writing to its reading", (30,),
        _paced(0.01, lambda delays, _: statistics.median(delays)), lambda _: Commits(1, 100), 3,
    ),
    Shape(
        "stream-overhead", "a chunk every 10 ms: what they take beyond that", (),
        _paced(0.01, lambda _, beyond: beyond), lambda _: Commits(1, 100), 2, more=(300,),
    ),
)  # fmt: skip
"""In the order in which they are measured."""
