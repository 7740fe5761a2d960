"""Measuring: the shape and its floor in turns (A B A B …), so that a slow moment of the disk hits both.

The ratio is the median of the ratios of the pairs; a busy machine disturbs it less than a ratio of medians.
"""

from __future__ import annotations

import statistics
from collections.abc import AsyncIterator, Callable, Sequence
from typing import NamedTuple

import msgspec

from . import flows
from .floor import Floor, floor_of, least_time
from .place import Place, opened, store_of
from .shape import Commits, Sample, Shape

WARM = 3
"""Runs of 200 steps before anything is timed: code, caches and the store's log are warm then."""


class Figure(msgspec.Struct, frozen=True, omit_defaults=True):
    """A shape at one size on one store. Times are in milliseconds; `run` is the last one that was timed.

    Of streams, `first_ms` is the time to the first byte and `slurp_ms` from there to the last. `overhead_ms` is
    what is left without the floor; `ratio` the time by the floor's.
    """

    shape: str
    size: int
    store: str
    run: str
    samples: int
    ms: float
    min_ms: float
    max_ms: float
    first_ms: float | None = None
    slurp_ms: float | None = None
    floor_ms: float | None = None
    overhead_ms: float | None = None
    ratio: float | None = None
    floor: str | None = None
    amount: float | None = None
    unit: str | None = None


class Order(NamedTuple):
    """A shape at one size, timed so often."""

    shape: Shape
    size: int
    samples: int


async def measure(
    store: str, orders: Sequence[Order], *, warm: int = WARM, done: Callable[[], object] = lambda: None
) -> AsyncIterator[Figure]:
    """The figures of these orders on a store, one after the other; `done` is called after each sample.

    `store` is a URL, or one of `KINDS`. In memory, shapes that need other processes are left out.
    """
    async with store_of(store) as where:
        floor = await floor_of(where)
        try:
            async with opened(where) as place:
                for _ in range(warm):
                    await (await place.app.start(flows.sequential, 200)).result()
                for order in orders:
                    if not order.shape.apart or where.kind != "memory":
                        yield await _figure(place, order, floor, done)
        finally:
            if floor is not None:
                await floor.close()


async def _figure(place: Place, order: Order, floor: Floor | None, done: Callable[[], object]) -> Figure:
    shape, size, samples = order
    taken: list[Sample] = []
    raw: list[float] = []
    least = shape.floor(size) if shape.floor is not None and floor is not None else Commits(0)
    if samples > 1:
        await shape.go(place, size)  # not counted: the first one is slow
    for _ in range(samples):
        taken.append(await shape.go(place, size))
        if floor is not None and least.number:
            if least.size is None:
                least = least._replace(size=await _log_of(place, taken[-1]) // least.number)
            raw.append(await least_time(floor, least))
        done()
    return _counted(order, place.where.kind, taken, raw, _in_words(least))


def _in_words(least: Commits) -> str:
    apart = f", each after {1000 * least.idle:g} ms without work" if least.idle else ""
    return f"{least.number} commits of {least.size} bytes{apart}"


def _counted(order: Order, store: str, taken: Sequence[Sample], raw: Sequence[float], floor: str) -> Figure:
    times = [1e3 * sample.seconds for sample in taken]
    middle, low = statistics.median(times), 1e3 * statistics.median(raw) if raw else None
    amounts = [sample.amount for sample in taken if sample.amount is not None]
    firsts = [1e3 * sample.first for sample in taken if sample.first is not None]
    slurps = [1e3 * (sample.seconds - sample.first) for sample in taken if sample.first is not None]
    return Figure(
        order.shape.name,
        order.size,
        store,
        taken[-1].run,
        len(taken),
        middle,
        min(times),
        max(times),
        first_ms=statistics.median(firsts) if firsts else None,
        slurp_ms=statistics.median(slurps) if slurps else None,
        floor_ms=low,
        overhead_ms=None if low is None else middle - low,
        ratio=statistics.median(t.seconds / r for t, r in zip(taken, raw, strict=True)) if raw else None,
        floor=floor if raw else None,
        amount=statistics.median(amounts) if amounts else None,
        unit=order.shape.unit or None,
    )


async def _log_of(place: Place, sample: Sample) -> int:
    """The bytes that the logs of a sample hold, about: the columns of their events."""
    events = await place.app.store.read(sample.run)
    return sample.runs * sum(len(e.type) + 2 * len(e.key) + len(e.body) + 40 for e in events)
