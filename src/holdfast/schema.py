"""JSON Schema of type hints, so that a hook's payload can be checked where the hint is not known.

    schema = json_schema(Approval)                          # stored with the hook
    validate(schema, {"ok": "yes"}, "approve:1 payload")    # PayloadError: expected boolean …

A schema accepts what the codec would read for the same hint, and refuses what it would refuse, as
far as JSON Schema can say it. Where msgspec's schema says less than its decoder does, `_refine`
says the rest: otherwise a payload could be accepted that the workflow then cannot read.
"""

from __future__ import annotations

import functools
import inspect
import json
import pathlib
from collections.abc import Callable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
from msgspec import inspect as shapes

from .errors import PayloadError

_DIALECT = "https://json-schema.org/draft/2020-12/schema"  # a name, not a place: nothing is fetched
_DEFINITIONS = "#/$defs/"
_NUMBER = {"type": "number"}


def json_schema(hint: Any) -> dict[str, Any] | None:
    """The JSON Schema (2020-12) of a hint; None if it says nothing about the value.

    It is made once for a hint (0.2 ms for a small dataclass), so nobody may change it.
    """
    if hint is Any or hint is object or hint is inspect.Parameter.empty:
        return None
    try:
        return _kept_schema(hint, repr(hint))  # `int | str` equals `str | int`, and reads otherwise
    except TypeError:  # not hashable, such as Annotated[int, []]
        return _make_schema(hint)


@functools.lru_cache(maxsize=1024)
def _kept_schema(hint: Any, _text: str) -> dict[str, Any] | None:
    return _make_schema(hint)


def _make_schema(hint: Any) -> dict[str, Any] | None:
    try:
        schema = msgspec.json.schema(hint, schema_hook=_schema_of_class)
        info = shapes.type_info(hint)
    except (TypeError, NameError):  # a hint that msgspec does not know: the codec checks it alone
        return None
    definitions = schema.setdefault("$defs", {})
    _refine(info, schema, definitions, set())
    _hoist(schema, definitions)
    if not definitions:
        del schema["$defs"]
    return {"$schema": _DIALECT, **schema}


def validate(schema: dict[str, Any], payload: object, where: str) -> None:
    """Refuse JSON data that does not fit: expected, got and the path, as PayloadError.

    A schema that is none refuses everything: whoever appends to a log may have written any.
    """
    from jsonschema.exceptions import best_match
    from referencing.exceptions import Unresolvable

    if not usable(schema):
        raise PayloadError(f"{where}: its schema is no JSON Schema, so nothing fits it")
    try:
        error = best_match(_validator(msgspec.json.encode(schema)).iter_errors(_without_tags(payload)))
    except (Unresolvable, RecursionError):  # it was checked how deep the payload is nested
        raise PayloadError(
            f"{where}: its schema refers to what is not there, or in a circle, so nothing fits it"
        ) from None
    if error is not None:
        path = error.json_path
        raise PayloadError(f"{where}: {_explain(error)} - at `{path}`")


def usable(schema: dict[str, Any]) -> bool:
    """Whether this is a JSON Schema."""
    return _validator(msgspec.json.encode(schema)) is not None


@functools.lru_cache(maxsize=256)
def _validator(schema: bytes) -> Any:
    """The validator of a schema, None for what is none; making one costs twenty times what using it does."""
    # jsonschema takes longer to import than all of Holdfast.
    import jsonschema
    from jsonschema import Draft202012Validator, FormatChecker, ValidationError
    from referencing import Registry

    formats = FormatChecker(formats=())
    for name, is_valid in _FORMATS.items():
        formats.checks(name)(is_valid)

    def encoding(_: Any, wanted: str, text: object, __: Any) -> Iterator[ValidationError]:
        if isinstance(text, str) and not _reads(text, bytes):
            yield ValidationError(f"{text!r} is not {wanted}")

    strict = Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
    extend: Any = jsonschema.validators.extend
    validator_class = extend(Draft202012Validator, {"contentEncoding": encoding}, type_checker=strict)
    decoded = msgspec.json.decode(schema)
    try:
        Draft202012Validator.check_schema(decoded)
    except (jsonschema.SchemaError, RecursionError):
        return None
    # An empty registry, so that no reference is ever looked up on the network.
    return validator_class(decoded, format_checker=formats, registry=Registry())


def _schema_of_class(cls: Any) -> dict[str, Any]:
    """For msgspec: the schema of a class that it does not know."""
    if hasattr(cls, "model_json_schema"):
        # Names of definitions are local to a model: prefixed, they can stand beside all others.
        template = f"{_DEFINITIONS}{cls.__module__}.{cls.__qualname__}.{{model}}"
        schema: dict[str, Any] = cls.model_json_schema(ref_template=template)
        prefix = template.removeprefix(_DEFINITIONS).removesuffix("{model}")
        inner = {prefix + name: item for name, item in schema.pop("$defs", {}).items()}
        return {**schema, "$defs": inner} if inner else schema
    if cls is complex:
        return {"type": "array", "prefixItems": [_NUMBER, _NUMBER], "minItems": 2, "maxItems": 2}
    if isinstance(cls, type) and issubclass(cls, pathlib.PurePath):
        return {"type": "string"}
    return {}


def _hoist(schema: Any, definitions: dict[str, Any]) -> None:
    """Move definitions inside the schema to its top, where their references point."""
    for key, item in list(schema.items()) if isinstance(schema, dict) else enumerate(schema):
        if key == "$defs" and item is not definitions:
            definitions.update(schema.pop("$defs"))
        if isinstance(item, dict | list):
            _hoist(list(item.values()) if item is definitions else item, definitions)


def _refine(info: Any, schema: dict[str, Any], definitions: dict[str, Any], seen: set[str]) -> None:
    """Add what the decoder knows and msgspec's schema leaves out, walking both side by side."""
    reference = schema.get("$ref", "").removeprefix(_DEFINITIONS)
    if reference in seen:
        return
    if reference in definitions:
        seen.add(reference)
        schema = definitions[reference]
    for inner, part in _parts(info, schema):
        _refine(inner, part, definitions, seen)
    match info:
        case shapes.DateTimeType():
            schema["format"] = "date-time"
        case shapes.TimeType():
            schema["format"] = "time"
        case shapes.DecimalType():
            schema["type"] = ["string", "number"]
        case shapes.SetType() | shapes.FrozenSetType():
            schema.pop("uniqueItems", None)  # the codec reads a list with doubles
        case shapes.DictType(key_type=shapes.IntType()):
            schema["propertyNames"] = {"pattern": "^-?[0-9]+$"}
        case shapes.DictType(key_type=shapes.UUIDType()):
            schema["propertyNames"] = {"format": "uuid"}
        case shapes.DictType(key_type=shapes.DateType()):
            schema["propertyNames"] = {"format": "date"}
        case _:
            pass


def _parts(info: Any, schema: dict[str, Any]) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The types inside a type, each with its part of the schema."""
    pairs: list[tuple[Any, Any]] = []
    if isinstance(info, shapes.UnionType):
        pairs = [(t, s) for t in info.types for s in schema.get("anyOf", ()) if _belong(t, s)]
    elif isinstance(info, shapes.TupleType):
        pairs = list(zip(info.item_types, schema.get("prefixItems", ()), strict=False))
    elif isinstance(info, shapes.NamedTupleType):
        types = [field.type for field in info.fields]
        pairs = list(zip(types, schema.get("prefixItems", ()), strict=False))
    elif isinstance(info, shapes.DictType):
        pairs = [(info.value_type, schema.get("additionalProperties"))]
    elif isinstance(info, shapes.CollectionType):
        pairs = [(info.item_type, schema.get("items"))]
    elif hasattr(info, "fields"):
        known = schema.get("properties", {})
        pairs = [(field.type, known.get(field.encode_name)) for field in info.fields]
    yield from ((inner, part) for inner, part in pairs if isinstance(part, dict))


def _belong(info: Any, schema: dict[str, Any]) -> bool:
    """Whether a member of a union has this schema. There is at most one of each kind in a union."""
    name = getattr(getattr(info, "cls", None), "__name__", None)
    if "$ref" in schema:
        return name is not None and schema["$ref"].rpartition("/")[2].startswith(name)
    kinds = {"array": shapes.CollectionType | shapes.TupleType, "object": shapes.DictType}
    if schema.get("type") in kinds:
        return isinstance(info, kinds[schema["type"]])
    texts = shapes.DateTimeType | shapes.TimeType | shapes.DecimalType
    return schema.get("type") == "string" and isinstance(info, texts)


def _without_tags(data: Any) -> Any:
    """Tagged values as the plain ones that a schema speaks of."""
    if isinstance(data, list):
        return [_without_tags(item) for item in data]
    if not isinstance(data, dict):
        return data
    if data.keys() != {"$type", "value"}:
        return {key: _without_tags(item) for key, item in data.items()}
    value = _without_tags(data["value"])
    try:
        match data["$type"]:
            case "float":
                return float(value)
            case "int":
                return int(value, 16)
            case "dict" | "OrderedDict":
                return {key if isinstance(key, str) else json.dumps(key): v for key, v in value}
            case "datetime":
                return value.partition("[")[0]
            case "complex":
                return [float(part) for part in value]
            case _:
                return value
    except (TypeError, ValueError, AttributeError):
        return data


def _explain(error: Any) -> str:
    got = f"got {_kind(error.instance)} {_short(error.instance)}"
    wanted = error.validator_value
    match error.validator:
        case "type":
            return f"expected {wanted if isinstance(wanted, str) else ' or '.join(wanted)}, {got}"
        case "enum":
            return f"expected one of {', '.join(map(_short, wanted))}, {got}"
        case "const":
            return f"expected {_short(wanted)}, {got}"
        case "format" | "contentEncoding":
            return f"expected {wanted}, {got}"
        case "required":
            lacking = [name for name in wanted if name not in error.instance]
            return f"expected the property {', '.join(map(_short, lacking))}, {got}"
        case _:
            return f"expected {error.validator} {_short(wanted)}, {got}"


def _kind(value: object) -> str:
    kinds = ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"))
    more = ((list, "array"), (dict, "object"))
    return next((name for cls, name in kinds + more if isinstance(value, cls)), "null")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _reads(text: object, hint: Any) -> bool:
    """Whether the codec would read this text for the hint."""
    try:
        msgspec.convert(text, hint)
    except msgspec.ValidationError:
        return not isinstance(text, str)  # a format speaks of strings only
    return True


def _reader(hint: Any) -> Callable[[object], bool]:
    return lambda text: _reads(text, hint)


_FORMATS: dict[str, Callable[[object], bool]] = {
    "date-time": _reader(datetime),
    "date": _reader(date),
    "time": _reader(time),
    "duration": _reader(timedelta),
    "uuid": _reader(UUID),
    "decimal": _reader(Decimal),
}
