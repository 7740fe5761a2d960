"""Payloads: values as JSON text and back, led by type hints.

    prices = payload_type(dict[str, Decimal])
    raw = prices.encode({"a": Decimal("1.50")}, "charge#1 result")      # b'{"a":"1.50"}'
    prices.decode(raw, "charge#1 result")                               # {'a': Decimal('1.50')}

There are two ways to write a value:

- *Plainly*, as msgspec does it: when the hint tells every type (it is closed) and the value has
  exactly these types. One call in, one call out.
- *Tagged*, in all other cases (no hint, `Any` inside, a subclass, NaN, a lone surrogate): what JSON
  lacks becomes `{"$type": "datetime", "value": "2026-01-31T09:00:00"}`, and instances of data
  classes carry "module:qualname". A tag names a data class or an enum and nothing else: reading
  sets fields, calls no other function and never unpickles. It may import a module.

Every hint reads both, because people send plain JSON from the command line. Where a value is not of
the hinted type but converts to it without loss (a tuple for `list[int]`), the hint wins; where it
does not, `decode` refuses it. So callers decode what they encoded before they hand it on.

Dicts keep their order and sets are sorted: a value has the same bytes under every hash seed.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import functools
import hashlib
import importlib
import inspect
import json
import math
import pathlib
import re
import sys
import types
import typing
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
from msgspec import inspect as shapes

from .errors import PayloadError

DEFAULT_LIMIT = 4 * 1024 * 1024
"""Bytes that one payload may have, unless the app sets `payload_limit`."""

_TAG, _VALUE = "$type", "value"
_TAG_BYTES = b'"$type"'
_REMEDY = "make it a dataclass, a msgspec.Struct or a pydantic model, or pass its fields"

_Check = Callable[[Any], bool]


class PayloadType:
    """How the values of one hint are written and read. Get it with `payload_type(hint)`.

    `where` names the value in messages:
    "charge#1 result: expected `int`, got `str` - at `$.amount`".
    """

    __slots__ = ("_closed", "_decoder", "_encode", "_exact", "_fits", "_floats", "_tags", "hint")

    def __init__(self, hint: Any) -> None:
        self.hint = hint
        exact, loose = _Shape(hint, exact=True), _Shape(hint, exact=False)
        self._tags = _Tags(exact.classes)
        self._exact, self._fits = exact.check, loose.check
        self._floats = exact.floats
        self._decoder: msgspec.json.Decoder[Any] | None = None
        try:
            self._decoder = msgspec.json.Decoder(hint, dec_hook=_from_plain)
        except (TypeError, NameError):
            pass  # msgspec cannot tell a union of two dataclasses apart; tags can
        self._closed = exact.closed and self._decoder is not None
        # Sorting in msgspec reorders dicts as well, so a hint with both goes by tags.
        self._closed = self._closed and not (exact.sets and exact.dicts)
        self._encode = (_SORTING if exact.sets else _KEEPING).encode

    def encode(self, value: object, where: str) -> bytes:
        """The value as JSON. A value that JSON cannot carry raises PayloadError.

        A value of another type than the hint's may pass here: `decode` refuses it, which callers
        always run next, because workflow code sees decoded values only.
        """
        try:
            if self._closed and self._exact(value):
                raw = self._encode(value)
                if _TAG_BYTES not in raw and not (self._floats and b"null" in raw):
                    return raw
                # Perhaps NaN, which msgspec writes as null, or a key that looks like a tag.
                plain = msgspec.to_builtins(value, str_keys=True, enc_hook=_to_plain)
                return _dumps(self._tags.write(plain))
        except (ValueError, TypeError, RecursionError, _Refused):
            pass  # lone surrogates, endless digits, sets that cannot be sorted: tags take them
        try:
            return _dumps(self._tags.write(value))
        except _Refused as refused:
            at = f" - at `${refused.path}`" if refused.path else ""
            raise PayloadError(f"{where}: cannot be stored: {refused.reason}{at}") from None
        except RecursionError:
            raise PayloadError(
                f"{where}: cannot be stored: it is nested too deeply or contains itself"
            ) from None

    def decode(self, raw: bytes | msgspec.Raw, where: str) -> Any:
        """The value that `raw` holds, checked against the hint."""
        text = raw if type(raw) is bytes else bytes(raw)
        if self._decoder is not None and _TAG_BYTES not in text:
            try:
                return self._decoder.decode(text)
            except msgspec.ValidationError as error:
                raise _mismatch(where, error) from None
            except (msgspec.DecodeError, ValueError, RecursionError):
                pass  # perhaps a lone surrogate; if it is not JSON at all, the next line says so
        try:
            return self._fit(self._tags.read(_loads(text)))
        except _Refused as refused:
            raise PayloadError(f"{where}: cannot be read: {refused.reason}") from None
        except (msgspec.ValidationError, TypeError, ValueError, RecursionError) as error:
            raise _mismatch(where, error) from None

    def _fit(self, value: Any) -> Any:
        """The value, or what the hint makes of it: a dataclass of plain JSON, a list of a tuple."""
        if self._decoder is None:
            return _fit_by_hand(self.hint, value)
        if self._fits(value):
            return value
        converted = msgspec.convert(value, self.hint, dec_hook=_from_plain, str_keys=True)
        if self._fits(converted):
            return converted
        # An instance with a wrong field: taken apart, msgspec names the path or mends the field.
        apart = self._tags.read(self._tags.write(value), apart=True)
        converted = msgspec.convert(apart, self.hint, dec_hook=_from_plain, str_keys=True)
        if self._closed:
            return converted
        raise msgspec.ValidationError(f"expected {_name(self.hint)}, got {_name(type(value))}")


def _fit_by_hand(hint: Any, value: Any) -> Any:
    """`_fit` for hints that msgspec cannot read, because only tags tell their values apart."""
    origin, args = typing.get_origin(hint) or hint, typing.get_args(hint)
    kinds = [payload_type(arg) for arg in args if arg is not ...]
    if origin in (typing.Union, types.UnionType):
        for kind in kinds:
            if kind._decoder is not None and kind._fits(value):
                return value
        for kind in kinds:
            try:
                return kind._fit(value)
            except (msgspec.ValidationError, TypeError, ValueError):
                pass  # the next one may take it
    elif origin in (list, set, frozenset) and isinstance(value, list | origin):
        return origin(kinds[0]._fit(item) for item in value)
    elif origin is tuple and isinstance(value, list | tuple):
        kinds = kinds * len(value) if ... in args else kinds
        return tuple(kind._fit(item) for kind, item in zip(kinds, value, strict=True))
    elif origin is dict and type(value) is dict:
        return {kinds[0]._fit(key): kinds[1]._fit(item) for key, item in value.items()}
    elif dataclasses.is_dataclass(origin) and isinstance(value, dict | origin):
        cls: Any = origin
        given = value if isinstance(value, dict) else dict(_fields_of(value))
        hints = dict.fromkeys(_field_names(cls) or (), Any) | typing.get_type_hints(cls)
        return _restore(
            cls if isinstance(value, dict) else type(value),
            {name: payload_type(hints[name])._fit(item) for name, item in given.items()},
        )
    elif isinstance(origin, type) and isinstance(value, origin):
        return value
    raise msgspec.ValidationError(f"expected {_name(hint)}, got {_name(type(value))}")


def payload_type(hint: Any) -> PayloadType:
    """The payload type of a hint; the same object for the same hint."""
    if hint is Any or hint is inspect.Parameter.empty or hint is object:
        return UNTYPED
    try:
        return _payload_type(hint)
    except TypeError:  # not hashable, such as Annotated[int, []]
        return PayloadType(hint)


@functools.lru_cache(maxsize=4096, typed=True)
def _payload_type(hint: Any) -> PayloadType:
    return PayloadType(hint)


def check_size(raw: bytes, limit: int, where: str) -> None:
    """Refuse a payload of more than `limit` bytes."""
    if len(raw) > limit:
        raise PayloadError(
            f"{where} is {len(raw):,} bytes, over the limit of {limit:,}: "
            "store it elsewhere and pass a reference, or raise payload_limit"
        )


def digest(raw: bytes) -> str:
    """A fingerprint of a payload: two dicts with their keys in another order have the same."""
    if raw.count(b'":') > 1:
        try:
            raw = _SORTING.encode(msgspec.json.decode(raw))
        except (msgspec.DecodeError, UnicodeEncodeError, ValueError):
            raw = json.dumps(json.loads(raw), sort_keys=True).encode()
    return hashlib.blake2b(raw, digest_size=8).hexdigest()


# --- the hint: which values have exactly its types ---------------------------------------------


class _Shape:
    """What a hint says: `check(value)` is whether a value has the hinted types, all the way down.

    `exact` is asked before writing plainly, when a subclass would lose its fields; the other after
    reading tags. msgspec alone cannot tell: it writes a datetime where the hint says `str`.
    """

    def __init__(self, hint: Any, *, exact: bool) -> None:
        self._exact = exact
        self._seen: dict[int, _Check] = {}
        self.closed = True
        self.floats = self.sets = self.dicts = False
        self.classes: dict[str, type] = {}
        try:
            self.check = self._of(shapes.type_info(hint))
        except (TypeError, NameError, AttributeError):  # a hint that msgspec does not know
            self.closed = False
            self.check = self._instance(hint) if isinstance(hint, type) else _never

    def _of(self, info: Any) -> _Check:
        kinds = _LEAVES.get(type(info))
        if kinds is not None:
            if kinds == {float}:
                self.floats = True
                kinds = kinds if self._exact else frozenset({float, int})
            return _is_one_of(kinds)
        make = _MAKERS.get(type(info))
        if make is not None:
            return make(self, info)
        self.closed = False
        return _always

    def moment(self, info: Any) -> _Check:
        kind = datetime if type(info) is shapes.DateTimeType else time
        if not self._exact:
            return _is_one_of(frozenset({kind}))
        return lambda value: type(value) is kind and _is_whole_minutes(value.tzinfo)

    def literal(self, info: shapes.LiteralType) -> _Check:
        values = {(type(value), value) for value in info.values}
        return lambda value: (type(value), value) in values

    def union(self, info: shapes.UnionType) -> _Check:
        checks = [self._of(member) for member in info.types]
        if len(checks) == 2 and type(info.types[1]) is shapes.NoneType:
            some = checks[0]
            return lambda value: value is None or some(value)
        return lambda value: any(check(value) for check in checks)

    def mapping(self, info: shapes.DictType) -> _Check:
        self.dicts = True
        self.closed = self.closed and type(info.key_type) in _KEY_TYPES
        key, item = self._of(info.key_type), self._of(info.value_type)
        return lambda value: (
            type(value) is dict and all(map(key, value)) and all(map(item, value.values()))
        )

    def fixed_tuple(self, info: shapes.TupleType) -> _Check:
        checks = [self._of(item) for item in info.item_types]
        return lambda value: (
            type(value) is tuple
            and len(value) == len(checks)
            and all(check(item) for check, item in zip(checks, value, strict=True))
        )

    def collection(self, info: Any) -> _Check:
        kind: Any = _COLLECTIONS[type(info)]
        if kind is set or kind is frozenset:
            self.sets = True
            self.closed = self.closed and type(info.item_type) in _SORTED_TYPES
        item = self._of(info.item_type)
        return lambda value: type(value) is kind and all(map(item, value))

    def member(self, info: shapes.EnumType) -> _Check:
        self.closed = self.closed and not issubclass(info.cls, enum.Flag)
        return self._instance(info.cls)

    def custom(self, info: shapes.CustomType) -> _Check:
        cls: Any = typing.get_origin(info.cls) or info.cls
        self.closed = self.closed and (_is_pydantic(cls) or cls is complex or cls in _PATHS)
        self.floats = self.floats or cls is complex
        return self._instance(cls) if isinstance(cls, type) else _always

    def typed_dict(self, info: shapes.TypedDictType) -> _Check:
        self.dicts = True
        checks = {field.name: self._of(field.type) for field in info.fields}
        required = {field.name for field in info.fields if field.required}
        return lambda value: (
            type(value) is dict
            and required <= value.keys() <= checks.keys()
            and all(checks[name](item) for name, item in value.items())
        )

    def data_class(self, info: Any) -> _Check:
        if id(info) in self._seen:  # a class that contains itself
            return lambda value: self._seen[id(info)](value)
        self._seen[id(info)] = _always
        cls: Any = typing.get_origin(info.cls) or info.cls
        names = {field.name for field in info.fields}
        if names != set(_field_names(cls) or ()) or hasattr(cls, "__attrs_attrs__"):
            self.closed = False  # msgspec leaves out what attrs deems private
        is_instance = self._instance(cls)
        checks = [(field.name, self._of(field.type)) for field in info.fields]

        def check(value: Any) -> bool:
            if not is_instance(value):
                return False
            for name, has_type in checks:  # noqa: SIM110  all() with a generator costs more
                if not has_type(getattr(value, name, msgspec.UNSET)):
                    return False
            return True

        self._seen[id(info)] = check
        return check

    def _instance(self, cls: type) -> _Check:
        self.classes[class_name(cls)] = cls
        if self._exact:
            return lambda value: type(value) is cls
        return lambda value: isinstance(value, cls)


def _is_one_of(kinds: frozenset[type]) -> _Check:
    if len(kinds) == 1:
        (kind,) = kinds
        return lambda value: type(value) is kind
    return lambda value: type(value) in kinds


def _is_whole_minutes(zone: Any) -> bool:
    """Whether msgspec keeps this time zone: it writes the offset, in minutes."""
    if zone is None or zone is UTC:
        return True
    return type(zone) is timezone and not zone.utcoffset(None) % timedelta(minutes=1)


def _always(value: Any) -> bool:
    return True


def _never(value: Any) -> bool:
    return False


# --- tags: values whose type no hint tells ------------------------------------------------------


class _Refused(Exception):
    """A value that cannot be written or read; `path` grows while it rises."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = ""


class _Tags:
    """Writes and reads tagged values. The classes that the hint names, `known`, need no import."""

    __slots__ = ("_known",)

    def __init__(self, known: dict[str, type]) -> None:
        self._known = known

    def write(self, value: Any) -> Any:
        kind = type(value)
        if kind in _ATOMS:
            return value
        if kind is int:
            return value if _INT_MIN <= value <= _INT_MAX else _tag("int", hex(value))
        if kind is float:
            return value if math.isfinite(value) else _tag("float", repr(value))
        if kind is list:
            return self._items(value)
        if kind is dict:
            if _TAG not in value and all(type(key) is str for key in value):
                return self._fields(value)
            return _tag("dict", [self._items(pair) for pair in value.items()])
        if kind in _CONTAINERS:
            items = self._items(value.items() if kind is OrderedDict else value)
            return _tag(kind.__name__, _sorted(items) if kind in (set, frozenset) else items)
        if kind in _WRITERS:
            return _tag(kind.__name__, _WRITERS[kind](value))
        return self._instance(value, kind)

    def _items(self, values: Iterable[Any]) -> list[Any]:
        done: list[Any] = []
        try:
            for value in values:
                # Not a comprehension: its length tells the path.
                done.append(value if type(value) in _ATOMS else self.write(value))  # noqa: PERF401
        except _Refused as refused:
            refused.path = f"[{len(done)}]{refused.path}"
            raise
        return done

    def _fields(self, values: dict[str, Any]) -> dict[str, Any]:
        done: dict[str, Any] = {}
        name = ""
        try:
            for name, value in values.items():
                done[name] = value if type(value) in _ATOMS else self.write(value)
        except _Refused as refused:
            refused.path = f".{name}{refused.path}"
            raise
        return done

    def _instance(self, value: Any, cls: Any) -> Any:
        names = _field_names(cls)
        if names is None and not isinstance(value, enum.Enum):
            raise _Refused(f"{_name(cls)} is not a plain type; {_REMEDY}")
        name = class_name(cls)
        if self._known.get(name) is not cls and _find_class(name) is not cls:
            raise _Refused(
                f"{_name(cls)} cannot be imported as {name}; define it at the top of a module, "
                "or name it in a type hint"
            )
        if isinstance(value, enum.Enum):
            return _tag(name, self.write(value.value))
        return _tag(name, self._fields(dict(_fields_of(value))))

    def read(self, data: Any, *, apart: bool = False) -> Any:
        """The value behind tagged JSON; `apart` makes instances dicts and collections lists."""
        if type(data) is list:
            return [self.read(item, apart=apart) for item in data]
        if type(data) is not dict:
            return data
        if data.keys() != {_TAG, _VALUE} or type(data[_TAG]) is not str:
            return {key: self.read(item, apart=apart) for key, item in data.items()}
        name, value = data[_TAG], self.read(data[_VALUE], apart=apart)
        reader = _READERS.get(name)
        if apart and (reader is None or name in _COLLECTION_NAMES):
            return value
        try:
            return reader(value) if reader is not None else self._build(name, value)
        except _Refused:
            raise
        except Exception as error:  # noqa: BLE001  whatever a data class raises on its fields
            raise _Refused(f"{name} does not take {repr(value)[:200]}: {error}") from None

    def _build(self, name: str, value: Any) -> Any:
        cls: Any = self._known.get(name) or _find_class(name)
        if cls is None:
            raise _Refused(
                f"{name} cannot be imported as a data class or an enum; "
                "keep it importable under this name, or give the type in a hint"
            )
        if issubclass(cls, enum.Enum):
            return cls(value)
        fields = {key: item for key, item in value.items() if key in (_field_names(cls) or ())}
        if _is_pydantic(cls):
            return cls.model_construct(**value)
        if issubclass(cls, tuple | msgspec.Struct):
            return cls(**fields)
        return _restore(cls, fields)


def _restore(cls: Any, fields: dict[str, Any]) -> Any:
    """An instance of a dataclass or attrs class with these fields, frozen or not."""
    hooked = hasattr(cls, "__post_init__") or hasattr(cls, "__attrs_post_init__")
    if hooked or len(fields) < len(_field_names(cls) or ()):
        # Fields that are new since, and what is no field, come from the class itself.
        names = {key: key.lstrip("_") if hasattr(cls, "__attrs_attrs__") else key for key in fields}
        taken = inspect.signature(cls).parameters
        made = cls(**{names[key]: item for key, item in fields.items() if names[key] in taken})
    else:
        made = cls.__new__(cls)
    for key, item in fields.items():
        object.__setattr__(made, key, item)
    return made


@functools.lru_cache(maxsize=4096)
def _field_names(cls: Any) -> tuple[str, ...] | None:
    """The fields of a data class; None for any other class."""
    if dataclasses.is_dataclass(cls):
        return tuple(field.name for field in dataclasses.fields(cls))
    if issubclass(cls, msgspec.Struct):
        return tuple(cls.__struct_fields__)
    if hasattr(cls, "__attrs_attrs__"):
        return tuple(field.name for field in cls.__attrs_attrs__)
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return tuple(cls._fields)
    return tuple(cls.model_fields) if _is_pydantic(cls) else None


def _fields_of(value: Any) -> Iterator[tuple[str, Any]]:
    cls: Any = type(value)
    for name in _field_names(cls) or ():
        item = getattr(value, name, msgspec.UNSET)
        if item is not msgspec.UNSET:
            yield name, item
    yield from (getattr(value, "__pydantic_extra__", None) or {}).items()


def _is_pydantic(cls: Any) -> bool:
    return hasattr(cls, "model_validate") and hasattr(cls, "model_construct")


def main_name() -> str:
    """The name under which another process can import what is running as `__main__`."""
    main = sys.modules.get("__main__")
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if spec is not None:
        return str(spec.name)
    return _stem(file) if file else "__main__"


@functools.cache
def _stem(file: str) -> str:
    return pathlib.PurePath(file).stem


def class_name(cls: type) -> str:
    """The name of a class in the log: 'module:qualname'."""
    module = main_name() if cls.__module__ == "__main__" else cls.__module__
    return f"{module}:{cls.__qualname__}"


def find_class(name: str) -> type | None:
    """The class behind a name made by `class_name`; None if there is none. Imports its module."""
    module, _, path = name.partition(":")
    if not path:
        return None
    try:
        found: Any = sys.modules.get("__main__" if module == main_name() else module)
        found = found or importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except Exception:  # noqa: BLE001  a module may fail to import in any way
        return None
    return found if isinstance(found, type) else None


def _find_class(name: str) -> Any:
    cls = find_class(name)
    return cls if cls and (_field_names(cls) is not None or issubclass(cls, enum.Enum)) else None


# --- small conversions, and the tables of types ------------------------------------------------


def _tag(name: str, value: Any) -> dict[str, Any]:
    return {_TAG: name, _VALUE: value}


def _sorted(items: list[Any]) -> list[Any]:
    if all(type(item) is str for item in items) or all(type(item) is int for item in items):
        return sorted(items)
    return sorted(items, key=_dumps)


def _dumps(data: Any) -> bytes:
    try:
        return _KEEPING.encode(data)
    except UnicodeEncodeError:  # lone surrogates: only as escapes
        return json.dumps(_split(data), separators=(",", ":"), allow_nan=False).encode()


def _split(data: Any) -> Any:
    """JSON data in which no two lone surrogates stand so that a reader takes them for a pair."""
    if type(data) is str:
        parts = _PAIR.split(data)
        return data if len(parts) == 1 else _tag("str", parts)
    if type(data) is list:
        return [_split(item) for item in data]
    if type(data) is not dict:
        return data
    if any(_PAIR.search(key) for key in data):
        return _tag("dict", [[_split(key), _split(item)] for key, item in data.items()])
    return {key: _split(item) for key, item in data.items()}


def _loads(text: bytes) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        if b"\\u" not in text:
            raise
        return json.loads(text)


def _to_plain(value: Any) -> Any:
    """For msgspec: what it cannot write itself. ValueError for what would not come back equal."""
    if _is_pydantic(type(value)):
        plain = value.model_dump_json(by_alias=True)
        if type(value).model_validate_json(plain) != value:
            raise ValueError("the model does not survive JSON")
        return json.loads(plain)
    if type(value) is complex:
        return [value.real, value.imag]
    if type(value) in _PATHS:
        return str(value)
    raise TypeError(f"{type(value)} is not a plain type")


def _from_plain(hint: Any, data: Any) -> Any:
    """For msgspec: the reverse of `_to_plain`."""
    if _is_pydantic(hint):
        return hint.model_validate_json(_dumps(data))
    if hint is complex and type(data) is list and len(data) == 2:
        return complex(*data)
    if hint in _PATHS and type(data) is str:
        return hint(data)
    raise ValueError(f"expected {_name(hint)}, got {_name(type(data))}")


def _write_datetime(value: datetime) -> str:
    zone = value.tzinfo
    if zone is None or type(zone) is timezone:
        return value.isoformat()
    if type(zone) is ZoneInfo and zone.key:
        return f"{value.isoformat()}[{zone.key}]"
    raise _Refused(f"a datetime with the time zone {zone!r}; use datetime.timezone or zoneinfo")


def _read_datetime(text: str) -> datetime:
    text, _, zone = text.rstrip("]").partition("[")
    value = datetime.fromisoformat(text)
    if not zone:
        return value
    local = value.replace(tzinfo=ZoneInfo(zone))
    return local if local.utcoffset() == value.utcoffset() else local.replace(fold=1)


def _write_time(value: time) -> str:
    if value.tzinfo is not None and type(value.tzinfo) is not timezone:
        raise _Refused(f"a time with the time zone {value.tzinfo!r}; use datetime.timezone")
    return value.isoformat()


def _name(hint: Any) -> str:
    return f"`{hint.__qualname__}`" if isinstance(hint, type) else f"`{hint}`"


def _mismatch(where: str, error: Exception) -> PayloadError:
    text = str(error)
    return PayloadError(f"{where}: {text[:1].lower()}{text[1:]}")


_KEEPING = msgspec.json.Encoder(enc_hook=_to_plain)
_SORTING = msgspec.json.Encoder(enc_hook=_to_plain, order="deterministic")
_PAIR = re.compile("(?<=[\ud800-\udbff])(?=[\udc00-\udfff])")
_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1
_ATOMS = frozenset({str, bool, type(None)})
_CONTAINERS = frozenset({set, frozenset, tuple, deque, OrderedDict})
_PATHS: frozenset[type] = frozenset(
    {pathlib.Path, pathlib.PurePosixPath, pathlib.PureWindowsPath, type(pathlib.Path())}
)

_WRITERS: dict[type, Callable[[Any], Any]] = {
    datetime: _write_datetime,
    date: date.isoformat,
    time: _write_time,
    timedelta: msgspec.to_builtins,
    UUID: str,
    Decimal: str,
    bytes: lambda value: base64.b64encode(value).decode(),
    bytearray: lambda value: base64.b64encode(value).decode(),
    complex: lambda value: [repr(value.real), repr(value.imag)],
    **dict.fromkeys(_PATHS, str),
}
_READERS: dict[str, Callable[[Any], Any]] = {
    "int": lambda text: int(text, 16),
    "str": "".join,
    "float": float,
    "datetime": _read_datetime,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "timedelta": lambda text: msgspec.convert(text, timedelta),
    "UUID": UUID,
    "Decimal": Decimal,
    "bytes": base64.b64decode,
    "bytearray": lambda text: bytearray(base64.b64decode(text)),
    "complex": lambda parts: complex(*map(float, parts)),
    "set": set,
    "frozenset": frozenset,
    "tuple": tuple,
    "deque": deque,
    "dict": dict,
    "OrderedDict": OrderedDict,
    **{path.__name__: path for path in _PATHS},
}
_COLLECTION_NAMES = frozenset({"set", "frozenset", "tuple", "deque"})

_LEAVES: dict[type, frozenset[type]] = {
    shapes.NoneType: frozenset({type(None)}),
    shapes.BoolType: frozenset({bool}),
    shapes.IntType: frozenset({int}),
    shapes.FloatType: frozenset({float}),
    shapes.StrType: frozenset({str}),
    shapes.BytesType: frozenset({bytes}),
    shapes.ByteArrayType: frozenset({bytearray}),
    shapes.DateType: frozenset({date}),
    shapes.TimeDeltaType: frozenset({timedelta}),
    shapes.UUIDType: frozenset({UUID}),
    shapes.DecimalType: frozenset({Decimal}),
}
_COLLECTIONS: dict[type, type] = {
    shapes.ListType: list,
    shapes.SetType: set,
    shapes.FrozenSetType: frozenset,
    shapes.VarTupleType: tuple,
}
_MAKERS: dict[type, Callable[[_Shape, Any], _Check]] = {
    **dict.fromkeys(_COLLECTIONS, _Shape.collection),
    shapes.DateTimeType: _Shape.moment,
    shapes.TimeType: _Shape.moment,
    shapes.LiteralType: _Shape.literal,
    shapes.UnionType: _Shape.union,
    shapes.DictType: _Shape.mapping,
    shapes.TupleType: _Shape.fixed_tuple,
    shapes.EnumType: _Shape.member,
    shapes.CustomType: _Shape.custom,
    shapes.TypedDictType: _Shape.typed_dict,
    shapes.DataclassType: _Shape.data_class,
    shapes.StructType: _Shape.data_class,
    shapes.NamedTupleType: _Shape.data_class,
}
_SORTED_TYPES = frozenset({shapes.StrType, shapes.IntType, shapes.UUIDType, shapes.DateType})
_KEY_TYPES = frozenset({*_SORTED_TYPES, shapes.EnumType, shapes.LiteralType})

UNTYPED = PayloadType(Any)
"""For values without a hint."""
