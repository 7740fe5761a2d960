"""Names as PostgreSQL can keep them: its text holds every character but NUL.

A NUL becomes U+001A ("substitute") and 0, a U+001A itself becomes U+001A and 1; all other names stay as they
are, readable with SQL. Bodies are JSON, which writes a NUL as an escape of its own.
"""

from __future__ import annotations

_ESCAPE = "\x1a"


def escape(name: str) -> str:
    """A name as it stands in the tables."""
    if "\0" not in name and _ESCAPE not in name:
        return name
    return name.replace(_ESCAPE, _ESCAPE + "1").replace("\0", _ESCAPE + "0")


def unescape(text: str) -> str:
    """The reverse."""
    if _ESCAPE not in text:
        return text
    return text.replace(_ESCAPE + "0", "\0").replace(_ESCAPE + "1", _ESCAPE)


def escape_some(name: str | None) -> str | None:
    """The same for a name that may be missing."""
    return None if name is None else escape(name)


def unescape_some(text: str | None) -> str | None:
    """The same for a name that may be missing."""
    return None if text is None else unescape(text)
