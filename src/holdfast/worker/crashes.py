"""Ticks that kill their worker or do not come back: counted, and their run parked where it happens too often.

Without it one run whose code ends the process would take down every worker, one after the other, for whoever dies
leaves it to the next.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .worker import Worker


class Crashes:
    """What one worker does about them; a run is parked at `limit` crashes in a row."""

    def __init__(self, worker: Worker, limit: int) -> None:
        self._worker = worker
        self.limit = limit

    async def judge(self, worker: str, run_id: str) -> None:
        """A worker died in a tick of this run: count it, and park the run where that has happened too often.

        Before the worker is discharged: a run that is free is taken by the next worker at once, and kills it.
        Where another machine was quicker (it learns of the death from the store's server, and cannot see the
        culprit), the run is somebody else's now: it is counted all the same, and the next one to get it parks it.
        """
        store = self._worker.store
        head = await store.head(run_id)
        if head is None or head.ended is not None or head.parked is not None:
            return
        count = await store.crashed(run_id)
        if count >= self.limit and head.owner in (worker, None):
            await self.park(run_id, count)

    async def park(self, run_id: str, count: int) -> None:
        """Set the run aside, with how many workers it has killed."""
        store = self._worker.store
        head = await store.head(run_id)
        if head is not None:
            message = f"its ticks killed {count} workers in a row; the last one at position {head.position}"
            self._worker.log.error("%s is parked: %s", run_id, message, extra={"run": run_id})
            await store.park(run_id, json.dumps({"kind": "runaway", "message": message}))
