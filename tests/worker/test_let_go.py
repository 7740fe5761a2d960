"""A worker that lets go of a run while it reads its log: nothing of the run lives on in this process (R-04).

Found by `holdfast stress chaos`: a paused worker was declared dead, came back and let go of its runs; those that
it was just loading were replayed all the same, and later their `finally` blocks ran from the garbage collector,
with steps as the plain functions that they are outside of a workflow.
"""

import asyncio
import gc

import pytest
from patience import PATIENCE
from worker_kit import logged

import holdfast as hf

ran: list[str] = []


@hf.step(name="let-go.clean-up")
async def clean_up() -> None:
    ran.append("clean_up")


@hf.workflow(name="let-go.waits")
async def waits(token: str) -> None:
    try:
        await hf.hook(token)
    finally:
        await clean_up()


@pytest.mark.parametrize("reads", ["the whole log", "what is new"])
async def test_a_run_that_is_let_go_while_its_log_is_read_is_not_replayed(monkeypatch, caplog, reads):
    """R-04, L-15: no execution is made for a run that is another worker's by now."""
    ran.clear()
    asked, go_on = asyncio.Event(), asyncio.Event()
    async with (
        hf.connect("memory://let-go") as app,
        app.worker(keep=0 if reads == "the whole log" else 9) as worker,
    ):
        run = await app.start(waits, "token", run_id=f"let-go of {reads}")
        await logged(app, run.id, "hook_opened")
        read = app.store.read

        async def slowly(*args, **kwargs):
            asked.set()
            await go_on.wait()
            return await read(*args, **kwargs)

        monkeypatch.setattr(app.store, "read", slowly)
        worker.runs.wake(run.id, "let-go.waits")
        await asyncio.wait_for(asked.wait(), PATIENCE)
        worker.deposed()
        go_on.set()
        while worker._tasks:
            await asyncio.sleep(0)
        monkeypatch.undo()
        for _ in range(3):
            gc.collect()
            await asyncio.sleep(0)
        assert ran == []
        assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []
        await run.terminate()
