"""Queues in PostgreSQL: taking steps and putting them back (`store/queued.py`).

Whoever takes from a queue holds the queue's name until the transaction ends, so that no two count at once. An
outcome that commits meanwhile frees a place that the count still sees as taken: one too few, never one too many.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.errors import LeaseLost
from holdfast.queues import Queue
from holdfast.store.messages import SOME_QUEUE
from holdfast.store.queued import Taken, Usage, Waiting, choose

from .connect import SQL, Connection, Line
from .hearing import as_payload
from .lookups import lock_number
from .text import escape, unescape, unescape_some


async def take(
    line: Line, worker: str, queues: Sequence[Queue], steps: Sequence[str], room: int, now: int
) -> Taken:
    """Choose what a worker may begin, and mark it as held. A lost answer is a StoreError: it is unknown then."""
    names = sorted(lock_number(f"queue {queue.name}") for queue in queues)

    async def work(db: Connection) -> Taken:
        await db.execute(SQL["begin"])
        await db.fetch(SQL["plan_anew"])
        await db.fetch(SQL["lock_tokens"], names)
        if not await db.fetch(SQL["hold_worker"], escape(worker)):
            raise LeaseLost(f"worker {worker} is not enlisted, or was declared dead")
        taken = Taken()
        for queue in queues:
            got = await _take_from(db, worker, queue, steps, room - len(taken.steps), now)
            taken = taken.plus(got, await db.fetchval(SQL["next_retry"], escape(queue.name), now))
        await db.execute(SQL["commit"])
        return taken

    return await line.run(work, resend=False)


async def _take_from(
    db: Connection, worker: str, queue: Queue, steps: Sequence[str], room: int, now: int
) -> Taken:
    name, known = escape(queue.name), [escape(step) for step in steps]
    choice = choose(queue, await _usage(db, queue, now), room, now)
    try:
        full, limit = next(choice)
        while True:
            keys = [escape(key) for key in full]
            rows = await db.fetch(SQL["waiting"], name, now, known, keys, limit)
            full, limit = choice.send([to_waiting(row) for row in rows])
    except StopIteration as end:
        got: Taken = end.value
    if got.steps:
        places = [escape(step.run) for step in got.steps], [escape(step.key) for step in got.steps]
        await db.fetch(SQL["hold_steps"], escape(worker), *places)
        if queue.rate is not None:
            await db.fetch(SQL["add_starts"], name, now, len(got.steps))
    return got


async def _usage(db: Connection, queue: Queue, now: int) -> Usage:
    name = escape(queue.name)
    usage = Usage({unescape_some(key): count for key, count in await db.fetch(SQL["running"], name)})
    if queue.rate is not None:
        since = now - round(queue.rate[1] * 1e6)
        await db.fetch(SQL["drop_starts"], name, since)
        usage.starts = [time for (time,) in await db.fetch(SQL["starts"], name, since)]
    return usage


async def put_back(line: Line, worker: str, steps: Sequence[tuple[str, str]]) -> None:
    """Give up steps that were taken and not begun."""
    runs, keys = [escape(run) for run, _ in steps], [escape(key) for _, key in steps]

    async def work(db: Connection) -> None:
        await db.execute(SQL["begin"])
        if await db.fetch(SQL["put_back"], escape(worker), runs, keys):
            await db.fetch(SQL["say"], as_payload([SOME_QUEUE]))
        await db.execute(SQL["commit"])

    await line.run(work)


async def put_back_all(db: Connection, worker: str) -> None:
    """What a worker has taken that is gone waits again; in the transaction that frees its runs."""
    if await db.fetch(SQL["put_back_all"], escape(worker)):
        await db.fetch(SQL["say"], as_payload([SOME_QUEUE]))


def to_waiting(row: Sequence[object]) -> Waiting:
    """A row of `waiting` or `held`."""
    run, key, attempt, due, limit_key, position = row
    return Waiting(unescape(run), unescape(key), attempt, due, unescape_some(limit_key), position)  # type: ignore[arg-type]
