from __future__ import annotations

import subprocess
import sys

import pytest

import holdfast

PUBLIC = [
    "App",
    "Backoff",
    "ChildRun",
    "Chunk",
    "DefinitionError",
    "DeliveryConflict",
    "FatalError",
    "HoldfastError",
    "Hook",
    "HookNotFound",
    "HookTaken",
    "NotDeterministic",
    "PayloadError",
    "Queue",
    "ReplayDivergence",
    "Request",
    "Response",
    "Resumed",
    "RetryAfter",
    "Run",
    "RunCancelled",
    "RunEnded",
    "RunExists",
    "RunFailed",
    "RunInfo",
    "RunNotFound",
    "RunSummary",
    "Signature",
    "StaleLog",
    "StepInfo",
    "StepLost",
    "StoreError",
    "Stream",
    "StreamEnded",
    "TooManyEvents",
    "connect",
    "continue_as_new",
    "execute",
    "heartbeat",
    "hook",
    "now",
    "patched",
    "queue",
    "random",
    "run_info",
    "set_attributes",
    "sleep",
    "step",
    "step_info",
    "stream",
    "trail",
    "uuid4",
    "webhook",
    "workflow",
]

HAD = "import asyncio, msgspec, sys; had = set(sys.modules)"


def brings(code: str = "pass") -> set[str]:
    """What `import holdfast` and `code` load in a fresh interpreter, beside asyncio and msgspec."""
    script = f"{HAD}; import holdfast; {code}; print(*set(sys.modules) - had)"
    command = [sys.executable, "-c", script]
    return set(subprocess.run(command, capture_output=True, check=True, text=True).stdout.split())


def test_the_public_names_are_these() -> None:
    assert sorted(holdfast.__all__) == sorted(PUBLIC)
    assert len(set(holdfast.__all__)) == len(holdfast.__all__)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_resolves(name: str) -> None:
    assert getattr(holdfast, name) is not None


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match=r"^module 'holdfast' has no attribute 'nothing'$"):
        _ = holdfast.nothing


def test_import_loads_neither_engine_nor_drivers() -> None:
    loaded = brings()
    assert "holdfast.workflow" in loaded
    ours = {"holdfast.engine", "holdfast.store", "holdfast.worker", "holdfast.client", "holdfast.cli"}
    theirs = {"apsw", "sqlite3", "jsonschema", "referencing", "rich", "typer", "click"}
    assert not loaded & (ours | theirs)


def test_import_loads_nothing_slow_that_it_does_not_need() -> None:
    """1.5 to 5 ms each; where a type of theirs is met, the codec imports them then."""
    slow = {"pathlib", "zoneinfo", "hashlib", "dataclasses", "urllib.parse", "tempfile"}
    assert not brings() & slow


def test_the_engine_comes_with_the_first_name_that_needs_it() -> None:
    loaded = brings("holdfast.connect")
    assert {"holdfast.client", "holdfast.engine"} <= loaded


def test_import_stays_small() -> None:
    """DESIGN §9 allows 100 ms with the interpreter; what can be counted is modules, of ours and of Python's."""
    assert len(brings()) <= 34
