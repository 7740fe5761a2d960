from __future__ import annotations

import base64
import enum
import pathlib
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, TypedDict
from uuid import UUID

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.codec import MAX_DEPTH, payload_type
from holdfast.errors import PayloadError
from holdfast.schema import json_schema, validate


class Colour(enum.Enum):
    RED = "red"


class Inner(pydantic.BaseModel):
    x: int


class Model(pydantic.BaseModel):
    ok: bool
    inner: Inner
    many: list[Inner] = []


class Other(pydantic.BaseModel):
    inner: Inner


class Row(NamedTuple):
    when: datetime
    n: int = 0


class Options(TypedDict, total=False):
    a: int


class Record(msgspec.Struct, rename="camel"):
    first_name: str


@dataclass
class Approval:
    ok: bool
    by: str = ""
    amount: float = 0.0
    when: datetime | None = None
    colour: Colour = Colour.RED
    notes: list[str] = field(default_factory=list)


@dataclass
class Tree:
    when: datetime
    children: list[Tree] = field(default_factory=list)


@dataclass
class Mixed:
    model: Model
    other: Other
    tree: Tree


UUID_TEXT = str(UUID(int=3))
INNER = {"x": 1}
MODEL = {"ok": True, "inner": INNER}
TREE = {"when": "2026-01-01T00:00:00Z", "children": [{"when": "2026-01-01T00:00:00"}]}
CASES: list[tuple[Any, list[Any], list[Any]]] = [
    (int, [1, -5, 2**70], [1.0, 1.5, True, "1", None]),
    (float, [1, 1.5], [True, "1", None]),
    (str, ["", "x"], [1, None]),
    (bool, [True], [1, "yes", None]),
    (None, [None], [0, ""]),
    (bytes, [base64.b64encode(b"x").decode()], ["???", 5]),
    (datetime, ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00"], ["yesterday", 5]),
    (date, ["2026-01-01"], ["2026-13-01", 5]),
    (time, ["09:00:00"], ["9 o'clock"]),
    (timedelta, ["P1D"], ["one day"]),
    (UUID, [UUID_TEXT], ["x"]),
    (Decimal, ["1.50", 1.5, 3], ["x", True]),
    (Colour, ["red"], ["green", 1]),
    (Literal["a", 1], ["a", 1], ["b", 2, None]),
    (pathlib.Path, ["a/b"], [5]),
    (list[int], [[], [1]], [["a"], {}, "x"]),
    (list[datetime], [["2026-01-01T00:00:00Z"]], [["x"]]),
    (set[int], [[1, 1]], [["a"]]),
    (tuple[int, str], [[1, "a"]], [[1], [1, 2], [1, "a", 3]]),
    (dict[str, int], [{}, {"a": 1}], [{"a": "x"}, []]),
    (dict[int, str], [{"1": "a"}], [{"x": "a"}]),
    (dict[UUID, str], [{UUID_TEXT: "a"}], [{"x": "a"}]),
    (int | None, [1, None], ["x", 1.5]),
    (datetime | None, [None, "2026-01-01T00:00:00Z"], ["x", 5]),
    (datetime | int, [5, "2026-01-01T00:00:00Z"], ["x", 1.5]),
    (list[datetime] | dict[str, date], [["2026-01-01T00:00:00Z"], {"a": "2026-01-01"}], [["x"]]),
    (Approval, [{"ok": True}, {"ok": True, "more": 1}], [{}, {"ok": "yes"}, [], None]),
    (
        Approval,
        [{"ok": True, "when": None}],
        [{"ok": True, "when": "x"}, {"ok": True, "notes": [1]}],
    ),
    (Tree, [TREE], [{"when": "x"}, {**TREE, "children": [{"when": "x"}]}]),
    (Tree | None, [TREE, None], [{"when": "x"}]),
    (
        Row,
        [["2026-01-01T00:00:00Z"], ["2026-01-01T00:00:00Z", 1]],
        [[], ["x"], ["2026-01-01", "x"]],
    ),
    (Options, [{}, {"a": 1}], [{"a": "x"}]),
    (Record, [{"firstName": "a"}], [{"first_name": "a"}]),
    (Model, [MODEL, {**MODEL, "many": [INNER]}], [{"ok": True}, {**MODEL, "many": [{"x": "a"}]}]),
    (list[Model], [[MODEL]], [[{"ok": True, "inner": {}}]]),
    (
        Mixed,
        [{"model": MODEL, "other": {"inner": INNER}, "tree": TREE}],
        [{"model": MODEL, "other": {"inner": {"x": "a"}}, "tree": TREE}],
    ),
    (complex, [[1, 2.5]], [[1], "1j"]),
]
ACCEPTED = [(hint, item) for hint, good, _ in CASES for item in good]
REFUSED = [(hint, item) for hint, _, bad in CASES for item in bad]


def decodes(hint: Any, item: Any) -> bool:
    try:
        payload_type(hint).decode(msgspec.json.encode(item), "w")
    except PayloadError:
        return False
    return True


@pytest.mark.parametrize(("hint", "item"), ACCEPTED, ids=str)
def test_what_the_codec_reads_is_valid(hint: Any, item: Any) -> None:
    schema = json_schema(hint)
    assert schema is not None
    assert decodes(hint, item)
    validate(schema, item, "w")


@pytest.mark.parametrize(("hint", "item"), REFUSED, ids=str)
def test_what_the_codec_refuses_is_not(hint: Any, item: Any) -> None:
    schema = json_schema(hint)
    assert schema is not None
    assert not decodes(hint, item)
    with pytest.raises(PayloadError, match=r"^w: expected .*, got "):
        validate(schema, item, "w")


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"ok": "yes"}, "approve:1 payload: expected boolean, got string 'yes' - at `$.ok`"),
        ({}, "approve:1 payload: expected the property 'ok', got object {} - at `$`"),
        (
            {"ok": True, "notes": ["a", None]},
            "approve:1 payload: expected string, got null None - at `$.notes[1]`",
        ),
        (
            {"ok": True, "colour": "green"},
            "approve:1 payload: expected one of 'red', got string 'green' - at `$.colour`",
        ),
    ],
)
def test_messages_say_expected_got_and_path(item: Any, message: str) -> None:
    schema = json_schema(Approval)
    assert schema is not None
    with pytest.raises(PayloadError) as caught:
        validate(schema, item, "approve:1 payload")
    assert str(caught.value) == message


def test_no_schema_without_a_hint() -> None:
    assert json_schema(Any) is None
    assert json_schema(object) is None
    assert json_schema(Approval | Tree) is None


def test_a_schema_is_made_once_and_hints_that_are_equal_keep_their_order() -> None:
    """A hook that opens, or is replayed, must not pay for its schema again; the log says what the code says."""
    assert json_schema(Approval) is json_schema(Approval)
    one, other = json_schema(list[int | str]), json_schema(list[str | int])
    assert (list[int | str] == list[str | int], one == other) == (True, False)
    assert json_schema(Annotated[int, msgspec.Meta(ge=1), []]) is not None, "a hint that has no hash"


def test_a_schema_survives_storage() -> None:
    schema = json_schema(Mixed)
    assert msgspec.json.decode(msgspec.json.encode(schema)) == schema
    assert schema is not None
    assert schema["$schema"].endswith("2020-12/schema")


def test_tagged_payloads_are_valid_too() -> None:
    hint = Approval
    value = Approval(True, by="\ud800", amount=float("inf"), when=datetime(2026, 1, 1))
    schema = json_schema(hint)
    assert schema is not None
    raw = payload_type(hint).encode(value, "w")
    import json

    validate(schema, json.loads(raw), "w")
    with pytest.raises(PayloadError):
        validate(schema, {"ok": {"$type": "float", "value": "nan"}}, "w")


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abn"), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from([hint for hint, _, _ in CASES]), PLAIN)
def test_schema_and_codec_agree(hint: Any, item: Any) -> None:
    schema = json_schema(hint)
    assert schema is not None
    if hint in (Model, Inner, Mixed, list[Model], complex):  # pydantic coerces; schemas do not
        return
    try:
        validate(schema, item, "w")
        valid = True
    except PayloadError:
        valid = False
    assert valid == decodes(hint, item)


def test_jsonschema_is_imported_when_used() -> None:
    code = "import sys, holdfast.schema; assert 'jsonschema' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@dataclass
class Link:
    to: Link | None = None


def test_what_is_nested_as_deeply_as_may_be_is_checked() -> None:
    """Far down in the stack of a sender, and against a class that contains itself."""
    schema = json_schema(Link)
    assert schema is not None
    value: Any = None
    for _ in range(MAX_DEPTH):
        value = {"to": value}

    def further(down: int) -> None:
        if down:
            further(down - 1)
        else:
            validate(schema, value, "w")

    further(150)


@pytest.mark.parametrize("there", ["#", "#/$defs/Gone"])
def test_a_schema_that_leads_nowhere_is_said_to(there: str) -> None:
    with pytest.raises(PayloadError, match="w: its schema refers to what is not there, or in a circle"):
        validate({"$ref": there}, {"ok": True}, "w")
