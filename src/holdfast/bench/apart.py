"""Shapes with another process: payloads and steps that go to it, and runs that it leaves behind when it dies."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Sequence
from itertools import pairwise
from operator import sub
from typing import TYPE_CHECKING

from ..workflow import step, workflow
from .place import Other
from .shape import IDLE, Commits, Sample, Shape, now

if TYPE_CHECKING:
    from ..client import App, Run
    from .place import Place

QUEUE = "holdfast.bench"
WAITS = ("hook_opened", "step_completed")
"""What a log ends with while the run of `flows.payloads` waits for the next one."""
Stamps = list[tuple[float, float]]
"""When each step began and ended, by the machine's clock."""


class _Counter:
    """How many steps have begun in this process."""

    def __init__(self) -> None:
        self.count = 0
        self._more = asyncio.Event()

    def add(self) -> None:
        self.count += 1
        self._more.set()

    async def reach(self, count: int) -> None:
        while self.count < count:
            self._more.clear()
            await self._more.wait()


begun = _Counter()


@step(name="holdfast.bench.stamp")
async def stamp(_number: int) -> tuple[float, float]:
    return time.time(), time.time()


@step(name="holdfast.bench.stamp_apart", queue=QUEUE)
async def stamp_apart(_number: int) -> tuple[float, float]:
    return time.time(), time.time()


@step(name="holdfast.bench.linger")
async def linger(victim: int) -> None:
    """For ever in the process that is to be killed, and no time at all in another."""
    begun.add()
    if os.getpid() == victim:
        await asyncio.Event().wait()


@workflow(name="holdfast.bench.stamps")
async def stamps(count: int) -> Stamps:
    return [await stamp(number) for number in range(count)]


@workflow(name="holdfast.bench.stamps_apart")
async def stamps_apart(count: int) -> Stamps:
    return [await stamp_apart(number) for number in range(count)]


@workflow(name="holdfast.bench.lingers")
async def lingers(victim: int) -> None:
    await linger(victim)


async def _same_worker(place: Place, size: int) -> Sample:
    run = await place.app.start(stamps, size)
    return Sample(_gap(await run.result()), run.id)


async def _handed_over(place: Place, size: int) -> Sample:
    await place.other("steps")
    run = await place.app.start(stamps_apart, size)
    return Sample(_gap(await run.result()), run.id)


def _gap(taken: Sequence[tuple[float, float]]) -> float:
    """From the end of a step's body to the beginning of the next one's: the median."""
    return statistics.median(after[0] - before[1] for before, after in pairwise(taken))


class Payloads:
    """Payloads to a run of `flows.payloads`, each after a moment in which nobody had anything to do."""

    def __init__(self, app: App, run: Run[list[float]]) -> None:
        self.app, self.run = app, run
        self.sent: list[float] = []
        self._position = 0

    async def send(self, number: int) -> None:
        """One payload, when the run waits for it."""
        while True:  # it may be another process that works on it
            events = await self.app.store.read(self.run.id, self._position)
            if events and events[-1].type in WAITS:
                break
            await asyncio.sleep(IDLE)
        self._position = events[-1].position
        await asyncio.sleep(IDLE)
        self.sent.append(time.time())
        await self.app.resume(f"holdfast.bench:{self.run.id}", number)


async def answered(app: App, run: Run[list[float]], size: int) -> Sample:
    """From a payload that is sent to the first line of the next step, two commits: the mean of `size`."""
    payloads = Payloads(app, run)
    for number in range(size):
        await payloads.send(number)
    began = await run.result(timeout=60)
    return Sample(statistics.mean(map(sub, began, payloads.sent)), run.id)


async def _hook_apart(place: Place, size: int) -> Sample:
    """A run that waits in another process."""
    waiter = await Other.start("holdfast.bench.other", place.where.url, f"waiter {size}")
    sample = await answered(place.app, place.app.run(waiter.said), size)
    await waiter.close()
    return sample


async def _recovery(place: Place, size: int) -> Sample:
    """From the death of a worker until the last of its steps has begun again, here."""
    victim = await Other.start("holdfast.bench.other", place.where.url, f"victim {size}")
    before = begun.count
    killed = now()
    await victim.kill()
    await begun.reach(before + size)
    taken = now() - killed
    await place.app.run(victim.said).result(timeout=60)
    return Sample(taken, victim.said, size)


SHAPES = (
    Shape(
        "step-to-step", "from a step's end to the next one's beginning", (20,), _same_worker,
        lambda _: Commits(1, 330), 5, least=2,
    ),
    Shape(
        "handed-over", "the same, the steps in another process", (20,), _handed_over,
        lambda _: Commits(3, 330), 5, apart=True, least=2,
    ),
    Shape(
        "hook-apart", "from a payload to the next step's body, in another process", (20,), _hook_apart,
        lambda _: Commits(2, 330, IDLE), 5, apart=True,
    ),
    Shape(
        "recovery", "from a worker's kill -9 until its steps begin elsewhere", (1,), _recovery,
        None, 3, more=(50,), apart=True,
    ),
)  # fmt: skip
"""In the order in which they are measured."""
