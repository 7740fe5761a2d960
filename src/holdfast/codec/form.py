"""The form of a tagged value, `{"$type": name, "value": …}`, and the refusal of what cannot have it."""

from __future__ import annotations

from typing import Any

TAG, VALUE = "$type", "value"
TAG_BYTES = b'"$type"'
"""Look for it with `find`: `in` asks bytes for a number first, and catches the exception (0.3 µs)."""


class Refused(Exception):
    """A value that cannot be written or read; `path` grows while it rises."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = ""


def tag(name: str, value: Any) -> dict[str, Any]:
    return {TAG: name, VALUE: value}


def type_name(hint: Any) -> str:
    """A type as messages call it: "`int`"."""
    return f"`{hint.__qualname__}`" if isinstance(hint, type) else f"`{hint}`"
