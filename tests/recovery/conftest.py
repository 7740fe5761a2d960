"""Children for the recovery tests."""

import sys
from pathlib import Path

import pytest

# What the tests share stands beside them; import-mode=importlib leaves these folders out of the path.
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "worker"))

from recovery_kit import Children


@pytest.fixture
def children(tmp_path):
    children = Children(tmp_path)
    yield children
    children.reap()
