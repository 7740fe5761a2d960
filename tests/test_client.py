"""What applications hold: starting, waiting, looking, cancelling, resuming (DESIGN §8)."""

import asyncio
import os
import subprocess
import sys
import textwrap
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent / "worker"))

from patience import PATIENCE
from worker_kit import Gate, assert_one_end, log_of, logged, parked, types

import holdfast as hf
from holdfast.clock import SystemClock
from holdfast.errors import DefinitionError, DeliveryConflict
from holdfast.events import new

bodies: Counter[str] = Counter()
gates: dict[str, Gate] = {}


@dataclass
class Order:
    id: str
    amount: int = 1


@dataclass
class Approval:
    ok: bool
    note: str = ""


class Declined(Exception):
    """What a shop's own code raises."""


@hf.step(name="client.double")
async def double(amount: int) -> int:
    bodies["double"] += 1
    return amount * 2


@hf.workflow(name="client.doubled")
async def doubled(amount: int, note: str = "none") -> int:
    return await double(amount)


@hf.workflow(name="client.other")
async def other(amount: int, note: str = "none") -> int:
    return amount


@hf.workflow(name="client.order")
async def ordered(order: Order) -> Order:
    return Order(order.id, await double(order.amount))


@hf.step(name="client.decline", retries=0)
async def decline(card: str) -> None:
    error = Declined(f"card {card} was declined")
    error.add_note("ask for another card")
    raise error from ValueError("limit")


@hf.workflow(name="client.declined")
async def declined(card: str) -> None:
    await decline(card)


@hf.workflow(name="client.sleeper")
async def sleeper(seconds: float) -> str:
    await hf.sleep(seconds)
    return "slept"


@hf.step(name="client.clean-up")
async def clean_up(what: str) -> None:
    bodies[what] += 1


@hf.workflow(name="client.careful")
async def careful(what: str) -> str:
    try:
        await hf.sleep(3600)
    finally:
        await clean_up(what)
    return "done"


@hf.workflow(name="client.deaf")
async def deaf() -> str:
    try:
        await hf.sleep(3600)
    except asyncio.CancelledError:
        await clean_up("deaf")
    return "went on"


@hf.step(name="client.gated")
async def gated(name: str) -> str:
    await gates[name].wait()
    return name


@hf.workflow(name="client.waits-at-gate")
async def waits_at_gate(name: str) -> str:
    return await gated(name)


@hf.workflow(name="client.approval")
async def approval(token: str, times: int = 1) -> list[Approval]:
    async with hf.hook(token, type=Approval, metadata={"who": "ana"}) as hook:
        return [await hook for _ in range(times)]


@hf.workflow(name="client.anything")
async def anything(token: str, times: int = 1) -> list[Any]:
    hook = hf.hook(token)
    return [await hook for _ in range(times)]


@hf.workflow(name="client.closes-then-waits")
async def closes_then_waits(token: str) -> str:
    async with hf.hook(token, type=Approval) as hook:
        await hook
    await hf.hook(f"{token}/end")
    return "closed"


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def url(request, tmp_path):
    if request.param == "postgres":
        return request.getfixturevalue("postgres_url")
    return f"memory://{tmp_path}" if request.param == "memory" else f"sqlite:///{tmp_path}/app.db"


@pytest.fixture(autouse=True)
def _fresh():
    bodies.clear()


@pytest.fixture
async def app(url):
    async with hf.connect(url) as app:
        yield app


@pytest.fixture
async def working(app):
    async with app.worker():
        yield app
        Gate.open_all()


# ---- starting


async def test_a_start_with_the_same_id_and_input_is_the_same_run(working):
    first = await working.start(doubled, 21, run_id="one")
    assert await first.result(PATIENCE) == 42
    again = await working.start(doubled, 21, run_id="one")
    assert (again.id, await again.result(PATIENCE)) == ("one", 42)
    assert await (await working.start(doubled, amount=21, run_id="one")).result(PATIENCE) == 42
    assert await (await working.start(doubled, 21, "none", run_id="one")).result(PATIENCE) == 42, (
        "a default is no other"
    )
    assert types(await log_of(working, "one")).count("run_created") == 1


async def test_a_start_with_the_same_id_and_another_input_is_refused(working):
    await working.start(doubled, 21, run_id="one")
    with pytest.raises(hf.RunExists, match="another input"):
        await working.start(doubled, 22, run_id="one")
    with pytest.raises(hf.RunExists, match="another input"):
        await working.start(doubled, 21, note="other", run_id="one")
    with pytest.raises(hf.RunExists, match=r"client\.doubled"):
        await working.start(other, 21, run_id="one")
    assert [run.id async for run in working.runs()] == ["one"]


async def test_the_same_holds_in_a_process_without_a_worker(app):
    await app.start(doubled, 21, run_id="one")
    assert (await app.start(doubled, amount=21, run_id="one")).id == "one"
    with pytest.raises(hf.RunExists):
        await app.start(doubled, 1, run_id="one")
    with pytest.raises(hf.RunExists):
        await app.start(other, 21, run_id="one")
    assert types(await log_of(app, "one")) == ["run_created"]
    assert await app.run("one").status() == "pending"


@pytest.mark.parametrize("where", ["worker here", "no worker", "worker elsewhere"])
async def test_100_concurrent_starts_with_one_id_are_one_run(url, where):
    """L-16: one run, one body, and each caller holds that run."""
    async with hf.connect(url) as app, hf.connect(url) as second:
        if where == "worker here":
            async with app.worker():
                runs = await asyncio.gather(
                    *((app if n % 2 else second).start(doubled, 4, run_id="same") for n in range(100))
                )
                assert {await run.result(PATIENCE) for run in runs} == {8}
        else:
            runs = await asyncio.gather(*(app.start(doubled, 4, run_id="same") for _ in range(100)))
            async with (second if where == "worker elsewhere" else app).worker():
                assert {await run.result(PATIENCE) for run in runs} == {8}
        events = await log_of(app, "same")
        assert_one_end(events)
        assert types(events).count("run_created") == 1
        assert bodies["double"] == 1
        assert [run.id async for run in app.runs()] == ["same"]


async def test_concurrent_starts_with_one_id_and_different_inputs(working):
    """L-16: exactly one input wins; every other start is refused, none is silently dropped."""
    answers = await asyncio.gather(
        *(working.start(doubled, n % 2, run_id="same") for n in range(20)), return_exceptions=True
    )
    winner = (await log_of(working, "same"))[0].data["args"]["amount"]
    for n, answer in enumerate(answers):
        assert isinstance(answer, hf.Run if n % 2 == winner else hf.RunExists), (n, answer)


async def test_a_start_that_fails_never_leaves_a_run_of_a_concurrent_one_half_made(url):
    """L-16: while the first start's commit fails and is tried again, the second one must not write its own."""
    async with hf.connect(url) as app, app.worker():
        commit, failures = app.store.start_commit, [2]

        def failing(group):
            if failures[0]:
                failures[0] -= 1
                app.store.finish_commit(group, hf.StoreError("the disk is full"))
            else:
                commit(group)

        app.store.start_commit = failing
        runs = await asyncio.gather(*(app.start(doubled, 3, run_id="same") for _ in range(3)))
        assert [await run.result(PATIENCE) for run in runs] == [6, 6, 6]
        assert (await log_of(app, "same"))[0].data["args"] == {"amount": 3}


async def test_a_start_on_a_store_that_cannot_write_is_told_and_can_be_made_again(url, monkeypatch):
    """Bad input: a full disk. The caller gets the error, not silence, though a worker would go on trying."""
    monkeypatch.setattr("holdfast.worker.live.LiveRun.retry_most", 0.1)
    async with hf.connect(url) as app, app.worker():
        submit = app.store.submit

        def full(request, **_how):
            asyncio.get_running_loop().call_soon(request.answer, hf.StoreError("the disk is full"))

        app.store.submit = full
        with pytest.raises(hf.StoreError, match="disk is full"):
            await app.start(doubled, 4, run_id="full")
        app.store.submit = submit
        assert await (await app.start(doubled, 4, run_id="full")).result(PATIENCE) == 8


@pytest.mark.parametrize(
    ("args", "kwargs", "says"),
    [
        (("twenty",), {}, ["amount", "int", "str"]),
        ((), {}, ["amount"]),
        ((1, "a", "b"), {}, ["client.doubled"]),
        ((1,), {"colour": "red"}, ["colour"]),
        ((object(),), {}, ["amount", "object"]),
    ],
)
@pytest.mark.parametrize("with_worker", [False, True])
async def test_arguments_that_do_not_fit_create_nothing(app, with_worker, args, kwargs, says):
    async def attempt():
        with pytest.raises(hf.PayloadError) as caught:
            await app.start(doubled, *args, **kwargs)
        assert "\n" not in str(caught.value)
        for word in says:
            assert word in str(caught.value)

    if with_worker:
        async with app.worker():
            await attempt()
    else:
        await attempt()
    assert [run async for run in app.runs()] == []


async def test_only_workflows_can_be_started(app):
    with pytest.raises(DefinitionError, match=r"@hf\.workflow"):
        await app.start(double, 1)
    with pytest.raises(DefinitionError, match=r"@hf\.workflow"):
        await app.start(lambda: None)
    assert [run async for run in app.runs()] == []


@pytest.mark.parametrize("run_id", ["", "a\0b", "line\nbreak", "x" * 513, "\ud800", 7])
async def test_run_ids_that_nobody_could_type_are_refused(app, run_id):
    with pytest.raises(hf.PayloadError, match="run_id"):
        await app.start(doubled, 1, run_id=run_id)
    assert [run async for run in app.runs()] == []


@pytest.mark.parametrize("run_id", ["a'b\"c", "naïve—ключ-🗝", "a/b c%20?", "x" * 512, "; DROP TABLE runs"])
async def test_run_ids_may_hold_any_printable_text(working, run_id):
    run = await working.start(doubled, 1, run_id=run_id)
    assert await run.result(PATIENCE) == 2
    assert (await working.run(run_id).info()).id == run_id


@pytest.mark.parametrize(
    "attributes",
    [{"k": 5}, {"": "v"}, {"k": "v" * 257}, {f"k{n}": "v" for n in range(65)}, {"k": "\ud800"}, {"a\0": "v"}],
)
@pytest.mark.parametrize("with_worker", [False, True])
async def test_attributes_that_are_beyond_the_limits_create_nothing(app, attributes, with_worker):
    async def attempt():
        with pytest.raises(hf.PayloadError, match="attribute"):
            await app.start(doubled, 1, attributes=attributes)

    if with_worker:
        async with app.worker():
            await attempt()
    else:
        await attempt()
    assert [run async for run in app.runs()] == []


# ---- results


async def test_a_result_has_the_type_of_the_workflow_also_by_id(working):
    run = await working.start(ordered, Order("o1", 2))
    assert await run.result(PATIENCE) == Order("o1", 4)
    assert await working.run(run.id).result(PATIENCE) == Order("o1", 4)


async def test_a_timed_out_wait_leaves_the_run_alone(working):
    gate = gates["timed-out"] = Gate()
    run = await working.start(waits_at_gate, "timed-out")
    with pytest.raises(TimeoutError, match="goes on"):
        await run.result(timeout=0.05)
    assert await run.status() == "running"
    gate.open.set()
    assert await run.result(PATIENCE) == "timed-out"
    assert await run.result(timeout=0.5) == "timed-out"


async def test_a_failed_run_raises_with_the_original_as_its_cause(working):
    run = await working.start(declined, "4242")
    for handle in (run, working.run(run.id)):
        with pytest.raises(hf.RunFailed) as caught:
            await handle.result(PATIENCE)
        assert "Declined" in str(caught.value)
        assert "4242" in str(caught.value)
        assert caught.value.run_id == run.id
        assert caught.value.type == "Declined"
        cause = caught.value.__cause__
        assert type(cause) is Declined
        assert cause.args == ("card 4242 was declined",)
        assert cause.__notes__ == ["ask for another card"]
        assert type(cause.__cause__) is ValueError
    assert await run.status() == "failed"


async def test_waiting_for_a_run_that_does_not_exist(app):
    for ask in (app.run("nobody").result(1), app.run("nobody").status(), app.run("nobody").info()):
        with pytest.raises(hf.RunNotFound, match="nobody"):
            await ask
    for change in (app.run("nobody").cancel(), app.run("nobody").terminate(), app.run("nobody").wake()):
        with pytest.raises(hf.RunNotFound):
            await change
    assert [event async for event in app.run("nobody").events()] == []


async def test_many_wait_for_one_result_and_none_of_them_polls(url):
    """H-05: the end is pushed, also to another handle; the look-ups do not grow with the time waited."""
    async with hf.connect(url) as app, hf.connect(url) as watcher, app.worker():
        gate = gates["pushed"] = Gate()
        run = await app.start(waits_at_gate, "pushed")
        looks, ask = [], watcher.store.end_of

        async def counted(run_id):
            looks.append(run_id)
            return await ask(run_id)

        watcher.store.end_of = counted
        waiting = [asyncio.ensure_future(watcher.run(run.id).result(PATIENCE)) for _ in range(10)]
        await gate.come.wait()
        with pytest.raises(TimeoutError):
            await watcher.run(run.id).result(0.2)
        assert len(looks) == 11, "each wait looks once, and then waits to be told"
        gate.open.set()
        assert await asyncio.gather(*waiting) == ["pushed"] * 10


async def test_the_end_of_a_run_that_is_driven_here_is_not_looked_for(url, monkeypatch):
    """Its commit brings it along, of whatever kind it is; but who asks later finds it in the store."""
    async with hf.connect(url) as app, app.worker():
        looks, ask = [], app.store.end_of

        async def counted(run_id):
            looks.append(run_id)
            return await ask(run_id)

        monkeypatch.setattr(app.store, "end_of", counted)
        gate = gates["driven"] = Gate()
        run, stopped = [
            await app.start(waits_at_gate, "driven", run_id=name) for name in ("driven", "stopped")
        ]
        waiting = asyncio.ensure_future(run.result(PATIENCE))
        ending = asyncio.ensure_future(stopped.result(PATIENCE))
        await gate.come.wait()
        await stopped.terminate("enough")
        with pytest.raises(hf.RunCancelled, match="enough"):
            await ending
        gate.open.set()
        assert await waiting == "driven"
        assert looks == []
        assert await run.result(PATIENCE) == "driven"
        with pytest.raises(hf.RunCancelled, match="enough"):
            await stopped.result(PATIENCE)
        assert looks == ["driven", "stopped"]


async def test_who_asks_right_after_an_end_from_outside_does_not_wait_for_it(url, monkeypatch):
    """The worker of this process has heard of it, and may still be reading it."""
    monkeypatch.setattr("holdfast.ends._LOOK_AGAIN", 10 * PATIENCE)
    async with hf.connect(url) as app, app.worker():
        gates["outside"] = Gate()
        run = await app.start(waits_at_gate, "outside")
        await gates["outside"].come.wait()
        await run.terminate("enough")
        with pytest.raises(hf.RunCancelled, match="enough"):
            await run.result(PATIENCE)
        gates["outside"].open.set()


# ---- looking


async def test_status_info_and_events_tell_the_same_story(working):
    gate = gates["story"] = Gate()
    run = await working.start(waits_at_gate, "story", run_id="story", attributes={"customer": "ana"})
    await gate.come.wait()
    info = await run.info()
    assert (info.id, info.workflow, info.status) == ("story", "client.waits-at-gate", "running")
    assert info.attributes == {"customer": "ana"}
    assert info.ended_at is None
    assert info.parked is None
    gate.open.set()
    await run.result(PATIENCE)
    info = await run.info()
    assert info.status == await run.status() == "completed"
    assert info.created_at <= info.ended_at
    events = [event async for event in run.events()]
    assert types(events) == [
        "run_created", "run_started", "step_scheduled", "step_started", "step_completed", "run_completed",
    ]  # fmt: skip
    assert info.position == len(events)
    assert [e.position async for e in run.events(after=4)] == [5, 6]
    assert [e.position async for e in run.events(after=1, limit=3)] == [2, 3, 4]
    assert [e async for e in run.events(limit=0)] == []
    assert [e async for e in run.events(after=6)] == []
    assert b"story" in events[0].body


async def test_events_without_data_leave_the_payloads_out(working):
    run = await working.start(doubled, 21)
    await run.result(PATIENCE)
    full, bare = [e async for e in run.events()], [e async for e in run.events(data=False)]
    assert [(e.position, e.type, e.key, e.time) for e in bare] == [
        (e.position, e.type, e.key, e.time) for e in full
    ]
    assert {e.body for e in bare} == {b"{}"}
    assert b"42" in full[-1].body


async def test_a_long_log_is_read_page_by_page(app):
    await app.store.append("long", [new("run_created", data={"workflow": "w", "args": {}})], after=0)
    for start in range(0, 1000, 100):
        drafts = [new("noted", key=f"n#{start + n + 1}", data={}) for n in range(100)]
        await app.store.append("long", drafts, after=start + 1)
    pages, read = [], app.store.read

    async def counted(run_id, after=0, limit=None):
        page = await read(run_id, after, limit)
        pages.append(len(page))
        return page

    app.store.read = counted
    assert [e.position async for e in app.run("long").events()] == list(range(1, 1002))
    assert max(pages) <= 200


class Steps(SystemClock):
    """A clock that can be set, so that runs are created at one instant."""

    def __init__(self):
        self.at = 1_000_000

    def now(self):
        return self.at


async def test_the_list_of_runs_is_stable_while_new_ones_start(url):
    """L-07 for readers: no run is shown twice or left out, though many were created at one instant."""
    clock = Steps()
    async with hf.connect(url, clock=clock) as app:
        for n in range(450):
            clock.at += n % 3 == 0
            await app.start_raw("w" if n % 2 else "v", b"{}", run_id=f"r{n:03}")
        seen = []
        async for run in app.runs():
            seen.append(run.id)
            if len(seen) in {1, 200, 201, 399}:  # around the edges of the pages
                await app.start_raw("w", b"{}", run_id=f"late-{len(seen)}")
        assert sorted(seen) == [f"r{n:03}" for n in range(450)]
        assert seen == sorted(seen, reverse=True)
        assert len([run async for run in app.runs(limit=7)]) == 7
        assert len([run async for run in app.runs(limit=300)]) == 300
        assert len([run async for run in app.runs(workflow="v")]) == 225
        assert [run async for run in app.runs(status="completed")] == []
        assert len([run async for run in app.runs(status="pending", workflow="w")]) == 229


async def test_runs_are_found_by_attribute(app):
    await app.start(doubled, 1, run_id="a", attributes={"customer": "ana", "stage": "paid"})
    await app.start(doubled, 1, run_id="b", attributes={"customer": "ben"})
    assert [run.id async for run in app.runs(attributes={"customer": "ana"})] == ["a"]
    assert [run.id async for run in app.runs(attributes={"customer": "ana", "stage": "new"})] == []


# ---- cancel, terminate, wake


async def test_cancel_runs_the_finally_blocks_and_ends_the_run_cancelled(working):
    run = await working.start(careful, "cancelled")
    await logged(working, run.id, "timer_started")
    assert await run.cancel("not wanted any more") is True
    with pytest.raises(hf.RunCancelled, match="not wanted any more") as caught:
        await run.result(PATIENCE)
    assert (caught.value.reason, caught.value.run_id) == ("not wanted any more", run.id)
    assert await run.status() == "cancelled"
    assert bodies["cancelled"] == 1
    assert await run.cancel("again") is True, "it is cancelled, as was asked"
    events = await log_of(working, run.id)
    assert_one_end(events)
    assert types(events).count("cancel_requested") == 1


async def test_cancel_where_no_worker_serves_the_run_is_heard_later(app):
    run = await app.start(careful, "later")
    assert await run.cancel("early") is True
    assert await run.status() == "pending"
    async with app.worker():
        with pytest.raises(hf.RunCancelled, match="early"):
            await run.result(PATIENCE)


async def test_cancel_of_a_run_that_has_ended_is_false_and_writes_nothing(working):
    run = await working.start(doubled, 1)
    await run.result(PATIENCE)
    before = await log_of(working, run.id)
    assert await run.cancel() is False
    assert await log_of(working, run.id) == before
    assert await run.status() == "completed"


async def test_a_cancel_that_lands_between_the_last_fact_and_the_end_is_too_late(app):
    """L9: the end follows from the fact that made the code return; what commits in between changes nothing."""
    async with app.worker():
        run = await app.start(anything, "late-cancel")
        await logged(app, run.id, "hook_opened")
        submit, held = app.store.submit, []
        come = asyncio.Event()

        def hold(request, **how):
            if any(draft.type == "run_completed" for draft in request.drafts):
                held.append(request)
                come.set()
            else:
                submit(request, **how)

        app.store.submit = hold
        await app.resume("late-cancel", 1)
        await come.wait()
        cancelled = asyncio.ensure_future(run.cancel("too late"))
        await logged(app, run.id, "cancel_requested")
        app.store.submit = submit
        submit(held[0])
        assert await cancelled is False
        assert await run.result(PATIENCE) == [1]
        assert types(await log_of(app, run.id))[-2:] == ["cancel_requested", "run_completed"]


async def test_a_run_may_go_on_after_a_cancel(working):
    run = await working.start(deaf)
    await logged(working, run.id, "timer_started")
    assert await run.cancel() is True, "its code has taken notice"
    assert await run.result(PATIENCE) == "went on"


async def test_terminate_asks_nobody(working):
    run = await working.start(careful, "terminated")
    await logged(working, run.id, "timer_started")
    assert await run.terminate("enough") is True
    with pytest.raises(hf.RunCancelled, match="enough"):
        await run.result(PATIENCE)
    assert bodies["terminated"] == 0, "no finally block ran"
    assert await run.terminate() is False
    assert_one_end(await log_of(working, run.id))
    assert await working.timers(run=run.id) == []


async def test_terminate_interrupts_what_runs(working):
    gate = gates["interrupted"] = Gate()
    run = await working.start(waits_at_gate, "interrupted")
    await gate.come.wait()
    assert await run.terminate() is True
    await logged(working, run.id, "step_failed")
    assert gate.passed == 0
    assert await run.status() == "cancelled"


async def test_terminate_works_without_a_worker(app):
    run = await app.start(careful, "nobody")
    assert await run.terminate("never mind") is True
    async with app.worker():
        with pytest.raises(hf.RunCancelled, match="never mind"):
            await run.result(PATIENCE)
    assert bodies["nobody"] == 0


async def test_wake_ends_sleeps_early(working):
    run = await working.start(sleeper, 3600.0)
    await logged(working, run.id, "timer_started")
    assert await run.wake() is True
    assert await run.result(PATIENCE) == "slept"
    assert await run.wake() is False
    events = await log_of(working, run.id)
    assert types(events).count("woken") == 1
    assert "timer_fired" not in types(events)


# ---- hooks


async def test_a_payload_reaches_its_run_and_the_sender_learns_where(working):
    run = await working.start(approval, "approve:1")
    await logged(working, run.id, "hook_opened")
    sent = await working.resume("approve:1", Approval(ok=True, note="fine"))
    assert await run.result(PATIENCE) == [Approval(True, "fine")]
    events = await log_of(working, run.id)
    assert (sent.run_id, sent.duplicate) == (run.id, False)
    assert events[sent.position - 1].type == "hook_received"


@pytest.mark.parametrize(
    "payload",
    [{"ok": "yes"}, {}, {"ok": True, "note": 7}, "yes", 7, None, [True], Order("o1"), {"ok": None}],
)
async def test_a_payload_of_the_wrong_shape_is_refused_at_the_sender(working, payload):
    run = await working.start(approval, "approve:2")
    before = await logged(working, run.id, "hook_opened")
    with pytest.raises(hf.PayloadError) as caught:
        await working.resume("approve:2", payload)
    assert "approve:2" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert await log_of(working, run.id) == before, "the run is untouched"
    await working.resume("approve:2", {"ok": True})
    assert await run.result(PATIENCE) == [Approval(True)]


async def test_a_payload_over_the_limit_is_refused_at_the_sender(url):
    async with hf.connect(url, payload_limit=1000) as app, app.worker():
        run = await app.start(anything, "big")
        before = await logged(app, run.id, "hook_opened")
        with pytest.raises(hf.PayloadError, match=r"big payload.*1,?000"):
            await app.resume("big", "x" * 1001)
        assert await log_of(app, run.id) == before


async def test_a_delivery_id_makes_a_payload_once(working):
    """H-02: sent again it is answered with the first position; under another payload it is refused."""
    run = await working.start(anything, "once", 2)
    await logged(working, run.id, "hook_opened")
    first = await working.resume("once", {"n": 1}, delivery_id="d1")
    again = await working.resume("once", {"n": 1}, delivery_id="d1")
    assert (again.position, again.run_id, again.duplicate) == (first.position, run.id, True)
    with pytest.raises(DeliveryConflict, match="d1"):
        await working.resume("once", {"n": 2}, delivery_id="d1")
    await working.resume("once", {"n": 2}, delivery_id="d2")
    assert await run.result(PATIENCE) == [{"n": 1}, {"n": 2}]
    late = await working.resume("once", {"n": 1}, delivery_id="d1")
    assert (late.position, late.duplicate) == (first.position, True), "also when the run has ended"


async def test_a_typed_payload_sent_again_after_its_hook_closed_is_still_the_same(working):
    """H-02, L3: *already there* comes before the closed hook, whatever the payload's class."""
    run = await working.start(closes_then_waits, "typed")
    await logged(working, run.id, "hook_opened")
    first = await working.resume("typed", Approval(True), delivery_id="d1")
    await logged(working, run.id, "hook_closed")
    again = await working.resume("typed", Approval(True), delivery_id="d1")
    assert (again.position, again.duplicate) == (first.position, True)
    await working.resume("typed/end")
    await run.result(PATIENCE)
    assert (await working.resume("typed", Approval(True), delivery_id="d1")).duplicate is True
    with pytest.raises(hf.HookNotFound):
        await working.resume("typed", Approval(True), delivery_id="d2")


async def test_a_hundred_concurrent_sends_of_one_delivery_are_one_payload(working):
    """H-02 under concurrency."""
    run = await working.start(anything, "burst", 2)
    await logged(working, run.id, "hook_opened")
    sent = await asyncio.gather(*(working.resume("burst", 1, delivery_id="d") for _ in range(100)))
    assert len({s.position for s in sent}) == 1
    assert sum(not s.duplicate for s in sent) == 1
    await working.resume("burst", 2)
    assert await run.result(PATIENCE) == [1, 2]


async def test_the_reasons_why_a_hook_is_not_found(working):
    """H-01: unknown, closed and ended are different answers, and nothing is silently dropped."""
    with pytest.raises(hf.HookNotFound) as caught:
        await working.resume("who", 1)
    assert caught.value.reason == "unknown"
    run = await working.start(closes_then_waits, "shut")
    await logged(working, run.id, "hook_opened")
    await working.resume("shut", Approval(True))
    await logged(working, run.id, "hook_closed")
    with pytest.raises(hf.HookNotFound) as caught:
        await working.resume("shut", Approval(True))
    assert caught.value.reason == "closed"
    await working.resume("shut/end")
    await run.result(PATIENCE)
    with pytest.raises(hf.HookNotFound) as caught:
        await working.resume("shut/end")
    assert caught.value.reason == "run_ended"
    assert caught.value.code == "hook_not_found"


async def test_a_token_is_held_by_one_run_at_a_time_and_is_free_again_after(working):
    """R-12: the second run learns the owner at its await; when the first ends, the token can be used again."""
    owner = await working.start(anything, "desk", run_id="owner")
    await logged(working, owner.id, "hook_opened")
    loser = await working.start(anything, "desk", run_id="loser")
    with pytest.raises(hf.RunFailed, match="HookTaken") as caught:
        await loser.result(PATIENCE)
    assert isinstance(caught.value.__cause__, hf.HookTaken)
    assert caught.value.__cause__.owner == "owner"
    await working.resume("desk", "mine")
    assert await owner.result(PATIENCE) == ["mine"]
    third = await working.start(anything, "desk", run_id="third")
    await logged(working, third.id, "hook_opened")
    assert (await working.resume("desk", "again")).run_id == "third"
    assert await third.result(PATIENCE) == ["again"]


async def test_hooks_are_listed_with_schema_and_metadata(working):
    first = await working.start(approval, "list:1")
    second = await working.start(anything, "list:2")
    for run in (first, second):
        await logged(working, run.id, "hook_opened")
    hooks = [hook async for hook in working.hooks()]
    assert [(h.token, h.run, h.status) for h in hooks] == [
        ("list:1", first.id, "open"), ("list:2", second.id, "open"),
    ]  # fmt: skip
    assert hooks[0].metadata == {"who": "ana"}
    assert "ok" in str(hooks[0].schema)
    assert hooks[1].schema is None
    assert [h.token async for h in working.hooks(run=second.id)] == ["list:2"]
    assert [h.run async for h in working.hooks(token="list:1")] == [first.id]
    await working.resume("list:1", {"ok": False})
    await first.result(PATIENCE)
    assert [h.token async for h in working.hooks()] == ["list:2"]
    assert [(h.token, h.status) async for h in working.hooks(open_only=False)] == [
        ("list:1", "closed"), ("list:2", "open"),
    ]  # fmt: skip


@hf.workflow(name="client.many-hooks")
async def many_hooks(count: int) -> None:
    hooks = [hf.hook(f"many/{n:04}") for n in range(count)]
    await hooks[-1]


async def test_hooks_page_beyond_one_page(working):
    run = await working.start(many_hooks, 450)
    await logged(working, run.id, "hook_opened", 450)
    tokens = [hook.token async for hook in working.hooks()]
    assert tokens == [f"many/{n:04}" for n in range(450)]
    assert len([hook async for hook in working.hooks(run=run.id)]) == 450


async def test_payloads_that_nobody_read_are_counted(working):
    """L10: kept in order, and both the read and the unread are known at the end."""
    run = await working.start(anything, "unread", 1)
    await logged(working, run.id, "hook_opened")
    answers = await asyncio.gather(*(working.resume("unread", n) for n in range(20)), return_exceptions=True)
    accepted = [a for a in answers if not isinstance(a, BaseException)]
    assert all(isinstance(a, hf.HookNotFound) for a in answers if isinstance(a, BaseException))
    await run.result(PATIENCE)
    assert await run.unread() == len(accepted) - 1


@pytest.mark.parametrize("token", ["quote'\"`", "ключ 🗝", "%_*?", "x" * 512, "a#1"])
async def test_tokens_may_hold_any_printable_text(working, token):
    run = await working.start(anything, token)
    await logged(working, run.id, "hook_opened")
    assert (await working.resume(token, "in")).run_id == run.id
    assert await run.result(PATIENCE) == ["in"]


@pytest.mark.parametrize("text", ["nul \0 inside", "\ud800 lone", "🗝", "", "'; --", "\u2028"])
async def test_every_text_goes_through_hooks_unharmed(working, text):
    run = await working.start(anything, "text")
    await logged(working, run.id, "hook_opened")
    await working.resume("text", {"said": text, text: 1})
    assert await run.result(PATIENCE) == [{"said": text, text: 1}]


@pytest.mark.parametrize("token", ["nul\0", "\ud800", ""])
async def test_a_token_that_no_run_can_open_is_not_found(app, token):
    with pytest.raises((hf.HookNotFound, hf.PayloadError)):
        await app.resume(token, 1)


async def test_a_delivery_id_that_is_no_text_is_refused(working):
    run = await working.start(anything, "ids")
    await logged(working, run.id, "hook_opened")
    for delivery_id in (7, "\ud800"):
        with pytest.raises(hf.PayloadError):
            await working.resume("ids", 1, delivery_id=delivery_id)
    await working.resume("ids", 1)
    assert await run.result(PATIENCE) == [1]


# ---- parked runs


@hf.workflow(name="client.grows")
async def grows(one: int) -> int:
    return await double(one)


async def test_a_parked_run_is_shown_and_wake_takes_it_up_again(working):
    run = await working.start(sleeper, 3600.0)
    await logged(working, run.id, "timer_started")
    await working.store.park(run.id, '{"kind":"diverged","message":"by hand"}')
    assert await parked(working, run.id) == {"kind": "diverged", "message": "by hand"}
    assert await run.status() == "running"
    assert [r.id async for r in working.runs(parked=True)] == [run.id]
    assert await run.wake() is True
    assert await run.result(PATIENCE) == "slept"
    assert [r.id async for r in working.runs(parked=True)] == []


# ---- execute

SCRIPT = """
    import asyncio, threading
    import holdfast as hf

    @hf.step
    async def double(n: int) -> int:
        return n * 2

    @hf.workflow
    async def doubled(n: int) -> int:
        return await double(n)

    @hf.workflow
    async def broken() -> None:
        raise LookupError("no such thing")

    async def notebook():
        return hf.execute(doubled, 4)

    if __name__ == "__main__":
        print(hf.execute(doubled, 21), hf.execute(doubled, n=3), asyncio.run(notebook()))
        try:
            hf.execute(doubled, "four")
        except hf.PayloadError as error:
            print("PayloadError", "n" in str(error))
        try:
            hf.execute(broken)
        except hf.RunFailed as error:
            print("RunFailed", repr(error.__cause__))
        print(sorted(t.name for t in threading.enumerate()))
"""


@pytest.mark.parametrize("store", ["default", "named"])
def test_execute_in_a_script_and_inside_a_running_loop(tmp_path, store):
    """DESIGN §8: $HOLDFAST_URL, else .holdfast/holdfast.db; a script gets results and errors, and exits."""
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    environment = {k: v for k, v in os.environ.items() if k != "HOLDFAST_URL"}
    file = tmp_path / ".holdfast" / "holdfast.db"
    if store == "named":
        file = tmp_path / "other" / "app.db"
        environment["HOLDFAST_URL"] = f"sqlite:///{file}"
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stdout.splitlines() == [
        "42 6 8",
        "PayloadError True",
        "RunFailed LookupError('no such thing')",
        "['MainThread']",
    ], done.stderr
    assert done.returncode == 0
    assert file.exists()
    assert (tmp_path / ".holdfast").exists() is (store == "default")


async def test_an_app_that_was_left_says_so(url):
    async with hf.connect(url) as app:
        run = await app.start(doubled, 1)
    for use in (app.start(doubled, 2), app.resume("t", 1), run.cancel()):
        with pytest.raises(hf.StoreError, match="async with"):
            await use


def test_an_address_that_no_backend_knows():
    with pytest.raises(hf.StoreError, match="memory://"):
        hf.connect("mysql://localhost/x")
    with pytest.raises(hf.StoreError, match="sqlite:///"):
        hf.connect("sqlite://")
