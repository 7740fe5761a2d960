"""Measuring: the shape and its floor in turns (A B A B …), so that a slow moment of the disk hits both.

The ratio is the median of the ratios of the pairs; a busy machine disturbs it less than a ratio of medians.
"""

from __future__ import annotations

import statistics
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec

from ..client import App, connect
from . import flows
from .floor import Floor, floor_of
from .shapes import Sample, Shape

WARM = 6
"""Runs of 200 steps before anything is timed: code, caches and the store's log are warm then."""


class Figure(msgspec.Struct, frozen=True, omit_defaults=True):
    """A shape at one size on one store. Times are in milliseconds; `run` is the last one that was timed."""

    shape: str
    size: int
    store: str
    run: str
    samples: int
    ms: float
    min_ms: float
    max_ms: float
    floor_ms: float | None = None
    ratio: float | None = None
    floor: str | None = None
    amount: float | None = None
    unit: str | None = None


async def measure(
    url: str, shapes: Sequence[Shape], *, quick: bool = False, done: Callable[[], object] = lambda: None
) -> AsyncIterator[Figure]:
    """The figures of these shapes on a store, one after the other; `done` is called after each sample.

    With `quick`, a third of the samples.
    """
    floor = floor_of(url)
    try:
        async with connect(url) as app, app.worker():
            for _ in range(1 if quick else WARM):
                await (await app.start(flows.sequential, 200)).result()
            for shape in shapes:
                for size in shape.sizes:
                    yield await _figure(app, url, shape, size, floor, samples_of(shape, quick), done)
    finally:
        if floor is not None:
            floor.close()


def samples_of(shape: Shape, quick: bool) -> int:
    """How often a shape is timed."""
    return max(1, shape.samples // 3) if quick else shape.samples


async def _figure(
    app: App,
    url: str,
    shape: Shape,
    size: int,
    floor: Floor | None,
    samples: int,
    done: Callable[[], object],
) -> Figure:
    taken: list[Sample] = []
    raw: list[float] = []
    commits = 0 if shape.commits is None or floor is None else shape.commits(size)
    first = await shape.go(app, size) if samples > 1 else None  # not counted: it tells the size of a commit
    each = 330 if first is None else await _bytes_of(app, first.run) // max(1, commits)
    for _ in range(samples):
        if commits and floor is not None:
            raw.append(floor.run(commits, each))
        taken.append(await shape.go(app, size))
        done()
    times = [1e3 * sample.seconds for sample in taken]
    amounts = [sample.amount for sample in taken if sample.amount is not None]
    return Figure(
        shape.name,
        size,
        name_of(url),
        taken[-1].run,
        samples,
        statistics.median(times),
        min(times),
        max(times),
        floor_ms=1e3 * statistics.median(raw) if raw else None,
        ratio=statistics.median(t.seconds / r for t, r in zip(taken, raw, strict=True)) if raw else None,
        floor=f"{commits} commits of {each} bytes" if raw else None,
        amount=statistics.median(amounts) if amounts else None,
        unit=shape.unit or None,
    )


async def _bytes_of(app: App, run_id: str) -> int:
    """What a run's log holds, about: the columns of its events."""
    if not run_id:
        return 0
    events = await app.store.read(run_id)
    return sum(len(e.type) + 2 * len(e.key) + len(e.body) + 40 for e in events)


def name_of(url: str) -> str:
    """The kind of a store: what its URL begins with."""
    return url.partition(":")[0]
