"""The published schemas: current, kept by what we write, and of one mind with what we read."""

import copy
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from holdfast.errors import PayloadError
from holdfast.trail import entry
from holdfast.trail.model import Trail
from holdfast.trail.record import dump, from_record, parse, to_record
from holdfast.trail.schema import journal_schema, record_schema

sys.path.insert(0, str(Path(__file__).parent))
from generated import trails

PAGES = Path(__file__).parents[2] / "docs" / "reference"
spec = importlib.util.spec_from_file_location("make_trail_schema", PAGES / "make_trail_schema.py")
assert spec is not None
assert spec.loader is not None
make_trail_schema = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_trail_schema)

RECORD = Draft202012Validator(record_schema())
LINE = Draft202012Validator(journal_schema())

WHOLE: dict[str, Any] = {
    "id": "traj_ll9wfmjyttfd",
    "version": 1,
    "task": {"title": "Fix login", "source": {"system": "linear", "id": "ENG-1"}},
    "status": "completed",
    "startedAt": "2026-11-20T23:51:04.898Z",
    "completedAt": "2026-11-21T00:51:08.265+01:00",
    "agents": [{"name": "claude", "role": "lead", "joinedAt": "2026-11-20T23:51:04.952Z"}],
    "chapters": [
        {
            "id": "chap_rmzar2l6k7ue",
            "title": "Initial work",
            "agentName": "claude",
            "startedAt": "2026-11-20T23:51:04.952Z",
            "events": [
                {"ts": 1795218666483, "type": "decision", "content": "a", "raw": {}, "significance": "high"}
            ],
        }
    ],
    "retrospective": {
        "summary": "Added JWT",
        "confidence": 0.85,
        "decisions": [
            {
                "question": "q",
                "chosen": "c",
                "alternatives": ["x", {"option": "y", "reason": ""}],
                "reasoning": "",
            }
        ],
    },
    "commits": ["69673fe"],
    "filesChanged": ["a.txt"],
    "tags": [],
    "_trace": {"startRef": "1b8e", "endRef": "6967"},
}


@pytest.mark.parametrize("name", make_trail_schema.SCHEMAS)
def test_the_published_files_are_current(name: str) -> None:
    assert (PAGES / name).read_text("utf-8") == make_trail_schema.text(name), (
        "run `python docs/reference/make_trail_schema.py`"
    )
    Draft202012Validator.check_schema(json.loads((PAGES / name).read_text("utf-8")))


def test_nothing_of_our_own_shows_and_unknown_keys_are_allowed() -> None:
    text = json.dumps(record_schema())
    assert '" extra"' not in text
    assert '"$id"' not in text
    assert "additionalProperties" not in text
    assert all(part.get("title") and part.get("description") for part in record_schema()["$defs"].values())


def test_a_record_of_the_other_tool_is_valid_with_unknown_keys_at_each_level() -> None:
    RECORD.validate(WHOLE)
    more = copy.deepcopy(WHOLE)
    for node in _objects(more):
        node["unheardOf"] = {"deep": [1]}
    RECORD.validate(more)
    assert to_record(from_record(more))["chapters"][0]["events"][0]["unheardOf"] == {"deep": [1]}


@given(trails())
def test_what_is_written_is_valid_and_reads_back_the_same(trail: Trail) -> None:
    record = to_record(trail)
    RECORD.validate(record)
    assert from_record(parse(dump(record))) == trail
    assert from_record(parse(dump(record, indent=2))) == trail


WRONG = [
    ({"id": "traj_ABC"}, "id"),
    ({"id": "../x"}, "id"),
    ({"id": "traj_abc\n"}, "id"),
    ({"version": 2}, "version"),
    ({"status": "paused"}, "status"),
    ({"startedAt": "2026-11-20"}, "startedAt"),
    ({"startedAt": "2026-11-20T23:51:04"}, "startedAt"),
    ({"task": {"title": ""}}, "task.title"),
    ({"task": {"title": "x" * 501}}, "task.title"),
    ({"task": {}}, "task"),
    ({"agents": None}, "agents"),
    ({"agents": [{"name": "", "role": "lead", "joinedAt": "2026-11-20T23:51:04Z"}]}, "agents"),
    ({"retrospective": {"summary": "s", "confidence": 1.5}}, "confidence"),
    ({"retrospective": {"summary": "s", "decisions": [{"question": "q"}]}}, "chosen"),
    ({"_trace": {"startRef": ""}}, "startRef"),
]


@pytest.mark.parametrize(
    ("change", "where"), WRONG, ids=[f"{where}-{n}" for n, (_, where) in enumerate(WRONG)]
)
def test_a_wrong_record_is_refused_by_the_schema_as_by_the_reader(change: dict[str, Any], where: str) -> None:
    assert not RECORD.is_valid({**WHOLE, **change})
    with pytest.raises(PayloadError, match=where):
        from_record({**WHOLE, **change})


@pytest.mark.parametrize("key", ["id", "task", "status", "startedAt"])
def test_what_a_record_must_have(key: str) -> None:
    rest = {name: value for name, value in WHOLE.items() if name != key}
    assert not RECORD.is_valid(rest)
    with pytest.raises(PayloadError, match=key):
        from_record(rest)


STRANGE = [
    None,
    "",
    "x",
    0,
    -1,
    1,
    1.5,
    True,
    [],
    ["x"],
    [{}],
    {},
    "2026-01-31T09:00:00",
    "2026-01-31T09:00:00+02:00",
]


@given(st.data())
def test_schema_and_reader_agree_on_any_changed_record(data: st.DataObject) -> None:
    record = copy.deepcopy(WHOLE)
    for _ in range(data.draw(st.integers(1, 2))):
        node = data.draw(st.sampled_from(list(_objects(record))))
        key = data.draw(st.sampled_from([*sorted(node), "parent", "endedAt", "late", "seq", "confidence"]))
        if data.draw(st.booleans()):
            node.pop(key, None)
        else:
            node[key] = copy.deepcopy(data.draw(st.sampled_from(STRANGE)))
    try:
        from_record(copy.deepcopy(record))
        taken = True
    except PayloadError:
        taken = False
    assert RECORD.is_valid(record) is taken, [error.message for error in RECORD.iter_errors(record)]


def test_a_line_of_a_journal_is_valid_and_a_wrong_one_is_not() -> None:
    made = entry.new(
        "evt_1", "note", {"content": "x"}, occurred_at=1_795_218_666_483_000, agent="ben", chapter="c"
    )
    line = json.loads(entry.encode(made))
    LINE.validate(line)
    LINE.validate({**line, "unheardOf": 1})
    for wrong in ({"id": 5}, {"seq": "1"}, {"data": []}, {"occurred_at": "yesterday"}, {"recorded_at": None}):
        assert not LINE.is_valid({**line, **wrong})
        with pytest.raises(PayloadError):
            entry.decode(json.dumps({**line, **wrong}).encode())
    assert not LINE.is_valid({key: value for key, value in line.items() if key != "recorded_at"})


def _objects(node: Any) -> Iterator[dict[str, Any]]:
    """The objects of a record, but for what is inside of `raw`."""
    if isinstance(node, dict):
        yield node
        for key, value in list(node.items()):
            if key not in ("raw", "unheardOf"):
                yield from _objects(value)
    if isinstance(node, list):
        for each in node:
            yield from _objects(each)
