"""What may stand in a folder of trails, or be asked of it, and is not as it should be: each has its answer.

Three rules: what is bad is told once, plainly and with its path; it never hides or harms what is good; and nothing
is followed out of the folder. (A full disk and the spellings of a folder are in test_crash and test_storm.)
"""

import json
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import PayloadError, TrailBroken, TrailError, TrailIdError, TrailNotFound
from holdfast.trail import TrailFolder, doctor, export, handle, journal, npm, record, search  # noqa: F401 - loaded before a fork

ID = "traj_abc123def456"
RECORD = {
    "id": ID,
    "version": 1,
    "task": {"title": "Fix login"},
    "status": "active",
    "startedAt": "2026-01-31T09:00:00.000Z",
    "agents": [{"name": "ana", "role": "lead", "joinedAt": "2026-01-31T09:00:00.000Z"}],
    "chapters": [
        {
            "id": "chap_1",
            "title": "Work",
            "agentName": "ana",
            "startedAt": "2026-01-31T09:00:00.000Z",
            "events": [{"ts": 1769850000000, "type": "note", "content": "a"}],
        }
    ],
}


def changed(path, value):
    """The record's JSON with another value at a path such as 'task.title'."""
    data = json.loads(json.dumps(RECORD))
    part = data
    *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    for step in way:
        part = part[step]
    part[last] = value
    return json.dumps(data)


def contents(trail):
    return [event.content for event in trail.events]


@pytest.fixture
def good(folder):
    """A trail that has nothing to do with what is bad."""
    with folder.start("good", agent="ana") as trail:
        trail.note("good")
    return trail


def assert_unharmed(folder, good, others=()):
    assert {line.id for line in folder.list()} == {good.id, *others}
    assert contents(folder.load(good.id)) == ["good"]


# ---- index.json ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        "null",
        "NaN",
        "\ufeff{}",
        '{"version":1}',
        '{"version":1,"lastUpdated":"","trajectories":[]}',
        "\0",
    ],
)
def test_a_malformed_index_is_kept_reported_once_and_made_again(folder, good, caplog, text):
    path = folder.root / "index.json"
    path.write_text(text)
    fresh = TrailFolder(folder.root)
    assert_unharmed(fresh, good)
    assert json.loads(path.read_text())["trajectories"][good.id]["title"] == "good"
    assert (folder.root / "index.json.bad-1").read_text() == text
    [told] = [line for line in caplog.records if line.levelno == logging.ERROR]
    assert "index.json.bad-1" in told.getMessage()
    path.write_text(text)
    assert_unharmed(TrailFolder(folder.root), good)
    assert (folder.root / "index.json.bad-2").read_text() == text


def test_an_empty_or_missing_index_is_made_again_in_silence(folder, good, caplog):
    path = folder.root / "index.json"
    for spoil in (lambda: path.write_text(""), path.unlink):
        spoil()
        assert_unharmed(TrailFolder(folder.root), good)
        assert good.id in path.read_text()
    assert [line.getMessage() for line in caplog.records] == []
    assert not list(folder.root.glob("index.json.bad-*"))


def test_an_index_entry_that_points_outside_is_not_followed(folder, good, tmp_path):
    victim = tmp_path / "victim.json"
    victim.write_text(json.dumps(RECORD))
    index = folder.root / "index.json"
    data = json.loads(index.read_text())
    for trail_id, path in ((ID, str(victim)), (good.id, "../victim.json")):
        data["trajectories"][trail_id] = data["trajectories"][good.id] | {"path": path, "title": "evil"}
    index.write_text(json.dumps(data))
    fresh = TrailFolder(folder.root)
    assert [(line.id, line.title) for line in fresh.list()] == [(good.id, "good")]
    with pytest.raises(TrailNotFound):
        fresh.delete(ID)
    index.write_text(json.dumps(data))
    TrailFolder(folder.root).delete(good.id)
    assert victim.exists()
    assert fresh.list() == []


# ---- records of other tools ---------------------------------------------------------------------------------

MALFORMED = {
    "empty": "",
    "white space": " \n",
    "truncated": json.dumps(RECORD)[:150],
    "NaN": json.dumps(RECORD | {"x": float("nan")}),
    "Infinity": json.dumps(RECORD | {"x": float("inf")}),
    "two objects": json.dumps(RECORD) * 2,
    "not UTF-8": json.dumps(RECORD).replace("login", "\xe9").encode("latin-1"),
    "deep": "[" * 100_000,
    "whole, but too deep": changed("chapters.0.x", json.loads("[" * 300 + "]" * 300)),
}
NO_TRAIL = {
    "null": "null",
    "a list": json.dumps([RECORD]),
    "status paused": changed("status", "paused"),
    "version 2": changed("version", 2),
    "version 1.0 as text": changed("version", "1"),
    "ts float": changed("chapters.0.events.0.ts", 1769850000000.5),
    "ts text": changed("chapters.0.events.0.ts", "1769850000000"),
    "ts zero": changed("chapters.0.events.0.ts", 0),
    "ts in nanoseconds": changed("chapters.0.events.0.ts", 1769850000000000000),
    "empty content": changed("chapters.0.events.0.content", ""),
    "confidence 2": changed("chapters.0.events.0.confidence", 2),
    "upper-case id": changed("id", "traj_ABC"),
    "another id": changed("id", "traj_other"),
    "id with a path": changed("id", "../../x"),
    "id of 4000 letters": changed("id", "traj_" + "x" * 4000),
    "a date without a zone": changed("startedAt", "2026-01-31T09:00:00"),
    "a date alone": changed("startedAt", "2026-01-31"),
    "no date": changed("startedAt", "yesterday"),
    "before the year 1 in UTC": changed("startedAt", "0001-01-01T00:00:00+02:00"),
    "an event after the year 9999": changed("chapters.0.startedAt", "9999-12-31T23:00:00-02:00"),
    "a title of 501": changed("task.title", "x" * 501),
    "no title": changed("task.title", ""),
    "no chapters' ids": changed("chapters.0.id", ""),
    "agents as an object": changed("agents", {}),
}
ACCEPTED = {
    "a byte order mark": b"\xef\xbb\xbf" + json.dumps(RECORD).encode(),
    "a key twice": json.dumps(RECORD).replace(
        '"status": "active"', '"status": "completed", "status": "active"'
    ),
    "an offset": changed("startedAt", "2026-01-31T10:00:00+01:00"),
    "microseconds": changed("startedAt", "2026-01-31T09:00:00.123456Z"),
    "the year 33": changed("startedAt", "0033-04-03T15:00:00Z"),
    "an unknown type of event": changed("chapters.0.events.0.type", "zzz"),
    "an unknown role": changed("agents.0.role", "deterministic"),
    "unknown keys": changed("chapters.0.x", {"y": [1]}),
    "completed without a retrospective": changed("status", "completed"),
    "a title of 500": changed("task.title", "x" * 500),
    "a lone surrogate": changed("task.title", "half \ud83d").encode(),
    "__proto__": changed("__proto__", {"x": 1}),
    "CRLF": json.dumps(RECORD, indent=2).replace("\n", "\r\n"),
}


def test_an_event_may_have_a_hundred_levels_and_no_more(folder, good):
    """Its line is one, and its data another one."""

    def nested(levels: int) -> Any:
        data: list[Any] = []
        for _ in range(levels - 1):
            data = [data]
        return data

    for levels in (99, 5000):
        with pytest.raises(PayloadError, match=r"is nested too deeply: expected JSON of at most 100 levels"):
            folder.open(good.id).event("measured", "much", raw=nested(levels))
    before = len(folder.entries(good.id))
    folder.open(good.id).event("measured", "much", raw=nested(98))
    assert len(folder.entries(good.id)) == before + 1
    assert folder.load(good.id).chapters[-1].events[-1].raw == nested(98)


def put(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("place", [f"active/{ID}.json", f"completed/2026-01/{ID}/trajectory.json"])
@pytest.mark.parametrize(
    ("text", "reason"),
    [pytest.param(text, "malformed", id=name) for name, text in MALFORMED.items()]
    + [pytest.param(text, "schema", id=name) for name, text in NO_TRAIL.items()],
)
def test_a_bad_record_is_invisible_reported_and_can_be_put_aside(
    folder, good, tmp_path, caplog, place, text, reason
):
    path = put(folder.root / place, text)
    assert_unharmed(folder, good)
    assert place in caplog.text, "it is told"
    caplog.clear()
    assert_unharmed(folder, good)
    assert caplog.text == "", "once"
    for call in (folder.load, folder.open, folder.entries):
        with pytest.raises(TrailBroken, match=ID) as caught:
            call(ID)
        assert caught.value.path == place

    [failure] = doctor.diagnose(folder).failures
    assert (failure.path, failure.reason) == (place, reason)
    told = folder.reconcile()
    assert (told.malformed, told.schema, told.io) == (reason == "malformed", reason == "schema", 0)
    assert path.exists()

    exchange = tmp_path / "npm" / place
    put(exchange, text)
    if "other" not in str(text):  # by itself it is a whole record: an import goes by what a file says
        told = npm.import_folder(folder, tmp_path / "npm", pause=lambda seconds: None)
        assert [(failure.path, failure.reason) for failure in told.failures] == [(place, reason)]
        assert_unharmed(folder, good)

    [moved] = doctor.quarantine(folder)
    assert (moved.path, moved.moved_to, path.exists()) == (place, f"invalid/{place}", False)
    assert doctor.diagnose(folder).failures == []
    assert_unharmed(folder, good)


@pytest.mark.parametrize("text", ACCEPTED.values(), ids=ACCEPTED)
def test_a_record_that_is_only_unusual_is_read_adopted_and_imported(folder, good, tmp_path, text):
    put(folder.root / "active" / f"{ID}.json", text)
    before = folder.load(ID)
    assert contents(before) == ["a"]
    assert_unharmed(folder, good, [ID])
    folder.open(ID, late=True).note("ours", agent="ana")
    now = folder.load(ID)
    assert contents(now) == ["a", "ours"]
    assert (now.title, now.status, now.started_at) == (before.title, before.status, before.started_at)
    assert doctor.diagnose(folder).failures == []
    put(tmp_path / "npm" / "active" / f"{ID}.json", text)
    other = TrailFolder(tmp_path / "other", redact=None)
    assert npm.import_folder(other, tmp_path / "npm").added == 1
    assert record.to_record(other.load(ID))["task"] == record.to_record(before)["task"]


def test_of_a_key_that_stands_twice_the_last_value_counts(folder):
    put(folder.root / "active" / f"{ID}.json", ACCEPTED["a key twice"])
    assert folder.load(ID).status == "active"


@pytest.mark.parametrize(
    "name", ["traj_ABC.json", "notes.json", "x.jsonl", "traj_.jsonl", "ü/trajectory.json"]
)
def test_a_file_whose_name_is_no_id_is_reported(folder, good, name):
    put(folder.root / "active" / name, json.dumps(RECORD))
    assert_unharmed(folder, good)
    [failure] = folder.reconcile().failures
    assert (failure.path, failure.reason) == (f"active/{name}", "schema")
    assert "expected the id of a trail as its name" in failure.message


# ---- ids ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "id", ["../..", "../outside", "a/b", "", "traj_\0", "__proto__", "traj_x/../y", "traj_é", "traj_X"]
)
def test_ids_that_would_leave_the_folder_are_refused_and_no_file_is_touched(folder, good, tmp_path, id):
    put(tmp_path / "outside.json", json.dumps(RECORD))
    before = sorted(tmp_path.rglob("*"))
    for call in (
        folder.load,
        folder.open,
        folder.delete,
        folder.entries,
        lambda text: folder.absorb(text, []),
    ):
        with pytest.raises(TrailIdError, match="expected 'traj_'"):
            call(id)
    with pytest.raises(TrailIdError):
        npm.export_npm(folder, tmp_path / "npm", [id])
    assert sorted(tmp_path.rglob("*")) == before


# ---- symbolic links and other things that are no files ----------------------------------------------------------


def test_links_in_the_place_of_files_are_neither_read_nor_written_nor_deleted_through(folder, good, tmp_path):
    outside = put(tmp_path / "outside.json", json.dumps(RECORD))
    lines = put(tmp_path / "outside.jsonl", b"")
    where = folder.root / "active"
    (where / f"{ID}.json").symlink_to(outside)
    (where / "traj_journal.jsonl").symlink_to(lines)
    (where / "traj_nested").mkdir()
    (where / "traj_nested" / "trajectory.json").symlink_to(outside)
    (where / "traj_folder").symlink_to(tmp_path)
    assert_unharmed(folder, good)
    for id in (ID, "traj_journal", "traj_folder"):
        for call in (folder.load, folder.open, folder.delete):
            with pytest.raises(TrailNotFound):
                call(id)
    with pytest.raises(TrailBroken, match="symbolic links"):
        folder.load("traj_nested")
    told = doctor.diagnose(folder)
    assert {(failure.path, failure.reason) for failure in told.failures} == {
        (f"active/{ID}.json", "schema"),
        ("active/traj_journal.jsonl", "schema"),
        ("active/traj_nested/trajectory.json", "schema"),
    }
    doctor.quarantine(folder)
    assert (folder.root / "invalid" / "active" / f"{ID}.json").is_symlink(), (
        "the link was moved, not its file"
    )
    assert (outside.read_text(), lines.read_bytes()) == (json.dumps(RECORD), b"")


def test_a_link_that_takes_the_place_of_a_journal_is_not_written_through(folder, good, tmp_path):
    lines = tmp_path / "outside.jsonl"
    journal = folder.root / "active" / f"{good.id}.jsonl"
    journal.rename(lines)
    journal.symlink_to(lines)
    before = lines.read_bytes()
    with pytest.raises(TrailError):
        good.note("through the link")
    assert lines.read_bytes() == before


@pytest.mark.parametrize("part", ["active", "completed"])
def test_a_part_of_the_folder_that_is_a_link_is_refused(tmp_path, part):
    outside = tmp_path / "outside"
    outside.mkdir()
    put(outside / f"{ID}.json", json.dumps(RECORD))
    folder = TrailFolder(tmp_path / ".trajectories")
    folder.root.mkdir()
    (folder.root / part).symlink_to(outside)
    with pytest.raises(TrailError, match="is a symbolic link"):
        folder.start("x")
    with pytest.raises(TrailNotFound):
        folder.load(ID)
    assert [failure.path for failure in doctor.diagnose(folder).failures] == [part]
    assert [path.name for path in outside.iterdir()] == [f"{ID}.json"]


def test_the_folder_itself_may_be_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    folder = TrailFolder(tmp_path / "link")
    trail = folder.start("x")
    trail.complete(summary="s")
    assert [line.status for line in TrailFolder(tmp_path / "real").list()] == ["completed"]


def test_a_pipe_and_a_folder_in_the_place_of_a_journal_hold_nobody_up(folder, good):
    os.mkfifo(folder.root / "active" / "traj_pipe.json")
    os.mkfifo(folder.root / "active" / "traj_pipe2.jsonl")
    (folder.root / "active" / "traj_folder.jsonl").mkdir()
    assert_unharmed(folder, good)
    told = {failure.path: failure.reason for failure in folder.reconcile().failures}
    assert told == {
        "active/traj_pipe.json": "schema",
        "active/traj_pipe2.jsonl": "schema",
        "active/traj_folder.jsonl": "io",
    }
    assert {moved.path for moved in doctor.quarantine(folder)} == {
        "active/traj_pipe.json",
        "active/traj_pipe2.jsonl",
    }
    assert (folder.root / "active" / "traj_folder.jsonl").exists(), "what the system refused stays"


@pytest.mark.parametrize("part", ["", "active", "completed"])
def test_a_file_in_the_place_of_a_folder_is_named(tmp_path, part):
    folder = TrailFolder(tmp_path / ".trajectories")
    put(folder.root / part, "here")
    if part:
        assert folder.list() == []
    else:
        for call in (folder.list, TrailFolder(folder.root / "below").list, lambda: folder.search("x")):
            with pytest.raises(TrailError, match=r"expected a folder, found a file|not a directory"):
                call()
    with pytest.raises(TrailError, match=r"expected a folder, found a file|Not a directory|File exists"):
        folder.start("x").complete(summary="s")
    assert (folder.root / part).read_text() == "here"


# ---- journals -----------------------------------------------------------------------------------------------


def lines_of(folder, trail):
    return folder.root / "active" / f"{trail.id}.jsonl"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: text.replace(b"\n", b"\n\n"),
        lambda text: text.rstrip(b"\n"),
        lambda text: b"".join(reversed(text.splitlines(keepends=True))),
        lambda text: text * 2,
    ],
    ids=["BOM", "CRLF", "empty lines", "no last line feed", "another order", "all twice"],
)
def test_what_an_editor_or_git_does_to_a_journal_is_no_harm(folder, good, spoil):
    path = lines_of(folder, good)
    path.write_bytes(spoil(path.read_bytes()))
    assert_unharmed(folder, good)
    assert doctor.diagnose(folder).failures == []
    folder.open(good.id).note("more")
    assert contents(folder.load(good.id)) == ["good", "more"]
    assert doctor.diagnose(folder).failures == []


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"<<<<<<< HEAD", "malformed"),
        (b"=======", "malformed"),
        (b">>>>>>> other branch", "malformed"),
        (b"not json", "malformed"),
        (b"\0" * 300, "malformed"),
        (b"null", "schema"),
        (b'{"id":"x"}', "schema"),
        (
            b'{"id":"x","seq":9,"type":"note","occurred_at":"today","recorded_at":"today","data":{"content":"a"}}',
            "schema",
        ),
    ],
)
def test_bad_lines_are_passed_over_reported_and_moved_aside_without_the_good_ones(folder, good, bad, reason):
    path = lines_of(folder, good)
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + bad + b"\n" + second + bad + b"\n")
    assert_unharmed(TrailFolder(folder.root, redact=None), good)
    [failure] = folder.reconcile().failures
    assert (failure.path, failure.reason, failure.lines) == (f"active/{good.id}.jsonl", reason, [2, 4])
    [moved] = doctor.quarantine(folder)
    assert (folder.root / moved.moved_to).read_bytes() == (bad + b"\n") * 2
    assert moved.moved_to == f"invalid/active/{good.id}.jsonl.lines"
    assert path.read_bytes() == first + second
    good.note("the handle that was open goes on")
    assert contents(folder.load(good.id)) == ["good", "the handle that was open goes on"]
    assert doctor.diagnose(folder).failures == []


LINE = {"seq": 9, "occurred_at": "2026-01-31T09:00:00Z", "recorded_at": "2026-01-31T09:00:00Z"}
WRONG = [
    {"type": "note", "data": {}},
    {"type": "note", "data": {"content": 3}},
    {"type": "note", "data": {"content": "a", "confidence": 7}},
    {"type": "note", "data": {"content": "a"}, "occurred_at": "0001-01-01T00:00:00+14:00"},
    {"type": "chapter_opened", "chapter": "c", "data": {}},
    {"type": "chapter_opened", "chapter": "c", "data": {"title": "t", "parent": 3}},
    {"type": "agent_joined", "agent": "x", "data": {"leftAt": "soon"}},
    {"type": "agent_joined", "agent": "x", "data": {"leftAt": ["soon"]}},
    {"type": "trail_completed", "data": {"summary": "s", "learnings": 3}},
    {"type": "trail_completed", "data": {"summary": "s", "commits": [3]}},
    {"type": "trail_abandoned", "data": {"reason": 3}},
    {"type": "trail_amended", "data": {"confidence": "high"}},
    {"type": "trail_amended", "data": {"trail": 3}},
    {"type": "trail_amended", "data": {"title": 3}},
    {"type": "trail_amended", "data": {"title": ""}},
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: f"{wrong['type']} {wrong['data']}"[:60])
def test_a_line_of_json_with_data_of_a_wrong_shape_harms_no_other(folder, good, wrong):
    path = lines_of(folder, good)
    with path.open("ab") as file:
        file.write(json.dumps({"id": "evt_wrong"} | LINE | wrong).encode() + b"\n")
    fresh = TrailFolder(folder.root, redact=None)
    assert_unharmed(fresh, good)
    assert fresh.load(good.id).status == "active"
    [failure] = doctor.diagnose(fresh).failures
    assert (failure.reason, failure.lines) == ("schema", [3])
    fresh.open(good.id).note("more")
    doctor.quarantine(fresh)
    assert contents(fresh.load(good.id)) == ["good", "more"]
    assert doctor.diagnose(fresh).failures == []


def test_a_journal_without_its_beginning_is_broken_and_says_so(folder, good):
    trail = folder.start("headless")
    trail.note("x")
    path = lines_of(folder, trail)
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[1])
    with pytest.raises(TrailBroken, match="trail_started"):
        folder.load(trail.id)
    [failure] = folder.reconcile().failures
    assert_unharmed(folder, good)
    assert (failure.path, failure.reason) == (f"active/{trail.id}.jsonl", "schema")
    [moved] = doctor.quarantine(folder)
    assert (folder.root / moved.moved_to).exists()
    assert_unharmed(folder, good, [trail.id])
    assert folder.load(trail.id).title == "headless", "what its record still says is told again"


# ---- what cannot be written -----------------------------------------------------------------------------------


def as_nobody(call):
    """What the call returns or raises, in a process without root's rights."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if os.geteuid() == 0:
                os.setegid(65534)
                os.seteuid(65534)
            answer = str(call())
        except Exception as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(write, answer.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        answer = file.read()
    os.waitpid(pid, 0)
    return answer


@pytest.fixture
def read_only():
    """A folder with a trail that this user may read, not write."""
    top = Path(tempfile.mkdtemp())
    top.chmod(0o755)
    folder = TrailFolder(top / ".trajectories", redact=None)
    with folder.start("good", agent="ana") as trail:
        trail.note("good")
    places = [folder.root, *folder.root.rglob("*")]
    for path in places:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield folder, trail
    for path in [path for path in places if path.exists()]:
        path.chmod(0o755)
    shutil.rmtree(top)


def test_a_read_only_folder_can_be_read_and_refuses_all_else_in_one_line(read_only):
    folder, trail = read_only
    before = {path: path.stat().st_mtime_ns for path in folder.root.rglob("*")}
    assert as_nobody(lambda: [line.title for line in folder.list()]) == "['good']"
    assert as_nobody(lambda: contents(folder.load(trail.id))) == "['good']"
    assert as_nobody(lambda: doctor.diagnose(folder).already_indexed) == "1"
    for call in (
        lambda: trail.note("x"),
        lambda: trail.complete(summary="s"),
        lambda: folder.start("x"),
        lambda: folder.delete(trail.id),
        lambda: folder.reconcile(),
        lambda: doctor.rebuild(folder),
        lambda: doctor.quarantine(folder),
    ):
        answer = as_nobody(call)
        assert answer.startswith("TrailError: "), answer
        assert "Permission denied; give yourself the right to write there" in answer
        assert "\n" not in answer
    assert {path: path.stat().st_mtime_ns for path in folder.root.rglob("*")} == before


def test_a_read_only_folder_with_a_stale_index_is_listed_all_the_same(read_only):
    folder, _ = read_only
    index = folder.root / "index.json"
    folder.root.chmod(0o755)
    index.unlink()
    folder.root.chmod(0o555)
    assert as_nobody(lambda: [line.title for line in TrailFolder(folder.root).list()]) == "['good']"


def test_what_may_not_be_read_is_an_io_failure_and_stays(read_only):
    folder, trail = read_only
    for path in [folder.root, *folder.root.rglob("*")]:
        path.chmod(0o777 if path.is_dir() else 0o666)
    lines_of(folder, trail).chmod(0o000)
    assert as_nobody(lambda: folder.load(trail.id)).endswith("cannot be read: Permission denied")
    ask = as_nobody(lambda: [(f.path, f.reason) for f in doctor.diagnose(folder).failures])
    assert ask == str([(f"active/{trail.id}.jsonl", "io")])
    assert as_nobody(lambda: doctor.quarantine(folder)) == "[]"
    assert lines_of(folder, trail).exists()


def test_an_export_into_a_place_that_cannot_be_written_is_reported_by_trail(read_only, folder):
    trail = folder.start("x")
    place, _ = read_only
    os.chmod(folder.root.parent, 0o755)
    told = npm.export_npm(folder, place.root / "npm" / "x") if os.geteuid() else None
    if told is not None:
        assert [failure.reason for failure in told.failures] == ["io"]
    file = put(folder.root.parent / "npm" / "active" / trail.id, "a file")
    told = npm.export_npm(folder, file.parent.parent)
    assert [failure.reason for failure in told.failures] == ["io"]
    assert file.read_text() == "a file"


# ---- what is too much, or odd ---------------------------------------------------------------------------------


def test_an_event_of_50_megabytes_is_refused_with_the_limit_and_poisons_nothing(folder, good):
    with pytest.raises(
        PayloadError, match=r"expected an event of at most 1,048,576 bytes, got 52,\d\d\d,\d\d\d"
    ):
        good.note("x" * 50 * 1024 * 1024)
    good.note("after it")
    assert contents(folder.load(good.id)) == ["good", "after it"]
    with pytest.raises(PayloadError, match="at most"):
        folder.start("x", description="x" * 2_000_000)
    assert_unharmed_titles(folder, ["good"])


def assert_unharmed_titles(folder, titles):
    assert [line.title for line in folder.list()] == titles


@pytest.mark.parametrize("size", [2, 12])
def test_another_tools_event_of_many_megabytes_is_read_and_imported(folder, tmp_path, size):
    """The limit is for what is told to us; a record that is there is not refused for its size."""
    text = "x" * size * 1024 * 1024
    put(tmp_path / "npm" / "active" / f"{ID}.json", changed("chapters.0.events.0.content", text))
    assert npm.import_folder(folder, tmp_path / "npm").added == 1
    assert contents(folder.load(ID)) == [text]


def test_text_that_has_no_utf8_is_kept_wherever_it_stands(folder, tmp_path):
    odd = "half \ud83d of a face, \0, \u202e and \u2028"
    with folder.start(odd, agent=odd, tags=[odd], description=odd) as trail:
        with trail.chapter(odd, agent=odd) as chapter:
            chapter.note(odd, raw={odd: odd}, tags=[odd])
            chapter.decide(odd, odd, reasoning=odd)
        trail.complete(summary=odd, learnings=[odd])
    now = folder.load(trail.id)
    assert (now.title, now.agents[0].name, now.retrospective.summary) == (odd, odd, odd)
    assert now.events[0].raw == {odd: odd}
    assert len(folder.list()) == 1
    assert doctor.diagnose(folder).failures == []
    doctor.rebuild(folder)
    npm.export_npm(folder, tmp_path / "npm")
    other = TrailFolder(tmp_path / "other", redact=None)
    npm.import_folder(other, tmp_path / "npm")
    assert other.load(trail.id).events[0].raw == {odd: odd}


def test_names_with_quotes_and_line_feeds_are_names(tmp_path):
    for name in ("it's", 'a "quoted" one', "with\nline feed", "with space", "ünï", "-rf", "$(x)", "100%"):
        folder = TrailFolder(tmp_path / name / ".trajectories", redact=None)
        with folder.start(name, agent=name) as trail:
            trail.note(name)
            trail.complete(summary=name)
        assert [line.title for line in folder.list()] == [name]
        assert folder.reconcile().failures == []
        assert npm.export_npm(folder, tmp_path / name / "npm").written == 1
        folder.delete(trail.id)
        assert folder.list() == []


def test_a_home_that_is_spelled_with_a_tilde_is_that_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TRAJECTORIES_DATA_DIR", "~/trails")
    trail = TrailFolder().start("x")
    assert (tmp_path / "trails" / "active" / f"{trail.id}.jsonl").exists()
    monkeypatch.chdir(tmp_path)
    assert TrailFolder("./x/../trails").list() == TrailFolder("~/trails").list() != []
    assert journal.read(str(tmp_path / "trails" / "active" / f"{trail.id}.jsonl")).bad == []
