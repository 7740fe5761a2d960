"""Keeping a folder: doctor, reconcile, import, merge, record; and what broken files do to other commands."""

import json
import shutil
from pathlib import Path

import pytest
from cli_kit import SHOP, Command

from holdfast.trail import TrailFolder


@pytest.fixture
def folder(ours: Command, desk: Path) -> Path:
    """A folder with one completed and one active trail."""
    ours("start", "Fix")
    ours("complete", "--summary", "Done")
    ours("start", "Write")
    return desk / ".trajectories"


# ---- doctor


def test_doctor_finds_nothing(ours: Command, npm: Command, folder: Path) -> None:
    done = ours("doctor")
    assert (done.code, done.out, done.err) == (0, "all is in order\n", "")
    told = json.loads(ours("doctor", "--json").out)
    assert (told["scanned"], told["failures"], told["mended"], told["quarantined"]) == (2, [], [], [])
    assert npm("doctor").out == "No invalid trajectory files found.\n"


def test_doctor_names_each_file_and_exits_1(ours: Command, npm: Command, folder: Path) -> None:
    (folder / "active" / "traj_bad.json").write_text('{"id": ')
    (folder / "active" / "traj_odd.json").write_text('{"id": "traj_odd"}')
    before = sorted(folder.rglob("*"))
    done = ours("doctor")
    assert done.code == 1
    assert done.lines[0].startswith("active/traj_bad.json: malformed: ")
    assert done.lines[1].startswith("active/traj_odd.json: schema: ")
    assert done.err == "`holdfast trail doctor --quarantine` moves away what cannot be read\n"
    assert sorted(folder.rglob("*")) == before
    told = json.loads(ours("doctor", "--json").out)
    assert (told["malformed"], told["schema"], told["io"]) == (1, 1, 0)
    theirs = npm("doctor")
    assert theirs.code == 1
    assert "malformed_json" in theirs.out
    assert "schema_violation" in theirs.out


def test_doctor_quarantines(ours: Command, npm: Command, folder: Path) -> None:
    (folder / "active" / "traj_bad.json").write_text('{"id": ')
    told = json.loads(ours("doctor", "--quarantine", "--json").out)
    assert [m["movedTo"] for m in told["quarantined"]] == ["invalid/active/traj_bad.json"]
    assert (folder / "invalid" / "active" / "traj_bad.json").exists()
    assert ours("doctor").code == 0
    (folder / "active" / "traj_bad.json").write_text("[")
    done = npm("doctor", "--quarantine")
    assert done.code == 0
    assert done.lines[-1] == f"✓ Moved 1 file(s) to {folder}/invalid"


def test_doctor_rebuilds_what_is_derived(ours: Command, folder: Path) -> None:
    records = {path: path.read_bytes() for path in folder.rglob("traj_*.json")}
    pages = {path: path.read_bytes() for path in folder.rglob("traj_*.md")}
    for path in (*records, *pages, folder / "index.json"):
        path.unlink()
    assert ours("doctor").code == 1
    assert ours("doctor", "--rebuild").code == 0
    assert {path: path.read_bytes() for path in (*records, *pages)} == records | pages
    assert ours("doctor").code == 0


def test_reconcile_counts(ours: Command, folder: Path) -> None:
    done = ours("reconcile")
    assert (done.code, done.lines[0]) == (
        0,
        "2 scanned, 0 added, 2 already indexed, 0 malformed, 0 of another shape, 0 unreadable",
    )
    (folder / "index.json").unlink()
    assert json.loads(ours("reconcile", "--json").out)["added"] == 2
    (folder / "active" / "traj_bad.json").write_text("")
    told = ours("reconcile", "--json")
    assert (told.code, json.loads(told.out)["malformed"]) == (1, 1)


# ---- broken files


def test_a_malformed_index_is_told_and_made_again(ours: Command, folder: Path) -> None:
    before = ours("list", "--json").out
    (folder / "index.json").write_text('{"version": 1, "traj')
    done = ours("list", "--json")
    assert (done.code, done.out) == (0, before)
    assert done.err.startswith(f"warning: {folder}/index.json is malformed: it is kept as ")
    assert len(done.err.splitlines()) == 1
    assert ours("list").err == ""


@pytest.mark.parametrize("text", ["", "[]", "{}", "null"])
def test_an_index_of_another_shape(ours: Command, folder: Path, text: str) -> None:
    (folder / "index.json").write_text(text)
    done = ours("list", "--json")
    assert (done.code, len(done.lines)) == (0, 2)
    assert ("warning" in done.err) == bool(text)
    assert ours("note", "x").code == 0


def test_a_broken_record_is_one_line(ours: Command, folder: Path) -> None:
    (folder / "active" / "traj_bad.json").write_text("{")
    done = ours("show", "traj_bad")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: active/traj_bad.json: ")
    assert ours("note", "x").code == 0


# ---- taking in


def test_two_copies_are_merged_without_loss(ours: Command, folder: Path, desk: Path) -> None:
    shutil.copytree(folder, desk / "branch")
    ours("note", "here")
    ours("note", "there", "--data-dir", "branch")
    done = ours("merge", "branch")
    assert (done.code, done.out) == (0, "0 added, 1 updated, 1 unchanged\n")
    (active,) = TrailFolder(folder).list("active")
    assert sorted(e.content for e in TrailFolder(folder).load(active.id).events) == ["here", "there"]
    told = json.loads(ours("merge", "branch", "--json").out)
    assert (told["updated"], told["unchanged"], told["failures"]) == (0, 2, [])


def test_one_journal_is_merged(ours: Command, folder: Path, desk: Path) -> None:
    (active,) = TrailFolder(folder).list("active")
    journal = desk / f"{active.id}.jsonl"
    shutil.copy(folder / "active" / journal.name, journal)
    assert json.loads(ours("merge", journal.name, "--data-dir", "new", "--json").out)["added"] == 1
    assert TrailFolder(desk / "new").load(active.id).title == "Write"


def test_what_cannot_be_taken_in_is_named(ours: Command, folder: Path, desk: Path) -> None:
    other = desk / "other" / "completed"
    other.mkdir(parents=True)
    (other / "traj_bad.json").write_text("{")
    record = json.loads(ours("show", TrailFolder(folder).list()[0].id, "--json").out)
    (other / "traj_good.json").write_text(json.dumps(record | {"id": "traj_good", "later": {"key": 1}}))
    done = ours("import", "other")
    assert (done.code, done.out) == (1, "1 added, 0 updated, 0 unchanged\n")
    assert done.err.startswith("completed/traj_bad.json: malformed: ")
    assert json.loads(ours("show", "traj_good", "--json").out)["later"] == {"key": 1}
    for words in (("import", "nowhere"), ("merge", "nowhere"), ("import",), ("merge",)):
        refused = ours(*words)
        assert (refused.code, refused.out) == (2, "")


# ---- runs


def test_runs_become_trails(ours: Command, holdfast: Command, desk: Path) -> None:
    (desk / "shop.py").write_text(SHOP)
    assert holdfast("run", "shop:fulfil", "7", "--run-id", "order-7").code == 0
    assert holdfast("run", "shop:fails", "--run-id", "order-8").code == 1
    (told,) = map(json.loads, ours("record", "order-7", "--json").lines)
    assert (told["run"], told["status"]) == ("order-7", "completed")
    assert told["new"] > 0
    assert json.loads(ours("show", told["trail"], "--json").out)["status"] == "completed"
    done = ours("record")
    assert (done.code, len(done.lines)) == (0, 1)
    assert " order-8 " in done.out
    assert (
        ours("record", "order-7", "--json").out == json.dumps(told | {"new": 0}, separators=(",", ":")) + "\n"
    )
    assert [row["status"] for row in map(json.loads, ours("list", "--json").lines)] == [
        "abandoned",
        "completed",
    ]
    assert ours("record", "order-8", "--follow").code == 0


def test_runs_that_there_are_not(ours: Command, desk: Path) -> None:
    assert ours("record").err.startswith("error: no store at .holdfast/holdfast.db")
    assert ours("record", "x", "--store", "sqlite:///no.db").code == 2
    assert not list(desk.iterdir())
