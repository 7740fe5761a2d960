"""A form for a payload, built from the JSON Schema of its hook, and the payload from the form.

Plain properties get a field of their own; what is deeper than that gets an area for JSON. Where the whole is no
object with properties, one area takes all of it. What a field's text means is decided here, whether it fits by
`schema.validate`, as for every other sender.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from ...errors import PayloadError
from ...schema import usable, validate

_REF = "#/$defs/"
_MOST = 30
"""Fields in a form; a hook with more gets an area for JSON."""


class Field(msgspec.Struct):
    """A field of the form. `kind`: text, long, integer, number, boolean, choice, json."""

    name: str
    kind: str
    required: bool
    nullable: bool = False
    choices: list[Any] = []
    value: str = ""
    help: str = ""
    error: str = ""


class Form(msgspec.Struct):
    """What is shown: fields, or, where there are none, an area for `text`. `error` is about the whole."""

    fields: list[Field]
    text: str = "null"
    error: str = ""
    schema: dict[str, Any] | None = None


class Wrong(Exception):
    """What was sent is no payload; `form` says where, with all that was typed still in it."""

    def __init__(self, form: Form) -> None:
        super().__init__(form.error)
        self.form = form


def empty(schema: dict[str, Any] | None) -> Form:
    """The form before anything is typed."""
    told = schema if schema is not None and usable(schema) else None
    return Form(_fields(told), _example(told), schema=schema)


def read(schema: dict[str, Any] | None, sent: Mapping[str, list[str]], where: str) -> Any:
    """The payload that was typed. Raises Wrong."""
    made = empty(schema)
    if not made.fields or "json" in sent:
        made.text = sent.get("json", ["null"])[0]
        if "json" in sent:
            made.fields = []
        payload = _json(made.text, made)
    else:
        payload = _object(made, sent)
    if schema is not None:
        try:
            validate(schema, payload, where)
        except PayloadError as error:
            _blame(made, str(error))
            raise Wrong(made) from None
    return payload


def _json(text: str, made: Form) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        made.error = f"this is not JSON: {error}; text needs quotes"
        raise Wrong(made) from None


def _object(made: Form, sent: Mapping[str, list[str]]) -> dict[str, Any]:
    payload: dict[str, Any] = {}
    wrong = False
    for number, field in enumerate(made.fields):
        field.value = sent.get(f"f{number}", [""])[0]
        if field.kind == "boolean" and not field.nullable and field.value == "" and field.required:
            field.value = "false"  # a box that is not ticked is not sent
        if field.value == "" and (not field.required or field.nullable):
            if field.required:
                payload[field.name] = None
            continue
        try:
            payload[field.name] = _value(field)
        except ValueError as error:
            field.error, wrong = str(error), True
    if wrong:
        raise Wrong(made)
    return payload


def _value(field: Field) -> Any:
    match field.kind:
        case "integer":
            if not re.fullmatch(r"\s*[+-]?\d{1,4000}\s*", field.value):
                raise ValueError("expected a whole number")
            return int(field.value)
        case "number":
            try:
                number = float(field.value)
            except ValueError:
                raise ValueError("expected a number") from None
            return int(number) if re.fullmatch(r"[+-]?\d{1,15}", field.value.strip()) else number
        case "boolean":
            return field.value in ("true", "on")
        case "choice":
            place = int(field.value) if field.value.isdigit() else -1
            if not 0 <= place < len(field.choices):
                raise ValueError("choose one")
            return field.choices[place]
        case "json":
            try:
                return json.loads(field.value)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"this is not JSON: {error}") from None
    return field.value


def _blame(made: Form, message: str) -> None:
    """Put the message beside the field that it is about, where there is one."""
    about = re.search(r"at `\$[.\[]['\"]?(?P<name>[^.\[\]'\"`]+)", message)
    missing = re.search(r"expected the property '(?P<name>[^']*)'", message)
    short = message.partition(": ")[2] or message
    for field in made.fields:
        if field.name in ((about or {"name": None})["name"], (missing or {"name": None})["name"]):
            field.error = short.rpartition(" - at ")[0] or short
            return
    made.error = short


# ---- from the schema


def _fields(schema: dict[str, Any] | None) -> list[Field]:
    if schema is None:
        return []
    whole = _resolved(schema, schema)
    properties = whole.get("properties")
    if whole.get("type") != "object" or not properties or len(properties) > _MOST:
        return []
    required = whole.get("required", ())
    return [_field(name, part, name in required, schema) for name, part in properties.items()]


def _field(name: str, part: Any, required: bool, schema: dict[str, Any]) -> Field:
    part = _resolved(part, schema)
    options = [_resolved(option, schema) for option in part.get("anyOf", ())]
    nullable = any(option.get("type") == "null" for option in options)
    others = [option for option in options if option.get("type") != "null"]
    if len(others) == 1:
        part = {**part, **others[0]}
        options = []
    field = Field(name, "json", required, nullable, help=str(part.get("description") or ""))
    kind = part.get("type")
    if isinstance(part.get("enum"), list):
        field.kind, field.choices = "choice", part["enum"]
        if None in field.choices:
            field.nullable, field.choices = True, [each for each in field.choices if each is not None]
    elif options or not isinstance(kind, str):
        field.kind = "json"
    elif kind == "string":
        long = not (part.keys() & {"format", "pattern", "contentEncoding", "maxLength"})
        field.kind = "long" if long else "text"
    elif kind in ("integer", "number", "boolean"):
        field.kind = kind
    default = part.get("default")
    if default is not None:
        field.value = _written(field, default)
    return field


def _written(field: Field, value: Any) -> str:
    if field.kind == "choice":
        return str(field.choices.index(value)) if value in field.choices else ""
    if isinstance(value, str) and field.kind in ("text", "long"):
        return value
    if value in ("", [], {}):
        return ""
    return json.dumps(value, ensure_ascii=False)


def _resolved(part: Any, schema: dict[str, Any], depth: int = 8) -> dict[str, Any]:
    if not isinstance(part, dict):
        return {}
    reference = part.get("$ref")
    if isinstance(reference, str) and reference.startswith(_REF) and depth:
        found = schema.get("$defs", {}).get(reference.removeprefix(_REF))
        return {**_resolved(found, schema, depth - 1), **{k: v for k, v in part.items() if k != "$ref"}}
    return part


def _example(schema: dict[str, Any] | None) -> str:
    """Where somebody begins who types JSON."""
    if schema is None:
        return "null"
    kind = _resolved(schema, schema).get("type")
    return {
        "object": "{}",
        "array": "[]",
        "string": '""',
        "boolean": "true",
        "integer": "0",
        "number": "0",
    }.get(kind if isinstance(kind, str) else "", "null")
