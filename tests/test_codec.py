from __future__ import annotations

import enum
import math
import os
import pathlib
import subprocess
import sys
import typing
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypedDict, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.codec import (
    DEFAULT_LIMIT,
    MAX_DEPTH,
    UNTYPED,
    check_bounds,
    check_depth,
    class_name,
    digest,
    find_class,
    payload_type,
    writer_at_once,
)
from holdfast.errors import PayloadError

T = TypeVar("T")
Cents = NewType("Cents", int)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Mixed(enum.Enum):
    A = "a"
    ONE = 1
    PAIR = (1, 2)


class Level(enum.IntEnum):
    LOW = 1


class Word(enum.StrEnum):
    YES = "yes"


class Flags(enum.Flag):
    A = 1
    B = 2


@dataclass
class Point:
    x: int
    y: int = 0


@dataclass
class Point3(Point):
    z: int = 0


@dataclass(frozen=True, slots=True)
class Everything:
    text: str
    number: float
    when: datetime
    day: date
    at: time
    span: timedelta
    ident: UUID
    price: Decimal
    blob: bytes
    colour: Colour
    level: Level
    word: Word
    pair: tuple[int, str]
    many: tuple[int, ...]
    literal: Literal["a", 1]
    maybe: float | None
    either: int | str
    cents: Cents
    noted: Annotated[int, "note"]
    path: pathlib.PurePosixPath
    wave: complex
    points: list[Point] = field(default_factory=list)
    table: dict[str, Point] = field(default_factory=dict)


@dataclass
class Sets:
    names: set[str]
    numbers: frozenset[int]


@dataclass
class SetsAndDicts:
    names: set[str]
    table: dict[str, int]
    odd: set[int | None]


@dataclass
class Loose:
    value: Any
    price: float = 1.0


@dataclass
class Tree:
    name: str
    children: list[Tree] = field(default_factory=list)
    parent: Tree | None = None


@dataclass
class Box(Generic[T]):
    item: T


@dataclass
class Derived:
    a: int
    total: int = field(init=False)

    def __post_init__(self) -> None:
        self.total = self.a * 2


@dataclass
class Liar:
    number: int = None  # type: ignore[assignment]


@dataclass
class Chosen:
    one: Point | Tree
    more: tuple[Point | Tree, ...] = ()


class Record(msgspec.Struct, rename="camel", tag=True, omit_defaults=True):
    first_name: str
    score: float = 0.5


class Dollar(msgspec.Struct, tag_field="$type", tag="dollar"):
    value: int


class Inner(pydantic.BaseModel):
    when: datetime
    price: Decimal = Decimal(1)


class Model(pydantic.BaseModel):
    ok: bool
    inner: Inner | None = None
    alias: int = pydantic.Field(default=1, alias="theAlias")
    secret: pydantic.SecretStr | None = None


class Blob(pydantic.BaseModel):
    data: bytes
    number: float = 1.0


class Row(NamedTuple):
    a: int
    b: str = "b"


class Options(TypedDict, total=False):
    a: typing.Required[int]
    b: str


@attrs.define
class Attrs:
    a: int
    _hidden: int = 3


class Plain:
    pass


def trip(value: Any, hint: Any = Any) -> Any:
    kind = payload_type(hint)
    raw = kind.encode(value, "test")
    back = kind.decode(raw, "test")
    assert kind.encode(kind.decode(msgspec.Raw(raw), "test"), "test") == raw
    return back


def assert_same(value: Any, hint: Any = Any) -> None:
    back = trip(value, hint)
    assert back == value
    assert type(back) is type(value)


def everything(**changes: Any) -> Everything:
    fields: dict[str, Any] = {
        "text": "té\0xt",
        "number": 1.5,
        "when": datetime(2026, 1, 31, 9, tzinfo=UTC),
        "day": date(2026, 1, 31),
        "at": time(9, 30),
        "span": timedelta(days=-1, microseconds=3),
        "ident": UUID(int=7),
        "price": Decimal("1.50"),
        "blob": b"\0\xff",
        "colour": Colour.RED,
        "level": Level.LOW,
        "word": Word.YES,
        "pair": (1, "a"),
        "many": (1, 2, 3),
        "literal": "a",
        "maybe": None,
        "either": "x",
        "cents": 5,
        "noted": 6,
        "path": pathlib.PurePosixPath("a/b"),
        "wave": 1 + 2j,
        "points": [Point(1)],
        "table": {"z": Point(1), "a": Point(2)},
    }
    return Everything(**{**fields, **changes})


# --- with a hint


HINTED = [
    (int, 5),
    (int, 2**80),
    (int, -(10**5000)),
    (str, "a\0b"),
    (str, "\ud800"),
    (str, "$type"),
    (bool, True),
    (None, None),
    (float, math.inf),
    (float, 1e308),
    (bytes, b"\0"),
    (bytearray, bytearray(b"x")),
    (datetime, datetime(2026, 1, 1)),
    (datetime, datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=5, seconds=7)))),
    (datetime, datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin"))),
    (time, time(1, 2, 3, 4, tzinfo=UTC)),
    (timedelta, timedelta.max),
    (timedelta, timedelta.min),
    (complex, complex(1, math.inf)),
    (pathlib.Path, pathlib.Path("a/b")),
    (set[int], {3, 1, 2}),
    (set[int | None], {3, None}),
    (set[frozenset[int]], {frozenset({1}), frozenset({2, 3})}),
    (frozenset[str], frozenset({"b", "a"})),
    (tuple[int, str], (1, "a")),
    (tuple[int, ...], (1, 2)),
    (list[float | None], [None, math.inf, 1.0]),
    (dict[int, str], {1: "a"}),
    (dict[UUID, int], {UUID(int=1): 1}),
    (dict[tuple[int, int], int], {(1, 2): 3}),
    (dict[int | str, int], {1: 1, "1": 2}),
    (dict[str, str], {"$type": "int", "value": "0x1"}),
    (dict[str, int], {"\udfff": 1}),
    (Colour, Colour.BLUE),
    (Mixed, Mixed.PAIR),
    (Flags, Flags.A | Flags.B),
    (Level, Level.LOW),
    (Word, Word.YES),
    (Literal["a", 1], 1),
    (int | str, "1"),
    (Cents, 5),
    (Annotated[int, msgspec.Meta(ge=0)], 5),
    (Point, Point(1, 2)),
    (Point, Point3(1, 2, 3)),
    (Point | Tree, Tree("a")),
    (list[Point | Tree], [Tree("a"), Point(1)]),
    (Everything, everything()),
    (Everything, everything(text="\ud800\0", table={"$type": Point(1)}, maybe=-math.inf)),
    (Sets, Sets({"b", "a"}, frozenset({2, 1}))),
    (SetsAndDicts, SetsAndDicts({"b", "a"}, {"z": 1, "a": 2}, {1, None})),
    (Loose, Loose({1: {2}})),
    (Loose, Loose(datetime(2026, 1, 1), 5)),
    (list[Loose], [Loose(Point(1))]),
    (dict[str, Any], {"a": Point(1), "b": (1,)}),
    (Tree, Tree("a", [Tree("b")], Tree("c"))),
    (Box[int], Box(1)),
    (Box, Box({1})),
    (Derived, Derived(4)),
    (Chosen, Chosen(Tree("a"), (Point(1), Tree("b")))),
    (str, "\ud800\udc00"),
    (dict[str, list[str]], {"\udbff\udfff": ["\udbff\udfff\udfff"]}),
    (Record, Record("a", 0.5)),
    (Dollar, Dollar(1)),
    (Inner, Inner(when=datetime(2026, 1, 1, tzinfo=UTC))),
    (Model, Model(ok=True, inner=Inner(when=datetime(2026, 1, 1)), theAlias=7)),
    (list[Model], [Model(ok=True)]),
    (Blob, Blob(data=b"\xff", number=math.inf)),
    (Row, Row(1, "c")),
    (Options, {"a": 1}),
    (Attrs, Attrs(1, 2)),
    (Mixed | None, None),
]


HINTED_IDS = [f"{number}-{str(hint)[:30]}" for number, (hint, _) in enumerate(HINTED)]


@pytest.mark.parametrize(("hint", "value"), HINTED, ids=HINTED_IDS)
def test_hinted_values_come_back(hint: Any, value: Any) -> None:
    assert_same(value, hint)


@pytest.mark.parametrize(("hint", "value"), HINTED, ids=HINTED_IDS)
def test_the_same_values_come_back_without_a_hint(hint: Any, value: Any) -> None:
    assert_same(value)


@pytest.mark.parametrize(("hint", "value"), HINTED, ids=HINTED_IDS)
def test_members_written_at_once_are_those_written_one_by_one(hint: Any, value: Any) -> None:
    """Both have been written to logs: a replay compares these bytes."""
    kind = payload_type(hint)
    write = writer_at_once({"first": kind, "text": payload_type(str), "number": payload_type(float)}, 1)
    if write is None:
        return  # the hint does not tell every type
    one, text = kind.encode(value, "a value"), payload_type(str).encode("$type", "a text")
    assert write((value,)) in (None, b'{"first":%b}' % one)
    assert write((value, "a", 1.5)) in (None, b'{"first":%b,"text":"a","number":1.5}' % one)
    assert write((value, "$type")) is None, f"a tag is to be written as {text!r}"
    assert write((value, "a", math.nan)) is None, "JSON has no such number"
    assert write((value, 1)) is None, "no text: another type is told from a call that fits"


def test_plain_members_are_written_at_once() -> None:
    write = writer_at_once({"number": payload_type(int), "place": payload_type(Point)}, 1)
    assert write is not None
    assert write((5, Point(1, 2))) == b'{"number":5,"place":{"x":1,"y":2}}'
    assert write(()) is None, "one is required"
    assert write((5, Point(1, 2), 3)) is None, "there is no third"
    assert writer_at_once({"value": UNTYPED}, 1) is None, "tags tell its types"
    assert writer_at_once({"values": payload_type(set[int])}, 1) is None, "it is sorted, arguments are not"


def test_nan_comes_back_in_every_place() -> None:
    assert math.isnan(trip(math.nan, float))
    assert math.isnan(trip(math.nan))
    assert math.isnan(trip(everything(number=math.nan), Everything).number)
    assert math.isnan(trip([None, math.nan], list[float | None])[1])
    assert trip(Decimal("sNaN"), Decimal).is_snan()


def test_a_zone_keeps_its_name_and_its_side_of_the_hour() -> None:
    when = datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin"))
    back = trip(when, datetime)
    assert back.tzinfo is ZoneInfo("Europe/Berlin")
    assert back.utcoffset() == when.utcoffset() == timedelta(hours=1)


def test_types_inside_come_back_too() -> None:
    back = trip({"a": [Row(1), Level.LOW, (True, 1, 1.0)]})
    assert [type(item) for item in back["a"]] == [Row, Level, tuple]
    assert [type(item) for item in back["a"][2]] == [bool, int, float]


def test_a_class_inside_a_function_needs_a_hint() -> None:
    @dataclass
    class Local:
        x: float

    assert trip(Local(math.inf), Local) == Local(math.inf)
    with pytest.raises(PayloadError, match=r"cannot be imported as .*Local; define it at the top"):
        UNTYPED.encode(Local(1.0), "w")


def test_plain_bytes_for_closed_hints() -> None:
    assert payload_type(Point).encode(Point(1, 2), "w") == b'{"x":1,"y":2}'
    assert payload_type(set[str]).encode({"b", "a"}, "w") == b'["a","b"]'
    assert payload_type(dict[str, int]).encode({"z": 1, "a": 2}, "w") == b'{"z":1,"a":2}'
    assert payload_type(Inner).encode(Inner(when=datetime(2026, 1, 1)), "w") == (
        b'{"when":"2026-01-01T00:00:00","price":"1"}'
    )


def test_dicts_keep_their_order() -> None:
    assert list(trip({"z": 1, "a": 2})) == ["z", "a"]
    assert list(trip({"z": 1, "a": 2}, dict[str, int])) == ["z", "a"]
    assert list(trip({9: 1, 1: 2})) == [9, 1]
    value = SetsAndDicts({"a"}, {"z": 1, "a": 2}, set())
    assert list(trip(value, SetsAndDicts).table) == ["z", "a"]


@pytest.mark.parametrize(
    ("hint", "value", "message"),
    [
        (str, datetime(2026, 1, 1), "w: expected `str`, got `datetime`"),
        (str, b"x", "w: expected `str`, got `bytes`"),
        (int, True, "w: expected `int`, got `bool`"),
        (int, 1.0, "w: expected `int`, got `float`"),
        (Point, Point("a"), "w: expected `int`, got `str` - at `$.x`"),  # type: ignore[arg-type]
        (list[Point], [Point(1), Point(1, None)], "w: expected `int`, got `null` - at `$[1].y`"),  # type: ignore[arg-type]
        (Point, Tree("a"), "w: expected `object`, got `Tree`"),
        (Point, {"y": 1}, "w: object missing required field `x`"),
        (list[Point | Tree], [Attrs(1)], "w: expected `.*Point | .*Tree`, got `Attrs`"),
        (list[Point | Tree], [{"q": 1}], "w: expected `.*Point | .*Tree`, got `dict`"),
        (Colour, "green", "w: invalid enum value 'green'"),
        (Annotated[int, msgspec.Meta(ge=0)], -1, "w: expected `int` >= 0"),
        (datetime, "yesterday", "w: invalid RFC3339 encoded datetime"),
        (Point | Tree, 5, "w: expected .*"),
        (Loose, Loose(1, "x"), "w: expected `float`, got `str` - at `$.price`"),  # type: ignore[arg-type]
        (Model, {"inner": None}, "w: 1 validation error for Model\nok"),
        (Plain, 5, "w: expected `Plain`, got `int`"),
    ],
)
def test_a_value_of_another_type_is_refused(hint: Any, value: Any, message: str) -> None:
    kind = payload_type(hint)
    with pytest.raises(PayloadError, match=r"^" + message.replace("$", r"\$").replace("[1]", r"\[1\]")):
        kind.decode(kind.encode(value, "w"), "w")


def test_where_a_value_converts_the_hint_wins() -> None:
    def through(value: Any, hint: Any) -> Any:
        return payload_type(hint).decode(payload_type(hint).encode(value, "w"), "w")

    assert through((1, 2), list[int]) == [1, 2]
    assert through({1, 9, 5}, list[int]) == [1, 5, 9]
    assert through({"x": 1}, Point) == Point(1, 0)
    assert through({"item": (1, 2)}, Box[list[int]]) == Box([1, 2])
    assert through(Box((1, 2)), Box[list[int]]) == Box([1, 2])
    assert type(through(1, float)) is float


def test_plain_json_is_read_for_open_hints() -> None:
    assert payload_type(dict[str, Any]).decode(b'{"a":[1]}', "w") == {"a": [1]}
    assert payload_type(Loose).decode(b'{"value":{"a":1}}', "w") == Loose({"a": 1})
    assert payload_type(Point | Tree).decode(b'{"name":"a"}', "w") == Tree("a")
    assert payload_type(list[Point | Tree]).decode(b'[{"x":1}]', "w") == [Point(1)]
    assert payload_type(dict[str, Chosen]).decode(b'{"k":{"one":{"x":1}}}', "w") == {"k": Chosen(Point(1))}
    assert payload_type(Model).decode(b'{"ok":true,"theAlias":3}', "w").alias == 3
    assert UNTYPED.decode(b'{"$type":"x","value":1,"more":2}', "w")["more"] == 2
    assert UNTYPED.decode(b'{"$type":[1],"value":1}', "w") == {"$type": [1], "value": 1}


# --- without a hint


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Plain(), "w: cannot be stored: `Plain` is not a plain type; make it a dataclass"),
        ([{"a": (1, Plain())}], r"Plain.* - at `\$\[0\]\.a\[1\]`"),
        (Point(Plain()), r"Plain.* - at `\$\.x`"),  # type: ignore[arg-type]
        (Plain, "`type` is not a plain type"),
        (lambda: 1, "`function` is not a plain type"),
        (ValueError("x"), "`ValueError` is not a plain type"),
        (type("Text", (str,), {})("x"), "`Text` is not a plain type"),
    ],
    ids=lambda item: str(item)[:20],
)
def test_unknown_classes_are_refused(value: Any, message: str) -> None:
    with pytest.raises(PayloadError, match=message):
        UNTYPED.encode(value, "w")


def test_a_value_that_contains_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(PayloadError, match="nested too deeply"):
        UNTYPED.encode(endless, "w")
    tree = Tree("a")
    tree.children.append(tree)
    with pytest.raises(PayloadError, match="nested too deeply"):
        payload_type(Tree).encode(tree, "w")
    with pytest.raises(PayloadError, match=r"^w: "):
        UNTYPED.decode(b"[" * 100_000 + b"]" * 100_000, "w")


@pytest.mark.parametrize(
    "raw",
    [
        b'{"$type":"nowhere:Gone","value":{}}',
        b'{"$type":"os:system","value":"true"}',
        b'{"$type":"builtins:eval","value":"1"}',
        b'{"$type":"subprocess:Popen","value":{"args":"true"}}',
        b'{"$type":"unknown","value":1}',
        b'{"$type":"datetime","value":5}',
        b'{"$type":"int","value":"x"}',
        b'{"$type":"dict","value":[1]}',
        b'{"$type":"set","value":[[]]}',
        b"nonsense",
        b'"\\ud800',
        b"",
        b"\xff",
    ],
)
def test_what_cannot_be_read_is_refused(raw: bytes) -> None:
    with pytest.raises(PayloadError, match=r"^w: "):
        UNTYPED.decode(raw, "w")


def test_a_tag_cannot_call_a_function() -> None:
    assert find_class("os:system") is None
    with pytest.raises(PayloadError, match="cannot be imported as a data class or an enum"):
        UNTYPED.decode(b'{"$type":"subprocess:Popen","value":{"args":"true"}}', "w")


def test_a_class_that_changed_since() -> None:
    name = class_name(Point).encode()
    read = UNTYPED.decode
    assert read(b'{"$type":"%s","value":{"x":1}}' % name, "w") == Point(1, 0)
    assert read(b'{"$type":"%s","value":{"x":1,"y":2,"old":3}}' % name, "w") == Point(1, 2)
    with pytest.raises(PayloadError, match="missing 1 required positional argument"):
        read(b'{"$type":"%s","value":{"y":2}}' % name, "w")


def test_a_wrong_default_is_no_business_of_untyped_values() -> None:
    assert_same(Liar())


@pytest.mark.parametrize("value", [deque([1, (2,)]), OrderedDict(b=1, a={2}), Attrs(1, 5)])
def test_other_containers(value: Any) -> None:
    assert_same(value)


# --- properties


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters())
    | st.text(st.characters(categories=["Cs", "Cc"]))
    | st.binary()
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.uuids()
    | st.decimals(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.sampled_from([*Colour, *Mixed, *Level, *Word, *Flags])
)
HASHABLE = SCALARS.filter(lambda item: not isinstance(item, bool | int | float | complex | Decimal))
KEYS = st.text() | st.integers(10**6) | st.dates() | st.tuples(st.integers(), st.text())
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters()) | st.just("$type"), inner, max_size=4)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.tuples(inner, inner)
        | st.sets(HASHABLE, max_size=4)
        | st.frozensets(KEYS, max_size=4)
        | inner.map(Loose)
        | inner.map(Box)
        | st.builds(Row, st.integers(), st.text())
    ),
    max_leaves=12,
)


def kinds_of(value: Any) -> Any:
    if isinstance(value, list | tuple | deque):
        return type(value), [kinds_of(item) for item in value]
    if isinstance(value, dict):
        return dict, [(type(key), kinds_of(item)) for key, item in value.items()]
    return type(value)


@given(VALUES)
def test_any_value_comes_back(value: Any) -> None:
    back = trip(value)
    assert back == value
    assert kinds_of(back) == kinds_of(value)


TYPED = st.builds(
    Everything,
    text=st.text(st.characters()),
    number=st.floats(allow_nan=False),
    when=st.datetimes(timezones=st.none() | st.timezones()),
    day=st.dates(),
    at=st.times(),
    span=st.timedeltas(),
    ident=st.uuids(),
    price=st.decimals(allow_nan=False),
    blob=st.binary(),
    colour=st.sampled_from(Colour),
    level=st.sampled_from(Level),
    word=st.sampled_from(Word),
    pair=st.tuples(st.integers(), st.text(st.characters())),
    many=st.lists(st.integers()).map(tuple),
    literal=st.sampled_from(["a", 1]),
    maybe=st.none() | st.floats(allow_nan=False),
    either=st.integers() | st.text(),
    cents=st.integers(),
    noted=st.integers(),
    path=st.just(pathlib.PurePosixPath("a")),
    wave=st.complex_numbers(allow_nan=False),
    points=st.lists(st.builds(Point, st.integers(), st.integers()), max_size=3),
    table=st.dictionaries(
        st.text(st.characters()), st.builds(Point, st.integers(), st.integers()), max_size=3
    ),
)


@settings(max_examples=200)
@given(TYPED)
def test_any_typed_value_comes_back(value: Everything) -> None:
    assert_same(value, Everything)


@given(
    st.builds(
        SetsAndDicts,
        st.sets(st.text(st.characters())),
        st.dictionaries(st.text(), st.integers()),
        st.sets(st.none() | st.integers()),
    )
)
def test_any_typed_value_with_sets_comes_back(value: SetsAndDicts) -> None:
    assert_same(value, SetsAndDicts)


# --- bytes


SCRIPT = """
import sys
from dataclasses import dataclass
from holdfast.codec import UNTYPED, payload_type

@dataclass
class Bag:
    names: set[str]
    odd: set[int | str | None]

names = {f"name{n}" for n in range(50)}
bag = Bag(names, {1, "a", None, "b", 2})
deep = {frozenset({name, name * 2}) for name in names}
sys.stdout.buffer.write(UNTYPED.encode([names, bag, deep, {("a", 1)}], "w"))
sys.stdout.buffer.write(payload_type(Bag).encode(bag, "w"))
sys.stdout.buffer.write(payload_type(set[str]).encode(names, "w"))
"""


def test_bytes_do_not_depend_on_the_hash_seed(tmp_path: pathlib.Path) -> None:
    script = tmp_path / "bags.py"
    script.write_text(SCRIPT)
    outputs = {
        subprocess.run(
            [sys.executable, script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "77")
    }
    assert len(outputs) == 1
    assert b'"bags:Bag"' in outputs.pop()  # not "__main__:Bag", which nothing else can import


def test_a_name_of_the_main_script_is_found(tmp_path: pathlib.Path) -> None:
    script = tmp_path / "bags.py"
    script.write_text(SCRIPT + "assert UNTYPED.decode(UNTYPED.encode(bag, 'w'), 'w') == bag\n")
    subprocess.run([sys.executable, script], capture_output=True, check=True)


LATE = """
import sys
from holdfast.codec import UNTYPED, digest

late = {"pathlib", "zoneinfo", "hashlib"}
assert not late & set(sys.modules), late & set(sys.modules)
path = UNTYPED.decode(b'{"$type":"PurePosixPath","value":"a/b"}', "w")
assert UNTYPED.encode(path, "w") == b'{"$type":"PurePosixPath","value":"a/b"}'
assert repr(path) == "PurePosixPath('a/b')"
raw = b'{"$type":"datetime","value":"2026-01-31T09:00:00+01:00[Europe/Berlin]"}'
assert UNTYPED.encode(UNTYPED.decode(raw, "w"), "w") == raw
pair = chr(0xd83d) + chr(0xde00)
assert UNTYPED.decode(UNTYPED.encode(pair, "w"), "w") == pair
assert len(digest(b"1")) == 16
"""


def test_types_whose_modules_are_not_imported_yet() -> None:
    subprocess.run([sys.executable, "-c", LATE], check=True)


def test_a_path_of_another_system_is_refused() -> None:
    other = "PosixPath" if os.name == "nt" else "WindowsPath"
    with pytest.raises(PayloadError, match=rf"^w: cannot be read: {other} does not take 'a': "):
        UNTYPED.decode(f'{{"$type":"{other}","value":"a"}}'.encode(), "w")


def test_digest_is_the_same_for_keys_in_another_order() -> None:
    assert len(digest(b"1")) == 16
    assert digest(b'{"a":1,"b":[{"c":1,"d":2}]}') == digest(b'{"b":[{"d":2,"c":1}],"a":1}')
    assert digest(b'{"a":1,"b":2}') != digest(b'{"a":2,"b":1}')
    assert digest(b'["a","b"]') != digest(b'["b","a"]')
    assert digest(b'{"a":"\\ud800","b":1}') == digest(b'{"b":1,"a":"\\ud800"}')


def test_a_payload_over_the_limit_is_refused() -> None:
    check_bounds(b"x" * 10, 10, "w")
    with pytest.raises(PayloadError, match=r"^w is 1,048,577 bytes, over the limit of 1,048,576: "):
        check_bounds(b"x" * (1024 * 1024 + 1), 1024 * 1024, "w")
    assert DEFAULT_LIMIT == 4 * 1024 * 1024


def _in_lists(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def _in_keys(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {1: value}
    return value


def _deep(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


@pytest.mark.parametrize(
    ("raw", "levels"),
    [
        (_deep(100), 100),
        (b'{"a":' * 99 + _deep(1) + b"}" * 99, 100),
        (b"[" + b",".join([_deep(98)] * 50) + b"]", 99),
        (b"[" + _deep(1) * 300 + b"]", 2),
        (b'["' + b"[" * 300 + b'"]', 1),  # what stands in a string is no level
        (msgspec.json.encode(['\\"' + "[" * 300]), 1),
        (msgspec.json.encode({"\\": ["a\\", _in_lists(98)]}), 100),
        (msgspec.json.encode(["\\", '"\\', "\\\\" * 9 + '"[' * 300]), 1),
        (b'{"]":' * 100 + b"1" + b"}" * 100, 100),  # nor what would end one
        (b'{"}":' * 100 + b'"]"' + b"}" * 100, 100),
        (b"1" * 300, 0),
    ],
    ids=lambda item: str(item)[:20],
)
def test_levels_are_counted_as_a_reader_meets_them(raw: bytes, levels: int) -> None:
    check_depth(raw, "w", levels)
    check_bounds(raw, DEFAULT_LIMIT, "w")
    if levels:
        with pytest.raises(
            PayloadError, match=f"^w is nested too deeply: expected JSON of at most {levels - 1}"
        ):
            check_depth(raw, "w", levels - 1)


_awkward = st.text(st.sampled_from('[]{}"\\,a'), max_size=5)


@given(st.recursive(_awkward, lambda inner: st.lists(inner) | st.dictionaries(_awkward, inner)))
def test_levels_of_any_json(value: Any) -> None:
    def levels(value: Any) -> int:
        if not isinstance(value, list | dict):
            return 0
        items = value if isinstance(value, list) else value.values()
        return 1 + max(map(levels, items), default=0)

    raw, most = UNTYPED.encode(value, "w"), levels(value)
    check_depth(raw, "w", most)
    if most:
        with pytest.raises(PayloadError, match="nested too deeply"):
            check_depth(raw, "w", most - 1)


@dataclass
class Twig:
    on: Twig | Bud | None = None


@dataclass
class Bud:
    of: Twig | None = None


def _chain(levels: int) -> Twig:
    twig = Twig()
    for _ in range(levels - 1):
        twig = Twig(twig)
    return twig


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (Tree, Tree("a", [Tree("b")])),
        (Twig, _chain(MAX_DEPTH // 2)),
        (Any, _chain(MAX_DEPTH // 2)),
        (list[Twig | Bud], [_chain(MAX_DEPTH // 2 - 1)]),
        (Any, _in_lists(MAX_DEPTH)),
        (list[Any], _in_lists(MAX_DEPTH)),
        (Any, _in_keys(MAX_DEPTH // 3)),
        (Any, ["\ud800", _in_lists(MAX_DEPTH - 1)]),
    ],
    ids=lambda item: str(item)[:20],
)
def test_what_is_within_the_bounds_is_read_far_down_in_the_stack(hint: Any, value: Any) -> None:
    kind = payload_type(hint)
    raw = kind.encode(value, "w")
    check_bounds(raw, DEFAULT_LIMIT, "w")

    def further(down: int) -> Any:
        return further(down - 1) if down else kind.decode(raw, "w")

    assert further(350) == value


def test_payload_types_are_cached() -> None:
    assert payload_type(list[int]) is payload_type(list[int])
    assert payload_type(Any) is UNTYPED
    assert payload_type(Annotated[int, []]).decode(b"1", "w") == 1


@pytest.mark.parametrize("hint", [list[object], dict[str, object], tuple[object, ...], object])
def test_object_in_a_hint_says_as_little_as_any(hint: object) -> None:
    """`list[object]` was refused: msgspec asked for an `object` and nobody said that everything is one."""
    value = {"a": [1, "two", None]} if hint in (dict[str, object], object) else [1, "two", None]
    if hint == tuple[object, ...]:
        value = (1, "two", None)
    type_ = payload_type(hint)
    assert type_.decode(type_.encode(value, "x"), "x") == value
