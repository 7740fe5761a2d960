"""Clients and workers behind a server: lost answers, lost connections, restarts, many readers."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap

import aiohttp
import pytest
from patience import PATIENCE
from server_kit import ServerThread, lines_of
from store_kit import assert_sound, begin, created, noted, woken, worker

import holdfast as hf
from holdfast import faults
from holdfast.errors import StaleLog, StoreError
from holdfast.store import open_store


@hf.step
async def behind_add(a: int, b: int) -> int:
    return a + b


@hf.workflow
async def behind_sum(n: int) -> int:
    total = 0
    for number in range(n):
        total = await behind_add(total, number)
    return total


async def until(holds):
    async with asyncio.timeout(PATIENCE):
        while not await holds():
            await asyncio.sleep(0.005)


async def test_a_lost_answer_is_asked_for_again_under_its_batch_id(serve):
    """L12: the connection breaks after the commit; the append is sent again and is there once."""
    server = serve()
    async with open_store(server.url) as store:
        last = await begin(store)
        real, lost = store._calls._once, []

        async def lose(path, body):
            answer = await real(path, body)
            if path == "store/write" and len(lost) < 2:
                lost.append(body)
                raise aiohttp.ServerDisconnectedError
            return answer

        store._calls._once = lose
        answer = await store.append("r", [noted("note#1")], after=last)
        assert (answer.first, len(lost)) == (last + 1, 2)
        assert lost[0] == lost[1]
        assert (await store.append("r", [woken("w")])).first == last + 2
        await assert_sound(store, "r")


async def test_a_store_that_fails_is_told_as_such(serve):
    """503 and the code `store`: nothing is known to be written, and the same append may be sent again."""
    server = serve()
    async with open_store(server.url) as store:
        last = await begin(store)
        faults.arm("store.commit.before", faults.fail)
        with pytest.raises(StoreError):
            await store.append("r", [noted("note#1")], after=last)
        faults.disarm()
        assert (await store.append("r", [noted("note#1")], after=last)).first == last + 1


async def test_errors_come_back_as_what_they_were(serve):
    """By code and fields, never by text: a stale append carries what was missed."""
    server = serve()
    async with open_store(server.url) as store:
        last = await begin(store)
        await store.append("r", [noted("note#1"), noted("note#2")], after=last)
        with pytest.raises(StaleLog) as caught:
            await store.append("r", [noted("note#3")], after=last)
        assert [event.key for event in caught.value.missed] == ["note#1", "note#2"]
        assert caught.value.missed == await store.read("r", last)
        assert caught.value.position == last + 2


async def test_workers_behind_the_server_share_the_runs(serve):
    """Two workers, each with its own connection: every run ends once, and its log is sound."""
    server = serve()
    async with hf.connect(server.url) as one, hf.connect(server.url) as two, one.worker(), two.worker():
        runs = await asyncio.gather(*(two.start_raw("behind_sum", b'{"n":5}') for _ in range(12)))
        assert await asyncio.gather(*(one.run(run.id).result(PATIENCE) for run in runs)) == [10] * 12
        for run in runs:
            await assert_sound(one.store, run.id)


async def test_a_worker_whose_connection_is_gone_loses_its_runs_before_its_lease(serve, tmp_path):
    """A killed process behind HTTP: the end of its stream frees its runs, where the lease would last 30 s."""
    server = serve(grace=0.2)
    (tmp_path / "flow.py").write_text(
        textwrap.dedent("""
            import asyncio, os, holdfast as hf
            @hf.step
            async def once_held() -> int:
                if not os.path.exists("held"):
                    open("held", "w").close()
                    await asyncio.sleep(60)
                return os.getpid()
            @hf.workflow
            async def holds() -> int:
                return await once_held()
        """)
    )
    command = [sys.executable, "-m", "holdfast", "worker", "flow", "--store", server.url]
    workers = [subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL) for _ in range(2)]
    try:
        async with hf.connect(server.url) as app:

            async def both_there():
                return len(await app.store.workers()) == 2

            await until(both_there)
            run = await app.start_raw("holds", b"{}")

            async def held():
                return (tmp_path / "held").exists()

            await until(held)
            log = await app.store.read(run.id)
            owner = (await app.store.head(run.id)).owner
            pids = {row.id: row.pid for row in await app.store.workers()}
            os.kill(pids[owner], signal.SIGKILL)
            assert await run.result(PATIENCE) in set(pids.values()) - {pids[owner]}
            assert len(await app.store.workers()) == 1
            assert [e.type for e in await app.store.read(run.id)][: len(log)] == [e.type for e in log]
            await assert_sound(app.store, run.id)
    finally:
        for process in workers:
            process.kill()
            process.wait()


async def test_a_client_that_comes_back_in_time_keeps_its_runs(serve):
    """A broken connection is not a death: the session's next stream comes within the grace."""
    server = serve(grace=5.0)
    async with open_store(server.url) as store, open_store(server.url) as other:
        store.listen(lambda news: None)
        await store.enlist(worker("wrk_1"))
        store._hearing.stop()
        store._hearing.start(every=False)
        await store.enlist(worker("wrk_1"))
        assert [row.id for row in await other.workers()] == ["wrk_1"]


async def test_a_restart_loses_nothing_and_everybody_goes_on(tmp_path):
    """The server is stopped and started under readers, a waiting client and a worker at work."""
    url = f"sqlite:///{tmp_path}/store.db"
    server = ServerThread(url)
    seen = []

    async def follow():
        last = "0"
        async with aiohttp.ClientSession() as session:
            while True:
                headers = {"Accept": "text/event-stream", "Last-Event-ID": last}
                try:
                    async with session.get(f"{server.url}/v1/runs/r/events", headers=headers) as stream:
                        if stream.status == 204:
                            return
                        async for id, kind in lines_of(stream):
                            last = id
                            seen.append((int(id), kind))
                except aiohttp.ClientError:
                    await asyncio.sleep(0.01)

    try:
        async with hf.connect(server.url) as app, app.worker():
            run = await app.start_raw("behind_sum", b'{"n":60}', run_id="r")
            reader = asyncio.create_task(follow())
            waiter = asyncio.create_task(run.result(PATIENCE))

            async def some():
                return len(seen) > 20

            await until(some)
            port = server.port
            await asyncio.to_thread(server.stop)
            server = await asyncio.to_thread(ServerThread, url, port=port)
            assert await waiter == sum(range(60))
            await asyncio.wait_for(reader, PATIENCE)
            log = await assert_sound(app.store, "r")
    finally:
        server.stop()
    assert seen == [(event.position, event.type) for event in log]


async def test_a_thousand_readers_and_a_slow_one(serve):
    """Load: 1,000 SSE readers of one run each get each event once, in order; one that never reads harms nobody."""
    server = serve()
    count, events = 1000, 8
    async with open_store(server.url) as store:
        await store.append("r", [created()], after=0)
        slow = await asyncio.open_connection("127.0.0.1", server.port, limit=1)
        slow[1].write(
            b"GET /v1/runs/r/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
        )
        ready = asyncio.Semaphore(0)

        async def read(session):
            headers = {"Accept": "text/event-stream"}
            async with session.get(f"{server.url}/v1/runs/r/events", headers=headers) as stream:
                lines = lines_of(stream)
                got = [await anext(lines)]
                ready.release()
                return [*got, *[line async for line in lines]]

        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=60)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            readers = [asyncio.create_task(read(session)) for _ in range(count)]
            for _ in range(count):
                await ready.acquire()
            for n in range(events):
                await store.append("r", [woken(f"w{n}")])
            await store.append("r", [hf.events.new("run_cancelled", data={"by": "terminate"})])
            logs = await asyncio.gather(*readers)
        slow[1].close()
    expected = [
        (str(e + 1), kind) for e, kind in enumerate(["run_created", *["woken"] * events, "run_cancelled"])
    ]
    assert all(log == expected for log in logs)


async def test_a_thousand_readers_cost_one_read_a_commit(serve):
    """The tail of a log is read and encoded once for all of its readers."""
    server = serve()
    store = server.app.store
    reads = []
    real = store.read

    async def counted(*args):
        reads.append(args)
        return await real(*args)

    store.read = counted
    async with hf.connect(server.url) as app, aiohttp.ClientSession() as session:
        await app.store.append("r", [created()], after=0)
        headers = {"Accept": "text/event-stream"}
        streams = [await session.get(f"{server.url}/v1/runs/r/events", headers=headers) for _ in range(50)]
        lines = [lines_of(stream) for stream in streams]
        for one in lines:
            await anext(one)
        before = len(reads)
        for n in range(5):
            await app.store.append("r", [woken(f"w{n}")])
            for one in lines:
                assert (await anext(one))[1] == "woken"
        assert len(reads) - before <= 5
        for stream in streams:
            stream.close()


async def test_the_command_serves_and_stops_in_order(tmp_path):
    """`holdfast serve --port 0 --json` says where; SIGTERM ends it with 0, also with a stream open."""
    command = [sys.executable, "-m", "holdfast", "serve", "--port", "0", "--json"]
    command += ["--store", f"sqlite:///{tmp_path}/s.db"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        url = json.loads(await asyncio.to_thread(process.stdout.readline))["url"]
        async with hf.connect(url) as app, aiohttp.ClientSession() as session:
            await app.store.append("r", [created()], after=0)
            headers = {"Accept": "text/event-stream"}
            async with session.get(f"{url}/v1/runs/r/events", headers=headers) as stream:
                await anext(lines_of(stream))
                process.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(process.wait, PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()
