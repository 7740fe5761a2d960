"""Workers of a queue that die with steps in their hands: others take those, and no place is lost."""

import asyncio
import signal

import pytest
from patience import PATIENCE
from recovery_flows import book
from recovery_kit import assert_as_if_nothing_had_happened
from worker_kit import assert_one_end, log_of, of_type

import holdfast as hf

POINTS = [
    "worker.queue.taken",
    "worker.queue.begun",
    "worker.queue.ended",
    "worker.step.before",
    "worker.step.after",
    "store.commit.before",
    "store.commit.after",
]


@pytest.mark.parametrize("passing", [1, 3])
@pytest.mark.parametrize("point", POINTS)
async def test_kill_9_of_a_worker_that_has_taken_steps(children, point, passing):
    """L-17 for queues: each page is printed once as far as the log goes, and the queue is empty at the end."""
    path = str(children.effects)
    async with hf.connect(children.url) as app, app.worker(queues=[]):
        run = await app.start(book, path, 4, run_id="book")
        child = children.start("press", faults=f"{point}=kill@{passing}")
        assert await asyncio.to_thread(child.process.wait, PATIENCE) == -signal.SIGKILL, child.said()
        async with hf.connect(children.url) as other, other.worker(runs=False):
            assert await run.result(PATIENCE) == 6
        events = await log_of(app, run.id)
        assert_one_end(events)
        assert_as_if_nothing_had_happened(run.id, events, children.effects, steps=4)
        assert await app.store.queues() == []


async def test_a_paused_worker_comes_back_to_a_step_that_another_has_done(children):
    """L-15: its outcome is late and changes nothing; the place that it held was freed once, not twice."""
    path = str(children.effects)
    async with hf.connect(children.url) as app, app.worker(queues=[], lease=0.3, probe=0.05):
        child = children.start("press", faults="worker.step.after=stop@1")
        run = await app.start(book, path, 1, run_id="book")
        await asyncio.to_thread(_until_stopped, child.process.pid)
        for row in await app.store.workers():
            if row.pid == child.process.pid:
                await app.store.discharge(row.id)  # as whoever sees its lease run out does
        async with hf.connect(children.url) as other, other.worker(runs=False):
            assert await run.result(PATIENCE) == 0
            child.signal(signal.SIGCONT)
            assert await asyncio.to_thread(child.leave) == 0, child.said()
        starts = of_type(await log_of(app, run.id), "step_started")
        assert [event.data.get("reason") for event in starts] == [None, "recovered"]
        done = of_type(await log_of(app, run.id), "step_completed")
        assert [event.data["attempt"] for event in done] == [2, 1]
        assert_one_end(await log_of(app, run.id), deciders=2)


def _until_stopped(pid: int) -> None:
    """Wait until the kernel says that the process is stopped."""
    from pathlib import Path

    from recovery_kit import wait_until

    wait_until(lambda: ") T " in Path(f"/proc/{pid}/stat").read_text(), "the worker to stop")
