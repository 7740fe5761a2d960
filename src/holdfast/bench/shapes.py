"""The shapes: runs and steps, hooks and timers, and what a process costs that waits; then all of them by name."""

from __future__ import annotations

import asyncio
import gc
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from operator import sub
from typing import TYPE_CHECKING, Any, TypeVar

from ..engine.tick import replay as replay_log
from ..workflow import Workflow
from . import apart, flows, streams
from .shape import IDLE, Commits, Sample, Shape, now

if TYPE_CHECKING:
    from .place import Place

T = TypeVar("T")

_PROBE = 0.001
"""Seconds between two looks at how late the loop is."""


def _timed(workflow: Workflow[..., Any]) -> Callable[[Place, int], Awaitable[Sample]]:
    async def go(place: Place, size: int) -> Sample:
        begun = now()
        run = await place.app.start(workflow, size)
        await run.result()
        return Sample(now() - begun, run.id)

    return go


async def _first_step(place: Place, _size: int) -> Sample:
    """From the start of a run to the first line of its first step."""
    begun = time.time()
    run = await place.app.start(flows.first, 1)
    return Sample(await run.result() - begun, run.id)


async def _many(place: Place, size: int) -> Sample:
    begun = now()
    runs = await asyncio.gather(*(place.app.start(flows.sequential, 10) for _ in range(size)))
    await asyncio.gather(*(run.result() for run in runs))
    taken = now() - begun
    return Sample(taken, runs[0].id, size, amount=10 * size / taken)


async def late_while(work: Awaitable[T]) -> tuple[T, float]:
    """What `work` gives, and by how many seconds a timer of the process is late meanwhile: the 99th percentile."""
    late = [0.0]  # of work that is done before the first look

    async def probe() -> None:
        while True:
            begun = now()
            await asyncio.sleep(_PROBE)
            late.append(now() - begun - _PROBE)

    probing = asyncio.create_task(probe())
    given = await work
    probing.cancel()
    return given, sorted(late)[len(late) * 99 // 100]


async def _lag(place: Place, size: int) -> Sample:
    """How late the loop is while `size` runs of ten steps go on."""
    sample, late = await late_while(_many(place, size))
    return sample._replace(amount=1000 * late)


async def _long(place: Place, size: int) -> Sample:
    """The last hundred steps of a long run against its first hundred, by the median of each.

    By their sums, one checkpoint of SQLite's log more or less, every hundred steps or two, would be a fifth.
    """
    begun = now()
    run = await place.app.start(flows.sequential, size)
    await run.result()
    taken = now() - begun
    times = [event.time async for event in run.events() if event.type == "step_completed"]
    gaps = list(map(sub, times[1:], times))
    part = min(100, size // 2)
    return Sample(taken, run.id, amount=statistics.median(gaps[-part:]) / statistics.median(gaps[:part]))


async def _hook(place: Place, size: int) -> Sample:
    """A run that waits in this process."""
    run = await place.app.start(flows.payloads, size)
    return await apart.answered(place.app, run, size)


async def _timer(place: Place, size: int) -> Sample:
    """How much later than due timers fire: the mean over `size` sleeps."""
    run = await place.app.start(flows.sleeps, size)
    await run.result()
    due, late = {}, 0
    async for event in run.events():
        if event.type == "timer_started":
            due[event.key] = event.data["due"]
        elif event.type == "timer_fired":
            late += event.time - due[event.key]
    return Sample(late / 1e6 / size, run.id)


async def _replay(place: Place, size: int) -> Sample:
    """Read the log of a run of `size` steps, and run its code against it."""
    run = await place.app.start(flows.sequential, size)
    await run.result()
    begun = now()
    events = await place.app.store.read(run.id)
    replay_log(flows.sequential, events).bury()
    taken = now() - begun
    return Sample(taken, run.id, amount=len(events) / taken)


async def _idle(_place: Place, size: int) -> Sample:
    """What a worker with nothing to do takes of one core, over `size` seconds."""
    used, begun = time.process_time(), now()
    await asyncio.sleep(size)
    taken = now() - begun
    used = time.process_time() - used
    return Sample(used, "", amount=100 * used / taken)


async def _memory(place: Place, size: int) -> Sample:
    """What a run that waits for a payload keeps in memory."""
    gc.collect()
    before, begun = _resident(), now()
    runs = await asyncio.gather(*(place.app.start(flows.waits, number) for number in range(size)))
    taken = now() - begun
    held = _resident() - before
    await asyncio.gather(*(place.app.resume(f"holdfast.bench:{run.id}", 1) for run in runs))
    await asyncio.gather(*(run.result() for run in runs))
    return Sample(taken, runs[0].id, size, amount=held / size)


def _resident() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - not a path of anybody's
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


async def _children(place: Place, size: int) -> Sample:
    begun = now()
    run = await place.app.start(flows.parent, size)
    await run.result()
    return Sample(now() - begun, run.id, 1 + size)


def _each(size: int) -> Commits:
    """The start, and one for each step."""
    return Commits(size + 1)


def _three(size: int) -> Commits:
    """The start, the first results, the last."""
    return Commits(3 if size > 1 else 2)


_RUNS = (
    Shape("none", "a run without steps", (0,), _timed(flows.none), lambda _: Commits(1), 20, least=0),
    Shape(
        "sequential", "steps, one after the other", (1, 10, 50), _timed(flows.sequential), _each, 15,
        more=(25, 1020),
    ),
    Shape("gather", "steps, all at once", (10, 50), _timed(flows.gather), _three, more=(25, 100)),
    Shape("race", "steps of which the first wins", (10,), _timed(flows.race), _three, more=(25, 50)),
    Shape(
        "sequential-10kb", "steps of 10 KB in sequence", (10,), _timed(flows.sequential_large), _each,
        more=(25, 50),
    ),
    Shape(
        "gather-10kb", "steps of 10 KB at once", (10,), _timed(flows.gather_large), _three, more=(25, 50),
    ),
    Shape("children", "child runs at once, a step each", (10,), _children, _three, 5, more=(50,)),
    Shape(
        "first-step", "from start to the first step's body", (1,), _first_step, lambda _: Commits(1, 330), 15,
    ),
)  # fmt: skip

_WAITS = (
    Shape(
        "hook", "from a payload to the next step's body", (20,), _hook,
        lambda _: Commits(2, 330, IDLE), 5,
    ),
    Shape("timer", "how late timers fire", (10,), _timer, None, 3),
)  # fmt: skip

_CROWDS = (
    Shape(
        "many", "runs of ten steps at once", (200,), _many, lambda _: Commits(11), 3, "steps/s",
        more=(1000, 10_000),
    ),
    Shape(
        "lag", "how late the loop is while so many runs go on", (1000,), _lag, None, 3, "ms p99",
        more=(200,),
    ),
    Shape(
        "long", "one long run; its last steps against its first", (1000,), _long, _each, 1, "× first",
        more=(100, 5000, 20_000), least=2,
    ),
    Shape(
        "replay", "the log of a run read and replayed", (1000,), _replay, None, 3, "ev/s",
        more=(5000, 20_000),
    ),
    Shape("idle", "a worker without work", (3,), _idle, None, 1, "% core", more=(20,)),
    Shape("memory", "runs that wait for a payload", (1000,), _memory, None, 1, "B/run", more=(10_000,)),
)  # fmt: skip

SHAPES: dict[str, Shape] = {
    shape.name: shape for shape in (*_RUNS, *_WAITS, *apart.SHAPES, *streams.SHAPES, *_CROWDS)
}
"""Every shape by name, in the order in which they are measured."""
