"""Runs: start, list, look at, follow, cancel, terminate, wake, verify; and the fenced append."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.responses import Response, StreamingResponse

from ...errors import (
    CommandMissing,
    FenceMissing,
    HoldfastError,
    HookNotFound,
    InvalidAppend,
    PayloadError,
    RunEnded,
    RunExists,
    RunNotFound,
    StaleLog,
    StepEnded,
    TooEarly,
)
from ...events import Event, dump_json
from ...handle import RunSummary, summary
from ...logcheck import Difference
from ...store.http.wire import writing
from ...store.http.wire.events import DraftRow
from ...store.rows import Head, RunFilter, Status
from ...verify import Verification
from ..refusal import Refused
from ..service import Service
from . import cursor
from .appends import outcome, submit
from .operation import Call, Reply, operation

HEARTBEAT = 15.0
Limit = Annotated[int, Meta(ge=1, le=1000)]
Position = Annotated[int, Meta(ge=0, le=2**53)]


# ---- start --------------------------------------------------------------------------------------------------


class StartRun(msgspec.Struct, forbid_unknown_fields=True):
    """What to start: a workflow by its name, and its arguments by theirs.

    Without `run_id`, the Idempotency-Key is the run's id; without either, the server makes one.
    """

    workflow: Annotated[str, Meta(min_length=1, max_length=512)]
    args: dict[str, Any] = {}
    run_id: str | None = None
    attributes: dict[str, str] = {}


class Started(msgspec.Struct):
    """The run; `duplicate` says that it was there already, of the same workflow and with the same input."""

    run: str
    duplicate: bool = False


@operation(
    "POST",
    "/v1/runs",
    scope="write",
    takes=StartRun,
    gives=Started,
    also={201: Started},
    errors=(RunExists, PayloadError),
    keyed=True,
)
async def start(call: Call[StartRun, None]) -> Reply:
    """Start a run. It is durable when the answer comes; a worker takes it from there."""
    asked = call.body
    args = dump_json(asked.args)
    _check_size(call.service, args, "args")
    run = await call.service.app.start_raw(
        asked.workflow, args, run_id=asked.run_id or call.key, attributes=asked.attributes
    )
    return Reply(200 if run.existed else 201, Started(run.id, run.existed))


def _check_size(service: Service, raw: bytes, what: str) -> None:
    limit = service.app.payload_limit
    if len(raw) > limit:
        raise Refused(413, "body_too_large", f"{what}: {len(raw):,} bytes, over the limit of {limit:,}")


# ---- list and look at ---------------------------------------------------------------------------------------


class ListQuery(msgspec.Struct):
    """Which runs: by status, workflow, attributes (NAME=TEXT, several), parked; and from where to go on."""

    status: Status | None = None
    workflow: str | None = None
    attribute: list[str] = []
    parked: bool | None = None
    cursor: str | None = None
    limit: Limit = 100


class RunPage(msgspec.Struct):
    """Runs, newest first; `next` is the cursor of the next page, if there is one."""

    runs: list[RunSummary]
    next: str | None = None


@operation("GET", "/v1/runs", scope="read", query=ListQuery, gives=RunPage, errors=(PayloadError,))
async def list_runs(call: Call[None, ListQuery]) -> RunPage:
    """List runs, newest first. The cursor is stable: runs that start meanwhile do not shift it."""
    asked = call.query
    heads = await call.service.store.runs(
        RunFilter(asked.status, asked.workflow, _attributes(asked.attribute) or None, asked.parked),
        before=None if asked.cursor is None else cursor.read(asked.cursor, tuple[int, str]),
        limit=asked.limit,
    )
    last = heads[-1] if len(heads) == asked.limit else None
    return RunPage(
        [summary(head) for head in heads], None if last is None else cursor.write((last.created, last.run))
    )


def _attributes(texts: list[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise PayloadError(f"attribute: expected NAME=TEXT, got {text!r:.80}")
        found[name] = value
    return found


async def head_of(call: Call[Any, Any]) -> Head:
    """The row of the run in the path. Raises RunNotFound."""
    run = call.path("run")
    head = await call.service.store.head(run)
    if head is None:
        raise RunNotFound(f"no run {run!r:.200} in this store")
    return head


@operation("GET", "/v1/runs/{run}", scope="read", gives=RunSummary, errors=(RunNotFound,))
async def show_run(call: Call[None, None]) -> RunSummary:
    """A run as it stands."""
    return summary(await head_of(call))


class ResultQuery(msgspec.Struct):
    """How many seconds to wait for the end."""

    timeout: Annotated[float, Meta(ge=0, le=60)] = 30.0


class Result(msgspec.Struct, omit_defaults=True):
    """How a run stands or ended: `value` where it completed, `error` where it failed, `reason` where cancelled."""

    run: str
    status: Status
    value: Any = None
    error: Any = None
    reason: str | None = None


@operation(
    "GET",
    "/v1/runs/{run}/result",
    scope="read",
    query=ResultQuery,
    gives=Result,
    also={202: Result},
    errors=(RunNotFound, PayloadError),
)
async def result(call: Call[None, ResultQuery]) -> Reply:
    """Wait for a run's end. 202 where it has not ended in time; ask again."""
    head = await head_of(call)
    end = await _end(call.service, head.run, call.query.timeout)
    if end is None:
        return Reply(202, Result(head.run, (await head_of(call)).status))
    data, status = end.data, end.type.removeprefix("run_")
    ended = Result(head.run, status, data.get("value"), data.get("error"), data.get("reason"))  # type: ignore[arg-type]
    return Reply(200, ended)


async def _end(service: Service, run: str, timeout: float) -> Event | None:
    """The event that ended the run; None where time is up first, or the server stops."""
    ending = asyncio.ensure_future(service.app.run(run).end())
    closing = asyncio.ensure_future(service.closed.wait())
    try:
        await asyncio.wait((ending, closing), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        return ending.result() if ending.done() else None
    finally:
        closing.cancel()
        ending.cancel()


# ---- the log ------------------------------------------------------------------------------------------------


class EventsQuery(msgspec.Struct):
    """From which position, how many at most, with payloads or without; `follow` goes on until the run's end."""

    after: Position | None = None
    limit: Annotated[int, Meta(ge=1)] | None = None
    data: bool = True
    follow: bool = False


@operation(
    "GET",
    "/v1/runs/{run}/events",
    scope="read",
    query=EventsQuery,
    gives=str,
    media=("application/x-ndjson", "text/event-stream"),
    errors=(RunNotFound, PayloadError),
)
async def events(call: Call[None, EventsQuery]) -> Response:
    """A run's log: one JSON object a line, or server-sent events for `Accept: text/event-stream`.

    Server-sent events come as they are committed, until the run has ended (`event: end`); `Last-Event-ID`
    resumes behind a position. 204 says that the run has ended and nothing lies beyond it.
    """
    head, asked = await head_of(call), call.query
    if "text/event-stream" in call.request.headers.get("accept", ""):
        after = asked.after or 0
        last = call.request.headers.get("last-event-id", "")
        after = int(last) if last.isdecimal() and len(last) < 17 else after
        if head.ended is not None and after >= head.position:
            return Response(status_code=204)
        return _stream(_sse(call.service, head.run, after, data=asked.data), "text/event-stream")
    lines = _lines(
        call.service, head.run, asked.after or 0, asked.limit, data=asked.data, follow=asked.follow
    )
    return _stream(lines, "application/x-ndjson")


def _stream(body: AsyncIterator[bytes], media: str) -> StreamingResponse:
    return StreamingResponse(body, media_type=media, headers={"X-Accel-Buffering": "no"})


async def _sse(service: Service, run: str, after: int, *, data: bool) -> AsyncIterator[bytes]:
    yield b"retry: 1000\n\n"
    async for page in service.tails.follow(run, after):
        if not page:
            yield b": \n\n"
            continue
        yield b"".join(
            b"id: %d\ndata: %s\n\n" % (line.position, line.json if data else line.bare) for line in page
        )
    if not service.closed.is_set():
        yield b"event: end\ndata: \n\n"


async def _lines(
    service: Service, run: str, after: int, limit: int | None, *, data: bool, follow: bool
) -> AsyncIterator[bytes]:
    left = limit
    if not follow:
        while left is None or left > 0:
            size = 500 if left is None else min(500, left)
            page = await service.store.read(run, after, size)
            yield b"".join(event.to_json(data=data) + b"\n" for event in page)
            if len(page) < size:
                return
            after = page[-1].position
            left = None if left is None else left - size
        return
    async for lines in service.tails.follow(run, after):
        taken = lines if left is None else lines[:left]
        yield b"".join((line.json if data else line.bare) + b"\n" for line in taken)
        left = None if left is None else left - len(taken)
        if left == 0:
            return


class EventIn(msgspec.Struct, forbid_unknown_fields=True):
    """An event to append; `at` (µs since 1970) only where it was delivered before its commit (law L8)."""

    type: str
    key: str = ""
    data: dict[str, Any] = {}
    at: Annotated[int, Meta(ge=0, le=2**62)] | None = None


class AppendEvents(msgspec.Struct, forbid_unknown_fields=True):
    """Events for one run, all or nothing. `after` is the fence: commands need it, and 0 creates the run."""

    events: Annotated[list[EventIn], Meta(min_length=1)]
    after: Annotated[int, Meta(ge=0, le=2**53)] | None = None
    owner: str | None = None


@operation(
    "POST",
    "/v1/runs/{run}/events",
    scope="write",
    takes=AppendEvents,
    gives=writing.Taken,
    errors=(
        *(PayloadError, FenceMissing, InvalidAppend, RunNotFound, HookNotFound, CommandMissing, StepEnded),
        *(RunEnded, StaleLog, TooEarly),
    ),
    keyed=True,
)
async def append_events(call: Call[AppendEvents, None]) -> Response | Reply:
    """The fenced append (laws L3–L5): facts are taken once by key, commands only where `after` is up to date.

    200 with `"duplicate": true` for what was there already; 412 with the missed events where the view is stale.
    The Idempotency-Key is the batch id: send an append whose answer was lost again under the same key.
    """
    asked = call.body
    drafts = [DraftRow(e.type, e.key, dump_json(e.data).decode(), e.at) for e in asked.events]
    batch = call.key or call.service.store.next_batch()
    row = writing.AppendRow(call.path("run"), drafts, batch, asked.after, asked.owner)
    answer = await submit(call.service, call.caller, row)
    if isinstance(answer, HoldfastError | Refused):
        raise answer
    return Reply(200, outcome(answer, row).taken)


# ---- acting -------------------------------------------------------------------------------------------------


class Reason(msgspec.Struct, forbid_unknown_fields=True):
    """Why; it is recorded and shown with the run."""

    reason: Annotated[str, Meta(max_length=10_000)] = ""


class Acted(msgspec.Struct):
    """Whether it happened (false where the run had ended already), and how the run stands now."""

    run: str
    done: bool
    status: Status


@operation("POST", "/v1/runs/{run}/cancel", scope="write", takes=Reason, gives=Acted, errors=(RunNotFound,))
async def cancel(call: Call[Reason, None]) -> Acted:
    """Ask a run to cancel; its code may clean up."""
    head = await head_of(call)
    return await _acted(call, await call.service.app.run(head.run).cancel(call.body.reason))


@operation(
    "POST", "/v1/runs/{run}/terminate", scope="write", takes=Reason, gives=Acted, errors=(RunNotFound,)
)
async def terminate(call: Call[Reason, None]) -> Acted:
    """End a run at once, without asking its code."""
    head = await head_of(call)
    return await _acted(call, await call.service.app.run(head.run).terminate(call.body.reason))


@operation("POST", "/v1/runs/{run}/wake", scope="write", gives=Acted, errors=(RunNotFound,))
async def wake(call: Call[None, None]) -> Acted:
    """End a run's sleeps early; take it up again if it is parked."""
    head = await head_of(call)
    return await _acted(call, await call.service.app.run(head.run).wake())


async def _acted(call: Call[Any, Any], done: bool) -> Acted:
    head = await head_of(call)
    return Acted(head.run, done, head.status)


# ---- proof --------------------------------------------------------------------------------------------------


class Proof(msgspec.Struct):
    """What verifying a run found: nothing, where it is sound."""

    run: str
    sound: bool
    events: int
    differences: list[Difference]


@operation("GET", "/v1/runs/{run}/verify", scope="read", gives=Proof, errors=(RunNotFound,))
async def verify(call: Call[None, None]) -> Proof:
    """Prove a run's log and what is derived from it (law L13)."""
    head = await head_of(call)
    verification = Verification(call.service.store, run_id=head.run)
    found = [difference async for difference in verification.run()]
    return Proof(head.run, not found and not verification.unsettled, verification.events, found)
