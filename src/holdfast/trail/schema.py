"""The published JSON Schemas: of a record, and of a line of a journal. Both are made from the types.

Unknown keys are allowed at each level, for they are kept. `docs/reference/make_trail_schema.py` writes the files.
"""

from __future__ import annotations

import inspect
from typing import Any

import msgspec

from .entry import STRUCTURE, Entry
from .model import EVENT_TYPES, EXTRA, Trail

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_INSTANT = {
    "type": "string",
    "format": "date-time",
    # `format` alone is only a remark to most validators; without an offset an instant is none
    "pattern": r"^\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:?\d{2})$",
}


def record_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a whole record, as `to_record` makes it and `from_record` takes it.

    Example:
        jsonschema.validate(json.loads(path.read_bytes()), record_schema())
    """
    made = _published(msgspec.json.schema(Trail), "Trail record")
    made["$defs"]["Event"]["properties"]["type"]["examples"] = list(EVENT_TYPES)
    return made


def journal_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of one line of a journal."""
    made = _published(msgspec.json.schema(Entry), "Line of a trail's journal")
    known = made["$defs"]["Entry"]["properties"]
    known["type"]["description"] = f"One of {', '.join(STRUCTURE)}; any other is the type of an event."
    known["occurred_at"] = dict(_INSTANT, description="When it happened.")
    known["recorded_at"] = dict(_INSTANT, description="When it was written down.")
    known["data"]["description"] = "What the type needs; for an event, the keys of an Event of the record."
    return made


def _published(made: dict[str, Any], title: str) -> dict[str, Any]:
    return {"$schema": _DIALECT, "title": title, **_mended(made)}


def _mended(node: Any) -> Any:
    """Without our own key for unknown keys, and with instants that say what they must look like.

    Texts are the same on each Python: from 3.13 on, it takes the indentation out of docstrings.
    """
    if isinstance(node, list):
        return [_mended(each) for each in node]
    if not isinstance(node, dict):
        return node
    if node.get("format") == "date-time":
        return node | _INSTANT
    made = {key: _mended(value) for key, value in node.items() if key != EXTRA}
    if isinstance(made.get("description"), str):
        made["description"] = inspect.cleandoc(made["description"])
    return made
