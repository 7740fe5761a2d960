"""Which runs a list shows: what stands in its address, and how it is asked of the store.

The search takes words: `name=text` is an attribute, any other word a part of a run's id. The store knows no
parts of ids, so rows are read, newest first, up to a bound; a page says when it ended there.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator, Mapping

import msgspec

from ...store.base import Store
from ...store.rows import Head, RunFilter
from .shell import query

STATUSES = ("pending", "running", "completed", "failed", "cancelled", "parked")
PAGE = 100
_SCANNED = 20_000
"""Rows that one request looks at where it searches for parts of ids."""
_CHUNK = 500


class Chosen(msgspec.Struct, frozen=True):
    """What a list of runs is narrowed to. `status` may also be `parked`. `before` is where the page begins."""

    status: str = ""
    workflow: str = ""
    text: str = ""
    parent: str = ""
    before: str = ""

    @classmethod
    def of(cls, given: Mapping[str, str]) -> Chosen:
        """What an address or a form says; what makes no sense is left out."""
        status = given.get("status", "")
        return cls(
            status if status in STATUSES else "",
            given.get("workflow", ""),
            " ".join(given.get("q", "").split())[:500],
            given.get("parent", ""),
            given.get("before", ""),
        )

    def address(self, **other: str | None) -> str:
        """The address of this list, with something changed; another choice begins at the newest run."""
        now = {
            "status": self.status,
            "workflow": self.workflow,
            "q": self.text,
            "parent": self.parent,
            **other,
        }
        return f"/{query(**now)}"

    @property
    def attributes(self) -> dict[str, str]:
        """The attributes that the search names."""
        return dict(word.split("=", 1) for word in self._words() if "=" in word[1:])

    @property
    def parts(self) -> list[str]:
        """The parts of ids that the search names."""
        return [word.lower() for word in self._words() if "=" not in word[1:]]

    def _words(self) -> list[str]:
        try:
            return shlex.split(self.text)
        except ValueError:
            return self.text.split()

    @property
    def cursor(self) -> tuple[int, str] | None:
        """The row before the page, as the store wants it."""
        created, _, run = self.before.partition("~")
        return (int(created), run) if created.isdigit() and len(created) < 19 and run else None

    @property
    def filter(self) -> RunFilter:
        """What the store itself can narrow down."""
        parked = self.status == "parked"
        return RunFilter(
            None if parked else self.status or None,
            self.workflow or None,
            self.attributes or None,
            True if parked else None,
            self.parent or None,
        )

    def fits(self, head: Head) -> bool:
        """Whether a run belongs into this list."""
        return self.filter.takes(head) and self.names(head)

    def names(self, head: Head) -> bool:
        """Whether the run's id has all the parts that were asked for."""
        name = head.run.lower()
        return all(part in name for part in self.parts)


class Page(msgspec.Struct):
    """A page of runs. `next` is the cursor of the page behind it; `bounded`: the search ended at its bound."""

    heads: list[Head]
    next: str = ""
    bounded: bool = False


async def page_of(store: Store, chosen: Chosen, size: int = PAGE) -> Page:
    """A page of the runs that were chosen, newest first."""
    heads: list[Head] = []
    if len(chosen.parts) == 1 and not chosen.before:
        exact = await store.head(chosen.parts[0]) or await store.head(chosen.text)
        heads = [exact] if exact is not None and chosen.fits(exact) else []
    known = {head.run for head in heads}
    cursor, seen = chosen.cursor, 0
    chunk = _CHUNK if chosen.parts else size + 1
    while seen < _SCANNED:
        rows = await store.runs(chosen.filter, before=cursor, limit=chunk)
        for head in rows:
            seen += 1
            cursor = (head.created, head.run)
            if head.run not in known and chosen.names(head):
                if len(heads) == size:
                    return Page(heads, _cursor(heads[-1] if len(heads) > len(known) else head))
                heads.append(head)
        if len(rows) < chunk:
            return Page(heads)
        await asyncio.sleep(0)
    return Page(heads, f"{cursor[0]}~{cursor[1]}" if cursor else "", bounded=True)


async def every(store: Store, chosen: Chosen) -> AsyncIterator[Head]:
    """All runs that were chosen and have not ended, wherever the page begins."""
    for status in ("pending", "running"):
        if chosen.status not in ("", "parked", status):
            continue
        which = msgspec.structs.replace(chosen.filter, status=status)
        async for head in store.all_runs(which, page=_CHUNK):
            if chosen.names(head):
                yield head


def _cursor(head: Head) -> str:
    return f"{head.created}~{head.run}"
