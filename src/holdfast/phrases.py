"""How people are told of times, errors and text from outside: the same words on the terminal and on the page."""

from __future__ import annotations

from typing import Any

from .clock import to_datetime
from .keys import MARK

SEALED = "(sealed: HOLDFAST_KEYS opens it)"


def clean(text: object, *, lines: bool = False) -> str:
    """Text from outside, with control characters written out; with `lines`, line breaks stay."""
    return "".join(c if c.isprintable() or (lines and c in "\n\t") else _written_out(c) for c in str(text))


def _written_out(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def quoted(text: str) -> str:
    """The text as a word of a shell command."""
    import shlex

    return shlex.quote(clean(text))


def error_line(error: dict[str, Any]) -> str:
    """A recorded error on one line: 'ValueError: no such card'."""
    if MARK in error:
        return SEALED
    kind = str(error.get("type", "?")).rpartition(":")[2]
    message = " ".join(str(error.get("message", "")).split())
    return clean(f"{kind}: {message}" if message else kind)


# ---- times -------------------------------------------------------------------------------------------------


def instant(micros: int) -> str:
    """'2026-01-31 09:00:00Z'."""
    return to_datetime(micros).strftime("%Y-%m-%d %H:%M:%SZ")


def span(micros: int) -> str:
    """A duration in at most two units: '12 ms', '3.4 s', '2 min 5 s', '3 d 4 h'."""
    if micros < 1_000:
        return f"{max(micros, 0)} µs"
    if micros < 1_000_000:
        return f"{micros // 1_000} ms"
    seconds = micros / 1e6
    if seconds < 60:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    whole = int(seconds)
    for unit, size, smaller, small in (
        ("d", 86_400, "h", 3_600),
        ("h", 3_600, "min", 60),
        ("min", 60, "s", 1),
    ):
        if whole >= size:
            rest = whole % size // small
            return f"{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    raise AssertionError("60 s or more is at least one minute")


def size(number: int) -> str:
    """Bytes in one unit: '812 B', '3.4 kB', '1.2 MB'."""
    if number < 1000:
        return f"{number} B"
    for unit, whole in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if number >= whole:
            return f"{number / whole:.1f}".removesuffix(".0") + f" {unit}"
    raise AssertionError("1,000 bytes are a kilobyte")


def ago(then: int, now: int) -> str:
    """'3 min ago', in one unit; 'now' within a second."""
    seconds = (now - then) // 1_000_000
    if seconds < 1:
        return "now"
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def due(then: int, now: int) -> str:
    """'in 2 h 5 min', or '3 min overdue'."""
    return f"in {span(then - now)}" if then > now else f"{span(now - then)} overdue"
