"""Who works on what: claims, leases, parking.

None of this is history: it saves work and decides nothing (law L4 does). What others want to hear, runs that
are free now and have something to do, the statements tell themselves when they commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from holdfast.errors import LeaseLost, RunNotFound
from holdfast.events import dump_json
from holdfast.store.rows import Claim, WorkerRow

from .connect import SQL, Connection, Line
from .lookups import lock_number
from .queues import put_back_all
from .text import escape, unescape

_LOOKS = (0, 0, 0.002, 0.01, 0.05, 0.1, 0.2, 0.4)
"""Seconds before each look for free runs of one claim; nearly always the second finds that there is none."""

_SOON = 0.05
"""What has been given is not kept waiting for longer looks than this."""


async def enlist(line: Line, worker: WorkerRow, *, known: bool) -> None:
    """Add a worker, or move its lease on; one that was here before must still be."""
    id, counters = escape(worker.id), dump_json(worker.counters).decode()
    if not known:
        await line.fetch("put_worker", id, worker.pid, escape(worker.host), worker.expires, counters)
    elif not await line.fetch("renew_worker", id, worker.expires, counters):
        raise LeaseLost(f"worker {worker.id} was declared dead: its runs belong to others now")


async def discharge(line: Line, worker: str) -> None:
    """Remove a worker and free its runs."""

    async def work(db: Connection) -> None:
        await db.execute(SQL["begin"])
        await db.fetch(SQL["drop_worker"], escape(worker))
        await db.fetch(SQL["free_runs"], escape(worker))
        await put_back_all(db, worker)
        await db.execute(SQL["commit"])

    await line.run(work)


async def claim(
    line: Line, worker: str, workflows: Sequence[str], limit: int, *, parked: bool
) -> list[Claim]:
    """Give a worker free runs. A lost answer is a StoreError: what it was given is unknown.

    Runs whose rows somebody holds are left out, and looked at again in a moment: he may write nothing (a second
    creator who comes too late), and then his commit tells of nothing.
    """
    taken: list[Claim] = []
    for pause in _LOOKS:
        if taken and pause > _SOON:
            break
        await asyncio.sleep(pause)
        claims, more = await _claim(line, worker, workflows, limit - len(taken), parked=parked)
        taken += claims
        if not more:
            break
    return taken


async def _claim(
    line: Line, worker: str, workflows: Sequence[str], limit: int, *, parked: bool
) -> tuple[list[Claim], bool]:
    """The same once, and whether there may be more that are free."""
    id, names = escape(worker), [escape(name) for name in workflows]

    async def work(db: Connection) -> tuple[list[Claim], bool]:
        if not parked:
            enlisted, free = (await db.fetch(SQL["any_free"], id, names))[0]
            if enlisted and not free:
                return [], False
        await db.execute(SQL["begin"])
        await db.fetch(SQL["lock_claims"], lock_number("claims"))
        if not await db.fetch(SQL["hold_worker"], id):
            raise LeaseLost(f"worker {worker} is not enlisted, or was declared dead")
        rows = await db.fetch(SQL["claim_parked" if parked else "claim"], id, names, limit)
        await db.execute(SQL["commit"])
        claims = [
            Claim(unescape(run), unescape(workflow), due, ready, crashes)
            for _, run, workflow, ready, due, crashes in sorted(rows, key=lambda row: row[0])
        ]
        return claims, not parked and len(claims) < limit

    return await line.run(work, resend=False)


async def release(line: Line, worker: str, marks: Mapping[str, int]) -> None:
    """Free runs of a worker, with what it delivered."""
    if marks:
        await line.fetch("release", escape(worker), [escape(run) for run in marks], list(marks.values()))


async def park(line: Line, run: str, reason: str | None) -> None:
    """Set a run aside, or take it up again; one that has ended stays as it is."""
    await line.fetch("park", escape(run), reason)
    if not await line.fetch("heads", [escape(run)]):
        raise RunNotFound(f"no run {run!r} in this store")


async def crashed(line: Line, run: str) -> int:
    """Count one more crash of a run's tick."""
    rows = await line.fetch("crashed", escape(run))
    if not rows:
        raise RunNotFound(f"no run {run!r} in this store")
    return int(rows[0][0])
