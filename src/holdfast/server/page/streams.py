"""A run's streams: what it publishes while it works, as text to read or chunk by chunk; live.

A stream may be larger than a page can be. As text, its tail is shown, and what is appended; as chunks it is a
window over all of it. Attempts are told apart: what a later attempt has superseded stays, and is struck out.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from itertools import groupby
from typing import Any
from urllib.parse import quote

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ...chunks import Chunk
from ...store.base import Store
from ...store.streams import StreamHead
from ...trail.export.text import clean
from . import live, shell

_TAIL, _TAIL_BYTES = 2000, 256 * 1024
"""What is shown of a text, and told at one time, at most: so many chunks and so many bytes, one chunk at least."""
_STEP = 100
"""Chunks that are read at one time on the way from the end to where the tail begins."""
_PREVIEW = 300
"""Characters of a chunk that its row shows."""
_HEX = 4096
"""Bytes of a chunk that are written out."""


class Passage(msgspec.Struct, frozen=True):
    """Text chunks of one attempt, joined; a chunk of another kind stands alone. `kind`: text, bytes, json, end."""

    kind: str
    text: str
    step: str
    attempt: int
    superseded: bool
    begins: bool
    """Whether another attempt, or another step, wrote what stands before it."""


class Row(msgspec.Struct, frozen=True):
    """A chunk on one line. `begins` as for a passage."""

    chunk: Chunk
    preview: str
    superseded: bool
    begins: bool


# ---- what a page shows


async def window(
    store: Store, run: str, wanted: str, mode: str, first: int | None, count: int
) -> dict[str, Any]:
    """A run's streams, and of one of them the text, or the chunks from a place on."""
    heads = await store.streams(run)
    head = next((one for one in heads if one.name == wanted), heads[0] if heads and not wanted else None)
    if wanted and head is None:
        raise shell.Refused(404, f"this run has written to no stream {wanted!r}")
    shown: dict[str, Any] = {
        "streams": heads,
        "stream": head,
        "mode": mode,
        "total": 0,
        "first": 0,
        "rows": [],
    }
    if head is None:
        return shown
    if mode not in ("text", "chunks"):
        begin = await store.read_stream(run, head.name, 0, 1)
        shown["mode"] = "text" if begin and begin[0].kind == "text" else "chunks"
    shown["total"] = head.position
    if shown["mode"] == "chunks":
        shown["first"] = first or 0
        shown["rows"] = await _rows(store, head, shown["first"], count)
    else:
        chunks = await _tail_of(store, head, 0)
        shown["first"] = chunks[0].position - 1 if chunks else 0
        shown["rows"] = passages(chunks, head)
    return shown


async def _rows(store: Store, head: StreamHead, first: int, count: int) -> list[Row]:
    """Rows of a window; the chunk before it says whether its first one begins an attempt."""
    chunks = await _read(store, head, max(0, first - 1), count + (first > 0))
    before = (chunks[0].step, chunks[0].attempt) if first and chunks else None
    rows: list[Row] = []
    for chunk in chunks[1 if first else 0 :]:
        author = (chunk.step, chunk.attempt)
        begins = before is not None and author != before and chunk.kind != "end"
        rows.append(Row(chunk, _preview(chunk), head.superseded(chunk), begins))
        before = author
    return rows


async def _read(store: Store, head: StreamHead, after: int, count: int) -> list[Chunk]:
    """So many chunks beyond a position, as far as there are as many."""
    found: list[Chunk] = []
    while len(found) < count and (
        page := await store.read_stream(head.run, head.name, after, count - len(found))
    ):
        found += page
        after = page[-1].position
    return found


async def _tail_of(store: Store, head: StreamHead, after: int) -> list[Chunk]:
    """What lies beyond a position, or as much of its end as is shown."""
    found: list[Chunk] = []
    size, first = 0, head.position
    while first > after and len(found) < _TAIL and size < _TAIL_BYTES:
        until, first = first, max(after, first - _STEP)
        part = await _read(store, head, first, until - first)
        size += sum(len(chunk.body) for chunk in part)
        found = part + found
    drop = max(0, len(found) - _TAIL)
    size -= sum(len(chunk.body) for chunk in found[:drop])
    while size > _TAIL_BYTES and drop < len(found) - 1:
        size -= len(found[drop].body)
        drop += 1
    return found[drop:]


def passages(
    chunks: Iterable[Chunk], head: StreamHead, before: tuple[str, int] | None = None
) -> list[Passage]:
    """Chunks as text to read. `before` is who wrote what was shown last: (step, attempt)."""
    made: list[Passage] = []
    for (kind, step, attempt, superseded), group in groupby(
        chunks, lambda chunk: (chunk.kind, chunk.step, chunk.attempt, head.superseded(chunk))
    ):
        texts = [_text(chunk) for chunk in group]
        begins = before is not None and before != (step, attempt) and kind != "end"
        for text in ["".join(texts)] if kind == "text" else texts:
            made.append(Passage(kind, text, step, attempt, superseded, begins))
            begins = False
        before = (step, attempt)
    return made


def _text(chunk: Chunk) -> str:
    return str(chunk.data) if chunk.kind == "text" else _preview(chunk)


def _preview(chunk: Chunk) -> str:
    """A chunk on one line."""
    if chunk.kind == "bytes":
        written = " ".join(f"{byte:02x}" for byte in chunk.body[:32])
        return written + (" …" if len(chunk.body) > 32 else "")
    text = chunk.body[: _PREVIEW * 4].decode(errors="replace")
    short = " ".join(clean(text[:_PREVIEW]).split("\n"))
    return short + ("…" if len(text) > _PREVIEW else "")


# ---- one chunk, and all of them


async def chunk(request: Request, store: Store, run: str, at: int) -> Response:
    """One chunk with all that it holds."""
    head, found = await _chunk_at(store, run, request.query_params.get("stream", ""), at)
    body: Any = found.data if found.kind == "text" else None
    if found.kind == "json":
        body = _plain(found.body)
    elif found.kind == "bytes":
        body = "\n".join(_hex(found.body[:_HEX]))
    return shell.page(
        request, "_chunk.html", run=run, stream=head, chunk=found, body=body, more=len(found.body) - _HEX
    )


def _plain(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body.decode(errors="replace")


def _hex(body: bytes) -> Iterable[str]:
    """Lines of 8 bytes: where, in hexadecimal, and as text."""
    for start in range(0, len(body), 8):
        part = body[start : start + 8]
        shown = "".join(chr(byte) if 32 <= byte < 127 else "·" for byte in part)
        yield f"{start:06x}  {part.hex(' '):<23}  {shown}"


async def _chunk_at(store: Store, run: str, name: str, at: int) -> tuple[StreamHead, Chunk]:
    head = await store.stream(run, name)
    found = await store.read_stream(run, name, at - 1, 1) if head is not None and at > 0 else []
    if head is None or not found:
        raise shell.Refused(404, f"there is no chunk {at} in a stream {name!r} of this run")
    return head, found[0]


async def download(request: Request, store: Store, run: str, at: int) -> Response:
    """A stream as a file, or one chunk of it: text and bytes as they are, one behind the other; JSON in lines."""
    name = request.query_params.get("stream", "")
    head = await store.stream(run, name)
    if head is None:
        raise shell.Refused(404, f"this run has written to no stream {name!r}")
    headers = {
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": shell.POLICY,
    }
    if at:
        body = (await _chunk_at(store, run, name, at))[1].body
        return Response(body, media_type="application/octet-stream", headers=headers)
    return StreamingResponse(_bytes(store, head), media_type="application/octet-stream", headers=headers)


async def _bytes(store: Store, head: StreamHead) -> AsyncIterator[bytes]:
    after = 0
    while after < head.position and (page := await store.read_stream(head.run, head.name, after)):
        after = page[-1].position
        for one in page:
            yield one.body + b"\n" if one.kind == "json" else one.body


# ---- live


class Tail:
    """What a page is told of a run's streams as they grow; `name` is the one that it shows, from a position on."""

    def __init__(self, store: Store, run: str, name: str, mode: str, after: int) -> None:
        self._store = store
        self._run, self._name, self._mode = run, name, mode
        self._after = after
        self._author: tuple[str, int] | None = None
        self._told: Any = None

    async def news(self) -> AsyncIterator[bytes]:
        """What is new, in messages of bounded size."""
        heads = await self._store.streams(self._run)
        stands = [(head.name, head.position, head.ended) for head in heads]
        if stands == self._told:
            return
        self._told = stands
        head = next((one for one in heads if one.name == self._name), None)
        told: dict[str, Any] = {"number": len(heads)}
        told["list"] = shell.part("_streams.html", streams=heads, stream=head, mode=self._mode, run=self._run)
        if head is None:
            yield live.message("streams", told)
            return
        told |= {"position": head.position, "attempts": head.attempts, "ended": bool(head.ended)}
        told["about"] = shell.part("_stream.html", stream=head, now=self._store.clock.now())
        if self._mode == "text":
            told["html"], told["anew"] = await self._text(head)
        yield live.message("streams", told, id=str(self._after))

    async def _text(self, head: StreamHead) -> tuple[str, bool]:
        """What was appended since, as markup; and whether the page begins anew, for it is too far behind."""
        chunks = await _tail_of(self._store, head, self._after)
        anew = bool(chunks) and chunks[0].position > self._after + 1
        if anew:
            self._author = None
        elif self._author is None and self._after:
            last = await self._store.read_stream(self._run, self._name, self._after - 1, 1)
            self._author = (last[0].step, last[0].attempt) if last else None
        made = passages(chunks, head, self._author)
        if chunks:
            self._after, self._author = chunks[-1].position, (chunks[-1].step, chunks[-1].attempt)
        return shell.part("_said.html", rows=made), anew


def tail(request: Request, store: Store, run: str) -> Tail | None:
    """The tail that the page asks for with `?stream=`; a browser that comes back says what it had."""
    asked = request.query_params
    if "stream" not in asked:
        return None
    given = (asked.get("after", ""), request.headers.get("last-event-id", ""))
    after = max((int(text) for text in given if text.isdecimal() and len(text) < 17), default=0)
    return Tail(store, run, asked["stream"], asked.get("as", ""), after)
