"""A line of a journal: what was said once, by whom, in which chapter, when it was and when it was recorded.

    {"id":"evt_…","seq":3,"type":"note","agent":"ben","chapter":"chap_…",
     "occurred_at":"…Z","recorded_at":"…Z","data":{"content":"…"}}

The types in `STRUCTURE` make the trail itself; every other type is an event of that type. The order of entries
is that of (recorded_at, seq, id), and a writer records no entry before the last one of its journal. So any
two copies of a journal, merged in any way, are the same trail: the set of lines is what counts, not where
they stand in the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import msgspec

from ..clock import from_text, to_text
from ..codec import too_deep
from ..errors import PayloadError

STRUCTURE = (
    "trail_started",
    "trail_completed",
    "trail_abandoned",
    "trail_amended",
    "agent_joined",
    "chapter_opened",
    "chapter_closed",
)
ENDS = ("trail_completed", "trail_abandoned")


class Entry(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One line. `data` holds what its type needs; keys of it that nobody knows are kept (`extra` of the model)."""

    id: str
    seq: int
    type: str
    agent: str = ""
    chapter: str | None = None
    occurred_at: str
    recorded_at: str
    data: dict[str, Any] = {}

    @property
    def rank(self) -> tuple[int, int, str]:
        """Where it stands among the entries of its trail."""
        return from_text(self.recorded_at), self.seq, self.id

    @property
    def said(self) -> tuple[Any, ...]:
        """What it says, wherever it was written down: the same in every copy of this entry."""
        return self.type, self.agent, self.chapter, self.occurred_at, self.data


def new(
    id: str,
    type: str,
    data: dict[str, Any],
    *,
    occurred_at: int,
    recorded_at: int | None = None,
    agent: str = "",
    chapter: str | None = None,
    seq: int = 0,
) -> Entry:
    """An entry; instants are microseconds since 1970, and `seq` is given by the journal that takes it."""
    return Entry(
        id=id,
        seq=seq,
        type=type,
        agent=agent,
        chapter=chapter,
        occurred_at=to_text(occurred_at),
        recorded_at=to_text(occurred_at if recorded_at is None else recorded_at),
        data=data,
    )


def replaced(entry: Entry, **parts: Any) -> Entry:
    """The same entry with other parts."""
    return msgspec.structs.replace(entry, **parts)


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Entry).decode


def encode(entry: Entry) -> bytes:
    """The line, with its line feed. Raises PayloadError for data that JSON does not know."""
    try:
        return _encode(entry) + b"\n"
    except UnicodeEncodeError:  # a lone surrogate: it has no UTF-8, so it stands as an escape
        plain = msgspec.structs.asdict(entry)
        return json.dumps(plain, separators=(",", ":"), allow_nan=False).encode() + b"\n"
    except RecursionError:
        raise too_deep(entry.type) from None
    except (TypeError, ValueError) as error:
        raise PayloadError(f"{entry.type}: expected JSON data, got: {error}") from None


def decode(line: bytes) -> Entry:
    """The entry of a line. Raises PayloadError: expected, got and path."""
    try:
        try:
            entry = _decode(line)
        except (msgspec.ValidationError, RecursionError):
            raise
        except (msgspec.DecodeError, UnicodeDecodeError):
            entry = msgspec.convert(json.loads(line), Entry)  # lone surrogates
        from_text(entry.recorded_at)
        from_text(entry.occurred_at)
    except (ValueError, TypeError, RecursionError) as error:
        raise PayloadError(f"journal line: {str(error)[:200]}") from None
    return entry


def ordered(entries: Iterable[Entry]) -> list[Entry]:
    """Each entry once, in the order of the trail.

    Of two versions of an entry (a secret was removed from one branch's) that with the lesser bytes counts: any
    rule will do that does not depend on where they stand.
    """
    first: dict[str, Entry] = {}
    for entry in sorted(entries, key=lambda entry: entry.rank):
        have = first.setdefault(entry.id, entry)
        if have is not entry and have.rank == entry.rank and encode(entry) < encode(have):
            first[entry.id] = entry
    return list(first.values())
