"""Identifiers of trails, chapters and events. Whatever may become a path is checked here first."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable

from ..errors import TrailIdError
from ..ids import sortable

_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_TRAIL = re.compile(r"traj_[a-z0-9_]{1,100}\Z", re.ASCII)


def trail_id() -> str:
    """A new trail's id: `traj_` and 12 letters or digits."""
    return "traj_" + "".join(secrets.choice(_LETTERS) for _ in range(12))


def chapter_id() -> str:
    """A new chapter's id."""
    return "chap_" + "".join(secrets.choice(_LETTERS) for _ in range(12))


def event_id() -> str:
    """A new event's id; ids sort by the time at which they were made."""
    return sortable("evt")


def derived(prefix: str, parts: Iterable[str]) -> str:
    """An id that follows from its parts: whoever derives it again gets the same one."""
    digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).digest()
    letters = (_LETTERS[byte % 36] for byte in digest[:20])
    return f"{prefix}_{''.join(letters)}"


def is_trail_id(text: object) -> bool:
    """Whether this is the id of a trail; only such text ever becomes part of a path."""
    return isinstance(text, str) and _TRAIL.match(text) is not None


def checked(text: str) -> str:
    """The id itself. Raises TrailIdError for anything else, such as '../x' or 'traj_A'."""
    if not is_trail_id(text):
        raise TrailIdError(f"trail id: expected 'traj_' and up to 100 of a-z, 0-9 and _, got {text!r:.120}")
    return text
