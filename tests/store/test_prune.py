"""Prune: ended runs go whole, in short transactions, beside writers; what somebody still needs stays."""

import asyncio
import itertools
import signal
from itertools import pairwise

import msgspec
import pytest
from patience import PATIENCE
from store_kit import (
    SECOND,
    begin,
    child,
    completed,
    created,
    ended,
    finished,
    opened,
    running,
    scheduled,
    started,
    timer,
)

import holdfast as hf
from holdfast import faults
from holdfast.chunks import Part
from holdfast.events import new
from holdfast.prune import Pruned, prune
from holdfast.store.rows import ScheduleRow
from holdfast.store.succession import last_of, succeed
from holdfast.verify import Verification

DAY = 86_400
ODD = 'it\'s "odd"/é'


async def differences(store):
    return [str(difference) async for difference in Verification(store).run()]


async def left(store):
    return {head.run for head in await store.runs(limit=1000)}


async def older_than(store, days, **wish):
    return await prune(store, store.clock.now() - days * DAY * SECOND, **wish)


async def full_run(store, run, token):
    """A run that has left rows in every table; ended."""
    last = await begin(store, run, "a#1")
    drafts = [
        opened(f"{token}#1"),
        timer("t#1", store.clock.now() + SECOND),
        scheduled("b#1"),
        started("b#1"),
    ]
    await store.append(run, drafts, after=last)
    await store.deliver(token, b"1", "d1")
    await store.write_stream(run, ODD, [Part("text", b"one", "k"), Part("end", b"", None)])
    last = (await store.append(run, [completed("a#1")])).last
    await store.append(run, [ended()], after=last)


async def ended_run(store, run, workflow="w", how="completed"):
    await store.append(run, [created(workflow), running(), ended(how)], after=0)


async def test_a_run_goes_with_all_that_belongs_to_it(store, clock):
    await full_run(store, ODD, "t'1")
    await full_run(store, "stays", "t2")
    clock.advance(40 * DAY)
    events = (await store.head(ODD)).position
    await store.append("stays-2", [created()], after=0)
    removal = await store.remove([ODD, "stays-2", "nobody"], clock.now() - SECOND)
    assert (removal.removed, removal.events, removal.kept) == ([ODD], events, {})
    assert await left(store) == {"stays", "stays-2"}
    assert await store.read(ODD) == []
    assert await store.streams(ODD) == []
    assert await store.hooks(run=ODD, open_only=False) == []
    assert await store.read_stream("stays", ODD), "a stream of that name is another run's too"
    assert await differences(store) == []


async def test_what_was_sent_to_a_run_that_is_gone_is_unknown(store, clock):
    """The delivery id is forgotten with the run: sent again it goes to who has the token now, or to nobody."""
    await full_run(store, "r", "t")
    with pytest.raises(hf.HookNotFound) as caught:
        await store.deliver("t", b"2", "d2")
    assert caught.value.reason == "run_ended"
    assert (await store.deliver("t", b"1", "d1")).duplicates, "L3: already there"
    clock.advance(DAY)
    assert (await older_than(store, 0)).runs == 1
    with pytest.raises(hf.HookNotFound) as caught:
        await store.deliver("t", b"1", "d1")
    assert caught.value.reason == "unknown"
    await full_run(store, "r", "t")
    assert (await store.head("r")).status == "completed", "its id and its token may be taken again"
    assert await differences(store) == []


async def test_live_and_young_runs_stay_and_filters_hold(store, clock):
    await begin(store, "live", "a#1")
    await ended_run(store, "a1", "a")
    await ended_run(store, "b1", "b")
    await ended_run(store, "b2", "b", "failed")
    clock.advance(20 * DAY)
    await ended_run(store, "young", "b")
    clock.advance(20 * DAY)
    assert await older_than(store, 30, dry_run=True) == Pruned(3, 9)
    assert len(await left(store)) == 5
    assert await older_than(store, 30, workflow="b", status="failed") == Pruned(1, 3)
    assert await left(store) == {"live", "a1", "b1", "young"}
    said = []
    assert await older_than(store, 30, batch=1, progress=lambda pruned: said.append(pruned.runs)) == Pruned(
        2, 6
    )
    assert said == [1, 2]
    assert await left(store) == {"live", "young"}
    assert await older_than(store, 30) == Pruned()
    assert await differences(store) == []


async def test_a_child_stays_until_its_parent_has_heard_its_end(store, clock):
    """Else the parent's worker would find it missing, and start it once more."""
    asked = new("child_started", key="w#1", data={"run": "c", "workflow": "w", "args": {}})
    await store.append("p", [created(), running(), asked], after=0)
    child_created = created(parent={"run": "p", "key": "w#1"}, root="p")
    await store.append("c", [child_created, new("run_completed", data={"value": 1})], after=0)
    clock.advance(40 * DAY)
    assert await older_than(store, 30) == Pruned(kept={"parent": 1})
    await store.append("p", [new("child_ended", key="w#1", data={"status": "completed", "value": 1})])
    assert await older_than(store, 30) == Pruned(1, 2)
    assert await left(store) == {"p"}
    assert await differences(store) == []


async def test_a_scheduled_run_stays_until_its_due_time_is_noted(store, clock):
    """Else the next worker, which finds the schedule as the dead one left it, would start the run once more."""
    due = clock.now()
    was = ScheduleRow("w", "* * * * *", "UTC", "all", due - 60 * SECOND)
    await store.swap_schedule(None, was)
    await store.append(
        "w@1", [new("run_created", data={**created().data, "due": due}), running(), ended()], after=0
    )
    await ended_run(store, "by hand")
    clock.advance(DAY)
    assert await older_than(store, 0) == Pruned(1, 3, {"schedule": 1})
    assert await left(store) == {"w@1"}
    await store.swap_schedule(was, msgspec.structs.replace(was, since=due))
    assert await older_than(store, 0) == Pruned(1, 3)


async def test_a_parent_stays_until_its_orphans_are_seen_to(store, clock):
    """L14: what is to be cancelled or started stands in its log."""
    asked = new("child_started", key="w#1", data={"run": "c", "workflow": "w", "args": {}, "detached": True})
    await store.append("p", [created(), running(), asked, ended()], after=0)
    clock.advance(40 * DAY)
    assert await older_than(store, 30) == Pruned(kept={"children": 1})
    await store.bury_orphan("p", "w#1")
    assert await older_than(store, 30) == Pruned(1, 4)
    assert await left(store) == set()


async def chain_of_three(store, clock):
    """x goes on as x2 and x3; a payload was taken by the first."""
    await store.append("x", [created(args={}), running(), opened("t#1")], after=0)
    await store.deliver("t", b"1", "d1")
    drafts, run, after = [], "x", 4
    for number in (2, 3):
        told = {"continued": f"x{number}", "args": {"n": number}, "unread": [], "seen": after, "read": 1}
        await store.append(run, [*drafts, new("run_completed", data=told)], after=after)
        run = await succeed(store, run)
        clock.advance(DAY)
        drafts, after = [running()], 1
    for orphan in await store.orphans():
        await store.bury_orphan(orphan.run, orphan.key)


@pytest.mark.parametrize("batch", [1, 100])
async def test_a_chain_stays_while_it_goes_on_and_then_goes_whole(store, clock, batch):
    await chain_of_three(store, clock)
    clock.advance(40 * DAY)
    assert await older_than(store, 30, batch=batch) == Pruned(kept={"continued": 2})
    assert (await last_of(store, "x"))[0] == "x3", "who holds the first id still finds the last run"
    assert (await store.deliver("t", b"1", "d1")).run == "x", "L3: still there, though its run is old"
    await store.append("x3", [running(), ended("failed", error={})], after=1)
    assert await older_than(store, 30, batch=batch) == Pruned(kept={"continued": 2})
    clock.advance(31 * DAY)
    whole = Pruned(3, 11)
    assert await older_than(store, 30, batch=batch, dry_run=True) == whole
    assert await older_than(store, 30, batch=batch, status="completed") == Pruned(kept={"continued": 2})
    assert await older_than(store, 30, batch=batch, status="failed") == whole, (
        "its end is that of its last run"
    )
    assert await left(store) == set()
    assert await differences(store) == []


LINKS = {
    "asked": "the parent lives, and has not heard of the child's end",
    "heard": "the parent lives, and has",
    "left": "the parent has ended; nobody has seen to the child yet",
    "seen to": "the parent has ended, and somebody has",
}


async def parent_and_chain(store, name, link, length, ends):
    """A parent, and its child that went on as others; gives the ids of the child's chain."""
    parent, chain = f"{name}-p", [f"{name}-c{number}" for number in range(1, length + 1)]
    asked = new("child_started", key="w#1", data={"run": chain[0], "workflow": "w", "args": {}})
    await store.append(parent, [created(), running(), asked], after=0)
    begun = [created(args={}, parent={"run": parent, "key": "w#1"}, root=parent), running()]
    await store.append(chain[0], begun, after=0)
    for run, behind in pairwise(chain):
        told = {"continued": behind, "args": {}, "unread": [], "seen": 2, "read": 0}
        await store.append(run, [new("run_completed", data=told)], after=2)
        assert await succeed(store, run) == behind
        await store.append(behind, [running()])
        await store.bury_orphan(run, "continued")
    if ends:
        await store.append(chain[-1], [ended()], after=2)
    if link == "heard":
        await store.append(parent, [new("child_ended", key="w#1", data={"status": "completed", "value": 1})])
    if link in ("left", "seen to"):
        await store.append(parent, [ended()], after=3)
    if link == "seen to":
        await store.bury_orphan(parent, "w#1")
    return [parent], chain


@pytest.mark.parametrize("batch", [1, 100])
async def test_children_that_went_on_stay_while_their_parent_or_their_chain_needs_them(store, clock, batch):
    """Every state of a parent with every state of its child's chain: each is there whole, or gone whole."""
    gone, there = set(), set()
    for link, length, ends in itertools.product(LINKS, (1, 2, 3), (False, True)):
        name = f"{link[0]}{length}{ends:d}"
        parent, chain = await parent_and_chain(store, name, link, length, ends)
        (gone if link == "seen to" else there).update(parent)
        (gone if ends and link in ("heard", "seen to") else there).update(chain)
    for orphan in await store.orphans():
        if orphan.key != "w#1":
            await store.bury_orphan(orphan.run, orphan.key)
    clock.advance(40 * DAY)
    assert (await older_than(store, 30, batch=batch)).runs == len(gone)
    assert await left(store) == there
    for run in there:
        last, _ = await last_of(store, run)
        assert last in there
    assert await left(store) == there, "nobody's chain was begun anew"
    assert await older_than(store, 30, batch=batch, dry_run=True) == Pruned(
        kept=(await older_than(store, 30, batch=batch)).kept
    )
    assert await differences(store) == []


async def test_a_run_stays_until_its_successor_is_there(store, clock):
    told = {"continued": "y2", "args": {}, "unread": [], "seen": 0, "read": 0}
    await store.append("y", [created(args={}), running(), new("run_completed", data=told)], after=0)
    clock.advance(40 * DAY)
    assert await older_than(store, 30) == Pruned(kept={"children": 1})
    assert await left(store) == {"y"}


async def test_writers_go_on_meanwhile(place, store, clock):
    """Another handle appends to live runs all the time; nothing of theirs is refused or lost."""
    other = await place.open()
    for number in range(120):
        await ended_run(store, f"old-{number}")
    clock.advance(40 * DAY)
    lives = [f"live-{number}" for number in range(8)]
    for run in lives:
        await begin(other, run)
    done = asyncio.Event()

    async def write(run):
        written = 0
        while not done.is_set():
            last = (await other.head(run)).position
            key = f"s#{written + 1}"
            await other.append(run, [scheduled(key), started(key)], after=last)
            await other.append(run, [completed(key)])
            written += 1
        return written

    writers = [asyncio.create_task(write(run)) for run in lives]
    pruned = await older_than(store, 30, batch=10)
    done.set()
    written = await asyncio.gather(*writers)
    assert pruned == Pruned(120, 360)
    assert min(written) > 0
    assert await left(store) == set(lives)
    for run, number in zip(lives, written, strict=True):
        assert len(await store.read(run)) == 2 + 3 * number
    assert await differences(store) == []


async def test_a_portion_that_fails_leaves_its_runs_whole(place, store, clock):
    for number in range(3):
        await full_run(store, f"r{number}", f"t{number}")
    clock.advance(DAY)
    faults.arm("prune.commit.before", faults.fail)
    with pytest.raises(hf.StoreError):
        await older_than(store, 0)
    faults.disarm()
    assert await differences(store) == []
    assert len(await left(store)) == 3
    assert (await older_than(store, 0)).runs == 3
    assert await differences(store) == []


async def test_verify_does_not_mind_a_run_that_goes_meanwhile(store, clock):
    for number in range(3):
        await ended_run(store, f"r{number}")
    clock.advance(DAY)
    verification = Verification(store)
    read, store_at_rest = store.at_rest.read, store.at_rest

    async def read_late(run, *query):
        if run == "r1":
            await older_than(store, 0)
        return await read(run, *query)

    store_at_rest.read = read_late
    assert [str(difference) async for difference in verification.run()] == []
    assert (verification.runs, verification.unsettled) == (1, [])


PRUNER = """
import asyncio, sys
from holdfast.prune import prune
from holdfast.store import open_store
async def main():
    async with open_store(sys.argv[1]) as store:
        print((await prune(store, int(sys.argv[2]), batch=2)).runs)
asyncio.run(main())
"""


@pytest.mark.parametrize(("point", "gone"), [("before", 2), ("after", 4)])
async def test_a_pruner_that_is_killed_leaves_no_run_in_part(place, store, clock, monkeypatch, point, gone):
    """kill -9 in its second transaction: what it had committed is gone, the rest is whole; the next goes on."""
    if place.backend not in ("sqlite", "postgres"):
        pytest.skip("no process dies here alone")
    for number in range(7):
        await full_run(store, f"r{number}", f"t{number}")
    url = place.postgres() if place.backend == "postgres" else store.url
    cutoff = clock.advance(DAY)
    monkeypatch.setenv("HOLDFAST_FAULTS", f"prune.commit.{point}=kill@2")
    process = child(PRUNER, url, cutoff)
    assert await asyncio.to_thread(process.wait, PATIENCE) == -signal.SIGKILL
    process.communicate()
    monkeypatch.delenv("HOLDFAST_FAULTS")
    assert len(await left(store)) == 7 - gone
    assert await differences(store) == []
    assert await asyncio.to_thread(finished, child(PRUNER, url, cutoff)) == f"{7 - gone}\n"
    assert await left(store) == set()
    assert await differences(store) == []
