"""The storms of RACES.md, small: every run completes, every promise is kept, and a broken one is noticed."""

import asyncio
import json

import apsw
import msgspec
import pytest

from holdfast.cli import main
from holdfast.testing.simulation import Scenario, Start, simulate
from holdfast.testing.stress import HookSleep, HookStorm, StepStorm, stress
from holdfast.testing.stress import storms as storms_module
from holdfast.testing.stress.flows import hook_sleep, hook_storm, step_storm
from holdfast.testing.stress.ledger import Sent
from holdfast.testing.stress.report import hold_to_ledger

SMALL = {
    "hook-sleep": HookSleep(
        count=15,
        iterations=5,
        sleep_ms=60,
        sleep_branch_wait_ms=10,
        drain_delay_ms=5,
        fire_after_ms=150,
        fire_count=8,
    ),
    "step-storm": StepStorm(
        count=8, rounds=2, watchdog_ms=150, step_delay_ms=140, step_spread_ms=40, between_ms=50, poke_ms=15
    ),
    "hook-storm": HookStorm(
        count=8, rounds=2, watchdog_ms=250, step_delay_ms=200, step_spread_ms=60, between_ms=50, poke_ms=15
    ),
}


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("name", SMALL)
async def test_a_storm(name, workers, tmp_path, record_property):
    """L-01, L-06, H-01, R-03: all completed, payloads read once, unread or refused, and all logs replay."""
    given = SMALL[name]
    url = "memory://" if workers == 0 else f"sqlite:///{tmp_path}/storm.db"
    report = await stress(name, given, url=url, workers=workers, limit=60)
    assert report.problems == []
    assert (report.completed, report.runs, report.replayed) == (given.count,) * 3
    assert (report.running, report.failed, report.corrupt) == (0, {}, 0)
    payloads = report.payloads
    assert payloads.accepted == payloads.read + payloads.unread
    if name == "hook-sleep":
        assert payloads.accepted + payloads.refused == given.count * given.fire_count
        assert payloads.read >= given.count
    else:
        assert payloads.unread >= given.count, "the hook that nobody awaits was sent payloads"
        assert payloads.refused >= given.count, "and the last one of each run came after its end"
    record_property(f"{name} with {workers} worker processes", msgspec.to_builtins(report))


@pytest.mark.parametrize("workflow", [hook_sleep, step_storm, hook_storm], ids=lambda w: w.name)
def test_storms_on_a_simulated_network(workflow):
    """The same workflows on a clock that jumps, with lost answers, dead workers and clocks that differ."""
    given = {
        hook_sleep: SMALL["hook-sleep"],
        step_storm: StepStorm(rounds=2),
        hook_storm: HookStorm(rounds=2),
    }
    for seed in range(4):
        starts = [Start(workflow, (f"storm-{n}", given[workflow]), f"storm-{n}") for n in range(3)]
        scenario = Scenario(
            starts=starts, workers=3, horizon=30, payload=lambda _hook, chance: chance.randrange(9)
        )
        assert simulate(scenario, f"storm-{seed}").problems == []


@pytest.mark.parametrize("name", SMALL)
async def test_a_storm_on_postgres(name, postgres_url):
    """L-01, H-01: the same code with another URL."""
    report = await stress(name, SMALL[name], url=postgres_url, workers=2, limit=60)
    assert report.problems == []
    assert report.completed == report.replayed == SMALL[name].count


# ---- what is broken is noticed


async def test_runs_that_have_not_ended_in_time_are_problems(tmp_path):
    slow = HookSleep(count=3, iterations=1, sleep_ms=60_000, fire_count=0)
    report = await stress("hook-sleep", slow, url=f"sqlite:///{tmp_path}/storm.db", workers=1, limit=1)
    assert (report.running, report.completed) == (3, 0)
    assert [problem.partition(": ")[2] for problem in report.problems] == [
        "had not ended when the time was up"
    ] * 3


async def test_a_log_that_was_changed_is_corrupt(tmp_path):
    """What `verify` finds in any log of the store is a problem of the storm."""
    url, given = (
        f"sqlite:///{tmp_path}/storm.db",
        HookSleep(count=2, iterations=1, sleep_ms=1, fire_after_ms=0),
    )
    assert (await stress("hook-sleep", given, url=url)).problems == []
    db = apsw.Connection(str(tmp_path / "storm.db"))
    db.execute(
        "UPDATE events SET body = replace(body, '0', '1') WHERE type = 'step_completed' AND position < 9"
    )
    db.close()
    report = await stress("hook-sleep", given, url=url)
    assert report.corrupt == 2
    assert report.completed == 2
    assert all(problem.startswith("verify: ") for problem in report.problems)


async def test_a_worker_that_dies_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HOLDFAST_FAULTS", "worker.append.before=kill@3")
    given = HookSleep(count=1, iterations=1, fire_after_ms=0, fire_count=1)
    report = await stress("hook-sleep", given, url=f"sqlite:///{tmp_path}/storm.db", limit=2)
    assert "worker-1 ended with exit code -9" in report.problems


async def test_the_ledger_is_held_against_the_logs(tmp_path):
    """H-01: a payload that was acknowledged and is not there, and one that was refused and is there."""
    seen = {}

    async def driven(self, app, tokens):
        await original(self, app, tokens)
        seen["sent"] = self.ledger.sent

    driver = storms_module._HookSleepDriver
    original, driver.drive = driver.drive, driven
    try:
        url = f"sqlite:///{tmp_path}/storm.db"
        given = HookSleep(count=1, iterations=2, fire_after_ms=0, fire_count=1)
        report = await stress("hook-sleep", given, url=url)
    finally:
        driver.drive = original
    (sent,) = seen["sent"]
    async with storms_module.connect(url) as app:
        lost = Sent(sent.token, "lost", run=sent.run, position=sent.position)
        lied = Sent(sent.token, sent.delivery, reason="closed")
        await hold_to_ledger(app.store, report, [sent, lost, lied], {sent.delivery})
    assert len(report.problems) == 2
    assert "payload lost was acknowledged" in report.problems[0]
    assert "was refused, and is in the log" in report.problems[1]


# ---- the command

STUCK = [
    *("hook-sleep", "--count", "1", "--workers", "0", "--sleep-ms", "9999"),
    *("--fire-after-ms", "0", "--fire-count", "0", "--limit", "1"),
]


def test_the_command(capsys, tmp_path):
    store = ["--store", f"sqlite:///{tmp_path}/storm.db"]
    small = ["--count", "3", "--iterations", "2", "--sleep-ms", "20", "--fire-after-ms", "10"]
    assert main(["stress", "hook-sleep", *small, *store, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["completed"], report["problems"]) == (3, [])
    assert main(["stress", "hook-sleep", *small]) == 0
    shown = capsys.readouterr()
    assert "3, 3 completed" in shown.out
    assert shown.err == "every promise was kept\n"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["hook-sleep", "--store", "memory://"], 2, "error: memory:// lives in one process"),
        (["hook-sleep", "--store", ""], 2, "error: --store: expected a URL"),
        (["hook-sleep", "--store", "mysql://x"], 2, "error: no backend for"),
        (["hook-sleep", "--count", "0"], 2, "error: invalid value for '--count'"),
        (["hook-slep"], 2, "error: no such command 'hook-slep'\nhint: did you mean hook-sleep"),
        (STUCK, 1, ""),
    ],
)
def test_how_the_command_ends(capsys, words, code, message):
    assert main(["stress", *words]) == code
    assert capsys.readouterr().err.startswith(message)


def test_one_hook_is_poked_while_nobody_awaits_it():
    """A storm's offsets are five values around the mean, and each branch of a round has its own."""
    given = StepStorm()
    offsets = {given.offset(round_, index) for round_ in range(6) for index in range(8)}
    assert sorted(offsets) == [-0.25, -0.125, 0.0, 0.125, 0.25]


def test_a_storm_that_there_is_not():
    with pytest.raises(KeyError):
        asyncio.run(stress("no-storm"))
