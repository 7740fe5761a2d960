"""Values in a few words: what a trail tells of arguments, results and payloads.

Secrets are taken out before anything is cut: of a cut one, the rest would not be known for what it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

PREVIEW = 200
"""Characters of a value that are told."""
_LOOK, _ITEMS, _DEPTH = 8000, 50, 6
"""How much of a text, a list or an object is looked at: a private key is shorter."""

Redact = Callable[[Any], Any]


def preview(value: Any, redact: Redact) -> str:
    """A JSON value as text of at most 200 characters."""
    return cut(_json(redact(_bounded(value))), PREVIEW)


def call(name: str, args: Any, redact: Redact) -> str:
    """A call with its arguments: `charge(order={"id": "o-1"}, amount=3)`."""
    values = redact(_bounded(args)) if isinstance(args, dict) else {}
    told = ", ".join(f"{key}={cut(_json(value), PREVIEW // 2)}" for key, value in values.items())
    return f"{name}({cut(told, PREVIEW)})"


def cut(text: str, limit: int) -> str:
    """The text, or its beginning and '…'."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _bounded(value: Any, depth: int = _DEPTH) -> Any:
    """The beginning of a value: more than is told, and no more than is quickly looked through."""
    if isinstance(value, str):
        return value[:_LOOK]
    if isinstance(value, list):
        return [_bounded(item, depth - 1) for item in value[:_ITEMS]] if depth else ["…"]
    if isinstance(value, dict):
        items = list(value.items())[:_ITEMS]
        return {key: _bounded(item, depth - 1) for key, item in items} if depth else {"…": "…"}
    return value
