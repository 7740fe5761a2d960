"""What holds for every test: profiles of hypothesis, and nothing is left behind."""

import gc
import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# What tests of several folders use; import-mode=importlib puts no folder of tests into the path.
sys.path.insert(0, str(Path(__file__).parent / "kit"))

import postgres_kit
from patience import PATIENCE

from holdfast import faults

_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("dev", max_examples=25, deadline=None, suppress_health_check=_SLOW)
settings.register_profile(
    "ci", max_examples=50, deadline=None, derandomize=True, print_blob=True, suppress_health_check=_SLOW
)
settings.register_profile("nightly", max_examples=5000, deadline=None, suppress_health_check=_SLOW)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Half as many again as there are processors: tests wait for disks, and for processes that begin."""
    return (os.cpu_count() or 2) * 3 // 2


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """What was imported until now stays: the collector need not look at it again and again.

    What tests write is not kept in compiled form: Python tells a file from what stood there before by its size and
    by whole seconds, and tests are quicker than that.
    """
    gc.collect()
    gc.freeze()
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"


def _loggers() -> dict[logging.Logger, tuple[int, bool, list[logging.Handler], bool]]:
    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "holdfast"]
    found = [logging.getLogger(name) for name in names]
    return {log: (log.level, log.propagate, list(log.handlers), log.disabled) for log in found}


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """No test leaves a thread running, a fault point armed or a logger other than it was."""
    before, loggers = set(threading.enumerate()), _loggers()
    yield
    for log, (level, propagates, handlers, disabled) in loggers.items():
        log.setLevel(level)
        log.propagate, log.handlers, log.disabled = propagates, handlers, disabled
    armed = list(faults._armed)
    faults.disarm()
    assert not armed, f"fault points left armed: {', '.join(armed)}"
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE)  # one that was told to end may still be about to
        assert not thread.is_alive(), f"{thread.name} is still running"


@pytest.fixture(scope="session")
def postgres() -> Iterator[postgres_kit.Databases]:
    """A PostgreSQL server; skips, or with CI fails, where there is none."""
    postgres_kit.skip_or_fail()
    databases = postgres_kit.databases()
    yield databases
    databases.remove()


@pytest.fixture
def postgres_url(postgres: postgres_kit.Databases) -> str:
    """A database without rows, for this test alone."""
    return postgres.empty()
