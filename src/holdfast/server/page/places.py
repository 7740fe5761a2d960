"""What runs wait for, and who works: open hooks and timers, queues, schedules, workers. Each is live.

A place is a page around one part, which the script replaces as the store changes (`?part=live`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from ...clock import to_datetime
from ...errors import HoldfastError
from ...queues import declared
from ...store.scheduled import ACTS, change, dues, keepers
from ...worker.schedule import run_id_of
from ..service import Service
from . import live, shell

PAGE = 100
_PACE = 1.0
"""Seconds between two looks at a place, at least: each is a question about all of the store."""
LINKED = 50
"""Schedules whose last run is looked up, for a link to it."""

Look = Callable[[Request], Awaitable[dict[str, Any]]]


async def _waiting(request: Request) -> dict[str, Any]:
    """Open hooks by token, and timers by when they are due."""
    store = Service.of(request).store
    token, _, run = request.query_params.get("after", "").partition("~")
    hooks = await store.hooks(after=(token, run) if token else None, limit=PAGE)
    return {"hooks": hooks, "timers": await store.timers(limit=PAGE), "most": PAGE}


async def _queues(request: Request) -> dict[str, Any]:
    """Queues in which steps wait or run, and those that this process declares. Limits are known of these alone."""
    rows = {row.name: row for row in await Service.of(request).store.queues()}
    names = sorted(rows.keys() | declared.keys())
    return {"queues": [(name, rows.get(name), declared.get(name)) for name in names]}


async def _schedules(request: Request) -> dict[str, Any]:
    """Schedules with their due times, and whether a worker that is up has them in its code."""
    store = Service.of(request).store
    alive = await keepers(store)
    found: list[Scheduled] = []
    for row in await store.schedules():
        last, due = dues(row)
        run = run_id_of(row.workflow, last) if last is not None and len(found) < LINKED else None
        if run is not None and await store.head(run) is None:
            run = None
        state = "paused" if row.paused else "on" if row.keeper in alive else "nobody's"
        zone = ZoneInfo(row.timezone) if last is not None or due is not None else None
        local = [None if when is None else to_datetime(when).astimezone(zone) for when in (last, due)]
        found.append(Scheduled(row.workflow, row.cron, row.timezone, state, row.since, last, due, run, local))
    return {"schedules": found}


class Scheduled(msgspec.Struct, frozen=True):
    """A schedule as a row of the page. `local` are last and next due time on the clock that it speaks of."""

    workflow: str
    cron: str
    timezone: str
    state: str
    since: int
    last: int | None
    due: int | None
    run: str | None
    local: list[Any]


async def _workers(request: Request) -> dict[str, Any]:
    """Workers, how many runs each has, and whether it still gives signs of life."""
    store = Service.of(request).store
    return {"workers": [(row, await store.owned(row.id)) for row in await store.workers()]}


_PLACES: dict[str, tuple[str, Look]] = {
    "waiting": ("Waiting", _waiting),
    "queues": ("Queues", _queues),
    "schedules": ("Schedules", _schedules),
    "workers": ("Workers", _workers),
}
NAMES = tuple(_PLACES)


async def show(request: Request) -> Response:
    """GET /waiting, /queues, /schedules, /workers."""
    name = request.url.path.strip("/")
    title, look = _PLACES[name]
    if request.query_params.get("part") == "live":
        return live.stream(_follow(request, name, look))
    live_at = f"/{name}{shell.query(part='live', after=request.query_params.get('after'))}"
    done = request.query_params.get("done", "")
    values = await look(request)
    return shell.page(request, "place.html", name=name, title=title, live=live_at, done=done, **values)


async def _follow(request: Request, name: str, look: Look) -> AsyncIterator[bytes]:
    store, sent = Service.of(request).store, ""
    with live.Changes(store, pace=_PACE) as changes:
        while True:
            shown = shell.part(f"_{name}.html", now=store.clock.now(), **await look(request))
            yield live.message("place", {"html": shown}) if shown != sent else b": nothing\n\n"
            sent = shown
            await changes.next()


async def change_schedule(request: Request) -> Response:
    """POST /schedules: the field `do` says pause, resume or forget, `workflow` whose."""
    form = await shell.form(request)
    act, workflow = shell.only(form, "do"), form.get("workflow", [""])[0]
    if act not in ACTS:
        raise shell.Refused(400, "expected one of " + ", ".join(ACTS))
    try:
        if not await change(Service.of(request).store, workflow, act):
            raise shell.Refused(404, f"there is no schedule of {workflow!r} any more")
    except HoldfastError as error:
        raise shell.told(error) from error
    told = {"pause": "is paused", "resume": "is followed again", "forget": "is forgotten"}[act]
    return RedirectResponse(f"/schedules{shell.query(done=f'The schedule of {workflow} {told}')}", 303)
