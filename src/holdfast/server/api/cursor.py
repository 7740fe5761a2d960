"""Cursors of pages: where the last row stood, as one word."""

from __future__ import annotations

import base64
import binascii
from typing import Any, TypeVar

import msgspec

from ...errors import PayloadError

T = TypeVar("T")


def write(place: tuple[Any, ...]) -> str:
    """A place as one word."""
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def read(text: str, kind: type[T]) -> T:
    """The reverse. Raises PayloadError."""
    try:
        raw = base64.urlsafe_b64decode(text.encode() + b"=" * (-len(text) % 4))
        return msgspec.json.decode(raw, type=kind)
    except (binascii.Error, ValueError, msgspec.DecodeError):
        raise PayloadError(f"cursor: expected one that a page has given, got {text!r:.80}") from None
