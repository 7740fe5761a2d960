"""Which trail a command writes to: never somebody else's, whoever shares the folder (RACES T-09)."""

import json
import subprocess
from pathlib import Path

import pytest
from cli_kit import Command, Ran

from holdfast.trail import TrailFolder


def contents(folder: Path, trail_id: str) -> list[str]:
    return [event.content for event in TrailFolder(folder).load(trail_id).events]


def started(ours: Command, title: str, *words: str) -> str:
    done = ours("start", title, *words)
    assert done.code == 0, done.err
    return done.out.strip()


def checkout(path: Path) -> Path:
    path.mkdir()
    subprocess.run(["git", "init", "-q", str(path)], check=True)
    return path


# ---- agents


def test_two_agents_in_one_checkout(ours: Command, desk: Path) -> None:
    anas, bens = started(ours, "Fix", "--agent", "ana"), started(ours, "Write", "--agent", "ben")
    ours("note", "of ana", "--agent", "ana")
    ours("note", "of ben", "--agent", "ben")
    assert ours("complete", "--summary", "Written", "--agent", "ben").out == f"{bens} is completed\n"
    assert contents(desk / ".trajectories", anas) == ["of ana"]
    assert contents(desk / ".trajectories", bens) == ["of ben"]
    assert [json.loads(line)["id"] for line in ours("list", "--status", "active", "--json").lines] == [anas]


def test_an_agent_cannot_end_the_only_active_trail_of_another(ours: Command, desk: Path) -> None:
    """relay#1802: ben never started a trail, and his `complete` closed ana's with his own retrospective."""
    anas = started(ours, "Fix", "--agent", "ana")
    assert ours("note", "ben helps", "--agent", "ben").code == 0
    for words in (("complete", "--summary", "x"), ("abandon",)):
        done = ours(*words, "--agent", "ben")
        assert (done.code, done.out) == (2, "")
        assert done.err == (
            f"error: the only active trail is another agent's: {anas} by ana, 'Fix'\n"
            f"hint: --id {anas} ends it all the same; `holdfast trail resume {anas}` takes it over\n"
        )
    assert TrailFolder().load(anas).status == "active"
    assert ours("resume", anas, "--agent", "ben").code == 0
    assert ours("complete", "--summary", "x", "--agent", "ben").code == 0


def test_a_named_agent_did_not_start_what_nobodys_name_is_on(ours: Command) -> None:
    trail_id = started(ours, "Fix")
    assert ours("complete", "--summary", "x", "--agent", "ben").code == 2
    assert ours("complete", "--summary", "x", "--agent", "ben", "--id", trail_id).code == 0


def test_a_caller_without_a_name_writes_to_the_only_one(ours: Command, desk: Path) -> None:
    trail_id = started(ours, "Fix", "--agent", "ana")
    ours("note", "x")
    assert TrailFolder().load(trail_id).events[0].agent == "ana"
    assert ours("complete", "--summary", "x").code == 0


def test_several_are_listed_and_nothing_is_done(ours: Command, desk: Path) -> None:
    first, second = started(ours, "Fix", "--agent", "ana"), started(ours, "Write", "--agent", "ben")
    for words in (("note", "x"), ("complete", "--summary", "x"), ("abandon",), ("chapter", "x")):
        done = ours(*words)
        assert (done.code, done.out) == (2, "")
        assert f"{first} 'Fix' by ana" in done.err
        assert f"{second} 'Write' by ben" in done.err
        assert done.err.splitlines()[1].startswith("hint: name one with --id or $TRAJECTORIES_ID")
    assert contents(desk / ".trajectories", first) == contents(desk / ".trajectories", second) == []
    assert ours("note", "x", "--id", first).code == 0


def test_an_empty_id_is_not_taken_for_none(ours: Command) -> None:
    """As `--id "$trail"` of a script whose variable is empty: it would write to whichever is active."""
    started(ours, "Fix")
    assert ours("note", "x", "--id", "").err.startswith("error: trail id: expected 'traj_'")
    assert ours("export", "").err.startswith("error: trail id: expected 'traj_'")


# ---- the environment


def test_the_environment_says_who_and_which(ours: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAJECTORIES_AGENT", "ana")
    first = started(ours, "Fix")
    monkeypatch.setenv("TRAJECTORIES_AGENT", "ben")
    second = started(ours, "Write")
    assert ours("note", "by ben").out.startswith(second)
    assert ours("note", "by ana", "--agent", "ana").out.startswith(first)
    monkeypatch.setenv("TRAJECTORIES_ID", first)
    assert ours("note", "ben, in ana's").out.startswith(first)
    assert ours("note", "named", "--id", second).out.startswith(second)
    assert TrailFolder().load(first).events[-1].agent == "ben"


def test_the_folder_of_the_environment(ours: Command, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAJECTORIES_DATA_DIR", str(desk / "shared"))
    monkeypatch.setenv("TRAJECTORIES_PROJECT", "shop/cart")
    monkeypatch.setenv("TRAJECTORIES_WORKFLOW_ID", "wf-1")
    trail = TrailFolder(desk / "shared").load(started(ours, "Fix"))
    assert (trail.project_id, trail.workflow_id) == ("shop/cart", "wf-1")
    assert started(ours, "Elsewhere", "--data-dir", "other")
    assert not (desk / ".trajectories").exists()


# ---- sessions and work trees


def test_a_session_comes_before_the_agent(ours: Command) -> None:
    one = started(ours, "Fix", "--agent", "claude", "--session", "s1")
    two = started(ours, "Write", "--agent", "claude", "--session", "s2")
    assert ours("note", "x", "--agent", "claude", "--session", "s1").out.startswith(one)
    assert ours("note", "x", "--agent", "claude", "--session", "s2").out.startswith(two)
    assert ours("note", "x", "--agent", "claude").code == 2
    ours("complete", "--summary", "x", "--session", "s1")
    refused = ours("complete", "--summary", "x", "--agent", "claude", "--session", "s3")
    assert refused.err.startswith(f"error: the only active trail is another session's: {two} by claude")


def test_each_work_tree_has_its_own(ours: Command, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAJECTORIES_DATA_DIR", str(desk / "shared"))
    made = {}
    for name in ("one", "two"):
        monkeypatch.chdir(checkout(desk / name))
        made[name] = started(ours, name)
    for name in ("one", "two"):
        (desk / name / "src").mkdir()
        monkeypatch.chdir(desk / name / "src")
        assert ours("note", f"in {name}").out.startswith(made[name])
    for trail_id in made.values():
        assert str(desk) not in (desk / "shared" / "active" / f"{trail_id}.jsonl").read_text()
    monkeypatch.chdir(desk / "two")
    assert ours("complete", "--summary", "x").out.startswith(made["two"])
    refused = ours("complete", "--summary", "x")
    assert refused.err.startswith(f"error: the only active trail is another work tree's: {made['one']}")


def test_one_agent_in_two_work_trees(ours: Command, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAJECTORIES_DATA_DIR", str(desk / "shared"))
    monkeypatch.setenv("TRAJECTORIES_AGENT", "ana")
    made = {}
    for name in ("one", "two"):
        monkeypatch.chdir(checkout(desk / name))
        made[name] = started(ours, name)
    assert ours("note", "x").out.startswith(made["two"])
    monkeypatch.chdir(desk / "one")
    assert ours("note", "x").out.startswith(made["one"])


# ---- resume


def test_resume_chooses_among_ones_own(ours: Command) -> None:
    first, second = started(ours, "Fix", "--agent", "ana"), started(ours, "Write", "--agent", "ana")
    assert ours("note", "x", "--agent", "ana").code == 2
    assert ours("resume", first, "--agent", "ana").out == f"{first} is what agent ana writes to now\n"
    assert ours("note", "x", "--agent", "ana").out.startswith(first)
    ours("complete", "--summary", "x", "--agent", "ana")
    assert ours("note", "x", "--agent", "ana").out.startswith(second)


def test_what_is_resumed_is_left_for_what_is_started(ours: Command, desk: Path) -> None:
    first = started(ours, "Fix", "--agent", "ana")
    ours("resume", first, "--agent", "ana")
    started(ours, "Write", "--agent", "ana")
    done: Ran = ours("note", "x", "--agent", "ana")
    assert "2 trails are active" in done.err


def test_an_ended_trail_cannot_be_resumed(ours: Command) -> None:
    trail_id = started(ours, "Fix")
    ours("abandon")
    done = ours("resume", trail_id)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"error: {trail_id} is abandoned")


def test_resume_is_of_this_machine_and_not_in_the_trail(ours: Command, desk: Path) -> None:
    trail_id = started(ours, "Fix")
    journal = desk / ".trajectories" / "active" / f"{trail_id}.jsonl"
    before = journal.read_bytes()
    ours("resume", trail_id, "--agent", "ben")
    assert journal.read_bytes() == before
    ignored = (desk / ".trajectories" / ".gitignore").read_text()
    assert "/.cache/" in ignored.splitlines()
