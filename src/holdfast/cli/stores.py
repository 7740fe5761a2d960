"""Reaching a store: one that must be there already, or one that may be created."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..store.base import Store
from ..store.rows import Head
from ..store.url import open_store
from .problem import Problem, did_you_mean

if TYPE_CHECKING:
    from ..client import App


@contextlib.asynccontextmanager
async def existing(url: str) -> AsyncIterator[Store]:
    """A store that is there; nothing is created for a command that only looks."""
    check_exists(url)
    async with open_store(url) as store:
        yield store


@contextlib.asynccontextmanager
async def connected(url: str, *, create: bool = False) -> AsyncIterator[App]:
    """An app on a store that is there or, with `create`, on one that may be made."""
    from ..client import connect

    _check_named(url)
    if not create:
        check_exists(url)
    async with connect(url) as app:
        yield app


def _check_named(url: str) -> None:
    if not url:
        raise Problem("--store: expected a URL, got nothing")


def check_exists(url: str) -> None:
    """See that a URL names a store that other processes can have made."""
    _check_named(url)
    scheme = url.partition("://")[0]
    if scheme == "memory":
        raise Problem(
            f"{url} lives and ends with its process: another one finds nothing there",
            hint="name a store that lasts, for example --store sqlite:///app.db",
        )
    if scheme != "sqlite":
        return
    from ..store.sqlite.connect import path_of

    path = Path(path_of(url))
    if path.is_dir():
        raise Problem(f"{path} is a directory, not a store file")
    if not path.exists():
        raise Problem(
            f"no store at {path}",
            hint="`holdfast run MODULE:WORKFLOW` creates one; name another with --store or HOLDFAST_URL",
        )
    if path.stat().st_size == 0 and not Path(f"{path}-wal").exists():
        raise Problem(f"{path} is an empty file, not a store")


async def head_of(store: Store, run_id: str) -> Head:
    """A run's row; where there is none, names that are near."""
    # A word that is no text (bytes that are not UTF-8) cannot be an id, and not every store takes it.
    head = await store.head(run_id) if run_id.isprintable() else None
    if head is not None:
        return head
    known = [row.run for row in await store.runs(limit=1000)]
    hint = did_you_mean(run_id, known) or "`holdfast runs` lists those that there are"
    raise Problem(f"no run {run_id!r} in {store.url}", hint=hint)
