"""A folder of trails, and the other processes that write in it."""

import sys
from pathlib import Path

import pytest

# What the tests share stands beside them; import-mode=importlib leaves these folders out of the path.
sys.path.insert(0, str(Path(__file__).parent))

from trail_kit import Writer

from holdfast.trail import TrailFolder


@pytest.fixture
def folder(tmp_path):
    return TrailFolder(tmp_path / ".trajectories", redact=None)


@pytest.fixture
def writer(folder):
    """Starts a process, and reaps it at the end of the test: `writer("tell", id, 50, "ana")`."""
    all = []

    def start(role, *args, at=None, **options):
        all.append(Writer(role, at or folder.root, *args, **options))
        return all[-1]

    yield start
    for one in all:
        one.reap()
