"""Reads while others write: prefixes without holes (L1, L-07, L-09), and pages that lose nobody."""

import asyncio

import pytest
from patience import PATIENCE
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
    terminated,
    timer,
    woken,
)

from holdfast.errors import RunNotFound, StaleLog
from holdfast.events import Event
from holdfast.store.rows import RunFilter, TakenUp


async def test_readers_with_a_cursor_never_see_a_hole(place, store):
    """L1, L-07, L-09: four writers, two readers by cursor: each read begins where the last one ended."""
    handles = [store, await place.open()]
    await begin(store)
    writing = 4

    async def write(handle, name):
        nonlocal writing
        for n in range(60):
            await handle.append("r", [woken(f"{name}-{n}"), woken(f"{name}-{n}-b")])
        writing -= 1

    async def follow(handle, limit):
        seen = []
        while True:
            done = not writing
            events = await handle.read("r", after=len(seen), limit=limit)
            seen += [event.position for event in events]
            assert seen == list(range(1, len(seen) + 1))
            if done and not events:
                return len(seen)
            await asyncio.sleep(0)

    counts = await asyncio.gather(
        follow(handles[0], 7),
        follow(handles[1], None),
        *(write(handles[n % 2], n) for n in range(4)),
    )
    assert counts[:2] == [2 + 480, 2 + 480]


async def test_a_long_log_is_read_whole_and_in_parts(store):
    """L1, L-05: more events than a backend reads at once; limits count; the loop gets its turns."""
    await begin(store)
    for n in range(9):
        await store.append("r", [woken(f"{n}-{k}") for k in range(1000)])
    turns = 0
    reading = asyncio.ensure_future(store.read("r"))
    while not reading.done():
        turns += 1
        await asyncio.sleep(0)
    log = reading.result()
    assert [event.position for event in log] == list(range(1, 9003))
    assert await store.read("r", after=4000, limit=3000) == log[4000:7000]
    assert await store.read("r", after=9002) == []
    assert await store.read("r", limit=0) == []
    assert isinstance(log[0], Event)


async def test_a_run_is_taken_up_as_it_is(place, store):
    """DESIGN: the log, the steps that owe an outcome and the open children, however long the log is."""
    other = await place.open()
    last = await begin(store, "r", "a#1", "b#1")
    for _ in range(5):
        notes = [noted(f"n#{last + n}") for n in range(500)]
        last = (await store.append("r", notes, after=last)).last
    await store.append("r", [completed("a#1")])
    found = await other.take_up("r")
    assert found.events == await store.read("r")
    assert (found.steps, found.children) == (await store.open_steps("r"), await store.children("r"))
    assert [step.key for step in found.steps] == ["b#1"]
    assert await other.catch_up("r", last) == await store.read("r", last)
    assert await other.catch_up("r", 0) == found.events
    # What it has seen, a decider goes on from; what it has not seen, it is told (L4).
    answer = await other.append("r", [completed("b#1"), noted("x#1")], after=last + 1)
    with pytest.raises(StaleLog):
        await store.append("r", [noted("y#1")], after=last + 1)
    assert (await store.end_of("r"), answer.missed) == (None, [])
    await store.append("r", [ended()], after=answer.last)
    assert (await other.end_of("r")).type == "run_completed"
    await assert_sound(store, "r")


async def test_many_runs_are_taken_up_and_awaited_at_once(place, store):
    """Whoever asks in one moment gets its own run's answer, and an error of its own."""
    other = await place.open()
    names = [f"r{number}" for number in range(250)]
    await asyncio.gather(*(begin(store, name, f"{name}#1") for name in names))
    found = await asyncio.gather(*(other.take_up(name) for name in names))
    assert [(f.events[0].run, [s.key for s in f.steps]) for f in found] == [(n, [f"{n}#1"]) for n in names]
    for name in names[:3]:
        await store.append(name, [terminated()])
    ends = await asyncio.gather(*(other.end_of(name) for name in [*names, "none"]), return_exceptions=True)
    assert [end is not None for end in ends] == [True] * 3 + [False] * 247 + [True]
    assert isinstance(ends[-1], RunNotFound)


async def test_unknown_runs_are_empty(store):
    assert await store.take_up("nobody") == TakenUp([], [], [])
    assert await store.catch_up("nobody", 3) == []
    assert await store.receiver("nobody") is None
    """Reading what is not there is no error."""
    assert await store.read("nobody") == []
    assert await store.head("nobody") is None
    assert await store.chain("nobody") == []
    assert await store.open_steps("nobody") == []
    assert await store.timers(run="nobody") == []
    assert await store.hooks(run="nobody") == []
    assert await store.runs(RunFilter(workflow="nobody")) == []


async def pages(store, limit, **filters):
    return [head.run async for head in store.all_runs(RunFilter(**filters), page=limit)]


async def test_runs_are_listed_newest_first_by_page(store, clock):
    """DESIGN §8: the cursor is (created, run): also runs of one microsecond are each listed once."""
    names = []
    for n in range(23):
        if n % 4 == 0:
            clock.advance(0.001)
        names.append((clock.now(), f"r{n:02}"))
        await store.append(f"r{n:02}", [created(f"w{n % 3}")], after=0)
    expected = [run for _, run in sorted(names, reverse=True)]
    for limit in (1, 3, 100):
        assert await pages(store, limit) == expected
    assert await pages(store, 2, workflow="w1") == [r for r in expected if int(r[1:]) % 3 == 1]


async def test_pages_hold_while_runs_are_added(store, clock):
    """DESIGN §8: what is there when the listing begins is listed once, whatever is added meanwhile."""
    for n in range(20):
        clock.advance(0.001)
        await store.append(f"r{n:02}", [created()], after=0)
    found, before = [], None
    while page := await store.runs(limit=3, before=before):
        found += [head.run for head in page]
        before = (page[-1].created, page[-1].run)
        clock.advance(0.001)
        await store.append(f"new-{len(found)}", [created()], after=0)
    assert found == [f"r{n:02}" for n in reversed(range(20))]


async def test_runs_are_found_by_status_workflow_attributes_and_parking(store, clock):
    """Every filter, and every two of them."""
    for n in range(12):
        clock.advance(0.001)
        attributes = {"tier": "gold" if n % 2 else "silver", 'it\'s "n"': str(n)}
        drafts = [created(f"w{n % 3}", attributes=attributes), running()]
        await store.append(f"r{n:02}", drafts, after=0)
        if n % 4 == 0:
            await store.append(f"r{n:02}", [ended()], after=2)
        elif n % 5 == 0:
            await store.park(f"r{n:02}", '{"code":"replay_divergence"}')
    heads = await store.runs()
    assert len(heads) == 12
    for status in (None, "running", "completed", "failed"):
        for workflow in (None, "w0", "w2"):
            for parked in (None, True, False):
                for attributes in (None, {"tier": "gold"}, {"tier": "gold", 'it\'s "n"': "5"}, {"x": "1"}):
                    expected = [
                        head
                        for head in heads
                        if status in (None, head.status)
                        and workflow in (None, head.workflow)
                        and parked in (None, head.parked is not None)
                        and all(head.attributes.get(k) == v for k, v in (attributes or {}).items())
                    ]
                    assert await store.runs(RunFilter(status, workflow, attributes, parked)) == expected


async def test_timers_are_listed_the_earliest_first(store, clock):
    """H-04: due timers fire in order, whoever's they are."""
    for run, offset in (("r1", 3), ("r2", 1)):
        last = await begin(store, run)
        due = [clock.now() + (offset + 2 * n) * SECOND for n in range(3)]
        await store.append(run, [timer(f"s#{n + 1}", d) for n, d in enumerate(due)], after=last)
    found = await store.timers()
    assert [(t.run, t.key) for t in found] == [
        ("r2", "s#1"), ("r1", "s#1"), ("r2", "s#2"), ("r1", "s#2"), ("r2", "s#3"), ("r1", "s#3"),
    ]  # fmt: skip
    assert [t.due for t in found] == sorted(t.due for t in found)
    assert await store.timers(limit=2) == found[:2]
    assert [t.key for t in await store.timers(run="r1", limit=2)] == ["s#1", "s#2"]
    await store.append("r1", [ended()], after=5)
    assert {t.run for t in await store.timers()} == {"r2"}


async def test_news_of_each_commit_reach_the_listeners_of_every_handle(place, store):
    """H-03: in process at once, in other handles soon; derived from the log, so losing them costs a poll."""
    other = await place.open()
    heard, there = {store: [], other: []}, asyncio.Event()

    def listener(handle):
        def hear(news):
            heard[handle] += news
            if any(item.ended for item in heard[other]) and any(item.fact for item in heard[store]):
                there.set()

        return hear

    stops = [handle.listen(listener(handle)) for handle in heard]
    last = await begin(store, owner="wrk")
    await store.append("r", [opened("t#1"), noted("n#1")], after=last)
    await other.deliver("t", b"1", "d")
    await store.append("r", [ended()], after=last + 3)
    await asyncio.wait_for(there.wait(), PATIENCE)
    facts = [item for item in heard[store] if item.fact]
    assert [(item.run, item.owner, item.ended, item.ready) for item in facts] == [("r", "wrk", False, True)]
    (end,) = [item for item in heard[other] if item.ended]
    assert (end.run, end.owner, end.ready) == ("r", None, False)
    for stop in stops:
        stop()
    count = len(heard[store])
    await begin(store, "r2")
    assert len(heard[store]) == count


@pytest.mark.parametrize("count", [1, 300])
async def test_closing_finishes_what_was_submitted(place, store, count):
    """An answer that was promised is given."""
    for n in range(count):
        await store.append(f"r{n}", [created()], after=0)
    waiting = [asyncio.ensure_future(store.append(f"r{n}", [woken("w")])) for n in range(count)]
    await asyncio.sleep(0)
    store = await place.reopen(store)
    assert [task.result().first for task in waiting] == [2] * count
    await assert_sound(store, "r0")


async def test_the_tally_counts_by_workflow_and_status_and_parked_besides(store):
    for name, end in (("a", "run_completed"), ("b", None), ("c", None)):
        await begin(store, name)
        if end is not None:
            await store.append(name, [ended()], after=2)
    await store.park("c", '{"kind": "broken", "message": ""}')
    workflow = (await store.head("a")).workflow
    assert await store.tally() == {
        (workflow, "completed"): 1,
        (workflow, "running"): 2,
        (workflow, "parked"): 1,
    }
