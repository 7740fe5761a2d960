"""What a hint says: which values have exactly its types, and whether it tells every type."""

from __future__ import annotations

import enum
import typing
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
from msgspec import inspect as shapes

from .fields import field_names, is_pydantic
from .names import class_name
from .paths import is_path

_Check = Callable[[Any], bool]


class Shape:
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
        return lambda value: type(value) is dict and all(map(key, value)) and all(map(item, value.values()))

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
        self.closed = self.closed and (is_pydantic(cls) or cls is complex or is_path(cls))
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
        if names != set(field_names(cls) or ()) or hasattr(cls, "__attrs_attrs__"):
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
_MAKERS: dict[type, Callable[[Shape, Any], _Check]] = {
    **dict.fromkeys(_COLLECTIONS, Shape.collection),
    shapes.DateTimeType: Shape.moment,
    shapes.TimeType: Shape.moment,
    shapes.LiteralType: Shape.literal,
    shapes.UnionType: Shape.union,
    shapes.DictType: Shape.mapping,
    shapes.TupleType: Shape.fixed_tuple,
    shapes.EnumType: Shape.member,
    shapes.CustomType: Shape.custom,
    shapes.TypedDictType: Shape.typed_dict,
    shapes.DataclassType: Shape.data_class,
    shapes.StructType: Shape.data_class,
    shapes.NamedTupleType: Shape.data_class,
}
_SORTED_TYPES = frozenset({shapes.StrType, shapes.IntType, shapes.UUIDType, shapes.DateType})
_KEY_TYPES = frozenset({*_SORTED_TYPES, shapes.EnumType, shapes.LiteralType})
