"""Text for people: columns and colours (times: `phrases`). No Rich here, so that short commands start at once.

Colour is used on a terminal only, and not with NO_COLOR or TERM=dumb. Columns are as wide as what is in them;
only the last one is cut to fit the terminal, because ids must be whole to be copied. Text that came from
outside is shown with its control characters written out, so that it cannot play tricks on the terminal.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from ..keys import MARK
from ..phrases import SEALED
from ..phrases import ago as ago
from ..phrases import clean as clean
from ..phrases import due as due
from ..phrases import instant as instant
from ..phrases import quoted as quoted
from ..phrases import span as span

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36"}
_ESCAPE = re.compile("\x1b\\[[0-9;]*m")
STATUS_STYLES = {
    "completed": "green",
    "failed": "red",
    "running": "blue",
    "waiting": "yellow",
    "scheduled": "dim",
    "pending": "yellow",
    "cancelled": "yellow",
    "parked": "yellow",
    "open": "blue",
    "fired": "green",
    "closed": "dim",
    "refused": "red",
    "run_ended": "dim",
    "active": "blue",
    "abandoned": "red",
}


def data(text: str) -> None:
    """A line of what was asked for: to stdout."""
    print(text)  # noqa: T201


def data_json(value: object) -> None:
    """One JSON object on a line of stdout."""
    from ..events import dump_json

    data(dump_json(value).decode())


def note(text: str) -> None:
    """Anything else: to stderr. That nobody reads it any more stops no command."""
    try:
        print(text, file=sys.stderr, flush=True)  # noqa: T201
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def colours(stream: TextIO) -> bool:
    """Whether colour may be used on this stream."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return bool(os.environ.get("FORCE_COLOR")) or stream.isatty()


def paint(text: str, style: str, stream: TextIO | None = None) -> str:
    """The text in a colour, where the stream (stdout) may have one."""
    if style not in _CODES or not text or not colours(stream or sys.stdout):
        return text
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m"


def status(word: str, shown: str | None = None) -> str:
    """The word for a status in its colour."""
    return paint(shown or word, STATUS_STYLES.get(word, ""))


def width_of(text: str) -> int:
    """The cells that a text takes on a terminal."""
    plain = _ESCAPE.sub("", text)
    if plain.isascii():
        return len(plain)
    import unicodedata

    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in plain
    )


def terminal_width() -> int | None:
    """The columns of the terminal, or None where stdout is no terminal: then nothing is cut."""
    if sys.stdout.isatty():
        import shutil

        return shutil.get_terminal_size().columns
    return None


def shorten(text: str, width: int | None) -> str:
    """The text, cut with … to `width` cells (plain text only)."""
    if width is None or width_of(text) <= width:
        return text
    kept = ""
    for character in text:
        if width_of(kept + character) > max(width, 1) - 1:
            break
        kept += character
    return kept + "…"


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    indent: str = "",
    below: Sequence[str] = (),
) -> None:
    """Rows in columns. A last column that is too long for the terminal is cut; it must be plain text.

    `below` has for each row what stands on a line of its own under it, or ''.
    """
    lines = [list(row) for row in rows]
    total = terminal_width()
    titles = [paint(title, "dim") for title in header]
    widths = [max(map(width_of, column)) for column in zip(titles, *lines, strict=True)]
    used = len(indent) + sum(widths[:-1]) + 2 * (len(widths) - 1)
    room = None if total is None else total - used
    under = ["", *below] if any(header) else list(below)
    for number, line in enumerate([titles, *lines] if any(header) else lines):
        if room is not None and width_of(line[-1]) > room:
            line[-1] = shorten(_ESCAPE.sub("", line[-1]), room) if room >= 8 else ""
        padded = [cell + " " * (width - width_of(cell)) for cell, width in zip(line, widths, strict=True)]
        data((indent + "  ".join([*padded[:-1], line[-1]])).rstrip())
        if number < len(under) and under[number]:
            data(paint(shorten(f"{indent}    {under[number]}", total), "dim"))


def compact(value: Any) -> str:
    """A plain value as JSON on one line, as people read it."""
    from ..events import dump_json

    sealed = isinstance(value, dict) and MARK in value
    return SEALED if sealed else clean(dump_json(value).decode())
