"""Looking at trails: status, list, show, search, export; for people and for programs."""

import json
import os
from pathlib import Path

import pytest
from cli_kit import Command, steady

from holdfast.trail import TrailFolder


@pytest.fixture
def three(ours: Command, desk: Path) -> list[str]:
    """Three trails: a completed one of ana, an abandoned one of ben, an active one of ana."""
    made = []
    for title, agent in (("Fix the login", "ana"), ("Write the manual", "ben"), ("Ship it", "ana")):
        made.append(ours("start", title, "--agent", agent).out.strip())
        ours("decide", f"How to {title.lower()}?", "slowly", "-r", f"because of {agent}", "--id", made[-1])
    ours("complete", "--id", made[0], "--summary", "The gadget works", "-c", "0.9", "--learning", "Mock less")
    ours("abandon", "--id", made[1], "-r", "nobody reads")
    return made


# ---- list


def test_list_is_newest_first_with_whole_ids(ours: Command, three: list[str]) -> None:
    lines = ours("list").lines
    assert steady(lines[0]) == "TRAIL STATUS STARTED SURE AGENT TITLE"
    assert [line.split()[0] for line in lines[1:]] == three[::-1]
    assert steady(lines[3]).split(" ", 1)[1] == "completed AGO 90% ana Fix the login"


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ((), [2, 1, 0]),
        (("--status", "active"), [2]),
        (("-s", "completed"), [0]),
        (("-s", "abandoned"), [1]),
        (("--limit", "2"), [2, 1]),
        (("-l", "0"), [2, 1, 0]),
        (("--agent", "ana"), [2, 0]),
        (("--agent", "cy"), []),
        (("--search", "gadget"), [0]),
        (("--search", "slowly", "--agent", "ben"), [1]),
        (("--since", "1h"), [2, 1, 0]),
        (("--until", "1h"), []),
        (("--since", "2000-01-01", "--until", "2000-01-02"), []),
    ],
)
def test_list_chooses(ours: Command, three: list[str], words: tuple[str, ...], wanted: list[int]) -> None:
    done = ours("list", *words, "--json")
    assert (done.code, done.err) == (0, "")
    rows = [json.loads(line) for line in done.lines]
    assert [row["id"] for row in rows] == [three[number] for number in wanted]
    plain = ours("list", *words)
    assert len(plain.lines) == (len(wanted) + 1 if wanted else 0)
    assert plain.err == ("" if wanted else "no trails like that\n")


def test_the_keys_of_a_row_are_those_of_the_record(ours: Command, three: list[str]) -> None:
    rows = {row["id"]: row for row in map(json.loads, ours("list", "--json").lines)}
    row = rows[three[0]]
    record = json.loads(ours("show", three[0], "--json").out)
    assert set(row) == {"id", "title", "status", "startedAt", "completedAt", "confidence", "agent", "path"}
    assert [row[key] for key in ("status", "startedAt", "completedAt")] == [
        record[key] for key in ("status", "startedAt", "completedAt")
    ]
    assert not os.path.isabs(row["path"])
    assert "completedAt" not in rows[three[2]]


def test_what_list_refuses(ours: Command) -> None:
    assert ours("list", "-s", "paused").err == (
        "error: --status: expected active, completed or abandoned, got 'paused'\n"
    )
    assert ours("list", "-l", "-1").err == "error: --limit: expected a number from 0 on, got '-1'\n"
    assert ours("list", "--since", "never").err.startswith("error: --since: expected 3h, 7d")


def test_nothing_is_made_by_looking(ours: Command, desk: Path) -> None:
    for words in (("list",), ("status",), ("search", "x"), ("list", "--json"), ("doctor",)):
        done = ours(*words)
        assert done.code == 0, done.err
    for words in (("show", "traj_x"), ("export", "traj_x"), ("export",)):
        assert ours(*words).code == 2
    assert ours("list").err == f"no trails in {desk}/.trajectories yet\n"
    assert not list(desk.iterdir())


def test_several_folders_are_searched(
    ours: Command, three: list[str], desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = ours("start", "Elsewhere", "--data-dir", "other").out.strip()
    monkeypatch.setenv("TRAJECTORIES_SEARCH_PATHS", f"{desk}/other::{desk}/.trajectories:{desk}/none")
    assert [line.split()[0] for line in ours("list").lines[1:]] == [other, *three[::-1]]
    assert ours("show", other).lines[0] == "Elsewhere"
    assert json.loads(ours("show", three[1], "--json").out)["id"] == three[1]
    assert [json.loads(line)["id"] for line in ours("search", "gadget", "--json").lines] == [three[0]]
    assert [line.split()[0] for line in ours("list", "--data-dir", "other").lines[1:]] == [other]
    assert not (desk / "none").exists()


# ---- search


@pytest.mark.parametrize("word", ["gadget", "Mock", "slowly", "login"])
def test_search_looks_into_everything(ours: Command, three: list[str], word: str) -> None:
    assert three[0] in ours("search", word).out


def test_search_without_a_hit(ours: Command, three: list[str]) -> None:
    done = ours("search", "zebra")
    assert (done.code, done.out, done.err) == (0, "", "no trails like that\n")


# ---- status


def test_status_of_the_only_one(ours: Command, three: list[str]) -> None:
    done = ours("status")
    assert [steady(line) for line in done.lines] == [
        f"{three[2]} active",
        "Ship it",
        " started TIME (AGO)",
        " holds 1 chapter, 1 event, 1 decision",
        " chapter Work (ana, " + done.lines[-1].split(", ")[-1],
    ]
    told = json.loads(ours("status", "--json").out)
    assert (told["id"], told["active"], told["decisions"]) == (three[2], [three[2]], 1)
    assert told["chapter"]["agent"] == "ana"


def test_status_of_none_and_of_several(ours: Command, three: list[str]) -> None:
    second = ours("start", "More", "--agent", "ben").out.strip()
    done = ours("status")
    assert [line.split()[0] for line in done.lines[1:]] == [second, three[2]]
    assert done.err.startswith("2 are active")
    told = json.loads(ours("status", "--json").out)
    assert (told["id"], told["active"]) == (None, [second, three[2]])
    assert ours("status", "--agent", "ben").lines[0].startswith(second)
    ours("abandon", "--id", second)
    ours("abandon", "--id", three[2])
    assert json.loads(ours("status", "--json").out)["active"] == []
    assert ours("status").err.startswith("no active trail in ")


# ---- show


def test_show_tells_the_whole_trail(ours: Command, three: list[str]) -> None:
    text = ours("show", three[0]).out
    for part in ("Fix the login", three[0], "completed, 90% sure", "The gadget works", "slowly", ".jsonl"):
        assert part in text
    assert "nobody reads" in ours("show", three[1]).out


def test_show_as_json_is_the_record(ours: Command, three: list[str], desk: Path) -> None:
    done = ours("show", three[0], "--json")
    assert len(done.lines) == 1
    (file,) = (desk / ".trajectories" / "completed").rglob(f"{three[0]}.json")
    derived = json.loads(file.read_text())
    derived.pop("_holdfast", None)
    assert json.loads(done.out) == derived


def test_show_parts(ours: Command, three: list[str]) -> None:
    lines = ours("show", three[0], "--decisions").lines
    assert [line.split() for line in lines] == [
        ["How", "to", "fix", "the", "login?"],
        ["chosen", "slowly"],
        ["because", "because", "of", "ana"],
    ]
    (decision,) = map(json.loads, ours("show", three[0], "-d", "--json").lines)
    assert (decision["chosen"], decision["reasoning"]) == ("slowly", "because of ana")
    assert ours("show", three[0], "--trace").code == 0


@pytest.mark.parametrize("odd", ["traj_nope", "traj_NOPE", "../x", "", "traj_x/y", "traj_\udcff", "\x00"])
@pytest.mark.parametrize("command", ["show", "export", "delete", "resume"])
def test_trails_that_there_are_not(ours: Command, three: list[str], command: str, odd: str) -> None:
    done = ours(command, odd)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: trail ")
    assert len(done.err.splitlines()) <= 2


def test_an_id_that_is_near(ours: Command, three: list[str]) -> None:
    assert ours("show", three[0][:-1]).err.endswith(f"hint: did you mean {three[0]}?\n")


def test_control_characters_do_not_reach_the_terminal(ours: Command, desk: Path) -> None:
    evil = "a\x1b[2J\r\x07b\u202ec"
    trail_id = ours("start", evil, "--agent", evil, "-t", evil).out.strip()
    ours("decide", evil, evil, "-r", evil, "-a", evil)
    for words in (("list",), ("status",), ("show", trail_id), ("show", "-d", trail_id), ("search", "b")):
        done = ours(*words)
        assert done.code == 0
        assert not [c for c in done.out if c != "\n" and not c.isprintable()]


# ---- export


@pytest.mark.parametrize(
    ("format", "begins"), [("md", "# "), ("json", "{"), ("timeline", "Fix"), ("html", "<!")]
)
def test_export(ours: Command, three: list[str], desk: Path, format: str, begins: str) -> None:
    text = ours("export", three[0], "--format", format).out
    assert text.lower().startswith(begins.lower())
    done = ours("export", three[0], "-f", format, "-o", "out.txt")
    assert (done.code, done.out) == (0, "out.txt\n")
    assert (desk / "out.txt").read_text() == text
    told = json.loads(ours("export", three[0], "-f", format, "--json").out)
    assert (told["id"], told["text"]) == (three[0], text)


def test_export_of_the_current_one(ours: Command, three: list[str]) -> None:
    assert ours("export").out.startswith("# Ship it")
    assert ours("export", "-f", "pdf").err.startswith("error: --format: expected json, md")


def test_export_to_where_nothing_can_be_written(ours: Command, three: list[str]) -> None:
    done = ours("export", three[0], "-o", "no/such/folder/x.md")
    assert (done.code, done.out, done.err) == (
        2,
        "",
        "error: no/such/folder/x.md: No such file or directory\n",
    )


def test_export_for_the_browser(
    ours: Command, three: list[str], desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = desk / "browser"
    browser.write_text(f"#!/bin/sh\necho $1 > {desk}/opened\n")
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", str(browser))
    monkeypatch.setattr("webbrowser._tryorder", None)  # it was asked before, for another test's browser
    done = ours("export", three[0], "--open")
    page = desk / ".trajectories" / "html" / f"{three[0]}.html"
    assert done.out == f"{page}\n"
    assert page.read_text().startswith("<!")
    assert (desk / "opened").read_text().strip() == page.as_uri()


def test_export_in_the_npm_layout_and_back(ours: Command, three: list[str], desk: Path) -> None:
    done = ours("export", "--layout", "npm", "npm", "--json")
    told = json.loads(done.out)
    assert (told["written"], told["failures"]) == (3, [])
    assert (desk / "npm" / "active" / three[2] / "trajectory.json").exists()
    assert ours("export", "--layout", "npm").err.startswith("error: --layout npm needs a folder")
    again = ours("import", "npm", "--data-dir", "copy", "--json")
    assert json.loads(again.out)["added"] == 3
    copy = TrailFolder(desk / "copy")
    assert sorted(trail.id for trail in copy.list()) == sorted(three)
    assert json.loads(ours("import", "npm", "--data-dir", "copy", "--json").out)["unchanged"] == 3
