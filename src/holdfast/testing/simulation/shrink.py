"""A seed that finds a problem, made small: fewer runs, fewer troubles, fewer processes, shorter programs.

The seed stays; what shrinks is the scenario. It falls into parts (a run, a trouble that happened, a second
worker, a statement of a generated program). Whole stretches of them are left out first, then shorter ones, down
to single parts, as long as there is still a problem. It need not be the same problem: whatever is smaller and
wrong is what a reader wants to see.

Rejected: to let hypothesis do it. Its shrinker begins with an example that it has drawn itself, and a seed is
none; given the parts as numbers to make small, it had not ended after minutes where this takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

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
    with the seed). At most `tries` scenarios are simulated. Raises ValueError where the seed finds no problem.

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
    """Levels of `count` parts that still fail; that all of them together do is known."""
    levels = (KEEP,) * count
    size = count
    while size:
        for start in range(0, count, size):
            for level in (DROP, INSIDE) if size == 1 else (DROP,):
                row = (min(level, one) for one in levels[start : start + size])
                smaller = (*levels[:start], *row, *levels[start + size :])
                if smaller != levels and fails(smaller):
                    levels = smaller
                    break
        size //= 2
    return levels
