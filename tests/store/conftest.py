"""The conformance suite of the stores: one suite, every backend.

A backend joins by one line in `BACKENDS`: its name, and how a store is opened in a place. Two handles opened in
one place are two views on the same data.
"""

import sys
from collections.abc import AsyncIterator, Callable
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

KEYS = Keys({"2026": b"k" * 32})


class Place:
    """Where one test's data lie; `open` gives one more handle, closed at the end of the test."""

    def __init__(self, name: str, folder: Path, request: pytest.FixtureRequest) -> None:
        self.backend = name
        self.folder = folder
        self.clock = TestClock()
        self._request = request
        self._opened: list[Store] = []
        self._server: ServerThread | None = None

    def postgres(self) -> str:
        """A database without rows."""
        return str(self._request.getfixturevalue("postgres_url"))

    def served(self, clock: Clock) -> str:
        """A server on a store of this place; it stays until the place is closed."""
        if self._server is None:
            self._server = ServerThread(f"sqlite:///{self.folder}/store.db", clock=clock)
        return self._server.url

    async def open(self, clock: Clock | None = None) -> Store:
        store = BACKENDS[self.backend](self, clock or self.clock)
        await store.open()
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
        if self._server is not None:
            self._server.stop()


BACKENDS: dict[str, Callable[[Place, Clock], Store]] = {
    "memory": lambda place, clock: open_store(f"memory://{place.folder}", clock=clock),
    "sqlite": lambda place, clock: open_store(f"sqlite:///{place.folder}/store.db", clock=clock),
    # What is true of a store stays true where its payloads are encrypted.
    "sealed": lambda place, clock: open_store(f"sqlite:///{place.folder}/store.db", clock=clock, keys=KEYS),
    "http": lambda place, clock: open_store(place.served(clock), clock=clock),
    "postgres": lambda place, clock: open_store(place.postgres(), clock=clock),
}


@pytest.fixture(params=BACKENDS)
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    place = Place(request.param, tmp_path, request)
    yield place
    faults.disarm()
    await place.close()


@pytest.fixture
async def store(place: Place) -> Store:
    return await place.open()


@pytest.fixture
def clock(place: Place) -> TestClock:
    return place.clock
