"""What a shape is: something that is timed, at some sizes, with the fewest commits that it could cost."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .place import Place


IDLE = 0.005
"""Seconds in which nothing happens before a payload is sent, and before a raw commit of its floor."""


class Sample(NamedTuple):
    """One go: `seconds`, and the run that it can be looked up by, one of `runs` alike.

    `first` is the time to the first byte, `amount` what is counted by the second or in bytes.
    """

    seconds: float
    run: str
    runs: int = 1
    first: float | None = None
    amount: float | None = None


class Commits(NamedTuple):
    """A floor: so many raw commits, of `size` bytes each; None: of what the run's log holds, in equal parts.

    Each comes after so many seconds in which the process was `idle`: a first commit after a pause is dearer.
    """

    number: int
    size: int | None = None
    idle: float = 0


class Shape(NamedTuple):
    """`go(place, size)` is timed `samples` times; `floor(size)` is the least it could cost.

    `sizes` are measured always, `more` of them with --all, and `least` is the smallest that can be. `unit` is what
    `amount` counts. A shape that works with other processes is `apart`; a store that lives in this process alone
    cannot do it.
    """

    name: str
    about: str
    sizes: tuple[int, ...]
    go: Callable[[Place, int], Awaitable[Sample]]
    floor: Callable[[int], Commits] | None = None
    samples: int = 10
    unit: str = ""
    more: tuple[int, ...] = ()
    apart: bool = False
    least: int = 1


def now() -> float:
    """Seconds on this process's clock."""
    return time.perf_counter()
