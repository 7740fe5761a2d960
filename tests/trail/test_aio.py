"""Trails with await: the loop is never held up, chapters are right, cancelled awaits leave nothing half done."""

import asyncio
import inspect
import logging
import threading

import pytest
from patience import PATIENCE
from trail_kit import assert_in_order, wait_until

from holdfast.errors import PayloadError, TrailEnded, TrailLocked, TrailNotFound
from holdfast.trail import aio, handle
from holdfast.trail import folder as sync


@pytest.fixture
async def afolder(folder):
    """The same folder, for async code."""
    one = aio.TrailFolder(folder.root, redact=None)
    yield one
    await one.close()


@pytest.fixture
async def beats():
    """How often the loop has come round; `beats(n)` waits until it has done so n times more."""
    count = 0
    waiting = []

    async def beat():
        nonlocal count
        while True:
            await asyncio.sleep(0)
            count += 1
            for due, future in waiting:
                if count >= due and not future.done():
                    future.set_result(None)

    async def some(n):
        future = asyncio.get_running_loop().create_future()
        waiting.append((count + n, future))
        await future

    task = asyncio.create_task(beat())
    yield some
    task.cancel()


def told(folder, trail):
    return {c.title: [e.content for e in c.events] for c in folder.load(trail.id).chapters}


# ---- the same names -----------------------------------------------------------------------------------------


async def test_a_trail_from_start_to_end(afolder, folder):
    async with afolder.start("Fix the login", agent="ana", tags=["auth"]) as t:
        async with t.chapter("Investigate", agent="ben") as c:
            id = await t.note("a")
            await c.find("b", significance="critical")
            async with c.chapter("Deeper"):
                await t.error("c")
        await t.decide("Which?", "This", reasoning="so", alternatives=["that"])
        await t.reflect("d", confidence=0.7)
        await t.join("cid", "reviewer")
        await t.tag("done")
        await t.complete("Fixed", confidence=0.9, learnings=["quote"])
    trail = await afolder.load(t.id)
    assert trail == folder.load(t.id)
    assert [e.type for e in trail.events] == ["note", "finding", "error", "decision", "reflection"]
    assert [e.agent for e in trail.events] == ["ben", "ben", "ben", "ana", "ana"]
    assert (trail.events[0].id, trail.status, trail.tags) == (id, "completed", ["auth", "done"])
    assert {a.name: a.role for a in trail.agents}["cid"] == "reviewer"
    assert [line.id for line in await afolder.list(status="completed")] == [t.id]
    assert [line.id for line in await afolder.search("quote")] == [t.id]
    late = await afolder.open(t.id, late=True, agent="cid")
    await late.amend(learnings=["tests"])
    assert (await afolder.load(t.id)).retrospective.learnings == ["tests"]
    assert await afolder.absorb(t.id, await afolder.entries(t.id)) == 0
    assert (await afolder.reconcile()).scanned == 1
    assert_in_order(folder)
    await afolder.delete(t.id)
    with pytest.raises(TrailNotFound):
        await afolder.load(t.id)


async def test_start_open_and_chapter_may_be_awaited(afolder, folder):
    t = await afolder.start("x", agent="ana")
    c = await t.chapter("A")
    await t.note("in A")
    async with c:
        await t.note("in A too")
    async with await afolder.open(t.id, agent="ben") as again, again.chapter("B"):
        await again.note("in B")
    async with afolder.open(t.id) as last:
        await last.abandon("enough")
    assert told(folder, t) == {
        "A": ["in A", "in A too"],
        "B": ["in B"],
        "Work": ["Abandoned: enough"],
    }
    with pytest.raises(TrailEnded):
        await afolder.open(t.id)


def test_nothing_of_the_interface_is_missing():
    """Each public name of the sync classes has its twin with await, with the same parameters."""
    for mine, theirs in (
        (aio.TrailFolder, sync.TrailFolder),
        (aio.OpenTrail, handle.OpenTrail),
        (aio.OpenChapter, handle.OpenChapter),
    ):
        for name in ("start", "open", "delete", "absorb", "load", "entries", "list", "search", "reconcile"):
            if hasattr(theirs, name):
                assert inspect.signature(getattr(mine, name)) == inspect.signature(getattr(theirs, name))
        told = (
            "note",
            "find",
            "error",
            "event",
            "decide",
            "reflect",
            "join",
            "tag",
            "amend",
            "complete",
            "abandon",
        )
        for name in told:
            assert getattr(mine, name, None) is getattr(theirs, name, None)


async def test_a_wrong_value_is_refused_at_the_call_or_the_await(afolder, folder):
    with pytest.raises(PayloadError):
        await afolder.start("")
    t = await afolder.start("x")
    for call in (lambda: t.note(""), lambda: t.chapter(""), lambda: t.note("x", confidence=2)):
        with pytest.raises(PayloadError):
            await call()
    assert folder.load(t.id).events == []


# ---- chapters -----------------------------------------------------------------------------------------------


async def test_three_tasks_write_twelve_of_twelve_into_their_own_chapters(afolder, folder):
    """Row T-08: 8 of 12 were credited to the chapter that was opened last."""
    barrier = asyncio.Barrier(3)
    async with afolder.start("x", agent="ana") as t, t.chapter("All"):

        async def work(name):
            await t.note(f"{name} begins")
            async with t.chapter(name, agent=name):
                for i in range(4):
                    await barrier.wait()
                    await t.note(f"{name}{i}")

        await asyncio.gather(*map(work, "abc"))
        await asyncio.gather(*[t.note(f"{i}") for i in range(5)])
    notes = told(folder, t)
    assert {name: notes[name] for name in "abc"} == {n: [f"{n}{i}" for i in range(4)] for n in "abc"}
    assert sorted(notes["All"][:3]) == ["a begins", "b begins", "c begins"]
    assert notes["All"][3:] == list("01234"), "what one handle is told is written in its order"
    trail = folder.load(t.id)
    assert {c.title: c.agent_name for c in trail.chapters} == {"All": "ana", "a": "a", "b": "b", "c": "c"}
    assert all(c.parent == trail.chapters[0].id for c in trail.chapters[1:])


async def test_the_chapter_is_that_of_the_call_not_of_the_await(afolder, folder):
    t = await afolder.start("x")
    async with t.chapter("A"):
        later = t.note("said in A")
    async with t.chapter("B"):
        await later
    assert told(folder, t) == {"A": ["said in A"], "B": []}


async def test_sync_code_under_an_async_chapter_is_in_it(afolder, folder):
    loop = asyncio.get_running_loop()
    async with afolder.start("x") as t, t.chapter("A"):
        await asyncio.to_thread(folder.open(t.id).note, "to_thread")
        await loop.run_in_executor(None, t.sync.note, "executor")
        with t.sync.chapter("B"):
            await t.note("async in sync")
    assert told(folder, t) == {"A": ["to_thread", "executor"], "B": ["async in sync"]}


# ---- the loop goes on ---------------------------------------------------------------------------------------


async def test_the_loop_goes_on_while_another_process_holds_the_locks(afolder, folder, writer, beats):
    """Rows of waiting writers starve neither the loop nor asyncio's own threads."""
    t = await afolder.start("x")
    journal, whole = writer("hold", t.id), writer("hold")
    for process in (journal, whole):
        assert await asyncio.to_thread(process.line) == "ready"
    waiting = [asyncio.create_task(afolder.start(f"{i}").__aenter__()) for i in range(aio.THREADS + 10)]
    waiting += [asyncio.create_task(asyncio.wait_for(t.note(f"{i}"), PATIENCE)) for i in range(10)]
    await asyncio.to_thread(
        wait_until,
        lambda: any(x.name == "holdfast-trail-lock" for x in threading.enumerate()),
        "a waiter",
    )
    await beats(1000)
    assert not any(task.done() for task in waiting)
    for process in (journal, whole):
        process.go()
    await asyncio.gather(*waiting)
    assert len(folder.list()) == aio.THREADS + 11
    assert [e.content for e in folder.load(t.id).events] == [str(i) for i in range(10)]


async def test_a_lock_that_does_not_come_is_an_error_of_the_await(folder, writer):
    t = folder.start("x")
    impatient = aio.TrailFolder(folder.root, lock_timeout=0.05)
    process = writer("hold", t.id)
    assert await asyncio.to_thread(process.line) == "ready"
    trail = await impatient.open(t.id)
    with pytest.raises(TrailLocked):
        await trail.note("y")
    process.go()
    await asyncio.to_thread(process.finish)
    await trail.note("z")
    assert [e.content for e in folder.load(t.id).events] == ["z"]
    await impatient.close()


# ---- exceptions and cancellation ----------------------------------------------------------------------------


async def test_an_exception_abandons_the_trail_with_its_cause(afolder, folder):
    with pytest.raises(ValueError, match="no"):
        async with afolder.start("x") as t, t.chapter("A"):
            raise ValueError("no")
    trail = folder.load(t.id)
    assert (trail.status, trail.abandon_reason) == ("abandoned", "ValueError: no")
    assert told(folder, t)["A"] == ["ValueError: no"]


async def test_a_cancelled_block_abandons_the_trail(afolder, folder):
    inside = asyncio.Event()
    trails = []

    async def work():
        async with afolder.start("x") as t:
            trails.append(t)
            async with t.chapter("A"):
                inside.set()
                await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel("enough")
    with pytest.raises(asyncio.CancelledError):
        await task
    trail = folder.load(trails[0].id)
    assert (trail.status, trail.abandon_reason) == ("abandoned", "CancelledError: enough")
    assert trail.chapters[0].ended_at is not None


async def test_a_cancelled_await_ends_at_once_and_its_write_is_whole(afolder, folder, writer):
    t = await afolder.start("x")
    process = writer("hold", t.id)
    assert await asyncio.to_thread(process.line) == "ready"
    with pytest.raises(TimeoutError):  # although the lock is still held
        async with asyncio.timeout(0.01):
            await t.note("cancelled")
    after = asyncio.create_task(asyncio.wait_for(t.note("after"), PATIENCE))
    await asyncio.sleep(0)
    process.go()
    await after
    assert [e.content for e in folder.load(t.id).events] == ["cancelled", "after"]


async def test_a_trail_whose_start_was_cancelled_is_abandoned_as_soon_as_it_is_there(afolder, folder, writer):
    await afolder.start("the first")  # or there is no folder to be locked
    process = writer("hold")
    assert await asyncio.to_thread(process.line) == "ready"
    entered = []
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01), afolder.start("nobody's") as t:
            entered.append(t)
    assert not entered
    process.go()
    await afolder.close()
    (nobodys,) = [line for line in folder.list() if line.title == "nobody's"]
    assert (nobodys.status, folder.load(nobodys.id).abandon_reason) == (
        "abandoned",
        "CancelledError: while it was started",
    )


async def test_a_chapter_whose_opening_was_cancelled_is_closed(afolder, folder, writer):
    t = await afolder.start("x")
    process = writer("hold", t.id)
    assert await asyncio.to_thread(process.line) == "ready"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01), t.chapter("A"):
            raise AssertionError("it was not opened")
    process.go()
    await t.note("after")
    (a, work) = folder.load(t.id).chapters
    assert (a.title, a.ended_at is not None, [e.content for e in work.events]) == ("A", True, ["after"])


async def test_an_error_behind_a_cancelled_await_is_logged(afolder, folder, writer, caplog):
    t = await afolder.start("x")
    process = writer("hold", t.id)
    assert await asyncio.to_thread(process.line) == "ready"
    impatient = aio.TrailFolder(folder.root, lock_timeout=0.2)
    trail = await impatient.open(t.id)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await trail.note("lost")
    with caplog.at_level(logging.ERROR, "holdfast.trail"):
        await impatient.close()
    assert ["after a cancelled await" in record.message for record in caplog.records] == [True]
    process.go()


def test_a_write_that_nobody_awaits_any_more_outlives_its_loop(folder):
    afolder = aio.TrailFolder(folder.root, redact=None)
    trails = []

    async def work():
        t = await afolder.start("x")
        trails.append(t)
        task = asyncio.create_task(asyncio.wait_for(t.note("y"), PATIENCE))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(work())
    asyncio.run(afolder.close())
    assert [e.content for e in folder.load(trails[0].id).events] == ["y"]


def test_threads_end_with_the_folder(folder):
    """No cycle keeps a folder and its threads, not even after an error."""
    before = set(threading.enumerate())

    async def work():
        afolder = aio.TrailFolder(folder.root)
        async with afolder.start("x") as t:
            await t.note("y")
        with pytest.raises(TrailNotFound):
            await afolder.load("traj_unknown")
        return set(threading.enumerate()) - before

    threads = asyncio.run(work())
    assert any(thread.name.startswith("holdfast-trail") for thread in threads)
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
