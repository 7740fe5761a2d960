"""The commit budget on PostgreSQL, counted by the server and by the driver (DESIGN §9).

Commits are the server's transaction ids: each transaction that writes takes one. Round trips are the statements
that the driver sent, over all connections of the store. Bytes are what the server wrote to its log.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
from patience import PATIENCE

import holdfast as hf
from holdfast import streams
from holdfast.store.queries import load_queries

asyncpg = pytest.importorskip("asyncpg")

NAMES = {query: name for name, query in load_queries("postgres").items()}
LOOK = "SELECT txid_current(), pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint"


@hf.step(name="pg-budget.empty")
async def empty(number: int) -> int:
    return number


@hf.workflow(name="pg-budget.sequence")
async def sequence(count: int) -> int:
    for number in range(count):
        await empty(number)
    return count


@hf.workflow(name="pg-budget.gather")
async def gather(count: int) -> int:
    return len(await asyncio.gather(*(empty(number) for number in range(count))))


@hf.workflow(name="pg-budget.payload")
async def one_payload(token: str) -> int:
    return await hf.hook(token, type=int)


@hf.workflow(name="pg-budget.any-payload")
async def any_payload(token: str) -> Any:
    return await hf.hook(token)


@hf.workflow(name="pg-budget.sleep")
async def one_sleep() -> None:
    await hf.sleep(0.05)


@hf.step(name="pg-budget.fill")
async def fill(out: hf.Stream) -> None:
    async with out:
        for _ in range(16):
            await out.write(bytes(65_536))


@hf.step(name="pg-budget.copy")
async def copy(given: hf.Stream, out: hf.Stream) -> None:
    async with out:
        async for chunk in given:
            await out.write(chunk.data)


@hf.workflow(name="pg-budget.copied")
async def copied() -> None:
    await fill(hf.stream("in"))
    await copy(hf.stream("in"), hf.stream("out"))


class Cost(NamedTuple):
    commits: int
    statements: int
    wal: int


class Counting:
    """An app with a worker, and what its work costs the server."""

    def __init__(self, app: hf.App, server: Any, sent: list[str]) -> None:
        self.app, self._server, self.sent = app, server, sent

    async def run(self, workflow: Any, *args: Any) -> Any:
        return await (await self.app.start(workflow, *args)).result(PATIENCE)

    async def cost(self, work: Callable[[], Awaitable[object]]) -> Cost:
        before, sent = await self._server.fetchrow(LOOK), len(self.sent)
        await work()
        statements = len(self.sent) - sent
        after = await self._server.fetchrow(LOOK)
        return Cost(
            after[0] - before[0] - 1, statements, after[1] - before[1]
        )  # the second look takes an id too


@asynccontextmanager
async def counting(url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Counting]:
    sent: list[str] = []
    connect = asyncpg.connect

    async def connect_and_count(*args: Any, **options: Any) -> Any:
        connection = await connect(*args, **options)
        connection.add_query_logger(lambda query: sent.append(query.query))
        return connection

    server = await connect(url)
    monkeypatch.setattr(asyncpg, "connect", connect_and_count)
    try:
        async with hf.connect(url) as app, app.worker(poll=3600, probe=3600, lease=36_000):
            counted = Counting(app, server, sent)
            for workflow in (sequence, gather):  # what happens once has happened
                await counted.run(workflow, 10)
            yield counted
    finally:
        await server.close()


async def test_a_shape_costs_just_its_commits(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with counting(postgres_url, monkeypatch) as counted:
        run, app = counted.run, counted.app
        found = {
            "no steps": await counted.cost(lambda: run(sequence, 0)),
            "sequence": await counted.cost(lambda: run(sequence, 50)),
            "gather": await counted.cost(lambda: run(gather, 50)),
            "timer": await counted.cost(lambda: run(one_sleep)),
        }

        async def answer(token: str, waiting: hf.Run[int]) -> None:
            await app.resume(token, 7)
            assert await waiting.result(PATIENCE) == 7

        await answer("first", await app.start(one_payload, "first"))  # the driver learns the types
        waiting = await app.start(one_payload, "budget")
        found["hook"] = await counted.cost(lambda: answer("budget", waiting))
    assert {name: cost.commits for name, cost in found.items() if name != "gather"} == {
        "no steps": 1, "sequence": 51, "timer": 2, "hook": 2,
    }  # fmt: skip
    assert 2 <= found["gather"].commits <= 4
    # Who gets it, the payload, the end; the end comes to who waits with its commit.
    assert found["hook"].statements <= 3
    assert found["sequence"].statements <= 52
    assert found["gather"].statements <= 5


async def test_a_megabyte_is_one_statement_and_one_commit(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end mark with it, also in a copy; and to read it are two: the chunks, and whether that is all."""
    monkeypatch.setattr(streams, "_HOLD", 3600.0)  # on a machine that is busy with others as well
    async with counting(postgres_url, monkeypatch) as counted:
        await counted.run(copied)
        sent = len(counted.sent)
        cost = await counted.cost(lambda: counted.run(copied))
        names = [NAMES.get(query) for query in counted.sent[sent:]]
    assert names == [
        "make_run", "write_streams", "move_run", "read_stream", "stream", "write_streams", "end_run",
    ]  # fmt: skip
    assert cost.commits == 5


async def test_a_payload_of_another_process_costs_the_worker_a_small_read_and_its_commit(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is open was remembered and need not be read, so the end is judged from memory too."""
    async with hf.connect(postgres_url) as sender:
        await sender.start(any_payload, "warm")  # its connections are made before those that are counted
        assert await costs_apart(sender, postgres_url, monkeypatch) == [["since", "end_run"]] * 3


async def costs_apart(sender: hf.App, url: str, monkeypatch: pytest.MonkeyPatch) -> list[list[str | None]]:
    costs = []
    async with counting(url, monkeypatch) as counted:
        for token, payload in (("one", 1), ("two", 2), ("large", "large" * 1000)):
            await counted.app.start(any_payload, token, run_id=token)
            sent = len(counted.sent)
            await sender.resume(token, payload)
            assert await sender.run(token).result(PATIENCE) == payload
            async with asyncio.timeout(PATIENCE):
                while "end_run" not in (names := [NAMES.get(query) for query in counted.sent[sent:]]):
                    await asyncio.sleep(0.001)  # the driver tells of it when it has the answer
            costs.append(names)
    return costs


async def test_a_crowd_of_another_process_is_taken_up_together(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs that others start cost a worker no round trip each; from their first tick on they are known."""
    async with hf.connect(postgres_url) as sender, counting(postgres_url, monkeypatch) as counted:

        async def crowd() -> None:
            runs = await asyncio.gather(*(sender.start(sequence, 10) for _ in range(100)))
            assert await asyncio.gather(*(run.result(PATIENCE) for run in runs)) == [10] * 100

        cost = await counted.cost(crowd)
    assert cost.statements <= 60, "of the worker's process alone"


async def test_a_step_stays_within_its_round_trips_and_bytes(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with counting(postgres_url, monkeypatch) as counted:
        one = await counted.cost(lambda: counted.run(sequence, 50))
        crowd = await counted.cost(lambda: asyncio.gather(*(counted.run(sequence, 10) for _ in range(20))))
    assert one.statements / 50 <= 1.04
    assert crowd.statements <= 40
    assert crowd.commits <= 30
    assert one.wal / 50 <= 2_500
    assert crowd.wal / 200 <= 3_000
