"""`holdfast.testing`: what users test their own workflows with."""

from __future__ import annotations

import asyncio
import gc
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from patience import PATIENCE

import holdfast as hf
from holdfast.errors import PayloadError, ReplayDivergence
from holdfast.replay import replay_run
from holdfast.testing import ManualClock, Rehearsal, run_workflow


@hf.step
async def charge(order: str) -> str: ...


@hf.step
async def remind(order: str) -> None: ...


@hf.workflow
async def fulfil(order: str) -> str:
    receipt = await charge(order)
    try:
        async with asyncio.timeout(3 * 86400):
            approved = await hf.hook(f"approve:{order}", type=bool)
    except TimeoutError:
        await remind(order)
        return "reminded"
    return f"{receipt}, {'approved' if approved else 'declined'}"


def test_a_run_is_played_to_its_end() -> None:
    run = run_workflow(fulfil, "o-1", steps={"charge": "r-1"}, payloads=[("approve:o-1", True)])
    assert run.result() == "r-1, approved"
    assert run.status == "completed"
    assert run.calls("charge") == [{"order": "o-1"}]


def test_where_nothing_else_can_happen_time_jumps() -> None:
    run = run_workflow(fulfil, "o-1", steps={"charge": "r-1", "remind": None})
    assert run.result() == "reminded"
    assert run.now == datetime(2026, 1, 4, tzinfo=UTC)


def test_a_step_may_be_a_function_or_an_exception() -> None:
    run = run_workflow(
        fulfil, "o-1", steps={"charge": lambda order: order.upper(), "remind": OSError("no mail")}
    )
    assert run.status == "failed"
    with pytest.raises(OSError, match="no mail"):
        run.result()


def test_what_is_not_said_is_asked_for() -> None:
    with pytest.raises(LookupError, match="charge was called"):
        run_workflow(fulfil, "o-1")

    @hf.workflow(name="waits for ever")
    async def waits_for_ever() -> None:
        await hf.hook("never")

    with pytest.raises(RuntimeError, match="waits for hook never"):
        run_workflow(waits_for_ever)


def test_a_run_is_played_by_hand() -> None:
    run = Rehearsal(fulfil, "o-1")
    assert run.steps == ["charge#1"]
    with pytest.raises(RuntimeError, match=r"waits for step charge#1"):
        run.result()
    with pytest.raises(LookupError, match=r"no step pack#1 is open; there are: charge#1"):
        run.complete("pack#1")
    with pytest.raises(PayloadError, match=r"charge#1 result: expected `str`, got `int`"):
        run.complete("charge#1", 5)
    run.complete("charge#1", "r-1")
    assert run.hooks == ["approve:o-1"]
    assert run.timers == ["sleep#1"]
    run.advance(timedelta(days=2))
    assert run.timers == ["sleep#1"]
    run.advance(timedelta(days=2))
    assert run.steps == ["remind#1"]
    run.complete("remind#1")
    assert run.result() == "reminded"
    replay_run(run.log)


def test_changed_code_is_found_out() -> None:
    run = run_workflow(fulfil, "o-1", steps={"charge": "r-1", "remind": None})

    @hf.workflow(name="fulfil, changed")
    async def changed(order: str) -> str:
        await charge(order)
        await remind(order)
        return "reminded"

    with pytest.raises(ReplayDivergence) as found:
        replay_run(run.log, changed)
    assert found.value.expected.startswith("timer_started sleep#1")
    assert found.value.asked.startswith("step_scheduled remind#1")


undone: list[str] = []


@hf.step
async def undo_for_real() -> None:
    undone.append("undone for real")


@hf.workflow
async def undoes_for_real() -> None:
    try:
        await charge("o-1")
    finally:
        await undo_for_real()


def test_a_rehearsal_that_is_dropped_half_way_runs_no_step_body() -> None:
    """Python closes coroutines that nobody refers to any more, and their `finally` calls steps."""
    Rehearsal(undoes_for_real)
    with Rehearsal(undoes_for_real):
        pass
    gc.collect()
    assert undone == []


# ---- the clock


@hf.workflow
async def sleeps_twice() -> list[str]:
    times = [hf.now().isoformat()]
    for _ in range(2):
        await hf.sleep(timedelta(days=1))
        times.append(hf.now().isoformat())
    return times


async def test_a_worker_sleeps_by_the_tests_clock() -> None:
    clock = ManualClock()
    async with hf.connect("memory://", clock=clock) as app, app.worker():
        run = await app.start(sleeps_twice)
        assert clock.next_alarm == clock.time + timedelta(days=1)
        clock.advance(86400)
        while len(await app.timers()) == 0 or clock.next_alarm is None:
            await asyncio.sleep(0)
        assert clock.jump()
        times = await run.result(PATIENCE)
    assert times == [f"2026-01-0{day}T00:00:00+00:00" for day in (1, 2, 3)]


async def test_a_clock_that_jumps_by_itself_needs_no_help() -> None:
    clock = ManualClock(autojump=0.001)
    async with hf.connect("memory://", clock=clock) as app, app.worker():
        times = await (await app.start(sleeps_twice)).result(PATIENCE)
    assert times[-1] == "2026-01-03T00:00:00+00:00"
    assert clock.time == datetime(2026, 1, 3, tzinfo=UTC)


async def test_alarms_ring_in_order_once_and_not_when_cancelled() -> None:
    clock = ManualClock()
    rung: list[Any] = []
    for seconds in (3, 1, 2, 1):
        clock.alarm(clock.now() + seconds * 1_000_000, lambda seconds=seconds: rung.append(seconds))
    clock.alarm(clock.now() + 1, lambda: rung.append("cancelled")).cancel()
    clock.alarm(clock.now(), lambda: rung.append("now"))
    await asyncio.sleep(0)
    assert rung == ["now"]
    clock.advance(2)
    assert rung == ["now"], "callbacks run on the loop"
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert rung == ["now", 1, 1, 2]
    assert clock.jump()
    assert not clock.jump()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert rung == ["now", 1, 1, 2, 3]
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(-1)


# ---- child runs --------------------------------------------------------------------------------------------


@hf.step(name="rehearsed.price")
async def price(item: str) -> int: ...


@hf.workflow(name="rehearsed.pay")
async def pay(item: str, days: int = 0) -> int:
    await hf.sleep(days * 86400)
    return await price(item)


@hf.workflow(name="rehearsed.order")
async def order(items: list[str], days: int) -> str:
    try:
        async with asyncio.timeout(2 * 86400):
            return str(sum(await asyncio.gather(*(pay(item, days) for item in items))))
    except TimeoutError:
        return "too late"
    except hf.RunCancelled as error:
        return f"cancelled: {error.reason}"


def test_child_runs_are_played_in_their_own_time() -> None:
    run = run_workflow(order, ["a", "bb"], 1, steps={"rehearsed.price": len})
    assert run.result() == "3"
    assert [child.calls("rehearsed.price") for child in run.played.values()] == [
        [{"item": "a"}],
        [{"item": "bb"}],
    ]
    assert run.played["rehearsed.pay#1"].log[0].data["parent"] == {
        "run": "rehearsal",
        "key": "rehearsed.pay#1",
    }
    late = run_workflow(order, ["a", "bb"], 3, steps={"rehearsed.price": len})
    assert late.result() == "too late"
    assert [e.type for e in late.log].count("child_cancelled") == 2


def test_child_runs_are_answered_like_steps() -> None:
    assert run_workflow(order, ["a"], 0, steps={"rehearsed.pay": lambda item, days: 7}).result() == "7"
    stopped = run_workflow(order, ["a"], 0, steps={"rehearsed.pay": hf.RunCancelled("", reason="enough")})
    assert stopped.result() == "cancelled: enough"


def test_child_runs_by_hand() -> None:
    run = Rehearsal(order, ["a", "b"], 0)
    assert run.children == ["rehearsed.pay#1", "rehearsed.pay#2"]
    run.complete("rehearsed.pay#2", 2)
    run.evict()
    run.complete("rehearsed.pay#1", 1)
    assert run.result() == "3"
    assert run.children == []
