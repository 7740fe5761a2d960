"""Workers that are killed while something is due: each due time has its one run all the same."""

import asyncio
import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from patience import PATIENCE
from worker_kit import told

import holdfast as hf
from holdfast.clock import from_text, to_datetime
from holdfast.verify import Verification

OFFICE = """
import holdfast as hf


@hf.workflow(schedule="* * * * * *", missed="all")
async def tick() -> str:
    return str(hf.run_info().due)
"""


@pytest.mark.parametrize("point", ["worker.schedule.due", "worker.schedule.started"])
async def test_kill_9_between_due_and_started_and_between_started_and_noted(
    tmp_path: Path, point: str
) -> None:
    """Two processes follow a schedule of every second; one dies in the middle: no second is left out."""
    (tmp_path / "office.py").write_text(OFFICE)
    url = f"sqlite:///{tmp_path}/app.db"
    async with hf.connect(url) as app:
        workers = [_worker(tmp_path, url, faults) for faults in (f"{point}=kill@2", "")]
        try:
            assert await asyncio.to_thread(workers[0].wait, 60) == -signal.SIGKILL
            [then] = await app.store.schedules()

            async def dues() -> list[int]:
                return sorted([from_text(run.id.partition("@")[2]) async for run in app.runs()])

            found = await told(app.store, dues, lambda seen: bool(seen) and seen[-1] > then.since + 2_000_000)
            first, last = to_datetime(found[0]), to_datetime(found[-1])
            assert len(found) == len(set(found)) == (last - first) // timedelta(seconds=1) + 1
            for due in found:
                run = app.run(f"tick@{to_datetime(due):%Y-%m-%dT%H:%M:%SZ}")
                assert await run.result(PATIENCE) == str(to_datetime(due))
        finally:
            for process in workers:
                if process.poll() is None:
                    process.terminate()
                await asyncio.to_thread(process.wait, 60)
        assert [problem async for problem in Verification(app.store).run()] == []


def _worker(folder: Path, url: str, faults: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "holdfast", "worker", "office.py", "--store", url],
        cwd=folder,
        env={**os.environ, "HOLDFAST_FAULTS": faults},
        stderr=subprocess.DEVNULL,
    )
