"""What the tests of the engine share stands beside them; import-mode=importlib leaves this folder out."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import deciders

import holdfast as hf
from holdfast.client import App


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A store in memory that several apps of a test share."""
    return f"memory://{tmp_path}"


@pytest.fixture
async def app(url: str) -> AsyncIterator[App]:
    async with hf.connect(url) as app:
        yield app


@pytest.fixture(autouse=True)
def gates() -> None:
    """No gate of an earlier test is open."""
    deciders.gates.clear()
    deciders.bodies.clear()
