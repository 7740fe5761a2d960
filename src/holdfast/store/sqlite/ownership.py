"""Who works on what, as writes inside a group's transaction.

None of this is history: it saves work and decides nothing (law L4 does). Each function returns what others
may want to hear: the runs that are free now and have something to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import apsw

from holdfast.errors import LeaseLost, RunNotFound
from holdfast.events import dump_json
from holdfast.store.messages import News
from holdfast.store.rows import Claim, WorkerRow

from .connect import SQL


def enlist(db: apsw.Connection, worker: WorkerRow, *, known: bool) -> None:
    """Add a worker, or move its lease on; one that was here before must still be."""
    counters = dump_json(worker.counters).decode()
    if known:
        db.execute(SQL["renew_worker"], (worker.id, worker.expires, counters)).fetchall()
        if db.changes() != 1:
            raise LeaseLost(f"worker {worker.id} was declared dead: its runs belong to others now")
        return
    values = (worker.id, worker.pid, worker.host, worker.expires, counters)
    db.execute(SQL["put_worker"], values).fetchall()


def discharge(db: apsw.Connection, worker: str) -> list[News]:
    """Remove a worker and free its runs."""
    db.execute(SQL["drop_worker"], (worker,)).fetchall()
    return _freed(db.execute(SQL["free_runs"], (worker,)))


def claim(
    db: apsw.Connection, worker: str, workflows: Sequence[str], limit: int, *, parked: bool
) -> list[Claim]:
    """Give a worker free runs."""
    if not db.execute(SQL["worker"], (worker,)).fetchall():
        raise LeaseLost(f"worker {worker} is not enlisted, or was declared dead")
    query = SQL["claim_parked" if parked else "claim"]
    names = dump_json(list(workflows)).decode()
    rows: list[Any] = sorted(db.execute(query, (worker, names, limit)).fetchall())
    return [Claim(run, workflow, due, bool(ready), crashes) for _, run, workflow, ready, due, crashes in rows]


def release(db: apsw.Connection, worker: str, marks: Mapping[str, int]) -> list[News]:
    """Free runs of a worker, with what it delivered."""
    values = [(worker, run, mark) for run, mark in marks.items()]
    return _freed(db.executemany(SQL["release"], values))


def park(db: apsw.Connection, run: str, reason: str | None) -> list[News]:
    """Set a run aside, or take it up again; one that has ended stays as it is."""
    rows = db.execute(SQL["park"], (run, reason)).fetchall()
    if not rows and not db.execute(SQL["head"], (run,)).fetchall():
        raise RunNotFound(f"no run {run!r} in this store")
    return _freed(rows)


def bury_orphan(db: apsw.Connection, run: str, key: str) -> None:
    """A child whose parent has ended has been seen to."""
    db.execute(SQL["bury_orphan"], (run, key)).fetchall()


def crashed(db: apsw.Connection, run: str) -> int:
    """Count one more crash of a run's tick."""
    rows: list[Any] = db.execute(SQL["crashed"], (run,)).fetchall()
    if not rows:
        raise RunNotFound(f"no run {run!r} in this store")
    return int(rows[0][0])


def _freed(rows: Iterable[Any]) -> list[News]:
    return [News(run, None, False, False, True) for run, ready in list(rows) if ready]
