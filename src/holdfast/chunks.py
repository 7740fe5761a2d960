"""Chunks: what a stream is made of, on its way to a store (`Part`) and as it stands there (`Chunk`).

A chunk is text, bytes or a JSON value. The end mark is an entry like the others, with a position of its own
and nothing in it; readers of a stream are not shown it.
"""

from __future__ import annotations

import binascii
from datetime import datetime
from typing import Any, Literal

import msgspec

from .clock import to_datetime, to_text
from .codec import UNTYPED, check_depth, check_size
from .errors import PayloadError

Kind = Literal["text", "bytes", "json", "end"]
MAX_NAME, MAX_KEY = 255, 1024
"""Characters of a stream's name, and of a chunk's key."""


class Part(msgspec.Struct, frozen=True, gc=False):
    """A chunk that is to be appended. With a `key`, it is appended once, however often it is sent."""

    kind: Kind
    body: bytes = b""
    key: str | None = None


END = Part("end")
"""The end mark."""


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """One entry of a stream, as readers get it.

    `position` is 1, 2, 3 … within the stream; go on behind it with `after=`. `step` and `attempt` say who wrote
    it (`charge#1`, 2); a step of another run is named with that run's id. `key` is the writer's own name for
    it, or None. `data` is the text, the bytes or the JSON value; `at` is when it was stored.

    Example:
        async for chunk in run.stream("answer"):
            print(chunk.position, chunk.data)
    """

    position: int
    kind: Kind
    body: bytes
    time: int
    step: str = ""
    attempt: int = 0
    key: str | None = None

    @property
    def data(self) -> Any:
        """What was written: str, bytes, or what the JSON decodes to (None for an end mark)."""
        if self.kind == "text":
            return self.body.decode("utf-8", "surrogatepass")
        if self.kind == "bytes":
            return self.body
        return UNTYPED.decode(self.body, f"chunk {self.position}") if self.kind == "json" else None

    @property
    def at(self) -> datetime:
        """When the store recorded it (aware, UTC)."""
        return to_datetime(self.time)

    def to_json(self) -> bytes:
        """The exported form: one JSON line without its newline; bytes as base64."""
        from .events import dump_json  # who only publishes needs none of the events

        line: dict[str, Any] = {"position": self.position, "kind": self.kind, "at": to_text(self.time)}
        if self.step:
            line |= {"step": self.step, "attempt": self.attempt}
        if self.key is not None:
            line["key"] = self.key
        if self.kind == "bytes":
            line["data"] = binascii.b2a_base64(self.body, newline=False).decode()
        elif self.kind == "json":
            line["data"] = msgspec.Raw(self.body)
        elif self.kind == "text":
            line["data"] = self.data
        return dump_json(line)


def part_of(data: Any, key: str | None, limit: int, where: str) -> Part:
    """A value as a chunk: str is text, bytes stay bytes, the rest is JSON by the codec.

    Raises PayloadError where it cannot be written or has more than `limit` bytes.
    """
    if key is not None:
        check_name(key, f"the key of {where}", MAX_KEY)
    if isinstance(data, str):
        part = Part("text", data.encode("utf-8", "surrogatepass"), key)
    elif isinstance(data, bytes | bytearray | memoryview):
        part = Part("bytes", bytes(data), key)
    else:
        part = Part("json", UNTYPED.encode(data, where), key)
    check_size(part.body, limit, where)
    if part.kind == "json":
        check_depth(part.body, where)
    return part


def check_name(name: str, what: str, most: int = MAX_NAME) -> None:
    """Refuse what is no name of a stream, or no key of a chunk, with PayloadError."""
    if not isinstance(name, str) or not 1 <= len(name) <= most or not name.isprintable():
        raise PayloadError(f"{what}: expected 1–{most} printable characters, got {name!r:.80}")
