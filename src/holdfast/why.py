"""`why`: what a run waits for, in plain sentences.

`explain` is a pure function of what was read: the run's row, what its log means, its end, and the workers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from .events import ENDS, ChildState, Event, RunState, StepState, fold
from .phrases import ago, clean, due, error_line, instant, quoted, span
from .store.base import Store
from .store.rows import Head, WorkerRow

_PAGE = 500
_CHILDREN = 20
"""How many child runs are looked at one by one."""

_REMEDIES = {
    "diverged": "bring back code that fits its log, or let the change through for old runs with "
    'hf.patched("…"); then restart a worker, or `holdfast wake {run}`',
    "runaway": "mend the code that does not come back (long work belongs into a step), restart the worker, "
    "then `holdfast wake {run}`",
    "sealed": "start the worker with HOLDFAST_KEYS naming the key file that opens it; a worker that starts "
    "takes it up by itself",
    "broken": "see the worker's log for the cause; then `holdfast wake {run}` to try again",
}
_NOTHING = (
    "It waits for nothing that its log tells: neither a step, a child run, a hook nor a timer is open. "
    "Does its code await something that nothing sets?"
)


class Reason(msgspec.Struct, frozen=True):
    """One sentence, its kind (ended, parked, step, retry, child, hook, timer, worker), and what it is about."""

    kind: str
    text: str
    about: dict[str, Any] = {}


class Seen(msgspec.Struct, frozen=True):
    """All that a reason is derived from, read at `now` (microseconds since 1970)."""

    head: Head
    state: RunState
    end: Event | None
    workers: Sequence[WorkerRow]
    now: int
    children: Mapping[str, Head] = {}
    """The rows of the child runs that it waits for, by id; those that are there."""


async def look(store: Store, head: Head) -> Seen:
    """Read all that the reasons of a run are derived from; its log page by page."""
    return await seen(store, head, *await read_log(store, head.run))


async def seen(store: Store, head: Head, state: RunState, end: Event | None) -> Seen:
    """The same for those who know what the log means."""
    waited_for = [c.run for c in state.children.values() if c.ended is None and head.ended is None]
    rows = [await store.head(child) for child in waited_for[:_CHILDREN]]
    children = {row.run: row for row in rows if row is not None}
    return Seen(head, state, end, await store.workers(), store.clock.now(), children)


async def read_log(
    store: Store, run_id: str, see: Callable[[Event], None] | None = None
) -> tuple[RunState, Event | None]:
    """What a run's log means, and the event that ended it. `see` is shown each event on the way."""
    state, end, after = RunState(run_id), None, 0
    while page := await store.read(run_id, after, _PAGE):
        fold(page, state)
        for event in page:
            if event.type in ENDS and end is None:
                end = event
            if see is not None:
                see(event)
        after = page[-1].position
    return state, end


def explain(seen: Seen) -> Iterator[Reason]:
    """The reasons, the weightiest first; there is always one at least."""
    if seen.head.ended is not None:
        yield _ended(seen)
        return
    if seen.head.parked is not None:
        yield _parked(seen)
        return
    waits = list(_waits(seen))
    yield from waits
    yield from _about_workers(seen, waiting=bool(waits))


# ---- ended and parked --------------------------------------------------------------------------------------


def _ended(seen: Seen) -> Reason:
    head, run = seen.head, clean(seen.head.run)
    content = seen.end.data if seen.end is not None else {}
    assert head.ended is not None
    when = f"{ago(head.ended, seen.now)}, after {span(head.ended - head.created)}"
    reason = clean(content.get("reason") or "")
    if head.status == "failed":
        text = f"It failed {when}: {error_line(content.get('error') or {})}."
        if content.get("by"):
            text += " Holdfast ended it, not its code."
        text += f" `holdfast show {run}` has the traceback."
    elif head.status == "cancelled":
        how = "was terminated" if content.get("by") == "terminate" else "was cancelled"
        text = f"It {how} {when}" + (f": {reason}." if reason else ".")
    elif seen.state.continued:
        text = f"It went on as `{clean(seen.state.continued)}` {when}."
    else:
        text = f"It completed {when}."
    lost = seen.state.unread
    if lost:
        text += f" {lost} payload{'s were' if lost > 1 else ' was'} not read."
    return Reason("ended", text, {"status": head.status})


def _parked(seen: Seen) -> Reason:
    reason = json.loads(seen.head.parked or "{}")
    kind, message = str(reason.get("kind", "?")), str(reason.get("message", ""))
    remedy = _REMEDIES.get(kind, "`holdfast wake {run}` lets it try again").format(run=seen.head.run)
    text = f"It is parked ({kind}): {message}. To go on: {remedy}."
    return Reason("parked", clean(text), {"parked": reason, "remedy": remedy})


# ---- waiting -----------------------------------------------------------------------------------------------


def _waits(seen: Seen) -> Iterator[Reason]:
    for step in seen.state.steps.values():
        if step.open:
            yield _step(seen, step)
    for child in seen.state.children.values():
        if child.ended is None:
            yield _child(seen, child)
    for hook in seen.state.hooks.values():
        if hook.status == "open":
            token = clean(hook.token)
            had = f", had {hook.received} payload{'s' if hook.received > 1 else ''}" if hook.received else ""
            text = (
                f"Its hook {token} is open ({ago(hook.opened, seen.now)}{had}): "
                f"`holdfast resume {quoted(hook.token)} JSON` sends a payload."
            )
            yield Reason("hook", text, {"token": hook.token, "received": hook.received})
    for timer in seen.state.timers.values():
        if timer.status == "pending":
            when = f"{due(timer.due, seen.now)} ({instant(timer.due)})"
            how = "is due" if timer.due > seen.now else "is"
            text = f"Its timer {timer.key} {how} {when}."
            yield Reason("timer", text, {"timer": timer.key, "due": timer.due})


def _step(seen: Seen, step: StepState) -> Reason:
    key = clean(step.key)
    about = {"step": step.key, "attempt": step.attempt}
    if step.status == "waiting" and step.due is not None:
        text = f"Its step {key} is tried again {due(step.due, seen.now)} (attempt {step.attempt + 1})"
        if step.error:
            text += f"; the last error was {error_line(step.error)}"
        return Reason("retry", f"{text}.", {**about, "due": step.due, "error": step.error})
    if step.status == "running":
        worker = step.worker or "?"
        text = f"Its step {key} runs (attempt {step.attempt}) on {_worker(seen, worker)}"
        if step.started is not None:
            text += f"; it began {ago(step.started, seen.now)}"
        if step.error:
            text += f"; the error before was {error_line(step.error)}"
        return Reason("step", f"{text}.", {**about, "worker": worker})
    return Reason("step", f"Its step {key} is scheduled and has not begun.", about)


def _child(seen: Seen, child: ChildState) -> Reason:
    run, workflow = clean(child.run), clean(child.workflow)
    about = {"child": child.run, "workflow": child.workflow, "status": child.status}
    row = seen.children.get(child.run)
    text = f"Its child run {run} ({workflow})"
    if row is None:
        text += f" is {'to be started' if len(seen.children) < _CHILDREN else 'open'}"
    elif row.parked is not None:
        text += " is parked"
    else:
        word = "has not begun" if row.status == "pending" else f"is {row.status}"
        text += f" {word}, started {ago(row.created, seen.now)}"
    if child.status == "cancelling":
        text += "; nobody waits for it any more, it is asked to cancel"
    return Reason("child", f"{text}: `holdfast why {quoted(child.run)}`.", about)


def _worker(seen: Seen, worker_id: str) -> str:
    for row in seen.workers:
        if row.id == worker_id:
            late = ", which has given no sign of life for a while" if not row.alive(seen.now) else ""
            return f"worker {worker_id} (process {row.pid} on {clean(row.host)}){late}"
    return f"worker {worker_id}, which is gone"


def _about_workers(seen: Seen, *, waiting: bool) -> Iterator[Reason]:
    head, workflow = seen.head, clean(seen.head.workflow)
    if head.owner is not None:
        if not waiting and head.fact > head.delivered:
            yield Reason("worker", f"Its code is at work on {_worker(seen, head.owner)}.")
        elif not waiting:
            yield Reason("worker", _NOTHING)
        elif all(row.id != head.owner for row in seen.workers):
            text = f"Worker {head.owner}, which had it, is gone: another worker will take it up."
            yield Reason("worker", text)
        return
    if head.status != "pending" and not head.ready:
        if not waiting:
            yield Reason("worker", _NOTHING)
        return
    alive = [row for row in seen.workers if row.alive(seen.now)]
    start = "It has not begun" if head.status == "pending" else "It could go on"
    if not alive:
        text = f"{start}, and no worker is up: `holdfast worker MODULE`, with the module of {workflow}."
    else:
        up = f"{len(alive)} worker{'s are' if len(alive) > 1 else ' is'} up"
        text = f"{start}, but no worker has it: {up}, perhaps without the code of {workflow}."
    yield Reason("worker", text, {"workers": [row.id for row in alive]})
