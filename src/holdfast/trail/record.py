"""The record: the JSON of a whole trail that other tools read and write, to and from the model.

Reading keeps what it does not know: at each level, unknown keys go to `extra` and come back in their place at
the end of the object when it is written. What it knows must fit, or the error says expected, got and path.
Times may carry any offset; they are written in UTC with `Z`.
"""

from __future__ import annotations

import json
import types
from datetime import datetime
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints, overload

import msgspec

from ..clock import from_datetime, from_text, to_datetime, to_text
from ..codec import MAX_DEPTH, check_depth
from ..errors import PayloadError
from .model import EXTRA, Part, Trail

P = TypeVar("P", bound=Part)

_MOST = 2 * MAX_DEPTH
"""Levels that a record may have: those of an event, and what is around it."""


def parse(text: bytes, what: str = "record") -> Any:
    """JSON data of a file. Raises PayloadError for what is no JSON: empty, cut off, with NaN, or far too deep.

    A byte order mark is skipped; lone surrogates are kept; of a key that stands twice, the last value counts.
    """
    text = text.removeprefix(b"\xef\xbb\xbf")
    if not text.strip():
        raise PayloadError(f"{what}: expected JSON, got an empty file")
    check_depth(text, what, _MOST)
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        try:
            return json.loads(text, parse_constant=_refuse)
        except (ValueError, RecursionError):
            raise PayloadError(f"{what}: expected JSON, got: {error}") from None


def dump(data: Any, *, indent: int = 0) -> bytes:
    """JSON text of JSON data; lone surrogates become escapes."""
    try:
        text = msgspec.json.encode(data)
    except UnicodeEncodeError:
        text = json.dumps(data, separators=(",", ":"), allow_nan=False).encode()
        return text if not indent else json.dumps(data, indent=indent).encode()
    return msgspec.json.format(text, indent=indent) if indent else text


@overload
def from_record(data: Any, *, what: str = ...) -> Trail: ...
@overload
def from_record(data: Any, kind: type[P], what: str = ...) -> P: ...
def from_record(data: Any, kind: Any = Trail, what: str = "record") -> Any:
    """The model of a record's JSON data. Raises PayloadError: expected, got and path.

    Example:
        trail = from_record(parse(path.read_bytes()))
    """
    try:
        part = msgspec.convert(_keep_unknown(data, kind), kind)
    except msgspec.ValidationError as error:
        raise PayloadError(f"{what}: {str(error)[:1].lower()}{str(error)[1:]}") from None
    return part


def to_record(part: Part) -> dict[str, Any]:
    """The JSON data of a model, in the published order of keys.

    Example:
        path.write_bytes(dump(to_record(folder.load(id)), indent=2))
    """
    data: dict[str, Any] = {}
    for name, key in zip(part.__struct_fields__, part.__struct_encode_fields__, strict=True):
        value = getattr(part, name)
        if name == "extra" or value is None or (not value and name in part.sparse):
            continue
        data[key] = _plain(value)
    data.update(part.extra)
    return data


def _plain(value: Any) -> Any:
    if isinstance(value, Part):
        return to_record(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, datetime):
        return instant(value)
    return value


def instant(when: datetime) -> str:
    """'2026-01-31T09:00:00.250Z': milliseconds as other tools write them, microseconds where there are any."""
    text = to_text(from_datetime(when))
    return text[:-4] + "Z" if text.endswith("000Z") else text


def moment(text: str) -> datetime:
    """The reverse of `instant`. Raises ValueError."""
    return to_datetime(from_text(text))


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


@cache
def _children(kind: type[Part]) -> dict[str, tuple[type[Part], bool]]:
    """Of a part's JSON keys, those that hold parts: which, and whether in a list."""
    hints = get_type_hints(kind)
    found: dict[str, tuple[type[Part], bool]] = {}
    for name, key in zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True):
        for option, listed in _options(hints[name]):
            if isinstance(option, type) and issubclass(option, Part):
                found[key] = (option, listed)
    return found


def _options(hint: Any, listed: bool = False) -> list[tuple[Any, bool]]:
    if get_origin(hint) in (Union, types.UnionType):
        return [found for option in get_args(hint) for found in _options(option, listed)]
    if get_origin(hint) is list:
        return _options(get_args(hint)[0], listed=True)
    return [(hint, listed)]


def _keep_unknown(data: Any, kind: type[Part]) -> Any:
    """The same data with unknown keys under EXTRA; what is no object is left for `convert` to refuse."""
    if not isinstance(data, dict):
        return data
    children = _children(kind)
    known: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for key, value in data.items():
        if key not in kind.__struct_encode_fields__ or key == EXTRA:
            extra[key] = value
        elif key in children:
            child, listed = children[key]
            many = listed and isinstance(value, list)
            known[key] = (
                [_keep_unknown(item, child) for item in value] if many else _keep_unknown(value, child)
            )
        else:
            known[key] = value
    if extra:
        known[EXTRA] = extra
    return known
