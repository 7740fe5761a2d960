"""JSON as both sides write and read it: lone surrogates and all, checked against a type."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TypeVar

import msgspec

from holdfast.errors import PayloadError

T = TypeVar("T")


_encode = msgspec.json.Encoder().encode


def encode(value: object) -> bytes:
    """JSON of a struct or of plain values, lone surrogates and all."""
    try:
        return _encode(value)
    except (UnicodeEncodeError, OverflowError):
        return json.dumps(msgspec.to_builtins(value), separators=(",", ":")).encode()


def decoder(type: type[T]) -> Callable[[bytes], T]:
    """The reverse, checked against a type. Raises PayloadError: expected, got and path."""
    decode = msgspec.json.Decoder(type).decode

    def read(raw: bytes) -> T:
        try:
            return decode(raw)
        except msgspec.ValidationError as error:
            raise PayloadError(str(error)) from None
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
        try:
            return msgspec.convert(json.loads(raw), type)
        except (ValueError, RecursionError) as error:
            raise PayloadError(f"expected JSON: {error}") from None

    return read
