"""Schedules as a store has them: when one is due, what people may do with it, and its rows in SQL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from ..errors import DefinitionError
from .base import Store
from .rows import ScheduleRow


def dues(row: ScheduleRow) -> tuple[int | None, int | None]:
    """The last due time that was seen to, and the next one; neither where this machine cannot tell."""
    schedule = row.schedule
    try:
        schedule.check(row.workflow)
    except DefinitionError:
        return None, None
    last = row.since if schedule.next(row.since - 1) == row.since else None
    return last, None if row.paused else schedule.next(row.since)


async def keepers(store: Store) -> set[str]:
    """The workers whose leases run: a schedule that is kept by none of them is nobody's."""
    now = store.clock.now()
    return {worker.id for worker in await store.workers() if worker.alive(now)}


# ---- what people do with one


async def change(store: Store, workflow: str, act: str) -> bool:
    """Pause, resume or forget the schedule of a workflow; False where it has none.

    What was due while it was paused is not made up for. One that is forgotten comes back when a worker starts
    whose code has it.
    """
    while True:  # until nobody has changed it between the look and the change
        row = next((row for row in await store.schedules() if row.workflow == workflow), None)
        if row is None or await store.swap_schedule(row, ACTS[act](row, store.clock.now())):
            return row is not None


def _paused(row: ScheduleRow, _now: int) -> ScheduleRow:
    return msgspec.structs.replace(row, paused=True)


def _resumed(row: ScheduleRow, now: int) -> ScheduleRow:
    return msgspec.structs.replace(row, paused=False, since=max(now, row.since)) if row.paused else row


def _forgotten(_row: ScheduleRow, _now: int) -> None:
    return None


ACTS: dict[str, Callable[[ScheduleRow, int], ScheduleRow | None]] = {
    "pause": _paused,
    "resume": _resumed,
    "forget": _forgotten,
}


# ---- backends that speak SQL


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
