"""Words, times and figures as all documents write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_REPLACEMENT = "\ufffd"
_HARMFUL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)
_BREAKS = re.compile("\r\n|[\r\u2028\u2029\x85]")
_ADDRESS = re.compile(r"https?://[^\s<>\"'\\`{}|^]+", re.IGNORECASE)


def clean(text: str) -> str:
    """The text without what a terminal, a browser or UTF-8 would take for more than text.

    Control characters become their pictures (ESC is ␛); characters that turn the direction of what follows,
    lone surrogates and the like become U+FFFD. Line ends are line feeds.
    """
    return _HARMFUL.sub(_picture, _BREAKS.sub("\n", text))


def line(text: str) -> str:
    """The text in one line; '(blank)' where there is nothing to see."""
    return " ".join(clean(text).split()) or "(blank)"


def clip(text: str, limit: int) -> str:
    """The text in one line of at most `limit` characters."""
    whole = line(text)
    return whole if len(whole) <= limit else whole[: limit - 1].rstrip() + "…"


def with_code(text: str) -> list[tuple[str, bool]]:
    """Clean text in pieces, and which of them stand as `code` between single backticks.

    Where backticks are not plainly in pairs, all of it is text.
    """
    runs = re.findall("`+", text)
    if not runs or len(runs) % 2 or max(runs) != "`":
        return [(text, False)]
    pieces = [(piece, bool(place % 2)) for place, piece in enumerate(text.split("`"))]
    if any(coded and (not piece.strip() or "\n" in piece) for piece, coded in pieces):
        return [(text, False)]
    return [(piece, coded) for piece, coded in pieces if piece]


def address(url: str | None) -> str | None:
    """The URL if it is one of the web; None for others, such as 'javascript:…'."""
    given = clean(url or "").strip()
    return given if _ADDRESS.fullmatch(given) else None


def utc(when: datetime) -> datetime:
    """The instant in UTC. One without a zone is taken for UTC, not for the time of this machine."""
    if when.tzinfo is None:
        return when.replace(tzinfo=UTC)
    try:
        return when.astimezone(UTC)
    except OverflowError:  # within a day of year 1 or 9999
        return when.replace(tzinfo=UTC)


def clock(when: datetime | None, day: datetime | None = None) -> str:
    """'09:00:00', with the date before it unless it is that of `day`."""
    if when is None:
        return "--:--:--"
    when = utc(when)
    time = when.isoformat()[11:19]
    return time if day is not None and utc(day).date() == when.date() else f"{when.date().isoformat()} {time}"


def span(length: timedelta) -> str:
    """How long: '0.25s', '42s', '12m 03s', '1h 02m', '2d 03h'; '0s' for what ends before it begins."""
    seconds = max(0.0, length.total_seconds())
    if seconds < 10:
        return f"{seconds:.2f}".rstrip("0").rstrip(".") + "s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02}m"
    return f"{whole // 86400}d {whole % 86400 // 3600:02}h"


def percent(share: float) -> str:
    """'85%'."""
    return f"{share:.0%}"


def count(number: int, noun: str) -> str:
    """'1 event', '2 events'."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _picture(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else _REPLACEMENT
