"""`migrate`: what a store needs from time to time."""

from __future__ import annotations

import asyncio

from . import output
from .frame import CHECK, command
from .options import DEFAULT_STORE, AsJson, StoreUrl, ending
from .stores import check_exists


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
