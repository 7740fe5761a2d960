"""`migrate` and `prune`: what a store needs from time to time."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import output
from .frame import CHECK, command
from .options import DEFAULT_STORE, AsJson, StoreUrl, duration, ending
from .problem import Problem
from .stores import check_exists, connected

if TYPE_CHECKING:
    from ..prune import Pruned


@command(
    CHECK,
    ending(
        {
            0: "the store has the schema of this version",
            2: "cannot: no such store, or it was written by a newer version",
        },
        ["migrate --store postgresql://app@db/app"],
    ),
)
def migrate(store: StoreUrl = DEFAULT_STORE, as_json: AsJson = False) -> int:
    """Bring a store to the schema of this version.

    Safe while workers of the version before are at work, and when two processes do it at once. A SQLite store
    needs it never: whoever opens it first brings it up to date. An empty PostgreSQL database gets its tables.
    """
    applied = asyncio.run(_migrate(store))
    if as_json:
        output.data_json({"applied": applied})
    elif applied:
        for name in applied:
            output.data(name)
    else:
        output.note("the store is up to date")
    return 0


async def _migrate(url: str) -> list[str]:
    from ..store.url import open_store

    check_exists(url)
    store = open_store(url)
    store.at_rest.upgrade = True
    async with store:
        return list(store.at_rest.upgraded)


_ENDS = ("completed", "failed", "cancelled")
_KEPT = {
    "parent": "its parent has not heard of its end yet",
    "children": "children of it are still to be seen to",
    "schedule": "the schedule has not noted yet that its due time was seen to",
    "continued": "it goes on as a run that stays",
    "chain": "it goes on from a run that stays",
}


@command(
    CHECK,
    ending(
        {
            0: "what is old and needed by nobody is gone",
            2: "cannot: no such store, or a time that is none",
            130: "interrupted: what was removed until then is gone, the rest is whole",
        },
        [
            "prune --older-than 30d",
            "prune --older-than 12h --status completed --workflow fulfil",
            "prune --older-than 30d --dry-run --json",
        ],
    ),
)
def prune(
    older_than: Annotated[
        str,
        typer.Option(
            "--older-than", metavar="TIME", help="Runs that ended longer ago than this: 30d, 12h, 90min."
        ),
    ],
    status: Annotated[
        str | None,
        typer.Option("--status", metavar="STATUS", help="Only completed, failed or cancelled ones."),
    ] = None,
    workflow: Annotated[
        str | None, typer.Option("--workflow", metavar="NAME", help="Only those of this workflow.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Remove nothing; say what would be.")] = False,
    batch: Annotated[
        int, typer.Option("--batch", min=1, metavar="N", help="Runs of one transaction (100).")
    ] = 100,
    store: StoreUrl = DEFAULT_STORE,
    as_json: AsJson = False,
) -> int:
    """Remove runs that ended long ago, with their logs, hooks and streams.

    It works while others do: few runs at a time, and a pause after each transaction. What somebody still needs
    stays: a run whose parent has not heard of its end, and a chain of runs that goes on. Removed runs are
    forgotten: their ids may be taken again.
    """
    age = duration(older_than, "--older-than")
    if status is not None and status not in _ENDS:
        raise Problem(f"--status {status}: expected {', '.join(_ENDS[:-1])} or {_ENDS[-1]}")
    wish = {"status": status, "workflow": workflow, "dry_run": dry_run, "batch": batch}
    pruned = asyncio.run(_prune(store, age, wish))
    if as_json:
        output.data_json(
            {"runs": pruned.runs, "events": pruned.events, "kept": pruned.kept, "dry_run": dry_run}
        )
        return 0
    done = "would be removed" if dry_run else "removed"
    output.note(f"{_count(pruned.runs, 'run')} {done}, {_count(pruned.events, 'event')}")
    for reason, number in sorted(pruned.kept.items()):
        output.note(f"{_count(number, 'old run')} kept: {_KEPT[reason]}")
    return 0


async def _prune(url: str, age: float, wish: dict[str, Any]) -> Pruned:
    shown = sys.stderr.isatty()

    def progress(pruned: Pruned) -> None:
        if shown:
            sys.stderr.write(f"\r{_count(pruned.runs, 'run')} …")
            sys.stderr.flush()

    async with connected(url) as app:
        try:
            return await app.prune(age, progress=progress, **wish)
        finally:
            if shown:
                sys.stderr.write("\r\x1b[K")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
