"""What `noted` commands hold: the parts of a run's trail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from ..errors import PayloadError

_Words = Annotated[str, Meta(min_length=1)]


class Noted(msgspec.Struct, kw_only=True):
    """The data of a `noted` command: a part of the run's trail (`hf.trail`).

    `kind` is chapter_opened (with `title`), chapter_closed (with `chapter`, and `error` where an exception
    left it), or the type of an event of the trail: note, decision, finding, reflection … (with `content`).
    `chapter` is the key of the `noted` that opened the chapter it belongs to (of a chapter_opened: the one
    around it), `branch` the number of the task that said it, where it is not the main one.
    """

    kind: _Words
    chapter: Annotated[str, Meta(pattern="^note#[0-9]+$")] | None = None
    branch: int | None = None
    agent: _Words | None = None
    title: _Words | None = None
    content: _Words | None = None
    significance: Literal["low", "medium", "high", "critical"] | None = None
    tags: list[str] = []
    confidence: Annotated[float, Meta(ge=0, le=1)] | None = None
    occurred_at: str | None = None
    raw: Any = None
    error: dict[str, Any] | None = None


_NEEDS = {"chapter_opened": "title", "chapter_closed": "chapter"}


def check_noted(data: Mapping[str, Any]) -> Noted:
    """The data of a `noted` command, typed. Raises PayloadError: expected, got and path."""
    try:
        noted = msgspec.convert(data, Noted)
    except msgspec.ValidationError as error:
        raise PayloadError(f"note: {str(error)[:1].lower()}{str(error)[1:]}") from None
    needed = _NEEDS.get(noted.kind, "content")
    if getattr(noted, needed) is None:
        raise PayloadError(f"note: expected {needed} for a {noted.kind}, got none")
    return noted
