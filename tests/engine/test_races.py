"""The races of ../shared/RACES.md that are the engine's: each docstring names its row there."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from deciders import (
    free,
    gated,
    interleave,
    join,
    keys,
    land,
    log_of,
    serving,
    until_logged,
)
from patience import PATIENCE

import holdfast as hf
from holdfast import faults
from holdfast.client import App
from holdfast.engine.tick import Execution, replay, tick
from holdfast.errors import DefinitionError, NotDeterministic
from holdfast.events import Event, new
from holdfast.replay import replay_run
from holdfast.testing import ManualClock, Rehearsal, run_workflow

# ---- L


@hf.workflow
async def twin_sleeps(rounds: int) -> int:
    for _ in range(rounds):
        await asyncio.gather(asyncio.sleep(5), asyncio.sleep(5))
    return rounds


def test_two_sleeps_of_one_deadline_both_fire() -> None:
    """L-02: a thousand pairs of equal deadlines; one completion was once taken for the other's echo."""
    run = run_workflow(twin_sleeps, 1000)
    assert run.result() == 1000
    fired = keys(run.log, "timer_fired")
    assert fired == [f"sleep#{n}" for n in range(1, 2001)]


async def test_two_sleeps_of_one_deadline_both_fire_under_conflict(url: str) -> None:
    """L-02: two deciders fire both timers of each pair: each fact stands once, doubles get another answer."""
    clock = ManualClock(autojump=0.001)
    async with hf.connect(url, clock=clock) as app, hf.connect(url, clock=clock) as other:
        async with app.worker() as worker, other.worker() as second:
            run = await app.start(twin_sleeps, 10)
            join(second, run.id, twin_sleeps)
            assert await run.result(PATIENCE) == 10
            assert worker.refusals + second.refusals > 0
        events = await log_of(app, run.id)
    assert sorted(keys(events, "timer_fired")) == sorted(f"sleep#{n}" for n in range(1, 21))
    replay_run(events)


@hf.workflow
async def two_branches(extra: bool = False) -> None:
    async def branch(name: str) -> None:
        for number in range(3):
            await gated(f"{name}{number}")
            if extra:
                await asyncio.sleep(1)

    await asyncio.gather(branch("l"), branch("r"))


def named(log: list[Event]) -> dict[str, str]:
    """Which call each key stands for."""
    return {e.key: e.data["args"]["name"] for e in log if e.type == "step_scheduled"}


def test_an_extra_sleep_renames_no_step() -> None:
    """L-10: drawn from one ordinal over the run, the names of steps would shift with each timer between them."""
    plain = run_workflow(two_branches, steps={"gated": "x"})
    slow = run_workflow(two_branches, True, steps={"gated": "x"})
    assert sorted(named(plain.log)) == sorted(named(slow.log)) == [f"gated#{n}" for n in range(1, 7)]
    assert keys(slow.log, "timer_started") == [f"sleep#{n}" for n in range(1, 7)]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_names_are_the_same_on_each_replay_of_an_interleaving(order: tuple[int, int]) -> None:
    """L-10: what a key stands for follows from the order of facts, and is in the log; a replay gives no other."""
    run = Rehearsal(two_branches)
    while not run.ended:
        steps = run.steps
        run.complete(steps[order[0] % len(steps)], "x")
        run.evict()
    replay_run(run.log)


@hf.workflow
async def same_names() -> list[Any]:
    async def branch(name: str) -> list[Any]:
        return [await free(f"{name}{number}") for number in range(3)]

    return await asyncio.gather(branch("l"), branch("r"))


RIGHT = [["l0", "l1", "l2"], ["r0", "r1", "r2"]]


def test_branches_with_equal_step_names_survive_a_crash_at_each_position() -> None:
    """L-14: results were swapped in 6 of 10 runs after a crash, without an error. Right 100 of 100 here."""
    right = 0
    for number in range(100):
        run = Rehearsal(same_names, seed=str(number))
        crash = number % 7
        facts = 0
        while not run.ended:
            if facts == crash:
                run.evict()
            key = run.steps[(number >> facts) % len(run.steps)]
            run.complete(key, named(run.log)[key])
            facts += 1
        right += run.result() == RIGHT
        replay_run(run.log)
    assert right == 100


@pytest.mark.parametrize("nth", range(1, 8))
async def test_branches_with_equal_step_names_survive_the_loss_of_the_live_run(app: App, nth: int) -> None:
    """L-14, with a worker: its live execution is dropped after the nth append, and the log replayed."""
    async with serving(app) as worker:
        count = 0

        def is_nth() -> bool:
            nonlocal count
            count += 1
            return count == nth

        def drop() -> None:
            for advance in worker.runs.live.values():
                advance._stale = True

        interleave("worker.append.before", drop, when=is_nth)
        run = await app.start(same_names)
        assert await run.result(PATIENCE) == RIGHT
        faults.disarm()
    replay_run(await log_of(app, run.id))


# ---- R


@hf.workflow
async def collector(count: int) -> list[Any]:
    hook = hf.hook("T")
    got: list[Any] = []
    waiting: asyncio.Task[Any] | None = None
    while len(got) < count:
        waiting = waiting or asyncio.create_task(hook.next())
        sleeping = asyncio.create_task(asyncio.sleep(5))
        done, _ = await asyncio.wait([waiting, sleeping], return_when=asyncio.FIRST_COMPLETED)
        if waiting in done:
            got.append(waiting.result())
            waiting = None
        sleeping.cancel()
    return got


def test_results_are_delivered_in_the_order_of_the_log() -> None:
    """R-01: whatever the batches in which they came, each fact is delivered and drained before the next."""

    @hf.workflow(name="listeners")
    async def listeners() -> list[str]:
        seen: list[str] = []

        async def branch(name: str) -> None:
            seen.append(await free(name))
            await asyncio.sleep(0)
            seen.append(f"{name} later")

        await asyncio.gather(*(branch(name) for name in "abc"))
        return seen

    run = Rehearsal(listeners, hold=True)
    run.commit()
    for key, name in (("free#3", "c"), ("free#1", "a"), ("free#2", "b")):
        run.complete(key, name)  # all three before any command is committed
    assert run.result() == ["c", "c later", "a", "a later", "b", "b later"]
    run.commit()
    replay_run(run.log, listeners)


def test_the_clock_is_that_of_the_fact_delivered_last() -> None:
    """R-02: after a race the clock depended on how much of the log had been loaded."""

    @hf.workflow(name="clock after race")
    async def clock_after_race() -> str:
        hook, sleep = hf.hook("T"), asyncio.create_task(asyncio.sleep(3))
        payload = asyncio.create_task(hook.next())
        await asyncio.wait([payload, sleep], return_when=asyncio.FIRST_COMPLETED)
        seen = hf.now().isoformat()
        await free("x")
        return seen

    run = Rehearsal(clock_after_race, hold=True)
    run.commit()
    run.fire()
    first = run.log[-1].at.isoformat()
    run.advance(100)
    run.send("T", 1)
    run.commit()
    run.advance(100)
    run.complete("free#1")
    run.commit()
    assert run.result() == first
    for k in range(1, len(run.log) + 1):
        tick(clock_after_race, run.log[:k])


def test_an_await_that_lost_the_race_eats_no_payload() -> None:
    """R-03: a thousand payloads against a sleep, kept waiting over rounds: all are seen, in order."""
    run = Rehearsal(collector, 1000)
    for number in range(1000):
        if number % 3 == 0:
            run.fire()
        run.send("T", number)
    assert run.result() == list(range(1000))


async def test_all_payloads_of_several_senders_reach_a_racing_reader(app: App) -> None:
    """R-03, with a store: what was acknowledged is read, each once, in the order of the log."""
    async with serving(app):
        run = await app.start(collector, 200)
        await until_logged(app, run.id, "hook_opened")

        async def sender(name: str) -> None:
            for number in range(50):
                await app.resume("T", [name, number])

        await asyncio.gather(*(sender(name) for name in "abcd"))
        got = await run.result(PATIENCE)
        events = await log_of(app, run.id)
    assert got == [e.data["payload"] for e in events if e.type == "hook_received"]
    assert len({tuple(payload) for payload in got}) == 200


effects: list[str] = []


@hf.workflow
async def with_finally() -> None:
    try:
        await free("a")
        await asyncio.sleep(1)
        await free("b")
    finally:
        effects.append("finally")


def test_a_finally_runs_once_at_the_real_end() -> None:
    """R-04: where a suspension was an exception, each `finally` ran at each suspension."""
    effects.clear()
    run = Rehearsal(with_finally)
    run.complete("free#1")
    run.fire()
    assert effects == []
    run.complete("free#2")
    assert effects == ["finally"]


@hf.workflow
async def swallowing() -> list[str]:
    seen = []
    hook = hf.hook("T")
    for wait in (lambda: free("a"), lambda: asyncio.sleep(1), lambda: hook.next(), lambda: free("b")):
        try:
            await wait()
        except Exception as error:
            seen.append(type(error).__name__)
    return seen


def test_except_exception_around_each_await_swallows_no_suspension() -> None:
    """R-05: at each point the run is dropped and replayed; user code sees none of it."""
    run = Rehearsal(swallowing)
    run.evict()
    run.fail("free#1", ValueError("seen"))
    run.evict()
    run.fire()
    run.evict()
    run.send("T", 1)
    run.evict()
    run.complete("free#2")
    assert run.result() == ["ValueError"]
    replay_run(run.log)


def test_a_task_group_with_a_failing_child_ends_its_parent() -> None:
    """R-06: the parent once ran for ever. (The rest of R-06 is tests/engine/test_asyncio.py.)"""

    @hf.workflow(name="failing child")
    async def failing_child() -> str:
        seen = "nothing failed"
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(free("a"))
                group.create_task(asyncio.sleep(1000))
        except* ValueError as errors:
            seen = f"{len(errors.exceptions)} failed at {hf.now():%H:%M:%S}"
        return seen

    run = Rehearsal(failing_child)
    run.fail("free#1", ValueError("no"))
    assert run.result() == "1 failed at 00:00:00"
    assert keys(run.log, "timer_cancelled") == ["sleep#1"]


@hf.workflow
async def reads_a_file() -> str:
    import colorsys  # an import that this process has not made yet must work

    assert colorsys.rgb_to_hsv(0, 0, 0) == (0, 0, 0)
    try:
        open("/etc/hostname")
    except NotDeterministic as error:
        return str(error)
    return "it was read"


def test_files_are_refused_and_imports_are_not() -> None:
    """R-07: `open` gave another answer on each replay, and sandboxes broke imports."""
    sys.modules.pop("colorsys", None)
    assert "make it a step" in Rehearsal(reads_a_file).result()


@hf.workflow
async def many_steps(count: int) -> int:
    for number in range(count):
        await free(number)
    return count


@hf.workflow
async def wide(count: int) -> int:
    return len(await asyncio.gather(*(free(number) for number in range(count))))


def seconds(work: Any) -> float:
    best = 1e9
    for _ in range(2):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def logged_steps(workflow: Any, count: int) -> list[Event]:
    run = Rehearsal(workflow, count)
    for number in range(1, count + 1):
        run.complete(f"free#{number}")
    run.close()
    assert run.result() == count
    return run.log


@pytest.mark.parametrize("workflow", [many_steps, wide])
def test_a_replay_costs_as_much_as_its_log_is_long(workflow: Any) -> None:
    """R-08: a thousand steps took 44 s where each tick replayed all of them. Ten times the steps: ten times."""
    short, long = logged_steps(workflow, 500), logged_steps(workflow, 5000)
    once, tenfold = seconds(lambda: replay(workflow, short)), seconds(lambda: replay(workflow, long))
    assert tenfold < 25 * once, f"{once:.3f} s for 500 steps, {tenfold:.3f} s for 5,000"


def test_a_gather_of_ten_thousand_steps_stays_quick() -> None:
    """R-08: nothing looks through all open steps at each outcome."""
    execution = Execution("r", wide)
    created = new("run_created", data={"workflow": "wide", "args": {"count": 10_000}})
    execution.feed(Event("r", 1, created.type, "", 0, created.body))
    assert len(execution.asked) == 10_000
    execution.accepted(10_000)
    outcome = new("step_completed", data={"attempt": 1, "value": 1}).body

    def deliver(first: int) -> float:
        start = time.process_time()
        for n in range(first, first + 1000):
            execution.feed(Event("r", n, "step_completed", f"free#{n}", 0, outcome))
        return time.process_time() - start

    times = [deliver(first) for first in range(1, 10_001, 1000)]
    assert execution.ended
    # The median, for a collection or a busy machine may fall into any one of them; with a look through what is
    # still open at each outcome it is five times the least.
    assert median(times) < 3 * min(times) + 0.02


async def test_an_append_gives_back_what_lies_in_front_of_it(app: App) -> None:
    """R-09: a replay that used the log from before its own write missed what had come in between."""
    async with serving(app) as worker:
        run = await app.start(collector, 3)
        await until_logged(app, run.id, "hook_opened")
        interleave("worker.append.before", lambda: land(app, "T", "between"))
        await app.resume("T", "first")
        await app.resume("T", "third")
        assert await run.result(PATIENCE) == ["first", "between", "third"]
        assert worker.refusals == 0
    replay_run(await log_of(app, run.id))


@hf.workflow
async def leaves_things_open() -> str:
    hf.hook("T")
    asyncio.create_task(free("step"))
    asyncio.create_task(asyncio.sleep(100))
    await asyncio.sleep(0)
    await asyncio.sleep(1)
    return "done"


def test_commands_left_open_are_recorded_in_the_end() -> None:
    """R-10: what was still open when the workflow returned was neither closed nor shown."""
    run = Rehearsal(leaves_things_open)
    run.fire("sleep#2")
    assert run.result() == "done"
    assert sorted(run.log[-1].data["open"]) == ["T#1", "free#1", "sleep#1"]


async def test_what_was_left_open_is_closed_with_the_run(app: App) -> None:
    """R-10: its timers and hooks do not outlive a run."""
    async with serving(app):
        run = await app.start(leaves_things_open, run_id="r")
        await until_logged(app, "r", "timer_started", count=2)
        await run.wake()
        assert await run.result(PATIENCE) == "done"
    assert [hook async for hook in app.hooks(run="r")] == []
    assert await app.timers(run="r") == []


@hf.step(retries=0)
async def starred(first: int, *rest: int, key: str = "k", **more: int) -> Any:
    return [first, list(rest), key, more]


@hf.step(retries=0)
def plain(value: int) -> int:
    return value + 1


@hf.workflow
async def calls_both() -> Any:
    return [await starred(1, 2, 3, key="z", x=4), await plain(1), await plain(value=1)]


async def test_star_arguments_and_plain_functions_work(app: App) -> None:
    """R-11: `*args` bound wrongly, and a sync `def` was accepted and then failed at run time."""
    async with serving(app):
        run = await app.start(calls_both)
        assert await run.result(PATIENCE) == [[1, [2, 3], "z", {"x": 4}], 2, 2]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: hf.workflow(lambda: None),
        lambda: hf.step(len),
        lambda: hf.step(type("Callable", (), {"__call__": lambda self: None})()),
        lambda: hf.workflow(_generator),
        lambda: hf.step(name="a#1")(_plain),
    ],
)
def test_what_cannot_work_is_refused_where_it_is_defined(wrong: Any) -> None:
    """R-11: with the reason, at the definition."""
    with pytest.raises(DefinitionError):
        wrong()


async def _generator() -> Any:
    yield 1


def _plain() -> None: ...


@hf.workflow
async def reopens_at_once() -> list[Any]:
    hook = hf.hook("T")
    assert hf.hook("T") is hook
    hook.close()
    again = hf.hook("T")
    assert again is not hook
    return [await again, [one async for one in hook]]


async def test_a_hook_opened_twice_is_itself_and_close_then_open_keeps_its_order(app: App) -> None:
    """R-12: a hook conflicted with itself after a redelivery; a token's close and open changed places."""
    async with serving(app):
        run = await app.start(reopens_at_once)
        events = await until_logged(app, run.id, "hook_opened", "T#2")
        hooks = [(e.type, e.key) for e in events if e.type.startswith("hook_")]
        assert hooks == [("hook_opened", "T#1"), ("hook_closed", "T#1"), ("hook_opened", "T#2")]
        await app.resume("T", "payload")
        assert await run.result(PATIENCE) == ["payload", []]
    replay_run(await log_of(app, run.id))


@hf.step(retries=3)
async def repeatable(name: str) -> str:
    return name


@hf.workflow
async def waits_then_works() -> list[Any]:
    await hf.hook("T")

    async def branch(name: str) -> list[str]:
        return [await repeatable(f"{name}{number}") for number in range(3)]

    return await asyncio.gather(branch("l"), branch("r"))


async def test_two_deciders_on_one_run_write_one_log(app: App) -> None:
    """L-10, L4: both see the payload and decide at once; one log comes of it, and each name stands in it once."""
    async with hf.connect(app.store.url) as other, serving(app) as worker, other.worker() as second:
        run = await app.start(waits_then_works)
        await until_logged(app, run.id, "hook_opened")
        joined = join(second, run.id, waits_then_works)
        while joined.busy:
            await asyncio.sleep(0)
        land(app, "T", "go")
        assert await run.result(PATIENCE) == RIGHT
        assert worker.refusals + second.refusals > 0
    events = await log_of(app, run.id)
    assert sorted(keys(events, "step_scheduled")) == [f"repeatable#{n}" for n in range(1, 7)]
    replay_run(events)
