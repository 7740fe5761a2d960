"""Writers that die, stop, fork and run out of space: what was acknowledged stays, and the others go on.

Rows T-04 and T-05. SIGKILL leaves the kernel's cache as it is, so what these tests prove is that no
interleaving of writes loses anything; that the disk has it rests on fdatasync, which the bench counts.
"""

import errno
import json
import logging
import os
import random
import signal
import subprocess
import threading
import time
from collections import defaultdict

import pytest
from patience import PATIENCE
from trail_kit import Writer, assert_in_order, at_once, index_of, wait_for_a_waiter, wait_until

from holdfast import faults
from holdfast.errors import TrailEnded, TrailError, TrailLocked
from holdfast.trail import TrailFolder, journal, lock

POINTS = [name for name in faults.POINTS if name.startswith("trail.")]


def acknowledged(lines):
    """What a killed process had been told is on the disk: events by trail, and the trails that have ended."""
    events, ended = defaultdict(list), set()
    for line in lines:
        match line.split():
            case ["started", id]:
                events[id] = []
            case ["noted", id, event]:
                events[id].append(event)
            case ["ended", id]:
                ended.add(id)
    return events, ended


def assert_nothing_is_lost(folder, lines):
    """All that was acknowledged is readable, the folder is in order, and each trail can be written on."""
    events, ended = acknowledged(lines)
    listed = {summary.id: summary for summary in folder.list()}
    assert set(events) <= set(listed)
    assert len(listed) <= len(events) + 1, "at most the one that was being written when it died"
    for id, noted in events.items():
        entries = folder.entries(id)
        assert [e.id for e in entries if e.type == "note"][: len(noted)] == noted
        assert sum(e.type == "note" for e in entries) <= len(noted) + 1
        assert listed[id].status == folder.load(id).status
        assert id not in ended or listed[id].status == "completed"
    assert_in_order(folder)
    for id, summary in listed.items():
        if summary.status == "active":
            trail = folder.open(id)
            trail.note("going on")
            trail.complete("after all")
    assert {summary.status for summary in folder.list()} <= {"completed"}
    assert_in_order(folder)


@pytest.mark.parametrize("passing", [1, 2, 3])
@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_point_of_the_code_nothing_acknowledged_is_lost(folder, writer, point, passing):
    process = writer("live", faults=f"{point}=kill@{passing}")
    process.go()
    lines = process.finish(silent=False)
    assert process.process.returncode == -signal.SIGKILL, "it came to this point"
    assert_nothing_is_lost(folder, lines)


def kill_while_writing(folder, seed, times):
    chance = random.Random(seed)
    lines = []
    for _ in range(times):
        process = Writer("live", folder.root)
        assert process.line() == "ready"
        process.go()
        lines.append(process.line())
        time.sleep(chance.uniform(0, 0.03))  # the moment of death, not a wait
        lines += process.kill()
    events, _ = acknowledged(lines)
    assert len(events) >= times
    listed = folder.list()
    assert set(events) <= {summary.id for summary in listed}
    assert len(listed) <= len(events) + times
    for id, noted in events.items():
        assert [e.id for e in folder.entries(id) if e.type == "note"][: len(noted)] == noted
    assert_in_order(folder)


def test_killed_at_random_moments_nothing_acknowledged_is_lost(folder):
    kill_while_writing(folder, seed=1, times=6)


@pytest.mark.slow
def test_killed_many_times_nothing_acknowledged_is_lost(folder):
    """A hundred times in `bench/trails.py`, where a slow disk may take its time."""
    kill_while_writing(folder, seed=2, times=25)


# ---- a torn last line ---------------------------------------------------------------------------------------


def test_a_torn_last_line_is_set_aside_reported_and_written_after(folder, caplog):
    trail = folder.start("torn")
    trail.note("whole")
    path = folder.root / "active" / f"{trail.id}.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"id":"evt_torn","seq":3,"ty')

    assert [e.seq for e in folder.entries(trail.id)] == [1, 2], (
        "a reader passes it over: it may be being written"
    )
    assert not caplog.records
    other = folder.open(trail.id)
    other.note("after")
    trail.note("and after that")

    (report,) = caplog.records
    assert (report.name, report.levelno) == ("holdfast.trail", logging.ERROR)
    assert "28 bytes are kept in" in report.message
    assert (
        folder.root / "active" / f"{trail.id}.jsonl.torn-1"
    ).read_bytes() == b'{"id":"evt_torn","seq":3,"ty'
    assert path.read_bytes().startswith(whole)
    assert [e.data.get("content") for e in folder.entries(trail.id)] == [
        None,
        "whole",
        "after",
        "and after that",
    ]
    assert [e.seq for e in folder.entries(trail.id)] == [1, 2, 3, 4]


def test_two_torn_ends_are_two_files(folder):
    trail = folder.start("torn twice")
    path = folder.root / "active" / f"{trail.id}.jsonl"
    for torn in (b'{"first', b'{"second'):
        with path.open("ab") as file:
            file.write(torn)
        trail.note("on")
    assert [p.read_bytes() for p in sorted(path.parent.glob("*.torn-*"))] == [b'{"first', b'{"second']


@pytest.mark.parametrize("left", [b"", b'{"id":"evt_1","seq":1,"type":"trail_star'])
def test_a_trail_that_was_never_begun_is_no_trail(folder, left, caplog):
    folder.start("first")
    path = folder.root / "active" / "traj_neverbegun.jsonl"
    path.write_bytes(left)
    assert [s.title for s in folder.list()] == ["first"]
    assert not path.exists()
    assert [p.read_bytes() for p in path.parent.glob("*.torn-1")] == ([left] if left else [])
    assert [r.levelname for r in caplog.records] == (["ERROR"] if left else [])
    assert_in_order(folder)


# ---- stopped ------------------------------------------------------------------------------------------------


def stopped(process):
    process.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.process.pid, os.WSTOPPED | os.WNOWAIT)


def test_a_stopped_holder_of_the_folder_is_named_and_the_others_go_on_when_it_does(folder, writer):
    trail = folder.start("first")
    hasty = TrailFolder(folder.root, redact=None, lock_timeout=0.05)
    process = writer("live")
    process.line()
    process.go()
    process.line()
    wait_until(lambda: stop_inside_the_lock(process, folder), "it to be inside the lock")

    before = time.monotonic()
    with pytest.raises(
        TrailLocked, match=rf"process {process.process.pid} on {os.uname().nodename}; stop it"
    ):
        hasty.open(trail.id).complete("not now")
    assert 0.05 <= time.monotonic() - before < 5
    assert trail.note("a note needs no lock of the folder")
    assert trail.id in {s.id for s in hasty.list()}, "what can be read is read"

    answers = []
    patient = threading.Thread(target=lambda: answers.extend(at_once(lambda: trail.complete("at last"))))
    patient.start()
    wait_for_a_waiter()
    process.process.send_signal(signal.SIGCONT)
    patient.join()
    assert answers == [None]
    process.kill()
    assert folder.load(trail.id).status == "completed"


def stop_inside_the_lock(process, folder):
    stopped(process)
    try:
        with lock.locked(str(folder.root / ".lock"), timeout=0):
            pass
    except TrailLocked:
        return True
    process.process.send_signal(signal.SIGCONT)
    return False


def test_a_stopped_holder_of_a_journal_is_named(folder, writer):
    trail = folder.start("first")
    process = writer("hold", trail.id)
    assert process.line() == "ready"
    stopped(process)
    other = TrailFolder(folder.root, redact=None, lock_timeout=0.05)
    with pytest.raises(TrailLocked, match=f"process {process.process.pid} on"):
        other.open(trail.id).note("not now")
    assert other.start("others do not wait for it").id in index_of(folder)
    process.process.send_signal(signal.SIGCONT)
    process.go()
    process.finish()
    other.open(trail.id).note("now")
    assert [e.data.get("content") for e in folder.entries(trail.id)] == [None, "now"]


def test_the_lock_of_a_killed_holder_is_free(folder, writer):
    process = writer("hold")
    assert process.line() == "ready"
    process.kill()
    hasty = TrailFolder(folder.root, redact=None, lock_timeout=0)
    assert hasty.start("at once").id in index_of(folder)


# ---- forked -------------------------------------------------------------------------------------------------


def in_a_child(call):
    """Fork, and call there; whether all went well."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)  # a child that hangs is a failure, not a wait
        try:
            call()
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_forked_while_a_thread_writes_can_write_on_the_same_handle(folder):
    trail = folder.start("shared")
    inside, leave = threading.Event(), threading.Event()

    def pause():
        if threading.current_thread() is thread:
            inside.set()
            leave.wait(PATIENCE)

    thread = threading.Thread(target=trail.note, args=("parent",))
    faults.arm("trail.append.before", pause)
    thread.start()
    inside.wait(PATIENCE)  # the thread holds the handle and the journal's lock
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        try:
            trail.note("child")
        except BaseException:
            os._exit(1)
        os._exit(0)
    leave.set()
    thread.join()
    faults.disarm()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert {e.data.get("content") for e in folder.entries(trail.id)} == {None, "parent", "child"}
    assert [e.seq for e in folder.entries(trail.id)] == [1, 2, 3]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_forked_inside_the_lock_does_not_hold_it(folder):
    folder.start("first")
    read, write = os.pipe()
    with folder.files.locked():
        pid = os.fork()
        if pid == 0:
            os.close(write)
            os.read(read, 1)  # lives until the parent has seen
            os._exit(0)
    try:
        hasty = TrailFolder(folder.root, redact=None, lock_timeout=0)
        assert hasty.start("second").id in index_of(folder)
        assert in_a_child(lambda: hasty.start("third"))
        assert {s.title for s in folder.list()} == {"first", "second", "third"}
    finally:
        os.close(read)
        os.close(write)
        os.waitpid(pid, 0)


# ---- no space -----------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "holdfast-test", str(place)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("no right to mount a small tmpfs")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_loses_nothing_and_is_told_plainly(small_disk):
    folder = TrailFolder(small_disk / ".trajectories", redact=None)
    trail = folder.start("full")
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 180_000)
    acknowledged = []
    with pytest.raises(TrailError, match="No space left on device; free some space and try again"):
        while True:
            acknowledged.append(trail.note("x" * 3000))
    assert len(acknowledged) > 5

    def readable():
        entries = journal.read(str(folder.root / "active" / f"{trail.id}.jsonl"))
        assert (entries.torn, entries.bad) == (b"", [])
        return [e.id for e in folder.entries(trail.id) if e.type == "note"]

    assert readable() == acknowledged
    with pytest.raises(TrailError, match="No space left on device"):
        trail.complete("x" * 8000)
    with pytest.raises(TrailError, match="No space left on device"):
        folder.start("x" * 400, description="x" * 8000)
    assert folder.load(trail.id).status == "active"
    assert {s.id: s.status for s in folder.list()} == {trail.id: "active"}

    ballast.unlink()
    acknowledged.append(trail.note("there is space again"))
    other = folder.start("another")
    trail.complete("done")
    assert [e.id for e in folder.entries(trail.id) if e.type == "note"] == acknowledged
    assert {s.id: s.status for s in folder.list()} == {trail.id: "completed", other.id: "active"}
    assert_in_order(folder)


def test_a_disk_that_does_not_confirm_is_reported(folder, monkeypatch):
    trail = folder.start("failing disk")
    real = os.fdatasync

    def fail(fd):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(TrailError, match="the disk did not confirm what was written: Input/output error"):
        trail.note("is it there?")
    with pytest.raises(TrailError, match="did not confirm"):
        trail.complete("is it there?")
    with pytest.raises(TrailError, match="did not confirm"):
        folder.start("is it there?")
    monkeypatch.setattr(os, "fdatasync", real)
    assert [s.title for s in folder.list()] == ["failing disk"], "a start that failed is taken back"
    with pytest.raises(TrailEnded):
        trail.complete("again")  # it was there
    assert_in_order(folder)


def test_each_acknowledged_event_was_synced_first(folder, monkeypatch):
    synced, real = [], os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda fd: (real(fd), synced.append(os.fstat(fd).st_size)))
    trail = folder.start("durable")
    for i in range(3):
        trail.note(f"number {i}")
        assert synced[-1] == (folder.root / "active" / f"{trail.id}.jsonl").stat().st_size
    trail.complete("done")
    (path,) = folder.root.glob("completed/*/*.jsonl")
    assert synced[-1] == path.stat().st_size
    assert len(synced) == 5
    assert json.loads(path.read_bytes().splitlines()[-1])["type"] == "trail_completed"
