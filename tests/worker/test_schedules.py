"""Schedules: at each due time one run, whatever the number of workers, and what becomes of missed ones."""

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from patience import PATIENCE
from worker_kit import told

import holdfast as hf
from holdfast import faults
from holdfast.clock import from_datetime
from holdfast.keys import Keys
from holdfast.prune import prune
from holdfast.store.rows import ScheduleRow
from holdfast.testing import ManualClock
from holdfast.verify import Verification
from holdfast.worker.schedule import run_id_of
from holdfast.workflow import workflows

SPRING = datetime(2026, 3, 28, tzinfo=UTC)
"""The day before clocks in Berlin go forward."""


@pytest.fixture
def clock():
    return ManualClock(SPRING)


@pytest.fixture
def scheduled():
    """Workflows that this process declares for the length of one test, and no other test's workers see."""
    made = []

    def make(cron, timezone="UTC", missed="latest", name="sched.report"):
        @hf.workflow(name=name, schedule=cron, timezone=timezone, missed=missed)
        async def report() -> str:
            due = hf.run_info().due
            return "" if due is None else due.isoformat()

        made.append(name)
        return report

    yield make
    faults.disarm()
    for name in made:
        workflows._known.pop(name, None)


async def runs_of(app):
    return sorted([run.id async for run in app.runs()])


async def started(app, *dues):
    """Wait until there are runs for just these due times, and until they have ended."""
    names = sorted(f"sched.report@{due}" for due in dues)
    found = await told(app.store, lambda: runs_of(app), lambda ids: len(ids) >= len(names))
    assert found == names
    return [await app.run(run).result(PATIENCE) for run in names]


async def row(app, enough=lambda _row: True) -> ScheduleRow:
    [found] = await told(app.store, app.store.schedules, lambda rows: len(rows) == 1 and enough(rows[0]))
    return found


async def settled(app, due):
    """Wait until the due times up to this one are seen to."""
    return await row(app, lambda found: found.since >= micros(due))


def micros(text):
    return from_datetime(datetime.fromisoformat(text))


async def assert_proven(app):
    assert [found async for found in Verification(app.store).run()] == []


async def test_each_due_time_starts_one_run_though_there_are_three_workers(url, clock, scheduled):
    """Through the change of the clock in Berlin: 9 o'clock there is 8 o'clock UTC, then 7."""
    scheduled("0 9 * * *", "Europe/Berlin")
    async with contextlib.AsyncExitStack() as stack:
        apps = [await stack.enter_async_context(hf.connect(url, clock=clock)) for _ in range(3)]
        for app in apps:
            await stack.enter_async_context(app.worker())
        dues = []
        for due in ("2026-03-28T08:00:00Z", "2026-03-29T07:00:00Z", "2026-03-30T07:00:00Z"):
            assert clock.jump()
            dues.append(due)
            assert (await started(apps[0], *dues))[-1] == due.replace("Z", "+00:00")
            await settled(apps[0], due)
        await assert_proven(apps[0])


async def test_a_run_that_was_pruned_is_not_started_again(url, clock, scheduled):
    """Its id is free again; but the schedule's row says that its due time was seen to."""
    scheduled("0 9 * * *")
    first, second = "2026-03-28T09:00:00Z", "2026-03-29T09:00:00Z"
    async with hf.connect(url, clock=clock) as app:
        async with app.worker():
            assert clock.jump()
            await started(app, first)
            await settled(app, first)
        assert (await prune(app.store, clock.now() + 1)).runs == 1
        async with app.worker():
            assert await runs_of(app) == []
            assert clock.jump()
            await started(app, second)
            await settled(app, second)
        await assert_proven(app)


async def test_a_clock_that_jumps_over_days_starts_the_latest_only(url, clock, scheduled):
    scheduled("0 * * * *")
    async with hf.connect(url, clock=clock) as app, app.worker():
        clock.advance(timedelta(days=2, minutes=30))
        await started(app, "2026-03-30T00:00:00Z")
        clock.jump()
        await started(app, "2026-03-30T00:00:00Z", "2026-03-30T01:00:00Z")


@pytest.mark.parametrize(
    ("missed", "dues"), [("none", []), ("latest", [4]), ("all", [1, 2, 3, 4])], ids=["none", "latest", "all"]
)
async def test_what_was_due_while_nobody_was_there(url, clock, scheduled, missed, dues):
    scheduled("0 * * * *", missed=missed)
    async with hf.connect(url, clock=clock) as app:
        async with app.worker():
            pass
        clock.advance(timedelta(hours=4, minutes=30))
        async with app.worker():
            names = [f"2026-03-28T{hour:02}:00:00Z" for hour in dues]
            await settled(app, "2026-03-28T04:00:00Z")
            await started(app, *names)
            clock.jump()
            await started(app, *names, "2026-03-28T05:00:00Z")


async def test_every_second_of_a_minute_has_its_run_and_a_late_worker_catches_up(url, clock, scheduled):
    scheduled("* * * * * *")
    async with hf.connect(url, clock=clock) as app, app.worker(), hf.connect(url, clock=clock) as other:
        async with other.worker():
            clock.advance(1)
            await settled(app, "2026-03-28T00:00:01Z")
            clock.advance(11)
            await settled(app, "2026-03-28T00:00:12Z")
        await started(app, *(f"2026-03-28T00:00:{second:02}Z" for second in range(1, 13)))


async def test_what_is_due_next_does_not_forget_itself_when_workers_go(url, clock, scheduled):
    """A worker that starts does not move a schedule: what was next is next."""
    scheduled("0 9 * * *")
    async with hf.connect(url, clock=clock) as app:
        async with app.worker():
            before = await row(app)
        clock.advance(timedelta(hours=8, minutes=59))
        async with app.worker() as worker:
            assert (await row(app)).since == before.since
            assert (await row(app)).keeper == worker.id != before.keeper
            assert clock.next_alarm == datetime(2026, 3, 28, 9, tzinfo=UTC)
            clock.jump()
            await started(app, "2026-03-28T09:00:00Z")


async def test_a_changed_schedule_owes_what_the_old_one_missed_and_begins_now(url, clock, scheduled):
    scheduled("0 * * * *", missed="all")
    async with hf.connect(url, clock=clock) as app:
        async with app.worker():
            pass
        clock.advance(timedelta(hours=2, minutes=30))
        scheduled("15 * * * *", missed="none")
        async with app.worker():
            old = "2026-03-28T01:00:00Z", "2026-03-28T02:00:00Z"
            await started(app, *old)
            now = await row(app)
            assert (now.cron, now.missed, now.since) == ("15 * * * *", "none", clock.now())
            assert clock.jump()
            await started(app, *old, "2026-03-28T03:15:00Z")


async def test_old_and_new_code_side_by_side_follow_one_schedule(url, clock, scheduled):
    """The row says what is due, not the code: the older worker does not start its own on top."""
    scheduled("0 * * * *")
    async with hf.connect(url, clock=clock) as old, hf.connect(url, clock=clock) as new, old.worker():
        scheduled("30 * * * *")
        async with new.worker():
            for _ in range(2):
                clock.advance(timedelta(minutes=30))
                await asyncio.sleep(0)
            await settled(new, "2026-03-28T00:30:00Z")
        clock.advance(timedelta(minutes=30))
        await started(new, "2026-03-28T00:30:00Z", "2026-03-28T01:30:00Z")


@pytest.mark.parametrize("point", ["worker.schedule.due", "worker.schedule.started"])
async def test_a_worker_that_cannot_go_on_leaves_it_to_itself_and_others(url, clock, scheduled, point):
    """The store fails between the due time and the run, or behind the run: it is tried again a second later."""
    scheduled("0 9 * * *")
    async with hf.connect(url, clock=clock) as app, app.worker():
        failed = asyncio.Event()

        def fail():
            faults.disarm(point)
            failed.set()
            faults.fail()

        faults.arm(point, fail)
        clock.jump()
        await asyncio.wait_for(failed.wait(), PATIENCE)
        await asyncio.sleep(0)
        clock.advance(1)
        await settled(app, "2026-03-28T09:00:00Z")
        await started(app, "2026-03-28T09:00:00Z")


async def test_a_paused_schedule_starts_nothing_and_owes_nothing(url, clock, scheduled):
    scheduled("0 * * * *", missed="all")
    async with hf.connect(url, clock=clock) as app:
        async with app.worker():
            now = await row(app)
            assert await app.store.swap_schedule(now, msgspec.structs.replace(now, paused=True))
            clock.advance(timedelta(hours=5))
        async with app.worker():
            assert (await row(app)).paused
            assert await runs_of(app) == []
        scheduled("30 * * * *")  # a new schedule is paused as well
        async with app.worker():
            assert (await row(app)).paused


async def test_one_that_is_resumed_elsewhere_is_followed_again(url, clock, scheduled):
    """Nobody is told of it: the worker looks as often as it renews its lease."""
    scheduled("0 * * * *")
    async with hf.connect(url, clock=clock) as app, app.worker(lease=0.15) as worker:
        now = await row(app)
        paused = msgspec.structs.replace(now, paused=True)
        assert await app.store.swap_schedule(now, paused)
        look, looked = worker.scheduling.look, asyncio.Event()

        async def look_and_tell():
            await look()
            looked.set()

        worker.scheduling.look = look_and_tell
        assert clock.jump()
        await asyncio.wait_for(looked.wait(), PATIENCE)
        assert not clock.jump(), "it has found that it is paused, and is not woken again"
        resumed = msgspec.structs.replace(paused, paused=False, since=clock.now())
        assert await app.store.swap_schedule(paused, resumed)
        async with asyncio.timeout(PATIENCE):
            while not clock.jump():
                await asyncio.sleep(0.01)
        await started(app, "2026-03-28T02:00:00Z")


async def test_one_whose_workflow_is_gone_stays_in_the_list_and_starts_nothing(url, clock, scheduled):
    scheduled("0 * * * *")
    async with hf.connect(url, clock=clock) as app:
        async with app.worker():
            pass
        workflows._known.pop("sched.report")
        clock.advance(timedelta(hours=5))
        async with app.worker() as worker:
            found = await row(app)
            assert found.keeper not in {worker.id, None}
            assert await runs_of(app) == []


async def test_a_worker_of_queues_alone_has_no_schedules(url, clock, scheduled):
    scheduled("0 * * * *")
    async with hf.connect(url, clock=clock) as app, app.worker(runs=False):
        assert await app.store.schedules() == []


async def test_a_run_that_somebody_started_under_the_id_is_the_run(url, clock, scheduled):
    report = scheduled("0 9 * * *")
    due = "2026-03-28T09:00:00Z"
    assert run_id_of("sched.report", micros(due)) == f"sched.report@{due}"
    async with hf.connect(url, clock=clock) as app, app.worker():
        mine = await app.start(report, run_id=f"sched.report@{due}")
        assert await mine.result(PATIENCE) == ""
        clock.jump()
        await settled(app, due)
        assert await runs_of(app) == [mine.id]
        assert (await app.start(report, run_id=mine.id)).existed


async def test_a_row_that_this_process_cannot_read_holds_up_nobody_else(url, clock, scheduled, caplog):
    """Another machine knows more time zones: its schedule is told of, and left alone."""
    scheduled("0 9 * * *", name="sched.report")
    async with hf.connect(url, clock=clock) as app:
        strange = ScheduleRow("sched.other", "0 9 * * *", "Mars/Olympus", "latest", clock.now())
        await app.store.swap_schedule(None, strange)
        async with app.worker():
            clock.jump()
            await told(app.store, lambda: runs_of(app), bool)
        scheduled("0 9 * * *", name="sched.other")
        async with app.worker():  # its code says another time zone: that one is known
            rows = await app.store.schedules()
            assert [found.timezone for found in rows] == ["UTC", "UTC"]
            assert "Mars/Olympus" in caplog.text


async def test_a_schedule_in_a_sealed_store(tmp_path, clock, scheduled):
    scheduled("0 9 * * *")
    keys = Keys({"k": b"k" * 32})
    async with hf.connect(f"sqlite:///{tmp_path}/app.db", clock=clock, keys=keys) as app, app.worker():
        clock.jump()
        assert await started(app, "2026-03-28T09:00:00Z") == ["2026-03-28T09:00:00+00:00"]


async def test_a_scheduled_run_that_continues_keeps_its_due_time(memory_url, clock):
    @hf.workflow(name="sched.report", schedule="0 9 * * *")
    async def report(left: int = 2) -> str:
        if left:
            hf.continue_as_new(left - 1)
        return str(hf.run_info().due)

    try:
        async with hf.connect(memory_url, clock=clock) as app, app.worker():
            clock.jump()
            await told(app.store, lambda: runs_of(app), bool)
            result = await app.run("sched.report@2026-03-28T09:00:00Z").result(PATIENCE)
            assert result == "2026-03-28 09:00:00+00:00"
    finally:
        workflows._known.pop("sched.report")
