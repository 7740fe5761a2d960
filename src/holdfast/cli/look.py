"""`runs`, `events`, `hooks`, `timers`: what a store holds, read without the code of its workflows."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from . import output
from .frame import LOOK, command
from .options import DEFAULT_STORE, AsJson, Attributes, Limit, RunId, StoreUrl, attributes_of, ending

if TYPE_CHECKING:
    from ..events import Event
    from ..store.base import Store
    from ..store.rows import Head, RunFilter


_NO_STORE = {2: "cannot: there is no such store"}
_NO_RUN = {2: "cannot: there is no such store or run"}
_CLASS_STYLES = {"fact": "cyan", "command": "bold", "record": "dim"}


# ---- runs --------------------------------------------------------------------------------------------------


@command(
    LOOK,
    ending(
        {0: "listed, if only an empty list", **_NO_STORE},
        ["runs --status running", "runs --workflow fulfil --attribute customer=ana", "runs --parked --json"],
    ),
)
def runs(
    status: Annotated[
        Literal["pending", "running", "completed", "failed", "cancelled"] | None,
        typer.Option(
            "--status", metavar="STATUS", help="Only pending, running, completed, failed or cancelled ones."
        ),
    ] = None,
    workflow: Annotated[
        str | None, typer.Option("--workflow", metavar="NAME", help="Only runs of this workflow.")
    ] = None,
    attribute: Attributes = None,
    parent: Annotated[
        str | None, typer.Option("--parent", metavar="RUN", help="Only the child runs of this run.")
    ] = None,
    root: Annotated[
        str | None, typer.Option("--root", metavar="RUN", help="Only this run and all that is below it.")
    ] = None,
    parked: Annotated[bool, typer.Option("--parked", help="Only runs that were set aside.")] = False,
    limit: Limit = 50,
    store: StoreUrl = DEFAULT_STORE,
    as_json: AsJson = False,
) -> int:
    """List runs, newest first."""
    from ..store.rows import RunFilter

    attributes = attributes_of(attribute) or None
    which = RunFilter(status, workflow, attributes, True if parked else None, parent, root)
    return asyncio.run(_runs(store, which, limit, as_json))


async def _runs(url: str, which: RunFilter, limit: int, as_json: bool) -> int:
    from ..store.rows import ALL
    from .stores import existing

    async with existing(url) as store:
        if as_json:
            async for head in store.all_runs(which, limit=limit or None):
                output.data_json(run_as_json(head))
            return 0
        now = store.clock.now()
        heads = [head async for head in store.all_runs(which, limit=limit + 1 if limit else None)]
        shown = heads[:limit] if limit else heads
        rows = [_run_row(head, now) for head in shown]
        if rows:
            output.table(["RUN", "STATUS", "CREATED", "TOOK", "WORKFLOW", "ATTRIBUTES"], rows)
        else:
            output.note("no runs" + (" like that" if which != ALL else f" in {url} yet"))
        if len(heads) > len(shown):
            output.note(f"the newest {limit}; --limit 0 lists all")
    return 0


def _run_row(head: Head, now: int) -> list[str]:
    word = "parked" if head.parked is not None else head.status
    took = output.span((head.ended or now) - head.created) if head.status != "pending" else ""
    attributes = " ".join(f"{name}={value}" for name, value in head.attributes.items())
    return [
        head.run,
        output.status(word),
        output.ago(head.created, now),
        took,
        output.clean(head.workflow),
        output.clean(attributes),
    ]


def run_as_json(head: Head) -> dict[str, Any]:
    """A run's row, as `runs --json` and `show --json` write it."""
    from ..clock import to_text

    return {
        "run": head.run,
        "workflow": head.workflow,
        "status": head.status,
        "created_at": to_text(head.created),
        "ended_at": None if head.ended is None else to_text(head.ended),
        "position": head.position,
        "attributes": head.attributes,
        "worker": head.owner,
        "parked": None if head.parked is None else json.loads(head.parked),
        "crashes": head.crashes,
        "parent": head.parent,
        "root": head.root or head.run,
    }


# ---- events ------------------------------------------------------------------------------------------------


@command(
    LOOK,
    ending(
        {0: "shown; with --follow: the run has ended", **_NO_RUN, 130: "interrupted"},
        ["events order-1", "events order-1 --follow --after 12", "events order-1 --json > order-1.jsonl"],
    ),
)
def events(
    run: RunId,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes, until the run ends.")
    ] = False,
    after: Annotated[
        int, typer.Option("--after", min=0, metavar="N", help="Only events beyond this position.")
    ] = 0,
    store: StoreUrl = DEFAULT_STORE,
    as_json: AsJson = False,
) -> int:
    """Show a run's log: what happened, in order.

    With --json each line is one event in the exported form, which `holdfast replay` reads.
    """
    return asyncio.run(_events(store, run, follow, after, as_json))


async def _events(url: str, run_id: str, follow: bool, after: int, as_json: bool) -> int:
    from .stores import existing, head_of

    async with existing(url) as store:
        head = await head_of(store, run_id)
        before: int | None = None
        async for page in _pages(store, run_id, after, head.position, follow=follow):
            for event in page:
                output.data(event.to_json().decode() if as_json else _event_line(event, before, head.created))
                before = event.time
            sys.stdout.flush()
    return 0


async def _pages(
    store: Store, run_id: str, after: int, last: int, *, follow: bool
) -> AsyncIterator[list[Event]]:
    from .follow import PAGE
    from .follow import follow as follow_log

    if follow:
        async for page in follow_log(store, run_id, after):
            yield page
        return
    while page := await store.read(run_id, after, PAGE):
        yield page
        after = page[-1].position
        if after >= last:  # what comes while we print is for --follow
            return


def _event_line(event: Event, before: int | None, created: int) -> str:
    """'   7  +1.2 s  step_completed  charge#1  {…}', the data cut to fit a terminal."""
    since = event.time - created
    gap = "" if before == event.time else f"+{output.span(since)}" if since else "+0 s"
    kind = output.paint(f"{event.type:<16}", _CLASS_STYLES[event.cls])
    line = f"{event.position:>4}  {gap:<9}  {kind}"
    if event.key:
        line += f"  {output.clean(event.key)}"
    body = output.clean(event.body.decode(errors="replace"))
    if body == "{}":
        return line.rstrip()
    total = output.terminal_width()
    room = None if total is None else total - output.width_of(line) - 2
    if room is not None and room < 8:
        return line
    return f"{line}  {output.paint(output.shorten(body, room), 'dim')}"
