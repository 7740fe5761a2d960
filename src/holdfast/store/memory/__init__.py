"""The store in memory: for tests, for simulation, and as the oracle that the other backends are held to.

`memory://` is private to its handle; `memory://name` is shared by every handle of the process, also by
handles that live on other threads' loops.
"""

from __future__ import annotations

from holdfast.clock import Clock
from holdfast.store.base import Store

from .data import Data
from .store import MemoryStore

__all__ = ["Data", "MemoryStore", "open_memory"]

_shared: dict[str, Data] = {}


def open_memory(url: str, clock: Clock | None = None) -> Store:
    """A handle on the memory store of this URL."""
    name = url.removeprefix("memory://")
    data = _shared.setdefault(name, Data()) if name else Data()
    return MemoryStore(url, clock, data)
