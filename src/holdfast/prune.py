"""Prune: take old runs out of a store, a few at a time, while others work.

    pruned = await prune(store, ended_before=…)

Runs are looked for from the newest to the oldest of those that were created before the time, and removed in
portions: each is a short transaction (`Store.remove`, which decides what may go), and after each one prune waits
for as long as it took, so writers have the store to themselves for half of the time at least. To be killed in the
middle does no harm: a portion is gone or it is not, and the next prune goes on.

A chain of runs that continued as another goes whole, with its last run.

Rejected: one DELETE (it holds SQLite's lock for minutes, and fills PostgreSQL's log in one go); a worker that
prunes by itself (to forget is for people to decide).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import msgspec

from .store.base import Store
from .store.removal import Reason, Removal
from .store.rows import Head, RunFilter, Status

BATCH = 100
"""Runs of one transaction."""
EVENTS = 5000
"""Events of one transaction; a single run, or chain, may have more."""


class Pruned(msgspec.Struct):
    """What pruning has come to: `runs` and `events` removed, and how many old runs were kept, by reason.

    The reasons: `parent` (it has not heard of this end), `children` (some are to be seen to), `schedule` (it would
    start the run again: its worker died before it noted the due time), `continued` and
    `chain` (it belongs to a chain of runs that stays).
    """

    runs: int = 0
    events: int = 0
    kept: dict[Reason, int] = {}


async def prune(
    store: Store,
    ended_before: int,
    *,
    status: Status | None = None,
    workflow: str | None = None,
    dry_run: bool = False,
    batch: int = BATCH,
    progress: Callable[[Pruned], None] | None = None,
) -> Pruned:
    """Remove the runs that ended before a time (µs since 1970), with this status and of this workflow.

    `progress` is called after each portion. With `dry_run` nothing is removed, only counted.
    Raises StoreError.
    """
    pass_ = _Pass(store, ended_before, dry_run)
    which = RunFilter(status, workflow)
    before: tuple[int, str] | None = (ended_before, "")
    while page := await store.runs(which, before=before, limit=max(1, batch)):
        old = [head for head in page if head.ended is not None and head.ended < ended_before]
        for portion in _portions(old):
            await pass_.take([head.run for head in portion])
            if progress is not None:
                progress(pass_.pruned())
        before = (page[-1].created, page[-1].run)
    return pass_.pruned()


class _Pass:
    """One pass over a store."""

    def __init__(self, store: Store, ended_before: int, dry: bool) -> None:
        self._store = store
        self._ended_before = ended_before
        self._dry = dry
        self._runs = self._events = 0
        self._kept: Counter[Reason] = Counter()
        self._chained: set[str] = set()
        """Removed with the last run of their chain: a dry run meets them again."""

    def pruned(self) -> Pruned:
        return Pruned(self._runs, self._events, dict(self._kept))

    async def take(self, runs: Sequence[str]) -> None:
        """Remove what may go of these."""
        removal = await self._remove([run for run in runs if run not in self._chained])
        for run, reason in removal.kept.items():
            if reason == "chain" and await self._take_chain(run):
                continue
            self._kept[reason] += 1

    async def _take_chain(self, last: str) -> bool:
        """Remove a chain by its last run."""
        chain = [last]
        while log := await self._store.at_rest.read(chain[-1], limit=1):
            previous = log[0].data.get("previous")
            if previous is None:
                break
            chain.append(previous)
        removal = await self._remove(chain)
        self._chained.update(removal.removed)
        return last in removal.removed

    async def _remove(self, runs: Sequence[str]) -> Removal:
        begun = time.monotonic()
        removal = await self._store.remove(runs, self._ended_before, dry=self._dry) if runs else Removal()
        self._runs += len(removal.removed)
        self._events += removal.events
        if not self._dry:
            await asyncio.sleep(time.monotonic() - begun)
        return removal


def _portions(heads: Sequence[Head]) -> Iterator[list[Head]]:
    """The runs in portions of so many events."""
    portion: list[Head] = []
    events = 0
    for head in heads:
        if portion and events + head.position > EVENTS:
            yield portion
            portion, events = [], 0
        portion.append(head)
        events += head.position
    if portion:
        yield portion
