"""Runs without a store: until a hook, to the end, and with a crash after each event."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

import holdfast as hf
from holdfast.testing import Rehearsal, crash_check, run_until_hook, run_workflow

seen: list[str] = []


@hf.step
async def fetch(what: str) -> str: ...


@hf.workflow
async def checkout(item: str) -> str:
    got = await fetch(item)
    first = hf.hook("first", type=int)
    await hf.sleep(timedelta(days=1))
    async with asyncio.timeout(60):
        paid = await first
    second = await hf.hook("second", type=int)
    return f"{got} {paid} {second}"


@hf.workflow
async def remembers(item: str, often: int) -> int:
    seen.append(item)  # outside of the run: nobody finds it there after a crash
    await fetch(item)
    if len(seen) > often:
        await fetch("again")
    return 1


@hf.workflow
async def once() -> str:
    return await fetch("x")


def test_it_stops_where_the_code_waits_for_a_payload() -> None:
    run = run_until_hook(checkout, "lamp", steps={"fetch": str.upper})
    began = run.log[0].at
    assert (run.awaited, run.hooks) == (["first"], ["first"])
    assert run.now - began == timedelta(days=1), "the sleep is over, the time-out is not"
    run.send("first", 1)
    assert run.until_hook().awaited == ["second"]
    run.send("second", 2)
    assert run.play().result() == "LAMP 1 2"


def test_the_hook_may_be_named() -> None:
    run = Rehearsal(checkout, "lamp", steps={"fetch": "x"})
    with pytest.raises(RuntimeError, match="failed without waiting for a payload at hook 'second'"):
        run.until_hook("second")  # nobody pays, and the time-out comes
    with pytest.raises(RuntimeError, match="without waiting for a payload"):
        run_until_hook(remembers, "x", 9, steps={"fetch": "x"})


def test_a_step_is_not_answered_by_an_async_function() -> None:
    async def answer(what: str) -> str:
        return what

    with pytest.raises(TypeError, match="expected a plain function for fetch"):
        run_until_hook(checkout, "lamp", steps={"fetch": answer})


def test_a_crash_after_any_event_changes_nothing() -> None:
    calls: list[str] = []

    def fetched(what: str) -> str:
        calls.append(what)
        return what.upper()

    run = crash_check(checkout, "lamp", steps={"fetch": fetched}, payloads=[("first", 1), ("second", 2)])
    assert run.result() == "LAMP 1 2"
    assert len(calls) == len(run.log), "once without a crash, and once for each but the last event"


def test_what_code_keeps_outside_of_its_run_is_found_out() -> None:
    """Once by the replay at the end of any run, else by the crashes."""
    seen.clear()
    with pytest.raises(hf.ReplayDivergence, match="step_scheduled fetch#2"):
        run_workflow(remembers, "lamp", 1, steps={"fetch": "x"})
    seen.clear()
    assert run_workflow(remembers, "lamp", 2, steps={"fetch": "x"}).result() == 1
    seen.clear()
    with pytest.raises(AssertionError, match=r"a crash after position 1 \(run_created\): .* fetch#2"):
        crash_check(remembers, "lamp", 2, steps={"fetch": "x"})


def test_what_a_crash_makes_impossible_is_told_with_its_place() -> None:
    answers = iter(["x", "x", "x", ValueError("the fourth time")])
    with pytest.raises(
        AssertionError, match=r"a crash after position 3 \(step_completed fetch#1\).*the fourth"
    ):
        crash_check(once, steps={"fetch": lambda what: next(answers)})
