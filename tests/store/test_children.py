"""Children in the store: a projection of the parent's log, orphans when it ends, lists by parent and root."""

import pytest
from store_kit import assert_sound, created, running, worker

from holdfast.errors import CommandMissing
from holdfast.events import new
from holdfast.store.rows import RunFilter
from holdfast.verify import Verification

ODD = 'o\'dd "name"/é#1'
"""A key of a child whose workflow has everything in its name that could break a query."""


def child_started(key: str, run: str, **data):
    return new("child_started", key=key, data={"run": run, "workflow": "w", "args": {}, **data})


def child_ended(key: str, status: str = "completed"):
    return new("child_ended", key=key, data={"status": status, "value": 1})


def child_of(parent: str, root: str, key: str = "w#1"):
    return created(parent={"run": parent, "key": key}, root=root)


async def rows(store, run: str):
    return [(c.key, c.child, c.position, c.status, c.ended) for c in await store.children(run)]


async def differences(store):
    return [str(difference) async for difference in Verification(store).run()]


async def test_a_child_is_open_until_its_parent_has_heard_its_end(store):
    await store.append(
        "p", [created(), running(), child_started("w#1", "c1"), child_started(ODD, "c'2")], after=0
    )
    assert await rows(store, "p") == [(ODD, "c'2", 4, "open", False), ("w#1", "c1", 3, "open", False)]
    head = await store.head("p")
    assert (head.children, head.ready) == (2, True), "a worker must hold it: who else starts its children?"
    await store.append("c1", [child_of("p", "p"), new("run_completed", data={"value": 1})], after=0)
    assert [row[4] for row in await rows(store, "p")] == [False, True]
    first = await store.append("p", [child_ended("w#1")])
    again = await store.append("p", [child_ended("w#1", "failed")])
    assert again.duplicates == [first.first], "L3: how it ended is told once"
    assert [row[0] for row in await rows(store, "p")] == [ODD]
    assert await differences(store) == []
    await assert_sound(store, "p")


async def test_a_cancelled_child_stays_until_its_end_is_told(store):
    await store.append("p", [created(), running(), child_started("w#1", "c1")], after=0)
    await store.append("p", [new("child_cancelled", key="w#1")], after=3)
    assert await rows(store, "p") == [("w#1", "c1", 3, "cancelling", False)]
    await store.append("p", [child_ended("w#1", "cancelled")])
    assert await rows(store, "p") == []
    assert await differences(store) == []


async def test_the_end_of_a_child_that_was_not_asked_for_is_refused(store):
    await store.append("p", [created(), running()], after=0)
    for draft in (child_ended("w#1"), new("child_cancelled", key="w#1")):
        with pytest.raises(CommandMissing):
            await store.append("p", [draft], after=2)


async def test_children_that_an_ended_parent_leaves_are_orphans_until_somebody_saw_to_them(store):
    """L14: what is to be cancelled, or started, stands in the store, not in a worker's memory."""
    asked = [
        child_started("w#1", "c1"),
        child_started("w#2", "c2", detached=True),
        child_started("w#3", "c3"),
    ]
    await store.append("p", [created(), running(), *asked], after=0)
    await store.append("q", [created(), running(), child_started("w#1", "c4")], after=0)
    await store.append(
        "p", [new("child_cancelled", key="w#3"), new("run_failed", data={"error": {}})], after=5
    )
    orphans = {(c.run, c.key, c.child, c.position, c.status) for c in await store.orphans()}
    assert orphans == {
        ("p", "w#1", "c1", 3, "open"),
        ("p", "w#2", "c2", 4, "detached"),
        ("p", "w#3", "c3", 5, "cancelling"),
    }
    head = await store.head("p")
    assert (head.children, head.ready) == (0, False)
    assert len(await store.orphans(limit=2)) == 2
    await store.bury_orphan("p", "w#1")
    await store.bury_orphan("p", "w#1")
    await store.bury_orphan("q", "w#1")
    assert {c.key for c in await store.orphans()} == {"w#2", "w#3"}
    assert await rows(store, "q") == [("w#1", "c4", 3, "open", False)], "the parent lives: it is no orphan"
    assert await differences(store) == [], "orphans are work to do, and no part of what the log means"


async def test_a_worker_learns_which_children_of_its_runs_have_ended(store):
    await store.enlist(worker("w1"))
    for parent, owner in (("p", "w1"), ("q", None)):
        drafts = [
            created(),
            running(),
            child_started("w#1", f"{parent}.1"),
            child_started("w#2", f"{parent}.2"),
        ]
        await store.append(parent, drafts, after=0, owner=owner)
        end = new("run_completed", data={"value": 1})
        await store.append(f"{parent}.1", [child_of(parent, parent), end], after=0)
        await store.append(f"{parent}.2", [child_of(parent, parent)], after=0)
    assert [(c.run, c.key, c.child) for c in await store.ended_children("w1")] == [("p", "w#1", "p.1")]
    await store.append("p", [child_ended("w#1")])
    assert await store.ended_children("w1") == []


async def test_a_run_that_waits_for_a_child_is_claimed_and_loaded(store):
    await store.enlist(worker("w1"))
    await store.append("p", [created("mine"), running(), child_started("w#1", "c1")], after=0)
    [claim] = await store.claim("w1", ["mine"])
    assert (claim.run, claim.ready) == ("p", True)
    assert [(c.run, c.ready) for c in await store.owned("w1")] == [("p", True)]


async def test_runs_are_listed_by_parent_and_by_root(place, store, clock):
    """Pages of one, with ids that hold quotes: the cursor neither skips nor repeats."""
    top = "to'p"
    await store.append(top, [created()], after=0)
    await store.append("other", [created()], after=0)
    for number in range(3):
        clock.advance(1)
        await store.append(f"c{number}", [child_of(top, top)], after=0)
        await store.append(f"g{number}", [child_of(f"c{number}", top)], after=0)

    async def every(**query):
        return [head.run async for head in store.all_runs(RunFilter(**query), page=1)]

    assert await every(parent=top) == ["c2", "c1", "c0"]
    assert await every(root=top) == ["g2", "c2", "g1", "c1", "g0", "c0", top]
    assert await every(root=top, parent="c1") == ["g1"]
    assert await every(parent="c1", workflow="w") == ["g1"]
    assert await every(parent="c1", workflow="v") == await every(parent="c1", status="completed") == []
    assert await every(root="other") == ["other"]
    other = await place.reopen(store)
    head = await other.head("g1")
    assert (head.parent, head.root) == ("c1", top)
