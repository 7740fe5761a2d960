"""The decider of a worker, where two things meet: outcomes and conflicts, refusals and reloads, first ticks."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from deciders import (
    bodies,
    commit,
    completed,
    ended,
    free,
    gate,
    gated,
    keys,
    land,
    live,
    log_of,
    serving,
    until_logged,
)
from patience import PATIENCE

import holdfast as hf
from holdfast import faults
from holdfast.client import App
from holdfast.errors import StoreError
from holdfast.events import Event
from holdfast.replay import replay_run
from holdfast.worker.advance import Advance


@hf.step(retries=1, backoff=0)
async def fails_once(name: str) -> str:
    bodies.append(name)
    await gate(name).wait()
    if bodies.count(name) == 1:
        raise ValueError("the first time")
    return name


@hf.workflow
async def two_at_once() -> list[str]:
    return await asyncio.gather(gated("plain"), fails_once("flaky"))


async def both_in_the_inbox(advance: Advance, *names: str) -> None:
    """Let bodies end while the decider is busy, so that it finds their outcomes all at once."""
    advance.busy = True
    for name in names:
        waiting = len(advance._inbox)
        gate(name).set()
        while len(advance._inbox) == waiting:
            await asyncio.sleep(0)
    advance.busy = False


async def test_a_retry_is_not_lost_where_facts_are_only_recorded(app: App) -> None:
    """After a partial append nothing is delivered early; the record of a failed attempt behind a fact was
    then appended with it, and nobody ever started the next attempt."""
    async with serving(app) as worker:
        run = await app.start(two_at_once)
        await until_logged(app, run.id, "step_started", count=2)
        advance = live(worker, run.id)
        await both_in_the_inbox(advance, "plain", "flaky")
        advance._wary = 1
        advance.turn()
        assert await run.result(PATIENCE) == ["plain", "flaky"]
    events = await log_of(app, run.id)
    assert keys(events, "step_retried") == ["fails_once#1"]
    replay_run(events)


async def test_a_start_comes_behind_the_outcome_that_made_room_for_it(app: App) -> None:
    """H-12: where facts are only recorded, the start of the next attempt was committed before the outcome of the
    one whose place it has; a worker that died in between lost an attempt more than it has places."""
    async with serving(app, concurrency=1) as worker:
        run = await app.start(two_at_once)
        await until_logged(app, run.id, "step_started")
        advance = live(worker, run.id)
        await both_in_the_inbox(advance, "plain")
        assert [draft.type for draft in advance._inbox] == ["step_completed", "step_started"]
        advance._wary = 1
        advance.turn()
        gate("flaky").set()
        assert await run.result(PATIENCE) == ["plain", "flaky"]
    events = await log_of(app, run.id)
    there = [(event.type, event.key) for event in events]
    assert there.index(("step_completed", "gated#1")) < there.index(("step_started", "fails_once#1"))
    replay_run(events)


@hf.step(retries=0)
async def gives_a_list() -> list[str]:
    await gate("list").wait()
    return ["x"]


@hf.step(retries=1, backoff=3600)
async def fails_for_an_hour() -> str:
    raise ValueError("try again in an hour")


@hf.workflow
async def changes_what_it_got() -> list[str]:
    async def changing() -> list[str]:
        got = await gives_a_list()
        got.append("changed")
        return got

    got, _, _ = await asyncio.gather(changing(), fails_for_an_hour(), gated("end"))
    return got


async def test_a_result_that_is_delivered_again_is_as_the_step_gave_it(app: App) -> None:
    """Delivered early, changed by the code, refused with its append, delivered to the next execution."""
    async with serving(app) as worker:
        run = await app.start(changes_what_it_got)
        await until_logged(app, run.id, "step_retried")
        commit(app.store, run.id, completed("fails_for_an_hour#1", "another's", attempt=2))
        advance = live(worker, run.id)
        while advance.busy or advance.after < 10:
            await asyncio.sleep(0)
        await both_in_the_inbox(advance, "list")
        advance.ring("retry-2 fails_for_an_hour#1")  # it was due all the same: StepEnded refuses the append
        gate("end").set()
        assert await run.result(PATIENCE) == ["x", "changed"]
    replay_run(await log_of(app, run.id))


@hf.workflow
async def a_hundred_steps() -> list[int]:
    hf.hook("poked", type=int)
    return [await free(number) for number in range(100)]


async def test_a_run_that_payloads_interrupt_becomes_cautious(app: App) -> None:
    """L-06: at every second append a payload lands between an early delivery and its commit. Such a refusal costs
    a replay of the whole log: for as long as that pays, outcomes are recorded first, and delivered when read."""
    appends = 0

    def poke() -> None:
        nonlocal appends
        appends += 1
        if appends > 1 and appends % 2:
            land(app, "poked", appends, str(appends))

    async with serving(app) as worker:
        faults.arm("worker.append.before", poke)
        try:
            run = await app.start(a_hundred_steps)
            assert await run.result(PATIENCE) == list(range(100))
        finally:
            faults.disarm()
        assert 1 <= worker.refusals <= 25  # 99 where it goes on as before
    replay_run(await log_of(app, run.id))


@hf.workflow
async def breaks_the_engine() -> None:
    await free()


async def test_a_start_whose_first_tick_breaks_says_so(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parked before it was there: the caller of `start` once waited for ever."""

    def broken(*_: Any) -> None:
        raise RuntimeError("a bug in the engine")

    async with serving(app) as worker:
        monkeypatch.setattr("holdfast.engine.tick._DELIVERIES", {"run_created": broken})
        with pytest.raises(StoreError, match="was not started"):
            await asyncio.wait_for(app.start(breaks_the_engine, run_id="r"), PATIENCE)
        assert not worker.runs.has("r")
    assert await log_of(app, "r") == []


@hf.workflow
async def one_by_one(count: int) -> list[Any]:
    return [await free(number) for number in range(count)]


async def test_the_loss_of_every_answer_costs_nothing_but_time(app: App) -> None:
    """L12: each second commit goes through without an answer; each append is sent again under its batch id."""
    count = 0

    def sometimes() -> None:
        nonlocal count
        count += 1
        if count % 2:
            raise StoreError("the connection broke")

    async with serving(app) as worker:
        run = await app.start(one_by_one, 3, run_id="r")
        faults.arm("store.commit.after", sometimes)
        assert await ended(run) == "completed"
        faults.disarm()
        assert worker.refusals == 0
    assert bodies == [0, 1, 2]
    replay_run(await log_of(app, run.id))


@pytest.mark.parametrize("point", ["store.commit.before", "store.commit.after"])
@pytest.mark.parametrize("nth", range(1, 5))
async def test_a_commit_that_fails_once_is_made_good(app: App, point: str, nth: int) -> None:
    """L12: before or after the write, whichever append it hits, the run ends as if nothing had been."""
    async with serving(app):
        passed = 0

        def fail() -> None:
            nonlocal passed
            passed += 1
            if passed == nth:
                raise StoreError("once")

        faults.arm(point, fail)
        run = await app.start(one_by_one, 2)
        assert await ended(run) == "completed"
        faults.disarm()
    assert bodies == [0, 1]
    events = await log_of(app, run.id)
    assert keys(events, "step_completed") == ["free#1", "free#2"]
    replay_run(events)


def assert_dense(events: list[Event]) -> None:
    assert [event.position for event in events] == list(range(1, len(events) + 1))


async def test_a_run_of_many_short_steps_stays_linear(app: App) -> None:
    """R-08, live: two thousand steps through a worker; the last ones cost what the first ones do."""
    loop = asyncio.get_running_loop()
    async with serving(app):
        start = loop.time()
        run = await app.start(one_by_one, 2000)
        await until_logged(app, run.id, "step_scheduled", "free#200")
        first = loop.time() - start
        await until_logged(app, run.id, "step_scheduled", "free#1800")
        later = loop.time()
        await run.result(PATIENCE)
        last = loop.time() - later
    assert last < 5 * first + 0.1, f"{first:.3f} s for the first 200 steps, {last:.3f} s for the last 200"
    assert_dense(await log_of(app, run.id))
