"""JSON as msgspec writes and reads it, with hooks for the types that msgspec does not know."""

from __future__ import annotations

from typing import Any

import msgspec

from .fields import is_pydantic
from .form import type_name
from .paths import is_path


def dumps(data: Any) -> bytes:
    """JSON data as text."""
    try:
        return KEEPING.encode(data)
    except UnicodeEncodeError:  # lone surrogates: only as escapes
        from . import surrogates  # with json (2 ms), for lone surrogates only

        return surrogates.dumps(data)


def loads(text: bytes) -> Any:
    """The reverse of `dumps`."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        if b"\\u" not in text:
            raise
        from . import surrogates  # as above

        return surrogates.loads(text)


def to_plain(value: Any) -> Any:
    """For msgspec: what it cannot write itself. ValueError for what would not come back equal."""
    if is_pydantic(type(value)):
        plain = value.model_dump_json(by_alias=True)
        if type(value).model_validate_json(plain) != value:
            raise ValueError("the model does not survive JSON")
        import json  # pydantic has imported it already

        return json.loads(plain)
    if type(value) is complex:
        return [value.real, value.imag]
    if is_path(type(value)):
        return str(value)
    raise TypeError(f"{type(value)} is not a plain type")


def from_plain(hint: Any, data: Any) -> Any:
    """For msgspec: the reverse of `to_plain`."""
    if hint is object:
        return data  # it says as little as Any does
    if is_pydantic(hint):
        return hint.model_validate_json(dumps(data))
    if hint is complex and type(data) is list and len(data) == 2:
        return complex(*data)
    if is_path(hint) and type(data) is str:
        return hint(data)
    raise ValueError(f"expected {type_name(hint)}, got {type_name(type(data))}")


KEEPING = msgspec.json.Encoder(enc_hook=to_plain)
SORTING = msgspec.json.Encoder(enc_hook=to_plain, order="deterministic")
