"""Queues in SQLite: taking steps and putting them back, inside a group's transaction (`store/queued.py`)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import apsw

from holdfast.errors import LeaseLost
from holdfast.events import dump_json
from holdfast.queues import Queue
from holdfast.store.messages import SOME_QUEUE, News
from holdfast.store.queued import Look, Taken, Usage, Waiting, answered, choose

from .connect import SQL


def take(
    db: apsw.Connection, worker: str, queues: Sequence[Queue], steps: Sequence[str], room: int, now: int
) -> Taken:
    """Choose what a worker may begin, and mark it as held."""
    if not _rows(db, "worker", worker):
        raise LeaseLost(f"worker {worker} is not enlisted, or was declared dead")
    taken = Taken()
    for queue in queues:
        look = _look(db, queue.name, steps, now)
        got = answered(choose(queue, _usage(db, queue, now), room - len(taken.steps), now), look)
        db.executemany(SQL["hold_step"], [(worker, step.run, step.key) for step in got.steps]).fetchall()
        if queue.rate is not None:
            db.executemany(SQL["add_start"], [(queue.name, now) for _ in got.steps]).fetchall()
        taken = taken.plus(got, _rows(db, "next_retry", queue.name, now)[0][0])
    return taken


def put_back(db: apsw.Connection, worker: str, steps: Iterable[tuple[str, str]]) -> list[News]:
    """Give up steps that were taken and not begun."""
    rows: list[Any] = db.executemany(SQL["put_back_step"], [(worker, *step) for step in steps]).fetchall()
    return [SOME_QUEUE] if rows else []


def put_back_all(db: apsw.Connection, worker: str) -> list[News]:
    """What a worker has taken that is gone waits again."""
    return [SOME_QUEUE] if _rows(db, "put_back_steps", worker) else []


def _usage(db: apsw.Connection, queue: Queue, now: int) -> Usage:
    usage = Usage(dict(_rows(db, "running", queue.name)))
    if queue.rate is not None:
        since = now - round(queue.rate[1] * 1e6)
        _rows(db, "drop_starts", queue.name, since)
        usage.starts = [time for (time,) in _rows(db, "starts", queue.name, since)]
    return usage


def _look(db: apsw.Connection, queue: str, steps: Sequence[str], now: int) -> Look:
    names = dump_json(list(steps)).decode()

    def look(full: Collection[str], limit: int) -> list[Waiting]:
        values = {"queue": queue, "now": now, "names": names, "limit": limit}
        values["full"] = dump_json(sorted(full)).decode()
        rows: list[Any] = db.execute(SQL["waiting"], values).fetchall()
        return [Waiting(*row) for row in rows]

    return look


def _rows(db: apsw.Connection, query: str, *values: Any) -> list[Any]:
    return db.execute(SQL[query], values).fetchall()
