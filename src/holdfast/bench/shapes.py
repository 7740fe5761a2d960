"""The shapes: what is timed, at which sizes, and how many commits it may cost at least (its floor)."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from ..client import App
from ..engine.tick import replay as replay_log
from ..workflow import Workflow
from . import flows


class Sample(NamedTuple):
    """One go: `seconds`, the run it can be looked up by, and what is counted by the second or in bytes."""

    seconds: float
    run: str
    amount: float | None = None


class Shape(NamedTuple):
    """`go(app, size)` is timed `samples` times; `commits(size)` is its floor, `unit` what `amount` counts."""

    name: str
    about: str
    sizes: tuple[int, ...]
    go: Callable[[App, int], Awaitable[Sample]]
    commits: Callable[[int], int] | None = None
    samples: int = 15
    unit: str = ""


def _timed(workflow: Workflow[..., Any]) -> Callable[[App, int], Awaitable[Sample]]:
    async def go(app: App, size: int) -> Sample:
        begun = flows.now()
        run = await app.start(workflow, size)
        await run.result()
        return Sample(flows.now() - begun, run.id)

    return go


async def _first_step(app: App, _size: int) -> Sample:
    """From the start of a run to the first line of its first step."""
    flows.heard.began.clear()
    begun = flows.now()
    run = await app.start(flows.first, 1)
    await flows.heard.began.wait()
    taken = flows.now() - begun
    await run.result()
    return Sample(taken, run.id)


async def _many(app: App, size: int) -> Sample:
    begun = flows.now()
    runs = await asyncio.gather(*(app.start(flows.sequential, 10) for _ in range(size)))
    await asyncio.gather(*(run.result() for run in runs))
    taken = flows.now() - begun
    return Sample(taken, runs[0].id, 10 * size / taken)


async def _long(app: App, size: int) -> Sample:
    """The last hundred steps of a long run against its first hundred."""
    begun = flows.now()
    run = await app.start(flows.sequential, size)
    await run.result()
    taken = flows.now() - begun
    times = [event.time async for event in run.events() if event.type == "step_completed"]
    part = min(100, size // 2)
    first, last = times[part] - times[0], times[-1] - times[-1 - part]
    return Sample(taken, run.id, last / first)


async def _hook(app: App, size: int) -> Sample:
    """From a payload that is sent to the first line of the next step: two commits."""
    run = await app.start(flows.payloads, size)
    taken = 0.0
    for number in range(size):
        flows.heard.began.clear()
        begun = flows.now()
        await app.resume(f"holdfast.bench:{run.id}", number)
        await flows.heard.began.wait()
        taken += flows.now() - begun
    await run.result()
    return Sample(taken, run.id)


async def _timer(app: App, size: int) -> Sample:
    """How much later than due timers fire: the sum over `size` sleeps."""
    run = await app.start(flows.sleeps, size)
    await run.result()
    due, late = {}, 0
    async for event in run.events():
        if event.type == "timer_started":
            due[event.key] = event.data["due"]
        elif event.type == "timer_fired":
            late += event.time - due[event.key]
    return Sample(late / 1e6, run.id)


async def _replay(app: App, size: int) -> Sample:
    """Read the log of a run of `size` steps, and run its code against it."""
    run = await app.start(flows.sequential, size)
    await run.result()
    begun = flows.now()
    events = await app.store.read(run.id)
    replay_log(flows.sequential, events).bury()
    taken = flows.now() - begun
    return Sample(taken, run.id, len(events) / taken)


async def _idle(_app: App, size: int) -> Sample:
    """What a worker with nothing to do takes of one core, over `size` seconds."""
    used, begun = sum(os.times()[:2]), flows.now()
    await asyncio.sleep(size)
    taken = flows.now() - begun
    return Sample(sum(os.times()[:2]) - used, "", 100 * (sum(os.times()[:2]) - used) / taken)


async def _memory(app: App, size: int) -> Sample:
    """What a run that waits for a payload keeps in memory."""
    gc.collect()
    before, begun = _resident(), flows.now()
    runs = await asyncio.gather(*(app.start(flows.waits, number) for number in range(size)))
    taken = flows.now() - begun
    held = _resident() - before
    await asyncio.gather(*(app.resume(f"holdfast.bench:{run.id}", 1) for run in runs))
    await asyncio.gather(*(run.result() for run in runs))
    return Sample(taken, runs[0].id, held / size)


def _resident() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - not a path of anybody's
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _each(size: int) -> int:
    return size + 1


def _three(size: int) -> int:
    return 3 if size > 1 else 2


SHAPES: dict[str, Shape] = {
    shape.name: shape
    for shape in (
        Shape("none", "a run without steps", (0,), _timed(flows.none), lambda _: 1, 30),
        Shape(
            "sequential", "steps, one after the other", (1, 10, 25, 50), _timed(flows.sequential), _each, 30
        ),
        Shape("gather", "steps, all at once", (10, 25, 50, 100), _timed(flows.gather), _three),
        Shape("race", "steps of which the first wins", (10, 25, 50), _timed(flows.race), _three, 10),
        Shape("sequential-10kb", "steps of 10 KB in sequence", (10,), _timed(flows.sequential_large), _each),
        Shape("gather-10kb", "steps of 10 KB at once", (10, 50), _timed(flows.gather_large), _three),
        Shape("first-step", "from start to the first step's body", (1,), _first_step, lambda _: 1, 20),
        Shape("hook", "from a payload to the next step's body", (20,), _hook, lambda size: 2 * size, 5),
        Shape("timer", "how late timers fire", (10,), _timer, None, 3),
        Shape("many", "runs of ten steps at once", (200, 1000), _many, None, 3, "steps/s"),
        Shape(
            "long",
            "one long run; its last steps against its first",
            (1000, 5000),
            _long,
            _each,
            1,
            "last/first",
        ),
        Shape("replay", "the log of a run read and replayed", (1000, 5000), _replay, None, 3, "events/s"),
        Shape("idle", "a worker without work", (5,), _idle, None, 1, "% of a core"),
        Shape("memory", "runs that wait for a payload", (1000,), _memory, None, 1, "bytes/run"),
    )
}
"""Every shape by name, in the order in which they are measured."""
