"""Room for step attempts: how many a worker may begin, and which run's is next (RACES H-12).

An attempt has begun when its `step_started` is committed: if its worker dies then, the attempt is lost, whether
or not its body ever ran. So a worker begins no more than it has places for, and a step that waits for one stands
in the log as scheduled and nothing else: whoever takes the run next begins it as if nothing had happened.

    one run       has at most `concurrency` attempts, whatever it gathers
    among runs    one that has no attempt goes before those that have, then each in turn: a run with ten thousand
                  steps leaves every other run its next step

It rests on a place being given back exactly once: `Attempts.begun` names the steps that have one.

Places in the machine's memory would do for bodies. For runs that go from one quick step to the next they would
not: 1,000 such runs fill a commit with 1,000 outcomes and the 1,000 starts that follow from them, long before
their bodies run, and to hold 900 back would cost each step a commit of its own. Hence the *allowance*: a run's
only attempt may begin ahead of its body's turn, as long as no more wait so than have ended in the last moment
(`_MOMENT`), for so many will run in the next.

Rejected: to commit a start when its body's turn comes (one more commit a step); a bound without allowance; an
allowance for all (a burst of quick steps would let a thousand slow ones behind it begin, and be lost).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .attempts import Attempts

_MOMENT = 0.1
"""Seconds that an attempt may wait for its body's turn, about, when it has begun."""


class Places:
    """The places of one worker; `time` counts seconds."""

    def __init__(self, concurrency: int, time: Callable[[], float]) -> None:
        self._most = concurrency
        self._time = time
        self._taken = 0
        self._first: dict[Attempts, None] = {}  # runs without an attempt that wait for a place, in order
        self._more: dict[Attempts, None] = {}  # runs that have some and wait for another
        self._ended = self._ended_before = 0  # attempts in this moment, and in the one before
        self._until = 0.0

    def take(self, run: Attempts) -> bool:
        """Take a place, if there is one and nobody has a better right to it."""
        if run.begun:
            if self._taken >= self._most or self._first or self._more:
                return False
        elif self._first or (self._taken >= self._most and not self._allowed()):
            return False
        self._taken += 1
        return True

    def occupy(self) -> None:
        """An attempt runs that has its right from elsewhere: from a queue."""
        self._taken += 1

    def wait(self, run: Attempts) -> None:
        """A run wants a place as soon as there is one for it."""
        if run not in self._first and run not in self._more:
            (self._more if run.begun else self._first)[run] = None

    def leave(self, run: Attempts) -> None:
        """A run waits no more."""
        self._first.pop(run, None)
        self._more.pop(run, None)

    def ended(self, run: Attempts | None) -> None:
        """An attempt has run, and leaves its place."""
        now = self._time()
        if now >= self._until:
            self._roll(now)
        self._ended += 1
        self.free(run)

    def free(self, run: Attempts | None) -> None:
        """A place is free again."""
        self._taken -= 1
        if self._first or self._more:
            if run is not None and run in self._more and not run.begun:
                del self._more[run]
                self._first[run] = None
            self._hand_out()

    def _hand_out(self) -> None:
        served: dict[Attempts, None] = {}
        while line := self._next():
            run = next(iter(line))
            del line[run]
            self._taken += 1
            if run.granted():
                self._more[run] = None
            served[run] = None
        for run in served:
            run.turn()

    def _next(self) -> dict[Attempts, None] | None:
        """The line whose first one may take a place."""
        if self._first and (self._taken < self._most or self._allowed()):
            return self._first
        return self._more if self._taken < self._most else None

    def _allowed(self) -> bool:
        now = self._time()
        if now >= self._until:
            self._roll(now)
        return self._taken < self._most + max(self._ended, self._ended_before)

    def _roll(self, now: float) -> None:
        """Another moment begins."""
        self._ended_before = self._ended if now < self._until + _MOMENT else 0
        self._ended, self._until = 0, now + _MOMENT
