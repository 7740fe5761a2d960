"""From a URL to its backend."""

from __future__ import annotations

from ..clock import Clock
from ..errors import StoreError
from .base import Store


def open_store(url: str, *, clock: Clock | None = None) -> Store:
    """A store for a URL: `memory://`, `memory://name`, `sqlite:///rel.db`, `sqlite:////abs/x.db`.

    Example:
        async with open_store("memory://") as store: ...

    Raises StoreError for a URL that no backend knows.
    """
    scheme = url.partition("://")[0]
    if scheme == "memory":
        from .memory import open_memory

        return open_memory(url, clock)
    if scheme == "sqlite":
        from .sqlite import SqliteStore

        return SqliteStore(url, clock)
    raise StoreError(
        f"no backend for {url!r}: expected memory://, memory://name, sqlite:///relative.db "
        "or sqlite:////absolute/path.db"
    )
