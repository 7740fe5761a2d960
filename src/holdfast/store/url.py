"""From a URL to its backend."""

from __future__ import annotations

from ..clock import Clock
from ..errors import StoreError
from ..keys import Keys, keys_of_environment
from .base import Store


def open_store(url: str, *, clock: Clock | None = None, keys: Keys | None = None) -> Store:
    """A store for a URL: `memory://`, `sqlite:///rel.db`, `sqlite:////abs/x.db`, `postgresql://host/database`.

    `memory://name` is shared within the process. A PostgreSQL URL reaches the driver (asyncpg) unchanged.
    With `keys` (default: those of the file that $HOLDFAST_KEYS names), payloads are sealed (`sealed.py`).

    Example:
        async with open_store("memory://") as store: ...

    Raises StoreError for a URL that no backend knows, KeyMissing for keys that cannot be used.
    """
    store = _backend(url, clock)
    keys = keys or keys_of_environment()
    if keys is None:
        return store
    from .sealed import SealedStore

    return SealedStore(store, keys)  # type: ignore[abstract]  # see the end of sealed.py


def _backend(url: str, clock: Clock | None) -> Store:
    scheme, told, _ = url.partition("://")
    scheme = scheme if told else ""  # a bare word is none
    if scheme == "memory":
        from .memory import open_memory

        return open_memory(url, clock)
    if scheme == "sqlite":
        from .sqlite import SqliteStore

        return SqliteStore(url, clock)
    if scheme in ("http", "https"):
        try:
            from .http import HttpStore
        except ImportError as error:
            raise StoreError(
                f"{url}: a store behind a server needs the extra `server` ({error}): "
                "pip install 'holdfast[server]'"
            ) from None
        return HttpStore(url, clock)
    if scheme in ("postgresql", "postgres"):
        from .postgres import PostgresStore

        return PostgresStore(url, clock)
    raise StoreError(
        f"no backend for {url!r}: expected memory://, memory://name, sqlite:///relative.db, "
        "sqlite:////absolute/path.db, postgresql://user@host/database or http://host:port"
    )
