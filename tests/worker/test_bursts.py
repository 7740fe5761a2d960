"""What a thousand begin at once is spread over turns of the loop, so that it holds nobody up."""

from __future__ import annotations

import asyncio
import itertools
import threading

import holdfast as hf
from holdfast.store.sqlite.store import FEW, SqliteStore
from holdfast.worker.agenda import Bursts


@hf.workflow(name="bursts.none")
async def none() -> int:
    return 1


async def turns(seen, stop):
    """In each turn of the loop, how far it has come."""
    while not stop.is_set():
        seen.append(stop.count())
        await asyncio.sleep(0)


class Counted(asyncio.Event):
    def __init__(self, count):
        super().__init__()
        self.count = count


async def test_no_turn_of_the_loop_begins_more_than_a_burst():
    bursts, passed = Bursts(3), []
    seen: list[int] = []
    stop = Counted(lambda: len(passed))

    async def one(number):
        await bursts.join()
        passed.append(number)

    watching = asyncio.create_task(turns(seen, stop))
    await asyncio.gather(*(one(number) for number in range(20)))
    stop.set()
    await watching
    assert passed == list(range(20)), "in the order in which they came"
    assert max(later - earlier for earlier, later in itertools.pairwise(seen)) <= 3


async def test_who_is_cancelled_in_the_line_takes_nobodys_place():
    bursts, passed = Bursts(1), []

    async def one(number):
        await bursts.join()
        passed.append(number)

    tasks = [asyncio.create_task(one(number)) for number in range(6)]
    await asyncio.sleep(0)
    for task in tasks[2:5]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert passed == [0, 1, 5]
    await one(6)
    assert passed[-1] == 6


async def test_a_crowd_of_starts_lets_the_loop_have_its_turns():
    """DESIGN §9: with 1,000 runs at once the loop is late by milliseconds; each start costs a quarter of one."""
    async with hf.connect("memory://") as app, app.worker() as worker:
        seen: list[int] = []
        begun: set[str] = set()
        stop = Counted(lambda: len(begun.union(worker.runs.live)))
        real = worker.runs.begin

        def begin(definition, run_id, created):
            begun.add(run_id)
            return real(definition, run_id, created)

        worker.runs.begin = begin
        watching = asyncio.create_task(turns(seen, stop))
        runs = await asyncio.gather(*(app.start(none) for _ in range(200)))
        assert [await run.result() for run in runs] == [1] * 200
        stop.set()
        await watching
        assert len(begun) == 200
        assert max(later - earlier for earlier, later in itertools.pairwise(seen)) <= 32


@hf.step(name="bursts.body")
async def body() -> int:
    ran.append(1)
    return 1


ran: list[int] = []


@hf.workflow(name="bursts.gather")
async def many(count: int) -> int:
    return len(await asyncio.gather(*(body() for _ in range(count))))


async def test_a_turn_of_the_loop_runs_no_more_than_some_bodies():
    ran.clear()
    async with hf.connect("memory://") as app, app.worker(concurrency=1000):
        seen: list[int] = []
        stop = Counted(lambda: len(ran))
        watching = asyncio.create_task(turns(seen, stop))
        assert await (await app.start(many, 300)).result() == 300
        stop.set()
        await watching
        assert len(ran) == 300
        assert max(later - earlier for earlier, later in itertools.pairwise(seen)) <= 50


async def test_the_groups_of_a_crowd_are_committed_beside_the_loop(tmp_path, monkeypatch):
    """One run goes on where it is; of many, none holds up what else the process does."""
    threads: dict[int, set[int]] = {}
    real = SqliteStore._timed_commit

    def timed(store, group, *, wait):
        threads.setdefault(len(group), set()).add(threading.get_ident())
        return real(store, group, wait=wait)

    pace = property(lambda _store: 0.0, lambda _store, _value: None)
    monkeypatch.setattr(SqliteStore, "_pace", pace, raising=False)
    monkeypatch.setattr(SqliteStore, "_timed_commit", timed)
    async with hf.connect(f"sqlite:///{tmp_path}/crowd.db") as app, app.worker():
        here = threading.get_ident()
        runs = await asyncio.gather(*(app.start(none) for _ in range(32)))
        assert [await run.result() for run in runs] == [1] * 32
        assert await (await app.start(many, 3)).result() == 3
    beside = [size for size, where in threads.items() if here not in where]
    assert threads[1] == {here}
    assert max(threads) > FEW
    assert sorted(beside) == sorted(size for size in threads if size > FEW)
