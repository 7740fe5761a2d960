from __future__ import annotations

import asyncio
import json
import traceback
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import errors
from holdfast.codec import MAX_DEPTH, UNTYPED, check_depth, class_name
from holdfast.failures import RemoteError, describe, rebuild


class Declined(Exception):
    pass


class Formatted(Exception):
    """Makes its message of what it is given: calling it with its own `args` would do that twice."""

    def __init__(self, user: int) -> None:
        super().__init__(f"user {user} is missing")
        self.user = user


class KeywordOnly(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


@dataclass(frozen=True)
class Frozen(Exception):
    code: int
    reason: str = "none"


@dataclass(frozen=True, slots=True)
class FrozenSlots(Exception):
    code: int


class WeirdText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class TextOfState(Exception):
    def __init__(self, handle: object) -> None:
        super().__init__(handle)
        self.handle = handle

    def __str__(self) -> str:
        return f"handle {type(self.handle).__name__}"


class WeirdAttributes(Exception):
    @property
    def __notes__(self) -> list[str]:
        raise RuntimeError("no notes")

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("no attributes")

    def __reduce__(self) -> Any:
        raise RuntimeError("no parts")


class CustomGroup(ExceptionGroup[Exception]):
    pass


class Text(str):
    __slots__ = ()


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def chained() -> BaseException:
    try:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise Declined("outer") from inner
    except Declined as outer:
        outer.add_note("seen twice")
        return outer


def in_context() -> BaseException:
    try:
        try:
            raise KeyError("inner")
        except KeyError:
            raise Declined("outer")  # noqa: B904
    except Declined as outer:
        return outer


def stored(data: dict[str, Any]) -> dict[str, Any]:
    """What the log gives back."""
    back: dict[str, Any] = UNTYPED.decode(UNTYPED.encode(data, "w"), "w")
    assert json.loads(json.dumps(data)) == data == back
    return back


def decoding_error() -> BaseException:
    try:
        b"\xff".decode()
    except UnicodeDecodeError as error:
        return error
    raise AssertionError


def missing_file() -> BaseException:
    try:
        open("/nowhere/at/all")
    except FileNotFoundError as error:
        return error
    raise AssertionError


def missing_module() -> BaseException:
    try:
        import nowhere_at_all  # type: ignore[import-not-found]  # noqa: F401
    except ModuleNotFoundError as error:
        return error
    raise AssertionError


FAITHFUL = [
    ValueError("x"),
    ValueError(),
    ValueError("a", 1, (2, None)),
    KeyError("key"),
    KeyError(("a", 1)),
    asyncio.CancelledError("stop"),
    TimeoutError(),
    SystemExit(3),
    StopIteration(5),
    ZeroDivisionError("division by zero"),
    decoding_error(),
    missing_file(),
    missing_module(),
    Declined("card", b"\0"),
    Declined("\0 \ud800"),
    Formatted(7),
    KeywordOnly(code=3),
    Frozen(5, "why"),
    FrozenSlots(5),
    errors.FatalError("no"),
    errors.RetryAfter(30),
    errors.RunFailed("m", run_id="r1", type="ValueError"),
    errors.HookTaken("m", owner="r2"),
    errors.HookNotFound("m", reason="closed"),
    errors.RunEnded("m", recorded=[1, 2]),
    errors.ReplayDivergence("m", position=3, expected="a", asked="b", where="f:1"),
    errors.StaleLog("m", recorded=[3], position=9),
]


@pytest.mark.parametrize("error", FAITHFUL, ids=lambda error: ascii(error)[:40])
def test_type_message_arguments_and_attributes_come_back(error: BaseException) -> None:
    data = stored(describe(raised(error)))
    back = rebuild(data)
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert back.args == error.args
    kept = {k: v for k, v in back.__dict__.items() if k != "remote_traceback"}
    assert kept == error.__dict__
    assert describe(back) == data


HARD = [
    WeirdText("x"),
    WeirdText(WeirdText()),
    TextOfState(object()),
    WeirdAttributes("x"),
    Declined(object()),
    Declined(lambda: 1),
    Declined(Text("x")),
    Declined("x" * 1_000_000),
    Declined(["x" * 1_000_000]),
    Declined("a", ValueError("inside")),
    ValueError(10**5000),
]


@pytest.mark.parametrize("error", HARD, ids=lambda error: type(error).__name__)
def test_no_exception_is_too_hard(error: BaseException) -> None:
    data = stored(describe(raised(error)))
    assert len(json.dumps(data)) < 60_000
    back = rebuild(data)
    assert type(back) is type(error)
    assert describe(back) == data


def test_what_the_description_says() -> None:
    data = describe(chained())
    assert data["type"] == class_name(Declined)
    assert data["message"] == "outer"
    assert data["args"] == ["outer"]
    assert data["notes"] == ["seen twice"]
    assert data["cause"]["type"] == "KeyError"
    assert data["cause"]["message"] == "'inner'"
    assert data["traceback"].startswith("Traceback (most recent call last):\n")
    assert data["traceback"].endswith("Declined: outer\n")
    assert "in chained" in data["traceback"]
    assert describe(errors.HookTaken("m", owner="r"))["code"] == "hook_taken"


def test_a_huge_message_is_cut_with_a_note_of_how_much() -> None:
    message = describe(Declined("x" * 1_000_000))["message"]
    assert len(message) < 16_001
    assert message.endswith("x ... 984,050 more characters")


def test_notes_and_causes_come_back() -> None:
    back = rebuild(describe(chained()))
    assert back.__notes__ == ["seen twice"]
    assert isinstance(back.__cause__, KeyError)
    assert back.__cause__.args == ("inner",)
    assert isinstance(rebuild(describe(in_context())).__cause__, KeyError)
    assert "in chained" in back.remote_traceback  # type: ignore[attr-defined]


def test_a_suppressed_context_is_no_cause() -> None:
    error = in_context()
    error.__suppress_context__ = True
    assert "cause" not in describe(error)
    assert rebuild(describe(error)).__cause__ is None


def test_causes_that_form_a_ring_or_a_long_chain() -> None:
    one, two = ValueError("1"), ValueError("2")
    one.__cause__, two.__cause__ = two, one
    data = describe(one)
    assert data["cause"]["message"] == "2"
    assert "cause" not in data["cause"]
    last = first = ValueError("0")
    for number in range(5000):
        last.__cause__ = ValueError(str(number))
        last = last.__cause__
    data = describe(first)
    assert describe(rebuild(data)) == data


def test_groups() -> None:
    inner = ExceptionGroup("inner", [KeyError("a"), raised(Formatted(3))])  # type: ignore[list-item]
    data = stored(describe(raised(ExceptionGroup("outer", [ValueError("x"), inner]))))
    back = rebuild(data)
    assert isinstance(back, ExceptionGroup)
    assert str(back) == "outer (2 sub-exceptions)"
    assert isinstance(back.exceptions[1], ExceptionGroup)
    assert isinstance(back.exceptions[1].exceptions[1], Formatted)
    assert back.subgroup(KeyError) is not None
    assert describe(back) == data

    custom = rebuild(describe(CustomGroup("c", [ValueError("x")])))
    assert type(custom) is CustomGroup
    stop = rebuild(describe(BaseExceptionGroup("b", [asyncio.CancelledError()])))
    assert type(stop) is BaseExceptionGroup


def test_a_large_or_deep_group_stays_small() -> None:
    group: Exception = ValueError("x")
    for _ in range(100):
        group = ExceptionGroup("deep", [group])
    data = describe(group)
    assert describe(rebuild(data)) == data
    wide: Exception = ValueError("x")
    for _ in range(5):
        wide = ExceptionGroup("wide", [wide] * 40)
    assert len(json.dumps(describe(wide))) < 1_000_000


def test_what_is_nested_too_deeply_is_left_out() -> None:
    """What is stored can be read by each process; no outcome is refused for what an exception carries."""
    deep: list[object] = []
    for _ in range(MAX_DEPTH):
        deep = [deep]
    error = ValueError("w", deep)
    data = describe(error)
    assert "args" not in data
    check_depth(json.dumps(data).encode(), "w")
    assert str(rebuild(data)) == str(error)


def test_a_class_that_is_not_to_be_had() -> None:
    class Local(Exception):
        pass

    error = Local("gone", 5)
    error.add_note("n")
    error.__cause__ = KeyError("k")
    data = stored(describe(raised(error)))
    back = rebuild(data)
    assert type(back) is RemoteError
    assert back.type == class_name(Local)
    assert str(back) == f"{class_name(Local)}: ('gone', 5)"
    assert back.__notes__ == ["n"]
    assert isinstance(back.__cause__, KeyError)
    assert describe(back) == data


def test_a_group_that_is_not_to_be_had() -> None:
    class Local(ExceptionGroup[Exception]):
        pass

    data = stored(describe(Local("gone", [ValueError("x")])))
    back = rebuild(data)
    assert type(back) is RemoteError
    assert describe(back) == data


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"type": "os:system", "message": "true"},
        {"type": "print", "message": "x"},
        {"type": "nowhere:Gone"},
        {"type": 5, "message": 5},
        {"type": "ValueError", "message": "x", "args": 5, "cause": 5, "exceptions": 5, "notes": 5},
        {"type": "ExceptionGroup", "message": "x", "exceptions": []},
        {"type": "ValueError", "message": "x", "args": [{"$type": "a:b", "value": 1}]},
        {"type": "UnicodeDecodeError", "message": "x"},
    ],
)
def test_rebuild_takes_anything(data: dict[str, Any]) -> None:
    back = rebuild(data)
    assert isinstance(back, BaseException)
    assert describe(back)


def test_frames_of_holdfast_are_left_out() -> None:
    try:
        UNTYPED.encode(object(), "w")
    except errors.PayloadError as error:
        text = describe(error)["traceback"]
    assert "payload.py" not in text
    assert "test_failures.py" in text


def test_a_long_traceback_is_cut() -> None:
    def down(depth: int) -> None:
        if depth <= 0:
            raise ValueError("bottom")
        [down, up][depth % 2](depth - 1)

    def up(depth: int) -> None:  # two functions, so that the frames are not folded into one line
        down(depth - 1)

    try:
        down(300)
    except ValueError as error:
        text = describe(error)["traceback"]
    assert len(text) < 17_000
    assert "characters left out" in text
    assert text.endswith("ValueError: bottom\n")


def test_a_rebuilt_exception_that_is_raised_again_keeps_its_first_traceback() -> None:
    first = describe(chained())
    again = raised(rebuild(first))
    assert describe(again) == first
    assert "".join(traceback.format_exception(again))


@given(
    st.text(st.characters()),
    st.recursive(st.none() | st.integers() | st.text() | st.binary(), st.lists),
)
def test_any_arguments(message: str, extra: Any) -> None:
    data = stored(describe(Declined(message, extra)))
    back = rebuild(data)
    assert back.args == (message, extra)
    assert describe(back) == data
