"""Verify: prove that logs are what they were, and that the projections say what the logs say (law L13).

    async for difference in Verification(store).run():
        print(difference)

For each run the log is read once, in pages, and everything is checked on the way (`logcheck.py`):

- its own order: positions 1..n without a gap or a double, times that do not go back, facts behind the
  commands they report on, unique keys, at most one end and nothing behind it but late outcomes;
- the hash chain: each append's hash over the one before and its own events, and the head's in the run's row;
- what each append was decided on: no command by a view that lacked another command (L4), no fact that was
  delivered before it was written, and then did not follow right behind that view (L5);
- its streams: positions without a gap, keys, size and hash (`streamcheck.py`);
- the projections: the run's row, open steps, pending timers and hooks, against what the log folds to;
- with code: that today's workflows replay it;
- with exported heads: that the log still holds what it held when they were exported. Only this proves
  anything against somebody who can write the database and recompute its hashes.

A run that is being written to meanwhile is read on until log and row agree.

Rejected: one transaction over everything (a reader that lasts for minutes keeps SQLite's WAL from being
used again).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Container, Iterable, Iterator

import msgspec

from .errors import HoldfastError, StoreError
from .logcheck import Difference, ExportedHead, LogCheck, Projections
from .store.base import Store
from .store.rows import Head, Hook
from .streamcheck import check_streams

PAGE = 1000
_TRIES = 50
_ALL = 1 << 60


def read_heads(lines: Iterable[bytes]) -> Iterator[ExportedHead]:
    """The heads of a file that `holdfast verify --export-head` wrote. Raises ValueError with the line."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield msgspec.json.decode(line, type=ExportedHead)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise ValueError(f"line {number}: {error}") from None


class Verification:
    """One pass over a store, or over one run of it.

    After `run()` has been exhausted: `runs`, `events` and `replayed` count what was looked at, `unsettled`
    are runs that were written to all the time, `heads` (where wanted) those of the runs that are in order.
    """

    def __init__(
        self,
        store: Store,
        *,
        run_id: str | None = None,
        workflows: Container[str] = (),
        exported: Iterable[ExportedHead] = (),
        keep_heads: bool = False,
    ) -> None:
        self._store = store.at_rest  # proofs are about what is stored, sealed or not
        self._open_store = store
        self._run_id = run_id
        self._workflows = workflows
        self._exported: dict[str, list[ExportedHead]] = {}
        for head in exported:
            self._exported.setdefault(head.run, []).append(head)
        self._keep_heads = keep_heads
        self.runs = self.events = self.replayed = 0
        self.unsettled: list[str] = []
        self.heads: list[ExportedHead] = []

    async def run(self) -> AsyncIterator[Difference]:
        """Every difference, run by run, newest run first."""
        if self._run_id is not None:
            head = await self._store.head(self._run_id)
            if head is not None:
                async for difference in self._check(head):
                    yield difference
        else:
            async for head in self._store.all_runs():
                async for difference in self._check(head):
                    yield difference
            for stray in await self._store.strays():
                yield Difference("", 0, f"{stray} belong to no run: a run's row was taken away")
        for run_id, heads in self._exported.items():
            if self._run_id in (None, run_id):
                yield Difference(
                    run_id, heads[-1].position, "an exported head names this run, the store does not"
                )

    async def _check(self, head: Head) -> AsyncIterator[Difference]:
        self.runs += 1
        found = False
        try:
            log = LogCheck(head.run)
            settled = await self._read(log)
            self.events += log.count
            differences = [*log.differences, *log.check_chain(settled, self._exported.pop(head.run, ()))]
            if settled is None and await self._store.head(head.run) is None:
                self.runs -= 1
                self.events -= log.count
                return  # it was pruned meanwhile; rows that it left would be strays
            if settled is None:
                self.unsettled.append(head.run)
            else:
                differences += log.check_projections(settled)
                differences += [found async for found in check_streams(self._store, head.run)]
                if log.state is not None and settled.head.workflow in self._workflows and not differences:
                    differences += await self._replay(head.run)
        except StoreError as error:
            differences = [Difference(head.run, 0, f"cannot be read: {error}")]
            settled = None
        for difference in differences:
            found = True
            yield difference
        if self._keep_heads and not found and settled is not None:
            self.heads.append(ExportedHead(head.run, settled.head.position, settled.head.chain.hex()))

    async def _read(self, log: LogCheck) -> Projections | None:
        """Read the log to its end, then what was derived from it; None where they never stood still."""
        for _ in range(_TRIES):
            grown = await self._read_on(log)
            before = await self._store.head(log.run)
            projections = await self._projections(log.run, before)
            after = await self._store.head(log.run)
            if before is None or after is None or projections is None:
                return None
            still = before.position == after.position and before.chain == after.chain
            if still and (before.position == log.last or not (grown or await self._read_on(log))):
                return projections
        return None

    async def _read_on(self, log: LogCheck) -> bool:
        grown = False
        while page := log.unseen(await self._store.read(log.run, max(log.last - 1, 0), PAGE)):
            grown = True
            for event in page:
                log.add(event)
        return grown

    async def _projections(self, run_id: str, head: Head | None) -> Projections | None:
        if head is None:
            return None
        store = self._store
        steps = {step.key: (step.attempt, step.due) for step in await store.open_steps(run_id)}
        timers = {timer.key: timer.due for timer in await store.timers(run=run_id, limit=_ALL)}
        children = {c.key: (c.child, c.position, c.status) for c in await store.children(run_id)}
        hooks: dict[str, Hook] = {}
        after: tuple[str, str] | None = None
        while page := await store.hooks(run=run_id, open_only=False, after=after, limit=PAGE):
            hooks.update((hook.key, hook) for hook in page)
            after = (page[-1].token, page[-1].run)
        return Projections(head, steps, timers, children, hooks, await store.chain(run_id))

    async def _replay(self, run_id: str) -> list[Difference]:
        from .replay import check_run

        self.replayed += 1
        try:
            divergence = check_run(await self._open_store.read(run_id)).divergence
        except HoldfastError as error:
            return [Difference(run_id, 0, f"cannot be replayed: {error}")]
        if divergence is None:
            return []
        place = f" at {divergence.where}" if divergence.where else ""
        what = f"the log holds {divergence.expected}, today's code asks for {divergence.asked}{place}"
        return [Difference(run_id, divergence.position, what)]
