"""The commit hook, with real git: commits name the trail they are made in; none is stopped or made by it."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from holdfast.errors import TrailError
from holdfast.trail import TrailFolder, githook

RECORD = {
    "version": 1,
    "status": "active",
    "startedAt": "2026-01-31T09:00:00.000Z",
    "task": {"title": "x"},
    "agents": [],
    "chapters": [],
}


class Repository:
    """A repository, and git in it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def git(self, *words: str, at: Path | None = None, check: bool = True, **env: str) -> str:
        ran = subprocess.run(
            ["git", *words], cwd=at or self.path, env=os.environ | env, capture_output=True, text=True
        )
        assert not check or ran.returncode == 0, ran.stderr
        return (ran.stdout if ran.returncode == 0 else ran.stderr).strip()

    def commit(self, *words: str, at: Path | None = None, **env: str) -> str:
        """A commit (with `-m Fix` where nothing else is said), and its message."""
        self.git("commit", "--allow-empty", "-q", *(words or ("-m", "Fix")), at=at, **env)
        return self.git("log", "-1", "--format=%B", at=at)

    def folder(self, place: str = ".trajectories") -> TrailFolder:
        return TrailFolder(self.path / place)

    def editor(self, script: str) -> str:
        """An editor: a shell script, with the message's file as $1."""
        path = self.path.parent / "editor"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return str(path)


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    for name in list(os.environ):
        if name.startswith(("GIT_", "TRAJECTORIES_")) or name in ("EDITOR", "VISUAL"):
            monkeypatch.delenv(name)
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Ana")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "ana@example.org")
    path = tmp_path / 'the $(shop)\' "1"'
    path.mkdir()
    made = Repository(path)
    made.git("init", "-q", "-b", "main")
    monkeypatch.chdir(path)
    return made


def trailer(trail_id: str) -> str:
    return f"Fix\n\nTrajectory: {trail_id}"


def touch(path: Path, seconds: int) -> None:
    os.utime(path, (seconds, seconds))


# ---- a commit


def test_a_commit_names_the_active_trail(repo: Repository) -> None:
    assert githook.enable()
    assert repo.commit() == "Fix"
    trail = repo.folder().start("Fix the login")
    assert repo.commit() == trailer(trail.id)
    assert githook.trail_of_commit() == trail.id
    assert githook.trail_of_commit("HEAD~1") is None
    assert githook.trail_of_commit("no-such") is githook.trail_of_commit("--all") is None
    trail.complete(summary="Fixed")
    assert repo.commit() == "Fix"


def test_the_trailer_joins_those_that_are_there_and_is_never_doubled(repo: Repository) -> None:
    githook.enable()
    trail_id = repo.folder().start("x").id
    assert repo.commit("-s", "-m", "Fix") == (
        f"Fix\n\nSigned-off-by: Ana <ana@example.org>\nTrajectory: {trail_id}"
    )
    assert repo.commit("-m", "Fix\n\nTrajectory: traj_other") == "Fix\n\nTrajectory: traj_other"
    assert repo.commit("-m", "Fix\n\nTrajectory: traj_in_text\n\nMore.") == (
        f"Fix\n\nTrajectory: traj_in_text\n\nMore.\n\nTrajectory: {trail_id}"
    )
    assert repo.commit("-m", "Fix\n\n---\na/b | 1") == f"Fix\n\n---\na/b | 1\n\nTrajectory: {trail_id}"


def test_messages_that_git_makes_are_left_alone(repo: Repository) -> None:
    repo.commit("-m", "First")
    repo.git("switch", "-qc", "side")
    repo.commit("-m", "Beside")
    repo.git("switch", "-q", "main")
    repo.commit("-m", "Second")
    githook.enable()
    repo.folder().start("x")
    assert repo.commit("--amend", "--no-edit") == "Second"
    repo.git("merge", "-q", "--no-ff", "side", "-m", "Merge side")
    assert repo.git("log", "-1", "--format=%B") == "Merge side"
    repo.git("reset", "-q", "--hard", "HEAD^")
    repo.git("merge", "-q", "--squash", "side")
    assert "Trajectory" not in repo.commit("--no-edit")
    repo.git("switch", "-q", "side")
    repo.git("rebase", "-q", "--keep-empty", "main")
    assert repo.git("log", "-1", "--format=%B") == "Beside"


# ---- the editor


def test_a_message_from_the_editor_gets_the_trailer(repo: Repository) -> None:
    githook.enable()
    trail_id = repo.folder().start("x").id
    editor = repo.editor('cp "$1" "$1.seen"; printf "Fix\\n" | cat - "$1.seen" >"$1"')
    repo.commit("-e", GIT_EDITOR=editor)
    assert repo.git("log", "-1", "--format=%B") == trailer(trail_id)
    (repo.path / "file").write_text("x\n")
    repo.git("add", "file")
    assert repo.commit("-v", GIT_EDITOR=editor) == trailer(trail_id)


def test_a_commit_that_is_given_up_in_the_editor_is_not_made(repo: Repository) -> None:
    githook.enable()
    repo.folder().start("x")
    template = repo.path.parent / "template"
    template.write_text("Title\n\nWhy: \n")
    for words in ((), ("-v",), ("-t", str(template))):
        said = repo.git("commit", "--allow-empty", *words, check=False, GIT_EDITOR="true")
        assert "Aborting commit" in said
    assert repo.git("rev-list", "--all") == ""


def test_what_a_given_up_commit_left_is_not_taken_by_the_next(repo: Repository) -> None:
    githook.enable()
    trail = repo.folder().start("x")
    repo.git("commit", "--allow-empty", check=False, GIT_EDITOR="false")
    trail.complete(summary="x")
    assert repo.commit("-e", GIT_EDITOR=repo.editor('echo Fix >"$1"')) == "Fix"
    assert repo.commit() == "Fix"


# ---- where


def test_linked_work_trees(repo: Repository, tmp_path: Path) -> None:
    repo.commit("-m", "First")
    linked = tmp_path / "linked"
    repo.git("worktree", "add", "-q", str(linked))
    assert githook.enable(linked)
    assert githook.state() == "on"
    here, there = repo.folder().start("here"), TrailFolder(linked / ".trajectories").start("there")
    assert repo.commit() == trailer(here.id)
    assert repo.commit(at=linked) == trailer(there.id)
    assert repo.commit("-e", at=linked, GIT_EDITOR=repo.editor('echo Fix >"$1"')) == trailer(there.id)


@pytest.mark.parametrize("place", ["my hooks", "absolute"])
def test_core_hooks_path(
    repo: Repository, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks = tmp_path / "hooks" if place == "absolute" else repo.path / place
    repo.git("config", "core.hooksPath", str(hooks) if place == "absolute" else place)
    (repo.path / "src").mkdir()
    monkeypatch.chdir(repo.path / "src")
    githook.enable()
    assert sorted(path.name for path in hooks.iterdir()) == ["commit-msg", "prepare-commit-msg"]
    trail_id = repo.folder().start("x").id
    assert repo.commit() == repo.commit(at=repo.path / "src") == trailer(trail_id)


def test_outside_of_a_repository(tmp_path: Path, repo: Repository) -> None:
    for do in (githook.enable, githook.disable, githook.state):
        with pytest.raises(TrailError, match="not inside a git repository"):
            do(tmp_path)


# ---- which


@pytest.mark.parametrize("root", [".trajectories", ".agentworkforce/trajectories"])
@pytest.mark.parametrize("name", ["{}.json", "{}/trajectory.json"])
def test_the_records_of_the_npm_tool(repo: Repository, root: str, name: str) -> None:
    githook.enable()
    path = repo.path / root / "active" / name.format("traj_a_1")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(RECORD | {"id": "traj_a_1"}, indent=2))
    assert repo.commit() == trailer("traj_a_1")


def test_of_several_the_one_that_is_named_then_resumed_then_written_to(repo: Repository) -> None:
    githook.enable()
    folder = repo.folder()
    ids = [folder.start("x", agent=agent, session=f"s-{agent}").id for agent in ("ana", "ben", "eve")]
    for age, trail_id in enumerate(ids):
        touch(folder.root / "active" / f"{trail_id}.jsonl", 1_000_000_000 + age)
    ana, ben, eve = ids
    assert repo.commit() == trailer(eve)
    touch(folder.root / "active" / f"{ben}.jsonl", 1_000_000_009)
    assert repo.commit() == trailer(ben)
    resumed = folder.root / ".cache" / "resumed"
    resumed.mkdir(parents=True, exist_ok=True)
    (resumed / "for_somebody").write_text(ana)
    assert repo.commit() == trailer(ana)
    assert repo.commit(TRAJECTORIES_AGENT="eve") == trailer(eve)
    assert repo.commit(TRAJECTORIES_AGENT="eve", TRAJECTORIES_SESSION="s-ben") == trailer(ben)
    assert repo.commit(TRAJECTORIES_AGENT="eve", TRAJECTORIES_ID="traj_named") == trailer("traj_named")
    assert repo.commit(TRAJECTORIES_AGENT="no.body", TRAJECTORIES_ID="../x y") == trailer(ana)
    folder.open(ana).complete(summary="x")
    assert repo.commit() == trailer(ben)


def test_another_folder(repo: Repository, tmp_path: Path) -> None:
    elsewhere = TrailFolder(tmp_path / "it's here").start("x").id
    githook.enable(data_dir=str(tmp_path / "it's here"))
    repo.folder().start("not this")
    assert repo.commit() == trailer(elsewhere)
    at_home = TrailFolder(tmp_path / "trails").start("x").id
    assert repo.commit(TRAJECTORIES_DATA_DIR="~/trails", HOME=str(tmp_path)) == trailer(at_home)
    assert repo.commit(TRAJECTORIES_DATA_DIR="missing") == "Fix"


def test_a_folder_below_the_root(repo: Repository) -> None:
    githook.enable()
    trail_id = repo.folder("src/.trajectories").start("x").id
    assert repo.commit(at=repo.path / "src") == trailer(trail_id)


def test_odd_names_are_passed_over(repo: Repository, tmp_path: Path) -> None:
    githook.enable()
    active = repo.path / ".trajectories" / "active"
    active.mkdir(parents=True)
    for name in ("traj_A", "traj_", "traj_a b", "traj_$(touch hit)", "traj_x\nTrajectory: y", "-n", "traj_é"):
        (active / f"{name}.jsonl").write_text("{}")
        (active / f"{name}.json").write_text("{}")
    (active / "traj_x.trace.json").write_text("{}")
    (active / "traj_linked.jsonl").symlink_to(tmp_path)
    (active / "traj_link.jsonl").symlink_to(active / "traj_x.trace.json")
    (active / "traj_pipe.jsonl").mkdir()
    assert repo.commit() == "Fix"
    assert not (repo.path / "hit").exists()


def test_no_commit_is_stopped(repo: Repository) -> None:
    githook.enable()
    repo.folder().start("x")
    (repo.path / ".trajectories" / "active").chmod(0)
    try:
        assert repo.commit().startswith("Fix")
        (repo.path / ".git" / "trail-of-message").mkdir()
        assert repo.commit("-e", GIT_EDITOR=repo.editor('echo Fix >"$1"')).startswith("Fix")
    finally:
        (repo.path / ".trajectories" / "active").chmod(0o755)


# ---- in and out


def test_in_and_out_leaves_nothing(repo: Repository) -> None:
    hooks = repo.path / ".git" / "hooks"
    before = sorted(hooks.iterdir())
    assert not githook.disable()
    assert githook.state() == "off"
    assert [githook.enable(), githook.enable(), githook.state()] == [True, False, "on"]
    assert [githook.disable(), githook.disable(), githook.state()] == [True, False, "off"]
    assert sorted(hooks.iterdir()) == before


@pytest.mark.parametrize("name", githook.HOOKS)
def test_the_hook_of_another(repo: Repository, name: str) -> None:
    hook = repo.path / ".git" / "hooks" / name
    hook.write_text('#!/bin/sh\necho "$#" >>"seen"\ngrep -q Stop "$1" && exit 3\nexit 0\n')
    hook.chmod(0o755)
    before = hook.read_bytes()
    with pytest.raises(TrailError, match=f"a {name} hook already exists"):
        githook.enable()
    assert githook.state() == "foreign"
    assert not list(hook.parent.glob(f"*{githook.KEPT}"))
    assert githook.enable(force=True)
    trail_id = repo.folder().start("x").id
    assert repo.commit() == trailer(trail_id)
    assert (repo.path / "seen").read_text() == {"prepare-commit-msg": "2\n", "commit-msg": "1\n"}[name]
    repo.git("commit", "--allow-empty", "-m", "Stop", check=False)
    assert repo.git("log", "-1", "--format=%B") == trailer(trail_id), "the other's no is a no"
    assert not githook.enable()
    assert githook.disable()
    assert hook.read_bytes() == before
    assert os.access(hook, os.X_OK)
    assert repo.commit() == "Fix"


def test_a_hook_that_came_after_ours_stays(repo: Repository) -> None:
    hook = repo.path / ".git" / "hooks" / "prepare-commit-msg"
    hook.write_text("#!/bin/sh\n# first\n")
    githook.enable(force=True)
    hook.write_text("#!/bin/sh\n# second\n")
    with pytest.raises(TrailError, match="is in the way"):
        githook.enable(force=True)
    assert githook.disable()  # ours at commit-msg
    assert hook.read_text().endswith("# second\n")


def test_the_script_is_plain_posix_shell(repo: Repository) -> None:
    githook.enable()
    for name in githook.HOOKS:
        subprocess.run(["/bin/sh", "-n", str(repo.path / ".git" / "hooks" / name)], check=True)


# ---- trailers


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        ("Fix\n\nTrajectory: traj_x_y\n", "traj_x_y"),
        ("Fix\r\n\r\nSigned-off-by: A <a@b>\r\ntrajectory:traj_x\r\n", "traj_x"),
        ("Fix\n\nLong: a\n  b\n(cherry picked from commit abc)\nTrajectory: traj_x", "traj_x"),
        ("Fix\n\nTrajectory: traj_x\n\nAnd more text.", None),
        ("Fix\n\nText first.\nTrajectory: traj_x", None),
        ("Trajectory: traj_x", None),
        ("Fix\n\nTrajectory: ../x", None),
        ("Fix\n\nTrajectory: traj_A", None),
        ("", None),
    ],
)
def test_the_trail_in_a_message(message: str, wanted: str | None) -> None:
    assert githook.trail_in(message) == wanted


def test_trailers_are_keys_and_values() -> None:
    assert githook.trailers("Fix\n\nA: b: c\n d\nE-f:g") == [("A", "b: c d"), ("E-f", "g")]
