"""Many writers at once lose nothing: threads, processes, and both in one folder.

Rows T-01, T-02, T-03, T-06 and T-07: what other tools lose here, 60 to 99 of 100 saves, was measured.
"""

import contextlib
import errno
import json
import os
import threading
from collections import Counter
from pathlib import Path

import pytest
from patience import PATIENCE
from trail_kit import assert_in_order, at_once, index_of, wait_for_a_waiter, wait_until

from holdfast import faults
from holdfast.errors import TrailEnded, TrailLocked, TrailNotFound
from holdfast.trail import TrailFolder, journal, lock, places


def test_twenty_saves_at_once_in_one_process_are_all_in_the_index(folder, caplog):
    ids = set()
    for round in range(8):
        started = at_once(*[lambda i=i, r=round: folder.start(f"{r}.{i}").id for i in range(20)])
        assert all(isinstance(id, str) for id in started), started
        ids.update(started)
        assert set(index_of(folder)) == ids
    assert_in_order(folder)
    assert not caplog.records


def test_each_save_is_in_the_index_when_it_returns(folder):
    def start(i):
        id = folder.start(f"number {i}").id
        return id in index_of(folder)

    assert at_once(*[lambda i=i: start(i) for i in range(20)]) == [True] * 20


def test_eight_processes_begin_fifty_trails_each_in_a_folder_that_does_not_exist(folder, writer):
    watcher = writer("watch")
    writers = [writer("begin", 50, f"agent-{n}") for n in range(8)]
    for process in (watcher, *writers):
        assert process.line() == "ready"
    assert not folder.root.exists()
    for process in (watcher, *writers):
        process.go()
    ids = [id for process in writers for id in process.finish()]
    watcher.go()
    *torn, seen = watcher.finish()
    assert len(set(ids)) == 400
    assert torn == []
    assert int(seen.split()[1]) > 100, "the reader has read"
    assert set(index_of(folder)) == set(ids)
    assert_in_order(folder)


def test_eight_processes_write_fifty_events_each_into_one_trail(folder, writer):
    id = folder.start("shared").id
    writers = [writer("tell", id, 50, f"agent-{n}") for n in range(8)]
    for process in writers:
        assert process.line() == "ready"
    for process in writers:
        process.go()
    told = [line for process in writers for line in process.finish()]
    entries = folder.entries(id)
    assert sorted(told) == sorted(e.data["content"] for e in entries[1:])
    assert len(set(told)) == 400
    assert [e.seq for e in entries] == list(range(1, 402))
    for agent in {e.agent for e in entries[1:]}:
        own = [e.data["content"] for e in entries if e.agent == agent and e.type == "note"]
        assert own == [f"{agent} {i}" for i in range(50)], "nobody's events change places"


def test_threads_and_handles_on_one_trail_share_it_without_loss(folder):
    trail = folder.start("shared")
    handles = [trail, trail, folder.open(trail.id), TrailFolder(folder.root, redact=None).open(trail.id)]

    def tell(n, handle):
        return [handle.note(f"{n} {i}") for i in range(25)]

    told = [
        id for ids in at_once(*[lambda n=n, h=h: tell(n, h) for n, h in enumerate(handles)]) for id in ids
    ]
    entries = folder.entries(trail.id)
    assert sorted(told) == sorted(e.id for e in entries[1:])
    assert [e.seq for e in entries] == list(range(1, 102))


def test_delete_reconcile_save_and_complete_at_once(folder, writer):
    doomed, ending, steady = ([folder.start(f"{kind} {i}").id for i in range(10)] for kind in "des")
    writers = [
        writer("delete", *doomed),
        writer("note", *doomed),
        writer("end", *ending),
        writer("begin", 10, "new"),
        writer("note", *steady),
        writer("look", 10),
    ]
    for process in writers:
        assert process.line() == "ready"
    for process in writers:
        process.go()
    gone, lost, ended, new, noted, looked = (process.finish() for process in writers)
    assert gone == doomed
    assert {line.split()[0] for line in lost} <= set(doomed)
    assert ended == [f"{id} won" for id in ending]
    assert looked == ["looked"]
    assert {s.id: s.status for s in folder.list()} == (
        dict.fromkeys(ending, "completed") | dict.fromkeys(steady, "active") | dict.fromkeys(new, "active")
    )
    counts = Counter(line.split()[0] for line in noted)
    assert all(len(folder.entries(id)) == 1 + counts[id] for id in steady)
    folder.files.refresh(steady)
    assert_in_order(folder)


def test_of_two_completes_at_once_one_wins(folder, writer):
    ids = [folder.start(f"number {i}").id for i in range(12)]
    first, second = writer("end", *ids), writer("end", *ids)
    for process in (first, second):
        assert process.line() == "ready"
    for process in (first, second):
        process.go()
    outcomes = [*first.finish(), *second.finish()]
    assert Counter(outcomes) == Counter([f"{id} {how}" for id in ids for how in ("won", "ended")])
    for id in ids:
        assert [e.type for e in folder.entries(id)] == ["trail_started", "trail_completed"]
    assert_in_order(folder)


def test_threads_that_complete_and_abandon_at_once_leave_one_end(folder):
    for round in range(5):
        trail = folder.start(f"round {round}")
        others = [folder.open(trail.id) for _ in range(4)]
        outcomes = at_once(
            lambda t=trail: t.complete("done"),
            *[lambda t=t: t.abandon("given up") for t in others],
        )
        assert sum(outcome is None for outcome in outcomes) == 1
        assert sum(isinstance(outcome, TrailEnded) for outcome in outcomes) == 4
        ended = "completed" if outcomes[0] is None else "abandoned"
        assert folder.load(trail.id).status == ended == index_of(folder)[trail.id]["status"]


def test_a_late_note_of_a_stale_session_is_kept_and_marked_and_does_not_reopen(folder):
    mine = folder.start("shared")
    stale = TrailFolder(folder.root, redact=None).open(mine.id)
    mine.complete("all done", confidence=0.9)
    event = stale.note("one more thing")

    trail = folder.load(mine.id)
    late = [e for chapter in trail.chapters for e in chapter.events if e.id == event]
    assert [(e.content, e.late) for e in late] == [("one more thing", True)]
    assert trail.status == "completed"
    assert trail.retrospective is not None
    assert trail.retrospective.summary == "all done"
    with pytest.raises(TrailEnded, match="an end stands"):
        stale.complete("again")
    assert index_of(folder)[mine.id]["status"] == "completed"
    assert not list(folder.root.glob("active/*"))
    folder.settle(mine.id)
    assert_in_order(folder)


# ---- two spellings ------------------------------------------------------------------------------------------


def test_all_spellings_of_a_folder_are_one_folder(tmp_path, folder, writer):
    folder.root.mkdir()
    (tmp_path / "link").symlink_to(folder.root)
    spellings = [
        (str(folder.root), {}),
        (".trajectories", {"cwd": tmp_path}),
        ("~/.trajectories", {"env": {"HOME": str(tmp_path)}}),
        (str(tmp_path / "link"), {}),
        (f"{tmp_path}/sub/../.trajectories/", {}),
    ]
    writers = [
        writer("begin", 8, f"agent-{n}", at=at, **options) for n, (at, options) in enumerate(spellings)
    ]
    for process in writers:
        assert process.line() == "ready"
    for process in writers:
        process.go()
    ids = [id for process in writers for id in process.finish()]
    assert len(ids) == 40
    assert set(index_of(folder)) == set(ids)
    assert_in_order(folder)


def test_a_lock_taken_by_one_spelling_keeps_out_the_other(tmp_path, folder):
    folder.root.mkdir()
    (tmp_path / "link").symlink_to(folder.root)
    other = TrailFolder(tmp_path / "link", redact=None, lock_timeout=0.02)
    with folder.files.locked(), pytest.raises(TrailLocked):
        other.start("kept out")


def cannot(path, data):
    raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))


# ---- chosen moments -----------------------------------------------------------------------------------------


def test_a_note_follows_a_journal_that_is_moved_while_it_waits(folder):
    trail = folder.start("moved")
    source = folder.root / "active" / f"{trail.id}.jsonl"
    target = folder.root / "completed" / "2020-01" / source.name
    target.parent.mkdir(parents=True)
    with lock.locked(str(source), journal.WRITE):
        thread = threading.Thread(target=trail.note, args=("while it moved",))
        thread.start()
        wait_for_a_waiter()
        source.rename(target)
    thread.join()
    assert not source.exists()
    assert [e.data.get("content") for e in journal.read(str(target)).entries] == [None, "while it moved"]


def test_a_note_into_a_trail_that_is_deleted_while_it_waits_is_refused(folder):
    trail = folder.start("deleted")
    path = folder.root / "active" / f"{trail.id}.jsonl"
    with lock.locked(str(path), journal.WRITE):
        answers = []
        thread = threading.Thread(target=lambda: answers.extend(at_once(lambda: trail.note("too late"))))
        thread.start()
        wait_for_a_waiter()
        folder.files.places.remove(trail.id, f"active/{trail.id}.jsonl")
    thread.join()
    assert [type(answer) for answer in answers] == [TrailNotFound]
    assert folder.list() == []
    assert not list(folder.root.glob("active/*"))


@pytest.mark.parametrize("step", range(4))
def test_a_delete_that_is_cut_off_leaves_the_trail_whole_or_nothing(folder, monkeypatch, step):
    folder.start("stays")
    trail = folder.start("deleted")
    trail.note("whole")
    unlink, left = os.unlink, [step]

    def cut_off(path):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        unlink(path)

    monkeypatch.setattr(os, "unlink", cut_off)
    with pytest.raises(KeyboardInterrupt) if step < 3 else contextlib.nullcontext():
        folder.delete(trail.id)
    monkeypatch.undo()
    again = TrailFolder(folder.root, redact=None)
    assert {s.title for s in again.list()} == {"stays", *(["deleted"] if step < 3 else [])}
    if step < 3:
        assert [e.type for e in again.entries(trail.id)] == ["trail_started", "note"]
        again.delete(trail.id)
    assert {path.stem for path in folder.root.glob("active/*")} == {again.list()[0].id}
    assert_in_order(again)


def test_a_note_that_comes_while_a_trail_ends_is_late_not_lost(folder):
    trail = folder.start("ending")
    other = folder.open(trail.id)
    notes = []

    def note():
        notes.append(other.note("just then"))

    thread = threading.Thread(target=note)

    def moved():
        thread.start()
        wait_for_a_waiter()  # it has found the journal at its new place, and waits for the one who ends it

    faults.arm("trail.end.moved", moved)
    trail.complete("done")
    thread.join()
    faults.disarm()
    entries = folder.entries(trail.id)
    assert [e.type for e in entries] == ["trail_started", "trail_completed", "note"]
    assert entries[-1].id == notes[0]
    assert folder.load(trail.id).status == "completed"


def test_a_reader_between_the_creation_of_a_journal_and_its_first_line_sees_nothing_and_says_nothing(
    folder, caplog
):
    other = TrailFolder(folder.root, redact=None)
    seen = []

    def look():
        faults.disarm()
        seen.append([s.id for s in other.list()])
        seen.append([s.id for s in other.list()])

    faults.arm("trail.append.before", look)
    id = folder.start("new").id
    assert seen == [[], []]
    assert [s.id for s in other.list()] == [id]
    assert_in_order(folder)
    assert not caplog.records


def test_a_reader_between_a_start_and_its_index_indexes_it(folder):
    other = TrailFolder(folder.root, redact=None)
    seen = []
    faults.arm("trail.create.after", lambda: seen.extend(s.id for s in other.list()))
    id = folder.start("new").id
    faults.disarm()
    assert seen == [id]
    assert_in_order(folder)


def test_no_writer_takes_a_living_writers_file_for_a_leftover(folder, monkeypatch):
    """Whoever holds the folder's lock sweeps temporary files away; so they are made under that lock alone."""
    other = TrailFolder(folder.root, redact=None, lock_timeout=0.02)
    real, refused, sweeping = os.replace, [], threading.Lock()

    def replace(source, target):
        if sweeping.acquire(blocking=False):  # not for the files that the sweeper itself writes
            try:
                other.files.refresh()
            except TrailLocked:
                refused.append(Path(target).name)
            finally:
                sweeping.release()
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    trail = folder.start("first")
    path = folder.root / "active" / f"{trail.id}.jsonl"
    with path.open("ab") as file:
        file.write(b'{"torn')
    trail.note("after a torn line")
    trail.complete("done")
    monkeypatch.undo()
    assert {".gitignore", ".gitattributes", "index.json", f"{trail.id}.json"} <= set(refused)
    assert [e.type for e in folder.entries(trail.id)] == ["trail_started", "note", "trail_completed"]


def test_a_start_that_cannot_be_indexed_leaves_no_trail_behind(folder):
    folder.start("first")
    hasty = TrailFolder(folder.root, redact=None, lock_timeout=0.02)
    with folder.files.locked():
        with pytest.raises(TrailLocked):
            hasty.start("second")
        assert [p.name for p in folder.root.glob("active/*.jsonl")] == [
            f"{id}.jsonl" for id in index_of(folder)
        ]
    assert [s.title for s in folder.list()] == ["first"]


def test_a_trail_is_not_taken_back_when_somebody_has_written_in_it(folder, monkeypatch):
    other = TrailFolder(folder.root, redact=None)
    hasty = TrailFolder(folder.root, redact=None, lock_timeout=0.02)
    noted = []

    def meanwhile():
        (id,) = [s.id for s in other.list()]
        noted.append((id, other.open(id).note("I have seen it")))

    holder = folder.files.locked()

    def between():
        faults.disarm()
        meanwhile()
        holder.__enter__()

    faults.arm("trail.create.after", between)
    with pytest.raises(TrailLocked):
        hasty.start("seen at once")
    holder.__exit__(None, None, None)
    ((id, event),) = noted
    assert [e.id for e in folder.entries(id)][1:] == [event], "what was acknowledged stays"


@pytest.mark.parametrize("nameless", [True, False], ids=["linux", "elsewhere"])
def test_a_start_that_is_taken_back_while_another_indexes_it_leaves_no_ghost(folder, monkeypatch, nameless):
    if not nameless:  # a system without files that have no name yet: who indexes a trail derives its record
        monkeypatch.setattr(places, "put", cannot)
    hasty = TrailFolder(folder.root, redact=None, lock_timeout=0.02)
    real, indexing, taken_back = os.replace, threading.Event(), threading.Event()

    def replace(source, target):
        if str(target).endswith(".json") and threading.current_thread() is indexer:
            indexing.set()  # it has read the journal, and is about to write the record
            assert taken_back.wait(PATIENCE)
        real(source, target)

    def begin():
        indexer.start()
        assert indexing.wait(PATIENCE)

    indexer = threading.Thread(target=folder.list)
    monkeypatch.setattr(os, "replace", replace)
    faults.arm("trail.create.after", begin)
    with pytest.raises(TrailLocked):
        hasty.start("taken back")
    taken_back.set()
    indexer.join()
    monkeypatch.undo()
    faults.disarm()
    assert folder.list() == []
    assert not list(folder.root.glob("active/*"))
    assert_in_order(folder)


def test_a_trail_has_its_record_and_page_where_no_file_can_be_made_without_a_name(folder, monkeypatch):
    ids = [folder.start("here").id]
    monkeypatch.setattr(places, "put", cannot)
    ids.append(folder.start("here").id)
    here, there = ({p.suffix: p.stat().st_size for p in folder.root.glob(f"active/{id}.*")} for id in ids)
    assert set(here) == {".jsonl", ".json", ".md"}
    assert here == there
    assert_in_order(folder)


def test_the_folder_is_renamed_as_the_npm_tool_does_while_writers_write(tmp_path, folder, writer):
    id = folder.start("shared").id
    writers = [writer("tell", id, 40, f"agent-{n}") for n in range(3)]
    for process in writers:
        assert process.line() == "ready"
    for process in writers:
        process.go()
    wait_until(lambda: len(folder.entries(id)) > 20, "some events")
    (tmp_path / ".agentworkforce").mkdir()
    os.rename(tmp_path / ".trajectories", tmp_path / ".agentworkforce" / "trajectories")
    told = [line for process in writers for line in process.finish()]
    assert len(told) == 120
    assert folder.root == tmp_path / ".agentworkforce" / "trajectories"
    assert not (tmp_path / ".trajectories").exists()
    assert sorted(told) == sorted(e.data["content"] for e in folder.entries(id)[1:])
    assert folder.start("later").id in index_of(folder)


def test_the_record_that_the_npm_tool_would_read_is_whole_json_at_each_moment(folder):
    trail = folder.start("watched")
    other = folder.open(trail.id)
    path = folder.root / "active" / f"{trail.id}.json"
    torn, stop = [], threading.Event()

    def watch():
        while not stop.is_set():
            try:
                json.loads(path.read_bytes())
            except ValueError as error:
                torn.append(error)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(30):
        other.note("x" * 4000)
        folder.settle(trail.id)
    stop.set()
    watcher.join()
    assert torn == []


def test_lines_that_another_absorbs_between_look_and_journal_count_once(folder, monkeypatch):
    """The other one has ended the trail and moved it: a second journal in `active` would tell it again."""
    source = TrailFolder(folder.root.parent / "source")
    with source.start("told elsewhere") as trail:
        trail.note("once")
        trail.complete("done")
    lines, adopt = source.entries(trail.id), folder.files.adopt

    def adopt_late(trail_id):
        found_none = adopt(trail_id)
        assert TrailFolder(folder.root).absorb(trail_id, lines) == len(lines)
        return found_none

    monkeypatch.setattr(folder.files, "adopt", adopt_late)
    assert folder.absorb(trail.id, lines) == 0
    (journal_,) = folder.root.rglob("*.jsonl")
    assert journal_.read_bytes().count(b"\n") == len(lines)
