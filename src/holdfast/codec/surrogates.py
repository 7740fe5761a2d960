"""JSON text with lone surrogates: they have no UTF-8, so msgspec does without, and stand as escapes.

A JSON reader takes the escapes of a high and a low one that follow each other for a single character.
A string in which two lone ones do so is therefore written in parts.
"""

from __future__ import annotations

import json
import re
from typing import Any

from .form import tag

_PAIR = re.compile("(?<=[\ud800-\udbff])(?=[\udc00-\udfff])")


def dumps(data: Any) -> bytes:
    return json.dumps(_split(data), separators=(",", ":"), allow_nan=False).encode()


def loads(text: bytes) -> Any:
    return json.loads(text)


def dumps_sorted(raw: bytes) -> bytes:
    """The same JSON with its keys in order."""
    return json.dumps(json.loads(raw), sort_keys=True).encode()


def _split(data: Any) -> Any:
    """JSON data in which no two lone surrogates stand so that a reader takes them for a pair."""
    if type(data) is str:
        parts = _PAIR.split(data)
        return data if len(parts) == 1 else tag("str", parts)
    if type(data) is list:
        return [_split(item) for item in data]
    if type(data) is not dict:
        return data
    if any(_PAIR.search(key) for key in data):
        return tag("dict", [[_split(key), _split(item)] for key, item in data.items()])
    return {key: _split(item) for key, item in data.items()}
