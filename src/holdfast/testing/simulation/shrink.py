"""A seed that finds a problem, made small: fewer runs, fewer troubles, fewer processes, shorter programs.

The seed stays; what shrinks is the scenario. It falls into parts (a run, a trouble that happened, a second
worker, a statement of a generated program), and hypothesis looks for the fewest with which there is still a
problem. It need not be the same problem: whatever is smaller and wrong is what a reader wants to see.

How hypothesis is made to shrink what it has not found itself: it draws a number for each part, and the first ones
that it happens to draw stand for the whole. A number below its first one stands for a part that is left out (0),
or of which only the inside is left (1 and more). Hypothesis makes numbers small by itself, long rows at a time.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from .scenario import Report, Scenario, Start, simulate

DROP, INSIDE, KEEP = 0, 1, 2
Levels = Sequence[int]
"""Of each part: left out, replaced by what is inside it, or kept."""


class Reduction(NamedTuple):
    """How to make one start of a scenario smaller: in how many parts, and what is left of it."""

    size: int
    rebuild: Callable[[Levels], Start]


class Shrunk(NamedTuple):
    """The smallest scenario that was found, what it comes to, and how many were simulated on the way."""

    scenario: Scenario
    report: Report
    tries: int


def shrink(
    scenario: Scenario,
    seed: int | str,
    *,
    reduce: Callable[[Start], Reduction] = lambda start: Reduction(0, lambda levels: start),
    play: Callable[[Scenario], Report] | None = None,
    tries: int = 2000,
) -> Shrunk:
    """The smallest scenario, made of parts of this one, in which the seed finds a problem.

    `reduce` says how the arguments of a start fall into parts, `play` how to simulate (by default, `simulate`
    with the seed). At most `tries` scenarios are simulated. Needs hypothesis (the extra `test`). Raises ValueError
    where the seed finds no problem.

    Example:
        small = shrink(scenario, 23)
        print(small.report.troubles, small.report.problems)
    """
    look = play or (lambda smaller: simulate(smaller, seed))
    best = look(scenario)
    if not best.problems:
        raise ValueError(f"seed {seed} finds no problem here: there is nothing to shrink")
    scenario = msgspec.structs.replace(scenario, only=frozenset(best.troubles))
    done = 1
    while True:
        parts = _Parts(scenario, best.troubles, reduce)
        found: dict[tuple[int, ...], Report] = {}

        def fails(levels: tuple[int, ...]) -> bool:
            nonlocal done
            if done >= tries:
                return False
            done += 1
            report = look(parts.rebuild(levels))  # noqa: B023 - called in this turn of the loop alone
            if report.problems:
                found[levels] = report  # noqa: B023
            return bool(report.problems)

        levels = fewest(parts.count, fails)
        if levels not in found:
            return Shrunk(scenario, best, done)
        scenario, best = parts.rebuild(levels), found[levels]


class _Parts:
    """The parts of a scenario, in one row."""

    def __init__(
        self, scenario: Scenario, troubles: Sequence[str], reduce: Callable[[Start], Reduction]
    ) -> None:
        self._scenario = scenario
        self._troubles = troubles
        self._inside = [reduce(start) for start in scenario.starts]
        sizes = [1, scenario.workers - 1, scenario.clients - 1, len(troubles), len(scenario.starts)]
        self._sizes = [*sizes, *(reduction.size for reduction in self._inside)]
        self.count = sum(self._sizes)

    def rebuild(self, levels: Levels) -> Scenario:
        rest = iter(levels)
        meddle, workers, clients, troubles, starts, *inside = [
            [next(rest) for _ in range(size)] for size in self._sizes
        ]
        left = [
            reduction.rebuild(within)
            for reduction, within, level in zip(self._inside, inside, starts, strict=True)
            if level == KEEP
        ]
        return msgspec.structs.replace(
            self._scenario,
            starts=left,
            meddle=self._scenario.meddle and meddle[0] == KEEP,
            workers=1 + workers.count(KEEP),
            clients=1 + clients.count(KEEP),
            only=frozenset(
                name for name, level in zip(self._troubles, troubles, strict=True) if level == KEEP
            ),
        )


def fewest(count: int, fails: Callable[[tuple[int, ...]], bool]) -> tuple[int, ...]:
    """The levels of `count` parts that hypothesis cannot make any smaller, with all kept known to fail."""
    from hypothesis import HealthCheck, Phase, find, settings
    from hypothesis import strategies as st

    @st.composite
    def row(
        draw: Any, size: int
    ) -> list[int]:  # halves of halves: hypothesis tries to leave out whole stretches
        if size <= 1:
            return [draw(st.integers(0, 1 << 12)) for _ in range(size)]
        return [*draw(row(size // 2)), *draw(row(size - size // 2))]

    whole: list[int] = []
    known: dict[tuple[int, ...], bool] = {(KEEP,) * count: True}

    def levels_of(drawn: list[int]) -> tuple[int, ...]:
        return tuple(
            KEEP if one >= all_ else INSIDE if one else DROP for one, all_ in zip(drawn, whole, strict=True)
        )

    def still_fails(drawn: list[int]) -> bool:
        if not whole:
            if not any(drawn):
                return False  # it begins with the simplest of all
            whole.extend(drawn)
        levels = levels_of(drawn)
        if levels not in known:
            known[levels] = fails(levels)
        return known[levels]

    if not count:
        return ()
    quiet = settings(
        max_examples=10_000,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    return levels_of(find(row(count), still_fails, settings=quiet, random=random.Random(0)))
