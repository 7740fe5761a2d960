"""Identifiers and chance. They are made outside workflow code only (inside it, `hf.uuid4()` is replay-safe)."""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Callable
from hashlib import blake2b

random_bytes: Callable[[int], bytes] = os.urandom
wall_nanoseconds: Callable[[], int] = time.time_ns
"""Where all chance and the stamps of ids come from: a simulation puts its seed and its clock here."""

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u


_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]


def sortable(prefix: str) -> str:
    """`prefix_` and 26 characters that sort by time of creation (48 bits of ms, 80 random bits)."""
    stamp = (wall_nanoseconds() // 1_000_000) << 80 | int.from_bytes(random_bytes(10), "big")
    digits = "".join([_PAIRS[stamp >> shift & 1023] for shift in range(120, -1, -10)])
    return f"{prefix}_{digits}"


def run_id() -> str:
    """A new run's id, where the caller gave none."""
    return sortable("run")


_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")
LONGEST = 200
"""Characters of a child run's id, which grows with each level of nesting; a longer one is cut and hashed."""


def child_id(parent: str, name: str, ordinal: int) -> str:
    """The id of the nth child run of this name: 'order-1.pay.2', the same whoever computes it.

    Two children never share one: a name that holds more than letters, digits, '_' and '-' is written without
    the rest, and with a hash of the whole name behind a '~', which no other name can contain.
    """
    word = _UNSAFE.sub("_", name)[:60]
    if word != name:
        word = f"{word[:40]}~{blake2b(name.encode(), digest_size=5).hexdigest()}"
    whole = f"{parent}.{word}.{ordinal}"
    if len(whole) <= LONGEST:
        return whole
    exact = f"{parent}\0{name}\0{ordinal}".encode()
    return f"{parent[:120]}~{blake2b(exact, digest_size=12).hexdigest()}.{word}.{ordinal}"


def successor_id(first: str, number: int, seed: str) -> str:
    """The id of the nth run of a chain: 'loop~3.4f9a01', the same whoever computes it.

    Its end comes of the chance of the run before, so that nobody has taken it by accident.
    """
    chance = blake2b(f"{seed}\0{first}\0{number}".encode(), digest_size=3).hexdigest()
    return f"{first[:480]}~{number}.{chance}"


def worker_id() -> str:
    """A new worker's id."""
    return sortable("wrk")


def delivery_id() -> str:
    """The id of one delivery to a hook, where the sender gave none."""
    return sortable("dlv")


def seed() -> str:
    """The seed of a new run's chance: 128 bits, for the tokens of webhooks come of it."""
    return random_bytes(16).hex()


_GENERATED = re.compile(r"whk_[0-9a-f]{32}")


def webhook_token(seed: str, ordinal: int) -> str:
    """The token of a run's nth webhook: 128 bits that only who knows the seed can tell, the same on replay."""
    key = blake2b(seed.encode(), digest_size=32).digest()
    return f"whk_{blake2b(b'webhook %d' % ordinal, key=key, digest_size=16).hexdigest()}"


def is_webhook_token(token: str) -> bool:
    """Whether a token has the form of a generated one."""
    return _GENERATED.fullmatch(token) is not None


def fraction() -> float:
    """A random number from 0 to 1, for jitter."""
    return int.from_bytes(random_bytes(6), "big") / (1 << 48)


class BatchIds:
    """Ids of appends: unique over all processes, and cheap, for there is one per append (law L12)."""

    __slots__ = ("_count", "_prefix")

    def __init__(self) -> None:
        self._prefix = random_bytes(9).hex()
        self._count = itertools.count(1)

    def next(self) -> str:
        """The next id of this process."""
        return f"{self._prefix}.{next(self._count)}"
