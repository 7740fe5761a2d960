"""One run: what it is and waits for, its timeline, its log, its data and its trail; live.

The page is whole without a script. With one, long lists are windows: the script asks for the rows that are to
be seen (`?part=spans`, `?part=lines`), and is told when there are more (`?part=live`).
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ... import ids
from ...store.rows import Head
from ...trail.export import outline
from ...trail.export.text import line
from ...why import Reason, explain, seen
from ..service import Service
from . import forms, live, shell, streams
from .log import Line, Log, Logs, Part
from .scale import Scale

WINDOW = 60
"""Rows that the page brings with it; the script asks for more as they come into sight."""
_MOST = 200
VIEWS = ("timeline", "events", "data", "streams")

Wrong = tuple[int, forms.Form]


def id_of(request: Request) -> str:
    """The run that the address names ('.' and '..' cannot stand in a path, so `?id=` names them)."""
    return str(request.path_params["run"] or request.query_params.get("id", ""))


async def log_of(request: Request, run_id: str) -> Log:
    """The run's log, read up to now. Raises Refused where there is no such run."""
    state = request.app.state
    if not hasattr(state, "page_logs"):
        state.page_logs = Logs(Service.of(request).store)
    log: Log = await state.page_logs.of(run_id)
    if log.created is None:
        raise shell.Refused(404, f"there is no run {run_id!r} in this store")
    return log


async def show(request: Request, wrong: Wrong | None = None) -> Response:
    """The page, or the part of it that `?part=` names."""
    run_id = id_of(request)
    log = await log_of(request, run_id)
    wanted = request.query_params.get("part")
    if wanted is not None and wrong is None:
        if wanted not in _PARTS:
            raise shell.Refused(404, f"there is no part {wanted!r} of a run's page")
        return await _PARTS[wanted](request, log)
    view = request.query_params.get("view", "")
    view = view if view in VIEWS else "timeline"
    first = _number(request, "from", 0)
    return shell.page(
        request,
        "run.html",
        status=200 if wrong is None else 422,
        view=view,
        done=request.query_params.get("done", ""),
        **await _about(Service.of(request), log, wrong),
        **(await _window(request, log, view, first, WINDOW)),
    )


async def _about(service: Service, log: Log, wrong: Wrong | None = None) -> dict[str, Any]:
    """What the top of the page tells: the run, why it stands where it stands, and forms for its hooks."""
    store = service.store
    head = await store.head(log.run_id)
    if head is None:
        raise shell.Refused(404, f"the run {log.run_id!r} was removed")
    about = await seen(store, head, log.state, log.end)
    reasons, now = list(explain(about)), about.now
    waits = [_wait(log, reason, wrong) for reason in reasons]
    return {
        "head": head,
        "log": log,
        "stream_count": len(await store.streams(log.run_id)),
        "state": log.state,
        "end": log.end.data if log.end is not None else {},
        "created": log.created.data if log.created is not None else {},
        "waits": waits,
        "now": now,
    }


def _wait(log: Log, reason: Reason, wrong: Wrong | None) -> dict[str, Any]:
    """A reason with the span it is about and, for a hook, the form that answers it."""
    span, form = None, None
    if reason.kind == "hook":
        span = log.spans.open_hook(reason.about["token"])
    if span is not None:
        form = wrong[1] if wrong is not None and wrong[0] == span.position else forms.empty(span.schema)
    rev = f"{reason.kind}-{span.last}" if span is not None else reason.text
    key = f"{reason.kind}-{span.position}" if span is not None else reason.kind + reason.text[:80]
    return {
        "reason": reason, "span": span, "form": form, "key": key, "rev": rev, "delivery": ids.delivery_id(),
    }  # fmt: skip


# ---- long lists, a window at a time


async def _window(request: Request, log: Log, view: str, first: int, count: int) -> dict[str, Any]:
    """The rows of a view from a place on, with what is needed to draw them."""
    if view == "events":
        rows, total = _lines(request, log, first, count)
        return {
            "rows": rows,
            "total": total,
            "first": first,
            "brackets": await _brackets(log, rows),
            **_kinds(request),
        }
    if view == "timeline":
        skip = request.query_params.get("scale") != "real"
        scale = Scale(log.spans, Service.of(request).store.clock.now(), skip=skip)
        rows_ = log.spans.rows[first : first + count]
        return {"rows": rows_, "total": len(log.spans.rows), "first": first, "scale": scale, "skip": skip}
    if view == "streams":
        store, asked = Service.of(request).store, request.query_params
        return await streams.window(
            store, log.run_id, asked.get("stream", ""), asked.get("as", ""), first, count
        )
    return {}


async def _spans(request: Request, log: Log) -> Response:
    first, count = _number(request, "from", 0), min(_number(request, "count", WINDOW), _MOST)
    given = await _window(request, log, "timeline", first, count)
    return shell.page(request, "_spans.html", log=log, **given)


async def _scale(request: Request, log: Log) -> Response:
    return shell.page(request, "_scale.html", log=log, **await _window(request, log, "timeline", 0, 0))


async def _lines_part(request: Request, log: Log) -> Response:
    first, count = _number(request, "from", 0), min(_number(request, "count", WINDOW), _MOST)
    given = await _window(request, log, "events", first, count)
    return shell.page(request, "_lines.html", log=log, **given)


async def _chunks(request: Request, log: Log) -> Response:
    first, count = _number(request, "from", 0), min(_number(request, "count", WINDOW), _MOST)
    given = await _window(request, log, "streams", first, count)
    return shell.page(request, "_chunks.html", log=log, **given)


def _kinds(request: Request) -> dict[str, Any]:
    hidden = [kind for kind in request.query_params.get("without", "").split(",") if kind]
    return {"hidden": hidden, "find": request.query_params.get("find", "")}


def _lines(request: Request, log: Log, first: int, count: int) -> tuple[Sequence[Line], int]:
    """The events that are to be listed, and how many there are."""
    kinds = _kinds(request)
    if not kinds["hidden"] and not kinds["find"]:
        return log.lines[first : first + count], len(log.lines)
    words = kinds["find"].lower().split()
    found = [
        line
        for line in log.lines
        if line.cls not in kinds["hidden"]
        and all(word in line.type or word in line.key.lower() for word in words)
    ]
    return found[first : first + count], len(found)


async def _brackets(log: Log, rows: Sequence[Line]) -> dict[int, tuple[str, Part]]:
    """How each event stands in its append: only, first, middle or last; and the append."""
    if not rows:
        return {}
    parts = await log.parts()
    wanted = {row.position for row in rows}
    found: dict[int, tuple[str, Part]] = {}
    for each in parts:
        if each.last < rows[0].position:
            continue
        if each.first > rows[-1].position:
            break
        for position in range(each.first, each.last + 1):
            if position in wanted:
                found[position] = (_stands(position, each), each)
    return found


def _stands(position: int, part: Part) -> str:
    if part.first == part.last:
        return "only"
    return "first" if position == part.first else "last" if position == part.last else "middle"


# ---- details


async def _detail(request: Request, log: Log) -> Response:
    """What stands behind a row: a span with its arguments, attempts and outcome."""
    at = _number(request, "at", 0)
    span = next((span for span in log.spans.rows if span.position == at), None)
    if span is None:
        return await _event(request, log)
    begun = await log.events(span.position, 1)
    result = None
    if span.end is not None and span.last > span.position:
        result = (await log.events(span.last, 1))[0]
    payloads = [(await log.events(mark.position, 1))[0] for mark in span.marks[:50]]
    return shell.page(
        request, "_detail.html", log=log, span=span, begun=begun[0].data, result=result, payloads=payloads
    )


async def _event(request: Request, log: Log) -> Response:
    """One event with all that it holds, and the append that brought it."""
    at = _number(request, "at", 0)
    events = await log.events(at, 1) if at > 0 else []
    if not events:
        raise shell.Refused(404, f"there is no position {at} in this log")
    parts = await log.parts()
    part = next((part for part in parts if part.first <= at <= part.last), None)
    beside = log.lines[part.first - 1 : min(part.last, part.first - 1 + _MOST)] if part is not None else []
    return shell.page(request, "_event.html", log=log, event=events[0], append=part, beside=beside)


async def _chunk(request: Request, log: Log) -> Response:
    return await streams.chunk(request, Service.of(request).store, log.run_id, _number(request, "at", 0))


async def _download(request: Request, log: Log) -> Response:
    return await streams.download(request, Service.of(request).store, log.run_id, _number(request, "at", 0))


async def _trail(request: Request, log: Log) -> Response:
    """The run's trail: chapters, what was decided and found, and by whom."""
    trail = await log.trail()
    if trail is None:
        return shell.page(request, "_trail.html", log=log, trail=None)
    rows = [
        (row, [event for event in row.chapter.events if outline.matters(event)])
        for row in outline.walk(outline.tree(trail))
    ]
    hues = {name: f"hue{place % 8}" for place, name in enumerate(outline.agents(trail))}
    return shell.page(
        request, "_trail.html", log=log, trail=trail, rows=rows, hues=hues, told_of=outline.told, line=line,
        number=sum(len(told) for _, told in rows),
    )  # fmt: skip


# ---- live


async def _live(request: Request, log: Log) -> Response:
    return live.stream(_follow(request, log))


async def _follow(request: Request, log: Log) -> AsyncIterator[bytes]:
    service = Service.of(request)
    sent: tuple[int, str | None, str | None] = (-1, None, None)
    tail = streams.tail(request, service.store, log.run_id)
    with live.Changes(service.store, log.run_id) as changes:
        while True:
            await log.advance()
            head = await service.store.head(log.run_id)
            if head is None:
                return  # `holdfast prune` has removed it; who asks again is told
            stands = (log.position, head.owner, head.parked)
            if stands != sent:
                sent = stands
                yield live.message("run", await _news(service, log))
            else:
                yield b": nothing\n\n"
            if tail is not None:
                async for message in tail.news():
                    yield message
            await changes.next()


async def news(request: Request, run_id: str) -> dict[str, Any]:
    """How the run stands now, as those are told who follow it: for the answer to what changed it."""
    return await _news(Service.of(request), await log_of(request, run_id))


async def _news(service: Service, log: Log) -> dict[str, Any]:
    about = await _about(service, log)
    head: Head = about["head"]
    return {
        "position": log.position,
        "spans": len(log.spans.rows),
        "streams": about["stream_count"],
        "status": head.status,
        "ended": head.ended is not None,
        "head": shell.part("_head.html", **about),
        "waits": shell.part("_waits.html", **about),
    }


async def _raw(request: Request, log: Log) -> Response:
    """An event's data as it is stored, for what is too long for the page."""
    events = await log.events(max(_number(request, "at", 0), 1), 1)
    headers = {"Content-Disposition": "attachment", "X-Content-Type-Options": "nosniff"}
    return Response(events[0].body if events else b"", media_type="application/json", headers=headers)


_PARTS: dict[str, Callable[[Request, Log], Awaitable[Response]]] = {
    "spans": _spans,
    "scale": _scale,
    "lines": _lines_part,
    "detail": _detail,
    "event": _event,
    "chunks": _chunks,
    "chunk": _chunk,
    "download": _download,
    "trail": _trail,
    "live": _live,
    "raw": _raw,
}


def _number(request: Request, name: str, default: int) -> int:
    with contextlib.suppress(ValueError):
        return min(max(int(request.query_params.get(name, "")[:12]), 0), 1 << 40)
    return default
