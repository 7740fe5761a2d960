"""Tagged values: any value as JSON, where no hint tells its type.

What JSON lacks becomes `{"$type": "datetime", "value": "2026-01-31T09:00:00"}`; instances of data classes
and members of enums carry "module:qualname". Reading such a tag sets fields, and calls no other function.
"""

from __future__ import annotations

import enum
import math
from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Any

import msgspec

from .fields import field_names, fields_of, is_pydantic, restore
from .form import TAG, VALUE, Refused, tag, type_name
from .names import class_name, find_class
from .paths import is_path
from .plain import dumps
from .scalars import READERS, WRITERS

_REMEDY = "make it a dataclass, a msgspec.Struct or a pydantic model, or pass its fields"
_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1
_ATOMS = frozenset({str, bool, type(None)})
_CONTAINERS = frozenset({set, frozenset, tuple, deque, OrderedDict})
_COLLECTION_NAMES = frozenset({"set", "frozenset", "tuple", "deque"})


class Tags:
    """Writes and reads tagged values. The classes that the hint names, `known`, need no import."""

    __slots__ = ("_known",)

    def __init__(self, known: dict[str, type]) -> None:
        self._known = known

    def write(self, value: Any) -> Any:
        kind = type(value)
        if kind in _ATOMS:
            return value
        if kind is int:
            return value if _INT_MIN <= value <= _INT_MAX else tag("int", hex(value))
        if kind is float:
            return value if math.isfinite(value) else tag("float", repr(value))
        if kind is list:
            return self._items(value)
        if kind is dict:
            if TAG not in value and all(type(key) is str for key in value):
                return self._fields(value)
            return tag("dict", [self._items(pair) for pair in value.items()])
        if kind in _CONTAINERS:
            items = self._items(value.items() if kind is OrderedDict else value)
            return tag(kind.__name__, _sorted(items) if kind in (set, frozenset) else items)
        if kind in WRITERS:
            return tag(kind.__name__, WRITERS[kind](value))
        return self._instance(value, kind)

    def _items(self, values: Iterable[Any]) -> list[Any]:
        done: list[Any] = []
        try:
            for value in values:
                # Not a comprehension: its length tells the path.
                done.append(value if type(value) in _ATOMS else self.write(value))  # noqa: PERF401
        except Refused as refused:
            refused.path = f"[{len(done)}]{refused.path}"
            raise
        return done

    def _fields(self, values: dict[str, Any]) -> dict[str, Any]:
        done: dict[str, Any] = {}
        name = ""
        try:
            for name, value in values.items():
                done[name] = value if type(value) in _ATOMS else self.write(value)
        except Refused as refused:
            refused.path = f".{name}{refused.path}"
            raise
        return done

    def _instance(self, value: Any, cls: Any) -> Any:
        names = field_names(cls)
        if names is None and not isinstance(value, enum.Enum):
            if is_path(cls):
                return tag(cls.__name__, str(value))
            raise Refused(f"{type_name(cls)} is not a plain type; {_REMEDY}")
        name = class_name(cls)
        if self._known.get(name) is not cls and _find_data_class(name) is not cls:
            raise Refused(
                f"{type_name(cls)} cannot be imported as {name}; define it at the top of a module, "
                "or name it in a type hint"
            )
        if isinstance(value, enum.Enum):
            return tag(name, self.write(value.value))
        return tag(name, self._fields(dict(fields_of(value))))

    def read(self, data: Any, *, apart: bool = False) -> Any:
        """The value behind tagged JSON; `apart` makes instances dicts and collections lists."""
        if type(data) is list:
            return [self.read(item, apart=apart) for item in data]
        if type(data) is not dict:
            return data
        if data.keys() != {TAG, VALUE} or type(data[TAG]) is not str:
            return {key: self.read(item, apart=apart) for key, item in data.items()}
        name, value = data[TAG], self.read(data[VALUE], apart=apart)
        reader = READERS.get(name)
        if apart and (reader is None or name in _COLLECTION_NAMES):
            return value
        try:
            return reader(value) if reader is not None else self._build(name, value)
        except Refused:
            raise
        except Exception as error:  # noqa: BLE001  whatever a data class raises on its fields
            raise Refused(f"{name} does not take {repr(value)[:200]}: {error}") from None

    def _build(self, name: str, value: Any) -> Any:
        cls: Any = self._known.get(name) or _find_data_class(name)
        if cls is None:
            raise Refused(
                f"{name} cannot be imported as a data class or an enum; "
                "keep it importable under this name, or give the type in a hint"
            )
        if issubclass(cls, enum.Enum):
            return cls(value)
        fields = {key: item for key, item in value.items() if key in (field_names(cls) or ())}
        if is_pydantic(cls):
            return cls.model_construct(**value)
        if issubclass(cls, tuple | msgspec.Struct):
            return cls(**fields)
        return restore(cls, fields)


def _find_data_class(name: str) -> Any:
    cls = find_class(name)
    return cls if cls and (field_names(cls) is not None or issubclass(cls, enum.Enum)) else None


def _sorted(items: list[Any]) -> list[Any]:
    if all(type(item) is str for item in items) or all(type(item) is int for item in items):
        return sorted(items)
    return sorted(items, key=dumps)
