"""Stores and apps for the tests of the worker."""

import sys
from pathlib import Path

import pytest

# What the tests share stands beside them; import-mode=importlib leaves this folder out of the path.
sys.path.insert(0, str(Path(__file__).parent))

from worker_kit import Gate

import holdfast as hf


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def url(request, tmp_path):
    if request.param == "postgres":
        return request.getfixturevalue("postgres_url")
    return f"memory://{tmp_path}" if request.param == "memory" else f"sqlite:///{tmp_path}/app.db"


@pytest.fixture
def memory_url(tmp_path):
    return f"memory://{tmp_path}"


@pytest.fixture
async def app(url):
    async with hf.connect(url) as app:
        yield app


@pytest.fixture
async def working(app):
    async with app.worker():
        yield app
        Gate.open_all()


@pytest.fixture
async def memory(memory_url):
    """An app with a worker on a store in memory: where the store makes no difference."""
    async with hf.connect(memory_url) as app, app.worker():
        yield app
        Gate.open_all()
