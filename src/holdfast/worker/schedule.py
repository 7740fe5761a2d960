"""What a worker does for schedules: it starts a run at each due time, as every worker that has the code does.

What it guarantees: each due time has one run, or none where `missed` says so, whoever dies in between. It rests on
two things, and on no worker being the chosen one:

- a run's id is made of the workflow and the due time, and a run is created once under its id (law L1);
- the store's row says up to where due times were seen to (`since`). It is moved on behind the runs, and only from
  what it was when the due times were computed: whoever dies before it is moved leaves them to the others, who find
  the runs there.

The row, not the code, says what is due: while old and new workers run side by side there is one schedule. A worker
that starts with another one sees to what the old one owes, and then puts its own in its place, from now on.

Rejected: a leader (to be elected, missed and replaced, where creating a run is exclusive already); a timer that
each run starts for the next one (a failed run, or one that was terminated, would be the last).
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from .. import faults, ids
from ..clock import to_datetime
from ..errors import DefinitionError, HoldfastError, StaleLog
from ..events import Draft, new
from ..schedules import Schedule
from ..store.rows import ScheduleRow
from ..workflow import Workflow

if TYPE_CHECKING:
    from .worker import Worker

log = logging.getLogger("holdfast.worker")
_PAGE = 100
"""Due times that are seen to before the row is moved on."""
_RETRY = 1_000_000
"""Microseconds until what the store could not do is tried again."""


class Scheduling:
    """The schedules that the code of one worker declares."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._looking = False
        self._look_again = False

    def declared(self) -> dict[str, Workflow[..., Any]]:
        """The workflows of this worker that have a schedule, by name."""
        found = (self._worker.definition(name) for name in self._worker.workflow_names())
        return {each.name: each for each in found if each is not None and each.schedule is not None}

    async def start(self) -> None:
        """Tell the store what this worker's code declares; what the schedules before it owe is seen to first."""
        for name, workflow in self.declared().items():
            assert workflow.schedule is not None
            while not await self._declare(workflow, workflow.schedule, (await self._rows()).get(name)):
                pass
        await self.look()

    def look_soon(self) -> None:
        """Something may be due."""
        if self._looking:
            self._look_again = True
        elif not self._worker.stopping:
            self._looking = True
            self._worker.spawn(self._look_now())

    async def _look_now(self) -> None:
        try:
            while True:
                self._look_again = False
                await self.look()
                if not self._look_again:
                    return
        except HoldfastError as error:
            log.warning("cannot see to schedules, trying again in %g s: %s", _RETRY / 1e6, error)
            self._worker.agenda.add(self._worker.clock.now() + _RETRY, "", "schedules")
        finally:
            self._looking = False

    async def look(self) -> None:
        """Start what is due, and wake up for what is due next. Raises StoreError."""
        declared = self.declared()
        if not declared:
            return
        worker = self._worker
        rows = await self._rows()
        alive = {row.id for row in await worker.store.workers()}
        nexts = []
        for name, workflow in declared.items():
            row = rows.get(name)
            if row is not None and row.keeper not in alive:
                kept = msgspec.structs.replace(row, keeper=worker.id)
                row = kept if await worker.store.swap_schedule(row, kept) else (await self._rows()).get(name)
            if row is None or row.paused or not _known(row):
                continue
            due = await self._see_to(workflow, row)
            if due is not None:
                nexts.append(due)
        if nexts:
            worker.agenda.add(min(nexts), "", "schedules")

    async def _rows(self) -> Mapping[str, ScheduleRow]:
        return {row.workflow: row for row in await self._worker.store.schedules()}

    async def _declare(
        self, workflow: Workflow[..., Any], schedule: Schedule, row: ScheduleRow | None
    ) -> bool:
        """Put the code's schedule into the store; False where somebody else changed the row meanwhile."""
        worker = self._worker
        if row is not None and row.schedule == schedule:
            return row.keeper == worker.id or await worker.store.swap_schedule(
                row, msgspec.structs.replace(row, keeper=worker.id)
            )
        if row is not None and _known(row) and await self._start_owed(workflow, row) is not None:
            return False  # the row was moved on: read it again
        mine = ScheduleRow(
            workflow.name,
            schedule.cron,
            schedule.timezone,
            schedule.missed,
            worker.clock.now(),
            row is not None and row.paused,
            worker.id,
        )
        return await worker.store.swap_schedule(row, mine)

    async def _see_to(self, workflow: Workflow[..., Any], row: ScheduleRow) -> int | None:
        """Start what a schedule owes; when it is due next."""
        while (moved := await self._start_owed(workflow, row)) is not None:
            row = moved
        return row.schedule.next(row.since)

    async def _start_owed(self, workflow: Workflow[..., Any], row: ScheduleRow) -> ScheduleRow | None:
        """Start the runs of a page of due times; the row as it is then, or None where nothing was due."""
        worker = self._worker
        if row.paused or worker.stopping:
            return None
        dues, since = row.schedule.owed(row.since, worker.clock.now(), _PAGE)
        if since is None:
            return None
        for due in dues:
            faults.point("worker.schedule.due")
            await self._start_run(workflow, due)
            faults.point("worker.schedule.started")
        moved = msgspec.structs.replace(row, since=since)
        if await worker.store.swap_schedule(row, moved):
            return moved
        return (await self._rows()).get(row.workflow)

    async def _start_run(self, workflow: Workflow[..., Any], due: int) -> None:
        run_id = run_id_of(workflow.name, due)
        try:
            await self._worker.store.append(run_id, [creation(workflow, due)], after=0)
        except StaleLog as error:
            there = error.missed[0].data.get("workflow")
            if there != workflow.name:
                log.error("%s: a run of %s has this id, so this due time gets none of its own", run_id, there)


def _known(row: ScheduleRow) -> bool:
    """Whether this process can tell when it is due: one that knows more time zones may have written it."""
    try:
        row.schedule.check(row.workflow)
    except DefinitionError as error:
        log.error("the schedule in the store is not followed here: %s", error)
        return False
    return True


def run_id_of(workflow: str, due: int) -> str:
    """The id of the run of one due time: 'report@2026-01-31T08:00:00Z'."""
    return f"{workflow}@{to_datetime(due):%Y-%m-%dT%H:%M:%SZ}"


def creation(workflow: Workflow[..., Any], due: int) -> Draft:
    """The first event of a scheduled run."""
    data: dict[str, Any] = {
        "workflow": workflow.name,
        "args": {},
        "seed": ids.seed(),
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "due": due,
    }
    if workflow.version is not None:
        data["version"] = workflow.version
    return new("run_created", data=data)
