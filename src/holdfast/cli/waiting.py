"""`hooks` and `timers`: what runs wait for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import output
from .frame import LOOK, command
from .options import DEFAULT_STORE, AsJson, Limit, StoreUrl, ending

if TYPE_CHECKING:
    from ..store.base import Store
    from ..store.rows import Hook

_PAGE = 200
_NO_RUN = {2: "cannot: there is no such store or run"}
_OfRun = Annotated[str | None, typer.Option("--run", metavar="RUN", help="Only those of this run.")]


@command(
    LOOK, ending({0: "listed, if only an empty list", **_NO_RUN}, ["hooks", "hooks --run order-1 --all"])
)
def hooks(
    run: _OfRun = None,
    all_: Annotated[bool, typer.Option("--all", help="Closed hooks and those of ended runs too.")] = False,
    store: StoreUrl = DEFAULT_STORE,
    as_json: AsJson = False,
) -> int:
    """List the hooks at which runs wait for payloads.

    `holdfast resume TOKEN JSON` sends one.
    """
    return asyncio.run(_hooks(store, run, all_, as_json))


async def _hooks(url: str, run_id: str | None, everything: bool, as_json: bool) -> int:
    from .stores import existing, head_of

    async with existing(url) as store:
        if run_id is not None:
            await head_of(store, run_id)
        found = [hook async for hook in all_hooks(store, run=run_id, open_only=not everything)]
        if as_json:
            for hook in found:
                output.data_json(hook_as_json(hook))
            return 0
        now = store.clock.now()
        rows = [
            [
                output.clean(hook.token),
                output.status(hook.status),
                hook.run,
                output.ago(hook.opened, now),
            ]
            for hook in found
        ]
        below = ["" if hook.metadata is None else output.compact(hook.metadata) for hook in found]
        if rows:
            output.table(["TOKEN", "STATUS", "RUN", "OPENED"], rows, below=below)
        else:
            output.note("no hooks" if everything else "no open hooks")
    return 0


async def all_hooks(
    store: Store, *, run: str | None = None, open_only: bool = True, token: str | None = None
) -> AsyncIterator[Hook]:
    """Hooks by token, page by page."""
    after = None
    while True:
        page = await store.hooks(run=run, token=token, open_only=open_only, after=after, limit=_PAGE)
        for hook in page:
            yield hook
        if len(page) < _PAGE:
            return
        after = (page[-1].token, page[-1].run)


def hook_as_json(hook: Hook) -> dict[str, Any]:
    """A hook as `hooks --json` and `show --json` write it."""
    from ..clock import to_text

    return {
        "token": hook.token,
        "run": hook.run,
        "key": hook.key,
        "status": hook.status,
        "opened_at": to_text(hook.opened),
        "schema": hook.schema,
        "metadata": hook.metadata,
    }


@command(LOOK, ending({0: "listed, if only an empty list", **_NO_RUN}, ["timers"]))
def timers(
    run: _OfRun = None,
    limit: Limit = 50,
    store: StoreUrl = DEFAULT_STORE,
    as_json: AsJson = False,
) -> int:
    """List pending sleeps and time-outs, the earliest first."""
    return asyncio.run(_timers(store, run, limit, as_json))


async def _timers(url: str, run_id: str | None, limit: int, as_json: bool) -> int:
    from ..clock import to_text
    from .stores import existing, head_of

    async with existing(url) as store:
        if run_id is not None:
            await head_of(store, run_id)
        found = await store.timers(run=run_id, limit=limit or 1 << 60)
        if as_json:
            for timer in found:
                output.data_json({"run": timer.run, "key": timer.key, "due_at": to_text(timer.due)})
            return 0
        now = store.clock.now()
        rows = [[t.run, t.key, output.instant(t.due), output.due(t.due, now)] for t in found]
        if rows:
            output.table(["RUN", "TIMER", "DUE", ""], rows)
        else:
            output.note("no pending timers")
    return 0


@command(LOOK, ending({0: "listed, if only an empty list", 2: "cannot: there is no such store"}, ["queues"]))
def queues(store: StoreUrl = DEFAULT_STORE, as_json: AsJson = False) -> int:
    """List the queues in which steps wait or run: how many, and since when the oldest waits."""
    return asyncio.run(_queues(store, as_json))


async def _queues(url: str, as_json: bool) -> int:
    from ..clock import to_text
    from .stores import existing

    async with existing(url) as store:
        found, now = await store.queues(), store.clock.now()
    if as_json:
        for row in found:
            oldest = None if row.oldest is None else to_text(row.oldest)
            output.data_json(
                {"queue": row.name, "waiting": row.waiting, "running": row.running, "oldest_at": oldest}
            )
    elif found:
        output.table(
            ["QUEUE", "WAITING", "RUNNING", "OLDEST"],
            [
                [
                    output.clean(row.name),
                    str(row.waiting),
                    str(row.running),
                    "" if row.oldest is None else output.ago(row.oldest, now),
                ]
                for row in found
            ],
        )
    else:
        output.note("no step waits or runs in a queue")
    return 0
