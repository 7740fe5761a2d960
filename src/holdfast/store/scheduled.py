"""Schedules in backends that speak SQL: the statement that swaps one for another, and rows read back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from .rows import ScheduleRow


def swap(was: ScheduleRow | None, now: ScheduleRow | None) -> tuple[str, tuple[Any, ...]] | None:
    """The name of the statement and its values; it gives a row where it did something. None: nothing to do."""
    if was is None:
        return None if now is None else ("add_schedule", _values(now))
    if now is None:
        return "drop_schedule", _values(was)
    if now.workflow != was.workflow:
        return None
    return "change_schedule", (*_values(was), *_values(now)[1:])


def to_schedule(row: Sequence[Any]) -> ScheduleRow:
    """A row of `schedules`."""
    workflow, cron, timezone, missed, since, paused, keeper = row
    return ScheduleRow(workflow, cron, timezone, missed, since, bool(paused), keeper)


def _values(row: ScheduleRow) -> tuple[Any, ...]:
    return msgspec.structs.astuple(row)
