"""A run with very many steps at once, and the death of the worker that had begun a few of them."""

import asyncio
import signal

from patience import PATIENCE
from recovery_flows import wide
from recovery_kit import effects, wait_until
from worker_kit import assert_one_end, log_of, of_type

import holdfast as hf


async def test_only_what_ran_is_lost(children, tmp_path):
    """H-12: of 1,000 steps 5 ran; the other 995 had not begun, and are not lost with them."""
    gate = tmp_path / "gate"
    async with hf.connect(children.url) as app:
        run = await app.start(wide, str(children.effects), str(gate), 1000, run_id="wide")
        child = children.worker("concurrency=5")
        await asyncio.to_thread(wait_until, lambda: len(effects(children.effects)) >= 5, "five bodies")
        child.signal(signal.SIGKILL)
        await asyncio.to_thread(child.process.wait)
        begun = {event.key for event in of_type(await log_of(app, "wide"), "step_started")}
        assert len(begun) == 5
        gate.touch()
        async with app.worker(concurrency=100):
            assert await run.result(PATIENCE) == ["StepLost"] * 5
        events = await log_of(app, "wide")
        assert_one_end(events)
        assert {event.key for event in of_type(events, "step_failed")} == begun
        assert len(of_type(events, "step_completed")) == 995
        assert all(attempts == [1] for attempts in effects(children.effects).values())
