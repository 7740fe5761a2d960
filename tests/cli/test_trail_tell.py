"""Telling a trail what happens, and ending it: each command, what it writes, and what it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_kit import Command

from holdfast.trail import Trail, TrailFolder


def only(desk: Path) -> Trail:
    folder = TrailFolder(desk / ".trajectories")
    (line,) = folder.list()
    return folder.load(line.id)


def commit(desk: Path, name: str) -> str:
    (desk / name).write_text(name)
    git(desk, "add", name)
    git(desk, "commit", "-qm", name)
    return git(desk, "rev-parse", "--short", "HEAD")


def git(desk: Path, *words: str) -> str:
    who = ["-c", "user.name=ana", "-c", "user.email=ana@shop"]
    return subprocess.run(
        ["git", *who, *words], cwd=desk, capture_output=True, text=True, check=True
    ).stdout.strip()


# ---- the story of a piece of work


def test_a_piece_of_work_is_told_and_ended(ours: Command, desk: Path) -> None:
    started = ours("start", "Fix the login", "--agent", "ana", "--tag", "auth", "--description", "It fails")
    assert (started.code, started.err) == (0, "")
    trail_id = started.out.strip()
    chapter = ours("chapter", "Investigate", "--agent", "ben").out.strip()
    assert chapter.startswith("chap_")
    assert ours("find", "Names with a quote", "--agent", "ben", "--significance", "critical").code == 0
    decided = ours(
        "decide",
        "Which token?",
        "JWT",
        "-r",
        "stateless",
        "--alternative",
        "a, b",
        "-a",
        "c,d",
        "--agent",
        "ben",
    )
    assert decided.out == f"{trail_id}  decision kept\n"
    assert ours("note", "Deploy on Monday", "--tag", "ops", "--at", "2026-01-02T03:04:05+01:00").code == 0
    assert ours("reflect", "Good", "-c", "0.7", "-f", "tests,time", "-a", "none").code == 0
    done = ours(
        *(
            "complete",
            "--summary",
            "Quoted",
            "--approach",
            "By hand",
            "--confidence",
            "0.9",
            "--time-spent",
            "2 h",
        ),
        *("--learning", "one", "--learning", "two", "--challenge", "three", "--suggestion", "four"),
        *("--commit", "abc1234", "--file", "login.py"),
    )
    assert (done.code, done.out) == (0, f"{trail_id} is completed\n")
    trail = only(desk)
    assert [agent.name for agent in trail.agents] == ["ana", "ben"]
    assert (trail.task.description, trail.tags) == ("It fails", ["auth"])
    investigate, work = trail.chapters
    assert (investigate.id, investigate.agent_name) == (chapter, "ben")
    assert [(e.type, e.agent, e.significance) for e in investigate.events] == [
        ("finding", "ben", "critical"),
        ("decision", "ben", "high"),
    ]
    (decision,) = trail.decisions
    assert (decision.question, decision.chosen, decision.reasoning) == ("Which token?", "JWT", "stateless")
    assert decision.alternatives == ["a, b", "c", "d"]
    note, reflection = work.events
    assert work.agent_name == "ana"
    assert (note.tags, str(note.occurred_at)) == (["ops"], "2026-01-02 02:04:05+00:00")
    assert (reflection.confidence, reflection.raw["focalPoints"]) == (0.7, ["tests", "time"])
    end = trail.retrospective
    assert end is not None
    assert (end.summary, end.approach, end.confidence, end.time_spent) == ("Quoted", "By hand", 0.9, "2 h")
    assert (end.learnings, end.challenges, end.suggestions) == (["one", "two"], ["three"], ["four"])
    assert (trail.commits, trail.files_changed) == (["abc1234"], ["login.py"])


def test_record_and_page_are_current_after_each_command(ours: Command, desk: Path) -> None:
    trail_id = ours("start", "Fix").out.strip()
    base = desk / ".trajectories" / "active" / trail_id
    for count, words in enumerate(
        (("note", "one"), ("find", "two"), ("decide", "q", "a"), ("reflect", "r")), 1
    ):
        ours(*words)
        record = json.loads(base.with_suffix(".json").read_text())
        assert sum(len(chapter["events"]) for chapter in record["chapters"]) == count
        assert f"{count} event" in base.with_suffix(".md").read_text()
    ours("chapter", "Later")
    chapters = json.loads(base.with_suffix(".json").read_text())["chapters"]
    assert {chapter["title"] for chapter in chapters} == {"Work", "Later"}
    ours("abandon", "-r", "no use")
    assert not list((desk / ".trajectories" / "active").iterdir())
    index = json.loads((desk / ".trajectories" / "index.json").read_text())
    assert index["trajectories"][trail_id]["status"] == "abandoned"
    assert only(desk).abandon_reason == "no use"


def test_commits_and_files_come_from_git(ours: Command, desk: Path) -> None:
    git(desk, "init", "-q")
    before = commit(desk, "a.txt")
    ours("start", "Fix")
    made = [commit(desk, "b name.txt"), commit(desk, "ü.txt")]
    git(desk, "add", ".trajectories")
    git(desk, "commit", "-qm", "the trail itself")
    made.append(git(desk, "rev-parse", "--short", "HEAD"))
    (status,) = map(json.loads, ours("status", "--json").lines)
    assert (status["commits"], status["filesChanged"]) == (made, ["b name.txt", "ü.txt"])
    done = json.loads(ours("complete", "--summary", "x", "--json").out)
    assert (done["commits"], done["filesChanged"]) == (made, ["b name.txt", "ü.txt"])
    trace = only(desk).trace
    assert trace is not None
    assert trace.start_ref.startswith(before)
    assert trace.end_ref == git(desk, "rev-parse", "HEAD")


def test_commits_without_a_known_beginning_are_taken_by_their_time(ours: Command, desk: Path) -> None:
    git(desk, "init", "-q")
    trail_id = ours("start", "Fix").out.strip()  # no commit yet, so there is none to begin from
    first = commit(desk, "a.txt")
    ours("complete", "--summary", "x", "--id", trail_id)
    assert only(desk).commits == [first]


def test_git_can_be_left_out(ours: Command, desk: Path) -> None:
    git(desk, "init", "-q")
    commit(desk, "a.txt")
    ours("start", "Fix")
    commit(desk, "b.txt")
    ours("complete", "--summary", "x", "--no-git")
    assert only(desk).commits == []


# ---- chapters


def test_an_agents_next_chapter_closes_its_last_one_and_nobody_elses(ours: Command, desk: Path) -> None:
    ours("start", "Fix", "--agent", "ana")
    first = ours("chapter", "Look", "--agent", "ben").out.strip()
    other = ours("chapter", "Ask", "--agent", "cy").out.strip()
    told = json.loads(ours("chapter", "Mend", "--agent", "ben", "--json").out)
    assert told["closed"] == first
    ours("note", "by cy", "--agent", "cy")
    ours("note", "by ben", "--agent", "ben")
    ours("note", "by ana", "--agent", "ana")
    by_title = {chapter.title: chapter for chapter in only(desk).chapters}
    assert by_title["Look"].ended_at is not None
    assert by_title["Ask"].ended_at is None
    assert {title: [e.content for e in c.events] for title, c in by_title.items()} == {
        "Look": [],
        "Ask": ["by cy"],
        "Mend": ["by ben"],
        "Work": ["by ana"],
    }
    assert ours("chapter", "--close", other).code == 0
    again = ours("chapter", "--close", "Ask")
    assert (again.code, again.out) == (1, "")
    assert again.err.startswith("error: chapter chap_")


def test_a_chapter_inside_another(ours: Command, desk: Path) -> None:
    ours("start", "Fix", "--agent", "ana")
    outer = ours("chapter", "Outer").out.strip()
    inner = json.loads(ours("chapter", "Inner", "--in", "Outer", "--agent", "ben", "--json").out)
    assert (inner["parent"], inner["closed"]) == (outer, None)
    ours("note", "deep", "--chapter", inner["chapter"])
    one, two = only(desk).chapters
    assert (one.ended_at, two.parent, [e.content for e in two.events]) == (None, outer, ["deep"])
    wrong = ours("note", "x", "--chapter", "Nowhere")
    assert wrong.code == 2
    assert wrong.err.splitlines()[1].startswith("hint: it has chap_")


def test_a_chapter_needs_a_title_or_something_to_close(ours: Command) -> None:
    ours("start", "Fix")
    assert ours("chapter").err.startswith("error: missing argument TITLE\nhint: ")
    assert ours("chapter", " ").err.startswith("error: chapter: expected a title")


# ---- text


@pytest.mark.parametrize(
    "text",
    [
        *("- first of a list", "-5", "--- a/file.py", "-", 'it\'s "quoted"', "ünï-漢字-🎈", "a\nb\n\nc"),
        *("\x1b[31mred", "x" * 10_000, "'; DROP TABLE trails; --", "lone \udcff", "{}", "#tag", "%s $HOME"),
    ],
)
def test_text_is_kept_as_it_is_typed(ours: Command, desk: Path, text: str) -> None:
    ours("start", "Fix")
    done = ours("note", text, stdin="from stdin") if text == "-" else ours("note", text)
    assert (done.code, done.err) == (0, "")
    (event,) = only(desk).events
    assert event.content == ("from stdin" if text == "-" else text)


def test_an_option_takes_the_word_that_follows(ours: Command, desk: Path) -> None:
    ours("start", "--", "--title")
    ours("decide", "x", "-r", "--fast", "--alternative=-slow", "-a-none,-all")
    trail = only(desk)
    assert trail.title == "--title"
    assert (trail.decisions[0].reasoning, trail.decisions[0].alternatives) == (
        "--fast",
        ["-slow", "-none", "-all"],
    )


def test_text_from_stdin(ours: Command, desk: Path) -> None:
    ours("start", "-", stdin="Fix the login\n")
    ours("note", "-", stdin="two\nlines\n")
    ours("complete", "--summary", "-", stdin="ünï\n")
    trail = only(desk)
    assert (trail.title, trail.events[0].content) == ("Fix the login", "two\nlines")
    assert trail.retrospective is not None
    assert trail.retrospective.summary == "ünï"


@pytest.mark.parametrize("empty", ["", " ", "\n"])
def test_empty_text_is_refused_and_spoils_nothing(ours: Command, desk: Path, empty: str) -> None:
    assert ours("start", empty).err.startswith("error: a title is required")
    ours("start", "Fix")
    for words in (("note",), ("find",), ("decide",), ("reflect",), ("complete", "--summary")):
        done = ours(*words, empty)
        assert (done.code, done.out) == (2, "")
        assert len(done.err.splitlines()) == 1
    assert ours("note", "-", stdin=empty).code == 2
    assert ours("note", "fine").code == 0
    assert len(only(desk).events) == 1


# ---- refusals


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("note", "x", "-c", "2"), "--confidence: expected a number from 0 to 1, got '2'"),
        (("note", "x", "-c", "nan"), "--confidence: expected a number from 0 to 1, got 'nan'"),
        (
            ("complete", "--summary", "x", "--confidence", "abc"),
            "--confidence: expected a number from 0 to 1",
        ),
        (("complete",), "--summary is required"),
        (("note", "x", "--significance", "huge"), "--significance: expected low, medium, high or critical"),
        (("note", "x", "--at", "soon"), "--at: expected 3h, 7d"),
        (("note",), "missing argument TEXT"),
        (("note", "two", "words"), "one argument too many: 'words'"),
        (("note", "x", "--agnet", "ana"), "no such option: --agnet\nhint: did you mean --agent"),
        (("note", "x", "-z"), "no such option: -z"),
        (("note", "x", "--agent"), "--agent needs a value: NAME"),
        (("note", "x", "--late=yes"), "--late is a flag: it takes no value, got 'yes'"),
        (("note", "x", "--id", "traj_nope"), "trail not found: traj_nope"),
        (("note", "x", "--id", "../../etc"), "trail id: expected 'traj_'"),
        (("start", "x" * 501), "traj_"),
        (("start", "x", "--source", "linear"), "--source linear says where a task is; which one?"),
        (("amend", "traj_nope", "--summary", "x"), "trail not found: traj_nope"),
        (("delete", "traj_nope"), "trail not found: traj_nope"),
        (("delete", ""), "trail id: expected 'traj_'"),
        (("resume", "traj_nope"), "trail not found: traj_nope"),
        (("ntoe", "x"), "no such command 'ntoe'\nhint: did you mean note"),
    ],
)
def test_wrong_usage(ours: Command, desk: Path, words: tuple[str, ...], message: str) -> None:
    ours("start", "Fix")
    before = sorted(path for path in (desk / ".trajectories").rglob("*") if path.is_file())
    done = ours(*words)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: {message}"), done.err
    assert len(done.err.splitlines()) <= 2
    assert sorted(path for path in (desk / ".trajectories").rglob("*") if path.is_file()) == before


@pytest.mark.parametrize(
    "words", [("note", "x"), ("chapter", "x"), ("complete", "--summary", "x"), ("abandon",), ("decide", "x")]
)
def test_no_active_trail(ours: Command, desk: Path, words: tuple[str, ...]) -> None:
    done = ours(*words)
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        f"error: no active trail in {desk}/.trajectories\n"
        'hint: start one with `holdfast trail start "Task description"`\n'
    )
    assert not list(desk.iterdir())


def test_an_end_stands(ours: Command, desk: Path) -> None:
    trail_id = ours("start", "Fix").out.strip()
    ours("complete", "--summary", "Done")
    for words in (("complete", "--summary", "again"), ("abandon",), ("note", "late"), ("chapter", "late")):
        done = ours(*words, "--id", trail_id)
        assert (done.code, done.out) == (1, "")
        assert done.err.startswith(f"error: {trail_id} is completed")
    assert ours("note", "late", "--id", trail_id, "--late").code == 0
    trail = only(desk)
    assert trail.status == "completed"
    assert [(e.content, e.late) for e in trail.events] == [("late", True)]
    amended = json.loads(ours("amend", trail_id, "--learning", "one", "--commit", "abc", "--json").out)
    assert (amended["retrospective"]["summary"], amended["retrospective"]["learnings"]) == ("Done", ["one"])
    assert ours("amend", trail_id).err.startswith("error: nothing to say")


def test_deleting_a_trail(ours: Command, desk: Path) -> None:
    trail_id = ours("start", "Fix").out.strip()
    assert json.loads(ours("delete", trail_id, "--json").out) == {"id": trail_id, "deleted": True}
    assert not list((desk / ".trajectories" / "active").iterdir())
    assert ours("list", "--json").out == ""


def limited(desk: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`holdfast trail …` in a process for which the disk takes no byte more: root is no exception from this."""
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); "
        "from holdfast.cli import main; sys.exit(main(['trail', *sys.argv[1:]]))"
    )
    env = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    line = [sys.executable, "-c", code, *words]
    return subprocess.run(line, cwd=desk, env=env, capture_output=True, text=True, check=False)


def test_a_disk_that_takes_no_more(ours: Command, desk: Path) -> None:
    ours("start", "Fix")
    for words in (("start", "x"), ("note", "x"), ("complete", "--summary", "x")):
        done = limited(desk, *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error: ")
        assert len(done.stderr.splitlines()) == 1
    trail = only(desk)
    assert (trail.status, trail.events) == ("active", [])
    assert ours("doctor").code in (0, 1)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(ours: Command, desk: Path) -> None:
    ours("start", "Fix")
    for folder in (desk / ".trajectories" / "active", desk / ".trajectories"):
        folder.chmod(0o500)
    for words in (("start", "x"), ("complete", "--summary", "x"), ("delete", only(desk).id)):
        done = ours(*words)
        assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1)
    assert ours("list").code == 0


def test_a_file_in_the_place_of_the_folder(ours: Command, desk: Path) -> None:
    (desk / "notes").write_text("x")
    done = ours("start", "x", "--data-dir", "notes")
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 1
    assert done.err.startswith("error: ")
    assert ours("start", "x", "--data-dir", "").err == "error: --data-dir: expected a folder, got nothing\n"


# ---- for programs


def test_each_answer_is_one_object(ours: Command, desk: Path) -> None:
    started = json.loads(ours("start", "Fix", "-t", "ENG-1", "-s", "linear", "--json", "--agent", "ana").out)
    assert started["task"]["source"] == {"system": "linear", "id": "ENG-1"}
    assert (started["title"], started["status"], started["agent"]) == ("Fix", "active", "ana")
    trail_id = started["id"]
    chapter = json.loads(ours("chapter", "Look", "--json").out)
    assert chapter == {
        "id": trail_id,
        "closed": None,
        "chapter": chapter["chapter"],
        "title": "Look",
        "agent": "ana",
        "parent": None,
    }
    for words in (("note", "x"), ("find", "x"), ("decide", "x", "y"), ("reflect", "x")):
        told = json.loads(ours(*words, "--json").out)
        assert (told["id"], told["chapter"], told["content"]) == (trail_id, chapter["chapter"], "x")
        assert told["event"].startswith("evt_")
    resumed = json.loads(ours("resume", trail_id, "--json").out)
    assert resumed["id"] == trail_id
    ended = json.loads(ours("abandon", "--reason", "no", "--json").out)
    assert (ended["id"], ended["status"], ended["abandonReason"]) == (trail_id, "abandoned", "no")
