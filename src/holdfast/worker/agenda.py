"""What is due when: one heap for all timers and retries of a worker, one alarm for the earliest.

Entries that are cancelled stay in the heap until they surface or outnumber the rest; a three-day time-out
around each of a million short waits must not fill the memory.

What came due is answered in order (RACES H-04), although a run that is not in memory has to be read first and the
store answers several reads at a time as it likes: see `InOrder`.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable

from ..clock import Alarm, Clock

Key = tuple[str, str]
"""(run, what): a timer's key, or a word of the worker's own."""


class Agenda:
    """Calls `ring(run, what)` when an entry is due, the earliest first, those of one instant in order."""

    def __init__(self, clock: Clock, ring: Callable[[str, str], None]) -> None:
        self._clock = clock
        self._ring = ring
        self._heap: list[tuple[int, int, Key]] = []
        self._entries: dict[Key, int] = {}
        self._count = 0
        self._alarm: Alarm | None = None
        self._alarm_due = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, due: int, run: str, what: str) -> None:
        """Ring for (run, what) at `due`; an earlier entry of that name is replaced."""
        self._count += 1
        key = (run, what)
        self._entries[key] = self._count
        heapq.heappush(self._heap, (due, self._count, key))
        self._set_alarm()

    def remove(self, run: str, what: str) -> None:
        """Do not ring for (run, what)."""
        self._entries.pop((run, what), None)
        if len(self._heap) > 64 and len(self._heap) > 2 * len(self._entries):
            self._heap = [entry for entry in self._heap if self._entries.get(entry[2]) == entry[1]]
            heapq.heapify(self._heap)

    def close(self) -> None:
        """Ring no more."""
        self._heap.clear()
        self._entries.clear()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _set_alarm(self) -> None:
        while self._heap and self._entries.get(self._heap[0][2]) != self._heap[0][1]:
            heapq.heappop(self._heap)
        if not self._heap:
            return
        due = self._heap[0][0]
        if self._alarm is not None:
            if self._alarm_due <= due:
                return
            self._alarm.cancel()
        self._alarm_due = due
        self._alarm = self._clock.alarm(due, self._rang)

    def _rang(self) -> None:
        self._alarm = None
        now = self._clock.now()
        while self._heap and self._heap[0][0] <= now:
            _, number, key = heapq.heappop(self._heap)
            if self._entries.get(key) == number:
                del self._entries[key]
                self._ring(*key)
        self._set_alarm()


class Bursts:
    """Lets so many pass in one turn of the loop, in order: what a thousand begin at once must not hold it up."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._taken = 0  # in this turn of the loop
        self._line: deque[asyncio.Future[None]] = deque()

    @property
    def crowded(self) -> bool:
        """Whether somebody else passes in this turn, or waits."""
        return self._taken > 1 or bool(self._line)

    async def join(self) -> None:
        """Return in a turn that has room."""
        if self._taken < self._size and not self._line:
            self._take()
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(future)
        await future

    def _take(self) -> None:
        if not self._taken:
            asyncio.get_running_loop().call_soon(self._next)
        self._taken += 1

    def _next(self) -> None:
        self._taken = 0
        while self._line and self._taken < self._size:
            future = self._line.popleft()
            if not future.done():  # cancelled: nobody waits
                future.set_result(None)
                self._take()


class InOrder:
    """Work that is begun at once and goes on in the order in which it came.

    turn = line.join()
    try:
        log = await read()          # side by side with the others' reads
        await turn.come()           # those who joined before have left
        ...
    finally:
        turn.leave()
    """

    def __init__(self) -> None:
        self._last: asyncio.Future[None] | None = None

    def join(self) -> Turn:
        """The next place in the line; whoever has one must leave it, or nobody behind it comes."""
        left: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        before, self._last = self._last, left
        return Turn(before, left)


class Turn:
    """A place in a line."""

    def __init__(self, before: asyncio.Future[None] | None, left: asyncio.Future[None]) -> None:
        self._before = before
        self._left = left

    async def come(self) -> None:
        """Wait until everybody before has left."""
        if self._before is not None:
            await asyncio.wait([self._before])

    def leave(self) -> None:
        """Let the next one come as soon as those before have left too."""
        before = self._before
        if before is None or before.done():
            self._pass(before)
        else:
            before.add_done_callback(self._pass)

    def _pass(self, _: asyncio.Future[None] | None) -> None:
        if not self._left.done():
            self._left.set_result(None)
