"""The store's time is the server's, so that workers on many machines agree (law L8).

A process reads it by its own steady clock and an offset. Each answer of the server carries its time, which lies
between sending and receiving; where the estimate contradicts that, it is moved just as far as it must be. So
no question is asked for it, a jump of the machine's own clock changes nothing, and a drift is caught by the
next answer. The statement that writes a group checks it besides: a writer whose estimate is off by a second is
judged again by the server's clock.
"""

from __future__ import annotations

import time

from holdfast.clock import SystemClock


class ServerClock(SystemClock):
    """The server's clock, as far as this process knows it; the machine's own until the first answer."""

    __slots__ = ("_offset",)

    def __init__(self) -> None:
        self._offset: int | None = None

    def now(self) -> int:
        """Microseconds since 1970, UTC."""
        if self._offset is None:
            return super().now()
        return time.monotonic_ns() // 1000 + self._offset

    def learn(self, server: int, sent: int, received: int) -> None:
        """The server's clock stood at `server` between `sent` and `received` of this process's (`instant`)."""
        if self._offset is None:
            self._offset = server - (sent + received) // 2
            return
        low, high = server - received, server - sent
        self._offset = min(max(self._offset, low), high)

    @staticmethod
    def instant() -> int:
        """Microseconds of this process's steady clock."""
        return time.monotonic_ns() // 1000
