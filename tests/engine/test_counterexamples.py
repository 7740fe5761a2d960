"""Every counterexample of the model (../shared/model/REPORT.md), against the real engine, worker and store.

Each docstring names the id there, and says what would break. Interleavings are forced: a fault point lets the
test act between two statements of a worker, and gates hold step bodies back.
"""

from __future__ import annotations

import asyncio
import gc
import random
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from deciders import (
    HandDecider,
    bodies,
    commit,
    completed,
    ended,
    free,
    gate,
    gated,
    interleave,
    join,
    keys,
    land,
    live,
    log_of,
    lose_answer,
    position,
    serving,
    until_logged,
)
from patience import PATIENCE

import holdfast as hf
from holdfast.client import App
from holdfast.engine.tick import replay, tick
from holdfast.errors import CommandMissing, ReplayDivergence, StaleLog
from holdfast.events import Event, new
from holdfast.replay import replay_run
from holdfast.store.memory import MemoryStore
from holdfast.store.messages import Appended
from holdfast.testing import ManualClock, Rehearsal
from holdfast.verify import Verification


@hf.workflow
async def first_of_both() -> str:
    """Both branches must end; the one that ended first wins."""
    order: list[str] = []

    async def branch(name: str) -> None:
        await gated(name)
        order.append(name)

    await asyncio.gather(branch("x"), branch("y"))
    await free(f"win_{order[0]}")
    return order[0]


@hf.workflow
async def first_of_two() -> str:
    """The branch that ends first wins at once; the other is awaited after."""
    x, y = asyncio.create_task(gated("x")), asyncio.create_task(gated("y"))
    done, _ = await asyncio.wait({x, y}, return_when=asyncio.FIRST_COMPLETED)
    winner = done.pop().result()
    await free(f"win_{winner}")
    await asyncio.gather(x, y)
    return winner


@hf.workflow
async def three_steps() -> list[int]:
    return [await free(n) for n in range(3)]


def assert_true_to_itself(events: list[Event]) -> None:
    """The log replays, its positions are dense, and no command stands in it twice."""
    assert [event.position for event in events] == list(range(1, len(events) + 1))
    commands = [(event.type, event.key) for event in events if event.cls == "command"]
    assert len(commands) == len(set(commands))
    replay_run(events)


# ---- A: what CPython does by address


async def undoing(name: str) -> None:
    try:
        await asyncio.sleep(9)
    finally:
        await free(f"undo {name}")


@hf.step(retries=0)
async def failing() -> None:
    raise ValueError("bad")


@hf.workflow
async def group_that_fails() -> None:
    try:
        async with asyncio.TaskGroup() as group:
            for name in "abcdefgh":
                group.create_task(undoing(name))
            group.create_task(failing())
    except* ValueError:
        pass


@hf.workflow
async def first_come() -> list[Any]:
    return [await one for one in asyncio.as_completed([free(name) for name in "abcdefgh"])]


@hf.workflow
async def losers_are_cancelled() -> None:
    tasks = [asyncio.create_task(undoing(name)) for name in "abcdefgh"]
    _, pending = await asyncio.wait(
        [*tasks, asyncio.create_task(free("winner"))], return_when=asyncio.FIRST_COMPLETED
    )
    for task in pending:
        task.cancel()
    await asyncio.wait(pending)


def shuffle_memory() -> list[object]:
    """Let the next objects get other addresses than the last ones had."""
    return [[] for _ in range(1000)][:: random.randint(2, 5)]


def test_a_task_group_aborts_its_tasks_in_one_order() -> None:
    """A1: TaskGroup keeps its tasks in a set; by address, a cold replay would ask for other undo steps."""
    run = Rehearsal(group_that_fails)
    run.fail("failing#1", ValueError("bad"))
    run.close()
    assert len(run.calls("free")) == 8
    holes = []
    for _ in range(30):
        holes.append(shuffle_memory())
        assert tick(group_that_fails, run.log) == []


def test_as_completed_starts_coroutines_in_the_order_of_its_arguments() -> None:
    """A1: CPython's as_completed puts coroutines into a set: 21 orders in 200 runs."""
    orders = set()
    holes = []
    for number in range(30):
        holes.append(shuffle_memory())
        run = Rehearsal(first_come, seed=str(number))
        orders.add(tuple(call["name"] for call in run.calls("free")))
        run.close()
    assert orders == {tuple("abcdefgh")}


def test_the_pending_of_a_wait_are_iterated_in_one_order() -> None:
    """A1: `for task in pending: task.cancel()` over asyncio.wait's set: 198 orders in 200 runs."""
    run = Rehearsal(losers_are_cancelled)
    run.complete("free#1", "winner")
    run.close()
    assert len(run.calls("free")) == 9
    holes = []
    for _ in range(30):
        holes.append(shuffle_memory())
        assert tick(losers_are_cancelled, run.log) == []


left_behind: list[str] = []


@hf.workflow
async def forgetful() -> None:
    async def forgotten() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            left_behind.append("finally")

    async def numbers() -> Any:
        try:
            yield 1
        finally:
            left_behind.append("generator")

    asyncio.create_task(forgotten())
    await asyncio.sleep(0)
    async for _ in numbers():
        break
    await free("after")


def test_the_garbage_collector_runs_no_workflow_code() -> None:
    """A2: an unreferenced task's `finally` would run whenever gc does, in whichever run is ticked then."""
    left_behind.clear()
    run = Rehearsal(forgetful)
    for _ in range(3):
        gc.collect()
    assert left_behind == []
    assert run.steps == ["free#1"]
    run.close()


@hf.workflow
async def named_tasks() -> list[str]:
    async def name() -> str:
        task = asyncio.current_task()
        assert task is not None
        return task.get_name()

    return await asyncio.gather(*(asyncio.create_task(name()) for _ in range(3)))


def test_tasks_are_named_by_their_ordinal_in_the_run() -> None:
    """A3: CPython's `Task-6802` comes from a counter of the process, which no replay has."""
    runs = [Rehearsal(named_tasks) for _ in range(3)]
    names = runs[0].result()
    assert len(set(names)) == 3
    assert [run.result() for run in runs] == [names] * 3


# ---- B: laws that the model broke


@pytest.mark.parametrize("nth", range(1, 5))
async def test_an_answer_that_is_lost_doubles_no_command(app: App, nth: int) -> None:
    """B1: a command append whose answer was lost is sent again; as a new append it would be there twice.

    The first append is the run's start, and its caller is told (law L12).
    """
    async with serving(app):
        count = 0

        def is_nth() -> bool:
            nonlocal count
            count += 1
            return count == nth

        interleave("worker.append.before", lose_answer, when=is_nth)
        async with asyncio.timeout(5):
            run = await app.start(three_steps)
        assert await ended(run) == "completed"
    events = await log_of(app, run.id)
    assert bodies == [0, 1, 2]
    assert_true_to_itself(events)


async def test_the_same_commands_under_a_new_batch_are_refused(app: App) -> None:
    """B1: a decider that reads "not there" and sends anew loses against its own first append."""
    await app.start(three_steps, run_id="r")
    decider = HandDecider(app, "r", three_steps)
    await decider.read()
    ghost = [new("step_scheduled", key="free#1", data={"args": {"name": 0}})]
    await app.store.append("r", ghost, after=1)
    assert isinstance(await decider.append(), StaleLog)
    assert keys(await log_of(app, "r"), "step_scheduled") == ["free#1"]


@pytest.mark.parametrize("workflow", [first_of_both, first_of_two])
@pytest.mark.parametrize("lost", [False, True])
async def test_a_fact_that_lands_before_an_early_one_wins(app: App, workflow: Any, lost: bool) -> None:
    """B2, B3: x was delivered early, y was committed first; kept live, the code would say x and a replay y.

    With the answer lost, "all its events are there" would take the partial append for a whole one.
    """
    async with serving(app) as worker:
        run = await app.start(workflow)
        await until_logged(app, run.id, "step_started", count=2)
        of = {
            live(worker, run.id).execution.calls[key].args: key  # type: ignore[union-attr]
            for key in ("gated#1", "gated#2")
        }
        y = of[b'{"name":"y"}']

        def y_lands() -> None:
            assert isinstance(commit(app.store, run.id, completed(y, "y")), Appended)
            if lost:
                lose_answer()

        interleave("worker.append.before", y_lands)
        gate("x").set()
        await until_logged(app, run.id, "step_completed", count=2)
        gate("y").set()
        assert await run.result(PATIENCE) == "y"
        assert worker.refusals >= 1
    events = await log_of(app, run.id)
    assert keys(events, "step_completed")[:2] == [y, "gated#1" if y == "gated#2" else "gated#2"]
    assert "win_y" in bodies
    assert "win_x" not in bodies
    assert_true_to_itself(events)


@hf.workflow
async def flight() -> str:
    order: list[str] = []
    hook = hf.hook("T")

    async def step() -> None:
        await gated("x")
        order.append("x")

    async def payload() -> None:
        await hook
        order.append("hook")

    branches = [asyncio.create_task(step()), asyncio.create_task(payload())]
    await gated("a")
    beside = asyncio.create_task(free("b"))
    await asyncio.gather(*branches)
    await free(f"win_{order[0]}")
    await beside
    return order[0]


async def test_no_fact_is_delivered_while_an_append_is_under_way(app: App) -> None:
    """B4: x, delivered during an append that comes back with a missed payload, would be live before it.

    The fence is the position up to which facts were read *and delivered*: `after` must not pass the payload.
    """
    async with serving(app) as worker:
        run = await app.start(flight)
        await until_logged(app, run.id, "step_started", count=2)
        advance = live(worker, run.id)
        assert advance.execution is not None
        of = {call.args: key for key, call in advance.execution.calls.items()}

        def meanwhile() -> None:
            land(app, "T", "payload")
            running = advance.attempts.running[of[b'{"name":"x"}']]
            advance.outcome(running, completed(running.call.key, "x"))

        interleave("worker.append.before", meanwhile)
        commit(
            app.store, run.id, completed(of[b'{"name":"a"}'], "a")
        )  # so that C b comes without early facts
        assert await run.result(PATIENCE) == "hook"
        assert (
            worker.refusals == 0
        )  # x has waited for the answer; in flight beside it, it would have been refused
    events = await log_of(app, run.id)
    x = of[b'{"name":"x"}']
    assert position(events, "hook_received") < position(events, "step_completed", x)
    assert_true_to_itself(events)


async def test_a_refused_timer_does_not_fire(app: App) -> None:
    """B5: a timer that starts and fires in one append, refused in part: the fact must go with its command."""
    store = app.store
    await store.append("r", [new("run_created", data={"workflow": "w"})], after=0)
    opening = [new("hook_opened", key="T#1"), new("step_scheduled", key="x#1", data={"args": {}})]
    await store.append("r", opening, after=1)
    land(app, "T", 1)
    early = completed("x#1", 1)
    timer = new("timer_started", key="sleep#1", data={"due": 1})
    fired = new("timer_fired", key="sleep#1")
    early.at = fired.at = store.clock.now()
    with pytest.raises(StaleLog) as refused:
        await store.append("r", [early, timer, fired], after=3)
    assert refused.value.recorded == [5]
    assert [e.type for e in await store.read("r", 4)] == ["step_completed"]
    with pytest.raises(CommandMissing):
        await store.append("r", [fired])


@hf.workflow
async def clockwork() -> list[str]:
    seen = [hf.now().isoformat()]
    for _ in range(3):
        await free(seen[-1])
        seen.append(hf.now().isoformat())
        await asyncio.sleep(1)
        seen.append(hf.now().isoformat())
    return seen


async def test_what_the_code_saw_of_the_time_is_what_the_log_holds(url: str) -> None:
    """B6: delivered at one clock and stamped with another, `now()` and deadlines differ on replay.

    Time passes between each delivery and its commit here, at the eager start too.
    """
    from holdfast import faults

    clock = ManualClock(autojump=0.002)
    async with hf.connect(url, clock=clock) as app:
        async with serving(app):
            faults.arm("worker.append.before", lambda: clock.advance(0.3))
            run = await app.start(clockwork)
            seen = await run.result(PATIENCE)
            faults.disarm()
        events = await log_of(app, run.id)
    assert_true_to_itself(events)
    facts = [e for e in events if e.type in ("run_created", "step_completed", "timer_fired")]
    assert seen == [event.at.isoformat() for event in facts]


@hf.workflow
async def two_clocks() -> list[str]:
    async def branch(name: str) -> str:
        await gated(name)
        seen = hf.now().isoformat()
        await free(f"{name} at {seen}")
        return seen

    return await asyncio.gather(branch("x"), branch("y"))


async def test_facts_of_one_append_keep_the_times_at_which_they_were_delivered(url: str) -> None:
    """B6, L8: a command or record in front of an early fact, stamped at the commit, would push it on.

    Its `now()` and deadlines were another when it was delivered; with a real clock that is so each time.
    """
    clock = ManualClock()
    async with hf.connect(url, clock=clock) as app, serving(app) as worker:
        run = await app.start(two_clocks)
        await until_logged(app, run.id, "step_started", count=2)
        advance = live(worker, run.id)
        advance.busy = True  # both outcomes are waiting when it looks
        for name in "xy":
            gate(name).set()
        while len(advance._inbox) < 2:
            await asyncio.sleep(0)
        interleave("worker.append.before", lambda: clock.advance(0.5))
        advance.busy = False
        advance.turn()
        seen = await run.result(PATIENCE)
        events = await log_of(app, run.id)
        facts = {e.key: e.at.isoformat() for e in events if e.type == "step_completed"}
        assert seen == [facts["gated#1"], facts["gated#2"]]
        assert worker.refusals == 0
    assert_true_to_itself(events)


class SkewedClock:
    """Another machine's clock, which is `ahead` seconds ahead."""

    def __init__(self, clock: ManualClock, ahead: float) -> None:
        self._clock, self._ahead = clock, round(ahead * 1e6)

    def now(self) -> int:
        return self._clock.now() + self._ahead

    def alarm(self, due: int, callback: Any) -> Any:
        return self._clock.alarm(due - self._ahead, callback)


async def test_a_clock_that_steps_back_costs_nothing(url: str) -> None:
    """B6, L8: an early fact is never earlier than the one before it, or the store would refuse the append."""
    clock = ManualClock()
    async with hf.connect(url, clock=clock) as app, serving(app) as worker:
        run = await app.start(two_clocks)
        await until_logged(app, run.id, "step_started", count=2)
        advance = live(worker, run.id)
        advance.busy = True
        for name in "xy":
            gate(name).set()
        while len(advance._inbox) < 2:
            await asyncio.sleep(0)

        def step_back() -> None:
            worker.clock = SkewedClock(clock, -5.0)

        interleave("worker.tick.after", step_back)  # between the deliveries of x and y
        advance.busy = False
        advance.turn()
        worker.clock = clock
        await run.result(PATIENCE)
        assert worker.refusals == 0
    assert_true_to_itself(await log_of(app, run.id))


@hf.workflow
async def step_times() -> list[str]:
    seen = [hf.now().isoformat()]
    for _ in range(3):
        await free(seen[-1])
        seen.append(hf.now().isoformat())
    return seen


@pytest.mark.parametrize("ahead", [-5.0, 5.0])
async def test_a_worker_with_a_wrong_clock_does_no_harm(url: str, ahead: float) -> None:
    """B6, R9: early facts stamped by a clock ahead of the store's would push the run's time ahead for good."""
    clock = ManualClock()
    async with hf.connect(url, clock=clock) as app:
        await app.start(step_times, run_id="r")
        clock.advance(60)
        async with app.worker() as worker:
            worker.clock = SkewedClock(clock, ahead)
            seen = await app.run("r").result(PATIENCE)
        events = await log_of(app, "r")
    assert max(event.time for event in events) <= clock.now() + 1_000_000
    assert seen == [e.at.isoformat() for e in events if e.type in ("run_created", "step_completed")]
    assert_true_to_itself(events)


@hf.workflow
async def deaf() -> str:
    hf.hook("T")
    await gated("x")
    return "done"


async def test_the_end_counts_what_was_read_not_what_came(app: App) -> None:
    """B7: a payload acknowledged between the last fact and the end; counted in the end, a replay would differ."""
    async with serving(app):
        run = await app.start(deaf)
        await until_logged(app, run.id, "step_started")
        key = "gated#1"
        interleave("worker.append.before", lambda: land(app, "T", "late"))
        commit(app.store, run.id, completed(key, "x"))  # from outside, so the end comes without early facts
        assert await run.result(PATIENCE) == "done"
        events = await log_of(app, run.id)
        assert [e.type for e in events[-2:]] == ["hook_received", "run_completed"]
        assert events[-1].data["read"] == 0
        assert await run.unread() == 1
    assert_true_to_itself(events)


@hf.workflow
async def marked() -> str:
    hook = hf.hook("T")
    await gated("a")
    hf.hook("U")
    return str(await hook)


async def test_a_fact_in_front_of_a_dead_deciders_command_wakes_the_next(app: App) -> None:
    """B8, L14: "the last event is a command, so nothing is to do" would leave the run stuck for ever."""
    await app.start(marked, run_id="r")
    decider = HandDecider(app, "r", marked)
    await app.store.append("r", [new("run_started")])
    await decider.tick()
    await app.store.append("r", [completed("gated#1", "a")])
    await decider.read()
    land(app, "T", "payload")
    answer = await decider.append()  # hook U, tolerated behind the payload; then this decider dies
    assert isinstance(answer, Appended)
    assert [event.type for event in answer.missed] == ["hook_received"]
    assert [e.type for e in (await log_of(app, "r"))[-2:]] == ["hook_received", "hook_opened"]
    head = await app.store.head("r")
    assert head is not None
    assert head.ready
    async with serving(app):
        assert await app.run("r").result(PATIENCE) == "payload"
    assert_true_to_itself(await log_of(app, "r"))


@hf.workflow(name="edited")
async def before_the_edit() -> None:
    hf.hook("T")
    await free("a")
    await free("b")


@hf.workflow(name="edited ")
async def after_the_edit() -> None:
    hook = hf.hook("T")
    await free("a")
    await hook
    await free("b")


def test_a_command_that_the_code_would_ask_later_is_a_divergence() -> None:
    """B9: first in, first out alone matches `b` with a command of the past, and its outcome reaches nobody."""
    run = Rehearsal(before_the_edit)
    run.complete("free#1")
    run.complete("free#2")
    run.close()
    with pytest.raises(ReplayDivergence) as found:
        replay(after_the_edit, run.log)
    assert found.value.position == position(run.log, "step_scheduled", "free#2")
    assert "nothing more" in str(found.value)


@hf.workflow
async def reopening() -> list[Any]:
    got = []
    for _ in range(2):
        async with hf.hook("T") as hook:
            got.append(await hook)
    await gated("x")
    return got


async def test_a_payload_sent_again_after_a_reopening_is_the_same_payload(app: App) -> None:
    """B10: keyed by the hook and not by its token, a retried payload would be delivered twice.

    And *already there* comes before "closed" and "ended": a success must not turn into an error.
    """
    async with serving(app):
        run = await app.start(reopening)
        await until_logged(app, run.id, "hook_opened", "T#1")
        first = await app.resume("T", "p1", delivery_id="d1")
        await until_logged(app, run.id, "hook_opened", "T#2")
        again = await app.resume("T", "p1", delivery_id="d1")
        assert (again.position, again.duplicate) == (first.position, True)
        await app.resume("T", "p2", delivery_id="d2")
        await until_logged(app, run.id, "hook_closed", "T#2")
        assert (await app.resume("T", "p1", delivery_id="d1")).position == first.position
        gate("x").set()
        assert await run.result(PATIENCE) == ["p1", "p2"]
        assert (await app.resume("T", "p1", delivery_id="d1")).position == first.position


async def patch_old() -> str:
    hook = hf.hook("T")
    await hook
    await gated("between")
    return "old"


async def patch_new() -> str:
    hook = hf.hook("T")
    await hook
    if hf.patched("p"):
        return "new"
    await gated("between")
    return "old"


async def test_an_answer_of_patched_does_not_outlive_a_stale_log(app: App) -> None:
    """B11: the new code, live, answered True; the old code committed first: kept live, it would diverge."""
    new_code = hf.workflow(name="patch")(patch_new)
    old_code = hf.workflow(name="patch")(patch_old)
    async with hf.connect(app.store.url) as other, serving(app) as worker, other.worker() as second:
        run = await app.start(old_code, run_id="r")
        await until_logged(app, "r", "hook_opened")
        joined = join(second, "r", new_code)
        while joined.busy:
            await asyncio.sleep(0)

        def the_old_code_is_first() -> None:
            decider = HandDecider(app, "r", old_code)
            decider.execution.feed_all(app.store._data.runs["r"].log)  # type: ignore[attr-defined]
            asked = list(decider.execution.asked)
            answer = commit(app.store, "r", *asked, after=len(app.store._data.runs["r"].log))  # type: ignore[attr-defined]
            assert isinstance(answer, Appended)
            decider.execution.bury()

        live(worker, "r").busy = True  # it looks away: the second one ticks first
        interleave("worker.append.before", the_old_code_is_first)
        land(app, "T", 1)
        await until_logged(app, "r", "step_scheduled", "gated#1")
        live(worker, "r").busy = False
        live(worker, "r").news()
        gate("between").set()
        assert await run.result(PATIENCE) == "old"
        assert (await run.info()).parked is None
    assert "patched" not in [event.type for event in await log_of(app, "r")]


async def differences(app: App) -> list[str]:
    return [str(difference) async for difference in Verification(app.store).run()]


@pytest.mark.parametrize("harm", ["edit the last event", "cut the tail", "edit an early event"])
async def test_verify_finds_an_edited_log_and_a_cut_tail(app: App, harm: str) -> None:
    """B12, L13: a chain over "the log before" accepts an edit of the last append, and a cut tail."""
    async with serving(app):
        run = await app.start(three_steps)
        await run.result(PATIENCE)
    assert await differences(app) == []
    assert isinstance(app.store, MemoryStore)
    log = app.store._data.runs[run.id].log
    at = 2 if harm == "edit an early event" else len(log) - 1
    if harm == "cut the tail":
        del log[-1]
    else:
        event = log[at]
        log[at] = Event(event.run, event.position, event.type, event.key, event.time + 1, event.body)
    assert await differences(app) != []


# ---- R: what the report found by reasoning


@hf.workflow
async def two_then_one() -> Any:
    await asyncio.gather(gated("x"), gated("y"))
    return await free("end")


async def test_records_do_not_trip_the_fence(app: App) -> None:
    """R1: a `step_started` of another attempt lies beyond `after`; as a command it would refuse the append."""
    await app.start(marked, run_id="r")
    decider = HandDecider(app, "r", marked)
    await decider.tick()
    await app.store.append("r", [completed("gated#1", "a")])
    await decider.read()
    await app.store.append("r", [new("run_started", data={"worker": "another"})])
    assert isinstance(await decider.append(), Appended)


async def test_an_end_from_outside_needs_no_fence_and_stops_the_replay(app: App) -> None:
    """R1: `terminate` writes a record; matched as a command, each replay of a terminated run would diverge."""
    async with serving(app):
        run = await app.start(two_then_one)
        await until_logged(app, run.id, "step_started", count=2)
        assert await run.terminate("enough")
        assert await run.status() == "cancelled"
    replay_run(await log_of(app, run.id))


async def test_of_two_attempts_that_both_end_the_first_in_the_log_counts(app: App) -> None:
    """R2: keyed by outcome, "attempt 1 completed" and "attempt 1 failed" would both stand in the log."""
    async with serving(app):
        run = await app.start(two_then_one)
        await until_logged(app, run.id, "step_started", count=2)
        error = {"type": "ValueError", "message": "no", "args": ["no"]}
        failed = new("step_failed", key="gated#1", data={"attempt": 1, "error": error})
        commit(app.store, run.id, completed("gated#1", "first"))
        same_attempt = commit(app.store, run.id, failed)
        assert same_attempt.duplicates == [same_attempt.first]
        late = commit(app.store, run.id, new("step_started", key="gated#2", data={"attempt": 2}))
        assert isinstance(late, Appended)
        commit(app.store, run.id, completed("gated#2", "second attempt", attempt=2))
        gate("y").set()  # attempt 1 ends too: kept as late, not delivered
        assert await run.result(PATIENCE) == "end"
    events = await log_of(app, run.id)
    assert keys(events, "step_failed") == []
    assert_true_to_itself(events)


@hf.workflow
async def taker() -> str:
    hook = hf.hook("shared")
    hf.hook("own")
    try:
        return str(await hook)
    except hf.HookTaken as error:
        return f"held by {error.owner}"


async def test_a_refusal_that_the_append_itself_caused_is_delivered(app: App) -> None:
    """R3: `hook_refused` is born inside the append, behind it: looking only in front would never deliver it."""
    async with serving(app):
        holder = await app.start(taker, run_id="holder")
        await until_logged(app, holder.id, "hook_opened", count=2)
        other = await app.start(taker, run_id="other")
        assert await other.result(PATIENCE) == "held by holder"
        events = await log_of(app, "other")
        assert position(events, "hook_refused") == position(events, "hook_opened", "own#1") + 1
        await app.resume("shared", "for the holder")
        assert await holder.result(PATIENCE) == "for the holder"
    assert_true_to_itself(events)


async def test_a_cancel_behind_the_last_fact_changes_nothing(app: App) -> None:
    """R4, L9: the code has returned; a refused end would ask it again what it cannot answer otherwise."""
    async with serving(app):
        run = await app.start(deaf)
        await until_logged(app, run.id, "step_started")
        request = new("cancel_requested", data={"reason": "too late"})
        interleave("worker.append.before", lambda: commit(app.store, run.id, request))
        commit(app.store, run.id, completed("gated#1", "x"))
        assert await run.result(PATIENCE) == "done"
    events = await log_of(app, run.id)
    assert [e.type for e in events[-2:]] == ["cancel_requested", "run_completed"]
    assert await run.cancel() is False
    assert_true_to_itself(events)


def test_a_buffered_payload_is_handed_over_without_suspension() -> None:
    """R6, L10: handed over through a future, a kept payload has a window in which a cancel loses it."""
    seen: list[str] = []

    @hf.workflow(name="handed over")
    async def handed_over() -> Any:
        hook = hf.hook("T")
        await free("first")
        asyncio.get_running_loop().call_soon(seen.append, "something else ran")
        payload = await hook
        seen.append("payload")
        return payload

    run = Rehearsal(handed_over)
    run.send("T", 7)
    run.complete("free#1")
    assert run.result() == 7
    assert seen == ["payload", "something else ran"]


def test_a_new_field_and_the_order_of_a_set_are_no_divergence() -> None:
    """R7: a digest of the bytes would diverge each run in flight for a new parameter, or another hash seed."""

    async def grown(items: Any, limit: int = 3) -> Any: ...
    async def small(items: Any) -> Any: ...

    def code(fn: Any) -> Any:
        fn.__qualname__ = "digested step"
        step = hf.step(fn)

        @hf.workflow(name="digested")
        async def digested() -> None:
            await step({"a", "b", "c", "d"})

        return digested

    run = Rehearsal(code(small))
    log = run.log
    run.close()
    replay_run(log, code(grown))
    called = log[1]
    turned = called.body.replace(b"limit", b"limit")
    assert called.type == "step_scheduled"
    assert replay(code(grown), [log[0], Event("r", 2, called.type, called.key, called.time, turned)])
    other = Event("r", 2, called.type, called.key, called.time, b'{"args":{"items":[1]}}')
    with pytest.raises(ReplayDivergence, match="position 2"):
        replay_run([log[0], other], code(grown))


async def test_seed_and_python_version_stand_in_the_log(app: App) -> None:
    """R8, R10: chance must survive a fork of the log, and minor versions of CPython order wake-ups otherwise."""
    run = await app.start(three_steps)
    created = (await log_of(app, run.id))[0].data
    assert created["python"] == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert len(created["seed"]) >= 16


@hf.workflow
async def busy_listener(count: int) -> int:
    hook = hf.hook("T")

    async def listen() -> None:
        async for _ in hook:
            pass

    listener = asyncio.create_task(listen())
    for number in range(count):
        await free(number)
    listener.cancel()
    return count


async def test_under_a_flood_of_payloads_a_run_is_replayed_a_few_times_not_at_each_step(app: App) -> None:
    """R11: early delivery into a flood costs a whole replay for each step; it is suspended after the first."""
    from holdfast import faults

    landed = 0

    def flood() -> None:
        nonlocal landed
        if landed < 60:
            landed += 1
            land(app, "T", landed, delivery=f"d{landed}")

    async with serving(app) as worker:
        run = await app.start(busy_listener, 50)
        await until_logged(app, run.id, "hook_opened")
        faults.arm("worker.append.before", flood)
        assert await run.result(PATIENCE) == 50
        faults.disarm()
        assert worker.refusals <= 3
    assert landed >= 50
    assert_true_to_itself(await log_of(app, run.id))
