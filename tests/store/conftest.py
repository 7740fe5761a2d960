"""The conformance suite of the stores: one suite, every backend.

A backend joins by one line in `BACKENDS`: its name, and an async function that opens a store in a place (a
folder of the test's own). Two handles opened in one place are two views on the same data.
"""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

# The builders of drafts; import-mode=importlib puts no folder of tests into the path.
sys.path.insert(0, str(Path(__file__).parent / "kit"))
sys.path.insert(0, str(Path(__file__).parents[1] / "server" / "kit"))

from server_kit import ServerThread
from store_kit import TestClock

from holdfast import faults
from holdfast.clock import Clock
from holdfast.keys import Keys
from holdfast.store import Store, open_store

Opener = Callable[[Path, Clock | None], Awaitable[Store]]


async def open_memory(place: Path, clock: Clock | None = None) -> Store:
    store = open_store(f"memory://{place}", clock=clock)
    await store.open()
    return store


async def open_sqlite(place: Path, clock: Clock | None = None) -> Store:
    store = open_store(f"sqlite:///{place}/store.db", clock=clock)
    await store.open()
    return store


async def open_sealed(place: Path, clock: Clock | None = None) -> Store:
    """SQLite behind a seal: what is true of a store stays true where its payloads are encrypted."""
    keys = Keys({"2026": b"k" * 32})
    store = open_store(f"sqlite:///{place}/store.db", clock=clock, keys=keys)
    await store.open()
    return store


async def open_http(place: Path, clock: Clock | None = None) -> Store:
    """A client of a server on a store of this place; the server stays until the place is closed."""
    if place not in servers:
        servers[place] = ServerThread(f"sqlite:///{place}/store.db", clock=clock)
    store = open_store(servers[place].url, clock=clock)
    await store.open()
    return store


servers: dict[Path, ServerThread] = {}
BACKENDS: dict[str, Opener] = {
    "memory": open_memory,
    "sqlite": open_sqlite,
    "sealed": open_sealed,
    "http": open_http,
}


class Place:
    """Where one test's data lie; `open` gives one more handle, closed at the end of the test."""

    def __init__(self, name: str, folder: Path) -> None:
        self.backend = name
        self.folder = folder
        self.clock = TestClock()
        self._opened: list[Store] = []

    async def open(self, clock: Clock | None = None) -> Store:
        store = await BACKENDS[self.backend](self.folder, clock or self.clock)
        self._opened.append(store)
        return store

    async def reopen(self, store: Store) -> Store:
        """What another process would see after this one is gone."""
        await store.close()
        self._opened.remove(store)
        return await self.open()

    async def close(self) -> None:
        for store in self._opened:
            await store.close()
        server = servers.pop(self.folder, None)
        if server is not None:
            server.stop()


@pytest.fixture(params=BACKENDS)
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    place = Place(request.param, tmp_path)
    yield place
    faults.disarm()
    await place.close()


@pytest.fixture
async def store(place: Place) -> Store:
    return await place.open()


@pytest.fixture
def clock(place: Place) -> TestClock:
    return place.clock
