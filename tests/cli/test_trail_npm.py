"""The program `trail` for users of the npm tool: its commands, its flags, its answers, its exit codes."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import pytest
from cli_kit import Command, steady

from holdfast.trail import TrailFolder


def test_a_session_as_its_users_know_it(npm: Command, desk: Path) -> None:
    assert npm("status").lines == ["No active trajectory", 'Start one with: trail start "Task description"']
    started = npm(
        *("start", "Fix login", "-t", "ENG-1", "-s", "linear", "--url", "https://x.y/ENG-1"),
        *("-a", "claude", "-p", "shop/cart", "-w", "wf1"),
    )
    trail_id = started.lines[0].rpartition(" ")[2]
    assert started.lines == [
        f"✓ Trajectory started: {trail_id}",
        "  Title: Fix login",
        "  Agent: claude",
        "  Project: shop/cart",
        "  Linked to: ENG-1 (linear)",
    ]
    assert npm("decision", "Use JWT", "-r", "fast", "-a", "sessions, cookies").lines == [
        "✓ Decision recorded: Use JWT",
        "  Reasoning: fast",
        "  Alternatives: sessions, cookies",
    ]
    assert npm("reflect", "going well", "-f", "a,b", "-c", "0.7", "-a", "none").lines == [
        "✓ Reflection recorded: going well",
        "  Focal points: a, b",
        "  Confidence: 0.7",
        "  Adjustments: none",
    ]
    assert [steady(line) for line in npm("status").lines] == [
        f"Active Trajectory: {trail_id}",
        "━" * 30,
        "Task: Fix login",
        "Source: linear:ENG-1",
        "Status: active",
        "Started: AGO" if "0s" not in npm("status").out else "Started: 0s ago",
        "Chapters: 1",
        "Events: 2",
        "Decisions: 1",
        "",
        "Current Chapter: Work",
        " Agent: claude",
    ]
    assert npm("complete", "--summary", "Added JWT", "--confidence", "0.9").lines == [
        f"✓ Trajectory completed: {trail_id}",
        "  Summary: Added JWT",
        "  Confidence: 90%",
    ]
    listed = npm("list").lines
    assert listed[:4] == ["Found 1 trajectories:", "", f"✅ {trail_id}", "   Fix login (90%)"]
    assert listed[4].startswith("   Started: ")
    assert listed[5].startswith("   Completed: ")
    shown = npm("show", trail_id).lines
    assert shown[0] == f"Trajectory: {trail_id}"
    for line in ("Title:   Fix login", "Status:  completed", "Source:  linear:ENG-1", "  • Work (claude)"):
        assert line in shown
    assert shown[-3:] == ["Retrospective:", "  Summary: Added JWT", "  Confidence: 90%"]
    assert npm("show", trail_id, "-d").lines == [
        "Decisions for Fix login:",
        "",
        "• Use JWT",
        "  Chose: Use JWT",
        "  Reasoning: fast",
        "  Alternatives: sessions, cookies",
        "",
    ]
    trail = TrailFolder().load(trail_id)
    assert (trail.project_id, trail.workflow_id) == ("shop/cart", "wf1")


def test_abandoning_keeps_the_reason(npm: Command) -> None:
    """The npm tool says that it does, and drops it where there is no chapter."""
    trail_id = npm("start", "x", "-q").out.strip()
    assert npm("abandon", "-r", "no use").lines == [f"✓ Trajectory abandoned: {trail_id}", "  Reason: no use"]
    assert TrailFolder().load(trail_id).abandon_reason == "no use"
    assert "Abandoned: no use" in npm("show", trail_id).out


def test_decisions_without_a_reason_are_shown(npm: Command) -> None:
    """The npm tool counts them, and shows them nowhere."""
    trail_id = npm("start", "x", "--quiet").out.strip()
    npm("decision", "Use X")
    assert "• Use X" in npm("show", trail_id, "--decisions").lines
    assert "Use X" in npm("export", trail_id).out


def test_the_confidence_that_the_npm_tool_assumes(npm: Command, ours: Command) -> None:
    for program, confidence in ((npm, 0.8), (ours, None)):
        trail_id = program("start", "x", "-q").out.strip()
        program("complete", "--summary", "done")
        end = TrailFolder().load(trail_id).retrospective
        assert end is not None
        assert end.confidence == confidence


def test_list_filters(npm: Command) -> None:
    npm("start", "Fix the login", "-q")
    npm("decision", "Use gadgets")
    npm("complete", "--summary", "x")
    npm("start", "Write", "-q")
    assert npm("list", "-s", "active", "-l", "5").lines[0] == "Found 1 trajectories:"
    assert npm("list", "--search", "gadgets").lines[0] == 'Found 1 trajectories matching "gadgets":'
    assert npm("list", "--search", "zebra").lines == ['No trajectories found matching "zebra"']
    assert npm("list", "--limit", "1").lines[3] == "   Write"


def test_export_as_its_users_know_it(npm: Command, desk: Path) -> None:
    done = npm("export")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: no active trajectory and no ID provided")
    trail_id = npm("start", "x", "-q").out.strip()
    assert npm("export", trail_id, "-f", "md", "-o", "x.md").out == "✓ Exported to x.md\n"
    assert json.loads(npm("export", "-f", "json").out)["id"] == trail_id


def test_status_verbose_reads_all_files(npm: Command, desk: Path) -> None:
    npm("start", "x", "-q")
    assert npm("status", "-v").err == "all files can be read\n"
    (desk / ".trajectories" / "active" / "traj_bad.json").write_text("{")
    assert "active/traj_bad.json: malformed: " in npm("status", "--verbose").err


# ---- one at a time, but of each agent and work tree


def test_start_is_refused_for_the_same_agent_only(npm: Command) -> None:
    first = npm("start", "One", "-a", "ana", "-q").out.strip()
    for words in ((), ("-a", "ana")):
        done = npm("start", "Two", *words)
        assert (done.code, done.out) == (1, "")
        assert done.err.startswith(
            f"error: trajectory already active: {first} ('One')\nhint: end it with `trail "
        )
        assert "TRAJECTORIES_AGENT" in done.err
    assert npm("start", "Three", "-a", "ben").code == 0
    assert [trail.title for trail in TrailFolder().list()] == ["Three", "One"]


def test_eight_starts_at_once_are_one_trail(desk: Path) -> None:
    """The npm tool's guard looks first and acts then: 1, 1, 2 and 4 of 8 succeeded."""

    def start(number: int) -> int:
        code = "import sys; from holdfast.cli.trail import main; sys.exit(main())"
        line = [sys.executable, "-c", code, "start", f"Task {number}"]
        return subprocess.run(line, cwd=desk, capture_output=True, check=False).returncode

    with ThreadPoolExecutor(8) as threads:
        codes = sorted(threads.map(start, range(8)))
    assert codes == [0, 1, 1, 1, 1, 1, 1, 1]
    assert len(TrailFolder(desk / ".trajectories").list("active")) == 1


def test_sixteen_decisions_at_once_are_kept(npm: Command, desk: Path) -> None:
    """The npm tool said that it kept 13 to 15 of 16, and kept 7 to 12."""
    trail_id = npm("start", "x", "-q").out.strip()
    code = "import sys; from holdfast.cli.trail import main; sys.exit(main())"

    def decide(number: int) -> int:
        line = [sys.executable, "-c", code, "decision", f"Use {number}"]
        return subprocess.run(line, cwd=desk, capture_output=True, check=False).returncode

    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(decide, range(16))) == [0] * 16
    record = json.loads((desk / ".trajectories" / "active" / f"{trail_id}.json").read_text())
    kept = [event["content"] for chapter in record["chapters"] for event in chapter["events"]]
    assert sorted(kept) == sorted(f"Use {number}" for number in range(16))


# ---- failures


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("decision", "x"), "no active trail in "),
        (("reflect", "x"), "no active trail in "),
        (("abandon",), "no active trail in "),
        (("complete", "--summary", "x"), "no active trail in "),
        (("complete",), "--summary is required"),
        (("complete", "--summary", "x", "--confidence", "2"), "--confidence: expected a number from 0 to 1"),
        (("start",), "missing argument TITLE"),
        (("start", ""), "trajectory title is required"),
        (("show", "traj_nope"), "trail not found: traj_nope"),
        (("foo",), "no such command 'foo'"),
        (("list", "--bar"), "no such option: --bar"),
        (("--bar", "list"), "no such option: --bar"),
    ],
)
def test_failures_are_one_line_and_exit_code_1(npm: Command, words: tuple[str, ...], message: str) -> None:
    done = npm(*words)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"error: {message}")
    assert len(done.err.splitlines()) <= 2


def test_global_options(npm: Command, desk: Path) -> None:
    for words in (("--version",), ("-V",)):
        assert npm(*words).out == f"trail {version('holdfast')}\n"
    npm("--data-dir", "elsewhere", "start", "x")
    npm("note", "y", "--data-dir", "elsewhere")
    assert len(TrailFolder(desk / "elsewhere").list()) == 1
    assert npm("help").out == npm("--help").out == npm().out
    assert npm("help", "start").out == npm("start", "-h").out == npm("start", "x", "--help").out
    assert "Usage: trail decision [OPTIONS]" in npm("decision", "--help").out


def test_what_the_npm_tool_cannot(npm: Command) -> None:
    trail_id = npm("start", "x", "-q").out.strip()
    chapter = npm("chapter", "Look").out.strip()
    assert npm("note", "y").out == f"{trail_id}  noted\n"
    assert json.loads(npm("find", "z", "--json").out)["chapter"] == chapter
    assert json.loads(npm("status", "--json").out)["events"] == 2
    assert npm("search", "z").lines[0] == 'Found 1 trajectories matching "z":'
    assert [json.loads(line)["id"] for line in npm("list", "--json").lines] == [trail_id]
