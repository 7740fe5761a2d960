"""What a crash, git or another tool left half-done: found without a change, finished in the one right way."""

import contextlib
import os
import shutil

import pytest

from holdfast import faults
from holdfast.testing import ManualClock
from holdfast.trail import TrailFolder, doctor, ids


def told(folder):
    return [event.content for line in folder.list() for event in folder.load(line.id).events]


def files(folder):
    return {
        str(path.relative_to(folder.root)): path.read_bytes()
        for path in folder.root.rglob("*")
        if path.is_file()
    }


def mended(folder, *texts):
    """Diagnose says it and changes nothing; reconcile says the same and does it; then there is nothing to say."""
    before = files(folder)
    found = doctor.diagnose(folder)
    assert files(folder) == before
    assert len(found.mended) == len(texts), found.mended
    for text, said in zip(sorted(texts), sorted(found.mended), strict=True):
        assert text in said
    done = folder.reconcile()
    assert done.mended == found.mended
    assert doctor.diagnose(folder).mended == []
    return done


@pytest.fixture
def trail(folder):
    with folder.start("A", agent="ana") as trail:
        trail.note("1")
    return trail


def journal_of(folder, trail):
    return folder.root / folder.files.places.find(trail.id).journals[0]


def test_a_folder_in_order_is_counted_and_left_as_it_is(folder, trail):
    folder.start("B").complete(summary="s")
    before = files(folder)
    for look in (doctor.diagnose, doctor.reconcile):
        found = look(folder)
        assert (found.scanned, found.added, found.already_indexed) == (2, 0, 2)
        assert (found.malformed, found.schema, found.io, found.failures, found.mended) == (0, 0, 0, [], [])
    assert files(folder) == before


def test_a_folder_that_is_not_there_is_empty_and_stays_so_when_it_is_only_looked_at(folder):
    assert doctor.diagnose(folder) == doctor.Reconciled()
    assert not folder.root.exists()
    assert folder.reconcile() == doctor.Reconciled()


def test_trails_that_the_index_lacks_are_counted_as_added(folder, trail):
    folder.start("B")
    (folder.root / "index.json").unlink()
    found = mended(folder, "index.json: missing: made again")
    assert (found.added, found.already_indexed) == (2, 0)
    assert folder.reconcile().already_indexed == 2


def test_entries_of_the_index_for_trails_that_are_gone_are_removed(folder, trail):
    for path in folder.root.glob(f"active/{trail.id}.*"):
        path.unlink()
    mended(folder, f"named {trail.id}, which is not there")
    assert folder.list() == []


def test_what_an_ended_writer_left_is_finished(folder, trail):
    """Killed between the line of the end and its place: as an older version, or a copy by hand, leaves it."""
    place = journal_of(folder, trail)
    trail.complete(summary="s")
    shutil.move(journal_of(folder, trail), place)
    mended(folder, f"active/{trail.id}.jsonl: moved to completed/")
    assert [line.path.startswith("completed/") for line in folder.list()] == [True]


def test_a_trail_that_was_moved_but_not_ended_is_active_and_goes_back(folder, trail):
    class Crash(BaseException):
        pass

    def crash():
        raise Crash

    faults.arm("trail.end.moved", crash)
    with pytest.raises(Crash):
        trail.complete(summary="s")
    faults.disarm()
    assert any("moved to active" in text for text in folder.reconcile().mended)
    assert doctor.diagnose(folder).mended == []
    assert journal_of(folder, trail).parent.name == "active"
    trail.note("2")
    trail.complete(summary="s")
    assert told(folder) == ["1", "2"]


def test_an_ended_trail_stands_in_the_month_of_its_end(tmp_path):
    clock = ManualClock()
    folder = TrailFolder(tmp_path / ".trajectories", clock=clock)
    trail = folder.start("A")
    trail.complete(summary="s")
    right = journal_of(folder, trail)
    wrong = folder.root / "completed" / "1999-12" / right.name
    wrong.parent.mkdir()
    right.rename(wrong)
    mended(folder, f"moved to completed/{right.parent.name}")
    assert journal_of(folder, trail) == right


def test_two_journals_of_one_trail_become_one_that_holds_all(folder, trail):
    """A branch that ended it, merged into one that went on."""
    copy = folder.root / "kept"
    shutil.copy(journal_of(folder, trail), copy)
    trail.note("2, then the end")
    trail.complete(summary="s")
    back = folder.root / "active" / f"{trail.id}.jsonl"
    copy.rename(back)
    folder_of_branch = TrailFolder(folder.root, redact=None)
    with back.open("ab") as file:
        line = b'{"id":"evt_branch","seq":9,"type":"note","occurred_at":"2026-01-31T09:00:00Z",'
        file.write(line + b'"recorded_at":"2099-01-31T09:00:00Z","data":{"content":"3, on the branch"}}\n')
    mended(folder_of_branch, f"active/{trail.id}.jsonl: a second journal of the trail")
    assert told(folder) == ["1", "2, then the end", "3, on the branch"]
    assert not back.exists()
    assert [event.late for event in folder.load(trail.id).events] == [False, False, True]


def test_journals_that_hold_nothing_are_removed_and_torn_ends_set_aside(folder, trail):
    empty = folder.root / "active" / f"{ids.trail_id()}.jsonl"
    empty.touch()
    begun = folder.root / "active" / f"{ids.trail_id()}.jsonl"
    begun.write_bytes(b'{"id":"evt')
    path = journal_of(folder, trail)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"id":"evt_x","se')
    found = mended(
        folder,
        f"active/{empty.name}: empty",
        f"active/{begun.name}: empty",
        f"active/{begun.name}: its last line was cut off",
        f"active/{path.name}: its last line was cut off by a crash: 17 bytes set aside",
    )
    assert found.failures == []
    assert not empty.exists()
    assert not begun.exists()
    assert path.read_bytes() == whole
    assert path.with_name(path.name + ".torn-1").read_bytes() == b'{"id":"evt_x","se'
    assert begun.with_name(begun.name + ".torn-1").read_bytes() == b'{"id":"evt'


def test_temporary_files_of_dead_writers_are_removed(folder, trail):
    for name in ("index.json.1.ab.tmp", f"active/{trail.id}.json.1.ab.tmp"):
        (folder.root / name).write_text("{")
    mended(
        folder, "index.json.1.ab.tmp: left by a writer", f"active/{trail.id}.json.1.ab.tmp: left by a writer"
    )
    assert not list(folder.root.rglob("*.tmp"))


def test_stale_and_missing_records_and_pages_are_made_again(folder, trail):
    done = folder.start("B")
    done.complete(summary="s")
    record, page = (folder.root / "active" / f"{trail.id}{end}" for end in (".json", ".md"))
    right = record.read_bytes(), page.read_bytes()
    record.write_text('{"torn')
    page.unlink()
    folder.reconcile()
    assert (record.read_bytes(), page.read_bytes()) == right
    page.write_text("stale")
    folder.reconcile()
    assert page.read_bytes() == right[1]


def test_rebuild_makes_all_that_is_derived_anew_and_the_same(folder, trail):
    folder.start("B").complete(summary="s")
    before = files(folder)
    derived = [path for path in folder.root.rglob("*") if path.suffix in (".json", ".md")]
    for path in derived:
        path.unlink()
    doctor.rebuild(folder)
    after = files(folder)
    for name in before.keys() - {"index.json", ".lock"}:
        assert after[name] == before[name], name
    with contextlib.ExitStack() as held:
        # Open, so that no new file is given the number of an old one.
        old = {path: held.enter_context(path.open()) for path in derived}
        doctor.rebuild(folder)
        for path, file in old.items():
            assert not os.path.samestat(os.fstat(file.fileno()), path.stat()), f"{path} was left as it was"


def test_quarantine_keeps_the_place_and_overwrites_nothing(folder, trail):
    bad = folder.root / "completed" / "2026-01" / "traj_x.json"
    bad.parent.mkdir(parents=True)
    for n, name in enumerate(("traj_x.json", "traj_x.json.1", "traj_x.json.2")):
        bad.write_text(f"bad {n}")
        [moved] = doctor.quarantine(folder)
        assert (moved.path, moved.reason) == ("completed/2026-01/traj_x.json", "malformed")
        assert moved.moved_to == f"invalid/completed/2026-01/{name}"
    kept = folder.root / "invalid" / "completed" / "2026-01"
    assert [path.read_text() for path in sorted(kept.iterdir())] == ["bad 0", "bad 1", "bad 2"]
    assert doctor.quarantine(folder) == []
    assert told(folder) == ["1"]


def test_quarantine_waits_for_a_writer_and_loses_none_of_its_lines(folder, trail):
    path = journal_of(folder, trail)
    with path.open("ab") as file:
        file.write(b"bad\n")
    trail.note("2")
    [moved] = doctor.quarantine(folder)
    assert (folder.root / moved.moved_to).read_bytes() == b"bad\n"
    trail.note("3")
    assert told(folder) == ["1", "2", "3"]
