"""Forms for payloads: fields from a hook's schema, a payload from what was typed, errors beside their fields."""

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from urllib.parse import parse_qs, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.schema import json_schema
from holdfast.server.page import forms

NESTED = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
ONE = {"type": "object", "required": ["it"]}


def one(part: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A schema with one property, `it`."""
    return {**ONE, "properties": {"it": part}, **more}


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        ({"type": "string"}, "long"),
        ({"type": "string", "format": "date-time"}, "text"),
        ({"type": "string", "maxLength": 8}, "text"),
        ({"type": "integer"}, "integer"),
        ({"type": "number"}, "number"),
        ({"type": "boolean"}, "boolean"),
        ({"enum": ["a", 1]}, "choice"),
        ({"type": "string", "enum": ["a"]}, "choice"),
        ({"type": "array"}, "json"),
        (NESTED, "json"),
        ({}, "json"),
        ({"type": ["string", "integer"]}, "json"),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, "json"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "long"),
        ({"$ref": "#/$defs/Colour"}, "choice"),
        ({"$ref": "#/$defs/Nowhere"}, "json"),
        ({"$ref": "#/$defs/Loop"}, "json"),
        (True, "json"),
    ],
)
def test_the_kind_of_a_field_follows_from_its_schema(part, kind):
    definitions = {"Colour": {"enum": ["red", "blue"]}, "Loop": {"$ref": "#/$defs/Loop"}}
    assert [each.kind for each in forms.empty(one(part, **{"$defs": definitions})).fields] == [kind]


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (None, "null"),
        ({}, "null"),
        ({"type": "object"}, "{}"),
        ({"type": "array"}, "[]"),
        ({"type": "string"}, '""'),
        ({"type": "boolean"}, "true"),
        ({"type": "integer"}, "0"),
        ({"type": ["object", "null"]}, "null"),
        ({"type": "object", "properties": {str(n): {} for n in range(31)}}, "{}"),
    ],
)
def test_what_is_no_plain_object_is_typed_as_json(schema, text):
    form = forms.empty(schema)
    assert (form.fields, form.text) == ([], text)


@pytest.mark.parametrize(
    ("part", "typed", "value"),
    [
        ({"type": "integer"}, " -7 ", -7),
        ({"type": "integer"}, "9" * 40, int("9" * 40)),
        ({"type": "number"}, "7", 7),
        ({"type": "number"}, "1e3", 1000.0),
        ({"type": "boolean"}, "true", True),
        ({"type": "boolean"}, None, False),  # a box that is not ticked is not sent
        ({"type": "string"}, "two\nlines ", "two\nlines "),
        ({"enum": ["a", 1, None]}, "1", 1),
        ({"enum": ["a", 1, None]}, "", None),
        ({"anyOf": [{"type": "boolean"}, {"type": "null"}]}, "", None),
        ({"anyOf": [{"type": "boolean"}, {"type": "null"}]}, "false", False),
        ({"type": "array"}, "[1, {}]", [1, {}]),
    ],
)
def test_what_is_typed_becomes_the_value(part, typed, value):
    sent = {} if typed is None else {"f0": [typed]}
    assert forms.read(one(part), sent, "it") == {"it": value}


@pytest.mark.parametrize(
    ("part", "typed", "error"),
    [
        ({"type": "integer"}, "1.5", "expected a whole number"),
        ({"type": "integer"}, "9" * 5000, "expected a whole number"),
        ({"type": "integer"}, "٣", None),  # digits of other scripts are digits
        ({"type": "number"}, "many", "expected a number"),
        ({"enum": ["a"]}, "1", "choose one"),
        ({"enum": ["a"]}, "", "choose one"),
        ({"type": "array"}, "[", "this is not JSON"),
        ({"type": "array"}, "[" * 100_000, "this is not JSON"),
        ({"type": "array"}, '"x"', "expected"),
        ({"type": "string", "maxLength": 2}, "abc", "expected"),
        ({"type": "integer", "maximum": 5}, "6", "expected"),
    ],
)
def test_what_does_not_fit_is_told_beside_its_field_with_all_that_was_typed(part, typed, error):
    if error is None:
        assert forms.read(one(part), {"f0": [typed]}, "it") == {"it": 3}
        return
    with pytest.raises(forms.Wrong) as wrong:
        forms.read(one(part), {"f0": [typed]}, "it")
    (told,) = wrong.value.form.fields
    assert error in told.error
    assert told.value == typed
    assert wrong.value.form.error == ""


def test_what_is_left_empty_is_left_out_and_its_default_stands_in_the_form():
    part = {"type": "string", "default": "sea", "description": "by which way"}
    schema = {"type": "object", "properties": {"it": part, "then": {"type": "integer"}}, "required": ["then"]}
    first, second = forms.empty(schema).fields
    assert (first.value, first.help, first.required, second.required) == ("sea", "by which way", False, True)
    assert forms.read(schema, {"f0": [""], "f1": ["1"]}, "it") == {"then": 1}


def test_an_error_about_no_field_is_about_the_whole():
    with pytest.raises(forms.Wrong) as wrong:
        forms.read({"type": "integer"}, {"json": ['"x"']}, "it")
    assert "expected" in wrong.value.form.error
    assert wrong.value.form.text == '"x"'
    with pytest.raises(forms.Wrong) as wrong:
        forms.read({"type": "integer"}, {"json": ["{"]}, "it")
    assert "text needs quotes" in wrong.value.form.error


def test_a_whole_payload_as_json_is_taken_where_there_are_fields_too():
    assert forms.read(one({"type": "integer"}), {"json": ['{"it": 3}']}, "it") == {"it": 3}


@dataclass
class Order:
    name: str
    count: int
    price: float
    urgent: bool
    route: Literal["air", "sea"]
    at: datetime | None = None
    lines: list[dict[str, int]] = field(default_factory=list)


def typed_for(form: forms.Form, payload: dict[str, Any]) -> dict[str, list[str]]:
    """What a browser sends of a form in which somebody typed this payload."""
    sent: dict[str, str] = {}
    for number, each in enumerate(form.fields):
        value = payload[each.name]
        match each.kind:
            case "boolean" if not value:
                continue
            case "choice":
                sent[f"f{number}"] = str(each.choices.index(value))
            case "text" | "long":
                sent[f"f{number}"] = "" if value is None else value
            case _:
                sent[f"f{number}"] = json.dumps(value)
    return parse_qs(urlencode(sent), keep_blank_values=True)


orders = st.fixed_dictionaries(
    {
        "name": st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
        "count": st.integers(),
        "price": st.floats(allow_nan=False, allow_infinity=False),
        "urgent": st.booleans(),
        "route": st.sampled_from(["air", "sea"]),
        "at": st.none() | st.datetimes().map(lambda when: when.isoformat() + "Z"),
        "lines": st.lists(st.dictionaries(st.text(st.characters(codec="ascii")), st.integers())),
    }
)


@given(orders)
def test_a_payload_that_was_typed_is_the_payload(payload):
    schema = json_schema(Order)
    form = forms.empty(schema)
    assert [each.kind for each in form.fields] == [
        "long", "integer", "number", "boolean", "choice", "text", "json",
    ]  # fmt: skip
    read = forms.read(schema, typed_for(form, payload), "an order")
    given = {name: value for name, value in payload.items() if name != "at" or value is not None}
    assert read == given


words = st.sampled_from(
    ["type", "properties", "required", "$ref", "$defs", "enum", "anyOf", "default", "it", "x"]
)
scalars = (
    st.none() | st.booleans() | st.integers() | st.sampled_from(["object", "string", "integer", "#/$defs/x"])
)
odd = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner))


@given(
    st.dictionaries(words, odd),
    st.dictionaries(st.sampled_from(["f0", "f1", "json", "do"]), st.lists(st.text(), min_size=1)),
)
def test_no_schema_breaks_the_form_and_nothing_that_is_sent(schema, sent):
    """Senders check schemas, but whoever appends to a log may have written any."""
    try:
        forms.read({"type": "object", "properties": schema, **schema}, sent, "it")
    except forms.Wrong as error:
        assert error.form.error or any(each.error for each in error.form.fields)
