"""Time, as an object that tests can replace. Only this module and `ids` read the wall clock.

Instants are integers: microseconds since 1970 in UTC. That is the precision at which the log stores them,
so what a live run sees and what a replay sees are the same number (law L8).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FIRST = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LAST = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND


class Alarm(Protocol):
    """What `Clock.alarm` returns."""

    def cancel(self) -> None:
        """Do not ring."""
        ...


class Clock(Protocol):
    """What the runtime asks for the time. `holdfast.testing.ManualClock` is the other one."""

    def now(self) -> int:
        """Microseconds since 1970, UTC."""
        ...

    def alarm(self, due: int, callback: Callable[[], object]) -> Alarm:
        """Call back on the running loop when the clock has reached `due`, never before it."""
        ...


class SystemClock:
    """The machine's clock."""

    __slots__ = ()

    def now(self) -> int:
        """Microseconds since 1970, UTC."""
        return time.time_ns() // 1000

    def alarm(self, due: int, callback: Callable[[], object]) -> Alarm:
        """Call back on the running loop when the clock has reached `due`."""
        import asyncio  # here, because most short commands read the clock and need no loop

        loop = asyncio.get_running_loop()
        # At most an hour ahead, so that a clock that was set meanwhile is looked at again.
        delay = min(max(0.0, (due - self.now()) / 1e6), 3600.0)
        return loop.call_later(delay, callback)


def to_datetime(micros: int) -> datetime:
    """An aware datetime (UTC), exact to the microsecond."""
    return _EPOCH + timedelta(microseconds=micros)


def from_datetime(when: datetime) -> int:
    """Microseconds since 1970 of an aware datetime. Raises ValueError for a naive one, or one too far off."""
    if when.tzinfo is None:
        raise ValueError(
            f"expected an aware datetime, got the naive {when!r}: add a time zone, "
            "for example datetime(..., tzinfo=timezone.utc)"
        )
    micros = (when - _EPOCH) // _MICROSECOND
    if not _FIRST <= micros <= _LAST:
        raise ValueError(f"expected a time of the years 1 to 9999 in UTC, got {when.isoformat()}")
    return micros


def to_text(micros: int) -> str:
    """RFC 3339 with microseconds and Z, as in exported events: '2026-01-31T09:00:00.000000Z'."""
    return to_datetime(micros).isoformat(timespec="microseconds")[:-6] + "Z"


def from_text(text: str) -> int:
    """The reverse of `to_text`; any offset and precision up to microseconds is accepted."""
    return from_datetime(datetime.fromisoformat(text))
