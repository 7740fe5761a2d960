"""Identifiers. They are made outside workflow code only (inside it, `hf.uuid4()` is the replay-safe one)."""

from __future__ import annotations

import itertools
import os
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u


def _base32(value: int, digits: int) -> str:
    out = []
    for _ in range(digits):
        value, digit = divmod(value, 32)
        out.append(_ALPHABET[digit])
    return "".join(reversed(out))


def sortable(prefix: str) -> str:
    """`prefix_` and 26 characters that sort by time of creation (48 bits of ms, 80 random bits)."""
    stamp = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    return f"{prefix}_{_base32(stamp, 26)}"


def run_id() -> str:
    """A new run's id, where the caller gave none."""
    return sortable("run")


def worker_id() -> str:
    """A new worker's id."""
    return sortable("wrk")


def delivery_id() -> str:
    """The id of one delivery to a hook, where the sender gave none."""
    return sortable("dlv")


class BatchIds:
    """Ids of appends: unique over all processes, and cheap, for there is one per append (law L12)."""

    __slots__ = ("_count", "_prefix")

    def __init__(self) -> None:
        self._prefix = os.urandom(9).hex()
        self._count = itertools.count(1)

    def next(self) -> str:
        """The next id of this process."""
        return f"{self._prefix}.{next(self._count)}"
