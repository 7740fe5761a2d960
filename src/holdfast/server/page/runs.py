"""The list of runs: chosen by status, workflow and words, page by page, as it changes; many cancelled at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from ...errors import RunEnded, RunNotFound
from ...events import new
from ...store.base import Store
from ..service import Service
from . import live, shell
from .chosen import STATUSES, Chosen, every, page_of

_TOGETHER = 200
"""Cancellations that are on their way at one time; the store commits them together."""


async def show(request: Request) -> Response:
    """A page of the list."""
    store = Service.of(request).store
    chosen = Chosen.of(request.query_params)
    page = await page_of(store, chosen)
    return shell.page(
        request,
        "runs.html",
        chosen=chosen,
        page=page,
        first=page.heads[0] if page.heads else None,
        done=request.query_params.get("done", ""),
        **await _counts(store, chosen),
    )


async def _counts(store: Store, chosen: Chosen) -> dict[str, Any]:
    """How many runs each status and each workflow has; statuses within the workflow that is chosen."""
    tally = await store.tally()
    statuses = dict.fromkeys(STATUSES, 0)
    workflows: dict[str, int] = {}
    for (workflow, status), number in tally.items():
        if chosen.workflow in ("", workflow):
            statuses[status] = statuses.get(status, 0) + number
        if status != "parked":
            workflows[workflow] = workflows.get(workflow, 0) + number
    whole = sum(number for status, number in statuses.items() if status != "parked")
    return {"statuses": statuses, "workflows": dict(sorted(workflows.items())), "whole": whole}


async def follow(request: Request) -> Response:
    """The list as it changes: rows by run, and the counts."""
    return live.stream(_follow(Service.of(request).store, Chosen.of(request.query_params)))


async def _follow(store: Store, chosen: Chosen) -> AsyncIterator[bytes]:
    with live.Changes(store) as changes:
        counted = await _counts(store, chosen)
        yield live.message("hello", {})
        while True:
            named = await changes.next()
            if named is None:
                heads = (await page_of(store, chosen)).heads
            else:
                heads = [head for run in named if (head := await store.head(run)) is not None]
            now = store.clock.now()
            rows = [
                {
                    "run": head.run,
                    "created": head.created,
                    "fits": chosen.fits(head),
                    "html": shell.part("_run_row.html", head=head, now=now, chosen=chosen),
                }
                for head in heads
            ]
            counts, counted = counted, await _counts(store, chosen)
            tabs = shell.part("_tabs.html", chosen=chosen, **counted) if counts != counted else ""
            yield live.message("rows", {"rows": rows, "tabs": tabs}) if rows or tabs else b": nothing\n\n"


async def cancel(request: Request) -> Response:
    """Ask many runs to cancel: those that were ticked, or all that the list's filters let through."""
    store = Service.of(request).store
    form = await shell.form(request)
    reason = shell.only(form, "reason")
    chosen = Chosen.of({name: values[0] for name, values in form.items()})
    if "everything" in form:
        runs = [head.run async for head in every(store, chosen)]
    else:
        runs = form.get("run", [])
    asked = await _ask(store, runs, reason)
    other = len(runs) - asked
    done = f"{asked} run{'s' * (asked != 1)} asked to cancel" + (f", {other} had ended" if other else "")
    return RedirectResponse(chosen.address(done=done), 303)


async def _ask(store: Store, runs: Iterable[str], reason: str) -> int:
    """How many took the request; those that have ended cannot."""

    async def ask(run: str) -> bool:
        try:
            await store.append(run, [new("cancel_requested", data={"reason": reason})])
        except (RunEnded, RunNotFound):
            return False
        return True

    todo, asked = list(runs), 0
    for start in range(0, len(todo), _TOGETHER):
        asked += sum(await asyncio.gather(*(ask(run) for run in todo[start : start + _TOGETHER])))
    return asked
