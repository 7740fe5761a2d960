"""Other tools' records: read from all the places where they ever stood, told as entries, and told once."""

import itertools
import json
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import records

from holdfast.errors import PayloadError, TrailIdError
from holdfast.trail import TrailFolder, dialect, ids, layouts, npm, record, retell
from holdfast.trail.fold import fold

ID = "traj_abc123def456"
OURS = ("id", "seq", "chapter", "occurredAt", "recordedAt", "origin")


def a_record(id=ID, **more):
    return {
        "id": id,
        "version": 1,
        "task": {"title": "Fix login"},
        "status": "active",
        "startedAt": "2026-01-31T09:00:00.000Z",
        "agents": [],
        "chapters": [],
    } | more


def with_events(*contents, id=ID, **more):
    events = [{"ts": 1769850000000 + i, "type": "note", "content": text} for i, text in enumerate(contents)]
    start = "2026-01-31T09:00:00.000Z"
    chapter = {"id": "chap_1", "title": "Work", "agentName": "ana", "startedAt": start, "events": events}
    return a_record(id, chapters=[chapter], **more)


def write(path: Path, data) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def plain(trail):
    """A record without what we add to events: ids, order and origin, which no other tool's record has."""
    data = record.to_record(trail)
    for chapter in data["chapters"]:
        for event in chapter["events"]:
            for key in OURS:
                event.pop(key, None)
    return data


def told(trail, origin="npm"):
    return list(retell.entries_of(trail, origin=origin))


def contents(trail):
    return [event.content for chapter in trail.chapters for event in chapter.events]


@contextmanager
def folders(count):
    """Folders on as many machines; hypothesis runs many examples in one test, so tmp_path will not do."""
    where = Path(tempfile.mkdtemp())
    try:
        yield [TrailFolder(where / str(n) / ".trajectories", redact=None) for n in range(count)]
    finally:
        shutil.rmtree(where)


# ---- the laws -----------------------------------------------------------------------------------------------


@given(records)
def test_a_record_told_as_entries_and_folded_is_the_record(data):
    trail = record.from_record(data)
    again = fold(trail.id, told(trail))
    assert plain(again) == plain(trail)
    assert record.to_record(fold(trail.id, told(again))) == record.to_record(again)


@given(records)
def test_unknown_keys_of_each_level_are_there_in_the_json_that_is_written(data):
    trail = record.from_record(data)
    written = json.loads(record.dump(record.to_record(fold(trail.id, told(trail)))))
    assert holds(written, data)


def holds(written, data):
    """Whether all of `data` is in `written`; times may be spelled otherwise, nothing and [] are the same."""
    if isinstance(data, dict):
        return all(key in ("seq", "origin") or holds(written.get(key), value) for key, value in data.items())
    if isinstance(data, list):
        written = written or []
        return len(data) == len(written) and all(map(holds, written, data))
    if isinstance(data, str) and isinstance(written, str) and data[:4] == "2020":
        return record.moment(data) == record.moment(written)
    return written == data


@given(records)
def test_for_the_npm_tool_and_back_it_is_the_same(data):
    trail = record.from_record(data)
    exported = json.loads(record.dump(dialect.to_npm(trail)))
    assert layouts.of_record(exported, "") == record.from_record(
        json.loads(record.dump(record.to_record(trail)))
    )


@given(records, st.randoms(use_true_random=False))
def test_the_order_of_the_lines_does_not_matter(data, random):
    trail = record.from_record(data)
    lines = told(trail)
    shuffled = random.sample(lines, len(lines))
    assert fold(trail.id, shuffled) == fold(trail.id, lines)


@given(records)
def test_told_again_there_is_nothing_new_in_it(data):
    trail = record.from_record(data)
    assert retell.new_in(trail, told(trail), origin="npm") == []


@given(records, records)
def test_a_record_that_has_grown_brings_what_is_new_and_that_only(data, more):
    """Ours is what the record said before; then the tool adds chapters, events, commits and an end."""
    data = data | {"status": "active"}
    data.pop("completedAt", None)
    before = record.from_record(data)
    grown = json.loads(json.dumps(data))
    have = {chapter["id"] for chapter in data["chapters"]}
    grown["chapters"] += [chapter for chapter in more["chapters"] if chapter["id"] not in have]
    for chapter in grown["chapters"][: len(data["chapters"])]:
        chapter["events"] += [event for other in more["chapters"] for event in other["events"]]
    grown |= {key: more[key] for key in ("status", "completedAt") if key in more}
    grown["commits"] = [*data.get("commits", []), "new commit"]
    after = record.from_record(grown)

    ours = told(before)
    new = retell.new_in(after, ours, origin="npm")
    both = fold(before.id, [*ours, *new])
    assert [contents_of(chapter) for chapter in both.chapters] == [contents_of(c) for c in after.chapters]
    assert both.status == after.status
    assert both.commits == after.commits
    assert retell.new_in(after, [*ours, *new], origin="npm") == []
    assert retell.new_in(before, [*ours, *new], origin="npm") == [], "and the old record brings nothing back"


def contents_of(chapter):
    return chapter.id, sorted((event.ts, event.type, event.content) for event in chapter.events)


@given(
    st.lists(st.sampled_from("ab"), max_size=4), st.lists(st.sampled_from("ab"), max_size=4), st.booleans()
)
def test_imported_on_two_machines_and_merged_nothing_is_there_twice(first, later, ends):
    """One machine imports the record when it is young and again when it has grown, the other one only then."""
    with folders(2) as (one, two):
        exchange = one.root.parent.parent / "npm"
        file = write(exchange / "active" / ID / "trajectory.json", with_events(*first))
        assert npm.import_folder(one, exchange).added == 1
        end = {"status": "completed", "completedAt": "2026-02-01T00:00:00.000Z"} if ends else {}
        write(file, with_events(*first, *later, **end))
        assert npm.import_folder(one, exchange).unchanged == (not later and not ends)
        assert npm.import_folder(two, exchange).added == 1
        one.absorb(ID, two.entries(ID))
        two.absorb(ID, one.entries(ID))
        for trail in (one.load(ID), two.load(ID)):
            assert contents(trail) == [*first, *later]
            assert trail.status == ("completed" if ends else "active")
        for folder in (one, two):
            assert npm.import_folder(folder, exchange).unchanged == 1


def test_of_the_same_words_at_the_same_instant_each_is_kept_in_its_place(folder):
    data = with_events()
    says = ["b", "a", "a", "c", "a"]
    data["chapters"][0]["events"] = [{"ts": 5, "type": "note", "content": text} for text in says]
    trail = record.from_record(data)
    assert contents(fold(ID, told(trail))) == says


def test_what_says_the_name_of_an_entry_is_an_event_all_the_same():
    data = with_events("a")
    data["chapters"][0]["events"] += [
        {"ts": 7, "type": "trail_completed", "content": "no end"},
        {"ts": 8, "type": "chapter_closed", "content": "no close"},
        {"ts": 9, "type": "trail_started", "content": "no start"},
    ]
    trail = fold(ID, told(record.from_record(data)))
    assert trail.status == "active"
    assert trail.chapters[0].ended_at is None
    assert [event.type for event in trail.chapters[0].events] == [
        "note",
        "trail_completed",
        "chapter_closed",
        "trail_started",
    ]


def test_two_chapters_of_one_id_and_two_events_of_one_id_keep_all_that_they_say():
    data = with_events("a")
    again = {"id": "x", "ts": 3, "type": "note", "content": "b"}
    data["chapters"].append({**data["chapters"][0], "events": [again, {**again, "content": "c"}]})
    trail = fold(ID, told(record.from_record(data)))
    assert [(c.id, [e.content for e in c.events]) for c in trail.chapters] == [
        ("chap_1", ["a"]),
        ("chap_1-2", ["b", "c"]),
    ]


# ---- the four layouts ---------------------------------------------------------------------------------------

PLACES = [
    "active/{id}.json",
    "active/{id}/trajectory.json",
    "completed/{id}.json",
    "completed/2026-01/{id}.json",
    "completed/2026-01/{id}/trajectory.json",
    "completed/a/b/{id}.json",
    "completed/a.b/{id}/trajectory.json",
]


@pytest.mark.parametrize("place", PLACES)
def test_a_record_is_read_where_it_stands_and_adopted_when_it_is_written_to(folder, place):
    status = {"status": "completed", "completedAt": "2026-01-31T23:59:59Z"} if "completed" in place else {}
    write(folder.root / place.format(id=ID), with_events("a", **status))
    assert [line.id for line in folder.list()] == [ID]
    assert contents(folder.load(ID)) == ["a"]
    assert folder.load(ID).chapters[0].events[0].origin == "record"
    folder.open(ID, late=True).note("b", agent="ben")
    assert contents(folder.load(ID)) == ["a", "b"]
    assert [line.status for line in folder.list()] == [status.get("status", "active")]
    assert folder.reconcile().failures == []
    folder.delete(ID)
    assert folder.list() == []


@pytest.mark.parametrize("index", [None, "", "{", "[]", "{}", "null", '{"version":1,"trajectories":{}}'])
@pytest.mark.parametrize("place", PLACES)
def test_a_record_is_imported_from_each_layout_with_and_without_an_index(folder, tmp_path, place, index):
    exchange = tmp_path / "npm"
    write(exchange / place.format(id=ID), with_events("a"))
    if index is not None:
        write(exchange / "index.json", index)
    assert npm.import_folder(folder, exchange).added == 1
    assert contents(folder.load(ID)) == ["a"]


def test_indexes_traces_and_markers_are_no_records(folder, tmp_path):
    exchange = tmp_path / "npm"
    names = [
        "index.json",
        f"{ID}.trace.json",
        "compaction.json",
        f"{ID}.compaction.json",
        f"{ID}/compaction.json",
    ]
    for name in names:
        write(exchange / "completed" / "2026-01" / name, {"version": 1})
        write(folder.root / "completed" / "2026-01" / name, {"version": 1})
    told = npm.import_folder(folder, exchange)
    assert (told.scanned, told.added, told.failures) == (0, 0, [])
    told = folder.reconcile()
    assert (told.scanned, told.failures) == (0, [])
    assert folder.list() == []


def test_a_trail_may_have_any_name_that_is_an_id_even_that_of_an_index(folder, tmp_path):
    write(tmp_path / "npm" / "active" / "traj_index.json", a_record("traj_index"))
    assert npm.import_folder(folder, tmp_path / "npm").added == 1
    assert [line.id for line in folder.list()] == ["traj_index"]


def test_of_two_records_of_one_trail_the_newest_says_what_it_is_everywhere_and_no_event_is_lost(folder):
    done = {"status": "completed", "completedAt": "2026-02-01T00:00:00Z", "tags": ["done"]}
    write(folder.root / "active" / ID / "trajectory.json", with_events("a", "late note of a stale session"))
    write(folder.root / "completed" / "2026-02" / f"{ID}.json", with_events("a", **done))
    assert [line.status for line in folder.list()] == ["completed"]
    trail = folder.load(ID)
    assert (trail.status, trail.tags) == ("completed", ["done"])
    assert contents(trail) == ["a", "late note of a stale session"]


def test_where_the_newest_is_torn_the_other_one_counts(folder):
    write(folder.root / "active" / f"{ID}.json", with_events("a"))
    write(folder.root / "completed" / "2026-02" / ID / "trajectory.json", '{"id":"traj')
    assert contents(folder.load(ID)) == ["a"]


def test_a_project_folder_stands_for_the_trails_in_it(folder, tmp_path):
    for place in (".trajectories", ".agentworkforce/trajectories"):
        project = tmp_path / f"project {len(place)}"
        write(project / place / "active" / f"{ID}.json", with_events(place))
        npm.import_folder(folder, project)
    assert contents(folder.load(ID)) == [".trajectories", ".agentworkforce/trajectories"]


def test_a_single_file_of_any_name_is_imported(folder, tmp_path):
    file = write(tmp_path / "saved from a mail.json", with_events("a"))
    assert npm.import_folder(folder, file).added == 1
    assert npm.import_folder(folder, str(file)).unchanged == 1


def test_journals_of_another_of_our_folders_are_merged(folder, tmp_path):
    other = TrailFolder(tmp_path / "other", redact=None)
    with other.start("There", agent="ana") as trail:
        trail.note("a")
    assert npm.import_folder(folder, other.root).added == 1
    assert folder.load(trail.id) == other.load(trail.id)
    folder.open(trail.id).note("here")
    trail.note("there")
    assert npm.import_folder(folder, other.root).updated == 1
    assert sorted(contents(folder.load(trail.id))) == ["a", "here", "there"]


def test_our_own_folder_is_not_imported_into_itself(folder):
    folder.start("x")
    with pytest.raises(Exception, match="expected another folder"):
        npm.import_folder(folder, folder.root)
    with pytest.raises(Exception, match="got nothing of that name"):
        npm.import_folder(folder, folder.root / "nowhere")


# ---- ids and legacy shapes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("id", ["traj_abc123def456", "traj_1775832005024_c2cf5052", "traj_x", "traj___"])
def test_ids_that_are_accepted(id):
    assert ids.checked(id) == id


@pytest.mark.parametrize(
    "id", ["traj_ABC", "traj_", "../evil", "traj_x/y", "", "traj_x\n", "traj_ä", "traj_" + "x" * 101, None, 3]
)
def test_ids_that_are_refused_before_any_path_is_built(folder, id):
    for call in (folder.open, folder.load, folder.delete, folder.entries, folder.settle):
        with pytest.raises(TrailIdError):
            call(id)
    assert not folder.root.exists()


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"content": "q: c"}, ("q", "c", "", [])),
        ({"content": "q → c: r"}, ("q", "c", "r", [])),
        ({"content": "only this"}, ("only this", "only this", "", [])),
        ({"content": "A: A", "raw": {"question": "A", "chosen": "A", "reasoning": ""}}, ("A", "A", "", [])),
        (
            {
                "content": "q: c",
                "raw": {"alternatives": ["a", {"option": "b"}, {"option": "d", "reason": "r"}]},
            },
            ("q", "c", "", ["a", "b", "d"]),
        ),
    ],
)
def test_decisions_of_every_age_are_read(event, expected):
    data = with_events("x")
    data["chapters"][0]["events"] = [{"ts": 1, "type": "decision", **event}]
    for trail in (record.from_record(data), fold(ID, told(record.from_record(data)))):
        [decision] = trail.decisions
        options = [other if isinstance(other, str) else other.option for other in decision.alternatives]
        assert (decision.question, decision.chosen, decision.reasoning, options) == expected


def test_what_the_npm_tool_says_of_an_end_that_stands_is_kept_as_said_late(folder, tmp_path):
    """Issue relay 1802: somebody else's `trail complete` ended a trail that its owner has ended, too."""
    with folder.start("Mine", agent="ana") as trail:
        trail.complete(summary="what I did")
    theirs = with_events(
        "a",
        id=trail.id,
        status="completed",
        completedAt="2099-01-01T00:00:00Z",
        retrospective={"summary": "what they did", "approach": "theirs", "confidence": 0.8},
    )
    write(tmp_path / "npm" / "completed" / "2099-01" / trail.id / "trajectory.json", theirs)
    for _ in range(2):
        npm.import_folder(folder, tmp_path / "npm")
        now = folder.load(trail.id)
        assert now.retrospective.summary == "what I did"
        late = [event.content for event in now.events if event.late]
        assert late == ["Completed again: what they did"]


def test_what_grew_at_the_top_of_a_record_is_taken_over(folder, tmp_path):
    with folder.start("Mine", agent="ana", start_ref="1111", tags=["t"]) as trail:
        trail.note("a")
    data = record.to_record(folder.load(trail.id)) | {
        "commits": ["abc"],
        "filesChanged": ["a.py"],
        "tags": ["t", "u"],
        "workflowId": "wf",
        "_trace": {"startRef": "1111", "endRef": "2222", "traceId": "uuid"},
        "theirs": 1,
    }
    write(tmp_path / "npm" / "active" / trail.id / "trajectory.json", data)
    assert npm.import_folder(folder, tmp_path / "npm").updated == 1
    now = folder.load(trail.id)
    assert (now.commits, now.files_changed, now.tags) == (["abc"], ["a.py"], ["t", "u"])
    assert (now.workflow_id, now.trace.end_ref, now.trace.trace_id) == ("wf", "2222", "uuid")
    assert now.extra == {"theirs": 1}
    assert npm.import_folder(folder, tmp_path / "npm").unchanged == 1


@pytest.mark.parametrize("ts", [0, -1, 1.5, "5", True, None, 10**18])
def test_times_that_are_none_are_refused_with_their_path(ts):
    data = with_events("a")
    data["chapters"][0]["events"][0]["ts"] = ts
    with pytest.raises(PayloadError, match=r"\$\.chapters\[0\]\.events\[0\]\.ts"):
        record.from_record(data)


def test_the_parts_of_a_record_in_any_order_of_import_are_one_trail(tmp_path):
    """Three states of one record, as three files: whichever comes first, the events are the same."""
    states = [with_events("a"), with_events("a", "b"), with_events("a", "b", "c")]
    seen = set()
    for n, order in enumerate(itertools.permutations(states)):
        folder = TrailFolder(tmp_path / str(n), redact=None)
        for state in order:
            npm.import_folder(folder, write(tmp_path / "one.json", state))
        seen.add(tuple(contents(folder.load(ID))))
    assert seen == {("a", "b", "c")}
