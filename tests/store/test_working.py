"""Who works on what: claims, leases, parking. It saves work; the laws never rest on it."""

import asyncio

import pytest
from store_kit import (
    SECOND,
    assert_sound,
    begin,
    completed,
    created,
    ended,
    noted,
    opened,
    running,
    scheduled,
    timer,
    woken,
    worker,
)

from holdfast.errors import RunNotFound, StoreError
from holdfast.store import open_store
from holdfast.store.rows import WorkerRow


async def claimed(store, name, *workflows, **options):
    return [claim.run for claim in await store.claim(name, workflows or ("w",), **options)]


async def test_a_worker_is_given_free_runs_that_are_ready(store, clock):
    """L-17: pending, undelivered facts, open steps and timers; each run to one worker, the oldest first."""
    due = clock.now() + 9 * SECOND
    await store.append("pending", [created()], after=0)
    await store.append("waits", [created(), running(), opened("t#1")], after=0)
    await store.append("fact", [created(), running()], after=0)
    await store.append("fact", [woken("w")])
    await store.append("step", [created(), running(), scheduled("a#1")], after=0)
    await store.append("timer", [created(), running(), timer("s#1", due + 1), timer("s#2", due)], after=0)
    await store.append("other", [created("v")], after=0)
    await store.append("owned", [created()], after=0, owner="somebody")
    await store.append("ended", [created(), ended()], after=0)
    await store.append("parked", [created()], after=0)
    await store.park("parked", "{}")

    await store.enlist(worker("w1"))
    claims = await store.claim("w1", ["w", "unknown"])
    assert [(c.run, c.workflow, c.due, c.ready) for c in claims] == [
        ("pending", "w", None, True),
        ("fact", "w", None, True),
        ("step", "w", None, True),
        ("timer", "w", due, False),
    ]
    assert {(await store.head(c.run)).owner for c in claims} == {"w1"}
    assert await claimed(store, "w1") == []
    assert await claimed(store, "w1", "v") == ["other"]


async def test_a_run_goes_to_one_of_many_workers(place, store):
    """The claims of two handles share out the runs; a limit holds."""
    other = await place.open()
    for n in range(40):
        await store.append(f"r{n:02}", [created(f"w{n % 2}")], after=0)
    for name in ("a", "b"):
        await store.enlist(worker(name))
    shares = await asyncio.gather(
        *(claimed((store, other)[n % 2], "ab"[n % 2], "w0", "w1", limit=3) for n in range(12))
    )
    assert {len(share) for share in shares} == {3}
    runs = [run for share in shares for run in share]
    assert sorted(runs) == [f"r{n:02}" for n in range(36)]


async def test_only_an_enlisted_worker_claims(store):
    """A worker that was declared dead must not go on as if nothing had happened."""
    await store.append("r", [created()], after=0)
    with pytest.raises(StoreError):
        await store.claim("nobody", ["w"])
    await store.enlist(worker("w1"))
    await store.discharge("w1")
    with pytest.raises(StoreError):
        await store.claim("w1", ["w"])
    with pytest.raises(StoreError):
        await store.enlist(worker("w1"))
    assert await store.workers() == []


async def test_workers_are_listed_with_their_leases(place, store):
    """Each enlisting moves the lease on."""
    await store.enlist(WorkerRow("w1", 1, "host", 5))
    await store.enlist(WorkerRow("w2", 2, "host", 6))
    await store.enlist(WorkerRow("w1", 1, "host", 7))
    other = await place.open()
    rows = sorted(await other.workers(), key=lambda row: row.id)
    assert rows == [WorkerRow("w1", 1, "host", 7), WorkerRow("w2", 2, "host", 6)]


async def test_discharging_a_worker_frees_its_runs(store):
    """L-17, H-07: others take its runs over, and are told how often those have killed a worker."""
    for run in ("r1", "r2", "r3"):
        await store.append(run, [created()], after=0, owner="w1" if run != "r3" else "w2")
    await store.enlist(worker("w1"))
    await store.crashed("r2")
    await store.discharge("w1")
    heads = {head.run: head for head in await store.runs()}
    assert {run: head.owner for run, head in heads.items()} == {"r1": None, "r2": None, "r3": "w2"}
    assert {run: head.crashes for run, head in heads.items()} == {"r1": 0, "r2": 1, "r3": 0}
    await store.enlist(worker("w2"))
    claims = await store.claim("w2", ["w"])
    assert {claim.run: claim.crashes for claim in claims} == {"r1": 0, "r2": 1}
    assert {claim.run: claim.crashes for claim in await store.owned("w2")} == {"r1": 0, "r2": 1, "r3": 0}


async def test_what_a_worker_owns_can_be_asked_for(store):
    """A claim's answer may be lost: then the worker asks what it was given."""
    await store.enlist(worker("w1"))
    await begin(store, "idle", owner="w1")
    await store.append("new", [created()], after=0)
    await store.append("other", [created()], after=0, owner="w2")
    given = await store.claim("w1", ["w"])
    assert [claim.run for claim in given] == ["new"]
    assert given[0] in await store.owned("w1")
    assert sorted(claim.run for claim in await store.owned("w1")) == ["idle", "new"]
    await store.append("new", [ended("failed", by="engine")])
    assert [claim.run for claim in await store.owned("w1")] == ["idle"]


async def test_releasing_a_run_frees_it_with_what_was_delivered(store):
    """L14: the mark moves to what the worker delivered, never back; of another's run nothing changes."""
    last = await begin(store, "r", owner="w1")
    await store.append("r", [woken("a"), woken("b")])
    await begin(store, "s", owner="w2")
    assert await store.behind("w1") == [("r", last + 2)]
    await store.release("w1", {"r": last + 1, "s": 2, "nobody": 1})
    head = await store.head("r")
    assert (head.owner, head.delivered, head.ready) == (None, last + 1, True)
    assert (await store.head("s")).owner == "w2"
    await store.enlist(worker("w1"))
    assert await claimed(store, "w1") == ["r"]
    await store.release("w1", {"r": last})
    assert (await store.head("r")).delivered == last + 1
    await store.enlist(worker("w3"))
    assert await claimed(store, "w3") == ["r"]
    await store.release("w3", {"r": last + 2})
    assert not (await store.head("r")).ready
    assert await claimed(store, "w3") == []


async def test_a_parked_run_is_left_alone_until_it_is_taken_up(store):
    """DESIGN §3: a divergence parks; facts are still taken; `claim(parked=True)` takes up what is parked."""
    last = await begin(store, "r", "a#1", owner="w1")
    await store.crashed("r")
    await store.park("r", '{"code":"replay_divergence"}')
    head = await store.head("r")
    assert (head.parked, head.owner, head.crashes) == ('{"code":"replay_divergence"}', None, 0)
    await store.append("r", [completed("a#1")])
    await store.enlist(worker("w1"))
    assert await claimed(store, "w1") == []
    (claim,) = await store.claim("w1", ["w"], parked=True)
    assert (claim.run, claim.ready) == ("r", True)
    head = await store.head("r")
    assert (head.parked, head.owner, head.ready) == (None, "w1", True)
    await store.park("r", "{}")
    await store.park("r", None)
    assert await claimed(store, "w1") == ["r"]
    await store.append("r", [ended()], after=last + 1)
    await store.park("r", "{}")
    assert (await store.head("r")).parked is None
    with pytest.raises(RunNotFound):
        await store.park("nobody", "{}")


async def test_crashes_are_counted_until_the_run_gets_on(store):
    """H-07: a tick that kills its worker is counted; an append with commands resets it, facts do not."""
    last = await begin(store)
    assert [await store.crashed("r") for _ in range(3)] == [1, 2, 3]
    await store.append("r", [woken("w")])
    assert (await store.head("r")).crashes == 3
    await store.append("r", [noted("n#1")], after=last)
    assert (await store.head("r")).crashes == 0
    with pytest.raises(RunNotFound):
        await store.crashed("nobody")


async def test_ownership_is_no_part_of_the_log(place, store):
    """What other handles change beside the log (owner, parking, marks) survives this handle's appends."""
    other = await place.open()
    last = await begin(store, "r", "a#1")
    await store.append("r", [woken("w")])
    await other.enlist(worker("w2"))
    assert await claimed(other, "w2") == ["r"]
    await store.append("r", [completed("a#1")])
    assert (await store.head("r")).owner == "w2"
    await other.release("w2", {"r": last + 2})
    answer = await store.append("r", [noted("n#1")], after=last + 1)
    head = await store.head("r")
    assert (head.owner, head.delivered, head.ready) == (None, last + 2, False)
    assert answer.missed[0].type == "step_completed"
    await other.crashed("r")
    await other.park("r", "{}")
    await store.append("r", [woken("x")])
    head = await store.head("r")
    assert (head.parked, head.crashes, head.ready) == ("{}", 0, False)
    await store.append("r", [ended()], after=answer.last)
    head = await store.head("r")
    assert (head.parked, head.owner, head.status) == (None, None, "completed")
    await assert_sound(store, "r")


async def test_the_end_frees_the_run(store):
    """L11: an ended run has no owner and is no work."""
    last = await begin(store, "r", owner="w1")
    assert (await store.head("r")).owner == "w1"
    await store.append("r", [ended()], after=last)
    assert (await store.head("r")).owner is None
    assert await store.behind("w1") == []


async def test_a_failing_claim_fails_no_append_of_its_group(store):
    """DESIGN §4: jobs share commits with appends, and fail alone."""
    last = await begin(store)
    results = await asyncio.gather(
        store.append("r", [noted("n#1")], after=last),
        store.claim("nobody", ["w"]),
        store.park("nobody", "{}"),
        store.append("r", [woken("w")]),
        return_exceptions=True,
    )
    assert [type(r).__name__ for r in results] == ["Appended", "LeaseLost", "RunNotFound", "Appended"]
    assert len(await assert_sound(store, "r")) == last + 2


async def test_changed_tells_whether_a_slow_poll_has_anything_to_look_at(place, store):
    """H-06: a quiet system reads nothing but this; what it may not do is miss a commit."""
    other = await place.open()
    await begin(store)
    assert await other.changed()
    await store.append("r", [woken("w")])
    assert await other.changed()
    assert await store.changed()
    if place.backend == "sqlite":
        assert not await other.changed()
        assert not await store.changed()


async def test_an_owner_that_is_not_enlisted_is_told_as_one_whose_lease_has_run_out(place, store):
    """H-07: what a worker began after it had been declared dead; to discharge it once more frees that."""
    await store.enlist(worker("w1"))
    for run, owner in (("a", "gone"), ("b", "w1"), ("c", "gone too"), ("d", "gone"), ("e", None)):
        await store.append(run, [created()], after=0, owner=owner)
    rows = {row.id: row.expires for row in await store.workers()}
    assert rows.keys() == {"w1", "gone", "gone too"}
    assert rows["gone"] == rows["gone too"] == 0
    await store.discharge("gone")
    assert {row.id for row in await store.workers()} == {"w1", "gone too"}
    assert await claimed(store, "w1") == ["a", "d", "e"]


@pytest.mark.parametrize("url", ["memory://", "sqlite:///{}/news.db"], ids=["memory", "sqlite"])
async def test_news_tell_of_what_can_be_read_already(url, tmp_path):
    """L14: a worker that is woken before the commit finds nothing, and nobody wakes it again."""
    found = []
    async with open_store(url.format(tmp_path)) as store:

        def look(_news):
            with pytest.raises(StopIteration) as done:  # these stores read in one go
                store.read("r").send(None)
            found.append(len(done.value.value))

        store.listen(look)
        last = await begin(store)
    assert found == [last]
