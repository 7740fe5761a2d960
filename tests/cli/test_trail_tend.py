"""`compact`, `enable` and `disable`, in both programs' words."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_kit import Command

from holdfast.trail import TrailFolder

Git = Callable[..., str]


@pytest.fixture
def git(desk: Path, monkeypatch: pytest.MonkeyPatch) -> Git:
    """Git in the current folder, with nobody's settings."""
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Ana")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "ana@example.org")

    def run(*words: str) -> str:
        return subprocess.run(["git", *words], check=True, capture_output=True, text=True).stdout.strip()

    run("init", "-q", "-b", "main")
    return run


def told(program: Command, title: str, *words: str) -> str:
    """A trail that has ended."""
    trail_id = program("start", title, "--json", *words)
    name = str(json.loads(trail_id.out)["id"])
    program("decide", "Which cache?", "redis", "--id", name)
    program("complete", "--summary", "Done", "--learning", "Measure", "--no-git", "--id", name)
    return name


def listing(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---- compact


def test_compact(ours: Command, desk: Path) -> None:
    ids = [told(ours, "a"), told(ours, "b")]
    before = listing(desk)
    planned = ours("compact", "--dry-run")
    assert planned.code == 0
    assert planned.lines[:3] == [
        "would compact 2 trails",
        "decisions: database 1",
        "learnings: 1, findings: 0",
    ]
    assert sorted(line.split()[0] for line in planned.lines[3:]) == sorted(ids)
    assert listing(desk) == before
    done = ours("compact")
    assert (done.code, done.lines[0]) == (0, "compacted 2 trails")
    record, page = (Path(line) for line in done.lines[3:])
    assert (
        json.loads(record.read_text())["sourceTrajectories"]
        == json.loads(ours("compact", "--all", "--dry-run", "--json").out)["compacted"]["sourceTrajectories"]
    )
    assert page.read_text().startswith("# Compacted trails\n")
    assert ours("compact").out == "no ended trail is left to compact\n"
    assert ours("compact", "--since", "1h").out == "no ended trail is as asked\n"
    assert ours("compact", "--ids", ids[0], "--no-markdown").lines[0] == "compacted 1 trail"


def test_compact_in_the_npm_tools_words(npm: Command, desk: Path) -> None:
    assert npm("compact").out == (
        "No uncompacted trajectories found. Use --all to include previously compacted.\n"
    )
    trail_id = told(npm, "a", "--workflow", "../wf")
    assert npm("compact", "--dry-run", "--mechanical").lines[:3] == [
        "Compacting 1 trajectories...",
        "",
        "=== DRY RUN - Preview ===",
    ]
    done = npm("compact", "--workflow", "../wf", "--no-llm", "--discard-sources", "--markdown")
    path = desk / ".trajectories" / "compacted"
    stem = f"{path}/workflow-___wf-"
    assert done.lines[2].startswith(f"Compacted trajectory saved to: {stem}")
    assert done.lines[3].startswith(f"Markdown summary saved to: {stem}")
    assert done.lines[4] == (
        "Discarded source trajectories: 1 trajectories, 2 JSON files, 1 Markdown files, 0 trace files, "
        "1 compaction markers"
    )
    assert "  database: 1" in done.lines
    assert npm("show", trail_id).code == 1
    assert npm("compact", "--workflow", "../wf").out == "No trajectories found matching criteria\n"


def test_no_model_is_run(ours: Command, npm: Command, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told(ours, "a")
    for name in ("claude", "codex", "gemini", "opencode"):
        tool = desk / "bin" / name
        tool.parent.mkdir(exist_ok=True)
        tool.write_text(f"#!/bin/sh\ntouch {desk}/ran\n")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{desk}/bin:{os.environ['PATH']}")
    assert (refused := ours("compact", "--llm")).code == 2
    assert refused.err.startswith("error: no model is ever run by `compact`")
    assert npm("compact", "--llm").code == 1
    assert not (desk / ".trajectories" / "compacted").exists()
    assert npm("compact").code == 0
    assert not (desk / "ran").exists()


def test_compact_writes_where_it_is_told(ours: Command, desk: Path) -> None:
    told(ours, "a")
    done = ours("compact", "--output", "notes/out.json")
    assert (done.code, done.out) == (2, "")
    (desk / "notes").mkdir()
    assert ours("compact", "--output", "notes/out.json").code == 0
    assert sorted(path.name for path in (desk / "notes").iterdir()) == ["out.json", "out.md"]
    told(ours, "b")
    assert "tells of something else" in ours("compact", "--output", "notes/out.json").err


@pytest.mark.parametrize(
    "words",
    [
        ("--ids", "traj_none"),
        ("--ids", "../x"),
        ("--ids", ""),
        ("--commits", ","),
        ("--since", "yesterday"),
        ("--pr", "x"),
        ("--branch", "none"),
        ("--commits", "--all"),
        ("--focus", "nothing"),
    ],
)
def test_what_cannot_be_asked_for(ours: Command, git: Git, desk: Path, words: tuple[str, ...]) -> None:
    told(ours, "a")
    before = listing(desk)
    done = ours("compact", "--discard-sources", *words)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ")
    assert listing(desk) == before


def test_a_trail_that_cannot_be_read_is_named(ours: Command, desk: Path) -> None:
    told(ours, "a")
    (desk / ".trajectories" / "completed" / "traj_bad.json").write_text("{}")
    done = ours("compact", "--discard-sources")
    assert (done.code, done.lines[0]) == (1, "compacted 1 trail")
    assert "\ntraj_bad: completed/traj_bad.json: " in done.err
    assert (desk / ".trajectories" / "completed" / "traj_bad.json").exists()


def test_compact_by_git(ours: Command, git: Git) -> None:
    git("commit", "-q", "--allow-empty", "-m", "Base")
    git("switch", "-qc", "side")
    ours("enable")
    trail_id = ours("start", "a").out.strip()
    git("commit", "-q", "--allow-empty", "-m", "Work (#12)")
    ours("complete", "--summary", "x", "--no-git")
    told(ours, "of another branch")
    for words in (("--branch", "main"), ("--commits", "HEAD"), ("--pr", "12"), ("--commits", "main..side")):
        result = json.loads(ours("compact", "--dry-run", "--json", *words).out)
        assert result["compacted"]["sourceTrajectories"] == [trail_id]


# ---- enable, disable


def test_enable_and_disable(ours: Command, npm: Command, git: Git, desk: Path) -> None:
    assert npm("disable").out == "No trajectory hook installed\n"
    assert npm("enable").out == "Trajectory hook installed\n"
    assert npm("enable").out == "Trajectory hook is already installed\n"
    trail_id = ours("start", "a").out.strip()
    git("commit", "-q", "--allow-empty", "-m", "Fix")
    assert git("log", "-1", "--format=%B") == f"Fix\n\nTrajectory: {trail_id}"
    assert json.loads(ours("enable", "--json").out) == {"enabled": True, "changed": False}
    assert npm("disable").out == "Trajectory hook removed\n"
    git("commit", "-q", "--allow-empty", "-m", "Fix")
    assert git("log", "-1", "--format=%B") == "Fix"


def test_the_trail_of_the_work_tree_that_was_resumed(ours: Command, git: Git) -> None:
    ours("enable")
    first = ours("start", "a").out.strip()
    second = ours("start", "b").out.strip()
    ours("resume", first)
    ours("note", "x", "--id", second)
    git("commit", "-q", "--allow-empty", "-m", "Fix")
    assert git("log", "-1", "--format=%B").endswith(first)


def test_the_folder_of_the_option(ours: Command, git: Git, desk: Path) -> None:
    ours("enable", "--data-dir", "other trails")
    trail_id = TrailFolder(desk / "other trails").start("x").id
    git("commit", "-q", "--allow-empty", "-m", "Fix")
    assert git("log", "-1", "--format=%B").endswith(trail_id)


def test_where_no_hook_can_be(ours: Command, npm: Command, git: Git, desk: Path) -> None:
    hook = desk / ".git" / "hooks" / "prepare-commit-msg"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\n")
    refused = npm("enable")
    assert refused.code == 1
    assert refused.err.startswith(f"error: a prepare-commit-msg hook already exists: {hook}")
    assert hook.read_text() == "#!/bin/sh\n"
    assert npm("enable", "--force").code == 0
    assert npm("disable").code == 0
    assert hook.read_text() == "#!/bin/sh\n"
    (desk / ".git").rename(desk / "git")
    for name in ("enable", "disable"):
        assert (ours(name).code, ours(name).err) == (2, "error: not inside a git repository\n")
