"""Two copies of a journal, merged in any way, are the same trail: by hand, by `absorb`, and by git."""

import json
import os
import shutil
import subprocess
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trail_kit import assert_in_order, index_of

from holdfast.trail import TrailFolder, journal, lock
from holdfast.trail import entry as line
from holdfast.trail.fold import fold
from holdfast.trail.record import to_record

ID = "traj_merged"
MINUTE = 60_000_000


@st.composite
def histories(draw):
    """The entries of a trail, with chapters and ends, and many at the same instant."""
    agents = st.sampled_from(["ana", "ben"])
    chapters = st.sampled_from([None, "chap_a", "chap_b"])
    first = line.new("evt_0", "trail_started", {"title": "merged"}, occurred_at=MINUTE, agent="ana", seq=1)
    entries = [first]
    at = MINUTE
    for number in range(1, draw(st.integers(1, 12))):
        at += draw(st.sampled_from([0, 0, 1, MINUTE]))
        kind = draw(
            st.sampled_from(
                ["note", "note", "chapter_opened", "chapter_closed", "trail_completed", "trail_abandoned"]
            )
        )
        data = {
            "note": {"content": f"number {number}"},
            "chapter_opened": {"title": f"chapter {number}"},
            "trail_completed": {"summary": f"ended {number}", "approach": "a"},
            "trail_abandoned": {"reason": f"because {number}"},
        }.get(kind, {})
        chapter = draw(chapters) if kind in ("note", "chapter_opened", "chapter_closed") else None
        entries.append(
            line.new(
                f"evt_{draw(st.integers(0, 9))}{number}",
                kind,
                data,
                occurred_at=at,
                agent=draw(agents),
                chapter=chapter,
                seq=draw(st.integers(number, number + 1)),
            )
        )
    return entries


def told(entries):
    return to_record(fold(ID, entries))


def write(path, entries, end=b"\n"):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(b"".join(map(line.encode, entries)).removesuffix(b"\n") + end)


def parts(data, entries):
    """The entries in two sets that may overlap, each in any order and with doubles."""
    one = [e for e in entries if data.draw(st.booleans()) or e is entries[0]]
    other = [e for e in entries if e not in one or data.draw(st.booleans()) or e is entries[0]]
    for part in (one, other):
        part += data.draw(st.lists(st.sampled_from(part), max_size=4))
    return data.draw(st.permutations(one)), data.draw(st.permutations(other))


@given(histories(), st.data())
def test_any_order_and_doubling_of_the_lines_is_the_same_trail(entries, data):
    doubled = entries + data.draw(st.lists(st.sampled_from(entries), max_size=6))
    lines = [line.encode(entry) for entry in data.draw(st.permutations(doubled))]
    assert told(journal.parse(b"".join(lines)).entries) == told(entries)


@given(histories(), st.data())
def test_a_union_of_any_two_parts_is_the_whole(entries, data):
    one, other = parts(data, entries)
    assert told([*one, *other]) == told([*other, *one]) == told(entries)


@given(histories(), st.data())
def test_two_journals_that_are_made_one_are_the_union_of_their_lines(tmp_path_factory, entries, data):
    folder = tmp_path_factory.mktemp("merge")
    one, other = (str(folder / name) for name in ("one.jsonl", "other.jsonl"))
    for path, part in zip((one, other), parts(data, entries), strict=True):
        write(path, part, data.draw(st.sampled_from([b"\n", b""])))
    journal.merge(one, [other], timeout=1)
    assert journal.merge(one, [other], timeout=1) == 0, "a second time there is nothing new"
    journal.merge(other, [one], timeout=1)
    merged = [journal.read(path) for path in (one, other)]
    assert [(r.bad, r.torn) for r in merged] == [([], b"")] * 2
    assert {e.id for e in merged[0].entries} == {e.id for e in entries}
    assert told(merged[0].entries) == told(merged[1].entries) == told(entries)
    shutil.rmtree(folder)


def test_of_two_versions_of_a_line_one_counts_wherever_they_stand():
    first = line.new("evt_0", "trail_started", {"title": "merged"}, occurred_at=MINUTE, seq=1)
    note, other = (
        line.new("evt_1", "note", {"content": text}, occurred_at=MINUTE, seq=2)
        for text in ("[redacted]", "x")
    )
    assert told([first, note, other]) == told([other, note, first])


def test_a_trail_with_two_journals_is_read_as_one_and_made_one_at_its_end(folder):
    trail = folder.start("two journals")
    active = folder.root / "active" / f"{trail.id}.jsonl"
    copy = folder.root / "completed" / "2020-01" / active.name
    copy.parent.mkdir(parents=True)
    shutil.copy(active, copy)
    trail.note("here or there")
    with active.open("ab") as file:
        entry = line.new("evt_x", "note", {"content": "in the other"}, occurred_at=MINUTE, seq=2)
        file.write(line.encode(entry))
    assert len(folder.entries(trail.id)) == 3
    folder.open(trail.id).complete("one again")
    assert {e.data.get("content") for e in folder.entries(trail.id) if e.type == "note"} == {
        "here or there",
        "in the other",
    }
    assert len(list(folder.root.rglob("*.jsonl"))) == 1
    assert index_of(folder)[trail.id]["status"] == "completed"


def test_folders_copied_onto_each_other_hold_the_trails_of_both(tmp_path, folder):
    shared = folder.start("in both")
    shared.note("before")
    other = TrailFolder(tmp_path / "elsewhere" / ".trajectories", redact=None)
    shutil.copytree(folder.root, other.root)
    mine, theirs = folder.start("mine"), other.start("theirs")
    other.open(shared.id).complete("ended elsewhere")
    shared.note("meanwhile")
    shutil.copytree(other.root, folder.root, dirs_exist_ok=True)
    statuses = {s.id: s.status for s in folder.list()}
    assert statuses == {shared.id: "completed", mine.id: "active", theirs.id: "active"}
    entries = folder.entries(shared.id)
    assert [e.data.get("content") for e in entries if e.type == "note"] == ["before", "meanwhile"]
    assert [e.type for e in entries].count("trail_completed") == 1


# ---- git ----------------------------------------------------------------------------------------------------


class Repository:
    """A checkout with a folder of trails."""

    def __init__(self, root):
        self.root = root
        self.folder = TrailFolder(root / ".trajectories", redact=None)
        self.git("init", "--quiet", "--initial-branch=main")
        for key, value in (("user.name", "t"), ("user.email", "t@example.org"), ("commit.gpgsign", "false")):
            self.git("config", key, value)

    def git(self, *words, check=True):
        clean = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
        environment = {**clean, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        return subprocess.run(
            ["git", *words], cwd=self.root, env=environment, check=check, capture_output=True, text=True
        )

    def commit(self, message):
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)

    def branches(self, ours, theirs):
        """Do one thing on each of two branches, and merge them; git's answer."""
        self.git("checkout", "--quiet", "-b", "theirs")
        theirs()
        self.commit("theirs")
        self.git("checkout", "--quiet", "main")
        ours()
        self.commit("ours")
        return self.git("merge", "--quiet", "--no-edit", "theirs", check=False)


@pytest.fixture
def repository(tmp_path):
    if shutil.which("git") is None:
        pytest.skip("no git here")
    root = tmp_path / "repository"
    root.mkdir()
    return Repository(root)


def begun(repository):
    trail = repository.folder.start("shared", agent="ana")
    for i in range(5):
        trail.note(f"before {i}")
    repository.folder.settle(trail.id)
    repository.commit("begun")
    return trail.id


def noting(repository, id, text, more=None):
    def act():
        trail = TrailFolder(repository.folder.root, redact=None).open(id, agent=text)
        for i in range(3):
            trail.note(f"{text} {i}")
        if more is not None:
            more(trail)
        repository.folder.settle(id)

    return act


def assert_is_union(repository, id, *expected):
    folder = TrailFolder(repository.folder.root, redact=None)
    entries = folder.entries(id)
    notes = [e.data["content"] for e in entries if e.type == "note"]
    assert sorted(notes) == sorted(f"{text} {i}" for text, n in expected for i in range(n))
    assert len({e.id for e in entries}) == len(entries)
    assert all(earlier.rank < later.rank for earlier, later in pairwise(entries))
    for reading in (journal.read(str(path)) for path in folder.root.rglob("*.jsonl")):
        assert (reading.bad, reading.torn) == ([], b"")
    return folder


ALL = (("before", 5), ("ours", 3), ("theirs", 3))


def test_both_branches_append(repository):
    id = begun(repository)
    merged = repository.branches(noting(repository, id, "ours"), noting(repository, id, "theirs"))
    assert merged.returncode == 0, merged.stdout + merged.stderr
    folder = assert_is_union(repository, id, *ALL)
    assert {s.id: s.status for s in folder.list()} == {id: "active"}
    folder.open(id).note("after 0")
    assert_is_union(repository, id, *ALL, ("after", 1))
    folder.settle(id)  # git's union of two records was none; it is derived again
    record = json.loads((folder.root / "active" / f"{id}.json").read_bytes())
    assert sum(len(chapter["events"]) for chapter in record["chapters"]) == 12


def test_one_branch_completes_while_the_other_appends(repository):
    id = begun(repository)
    merged = repository.branches(
        noting(repository, id, "ours", lambda trail: trail.complete("done here")),
        noting(repository, id, "theirs"),
    )
    if merged.returncode:  # git may not see that the file was moved; then it leaves both, for us to decide
        repository.commit("both")
    folder = assert_is_union(repository, id, *ALL)
    assert {s.id: s.status for s in folder.list()} == {id: "completed"}
    assert folder.load(id).retrospective.summary == "done here"
    assert not (folder.root / "active" / f"{id}.json").exists()
    folder.open(id, late=True).note("after 0")
    assert_is_union(repository, id, *ALL, ("after", 1))


def test_both_branches_complete(repository):
    id = begun(repository)
    merged = repository.branches(
        noting(repository, id, "ours", lambda trail: trail.complete("by us")),
        noting(repository, id, "theirs", lambda trail: trail.abandon("by them")),
    )
    assert merged.returncode == 0, merged.stdout + merged.stderr
    folder = assert_is_union(repository, id, *ALL)
    trail = folder.load(id)
    assert (trail.status, trail.abandon_reason) == ("abandoned", "by them"), "the first end stands"
    assert [e.type for e in folder.entries(id)].count("trail_completed") == 1, "the second one is kept"
    assert {s.id: s.status for s in folder.list()} == {id: "abandoned"}
    assert index_of(folder)[id]["status"] == "abandoned"
    record = json.loads((folder.root / index_of(folder)[id]["path"]).read_bytes())
    assert record["status"] == "abandoned", "what was derived on both branches is derived again"


def test_each_branch_begins_its_own(repository):
    begun(repository)
    merged = repository.branches(
        lambda: repository.folder.start("ours").note("x"), lambda: repository.folder.start("theirs").note("x")
    )
    assert merged.returncode == 0, merged.stdout + merged.stderr
    folder = TrailFolder(repository.folder.root, redact=None)
    assert {s.title for s in folder.list()} == {"shared", "ours", "theirs"}
    assert_in_order(folder)


def test_a_checkout_of_another_branch_is_seen_at_once(repository):
    id = begun(repository)
    repository.git("checkout", "--quiet", "-b", "other")
    repository.folder.open(id).complete("on the other branch")
    repository.commit("ended")
    assert [s.status for s in repository.folder.list()] == ["completed"]
    repository.git("checkout", "--quiet", "main")
    assert [s.status for s in repository.folder.list()] == ["active"]
    assert index_of(repository.folder)[id]["status"] == "active"
    repository.git("checkout", "--quiet", "other")
    assert [s.status for s in repository.folder.list()] == ["completed"]


def test_git_tracks_journals_and_not_what_is_of_one_machine(repository):
    id = begun(repository)
    repository.folder.list()
    tracked = repository.git("ls-files").stdout.split()
    assert {name.removeprefix(".trajectories/") for name in tracked} == {
        ".gitattributes",
        ".gitignore",
        f"active/{id}.json",
        f"active/{id}.jsonl",
        f"active/{id}.md",
    }
    assert repository.git("status", "--porcelain").stdout == ""


def test_entries_that_another_told_first_are_counted_by_that_one(tmp_path, monkeypatch):
    """A new journal can be found, locked and filled by another before whoever made it has locked it."""
    first = line.new(
        "evt_0", "trail_started", {"title": "told twice"}, occurred_at=MINUTE, agent="ana", seq=1
    )
    note = line.new("evt_1", "note", {"content": "so it is"}, occurred_at=MINUTE, agent="ana", seq=2)
    mine, theirs = TrailFolder(tmp_path), TrailFolder(tmp_path)
    counts = []
    wait = lock._wait

    def after_another(fd, path, timeout):
        if path.endswith(f"{ID}.jsonl") and not counts:
            counts.append(0)
            counts[0] = theirs.files.merge(ID, [first])
        wait(fd, path, timeout)

    monkeypatch.setattr(lock, "_wait", after_another)
    counts.append(mine.absorb(ID, [first, note]))
    assert counts == [1, 1]
    assert [entry.id for entry in mine.entries(ID)] == ["evt_0", "evt_1"]
