"""Schedules in the store: rows that are swapped for others, and never by two at once."""

import asyncio

import msgspec
from store_kit import worker

from holdfast.store.rows import ScheduleRow

ROW = ScheduleRow('it\'s "ours" ✓', "0 9 * * *", "Europe/Berlin", "latest", 1_700_000_000_000_000)


def changed(row=ROW, **fields):
    return msgspec.structs.replace(row, **fields)


async def test_a_schedule_is_there_until_it_is_taken_away(place, store):
    assert await store.schedules() == []
    assert await store.swap_schedule(None, ROW)
    other = changed(workflow="an other", missed="none", keeper="w1", paused=True)
    assert await store.swap_schedule(None, other)
    assert await store.schedules() == [other, ROW]
    if place.backend != "memory":
        store = await place.reopen(store)
    assert await store.schedules() == [other, ROW]
    assert await store.swap_schedule(other, None)
    assert await store.schedules() == [ROW]


async def test_only_who_knows_the_row_changes_it(store):
    """Each field counts: whoever computed with an older row finds that out."""
    assert await store.swap_schedule(None, ROW)
    assert not await store.swap_schedule(None, ROW)
    assert not await store.swap_schedule(None, None)
    moved = changed(since=ROW.since + 1)
    for older in (
        changed(cron="0 8 * * *"),
        changed(timezone="UTC"),
        changed(missed="all"),
        changed(since=ROW.since - 1),
        changed(paused=True),
        changed(keeper="w1"),
    ):
        assert not await store.swap_schedule(older, moved)
        assert not await store.swap_schedule(older, None)
    assert not await store.swap_schedule(ROW, changed(workflow="another"))
    assert await store.schedules() == [ROW]
    assert await store.swap_schedule(ROW, moved)
    kept = changed(moved, keeper="w1", paused=True, missed="all", cron="* * * * *", timezone="UTC")
    assert await store.swap_schedule(moved, kept)
    assert await store.swap_schedule(kept, changed(kept, keeper=None))
    assert await store.schedules() == [changed(kept, keeper=None)]


async def test_of_many_who_move_it_on_at_once_each_step_is_ones(place, store):
    """Two handles, ten movers each: `since` counts every success, and none is counted twice."""
    other = await place.open()
    await store.swap_schedule(None, changed(since=0))

    async def move(handle):
        done = 0
        while done < 3:
            [row] = await handle.schedules()
            done += await handle.swap_schedule(row, changed(row, since=row.since + 1))

    await asyncio.gather(*(move(handle) for handle in (store, other) for _ in range(5)))
    assert [row.since for row in await store.schedules()] == [30]


async def test_a_schedule_outlives_its_keeper(store):
    await store.enlist(worker("w1"))
    await store.swap_schedule(None, changed(keeper="w1"))
    await store.discharge("w1")
    assert await store.schedules() == [changed(keeper="w1")]
