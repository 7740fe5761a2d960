"""The contract of the store, one operation for each of its methods: what workers behind the server use.

The bodies are the types of `store/http/wire/`. All of it is POST, for the ids of runs are any text, and a
path is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from starlette.responses import StreamingResponse

from ...chunks import Part, check_name
from ...codec import check_depth
from ...errors import HoldfastError, LeaseLost, PayloadError, RunNotFound
from ...events import load_json
from ...store.http.wire import problems, reading, working, writing
from ...store.http.wire.events import EventRow, event_rows
from ...store.removal import Removal
from ..refusal import Refused, status_of
from ..tokens import allows
from .appends import outcome, submit
from .operation import Call, operation

PAGE = 2000
"""Events of one answer; it says `more` where there are more."""
PAGE_BYTES = 8 * 1024 * 1024
HEARTBEAT = 15.0


# ---- appending ----------------------------------------------------------------------------------------------


@operation("POST", "/v1/store/write", scope="write", takes=writing.WriteGroup, gives=writing.Outcomes)
async def write(call: Call[writing.WriteGroup, None]) -> writing.Outcomes:
    """Append to several runs and streams at once, in one commit; each has its own outcome (laws L2–L5, L12)."""
    group = call.body
    # Each in a task of its own: so all of them are handed to the store in one turn of the loop.
    return writing.Outcomes(
        await asyncio.gather(
            *(_append(call, row) for row in group.appends),
            *(_write_chunks(call, row) for row in group.chunks),
        )
    )


async def _append(call: Call[Any, Any], row: writing.AppendRow) -> writing.Outcome:
    return outcome(await submit(call.service, call.caller, row), row)


async def _write_chunks(call: Call[Any, Any], row: writing.WriteStream) -> writing.Outcome:
    if not allows(call.caller.scope, "work"):
        refused = Refused(403, "access_denied", "the scope work is needed to write to a stream")
        return writing.Outcome(403, problem=refused.problem)
    parts = writing.parts_of(row)
    try:
        for part in parts:
            _check_part(part)
        check_name(row.name, "stream")
        written = await call.service.store.write_stream(
            row.run, row.name, parts, author=row.author, batch=row.batch, limit=row.limit
        )
    except HoldfastError as error:
        return writing.Outcome(status_of(error), problem=problems.problem_of(error))
    return writing.Outcome(200, written=written)


def _check_part(part: Part) -> None:
    """What the store takes as it is must be what readers can decode. Raises PayloadError."""
    try:
        if part.kind == "json":
            load_json(part.body)
            check_depth(part.body, "a chunk")
        elif part.kind == "text":
            part.body.decode("utf-8", "surrogatepass")
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"a chunk: expected {part.kind}: {error}") from None
    if part.kind == "end" and part.body:
        raise PayloadError("a chunk: an end mark has no body")


# ---- reading ------------------------------------------------------------------------------------------------


@operation("POST", "/v1/store/read", scope="read", takes=reading.ReadLog, gives=reading.LogPage)
async def read(call: Call[reading.ReadLog, None]) -> reading.LogPage:
    """The events of a run beyond a position, or the first of them (law L1)."""
    asked = call.body
    wanted = PAGE if asked.limit is None else max(0, min(asked.limit, PAGE))
    events = await call.service.store.read(asked.run, max(asked.after, 0), wanted)
    rows: list[EventRow] = []
    size = 0
    for row in event_rows(events):
        size += len(row.body)
        if rows and size > PAGE_BYTES:
            break
        rows.append(row)
    cut = len(rows) < len(events) or (len(rows) == PAGE and (asked.limit is None or asked.limit > PAGE))
    return reading.LogPage(rows, cut)


@operation("POST", "/v1/store/head", scope="read", takes=reading.OfRun, gives=reading.HeadOf)
async def head(call: Call[reading.OfRun, None]) -> reading.HeadOf:
    """A run's row."""
    return reading.HeadOf(await call.service.store.head(call.body.run))


@operation("POST", "/v1/store/runs", scope="read", takes=reading.ListRuns, gives=reading.Heads)
async def runs(call: Call[reading.ListRuns, None]) -> reading.Heads:
    """A page of runs, newest first."""
    asked = call.body
    before = None if asked.before is None else (asked.before.created, asked.before.run)
    return reading.Heads(await call.service.store.runs(asked.which, before=before, limit=asked.limit))


@operation("POST", "/v1/store/hooks", scope="read", takes=reading.ListHooks, gives=reading.Hooks)
async def hooks(call: Call[reading.ListHooks, None]) -> reading.Hooks:
    """A page of hooks by token and run."""
    after = call.body.after
    wanted = msgspec.structs.asdict(call.body)
    wanted["after"] = after and (after.token, after.run)
    return reading.Hooks(await call.service.store.hooks(**wanted))


@operation("POST", "/v1/store/timers", scope="read", takes=reading.ListTimers, gives=reading.Timers)
async def timers(call: Call[reading.ListTimers, None]) -> reading.Timers:
    """Pending timers, the earliest first."""
    return reading.Timers(await call.service.store.timers(run=call.body.run, limit=call.body.limit))


@operation("POST", "/v1/store/open_steps", scope="read", takes=reading.OfRun, gives=reading.OpenSteps)
async def open_steps(call: Call[reading.OfRun, None]) -> reading.OpenSteps:
    """The steps of a run that still owe an outcome."""
    return reading.OpenSteps(await call.service.store.open_steps(call.body.run))


@operation("POST", "/v1/store/children", scope="read", takes=reading.OfRun, gives=reading.Children)
async def children(call: Call[reading.OfRun, None]) -> reading.Children:
    """The child runs of which a run has not heard the end."""
    return reading.Children(await call.service.store.children(call.body.run))


@operation("POST", "/v1/store/chain", scope="read", takes=reading.OfRun, gives=reading.Chain)
async def chain(call: Call[reading.OfRun, None]) -> reading.Chain:
    """The hash of each append of a run (law L13)."""
    return reading.Chain(await call.service.store.chain(call.body.run))


@operation("POST", "/v1/store/strays", scope="read", takes=working.Done, gives=reading.Strays)
async def strays(call: Call[working.Done, None]) -> reading.Strays:
    """Rows that belong to no run."""
    return reading.Strays(await call.service.store.strays())


# ---- streams ------------------------------------------------------------------------------------------------


@operation("POST", "/v1/store/read_stream", scope="read", takes=reading.ReadStream, gives=reading.Chunks)
async def read_stream(call: Call[reading.ReadStream, None]) -> reading.Chunks:
    """A page of a stream."""
    return reading.Chunks(await call.service.store.read_stream(*msgspec.structs.astuple(call.body)))


@operation("POST", "/v1/store/stream", scope="read", takes=reading.OfStream, gives=reading.StreamOf)
async def stream(call: Call[reading.OfStream, None]) -> reading.StreamOf:
    """A stream's row."""
    return reading.StreamOf(await call.service.store.stream(call.body.run, call.body.name))


@operation("POST", "/v1/store/streams", scope="read", takes=reading.OfRun, gives=reading.Streams)
async def streams(call: Call[reading.OfRun, None]) -> reading.Streams:
    """The streams of a run."""
    return reading.Streams(await call.service.store.streams(call.body.run))


# ---- who works on what --------------------------------------------------------------------------------------


@operation(
    "POST", "/v1/store/enlist", scope="work", takes=working.Enlist, gives=working.Done, errors=(LeaseLost,)
)
async def enlist(call: Call[working.Enlist, None]) -> working.Done:
    """A worker's sign of life. Its runs are freed when its session's news stream ends, or its lease."""
    store, worker = call.service.store, call.body.worker
    if call.body.known and worker.id not in {row.id for row in await store.workers() if row.expires}:
        raise LeaseLost(f"worker {worker.id} was declared dead: its runs belong to others now")
    await store.enlist(worker)
    call.service.news.enlisted(call.body.session, worker.id)
    return working.Done()


@operation("POST", "/v1/store/workers", scope="read", takes=working.Done, gives=working.Workers)
async def workers(call: Call[working.Done, None]) -> working.Workers:
    """All workers that have not left."""
    return working.Workers(await call.service.store.workers())


@operation("POST", "/v1/store/discharge", scope="work", takes=working.Discharge, gives=working.Done)
async def discharge(call: Call[working.Discharge, None]) -> working.Done:
    """A worker is gone: its runs are free."""
    await call.service.store.discharge(call.body.worker)
    call.service.news.discharged(call.body.worker)
    return working.Done()


@operation(
    "POST",
    "/v1/store/claim",
    scope="work",
    takes=working.ClaimRuns,
    gives=working.Claims,
    errors=(LeaseLost,),
)
async def claim(call: Call[working.ClaimRuns, None]) -> working.Claims:
    """Give a worker free runs."""
    asked = call.body
    return working.Claims(
        await call.service.store.claim(asked.worker, asked.workflows, limit=asked.limit, parked=asked.parked)
    )


@operation("POST", "/v1/store/release", scope="work", takes=working.Release, gives=working.Done)
async def release(call: Call[working.Release, None]) -> working.Done:
    """Take runs back from a worker."""
    await call.service.store.release(call.body.worker, call.body.marks)
    return working.Done()


@operation(
    "POST", "/v1/store/park", scope="write", takes=working.Park, gives=working.Done, errors=(RunNotFound,)
)
async def park(call: Call[working.Park, None]) -> working.Done:
    """Set a run aside (work), or take it up again (write)."""
    if call.body.reason is not None:
        if not allows(call.caller.scope, "work"):
            raise Refused(403, "access_denied", "work is needed to set a run aside")
        _check_reason(call.body.reason)
    await call.service.store.park(call.body.run, call.body.reason)
    return working.Done()


def _check_reason(reason: str) -> None:
    try:
        kind = msgspec.json.decode(reason)
    except (msgspec.DecodeError, UnicodeEncodeError):
        kind = None
    if not isinstance(kind, dict):
        raise PayloadError('reason: expected a JSON object as text, such as {"kind": …, "message": …}')


@operation(
    "POST",
    "/v1/store/crashed",
    scope="work",
    takes=reading.OfRun,
    gives=working.Crashes,
    errors=(RunNotFound,),
)
async def crashed(call: Call[reading.OfRun, None]) -> working.Crashes:
    """Count one more crash of a tick."""
    return working.Crashes(await call.service.store.crashed(call.body.run))


@operation("POST", "/v1/store/owned", scope="read", takes=working.OfWorker, gives=working.Claims)
async def owned(call: Call[working.OfWorker, None]) -> working.Claims:
    """The runs that the store has down as a worker's."""
    return working.Claims(await call.service.store.owned(call.body.worker))


@operation("POST", "/v1/store/behind", scope="read", takes=working.OfWorker, gives=working.Behind)
async def behind(call: Call[working.OfWorker, None]) -> working.Behind:
    """A worker's runs with facts beyond the delivered mark."""
    return working.Behind(
        [working.LastFact(*row) for row in await call.service.store.behind(call.body.worker)]
    )


@operation("POST", "/v1/store/ended_children", scope="read", takes=working.OfWorker, gives=reading.Children)
async def ended_children(call: Call[working.OfWorker, None]) -> reading.Children:
    """The children of a worker's runs that have ended, and whose parent has not been told."""
    return reading.Children(await call.service.store.ended_children(call.body.worker))


@operation("POST", "/v1/store/orphans", scope="read", takes=working.ListOrphans, gives=reading.Children)
async def orphans(call: Call[working.ListOrphans, None]) -> reading.Children:
    """Children whose parent has ended."""
    return reading.Children(await call.service.store.orphans(call.body.limit))


@operation("POST", "/v1/store/bury_orphan", scope="work", takes=working.OfChild, gives=working.Done)
async def bury_orphan(call: Call[working.OfChild, None]) -> working.Done:
    """An orphan has been seen to."""
    await call.service.store.bury_orphan(call.body.run, call.body.key)
    return working.Done()


# ---- queues -------------------------------------------------------------------------------------------------


@operation(
    "POST",
    "/v1/store/take_steps",
    scope="work",
    takes=working.TakeSteps,
    gives=working.StepsTaken,
    errors=(LeaseLost,),
)
async def take_steps(call: Call[working.TakeSteps, None]) -> working.StepsTaken:
    """Give a worker steps that wait in queues, within their limits."""
    asked = call.body
    taken = await call.service.store.take_steps(asked.worker, asked.queues, asked.steps, asked.room)
    return working.StepsTaken(taken.steps, taken.again)


@operation("POST", "/v1/store/held_steps", scope="read", takes=working.OfWorker, gives=working.StepsTaken)
async def held_steps(call: Call[working.OfWorker, None]) -> working.StepsTaken:
    """The queued steps that the store has down as a worker's."""
    return working.StepsTaken(await call.service.store.held_steps(call.body.worker))


@operation("POST", "/v1/store/put_back", scope="work", takes=working.PutBack, gives=working.Done)
async def put_back(call: Call[working.PutBack, None]) -> working.Done:
    """Take queued steps back from a worker that has not begun them."""
    await call.service.store.put_back(call.body.worker, call.body.steps)
    return working.Done()


@operation("POST", "/v1/store/queues", scope="read", takes=working.Done, gives=working.QueueRows)
async def queues(call: Call[working.Done, None]) -> working.QueueRows:
    """The queues in which steps wait or run."""
    return working.QueueRows(await call.service.store.queues())


@operation("POST", "/v1/store/gauge", scope="read", takes=reading.Since, gives=reading.GaugeOf)
async def gauge(call: Call[reading.Since, None]) -> reading.GaugeOf:
    """What the store's rows come to at this moment: what `holdfast top` shows."""
    return reading.GaugeOf(await call.service.store.gauge(call.body.since))


# ---- schedules ----------------------------------------------------------------------------------------------


@operation("POST", "/v1/store/schedules", scope="read", takes=working.Done, gives=working.ScheduleRows)
async def schedules(call: Call[working.Done, None]) -> working.ScheduleRows:
    """The schedules, by workflow."""
    return working.ScheduleRows(await call.service.store.schedules())


@operation(
    "POST", "/v1/store/swap_schedule", scope="write", takes=working.SwapSchedule, gives=working.Swapped
)
async def swap_schedule(call: Call[working.SwapSchedule, None]) -> working.Swapped:
    """Put one schedule in the place of another, if it is still as the caller believes."""
    return working.Swapped(await call.service.store.swap_schedule(call.body.was, call.body.now))


# ---- removing -----------------------------------------------------------------------------------------------


@operation("POST", "/v1/store/remove", scope="work", takes=working.RemoveRuns, gives=Removal)
async def remove(call: Call[working.RemoveRuns, None]) -> Removal:
    """Remove runs that have ended, and all that belongs to them; those that somebody still needs are kept."""
    asked = call.body
    return await call.service.store.remove(asked.runs, asked.ended_before, dry=asked.dry)


# ---- being told ---------------------------------------------------------------------------------------------


class NewsQuery(msgspec.Struct):
    """The stream's session, and whether all commits are wanted."""

    session: str = ""
    every: bool = False


@operation("GET", "/v1/store/news", scope="read", query=NewsQuery, gives=str, media=("text/event-stream",))
async def news(call: Call[None, NewsQuery]) -> StreamingResponse:
    """What commits change, as they happen: server-sent events; `Last-Event-ID` resumes."""
    room, query = call.service.news, call.query
    last = call.request.headers.get("last-event-id", "")

    async def body() -> AsyncIterator[bytes]:
        async for part in room.subscribe(query.session, last, every=query.every):
            if part:
                yield part
            elif not await room.wait(HEARTBEAT):
                yield b": \n\n"

    return StreamingResponse(body(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
