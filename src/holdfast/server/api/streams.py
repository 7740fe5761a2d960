"""Streams: what runs publish while they work."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import datetime

import msgspec
from starlette.responses import Response, StreamingResponse

from ...clock import to_datetime
from ...errors import PayloadError, RunNotFound
from ...streams import Streams
from ..service import Service
from .operation import Call, operation
from .runs import Position, head_of
from .sse import beating


class StreamSummary(msgspec.Struct):
    """A stream of a run: how many chunks and bytes it has, when the last one came, whether it has ended."""

    name: str
    position: int
    bytes: int
    at: datetime
    ended: bool


class StreamList(msgspec.Struct):
    """The streams of a run, in the order of their first chunks."""

    streams: list[StreamSummary]


@operation("GET", "/v1/runs/{run}/streams", scope="read", gives=StreamList, errors=(RunNotFound,))
async def list_streams(call: Call[None, None]) -> StreamList:
    """Which streams a run has."""
    head = await head_of(call)
    return StreamList(
        [
            StreamSummary(one.name, one.position, one.size, to_datetime(one.time), bool(one.ended))
            for one in await call.service.store.streams(head.run)
        ]
    )


class StreamQuery(msgspec.Struct):
    """From which position; `follow` goes on until the end; `latest` leaves superseded chunks out."""

    after: Position | None = None
    follow: bool = False
    latest: bool = False


@operation(
    "GET",
    "/v1/runs/{run}/streams/{stream}",
    scope="read",
    query=StreamQuery,
    gives=str,
    media=("application/x-ndjson", "text/event-stream"),
    errors=(RunNotFound, PayloadError),
)
async def follow_stream(call: Call[None, StreamQuery]) -> Response:
    """A stream's chunks: one JSON object a line, or server-sent events for `Accept: text/event-stream`.

    Server-sent events come as chunks are stored, until the stream or its run has ended (`event: end`);
    `Last-Event-ID` resumes behind a position.
    """
    head, asked = await head_of(call), call.query
    after, sse = asked.after or 0, "text/event-stream" in call.request.headers.get("accept", "")
    last = call.request.headers.get("last-event-id", "")
    if sse and last.isdecimal() and len(last) < 17:
        after = int(last)
    body = _chunks(call.service, head.run, call.path("stream"), after, asked, sse=sse)
    media = "text/event-stream" if sse else "application/x-ndjson"
    if sse or asked.follow:
        return StreamingResponse(
            beating(call.service, body, b": \n\n" if sse else b""),
            media_type=media,
            headers={"X-Accel-Buffering": "no"},
        )
    return StreamingResponse(body, media_type=media, headers={"X-Accel-Buffering": "no"})


async def _chunks(
    service: Service, run: str, name: str, after: int, asked: StreamQuery, *, sse: bool
) -> AsyncGenerator[bytes, None]:
    if sse or asked.follow:
        async for chunk in Streams(service.store).read(run, name, after, latest=asked.latest):
            line = chunk.to_json()
            yield b"id: %d\ndata: %s\n\n" % (chunk.position, line) if sse else line + b"\n"
        if sse:
            yield b"event: end\ndata: \n\n"
        return
    head = await service.store.stream(run, name) if asked.latest else None
    while page := await service.store.read_stream(run, name, after):
        after = page[-1].position
        shown = [c for c in page if c.kind != "end" and not (head is not None and head.superseded(c))]
        yield b"".join(chunk.to_json() + b"\n" for chunk in shown)
