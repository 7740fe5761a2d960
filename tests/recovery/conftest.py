"""Children for the recovery tests."""

import sys
from pathlib import Path

import pytest

# What the tests share stands beside them; import-mode=importlib leaves these folders out of the path.
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "worker"))

from recovery_kit import Children


@pytest.fixture(params=["sqlite", "postgres"])
def children(request, tmp_path):
    url = f"sqlite:///{tmp_path}/app.db"
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
    children = Children(tmp_path, url)
    yield children
    children.reap()


def pytest_collection_modifyitems(items):
    """Which passing of a fault point kills makes a difference to the worker, not to its store."""

    def doubled(item):
        params = getattr(item, "callspec", None) and item.callspec.params
        return bool(params) and params.get("children") == "postgres" and params.get("passing", 1) > 1

    items[:] = [item for item in items if not doubled(item)]
