"""A trail as a document: Markdown, JSON, a timeline for the terminal, a page for the browser.

Every document is a pure function of the trail: times are in UTC, nothing depends on the locale, the machine
or the hour of the export. So the same trail gives the same bytes everywhere, and a rebuilt document differs
from the old one only where the trail does. Text that people and agents wrote is shown as it is and has no
power over the document: not over its structure, not over a terminal, not over a browser.
"""

from __future__ import annotations

from collections.abc import Callable

from ...errors import PayloadError
from ..model import Trail
from ..record import dump, to_record
from . import html, markdown, timeline

__all__ = ["FORMATS", "export"]


def _json(trail: Trail) -> str:
    return dump(to_record(trail), indent=2).decode() + "\n"


FORMATS: dict[str, Callable[[Trail], str]] = {
    "md": markdown.render,
    "markdown": markdown.render,
    "json": _json,
    "timeline": timeline.render,
    "html": html.render,
}
"""The formats by the names under which `export` knows them."""


def export(trail: Trail, format: str) -> str:
    """The trail in one of `FORMATS`; it ends with a line feed and can be written as UTF-8.

    Raises PayloadError for a format that is not known.

    Example:
        path.write_text(export(folder.load(id), "html"), encoding="utf-8")
    """
    write = FORMATS.get(format)
    if write is None:
        raise PayloadError(f"format: expected one of {', '.join(FORMATS)}, got {format!r:.80}")
    return write(trail)
