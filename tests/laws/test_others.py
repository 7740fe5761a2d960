"""A worker among others: what it is not told, what another one has begun, and what it has to let go."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from patience import PATIENCE

import holdfast as hf
from holdfast.events import new
from holdfast.testing import ManualClock

bodies: list[int] = []


@hf.step(name="others.fails-once", retries=5, backoff=hf.Backoff(initial=60, jitter=0))
async def fails_once() -> int:
    bodies.append(hf.step_info().attempt)
    if hf.step_info().attempt == 1:
        raise OSError("at first")
    return hf.step_info().attempt


@hf.workflow
async def tries() -> int:
    return await fails_once()


@hf.workflow
async def listens() -> int:
    return await hf.hook("others", type=int)


async def settled(worker: Any) -> None:
    for _ in range(20):
        await asyncio.sleep(0)
        while worker.working:
            await asyncio.sleep(0)


async def test_a_notice_that_was_lost_costs_a_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """H-03, L14: the payload is committed, nobody is told; the slow poll finds what is behind its mark."""
    async with (
        hf.connect("memory://lost notice") as app,
        hf.connect("memory://lost notice") as sender,
        app.worker(poll=0.02) as worker,
    ):
        run = await app.start(listens)
        await settled(worker)
        with monkeypatch.context() as patch:
            patch.setattr(app.store, "tell", lambda news: None)
            await sender.resume("others", 7)
            await asyncio.sleep(0)  # the notice stands in the loop's queue, and is lost there
            await asyncio.sleep(0)
        assert await run.result(PATIENCE) == 7


@hf.workflow
async def dozes() -> str:
    await asyncio.sleep(0.2)
    return "rested"


async def test_a_sleeper_that_was_given_in_a_lost_answer_wakes_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """H-04, L14: nobody else may claim it, and it has no fact that this worker could be told of."""
    async with (
        hf.connect("memory://lost claim") as app,
        hf.connect("memory://lost claim") as other,
        app.worker(poll=0.02),
    ):
        claim = app.store.claim
        lost: list[str] = []

        async def unanswered(*args: Any, **more: Any) -> Any:
            claims = await claim(*args, **more)
            if claims:
                lost.extend(one.run for one in claims)
                monkeypatch.undo()
                raise hf.StoreError("the answer was lost")
            return claims

        async with other.worker(poll=600) as theirs:
            run = await other.start(dozes)
            await settled(theirs)
            monkeypatch.setattr(app.store, "claim", unanswered)
        assert await run.result(PATIENCE) == "rested"
        assert lost == [run.id]


@hf.workflow
async def nods() -> str:
    await asyncio.sleep(60)
    return "rested"


async def test_an_alarm_that_rings_while_the_store_does_not_answer_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """L14: the run is not in memory, and could not be looked up; the alarm does not ring twice (seeds 49, 282)."""
    clock = ManualClock()
    async with hf.connect("memory://", clock=clock) as app, app.worker(keep=1) as worker:
        sleeper = await app.start(nods)
        await app.start(listens)
        await settled(worker)
        assert not worker.runs.has(sleeper.id)
        refused: list[str] = []

        async def unreachable(run_id: str) -> Any:
            refused.append(run_id)
            raise hf.StoreError("the store cannot be reached")

        monkeypatch.setattr(app.store, "head", unreachable)
        clock.advance(60)
        await settled(worker)
        monkeypatch.undo()
        assert refused == [sleeper.id]
        clock.advance(60)
        assert await sleeper.result(timeout=10) == "rested"


async def test_a_killer_of_workers_is_parked_though_the_store_does_not_answer_at_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """H-07, L14: the worker that was given it could not park it, and nobody else may have it."""
    async with hf.connect("memory://killer") as app, hf.connect("memory://killer") as other:
        run = await other.start(listens)
        for _ in range(10):
            await app.store.crashed(run.id)

        async def unreachable(_run_id: str) -> Any:
            monkeypatch.undo()
            raise hf.StoreError("the store cannot be reached")

        monkeypatch.setattr(app.store, "head", unreachable)
        async with app.worker(poll=0.02), asyncio.timeout(10):
            while (parked := (await run.info()).parked) is None:
                await asyncio.sleep(0.01)
        assert "its ticks killed 10 workers" in str(parked)


@pytest.mark.parametrize("keep", [10, 1], ids=["", "others want its room"])
@pytest.mark.parametrize("ended", [True, False], ids=["it has failed there", "its worker is gone"])
async def test_an_attempt_that_another_worker_has_begun_is_left_to_it_and_taken_over(
    ended: bool, keep: int
) -> None:
    """L3, H-07: no second body for it; and the run does not wait for ever for what is no fact (seeds 168, 966)."""
    bodies.clear()
    clock = ManualClock()
    async with hf.connect("memory://", clock=clock) as app, app.worker(keep=keep) as worker:
        run = await app.start(tries)
        await settled(worker)
        assert bodies == [1]
        theirs = [new("step_started", key="others.fails-once#1", data={"attempt": 2, "worker": "wrk_other"})]
        clock.advance(60)  # the attempt that waits here is due, in the next turn: theirs comes before it
        if ended:
            error = {"type": "builtins:OSError", "message": "theirs"}
            data = {"attempt": 2, "error": error, "delay": 0, "due": clock.now()}
            theirs.append(new("step_retried", key="others.fails-once#1", data=data))
        await app.store.append(run.id, theirs)
        await settled(worker)
        await app.start(listens)
        assert await run.result(PATIENCE) == 3
    assert bodies == [1, 3]


async def test_a_run_that_is_let_go_while_its_log_is_read_is_not_replayed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R-04: code that nobody buries is closed by the garbage collector, its `finally` out in the world."""
    async with hf.connect("memory://") as app:
        await app.start(listens)
        reading, go_on = asyncio.Event(), asyncio.Event()
        read = app.store.read

        async def slowly(*args: Any, **more: Any) -> Any:
            events = await read(*args, **more)
            reading.set()
            await go_on.wait()
            return events

        monkeypatch.setattr(app.store, "read", slowly)
        async with app.worker() as worker:
            await reading.wait()
            [advance] = worker.runs.live.values()
            worker.deposed()
            go_on.set()
            await settled(worker)
            assert advance.closed
            assert advance.execution is None


@hf.workflow
async def listens_twice() -> list[int]:
    hook = hf.hook("twice", type=int)
    first = await hook
    await fails_once()
    return [first, await hook]


async def test_a_run_that_much_befell_before_its_first_tick_is_told_all_once() -> None:
    """L4, L6: who reads its log anew starts it no second time, and hears no payload twice (seed 425)."""
    clock = ManualClock()
    async with hf.connect("memory://", clock=clock) as app:
        run = await app.start(listens_twice)
        for _ in range(4):
            await run.wake()  # each stands before `run_started`
        async with app.worker() as worker:
            await settled(worker)
            await app.resume("twice", 1)
            await settled(worker)
        async with app.worker() as worker:
            await settled(worker)
            clock.advance(60)  # the second attempt
            await settled(worker)
            await app.resume("twice", 2)
            assert await run.result(PATIENCE) == [1, 2]


async def test_a_run_begun_by_a_worker_that_others_have_declared_dead_is_freed() -> None:
    """H-07: its first append lands under a name that is gone; whoever looks for the dead finds it (seed 319)."""
    async with hf.connect("memory://") as app:
        data = {"workflow": "listens", "args": {}, "seed": "0", "python": "3"}
        await app.store.append("begun", [new("run_created", data=data)], after=0, owner="wrk_gone")
        async with app.worker() as worker:
            await settled(worker)
            await app.resume("others", 7)
            assert await app.run("begun").result(PATIENCE) == 7
