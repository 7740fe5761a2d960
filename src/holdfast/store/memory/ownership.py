"""Who works on what, as changes under the lock; each function returns the news for others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from holdfast.errors import LeaseLost, RunNotFound
from holdfast.events import load_json
from holdfast.store.messages import SOME_QUEUE, News
from holdfast.store.rows import (
    Claim,
    Head,
    ScheduleRow,
    WorkerRow,
)

from .data import Data, Run
from .queues import Queues


def enlist(data: Data, worker: WorkerRow, *, known: bool) -> None:
    """Add a worker, or move its lease on; one that was here before must still be."""
    if known and worker.id not in data.workers:
        raise LeaseLost(f"worker {worker.id} was declared dead: its runs belong to others now")
    data.workers[worker.id] = worker


def discharge(data: Data, queues: Queues, worker: str) -> list[News]:
    """Remove a worker and free its runs."""
    data.workers.pop(worker, None)
    heads = [run.head for run in data.runs.values() if run.head.owner == worker]
    for head in heads:
        head.owner = None
    held = [(step.run, step.key) for step in queues.held(worker)]
    return _freed(heads) + [SOME_QUEUE] * queues.put_back(worker, held)


def claim(data: Data, worker: str, workflows: Sequence[str], limit: int, *, parked: bool) -> list[Claim]:
    """Give a worker free runs."""
    if worker not in data.workers:
        raise LeaseLost(f"worker {worker} is not enlisted, or was declared dead")
    claims: list[Claim] = []
    for run in data.runs.values():
        head = run.head
        if len(claims) >= limit:
            break
        wanted_now = _to_take_up(head) if parked else head.ready
        if head.owner is None and head.workflow in workflows and wanted_now:
            head.owner = worker
            if parked:
                head.parked = None
            claims.append(claim_of(run, ready=parked or head.to_load))
    return claims


def release(data: Data, worker: str, marks: Mapping[str, int]) -> list[News]:
    """Free runs of a worker, with what it delivered."""
    runs = [data.runs[run_id] for run_id in marks if run_id in data.runs]
    heads = [run.head for run in runs if run.head.owner == worker]
    for head in heads:
        head.owner = None
        head.delivered = max(head.delivered, marks[head.run])
    return _freed(heads)


def park(data: Data, run_id: str, reason: str | None) -> list[News]:
    """Set a run aside, or take it up again; one that has ended stays as it is."""
    run = _run(data, run_id)
    if run.head.ended is None:
        run.head.parked, run.head.owner = reason, None
        run.head.crashes = 0
    return _freed([run.head])


def crashed(data: Data, run_id: str) -> int:
    """Count one more crash of a tick."""
    run = _run(data, run_id)
    run.head.crashes += 1
    return run.head.crashes


def bury_orphan(data: Data, run_id: str, key: str) -> None:
    """Forget an orphan."""
    run = data.orphaned.get(run_id)
    if run is not None:
        run.children.pop(key, None)
        if not run.children:
            del data.orphaned[run_id]


def swap_schedule(data: Data, was: ScheduleRow | None, now: ScheduleRow | None) -> bool:
    """Put one row in the place of another, if that one stands there."""
    either = was or now
    if either is None or data.schedules.get(either.workflow) != was:
        return False
    if was is not None and now is not None and now.workflow != was.workflow:
        return False
    if now is None:
        del data.schedules[either.workflow]
    else:
        data.schedules[now.workflow] = now
    return True


def claim_of(run: Run, *, ready: bool) -> Claim:
    """A run as a worker is given it."""
    due = min(run.timers.values(), default=None)
    return Claim(run.head.run, run.head.workflow, due, ready, run.head.crashes)


def _run(data: Data, run_id: str) -> Run:
    run = data.runs.get(run_id)
    if run is None:
        raise RunNotFound(f"no run {run_id!r} in this store")
    return run


def _to_take_up(head: Head) -> bool:
    """Parked, and not for killing or blocking its workers."""
    if head.parked is None or head.ended is not None:
        return False
    return bool(load_json(head.parked.encode()).get("kind") != "runaway")


def _freed(heads: Sequence[Head]) -> list[News]:
    """What others may want to hear: runs that are free now and have something to do."""
    return [News(head.run, None, False, False, True) for head in heads if head.ready]
