"""`Stage`, the fixture `durable`: real steps, a store in memory, and time that jumps only when it is asked to."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest

import holdfast as hf
from holdfast.testing import Stage, fault

tries: list[int] = []


@hf.step(name="stage.flaky", retries=3, backoff=hf.Backoff(initial=60, jitter=0))
async def flaky(fails: int) -> int:
    attempt = hf.step_info().attempt
    tries.append(attempt)
    if attempt <= fails:
        raise OSError("not yet")
    return attempt


@hf.step
def slow(seconds: float) -> str:
    time.sleep(seconds)  # the step takes this long: it is what the test is about
    return "done"


@hf.workflow(name="stage.month")
async def month(fails: int) -> str:
    tried = await flaky(fails)
    await hf.sleep(timedelta(days=30))
    return f"after {tried}"


@hf.workflow(name="stage.approval")
async def approval() -> str:
    hook = hf.hook("approve", type=bool)
    await asyncio.sleep(3600)
    try:
        async with asyncio.timeout(3 * 86400):
            return "approved" if await hook else "declined"
    except TimeoutError:
        return "too late"


@hf.workflow(name="stage.impatient")
async def impatient(seconds: float) -> str:
    async with asyncio.timeout(0.001):
        return await slow(seconds)


@hf.workflow
async def stage_waits_for_ever() -> None:
    await hf.hook("never")


@hf.workflow
async def stage_trips(cities: list[str]) -> None:
    for city in set(cities):
        hf.set_attributes(**{city: "seen"})


@pytest.fixture(autouse=True)
def forget() -> None:
    tries.clear()


def test_a_month_and_its_retries_pass_in_a_moment(durable: Stage) -> None:
    began, real = durable.now, time.monotonic()
    assert durable.execute(month, 2) == "after 3"
    assert tries == [1, 2, 3]
    assert durable.now - began >= timedelta(days=30, minutes=2)
    assert time.monotonic() - real < 60


def test_a_payload_comes_before_a_time_out_that_is_far_off(durable: Stage) -> None:
    run = durable.start(approval)
    assert run.hooks == ["approve"]
    began = durable.now
    run.until_hook("approve")
    assert durable.now - began == timedelta(hours=1), "it is not waited for before that"
    assert run.send("approve", True).status == "completed"
    assert run.result() == "approved"


def test_without_a_payload_time_goes_on(durable: Stage) -> None:
    assert durable.start(approval).play().result() == "too late"
    assert durable.start(approval).play([("approve", False)]).result() == "declined"


def test_advance_lets_pass_what_is_due_by_then_and_no_more(durable: Stage) -> None:
    run = durable.start(approval)
    durable.advance(timedelta(days=2))
    assert run.status == "running"
    durable.advance(timedelta(days=2))
    assert run.status == "completed"
    fired = [event for event in run.log if event.type == "timer_fired"]
    assert fired[1].at - fired[0].at == timedelta(days=3), "each at its time"


def test_time_does_not_jump_while_a_step_runs(durable: Stage) -> None:
    """The time-out of a millisecond is in the run's time, and the step takes fifty of ours."""
    assert durable.execute(impatient, 0.05) == "done"


def test_what_a_run_waits_for_is_told(durable: Stage) -> None:
    run = durable.start(stage_waits_for_ever)
    with pytest.raises(RuntimeError, match="waits for hook never"):
        run.result()
    with pytest.raises(RuntimeError, match="completed without waiting for a payload"):
        durable.start(month, 0).until_hook()
    with pytest.raises(hf.RunCancelled, match="enough"):
        run.cancel("enough").result()


def test_a_step_that_takes_too_long_is_named() -> None:
    with (
        Stage(patience=0.05) as durable,
        pytest.raises(TimeoutError, match=r"still waits for run_\w+/slow#1"),
    ):
        durable.start(impatient, 0.5)


def test_failures_are_those_of_a_real_run(durable: Stage) -> None:
    with pytest.raises(hf.RunFailed, match="not yet") as caught:
        durable.execute(month, 9)
    assert isinstance(caught.value.__cause__, OSError)
    assert durable.runs[0].calls("stage.flaky") == [{"fails": 9}]


def test_a_run_that_another_process_replays_differently_is_found_out(durable: Stage) -> None:
    with pytest.raises(AssertionError, match="does not replay to itself"):
        durable.execute(stage_trips, [f"city {number}" for number in range(12)])


async def test_in_an_async_test_it_is_the_same(durable: Stage) -> None:
    assert durable.execute(month, 0) == "after 1"
    assert await asyncio.to_thread(durable.execute, month, 0) == "after 1"


@pytest.mark.parametrize("point", ["store.commit.before", "store.commit.after"])
@pytest.mark.parametrize("on", [1, 2, 3, 4])
def test_a_store_that_fails_once_changes_nothing(durable: Stage, point: str, on: int) -> None:
    """L-13, L12: an append that was refused or not answered is sent again; no body runs twice."""
    run = durable.start(month, 0) if on > 1 else None
    tries.clear()
    with fault(point, on=on) as passed:
        assert durable.execute(month, 0) == "after 1"
        if run is not None:
            assert run.result() == "after 1"
    assert passed() >= on
    assert tries == [1]


def test_a_fault_is_armed_for_the_block_alone() -> None:
    with fault("store.commit.before") as passed:
        assert passed() == 0
        with pytest.raises(ValueError, match="armed already"), fault("store.commit.before"):
            pass
    with fault("store.commit.before"):
        pass
    with pytest.raises(ValueError, match="no fault point"), fault("store.commit"):
        pass
