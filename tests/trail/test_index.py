"""The index: whatever becomes of it, the next one who looks has it say what the journals say."""

import json
import logging
import os
import shutil

import pytest
from trail_kit import assert_in_order, at_once, index_of

from holdfast.errors import TrailError
from holdfast.trail import TrailFolder


@pytest.fixture
def three(folder):
    """A folder with one trail of each status; their ids."""
    ids = [folder.start(title, agent="ana").id for title in ("active", "completed", "abandoned")]
    folder.open(ids[1]).complete("done", confidence=0.5)
    folder.open(ids[2]).abandon("no use")
    return ids


def fresh(folder):
    """The folder as another process sees it: nothing is known of it yet."""
    return TrailFolder(folder.root, redact=None)


def test_it_has_the_shape_that_other_tools_read(folder, three):
    data = json.loads((folder.root / "index.json").read_bytes())
    assert set(data) == {"version", "lastUpdated", "trajectories"}
    assert data["version"] == 1
    entry = data["trajectories"][three[1]]
    month = entry["completedAt"][:7]
    assert entry == {
        "title": "completed",
        "status": "completed",
        "startedAt": entry["startedAt"],
        "completedAt": entry["completedAt"],
        "path": f"completed/{month}/{three[1]}.json",
        "confidence": 0.5,
        "agent": "ana",
    }
    assert str(folder.root) not in json.dumps(data), "paths are relative"


@pytest.mark.parametrize("look", ["list", "start"])
@pytest.mark.parametrize("left", [b"", None])
def test_an_empty_or_missing_one_is_made_again_silently(folder, three, left, look, caplog):
    path = folder.root / "index.json"
    path.unlink()
    if left is not None:
        path.write_bytes(left)
    again = fresh(folder)
    more = {again.start("new").id} if look == "start" else set()
    assert {s.id for s in again.list()} == {*three, *more} == set(index_of(folder))
    assert_in_order(folder)
    assert not caplog.records
    assert not list(folder.root.glob("index.json.bad-*"))


MALFORMED = [
    b"{",
    b"[]",
    b"{}",
    b"null",
    b"\0\0\0\0",
    b'{"version":1,"trajectories":{"traj_a":5}}',
    b"\xef\xbb\xbf{}",
]


@pytest.mark.parametrize("text", MALFORMED)
def test_a_malformed_one_is_kept_reported_and_made_again(folder, three, text, caplog):
    for number in (1, 2):
        (folder.root / "index.json").write_bytes(text)
        assert {s.id for s in fresh(folder).list()} == set(three)
        assert (folder.root / f"index.json.bad-{number}").read_bytes() == text
    reports = [(r.name, r.levelno) for r in caplog.records]
    assert reports == [("holdfast.trail", logging.ERROR)] * 2
    assert "index.json.bad-1" in caplog.records[0].message
    assert_in_order(folder)


def test_a_malformed_one_is_set_aside_once_by_many_who_see_it(folder, three, caplog):
    (folder.root / "index.json").write_bytes(b"{")
    lists = at_once(*[lambda: {s.id for s in fresh(folder).list()}] * 8)
    assert lists == [set(three)] * 8
    assert [p.name for p in folder.root.glob("index.json.bad-*")] == ["index.json.bad-1"]
    assert len(caplog.records) == 1


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside.json", "completed/../../outside.json"])
def test_a_foreign_path_in_it_is_followed_by_nobody(tmp_path, folder, three, path):
    outside = tmp_path / "outside.json"
    outside.write_text("mine")
    data = json.loads((folder.root / "index.json").read_bytes())
    data["trajectories"][three[0]]["path"] = path
    data["trajectories"]["traj_foreign"] = data["trajectories"][three[0]]
    (folder.root / "index.json").write_text(json.dumps(data))
    again = fresh(folder)
    assert {s.id: s.path for s in again.list()}[three[0]] == f"active/{three[0]}.json"
    (folder.root / "index.json").write_text(json.dumps(data))
    again.delete(three[0])
    assert outside.read_text() == "mine"
    assert set(index_of(folder)) == set(three[1:])
    assert_in_order(folder)


def test_one_from_another_branch_is_put_right(tmp_path, folder, three):
    other = TrailFolder(tmp_path / "other" / ".trajectories", redact=None)
    other.start("of another branch")
    shutil.copy(other.root / "index.json", folder.root / "index.json")
    assert {s.id for s in fresh(folder).list()} == set(three)
    assert_in_order(folder)


def test_one_that_names_a_trail_as_active_that_has_ended_here_is_put_right(folder):
    trail = folder.start("shared")
    before = (folder.root / "index.json").read_bytes()
    trail.complete("done")
    (folder.root / "index.json").write_bytes(before)
    assert [s.status for s in fresh(folder).list(status="completed")] == ["completed"]
    assert_in_order(folder)


def test_an_ended_trail_whose_journal_was_replaced_is_looked_at_again(folder, three):
    """As git does in a merge: the name stays, the file is another one."""
    ended = {s.id: s for s in folder.list()}[three[1]]
    path = folder.root / ended.path.replace(".json", ".jsonl")
    text = path.read_bytes().replace(b'"trail_completed"', b'"trail_abandoned"')
    path.unlink()
    path.write_bytes(text)
    assert {s.id: s.status for s in folder.list()}[three[1]] == "abandoned"
    assert_in_order(folder)


def test_a_folder_in_which_nothing_happened_is_not_written(folder, three):
    folder.list()
    before = {path: path.stat().st_mtime_ns for path in folder.root.rglob("*") if path.is_file()}
    for one in (folder, fresh(folder)):
        assert len(one.list()) == 3
    assert {path: path.stat().st_mtime_ns for path in folder.root.rglob("*") if path.is_file()} == before


def test_a_list_after_a_late_amendment_waits_for_nobody(folder, three, caplog):
    folder.open(three[1], late=True).amend(learnings=["learnt later"])
    index = (folder.root / "index.json").stat()
    # Within one tick of the kernel's clock (4 ms) nobody can tell that the index was written after the journal.
    os.utime(folder.root / "index.json", ns=(index.st_atime_ns, index.st_mtime_ns + 10_000_000))
    hasty = TrailFolder(folder.root, redact=None, lock_timeout=0)
    with folder.files.locked():
        assert len(hasty.list()) == 3
    assert not caplog.records, "it had no need of the lock"


def test_what_a_dead_writer_left_is_gone_after_the_next_look(folder, three):
    for name in ("index.json.1.ab.tmp", f"active/{three[0]}.json.1.ab.tmp"):
        (folder.root / name).write_bytes(b"{")
    assert len(fresh(folder).list()) == 3
    assert_in_order(folder)


def test_a_file_that_can_not_be_read_is_reported_once_and_hides_no_other(folder, three, caplog):
    path = folder.root / "active" / "traj_bad.jsonl"
    path.write_text('{"no":"entry"}\n')
    for _ in range(3):
        assert {s.id for s in folder.list()} == set(three)
    assert [r.levelname for r in caplog.records].count("ERROR") >= 1
    count = len(caplog.records)
    folder.list()
    assert len(caplog.records) == count
    new = folder.start("goes on").id
    assert {s.id for s in folder.list()} == {*three, new}


def test_a_list_of_a_folder_that_does_not_exist_creates_nothing(tmp_path):
    assert TrailFolder(tmp_path / "nothing", redact=None).list() == []
    assert os.listdir(tmp_path) == []


def test_a_file_where_a_folder_belongs_is_told(tmp_path):
    (tmp_path / ".trajectories").write_text("a file")
    with pytest.raises(TrailError, match="expected a folder, found a file; move it away"):
        TrailFolder(tmp_path / ".trajectories", redact=None).start("x")


def test_deriving_from_many_journals_at_once_is_the_same_for_all(folder, three):
    for path in folder.root.rglob("*.json"):
        path.unlink()
    lists = at_once(*[lambda: [s.id for s in fresh(folder).list()]] * 6)
    assert len({tuple(ids) for ids in lists}) == 1
    folder.files.refresh(three)
    assert_in_order(folder)
