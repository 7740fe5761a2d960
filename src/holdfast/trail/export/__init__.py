"""A trail as a document: Markdown, JSON, a timeline for the terminal, a page for the browser.

Every document is a pure function of the trail: times are in UTC, nothing depends on the locale, the machine
or the hour of the export. So the same trail gives the same bytes everywhere, and a rebuilt document differs
from the old one only where the trail does. Text that people and agents wrote is shown as it is and has no
power over the document: not over its structure, not over a terminal, not over a browser.

What other tools read (ATIF, OpenTelemetry, Agent Trace) is in `holdfast.trail.formats`, with a table of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from ...errors import PayloadError
from ..model import Trail
from ..record import dump, to_record

__all__ = ["FORMATS", "export"]

FORMATS = {"md": "markdown", "markdown": "markdown", "json": "", "timeline": "timeline", "html": "html"}
"""The formats by the names under which `export` knows them, and the modules that write them.

A module is imported when it is needed: whoever notes something from the command line waits for the page in
Markdown, and not for the others.
"""


def export(trail: Trail, format: str) -> str:
    """The trail in one of `FORMATS`; it ends with a line feed and can be written as UTF-8.

    Raises PayloadError for a format that is not known.

    Example:
        path.write_text(export(folder.load(id), "html"), encoding="utf-8")
    """
    if format == "json":
        return dump(to_record(trail), indent=2).decode() + "\n"
    if format not in FORMATS:
        raise PayloadError(f"format: expected one of {', '.join(FORMATS)}, got {format!r:.80}")
    render: Callable[[Trail], str] = import_module(f"{__name__}.{FORMATS[format]}").render
    return render(trail)
