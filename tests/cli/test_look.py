"""`runs`, `show`, `events`, `why`, `hooks`, `timers`: read without the code."""

import asyncio
import json
from pathlib import Path

import pytest
from cli_kit import Command, child, steady
from patience import PATIENCE

from holdfast.events import new
from holdfast.store import open_store


@pytest.fixture
def done(holdfast: Command) -> Command:
    """A store with one run of each kind: completed, failed, waiting."""
    assert holdfast("run", "shop:fulfil", "7", "--run-id", "order-7").code == 0
    assert holdfast("run", "shop:fails", "--run-id", "f-1").code == 1
    assert holdfast("run", "shop:approve", "ana", "--run-id", "a-1", "--timeout", "0.05").code == 3
    return holdfast


def test_runs(done: Command) -> None:
    assert steady(done("runs").out) == (
        "RUN STATUS CREATED TOOK WORKFLOW ATTRIBUTES\n"
        "a-1 running AGO SPAN approve\n"
        "f-1 failed AGO SPAN fails\n"
        "order-7 completed AGO SPAN fulfil customer=ana\n"
    )


@pytest.mark.parametrize(
    ("options", "runs"),
    [
        (("--status", "running"), ["a-1"]),
        (("--status", "completed"), ["order-7"]),
        (("--workflow", "fails"), ["f-1"]),
        (("--attribute", "customer=ana"), ["order-7"]),
        (("--attribute", "customer=ana", "--attribute", "x=y"), []),
        (("--parked",), []),
        (("--limit", "2"), ["a-1", "f-1"]),
        (("--limit", "0"), ["a-1", "f-1", "order-7"]),
    ],
)
def test_which_runs(done: Command, options: tuple[str, ...], runs: list[str]) -> None:
    listed = done("runs", *options, "--json")
    assert (listed.code, listed.err) == (0, "")
    assert [json.loads(line)["run"] for line in listed.lines] == runs


def test_runs_says_that_there_are_more_or_none(done: Command) -> None:
    assert done("runs", "--limit", "2").err == "the newest 2; --limit 0 lists all\n"
    assert done("runs", "--status", "pending").err == "no runs like that\n"
    odd = done("runs", "--status", "odd")
    assert odd.code == 2
    assert odd.err.startswith("error: ")
    assert "odd" in odd.err


COUNTS = """
import holdfast as hf

@hf.workflow(name="look.counts")
async def counts(left: int) -> int:
    if left:
        hf.continue_as_new(left - 1)
    return left
"""


def test_a_continued_run_names_the_one_before_and_the_one_behind(holdfast: Command, shop: Path) -> None:
    (shop / "look_counts.py").write_text(COUNTS)
    ran = holdfast("run", "look_counts:counts", "2", "--run-id", "c")
    assert (ran.code, ran.out) == (0, "0\n"), "what the last of them returned"
    runs = [json.loads(line)["run"] for line in holdfast("runs", "--json").lines][::-1]
    assert len(runs) == 3
    for before, run, behind in zip([None, *runs], runs, [*runs[1:], None], strict=False):
        for shown in (holdfast("show", run, "--json"), holdfast("why", run, "--json")):
            told = json.loads(shown.out)
            assert (told["previous"], told["continued"]) == (before, behind)
        text = holdfast("show", run).out
        assert (f"goes on    from {before}" in text) is (before is not None)
        assert (f"goes on    as {behind}" in text) is (behind is not None)
    assert "result" not in holdfast("show", runs[0]).out, "what it returned is its successor"
    first, middle, last = (holdfast("why", run).out for run in runs)
    assert f"It went on as `{runs[1]}`" in first
    assert "goes on from" not in first
    assert f"It went on as `{runs[2]}`" in middle
    assert middle.endswith(f"It goes on from `{runs[0]}`.\n")
    assert last.endswith(f"It goes on from `{runs[1]}`.\n")


def test_a_run_as_json(done: Command) -> None:
    shown = json.loads(done("runs", "--status", "completed", "--json").out)
    assert set(shown) == {
        *("run", "workflow", "status", "created_at", "ended_at", "position"),
        *("attributes", "worker", "parked", "crashes", "parent", "root"),
    }
    assert (shown["workflow"], shown["position"], shown["parked"]) == ("fulfil", 12, None)


def test_show(done: Command) -> None:
    assert steady(done("show", "order-7").out) == (
        "order-7 completed\n"
        " workflow fulfil version 2\n"
        " created TIME (AGO)\n"
        " ended TIME after SPAN\n"
        " log 12 events\n"
        " attribute customer=ana\n"
        ' result "ana paid 7 after 2 tries"\n'
        "\n"
        "steps\n"
        " charge#1 completed 1 attempt SPAN amount=7\n"
        " flaky#1 completed 2 attempts SPAN succeed_at=2\n"
    )


def test_show_an_error_with_the_users_traceback(done: Command, shop: Path) -> None:
    out = done("show", "f-1").out
    assert "f-1  failed\n" in out
    assert " flaky#1 failed 3 attempts SPAN ValueError: attempt 3 failed\n" in steady(out)
    assert "\nerror  ValueError: attempt 3 failed\n  Traceback (most recent call last):\n" in out
    assert f'File "{shop / "shop.py"}", line ' in out


def test_show_what_a_run_waits_for(done: Command) -> None:
    assert steady(done("show", "a-1").out).endswith(
        "\ntimers\n"
        " sleep#1 pending TIME in 2 d 23 h\n"
        "\n"
        "hooks\n"
        " approve:ana open 0 payloads opened AGO\n"
        ' {"question":"Shall we?"}\n'
    )


def test_show_as_json(done: Command) -> None:
    shown = json.loads(done("show", "order-7", "--json").out)
    assert shown["result"] == "ana paid 7 after 2 tries"
    assert [(s["step"], s["status"], s["attempts"]) for s in shown["steps"]] == [
        ("charge#1", "completed", 1),
        ("flaky#1", "completed", 2),
    ]
    assert (shown["left_open"], shown["unread"], shown["ended_by"]) == ([], 0, "code")
    waiting = json.loads(done("show", "a-1", "--json").out)
    assert waiting["hooks"][0]["token"] == "approve:ana"
    assert (waiting["ended_by"], waiting["unread"]) == (None, None)


def test_payloads_that_nobody_read_are_shown(done: Command) -> None:
    for number in range(3):
        assert done("resume", "approve:ana", '{"ok": true}', "--delivery-id", str(number)).code == 0
    assert done("run", "shop:approve", "ana", "--run-id", "a-1").code == 0
    out = done("show", "a-1").out
    assert "  unread     2 of 3 payloads were not read\n" in out
    assert "  left open  approve:ana#1\n" in out
    assert steady(done("why", "a-1").out) == "It completed AGO, after SPAN. 2 payloads were not read.\n"


def test_events(done: Command) -> None:
    lines = steady(done("events", "order-7").out).splitlines()
    assert lines[0].startswith(' 1 +SPAN run_created {"workflow":"fulfil","args":{"amount":7},')
    assert lines[2] == ' 3 attributes_set attributes#1 {"attributes":{"customer":"ana"}}'
    assert lines[-1].endswith('run_completed {"value":"ana paid 7 after 2 tries","read":0}')
    assert len(lines) == 12
    assert len(done("events", "order-7", "--after", "10").lines) == 2
    assert done("events", "order-7", "--after", "99").out == ""


def test_events_as_json_are_what_replay_reads(done: Command, shop: Path) -> None:
    exported = done("events", "order-7", "--json")
    first = json.loads(exported.lines[0])
    assert list(first) == ["run", "position", "type", "at", "key", "data"]
    (shop / "order-7.jsonl").write_text(exported.out)
    assert done("replay", "shop", "order-7.jsonl").code == 0
    assert [json.loads(line)["position"] for line in exported.lines] == list(range(1, 13))


def test_follow_ends_with_the_run(done: Command, shop: Path) -> None:
    follow = child("events", "a-1", "--follow", "--json", cwd=shop)
    assert follow.stdout is not None
    assert json.loads(follow.stdout.readline())["type"] == "run_created"
    assert done("terminate", "a-1", "--reason", "over").code == 0
    out, err = follow.communicate(timeout=PATIENCE)
    assert (follow.returncode, err) == (0, "")
    assert json.loads(out.splitlines()[-1])["type"] == "run_cancelled"
    again = done("events", "a-1", "--follow", "--after", "99")
    assert (again.code, again.out) == (0, "")


# ---- why


def test_why_a_run_waits(done: Command) -> None:
    assert steady(done("why", "a-1").out) == (
        "Its hook approve:ana is open (AGO): `holdfast resume approve:ana JSON` sends a payload.\n"
        "Its timer sleep#1 is due in 2 d 23 h (TIME).\n"
        "It could go on, and no worker is up: `holdfast worker MODULE`, with the module of approve.\n"
    )
    shown = json.loads(done("why", "a-1", "--json").out)
    assert [reason["kind"] for reason in shown["reasons"]] == ["hook", "timer", "worker"]


def test_why_a_run_has_ended(done: Command) -> None:
    assert steady(done("why", "order-7").out) == "It completed AGO, after SPAN.\n"
    assert steady(done("why", "f-1").out) == (
        "It failed AGO, after SPAN: ValueError: attempt 3 failed. `holdfast show f-1` has the traceback.\n"
    )
    done("terminate", "a-1", "--reason", "over")
    assert steady(done("why", "a-1").out) == "It was terminated AGO, after SPAN: over.\n"


def test_why_a_run_is_pending(holdfast: Command) -> None:
    holdfast("start", "shop:fulfil", "7", "--run-id", "order-7")
    assert holdfast("why", "order-7").out == (
        "It has not begun, and no worker is up: `holdfast worker MODULE`, with the module of fulfil.\n"
    )


def test_why_no_worker_has_it(holdfast: Command, shop: Path) -> None:
    (shop / "other.py").write_text("import holdfast as hf\n@hf.workflow\nasync def other() -> None: ...\n")
    worker = child("worker", "other", cwd=shop)
    assert worker.stderr is not None
    worker.stderr.readline()
    holdfast("start", "shop:fulfil", "7", "--run-id", "order-7")
    assert holdfast("why", "order-7").out == (
        "It has not begun, but no worker has it: 1 worker is up, perhaps without the code of fulfil.\n"
    )
    worker.terminate()
    worker.communicate(timeout=PATIENCE)


def by_hand(run: str, *events: tuple[str, str, dict[str, object]]) -> None:
    """A run in the default store whose log is written by hand; the events are one append."""

    async def write() -> None:
        async with open_store("sqlite:///.holdfast/holdfast.db") as store:
            created = new("run_created", data={"workflow": "w", "args": {}})
            await store.append(run, [created, new("run_started")], after=0)
            if events:
                await store.append(run, [new(t, key=k, data=d) for t, k, d in events], after=2)

    asyncio.run(write())


def test_why_a_step_runs_or_is_tried_again(holdfast: Command) -> None:
    error = {"type": "shop:Declined", "message": "card\n4242"}
    by_hand(
        "r-1",
        ("step_scheduled", "a#1", {"args": {}}),
        ("step_started", "a#1", {"attempt": 1, "worker": "wrk_gone"}),
        ("step_scheduled", "b#1", {"args": {}}),
        ("step_started", "b#1", {"attempt": 1, "worker": "wrk_gone"}),
        ("step_retried", "b#1", {"attempt": 1, "due": 4_000_000_000_000_000, "error": error}),
        ("step_scheduled", "c#1", {"args": {}}),
    )
    lines = steady(holdfast("why", "r-1").out).splitlines()
    assert lines[0] == "Its step a#1 runs (attempt 1) on worker wrk_gone, which is gone; it began AGO."
    assert lines[1].startswith("Its step b#1 is tried again in ")
    assert lines[1].endswith(" (attempt 2); the last error was Declined: card 4242.")
    assert lines[2] == "Its step c#1 is scheduled and has not begun."


def test_why_a_run_waits_for_nothing(holdfast: Command) -> None:
    by_hand("r-1")
    assert holdfast("why", "r-1").out.startswith("It waits for nothing that its log tells: ")


def test_why_a_run_is_parked(holdfast: Command) -> None:
    by_hand("r-1")

    async def park() -> None:
        async with open_store("sqlite:///.holdfast/holdfast.db") as store:
            await store.park("r-1", json.dumps({"kind": "diverged", "message": "position 3: …"}))

    asyncio.run(park())
    assert holdfast("why", "r-1").out == (
        "It is parked (diverged): position 3: …. To go on: bring back code that fits its log, or let the "
        'change through for old runs with hf.patched("…"); then restart a worker, or `holdfast wake r-1`.\n'
    )
    assert "parked" in holdfast("runs").out
    assert json.loads(holdfast("runs", "--parked", "--json").out)["parked"]["kind"] == "diverged"
    assert holdfast("wake", "r-1").code == 0
    assert holdfast("runs", "--parked", "--json").out == ""


# ---- hooks and timers


def test_hooks(done: Command) -> None:
    assert steady(done("hooks").out) == (
        'TOKEN STATUS RUN OPENED\napprove:ana open a-1 AGO\n {"question":"Shall we?"}\n'
    )
    shown = json.loads(done("hooks", "--json").out)
    assert (shown["token"], shown["run"], shown["metadata"]) == (
        "approve:ana",
        "a-1",
        {"question": "Shall we?"},
    )
    assert shown["schema"]["$ref"] == "#/$defs/Approval"
    assert done("hooks", "--run", "order-7").err == "no open hooks\n"
    done("terminate", "a-1")
    assert done("hooks").err == "no open hooks\n"
    assert "run_ended" in done("hooks", "--all").out


def test_timers(done: Command) -> None:
    assert steady(done("timers").out) == "RUN TIMER DUE\na-1 sleep#1 TIME in 2 d 23 h\n"
    shown = json.loads(done("timers", "--json").out)
    assert (shown["run"], shown["key"]) == ("a-1", "sleep#1")
    assert done("timers", "--run", "order-7").err == "no pending timers\n"
