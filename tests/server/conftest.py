"""A server, a client of its own, and a raw HTTP session that knows nothing of Holdfast."""

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

sys.path.insert(0, str(Path(__file__).parent / "kit"))
sys.path.insert(0, str(Path(__file__).parents[1] / "store" / "kit"))

from server_kit import ServerThread


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., ServerThread]]:
    """Start servers on the store of this test; all are stopped at its end."""
    started: list[ServerThread] = []

    def start(store: str = f"sqlite:///{tmp_path}/store.db", **settings: Any) -> ServerThread:
        started.append(ServerThread(store, **settings))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session
