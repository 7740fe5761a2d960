"""The pytest plug-in: the fixture `durable`, and the logs of its runs in the report of a test that fails.

pytest loads it by its entry point wherever Holdfast is installed, so it imports nothing that a test without
workflows has no use for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .stage import Stage


@pytest.fixture
def durable() -> Iterator[Stage]:
    """A store in memory and a worker, with a clock that jumps over sleeps: `durable.execute(workflow, …)`.

    See `holdfast.testing.Stage`.
    """
    from .stage import Stage

    with Stage() as stage:
        yield stage


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    report = yield
    stage: Stage | None = getattr(item, "funcargs", {}).get("durable")
    if call.when == "call" and report.failed and stage is not None:
        for run in getattr(stage, "runs", ()):
            with contextlib.suppress(Exception):  # a stage that is broken is what the test has found
                lines = [f"{e.position:>4} {e.type} {e.key} {e.body.decode():.300}" for e in run.log]
                report.sections.append((f"the log of {run.id}", "\n".join(lines)))
    return report
