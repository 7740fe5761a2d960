"""The hook-sleep stress of RACES.md, scaled for CI: 100 runs at once, each sleeping against ten payloads."""

import asyncio
import time
from collections import Counter

import pytest
from patience import PATIENCE
from worker_kit import assert_one_end, log_of, of_type

import holdfast as hf
from holdfast.engine.tick import replay

COUNT, ITERATIONS = 100, 8
SLEEP_MS, BRANCH_MS, BRANCHES, DRAIN_MS = 80, 15, 2, 8
FIRE_AFTER_MS, FIRE_COUNT = 300, 10

bodies: Counter[tuple[str, int]] = Counter()


@hf.step(name="hook-sleep.quick")
async def quick_step(i: int) -> int:
    bodies[hf.step_info().key, hf.step_info().attempt] += 1
    return i


@hf.step(name="hook-sleep.drain")
async def drain_step(i: int, payload: int) -> int:
    bodies[hf.step_info().key, hf.step_info().attempt] += 1
    await asyncio.sleep(DRAIN_MS / 1000)
    return payload


@hf.workflow(name="hook-sleep")
async def hook_sleep(token: str) -> list[int]:
    hook = hf.hook(token, type=int)
    pending: asyncio.Task[int] | None = None
    drained = []
    for i in range(ITERATIONS):
        await quick_step(i)
        pending = pending or asyncio.create_task(hook.next())
        nap = asyncio.create_task(asyncio.sleep(SLEEP_MS / 1000))
        done, _ = await asyncio.wait([pending, nap], return_when=asyncio.FIRST_COMPLETED)
        if pending not in done:
            await asyncio.gather(*(asyncio.sleep(BRANCH_MS / 1000) for _ in range(BRANCHES)))
            continue
        nap.cancel()
        drained.append(await drain_step(i, pending.result()))
        pending = None
    return drained


async def fire(app, token):
    """Ten payloads, one after the other; gives how many were accepted, and why the next one was not."""
    accepted, refused = 0, []
    for n in range(FIRE_COUNT):
        try:
            await app.resume(token, n)
        except hf.HookNotFound as error:
            refused.append(error.reason)
            break
        accepted += 1
    return accepted, refused


@pytest.mark.parametrize("senders", ["the worker's process", "another handle"])
async def test_hook_sleep(url, senders, record_property):
    """L-01, L-06, H-01, R-03: all completed, one end each, no payload lost, doubled or out of order."""
    bodies.clear()
    begun = time.perf_counter()
    async with hf.connect(url) as app, hf.connect(url) as outside, app.worker() as worker:
        sender = app if senders == "the worker's process" else outside
        names = [f"hs-{n}" for n in range(COUNT)]
        runs = await asyncio.gather(*(app.start(hook_sleep, name, run_id=name) for name in names))
        await asyncio.sleep(FIRE_AFTER_MS / 1000)  # the stress's own parameter
        answers = await asyncio.gather(*(fire(sender, name) for name in names))
        results = await asyncio.gather(*(run.result(PATIENCE) for run in runs))
        seconds = time.perf_counter() - begun
        accepted = read = unread = 0
        for name, (taken, refused), drained in zip(names, answers, results, strict=True):
            events = await log_of(app, name)
            assert_one_end(events)
            assert len(of_type(events, "hook_received")) == taken
            assert refused in ([], ["run_ended"])
            end = of_type(events, "run_completed")[0]
            assert drained == list(range(len(drained))), "in order, none skipped"
            left = await app.run(name).unread()
            assert end.data["read"] + left == taken
            assert end.data["read"] - len(drained) in {0, 1}
            accepted, read, unread = accepted + taken, read + end.data["read"], unread + left
            replay(hook_sleep, events).bury()
        assert accepted > COUNT
        assert set(bodies.values()) == {1}
    figures = {"seconds": round(seconds, 2), "accepted": accepted, "read": read, "unread": unread}
    figures["refused appends"] = worker.refusals
    record_property("hook-sleep", figures)
    print(figures)
