"""Keys that make payloads unreadable at rest: AES-256-GCM, several keys at once so that they can be changed.

A key file has one key a line: its name, a space, 32 bytes in base64. The first line writes; all of them read.
To change the key, put a new line on top (`holdfast key FILE` does): what was written before stays readable
as long as its line is there.

    2026-11 mnLq3Xy5…=
    2026-05 0bX4fT1c…=

Each value is sealed on its own, under a random nonce of 96 bits, and bound to the place where it belongs (run,
type and key of the event, name of the field): moved to another place it does not open. With random nonces one
key should seal no more than 2**32 values (NIST SP 800-38D, 8.3): a new key a month is plenty.

Rejected: one key for ever (a leaked key is then the end); a key per run, wrapped by a master key (a payload for
a hook is sealed by its sender, who does not know the run).
"""

from __future__ import annotations

import base64
import binascii
import os
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import KeyMissing

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SIZE = 32
"""Bytes of a key: AES-256."""
NONCE = 12
MARK = "$sealed"
"""A sealed value is the JSON object {"$sealed": "KEY:BASE64"}."""
PREFIX = b'{"$sealed":'
CHUNK_PREFIX = b"\0sealed:"


def is_sealed(body: bytes) -> bool:
    """Whether the JSON text of an event holds a sealed value: it was read without the keys."""
    return PREFIX in body


class Keys:
    """The keys of a store, by name; the first one seals.

    Example:
        keys = Keys.load("keys.txt")
        hf.connect("sqlite:///app.db", keys=keys)

    Raises KeyMissing for a file that cannot be read, a line that is no key, and where the extra `crypto` is not
    installed.
    """

    def __init__(self, keys: dict[str, bytes]) -> None:
        if not keys:
            raise KeyMissing("no key: a key file has at least one line, `holdfast key FILE` writes it")
        for name, key in keys.items():
            _check_name(name)
            if len(key) != SIZE:
                raise KeyMissing(f"key {name!r}: expected {SIZE} bytes, got {len(key)}")
        cipher = _cipher()
        self._keys = {name: cipher(key) for name, key in keys.items()}
        self.names = list(keys)
        self._first = self.names[0]
        # Whether two payloads are the same must be told without either: a keyed hash. Its key is the oldest
        # one, so that it is still the same after a new key was put on top.
        self._oldest = list(keys.values())[-1]

    @classmethod
    def load(cls, path: str | Path) -> Keys:
        """The keys of a file."""
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise KeyMissing(f"the key file {path} cannot be read: {error}") from None
        keys = {}
        for number, line in enumerate(lines, 1):
            if line.strip():
                name, _, text = line.strip().partition(" ")
                if name in keys:
                    raise KeyMissing(f"{path}, line {number}: {name} stands there twice; name each key once")
                try:
                    keys[name] = base64.b64decode(text.strip(), validate=True)
                except binascii.Error:
                    raise KeyMissing(f"{path}, line {number}: expected NAME BASE64") from None
        return cls(keys)

    @staticmethod
    def line(name: str) -> str:
        """A new key as a line of a key file."""
        _check_name(name)
        return f"{name} {base64.b64encode(_random(SIZE)).decode()}\n"

    def seal(self, plain: bytes, place: str) -> bytes:
        """Make bytes unreadable; `place` says where they belong. Gives the key's name, a colon, what is sealed."""
        nonce = _random(NONCE)
        sealed = self._keys[self._first].encrypt(nonce, plain, place.encode("utf-8", "surrogatepass"))
        return self._first.encode() + b":" + nonce + sealed

    def open(self, sealed: bytes, place: str) -> bytes:
        """What was sealed. Raises KeyMissing where no key opens it: unknown, changed, or moved."""
        from cryptography.exceptions import InvalidTag

        head, _, rest = sealed.partition(b":")
        name = head.decode(errors="replace")
        key = self._keys.get(name)
        if key is None:
            raise KeyMissing(f"{place!r} was sealed with the key {name!r}: add its line to the key file")
        try:
            return key.decrypt(rest[:NONCE], rest[NONCE:], place.encode("utf-8", "surrogatepass"))
        except (InvalidTag, ValueError):
            raise KeyMissing(
                f"{place!r} does not open with the key {name!r}: it is another key of that name, or the sealed "
                "value was changed or moved (holdfast verify tells)"
            ) from None

    def seal_text(self, plain: bytes, place: str) -> str:
        """The same for JSON: what is sealed in base64."""
        name, _, sealed = self.seal(plain, place).partition(b":")
        return f"{name.decode()}:{base64.b64encode(sealed).decode()}"

    def open_text(self, text: str, place: str) -> bytes:
        """What `seal_text` has sealed."""
        name, _, encoded = text.partition(":")
        try:
            return self.open(f"{name}:".encode() + base64.b64decode(encoded), place)
        except binascii.Error:
            raise KeyMissing(
                f"{place!r} is no sealed value: it was changed (holdfast verify tells)"
            ) from None

    def digest(self, plain: bytes) -> str:
        """A keyed hash: equal for equal payloads, and no help to whoever guesses at them."""
        import hashlib

        return hashlib.blake2b(plain, key=self._oldest, digest_size=8).hexdigest()


def keys_of_environment() -> Keys | None:
    """The keys of the file that $HOLDFAST_KEYS names, or None."""
    path = os.environ.get("HOLDFAST_KEYS")
    return Keys.load(path) if path else None


def _random(count: int) -> bytes:
    from . import ids  # brings hashlib, which the words for sealed values do without

    return ids.random_bytes(count)


def _check_name(name: str) -> None:
    if not name or any(not c.isprintable() or c in ": " for c in name):
        raise KeyMissing(f"key {name!r}: expected a name without spaces and colons")


def _cipher() -> type[AESGCM]:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        raise KeyMissing("sealed payloads need cryptography: pip install 'holdfast[crypto]'") from None
    return AESGCM
