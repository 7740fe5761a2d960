"""What bounds JSON that is kept: its bytes, and how deep it is nested.

Guarantee: what is within the bounds can be read again, on each version of Python and wherever it is read. Each
reader stops somewhere: Python's own recursion at a thousand calls in all, of which a level takes up to two, and
JSON written in C at 1,000 levels on Python 3.11 and at 10,000 on 3.13. So what one process has just managed to
write says nothing about the next one, and the bound is far below the least of these.

Checked is where something is accepted, not where it is read: what a log holds was accepted then.
"""

from __future__ import annotations

from itertools import accumulate

from ..errors import PayloadError

DEFAULT_LIMIT = 4 * 1024 * 1024
"""Bytes that one payload may have, unless the app sets `payload_limit`."""
MAX_DEPTH = 100
"""Levels of objects and arrays that JSON may have."""

_STEP = [0] * 256
_STEP[ord("[")] = _STEP[ord("{")] = 1
_STEP[ord("]")] = _STEP[ord("}")] = -1
_OTHERS = bytes(char for char, step in enumerate(_STEP) if not step)


def small(limit: int) -> int:
    """The bytes up to which a payload is within all bounds, so that it need not be looked at."""
    return min(limit, 2 * MAX_DEPTH)


def check_bounds(raw: bytes, limit: int, where: str) -> None:
    """Refuse JSON of more than `limit` bytes, or nested too deeply, with PayloadError."""
    check_size(raw, limit, where)
    check_depth(raw, where)


def check_size(raw: bytes, limit: int, where: str) -> None:
    """Refuse what has more than `limit` bytes, JSON or not, with PayloadError."""
    if len(raw) > limit:
        raise PayloadError(
            f"{where} is {len(raw):,} bytes, over the limit of {limit:,}: "
            "store it elsewhere and pass a reference, or raise payload_limit"
        )


def check_depth(raw: bytes, where: str, most: int = MAX_DEPTH) -> None:
    """Refuse JSON of more than `most` levels, with PayloadError."""
    if _is_deeper(raw, most):
        raise too_deep(where, most)


def too_deep(where: str, most: int = MAX_DEPTH) -> PayloadError:
    """The refusal of `check_depth`, for who has noticed it by other means."""
    return PayloadError(
        f"{where} is nested too deeply: expected JSON of at most {most} levels; "
        "make it flatter, or store it elsewhere and pass a reference"
    )


def is_within(raw: bytes, limit: int) -> bool:
    """Whether `check_bounds` lets a payload pass."""
    return len(raw) <= limit and not _is_deeper(raw, MAX_DEPTH)


def _is_deeper(raw: bytes, most: int) -> bool:
    """Whether JSON text has more than `most` levels. The time grows with its bytes alone, whatever they say."""
    if len(raw) <= 2 * most or raw.count(b"[") + raw.count(b"{") <= most:
        return False
    # Without its strings: between quotes, of which those that a backslash escapes are none.
    outside = raw.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"')[::2]
    marks = b"".join(outside).translate(None, _OTHERS)
    return max(accumulate(map(_STEP.__getitem__, marks)), default=0) > most
