"""A look at a store, for `holdfast top`: what is counted, what waits, who works."""

import asyncio
from typing import Any

import pytest
from patience import PATIENCE
from store_kit import SECOND, begin, completed, ended, scheduled, started, worker

from holdfast.events import new
from holdfast.queues import Queue
from holdfast.store.gauge import MOST, Gauge, Oldest, rates


async def create(store, run):
    await store.append(run, [new("run_created", data={"workflow": "w", "input": {"args": []}})], after=0)


async def test_an_empty_store(store):
    gauge = await store.gauge(0)
    assert set(gauge.runs.values()) == {0}
    assert (gauge.started, gauge.live, gauge.refusals, gauge.workers) == (0, 0, 0, [])
    assert (gauge.oldest, gauge.free, gauge.undelivered) == (None, None, None)


async def test_runs_are_counted_by_status_and_those_since(store, clock):
    await create(store, "first")
    before = clock.advance(1)
    clock.advance(1)
    for run in ("a'b", "c"):
        await begin(store, run)
    await store.append("c", [ended()], after=2)
    await begin(store, "set aside")
    await store.park("set aside", '{"kind": "diverged", "message": "m"}')
    gauge = await store.gauge(before)
    assert gauge.runs == {
        "pending": 1,
        "running": 2,
        "completed": 1,
        "failed": 0,
        "cancelled": 0,
        "parked": 1,
    }
    assert (gauge.started, gauge.live, gauge.time) == (3, 3, clock.now())
    assert gauge.oldest == Oldest("first", before - SECOND)


async def test_what_has_work_to_do_and_no_worker(store, clock):
    """A run that only waits needs none; the one to which nothing has happened for longest is told."""
    await begin(store, "waits")
    clock.advance(1)
    await store.enlist(worker("w1"))
    await begin(store, "owned", "a#1", owner="w1")
    assert (await store.gauge(0)).free is None
    clock.advance(1)
    await begin(store, "free", "a#1")
    since = clock.now()
    clock.advance(1)
    await create(store, "later")
    assert (await store.gauge(0)).free == Oldest("free", since)


async def test_a_fact_that_no_code_has_seen(store, clock):
    """The first one beyond what was delivered, not the last; none of a run that is parked."""
    await begin(store, "r", "a#1", "b#1")
    assert (await store.gauge(0)).undelivered is None
    clock.advance(1)
    first = clock.now()
    await store.append("r", [completed("a#1")])
    clock.advance(1)
    await store.append("r", [completed("b#1")])
    await begin(store, "s", "a#1")
    await store.append("s", [completed("a#1")])
    assert (await store.gauge(0)).undelivered == Oldest("r", first)
    await store.park("r", '{"kind": "diverged", "message": "m"}')
    assert (await store.gauge(0)).undelivered == Oldest("s", clock.now())


async def test_workers_with_what_they_own_hold_and_say(store):
    await store.enlist(worker("w1"))
    await store.enlist(worker("w2"))
    for run in ("a", "b"):
        await begin(store, run, owner="w1")
    last = await begin(store, "c", owner="w2")
    await store.append("c", [ended()], after=last)
    step = new("step_scheduled", key="x#1", data={"args": {}, "queue": "q"})
    await store.append("a", [step], after=2)
    await store.take_steps("w2", [Queue("q")], ["x"], 1)
    row = worker("w2")
    await store.enlist(type(row)(row.id, row.pid, row.host, 5, {"refusals": 3, "running": 1}))
    gauge = await store.gauge(0)
    assert [(load.worker.id, load.runs, load.held) for load in gauge.workers] == [("w1", 2, 0), ("w2", 0, 1)]
    assert gauge.workers[1].worker.counters == {"refusals": 3, "running": 1}
    assert gauge.refusals == 3
    assert [row.counters for row in await store.workers()] == [{}, {"refusals": 3, "running": 1}]


async def test_events_and_outcomes_of_steps_between_two_looks(store, clock, place):
    if place.backend == "postgres":
        pytest.skip("that server tells what it counts with a delay: see below")
    await begin(store, "r", "a#1")
    before = await store.gauge(0)
    clock.advance(2)
    await store.append("r", [completed("a#1"), scheduled("b#1"), started("b#1")], after=4)
    await begin(store, "new")
    between = rates(before, await store.gauge(before.time))
    assert (between.events, between.steps, between.started, between.ended) == (2.5, 0.5, 0.5, 0)
    before = await store.gauge(0)
    clock.advance(1)
    await store.append("new", [ended()], after=2)
    between = rates(before, await store.gauge(before.time))
    assert (between.events, between.started, between.ended) == (1, 0, 1)


@pytest.mark.parametrize("place", ["postgres"], indirect=True)
async def test_postgres_tells_what_it_counts_within_seconds(store):
    await begin(store, "r", "a#1")
    before = await store.gauge(0)
    await store.append("r", [completed("a#1")])
    more = 0
    async with asyncio.timeout(PATIENCE):
        while (now := await store.gauge(0)).steps == before.steps:
            more += 1
            await begin(store, f"r{more}")  # a session reports at the end of a transaction
            await asyncio.sleep(0.1)
    assert now.steps == before.steps + 1
    assert before.events < now.events <= before.events + 5 + 2 * more


def gauge(time: int = 0, **given: Any) -> Gauge:
    parts = {"runs": {}, "started": 0, "events": 0, "steps": 0, "workers": []}
    return Gauge(**{**parts, "oldest": None, "free": None, "undelivered": None, **given}, time=time)


def test_rates_that_are_not_known():
    """What was counted to the bound only gives no rate; a counter that began anew gives no negative one."""
    full = gauge(SECOND, started=MOST, runs={"running": MOST})
    assert (rates(gauge(), full).started, rates(gauge(), full).ended) == (None, None)
    assert rates(gauge(), gauge(SECOND, started=2, runs={"running": MOST})).ended is None
    assert rates(gauge(), gauge(SECOND, started=MOST)).ended is None
    again = rates(gauge(events=9, steps=9), gauge(SECOND, events=2, steps=1))
    assert (again.events, again.steps) == (0, 0)
    assert rates(gauge(), gauge(0, events=1)).events == 1e6


def test_a_run_that_begins_has_not_ended():
    assert rates(gauge(runs={"pending": 2}), gauge(SECOND, runs={"running": 2})).ended == 0
