"""A worker's life: coming and leaving, losing runs, code that blocks, diverges or is not there."""

import asyncio
import logging
import os
from collections import Counter

import pytest
from patience import PATIENCE
from worker_kit import Gate, assert_one_end, log_of, logged, of_type, parked, types

import holdfast as hf
from holdfast.events import new
from holdfast.worker.presence import Others, Presence, Sign
from holdfast.worker.schedule import Scheduling
from holdfast.workflow import workflows

bodies: Counter[str] = Counter()
gates: dict[str, Gate] = {}


@pytest.fixture(autouse=True)
def _fresh():
    bodies.clear()
    gates.clear()


@hf.step(name="worker.add")
async def add(a: int, b: int) -> int:
    bodies["add"] += 1
    return a + b


@hf.step(name="worker.at-gate")
async def at_gate(name: str) -> str:
    bodies[name] += 1
    await gates[name].wait()
    return name


@hf.workflow(name="worker.sum")
async def total(count: int) -> int:
    value = 0
    for n in range(count):
        value = await add(value, n)
    return value


@hf.workflow(name="worker.gated")
async def gated(name: str) -> str:
    said = await at_gate(name)
    await add(1, 2)
    return said


@hf.workflow(name="worker.echo")
async def echo(token: str, times: int = 1) -> list[int]:
    hook = hf.hook(token, type=int)
    return [await add(await hook, 0) for _ in range(times)]


# ---- leaving


async def test_leaving_lets_running_steps_finish_and_hands_the_rest_back(url):
    """DESIGN §8: nothing is repeated, and the next worker goes on where this one was."""
    async with hf.connect(url) as app:
        gate = gates["leaving"] = Gate()
        async with app.worker():
            run = await app.start(gated, "leaving")
            await gate.come.wait()
            asyncio.get_running_loop().call_later(0.02, gate.open.set)
        events = await log_of(app, run.id)
        assert types(events)[-1] == "step_completed", (
            "the outcome is recorded, what follows from it is not begun"
        )
        assert (await run.info()).worker is None
        assert await app.store.workers() == []
        async with app.worker():
            assert await run.result(PATIENCE) == "leaving"
        assert bodies == {"leaving": 1, "add": 1}
        assert types(await log_of(app, run.id)).count("step_started") == 2


@pytest.mark.parametrize("moment", ["while reading", "while committing"])
async def test_a_fact_that_a_leaving_worker_delivered_but_did_not_act_on_is_not_lost(url, moment):
    """L14: the delivered mark that is handed back covers only facts whose commands are in the log.

    H-03: otherwise the payload counts as delivered, no worker takes the run, and it hangs for ever.
    """
    async with hf.connect(url) as app:
        store = app.store
        catch_up, submit = store.catch_up, store.submit
        at, go_on = asyncio.Event(), asyncio.Event()
        async with app.worker():
            run = await app.start(echo, "leave")
            await logged(app, run.id, "hook_opened")
            if moment == "while reading":

                async def slowly(run_id, after):
                    events = await catch_up(run_id, after)
                    at.set()
                    await go_on.wait()
                    return events

                store.catch_up = slowly
                await app.resume("leave", 7)
            else:

                def slow_submit(request, **how):
                    at.set()
                    asyncio.ensure_future(after(go_on, lambda: submit(request, **how)))

                store.submit = slow_submit
                await app.resume("leave", 7)
            await at.wait()
            store.catch_up = catch_up
            asyncio.get_running_loop().call_later(0.02, go_on.set)
        store.submit = submit
        async with app.worker():
            assert await run.result(PATIENCE) == [7]
        assert bodies["add"] == 1


async def after(event, work):
    await event.wait()
    work()


async def test_a_worker_whose_leaving_is_cancelled_leaves_nothing_behind(tmp_path):
    """A second Ctrl-C: the lock on its presence file must not stay held by a process that lives on."""
    url = f"sqlite:///{tmp_path}/app.db"
    async with hf.connect(url) as app:
        gate = gates["stuck"] = Gate()
        inside = asyncio.Event()

        async def work():
            async with app.worker():
                await app.start(gated, "stuck")
                await gate.come.wait()
                inside.set()

        task = asyncio.ensure_future(work())
        await inside.wait()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert list(app.store.presence_folder.glob("*.lock")) == []
        gate.open.set()


async def test_a_worker_leaves_though_its_store_never_answers_again(url, monkeypatch):
    """What it could not record is done again by others; it does not hold up its process for ever."""
    monkeypatch.setattr("holdfast.worker.live.LiveRun.retry_most", 0.1)
    async with asyncio.timeout(PATIENCE), hf.connect(url) as app:
        gate = gates["broken"] = Gate()
        submit = app.store.submit
        async with app.worker():
            run = await app.start(gated, "broken")
            await gate.come.wait()

            def broken(request, **_how):
                asyncio.get_running_loop().call_soon(request.answer, hf.StoreError("the disk is full"))

            app.store.submit = broken
            gate.open.set()
        app.store.submit = submit
        async with app.worker():
            assert await run.result(PATIENCE) == "broken"
        assert bodies["broken"] == 2, "its outcome was lost with the disk, so it was done again"
        assert_one_end(await log_of(app, run.id))


async def test_a_worker_that_cannot_start_does_nothing_to_the_runs_that_it_was_given(url, monkeypatch):
    """Found by chaos on PostgreSQL: the server crashed while a worker began. It let go of its thread and its file,
    read the run that it had just been given, could not tick it without them, and parked it as broken."""
    async with hf.connect(url) as app:
        run, before = await app.start_raw("worker.sum", b'{"count":3}'), asyncio.all_tasks()

        async def crashes(_self) -> None:
            raise hf.StoreError("the server has crashed")

        with monkeypatch.context() as patch:
            patch.setattr(Scheduling, "start", crashes)
            with pytest.raises(hf.StoreError, match="crashed"):
                async with app.worker():
                    pass
        while left := asyncio.all_tasks() - before:
            await asyncio.wait(left)
        info = await run.info()
        assert (info.parked, info.worker) == (None, None)
        assert types(await log_of(app, run.id)) == ["run_created"]
        async with app.worker():
            assert await run.result(PATIENCE) == 3


async def test_a_worker_that_comes_back_twenty_times_finishes_everything(url):
    """Graceful restarts under load: every run ends, no finished step is repeated."""
    async with hf.connect(url) as app:
        runs = [await app.start(total, 5) for _ in range(30)]
        for round_ in range(20):
            async with app.worker(concurrency=5):
                runs += [await app.start(total, 5) for _ in range(3)]
                await asyncio.sleep(0.002 * (round_ % 4))
        async with app.worker():
            assert [await run.result(PATIENCE) for run in runs] == [10] * 90
        assert bodies["add"] == 90 * 5
        for run in runs:
            assert_one_end(await log_of(app, run.id))


# ---- losing runs to others


async def depose(app, worker):
    """What another worker does that finds this one's lease run out; then this one tries to renew it."""
    before = worker.id
    await app.store.discharge(worker.id)
    await worker._maintain._keep_lease()
    assert worker.id != before
    await worker._maintain._keep_lease()


async def test_a_deposed_worker_does_not_cancel_the_steps_of_runs_that_others_go_on_with(url):
    """L-15: its attempt ends late, with its result; a cancellation would be the step's first outcome."""
    async with hf.connect(url) as first, hf.connect(url) as second:
        gate = gates["both"] = Gate()
        async with first.worker() as worker:
            run = await first.start(gated, "both")
            await gate.come.wait()
            await depose(first, worker)
            async with second.worker():
                await logged(second, run.id, "step_started", 2)
                gate.open.set()
                assert await run.result(PATIENCE) == "both"
            events = await logged(first, run.id, "step_completed", 3)
            assert of_type(events, "step_failed") == []
            outcomes = [
                e.data["attempt"] for e in of_type(events, "step_completed") if e.key == "worker.at-gate#1"
            ]
            assert sorted(outcomes) == [1, 2], "both attempts are recorded; the first one counts"
            assert [e.position for e in events] == list(range(1, len(events) + 1))


async def test_a_deposed_worker_serves_new_runs_under_its_new_name(tmp_path):
    """Its presence file goes by the new name too: when it dies, others must find what is its own."""
    async with hf.connect(f"sqlite:///{tmp_path}/app.db") as app, app.worker() as worker:
        await depose(app, worker)
        assert [row.id for row in await app.store.workers()] == [worker.id]
        assert [p.stem for p in app.store.presence_folder.glob("*.lock")] == [worker.id]
        assert await (await app.start(total, 3)).result(PATIENCE) == 3


async def test_a_deposed_worker_is_present_under_its_new_name_though_the_store_failed_meanwhile(url):
    """L-17: on other machines its death is found out by that name."""
    async with hf.connect(url) as app, app.worker() as worker:
        enlist, attend, attended = app.store.enlist, app.store.attend, []

        async def failing(row):
            if row.id != before:
                raise hf.StoreError("the disk is full")
            await enlist(row)

        async def attending(name):
            attended.append(name)
            await attend(name)

        before = worker.id
        app.store.enlist, app.store.attend = failing, attending
        await app.store.discharge(before)
        with pytest.raises(hf.StoreError, match="disk is full"):
            await worker._maintain._keep_lease()
        assert (worker.id != before, attended) == (True, [])
        app.store.enlist = enlist
        await worker._maintain._keep_lease()
        await worker._maintain._keep_lease()
        assert attended == [worker.id]


async def test_a_worker_that_was_paused_while_it_started_comes_under_another_name(url):
    """L-17: others found its lease run out between coming and claiming; it comes all the same."""
    async with hf.connect(url) as app:
        attend, names = app.store.attend, []

        async def attending(name):
            await attend(name)
            names.append(name)
            if len(names) == 1:
                await app.store.discharge(name)

        app.store.attend = attending
        async with app.worker() as worker:
            assert [worker.id] == names[1:]
            assert [row.id for row in await app.store.workers()] == [worker.id]
            assert await (await app.start(total, 3)).result(5) == 3


async def test_a_lease_that_cannot_be_renewed_just_now_is_not_lost(url):
    """L-04: only the store's typed answer says that others took over; a failed write says nothing of the kind.

    A worker that took it for that would drop its runs under an owner that nobody declares dead.
    """
    async with hf.connect(url) as app, app.worker() as worker:
        gate = gates["renewal"] = Gate()
        run = await app.start(gated, "renewal")
        await gate.come.wait()
        before, enlist = worker.id, app.store.enlist

        async def failing(_row):
            raise hf.StoreError("the disk is full")

        app.store.enlist = failing
        with pytest.raises(hf.StoreError, match="disk is full"):
            await worker._maintain._keep_lease()
        app.store.enlist = enlist
        assert worker.id == before
        gate.open.set()
        assert await run.result(PATIENCE) == "renewal"
        assert bodies["renewal"] == 1


async def test_a_death_that_was_found_while_the_store_failed_is_not_forgotten(tmp_path):
    """L-17: the dead worker's file is gone then, so nobody else would find it before its lease runs out."""
    async with hf.connect(f"sqlite:///{tmp_path}/app.db") as app, app.worker(probe=60) as worker:
        run = await app.start_raw("worker.sum", b'{"count":3}', run_id="orphan")
        async with asyncio.timeout(PATIENCE):
            assert await run.result() == 3
        dead = Presence(app.store.presence_folder, "wrk_dead")
        dead.mark(Sign("orphan"))
        dead._memory.close()
        os.close(dead._fd)
        discharge, said = app.store.discharge, []

        async def failing(name):
            app.store.discharge = counting
            raise hf.StoreError("the disk is full")

        async def counting(name):
            said.append(name)
            await discharge(name)

        app.store.discharge = failing
        with pytest.raises(hf.StoreError):
            await worker._maintain.bury_dead()
        await worker._maintain.bury_dead()
        assert said == ["wrk_dead"]


async def test_parking_a_run_does_not_cancel_its_running_steps(url):
    """L7: a divergence never changes what the log says of the steps."""
    async with hf.connect(url) as app, app.worker():
        gate = gates["parked"] = Gate()
        run = await app.start(two_ways, "parked")
        await gate.come.wait()
        await app.store.append(run.id, [new("noted", key="alien#1", data={})], after=4)
        await app.resume("nudge parked")
        assert (await parked(app, run.id))["kind"] == "diverged"
        gate.open.set()
        events = await logged(app, run.id, "step_completed")
        assert of_type(events, "step_failed") == []


@hf.workflow(name="worker.two-ways")
async def two_ways(name: str) -> str:
    task = asyncio.create_task(at_gate(name))
    await hf.hook(f"nudge {name}")
    return await task


def test_a_worker_that_came_in_the_same_instant_is_seen(tmp_path):
    """H-07: the kernel's clock for a folder is coarse; a file that came within the same tick must be found."""
    others = Others(tmp_path, "me")
    first = Presence(tmp_path, "first")
    stamp = tmp_path.stat().st_mtime_ns
    assert others.dead() == []
    second = Presence(tmp_path, "second")
    second.mark(Sign("culprit"))
    os.utime(tmp_path, ns=(stamp, stamp))
    second._memory.close()
    os.close(second._fd)  # the process dies: the kernel frees its lock
    assert others.dead() == [("second", "culprit")]
    first.close()


async def test_a_folder_that_cannot_be_read_is_looked_at_again(tmp_path, monkeypatch, caplog):
    """The look for dead neighbours outlives an error of the disk."""
    disk = {"broken": False}
    again = asyncio.Event()

    def dead(_others):
        if disk["broken"]:
            disk["broken"] = False
            raise PermissionError(13, "Permission denied")
        if "cannot see" in caplog.text:
            again.set()
        return []

    monkeypatch.setattr(Others, "dead", dead)
    async with hf.connect(f"sqlite:///{tmp_path}/look.db") as app, app.worker(probe=0.001):
        disk["broken"] = True
        await asyncio.wait_for(again.wait(), PATIENCE)
    assert "cannot see which workers are dead" in caplog.text


# ---- code that does not come back


@hf.workflow(name="worker.spins")
async def spins(token: str) -> None:
    await hf.hook(token)
    while True:
        pass  # the line that the log must name


@hf.workflow(name="worker.spins-deaf")
async def spins_deaf(token: str) -> None:
    await hf.hook(token)
    for _ in range(3):
        try:
            while True:
                pass
        except BaseException:
            bodies["swallowed"] += 1
    await add(1, 1)


@pytest.mark.parametrize("flow", [spins, spins_deaf])
async def test_a_tick_that_spins_is_interrupted_reported_and_parked(url, caplog, flow):
    """Issue: after the limit with run, file and line; after three in a row the run is parked; others go on."""
    async with hf.connect(url) as app, app.worker(tick_limit=0.2):
        other = await app.start(echo, "other", 2)
        run = await app.start(flow, "spin")
        await logged(app, run.id, "hook_opened")
        await app.resume("other", 1)
        with caplog.at_level(logging.ERROR, "holdfast.worker"):
            await app.resume("spin")
            reason = await parked(app, run.id)
        assert reason["kind"] == "runaway"
        assert f"{__file__}:" in reason["message"]
        assert run.id in reason["message"]
        reports = [r.getMessage() for r in caplog.records if "has not come back" in r.getMessage()]
        assert len(reports) == 3
        line = flow.fn.__code__.co_firstlineno
        for report in reports:
            where = report.rpartition("at ")[2]
            assert where.startswith(f"{__file__}:")
            assert line <= int(where.rpartition(":")[2]) <= line + 12
        assert await run.status() == "running"
        assert "step_scheduled" not in types(await log_of(app, run.id)), "no command of such a tick counts"
        await app.resume("other", 2)
        assert await other.result(PATIENCE) == [1, 2]


@hf.workflow(name="worker.spins-at-once")
async def spins_at_once() -> None:
    while True:
        pass


async def test_a_workflow_that_spins_from_its_first_line_does_not_hang_its_start(url):
    async with hf.connect(url) as app, app.worker(tick_limit=0.2):
        with pytest.raises(hf.StoreError, match=r"not started.*did not come back"):
            await app.start(spins_at_once)
        assert await (await app.start(total, 3)).result(PATIENCE) == 3


async def test_a_parked_runaway_is_not_tried_again_by_each_new_worker(url):
    """It would block or kill each of them; a divergence is tried again, for code that fits may be back."""
    async with hf.connect(url) as app:
        runs = {}
        for kind in ("runaway", "diverged"):
            runs[kind] = await app.start(total, 3)
            await app.store.park(runs[kind].id, f'{{"kind": "{kind}", "message": "by hand"}}')
        async with app.worker():
            assert await runs["diverged"].result(PATIENCE) == 3
            assert (await runs["runaway"].info()).parked["kind"] == "runaway"
            assert await runs["runaway"].wake() is True
            assert await runs["runaway"].result(PATIENCE) == 3


@hf.workflow(name="worker.recurses")
async def recurses(depth: int) -> int:
    return dig(depth)


def dig(depth: int) -> int:
    return dig(depth + 1) + 1


async def test_code_that_recurses_to_death_fails_its_run_alone(memory):
    run = await memory.start(recurses, 0)
    with pytest.raises(hf.RunFailed, match="RecursionError"):
        await run.result(PATIENCE)
    assert await (await memory.start(total, 3)).result(PATIENCE) == 3


@hf.workflow(name="worker.exits")
async def exits() -> None:
    raise SystemExit(3)


async def test_exit_in_a_workflow_fails_its_run_alone(memory):
    """H-10."""
    run = await memory.start(exits)
    with pytest.raises(hf.RunFailed, match="SystemExit"):
        await run.result(PATIENCE)
    assert await (await memory.start(total, 3)).result(PATIENCE) == 3


# ---- limits


async def test_a_run_that_grows_beyond_the_limit_ends_with_a_clear_error(url):
    async with hf.connect(url) as app, app.worker(event_limit=50):
        run = await app.start(total, 1000)
        with pytest.raises(hf.RunFailed, match=r"TooManyEvents.*50 events") as caught:
            await run.result(PATIENCE)
        assert isinstance(caught.value.__cause__, hf.TooManyEvents)
        events = await log_of(app, run.id)
        assert len(events) <= 51
        assert_one_end(events)
        assert await (await app.start(total, 5)).result(PATIENCE) == 10


async def test_runs_leave_memory_and_come_back(url):
    """`keep`: what merely waits is dropped, and replayed when something happens to it."""
    async with hf.connect(url) as app, app.worker(keep=3) as worker:
        runs = [await app.start(echo, f"keep-{n}", 3) for n in range(20)]
        assert len(worker.runs.live) <= 4
        for value in range(3):
            await asyncio.gather(*(app.resume(f"keep-{n}", value) for n in range(20)))
        assert [await run.result(PATIENCE) for run in runs] == [[0, 1, 2]] * 20
        assert bodies["add"] == 60


# ---- code that changes


def version_one():
    @hf.workflow(name="worker.changing")
    async def changing() -> int:
        await hf.hook("change")
        return await add(1, 1)

    return changing


def version_two():
    @hf.workflow(name="worker.changing")
    async def changing() -> int:
        await hf.sleep(3600)
        return await add(1, 1)

    return changing


async def test_a_run_that_diverges_is_parked_and_goes_on_when_fitting_code_is_back(url):
    """Issue: not failed; position, expected, asked, file and line are told; nothing is written."""
    async with hf.connect(url) as app:
        first = version_one()
        async with app.worker():
            run = await app.start(first)
            before = await logged(app, run.id, "hook_opened")
        version_two()
        async with app.worker():
            await app.resume("change")
            reason = await parked(app, run.id)
            assert reason["kind"] == "diverged"
            for word in ("position 3", "hook_opened change#1", "timer_started", f"{__file__}:"):
                assert word in reason["message"]
            assert await run.status() == "running"
            assert types(await log_of(app, run.id)) == [*types(before), "hook_received"]
        version_one()
        async with app.worker():
            assert await run.result(PATIENCE) == 2
        assert (await run.info()).parked is None


async def test_workflows_of_others_are_left_alone(url):
    async with hf.connect(url) as app, app.worker():
        stranger = await app.start_raw("worker.of-another-process", b"{}")
        assert await (await app.start(total, 2)).result(PATIENCE) == 1
        info = await stranger.info()
        assert (info.status, info.worker, info.parked) == ("pending", None, None)


async def test_a_name_that_two_functions_share_holds_up_no_other_run(memory_url, tmp_path, caplog):
    """Both places are named once; runs of other workflows that were claimed together with it go on."""
    places = []
    for folder in ("one", "two"):
        file = tmp_path / f"{folder}.py"
        source = "import holdfast as hf\n@hf.workflow(name='worker.shared')\nasync def shared(): ...\n"
        exec(compile(source, str(file), "exec"), {"__name__": f"worker_{folder}"})
        places.append(f"{file}:2")
    try:
        async with hf.connect(memory_url) as app:
            shared = await app.start_raw("worker.shared", b"{}")
            others = [await app.start(total, 3) for _ in range(5)]
            with caplog.at_level(logging.ERROR, "holdfast.worker"):
                async with app.worker():
                    assert [await run.result(PATIENCE) for run in others] == [3] * 5
                    assert (await shared.info()).worker is None
            said = [r.getMessage() for r in caplog.records if "worker.shared" in r.getMessage()]
            assert len(said) == 1
            assert all(place in said[0] for place in places)
            assert (await shared.info()).status == "pending"
    finally:
        del workflows._known["worker.shared"]


# ---- learning of work


async def test_a_lost_notice_costs_at_most_the_poll_interval(url):
    """H-03: the wake is derived from the log; here no listener ever hears of the payload."""
    async with hf.connect(url) as app, hf.connect(url) as sender, app.worker(poll=0.1):
        run = await app.start(echo, "deaf")
        await logged(app, run.id, "hook_opened")
        app.store.tell = sender.store.tell_others = lambda _news: None
        await sender.resume("deaf", 5)
        async with asyncio.timeout(PATIENCE):
            while await run.status() != "completed":
                await asyncio.sleep(0.01)
        assert (await run.result(PATIENCE)) == [5]


async def test_a_look_that_fails_is_made_again(tmp_path):
    """H-03: SQLite says only once that it has changed; a failure right after must not swallow that."""
    url = f"sqlite:///{tmp_path}/app.db"
    async with hf.connect(url) as app, hf.connect(url) as sender, app.worker(poll=0.1, lease=300):
        run = await app.start(echo, "deaf twice")
        await logged(app, run.id, "hook_opened")
        app.store.tell = sender.store.tell_others = lambda _news: None
        behind, failed = app.store.behind, asyncio.Event()
        waits, quiet = app.store.work_waits, asyncio.Event()

        async def asked(worker):
            answer = await waits(worker)
            if not answer:
                quiet.set()
            return answer

        app.store.work_waits = asked
        await quiet.wait()  # what came before has been seen

        async def failing(worker):
            app.store.behind = behind
            failed.set()
            raise hf.StoreError("the disk is busy")

        app.store.behind = failing
        await sender.resume("deaf twice", 5)
        await failed.wait()
        async with asyncio.timeout(PATIENCE):
            while await run.status() != "completed":
                await asyncio.sleep(0.01)


async def test_a_start_elsewhere_is_taken_up_at_once(url, monkeypatch):
    """By news alone: neither worker nor waiter looks by itself in that time."""
    monkeypatch.setattr("holdfast.ends._LOOK_AGAIN", 10 * PATIENCE)
    async with hf.connect(url) as app, hf.connect(url) as sender, app.worker(poll=600, lease=600):
        run = await sender.start(total, 3)
        assert await run.result(PATIENCE) == 3
