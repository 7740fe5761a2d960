"""One journal: whole lines stay, a torn one is recognised, and what the disk refuses leaves no trace."""

import os
import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trail_kit import at_once

from holdfast.errors import TrailError
from holdfast.trail import TrailFolder, journal
from holdfast.trail import entry as line
from holdfast.trail import lock as locks

MINUTE = 60_000_000


def entries(number, start=0):
    return [
        line.new(
            f"evt_{start + i}",
            "note",
            {"content": f"number {start + i} ü"},
            occurred_at=MINUTE + i,
            seq=1 + i,
        )
        for i in range(number)
    ]


def contents(path):
    return [e.data["content"] for e in journal.read(str(path)).entries]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "traj_a.jsonl"
    journal.create(str(path), entries(3), timeout=1)
    return path


def append(path, new, **options):
    with locks.locked(str(path), journal.WRITE) as fd:
        tail = journal.Tail()
        tail.catch_up(fd, str(path))
        journal.append(fd, str(path), tail, new, **options)


@given(st.integers(1, 5), st.data())
def test_cut_anywhere_all_whole_lines_are_read_and_the_rest_is_told(number, data):
    whole = b"".join(map(line.encode, entries(number)))
    cut = data.draw(st.integers(0, len(whole)))
    reading = journal.parse(whole[:cut])
    lines = [encoded for encoded in whole.split(b"\n") if encoded]
    complete = whole[:cut].count(b"\n")
    rest = whole[:cut].rpartition(b"\n")[2]
    if rest == lines[complete] if complete < len(lines) else False:
        complete, rest = complete + 1, b""  # only its line feed is missing: no prefix of an object is one
    assert [e.seq for e in reading.entries] == list(range(1, complete + 1))
    assert (reading.torn, reading.bad) == (rest, [])
    assert reading.size == cut - len(rest)


@pytest.mark.parametrize("garbage", [b"not JSON", b"[]", b'{"id":"evt_1"}', b"\xff\xfe", b"\0\0\0", b"null"])
def test_a_line_that_is_no_entry_is_passed_over_and_told_with_its_number(path, garbage, caplog):
    path.write_bytes(path.read_bytes() + garbage + b"\n")
    append(path, entries(1, start=9))
    reading = journal.read(str(path))
    assert [e.id for e in reading.entries] == ["evt_0", "evt_1", "evt_2", "evt_9"]
    assert [(bad.number, bad.text) for bad in reading.bad] == [(4, garbage)]
    assert [r.levelname for r in caplog.records] == ["ERROR"]


def test_a_line_that_lacks_only_its_line_feed_is_whole(path, caplog):
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    append(path, entries(1, start=9))
    assert contents(path) == ["number 0 ü", "number 1 ü", "number 2 ü", "number 9 ü"]
    assert not caplog.records
    assert not list(path.parent.glob("*.torn-*"))


@pytest.mark.parametrize("between", [b"\n", b"  \n", b"\r\n"])
def test_empty_lines_are_nothing(path, between):
    path.write_bytes(path.read_bytes().replace(b"\n", b"\n" + between))
    append(path, entries(1, start=9))
    assert len(contents(path)) == 4


def test_what_the_system_refuses_half_way_leaves_no_part_of_a_line(path):
    """A limit on the size of files lets the first bytes of a write pass, as a disk does that becomes full."""
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 50, hard))
    try:
        with pytest.raises(TrailError, match="nothing was recorded: File too large"):
            append(path, entries(2, start=9))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    append(path, entries(1, start=9))
    assert contents(path)[-1] == "number 9 ü"


def test_a_journal_that_cannot_be_begun_is_not_there(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, hard))
    try:
        with pytest.raises(TrailError, match="nothing was recorded: File too large"):
            journal.create(str(tmp_path / "traj_a.jsonl"), entries(1), timeout=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == []


def test_of_two_who_begin_one_journal_one_does(tmp_path):
    path = str(tmp_path / "traj_a.jsonl")
    answers = at_once(*[lambda: journal.create(path, entries(1), timeout=5)] * 8)
    assert sorted(str(type(answer)) for answer in answers if answer != 1) == [str(FileExistsError)] * 7
    assert contents(path) == ["number 0 ü"]


def test_no_entry_is_recorded_before_the_one_above_it(path):
    """Clocks are set back, and differ between hosts."""
    append(path, entries(3))
    late = journal.read(str(path)).entries
    assert [e.recorded_at for e in late] == sorted(e.recorded_at for e in late)
    assert [e.seq for e in late] == [1, 2, 3, 4, 5, 6]
    assert late[3].occurred_at < late[2].occurred_at, "when it happened stays as it was told"


def test_what_was_recorded_elsewhere_keeps_its_time_and_number(path):
    older = line.new("evt_o", "note", {"content": "older"}, occurred_at=MINUTE - 5, seq=2)
    append(path, [older], as_told=True)
    (told,) = [e for e in journal.read(str(path)).entries if e.id == "evt_o"]
    assert (told.seq, told.recorded_at) == (2, older.recorded_at)
    append(path, entries(1, start=9))
    assert journal.read(str(path)).entries[-1].seq == 4


def test_a_writer_that_knows_the_journal_reads_only_what_is_new(folder, monkeypatch):
    trail = folder.start("long")
    trail.note("x" * 100_000)
    other = TrailFolder(folder.root, redact=None).open(trail.id)
    other.note("of another")
    read, real = [], os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, at: (read.append(size), real(fd, size, at))[1])
    trail.note("mine")
    assert 0 < sum(read) < 1000


def test_a_journal_that_was_replaced_is_read_anew(folder):
    trail = folder.start("compacted")
    trail.note("one")
    path = str(folder.root / "active" / f"{trail.id}.jsonl")
    with folder.files.locked():
        journal.rewrite(path, lambda reading: line.encode(reading.entries[0]), timeout=1)
    trail.note("two")
    assert [(e.seq, e.data.get("content")) for e in folder.entries(trail.id)] == [(1, None), (2, "two")]
