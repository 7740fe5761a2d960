"""When a schedule is due: cron expressions in a time zone, through its changes of clock.

A schedule speaks of the clock on the wall, and each of its due times is one instant (microseconds, UTC):

- a time that the wall never shows, for the clock jumps over it, is due at the first instant after the jump;
- a time that it shows twice is due the first time only;
- an expression whose hour, minute or second begins with `*` speaks of each hour (minute, second) that passes: it
  is due in both hours where one comes twice, and in none where there is none;
- two due times that a jump brings together are one.

That is what Debian's cron does. The calendar, and the steps from minute to minute, are `cronsim`'s: typed, small,
without dependencies. Rejected: `croniter`, whose due times around a change of the clock depend on where one
begins to count; `cronsim`'s own rule for times of day, which leaves out expressions with seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Literal, get_args

import msgspec

from .clock import from_datetime, to_datetime
from .errors import DefinitionError

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

Missed = Literal["latest", "all", "none"]
"""What becomes of due times that nobody saw to."""
ON_TIME = 60_000_000
"""Microseconds after which a due time that nobody has seen to is a missed one."""
_HOUR, _DAY = 3_600_000_000, 86_400_000_000


class Schedule(msgspec.Struct, frozen=True):
    """When runs of a workflow are started: a cron expression, and the time zone that it speaks of.

    Five fields (minute, hour, day of month, month, day of week), or six with the second in front. `missed` says
    which due times are seen to that are over a minute old: the latest one, all, or none.
    """

    cron: str
    timezone: str = "UTC"
    missed: Missed = "latest"

    def check(self, where: str) -> None:
        """Raise DefinitionError for what is no schedule, or one that is never due."""
        from cronsim import CronSimError

        if not isinstance(self.cron, str) or not 5 <= len(self.cron.split()) <= 6:
            raise DefinitionError(
                f"{where}: expected a cron expression of 5 or 6 fields such as '0 9 * * *', got {self.cron!r}"
            )
        if self.missed not in get_args(Missed):
            raise DefinitionError(
                f"{where}: expected missed to be one of {', '.join(get_args(Missed))}, got {self.missed!r}"
            )
        try:
            self._zone()
        except (LookupError, ValueError, OSError, TypeError):
            raise DefinitionError(
                f"{where}: expected a time zone such as 'Europe/Berlin', got {self.timezone!r} "
                "(where the system knows none, `pip install tzdata`)"
            ) from None
        try:
            never = self.next(0) is None
        except (CronSimError, AssertionError) as error:
            raise DefinitionError(
                f"{where}: expected a cron expression such as '0 9 * * *', got {self.cron!r} ({error})"
            ) from None
        if never:
            raise DefinitionError(f"{where}: the schedule {self.cron!r} is never due")

    def after(self, since: int) -> Iterator[int]:
        """The due times behind an instant, in order, each once."""
        last = since
        for when in self._walk(to_datetime(since).astimezone(self._zone())):
            due = from_datetime(when)
            if due > last:
                last = due
                yield due

    def _walk(self, begin: datetime) -> Iterator[datetime]:
        from cronsim import CronSim

        *second, minute, hour, _, _, _ = self.cron.split()
        if any(field.startswith("*") for field in (*second, minute, hour)):
            return CronSim(self.cron, begin)
        return (_shown(local, begin) for local in CronSim(self.cron, begin.replace(tzinfo=None)))

    def next(self, since: int) -> int | None:
        """The first due time behind an instant, or None."""
        return next(self.after(since), None)

    def last(self, since: int, until: int) -> int | None:
        """The last due time in (since, until], or None; cheap also where there are millions."""
        for span in (_HOUR, _DAY, 32 * _DAY, 366 * _DAY):
            found = self._last(max(since, until - span), until)
            if found is not None or until - span <= since:
                return found
        return self._last(since, until)

    def owed(self, since: int, now: int, limit: int) -> tuple[list[int], int | None]:
        """The due times of (since, now] whose runs are to be started, and up to where that sees to them.

        At most `limit` of them, the oldest first; the second is None where none was due.
        """
        last = self.last(since, now)
        if last is None:
            return [], None
        begin = since if self.missed == "all" else max(since, now - ON_TIME - 1)
        dues = list(islice(self._between(begin, now), limit))
        if self.missed == "latest" and not dues:
            dues = [last]
        return dues, dues[-1] if len(dues) == limit else last

    def _between(self, since: int, until: int) -> Iterator[int]:
        for due in self.after(since):
            if due > until:
                return
            yield due

    def _last(self, since: int, until: int) -> int | None:
        newest = deque(self._between(since, until), maxlen=1)
        return newest[0] if newest else None

    def _zone(self) -> ZoneInfo:
        from zoneinfo import ZoneInfo

        return ZoneInfo(self.timezone)


def _shown(local: datetime, zone_of: datetime) -> datetime:
    """The first instant at which the wall shows this time, or has just jumped over it."""
    while True:
        when = local.replace(tzinfo=zone_of.tzinfo)
        if when.astimezone(UTC).astimezone(zone_of.tzinfo).replace(tzinfo=None) == local:
            return when
        local = local.replace(second=0) + timedelta(minutes=1)
