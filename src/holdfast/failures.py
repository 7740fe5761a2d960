"""Exceptions across the log: `describe` makes JSON of one, `rebuild` makes the exception of that.

    data = describe(error)   # {"type": "shop.cards:Declined", "message": "card 4242", ...}
    raise rebuild(data)      # Declined('card 4242'), with notes, cause and `.remote_traceback`

Neither ever raises, whatever the exception: what cannot be told is left out. No Python `__init__`
runs either: that of `RetryAfter(30)` does not take the message which it made itself, others have
effects. Attributes are set as they were. A class that cannot be imported becomes a `RemoteError`,
which describes itself as what it stands for.

Store a description with `UNTYPED.encode`: a message may hold lone surrogates.
"""

from __future__ import annotations

import builtins
import json
import pathlib
import traceback
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from .codec import UNTYPED, class_name, find_class, is_within
from .errors import HoldfastError

_TEXT_LIMIT = 16_000
"""Characters of a message, a note or a traceback, and bytes of an argument or an attribute."""

_DEPTH_LIMIT = 10
_TOTAL_LIMIT = 100
"""Causes and members of groups, together, that one description holds."""
_HERE = str(pathlib.Path(__file__).parent)
_T = TypeVar("_T")
_OWN_ATTRIBUTES = frozenset({"__notes__", "remote_traceback", "remote_message", "remote_args_lost"})


class RemoteError(HoldfastError):
    """Stands for an exception whose class is not to be had here; `.type` is its name.

    Example:
        RemoteError("shop.cards:Declined: card 4242")
    """

    code = "remote"

    def __init__(self, message: str, *, type: str = "", origin: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.type = type
        self.origin = origin or {}


def describe(error: BaseException) -> dict[str, Any]:
    """What the log keeps of an exception, as JSON-able data."""
    room = iter([True] * _TOTAL_LIMIT)
    return _attempt(lambda: _describe(error, frozenset(), room), _least(error))


def _least(error: BaseException) -> dict[str, Any]:
    cls = type(error)
    name = cls.__qualname__ if cls.__module__ == "builtins" else class_name(cls)
    return {"type": name, "message": f"<{cls.__qualname__} that cannot be described>"}


def _describe(error: BaseException, above: frozenset[int], room: Iterator[bool]) -> dict[str, Any]:
    origin = error.origin if isinstance(error, RemoteError) else None
    data: dict[str, Any]
    if origin:
        data = {key: origin[key] for key in ("type", "message", "args", "state", "code") if key in origin}
    else:
        data = _describe_self(error)
    notes: list[str] = []
    notes = _attempt(lambda: [_shorten(_text(note)) for note in error.__notes__], notes)
    if notes:
        data["notes"] = notes
    trace = _attempt(lambda: _traceback(error, data), "")
    if trace:
        data["traceback"] = trace
    above |= {id(error)}
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None and id(cause) not in above and len(above) < _DEPTH_LIMIT and next(room, False):
        data["cause"] = _describe(cause, above, room)
    members = _members(error)
    if members and len(above) < _DEPTH_LIMIT:
        told = [_describe(member, above, room) for member in members if next(room, False)]
        if told:
            data["exceptions"] = told
    return data


def _describe_self(error: BaseException) -> dict[str, Any]:
    message = error.__dict__.get("remote_message")
    if type(message) is not str:
        message = error.message if isinstance(error, BaseExceptionGroup) else _text(error)
    data: dict[str, Any] = {
        **_least(error),
        "message": _shorten(message),
    }
    nothing: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})
    args, state = _attempt(lambda: _parts(error), nothing)
    if not isinstance(error, BaseExceptionGroup) and not error.__dict__.get("remote_args_lost"):
        kept = [_storable(item) for item in args]
        if all(kept):
            data["args"] = [item[0] for item in kept]
    stored = {name: _storable(value) for name, value in state.items() if type(name) is str}
    stored = {name: item for name, item in stored.items() if item and name not in _OWN_ATTRIBUTES}
    if stored:
        data["state"] = {name: item[0] for name, item in stored.items()}
    if isinstance(error, HoldfastError):
        data["code"] = error.code
    return data


def _parts(error: BaseException) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments and the attributes. Builtin classes tell by `__reduce__` what `args` lacks."""
    args: Any = error.args
    state: dict[str, Any] = {}
    if not hasattr(type(error).__reduce__, "__code__"):
        reduced: Any = error.__reduce__()
        _, args, *rest = reduced
        state.update(rest[0] if rest and isinstance(rest[0], dict) else {})
    for cls in type(error).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(error, name):
                state[name] = getattr(error, name)
    return args, {**state, **error.__dict__}


def _storable(value: Any) -> list[Any]:
    """The value as plain JSON data, in a list; an empty list if it cannot be stored."""

    def store() -> list[Any]:
        raw = UNTYPED.encode(value, "")
        UNTYPED.decode(raw, "")
        return [json.loads(raw)] if is_within(raw, _TEXT_LIMIT) else []

    return _attempt(store, [])


def _traceback(error: BaseException, data: dict[str, Any]) -> str:
    remote = error.__dict__.get("remote_traceback")
    if type(remote) is str and remote:
        return remote
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_HERE)
    ]
    if not frames:
        return ""
    lines = "".join(traceback.format_list(frames))
    if len(lines) > _TEXT_LIMIT:  # the end tells more than the start
        lines = f"  ... {len(lines) - _TEXT_LIMIT:,} characters left out ...\n{lines[-_TEXT_LIMIT:]}"
    name = data["type"].rpartition(":")[2]
    return f"Traceback (most recent call last):\n{lines}{name}: {data['message'][:1000]}\n"


def _members(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return list(error.exceptions)
    return list(error.__dict__.get("remote_members", ())) if isinstance(error, RemoteError) else []


def rebuild(data: dict[str, Any]) -> BaseException:
    """The exception that `describe` told of, of the same class where it can be had."""
    cause = _attempt(lambda: rebuild(data["cause"]) if data.get("cause") else None, None)
    members = [rebuild(member) for member in _list(data.get("exceptions"))]
    error = _attempt(lambda: _rebuild_self(data, members), None) or _remote(data, members)
    if data.get("notes"):
        error.__dict__["__notes__"] = [str(note) for note in _list(data["notes"])]
    error.__dict__["remote_traceback"] = data.get("traceback", "")
    if cause is not None:
        error.__cause__ = cause
    return error


def _rebuild_self(data: dict[str, Any], members: list[BaseException]) -> BaseException | None:
    name: str = data["type"]
    cls = find_class(name) if ":" in name else getattr(builtins, name, None)
    if not (isinstance(cls, type) and issubclass(cls, BaseException)):
        return None
    args: tuple[Any, ...] = (data["message"],)
    if issubclass(cls, BaseExceptionGroup):
        args = (data["message"], members)
    elif "args" in data:
        args = tuple(_load(item) for item in data["args"])
    error: BaseException = cls.__new__(cls, *args)
    native: Any = next(base for base in cls.__mro__ if base.__module__ == "builtins")
    native.__init__(error, *args)
    for key, item in data.get("state", {}).items():
        _set(error, key, _load(item))
    if "args" not in data and not members:
        error.__dict__["remote_args_lost"] = True
    told = error.message if isinstance(error, BaseExceptionGroup) else _text(error)
    if told != data["message"]:
        error.__dict__["remote_message"] = data["message"]
    return error


def _remote(data: dict[str, Any], members: list[BaseException]) -> RemoteError:
    name, message = str(data.get("type", "?")), str(data.get("message", ""))
    error = RemoteError(f"{name}: {message}", type=name, origin=dict(data))
    error.__dict__["remote_members"] = members
    return error


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _load(item: Any) -> Any:
    return UNTYPED.decode(json.dumps(item).encode(), "an exception")


def _set(error: BaseException, name: str, value: Any) -> None:
    try:
        object.__setattr__(error, name, value)  # a frozen dataclass refuses setattr
    except (AttributeError, TypeError):
        error.__dict__[name] = value


def _text(value: object) -> str:
    return _attempt(lambda: str(value), f"<{type(value).__qualname__} that cannot be printed>")


def _shorten(text: str) -> str:
    if len(text) <= _TEXT_LIMIT:
        return text
    kept = _TEXT_LIMIT - 50  # room for the remark, so that a second pass changes nothing
    return f"{text[:kept]} ... {len(text) - kept:,} more characters"


def _attempt(action: Callable[[], _T], otherwise: _T) -> _T:
    """What `action` returns, or `otherwise` if it raises: user classes may raise from anything."""
    try:
        return action()
    except Exception:  # noqa: BLE001
        return otherwise
