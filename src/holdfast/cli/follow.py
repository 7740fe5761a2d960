"""A run's log as it grows: what the live view and `events --follow` read."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from ..events import ENDS, Event
from ..store.base import Store
from ..store.messages import News

PAGE = 500
POLL = 0.5
"""Seconds between looks where no news come; commits of other processes send theirs."""


async def follow(store: Store, run_id: str, after: int = 0) -> AsyncIterator[list[Event]]:
    """Pages of events as they are committed, until the run has ended; an empty page when nothing comes."""
    changed = asyncio.Event()

    def hear(news: Sequence[News]) -> None:
        if any(item.run == run_id and item.stream is None for item in news):
            changed.set()

    stop, ended = store.listen(hear, every=True), await _has_ended(store, run_id, after)
    try:
        while True:
            changed.clear()
            page = await store.read(run_id, after, PAGE)
            if page:
                after = page[-1].position
                ended = ended or any(event.type in ENDS for event in page)
            elif ended:
                return
            yield page
            if not page:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL):
                        await changed.wait()
    finally:
        stop()


async def _has_ended(store: Store, run_id: str, after: int) -> bool:
    """Whether the end stands before the position from which is read."""
    if not after:
        return False
    head = await store.head(run_id)
    return head is not None and head.ended is not None
