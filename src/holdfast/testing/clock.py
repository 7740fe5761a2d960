"""A clock that stands still until a test moves it."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from ..clock import from_datetime, to_datetime

_START = datetime(2026, 1, 1, tzinfo=UTC)


class ManualAlarm:
    """What `ManualClock.alarm` returns."""

    __slots__ = ("callback", "due", "loop", "off")

    def __init__(self, due: int, callback: Callable[[], object], loop: asyncio.AbstractEventLoop) -> None:
        self.due = due
        self.callback = callback
        self.loop = loop
        self.off = False

    def cancel(self) -> None:
        """Do not ring."""
        self.off = True

    def ring(self) -> None:
        """Call back, unless it was cancelled meanwhile."""
        if not self.off:
            self.off = True
            self.callback()


class ManualClock:
    """Time for tests: it moves when `advance` says so, or by itself when nothing happens (`autojump`).

    `autojump` is for how many real seconds nothing may have been asked of the clock until it jumps to its
    next alarm. A few milliseconds suit the store in memory; more, a store on disk.

    Example:
        clock = ManualClock()
        async with hf.connect("memory://", clock=clock) as app, app.worker():
            run = await app.start(remind_tomorrow)
            clock.advance(timedelta(days=1))
            await run.result(timeout=5)
    """

    def __init__(self, start: datetime = _START, *, autojump: float | None = None) -> None:
        self._now = from_datetime(start)
        self._autojump = autojump
        self._alarms: list[tuple[int, int, ManualAlarm]] = []
        self._count = 0
        self._quiet: asyncio.TimerHandle | None = None

    def now(self) -> int:
        """Microseconds since 1970, UTC."""
        return self._now

    @property
    def time(self) -> datetime:
        """The same as an aware datetime."""
        return to_datetime(self._now)

    @property
    def next_alarm(self) -> datetime | None:
        """When somebody wants to be called next, or None."""
        due = self._next_due()
        return None if due is None else to_datetime(due)

    def alarm(self, due: int, callback: Callable[[], object]) -> ManualAlarm:
        """Call back on the running loop when the clock has reached `due`, never before it."""
        alarm = ManualAlarm(due, callback, asyncio.get_running_loop())
        if due <= self._now:
            alarm.loop.call_soon(alarm.ring)
        else:
            self._count += 1
            heapq.heappush(self._alarms, (due, self._count, alarm))
            self._wait_for_quiet(alarm.loop)
        return alarm

    def advance(self, duration: float | timedelta) -> None:
        """Move the clock on; what is due by then is called on its loop, the earliest first.

        The callbacks run when the caller next awaits, and see the clock at its new time: a worker that wakes
        up late. Raises ValueError for a negative duration.
        """
        seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
        if seconds < 0:
            raise ValueError(f"time does not run backwards: expected 0 or more seconds, got {seconds:g}")
        self._move(self._now + round(seconds * 1e6))

    def jump(self) -> bool:
        """Move the clock to its next alarm; False where there is none."""
        due = self._next_due()
        if due is None:
            return False
        self._move(due)
        return True

    def _move(self, to: int) -> None:
        self._now = to
        while self._alarms and self._alarms[0][0] <= to:
            alarm = heapq.heappop(self._alarms)[2]
            if not alarm.off:
                alarm.loop.call_soon_threadsafe(alarm.ring)

    def _next_due(self) -> int | None:
        while self._alarms and (self._alarms[0][2].off or self._alarms[0][2].loop.is_closed()):
            heapq.heappop(self._alarms)
        return self._alarms[0][0] if self._alarms else None

    def _wait_for_quiet(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._autojump is None:
            return
        if self._quiet is not None:
            self._quiet.cancel()
        self._quiet = loop.call_later(self._autojump, self._is_quiet, loop)

    def _is_quiet(self, loop: asyncio.AbstractEventLoop) -> None:
        self._quiet = None
        self.jump()
        if self._next_due() is not None:
            self._wait_for_quiet(loop)
