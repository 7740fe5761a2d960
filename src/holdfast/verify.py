"""Verify: prove that logs are what they were, and that the projections say what the logs say (law L13).

    async for difference in Verification(store).run():
        print(difference)

For each run the log is read once, in pages, and everything is checked on the way:

- its own order: positions 1..n without a gap or a double, times that do not go back, facts behind the commands
  they report on, unique keys, at most one end and nothing behind it but late outcomes;
- the hash chain: each append's hash over the one before and its own events, and the head's in the run's row;
- the projections: the run's row, open steps, pending timers and hooks, against what the log folds to;
- with code: that today's workflows replay it;
- with exported heads: that the log still holds what it held when they were exported. Only this proves anything
  against somebody who can write the database and recompute its hashes.

A run that is being written to meanwhile is read on until log and row agree. Where an append does not fit its
hash, the next one is judged from the stored hash: so each edited place is named, not all that follows it.

Rejected: one transaction over everything (a reader that lasts for minutes keeps SQLite's WAL from being reused).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Container, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from .errors import HoldfastError, StoreError
from .events import ENDS, TYPES, Draft, Event, RunState, fold, new, token_of
from .store.base import Head, Hook, Store
from .store.rules import command_of, extend_chain

PAGE = 1000
_TRIES = 50
_ALL = 1 << 60
_LATE = frozenset({"step_completed", "step_failed"})
"""What may still be recorded after a run's end (law L11)."""


class Difference(msgspec.Struct, frozen=True):
    """One thing that is not as it must be. `position` is 0 where it is about no event."""

    run: str
    position: int
    what: str

    def __str__(self) -> str:
        place = f" position {self.position}" if self.position else ""
        return f"{self.run}{place}: {self.what}"


class ExportedHead(msgspec.Struct, frozen=True):
    """How far a run's log went, and its hash there: what a later proof holds against the store."""

    run: str
    position: int
    chain: str


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

    After `run()` has been exhausted: `runs`, `events` and `replayed` count what was looked at, `unsettled` are
    runs that were written to all the time, `heads` (where wanted) are those of the runs that are in order.
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
        self._store = store
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
            before = None
            while page := await self._store.runs(before=before, limit=100):
                for head in page:
                    async for difference in self._check(head):
                        yield difference
                before = (page[-1].created, page[-1].run)
        for run_id, heads in self._exported.items():
            if self._run_id in (None, run_id):
                yield Difference(run_id, heads[-1].position, "an exported head names this run, the store does not")

    async def _check(self, head: Head) -> AsyncIterator[Difference]:
        self.runs += 1
        found = False
        try:
            log = _LogCheck(head.run)
            settled = await self._read(log)
            self.events += log.count
            differences = [*log.differences, *log.check_chain(settled, self._exported.pop(head.run, ()))]
            if settled is None:
                self.unsettled.append(head.run)
            else:
                differences += log.check_projections(settled)
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

    async def _read(self, log: _LogCheck) -> _Projections | None:
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

    async def _read_on(self, log: _LogCheck) -> bool:
        grown = False
        while page := log.unseen(await self._store.read(log.run, max(log.last - 1, 0), PAGE)):
            grown = True
            for event in page:
                log.add(event)
        return grown

    async def _projections(self, run_id: str, head: Head | None) -> _Projections | None:
        if head is None:
            return None
        store = self._store
        steps = {step.key: (step.attempt, step.due) for step in await store.open_steps(run_id)}
        timers = {timer.key: timer.due for timer in await store.timers(run=run_id, limit=_ALL)}
        hooks: dict[str, Hook] = {}
        after: tuple[str, str] | None = None
        while page := await store.hooks(run=run_id, open_only=False, after=after, limit=PAGE):
            hooks.update((hook.key, hook) for hook in page)
            after = (page[-1].token, page[-1].run)
        return _Projections(head, steps, timers, hooks, await store.chain(run_id))

    async def _replay(self, run_id: str) -> list[Difference]:
        from .replay import check_run

        self.replayed += 1
        try:
            divergence = check_run(await self._store.read(run_id)).divergence
        except HoldfastError as error:
            return [Difference(run_id, 0, f"cannot be replayed: {error}")]
        if divergence is None:
            return []
        place = f" at {divergence.where}" if divergence.where else ""
        what = f"the log holds {divergence.expected}, today's code asks for {divergence.asked}{place}"
        return [Difference(run_id, divergence.position, what)]


class _Projections(msgspec.Struct):
    """What the store derived from one run's log."""

    head: Head
    steps: dict[str, tuple[int, int | None]]
    timers: dict[str, int]
    hooks: dict[str, Hook]
    chain: list[tuple[int, bytes]]


class _LogCheck:
    """One log, event by event: what is wrong with it, what it folds to, and the hash parts of its events."""

    def __init__(self, run: str) -> None:
        self.run = run
        self.state: RunState | None = RunState(run)
        self.differences: list[Difference] = []
        self.count = self.last = 0
        self._at_last: list[Event] = []
        self._time = 0
        self._end: Event | None = None
        self._unique: dict[str, int] = {}
        self._opened: dict[str, dict[str, Any]] = {}
        self._due: dict[str, int] = {}
        self._digests: list[tuple[int, str, str, int, bytes]] = []

    def unseen(self, page: list[Event]) -> list[Event]:
        """Of a page that begins at the last position seen, what is new: doubles of that position are."""
        return [event for event in page if event.position > self.last or event not in self._at_last]

    def add(self, event: Event) -> None:
        """Check the next event against all before it."""
        self.count += 1
        expected = self.last + 1
        if event.position == self.last:
            self._differs(event, f"this position is taken twice (the second is {event.type} {event.key})")
        elif event.position != expected:
            gap = f"position {expected}" if event.position == expected + 1 else f"{expected}–{event.position - 1}"
            self._differs(event, f"{gap} missing before it")
        self._at_last = [*self._at_last, event] if event.position == self.last else [event]
        self.last = event.position
        self._digests.append((event.position, event.type, event.key, event.time, event.body))
        if event.time < self._time:
            self._differs(event, f"its time lies {self._time - event.time} µs before its predecessor's")
        self._time = max(self._time, event.time)
        draft = self._read(event)
        if draft is not None:
            self._check_order(event, draft)
            self._fold(event)

    def _differs(self, event: Event, what: str) -> None:
        self.differences.append(Difference(self.run, event.position, what))

    def _read(self, event: Event) -> Draft | None:
        if event.type not in TYPES:
            self._differs(event, f"no event type {event.type!r}")
        else:
            try:
                return new(event.type, key=event.key, data=event.data)
            except (ValueError, TypeError, KeyError, HoldfastError) as error:
                self._differs(event, f"{event.type} {event.key} cannot be read: {error}")
        self.state = None
        return None

    def _check_order(self, event: Event, draft: Draft) -> None:
        if (event.position == 1) != (event.type == "run_created"):
            self._differs(event, f"{event.type}: a log begins with run_created, and nowhere else")
        there = self._unique.setdefault(draft.unique, event.position) if draft.unique else event.position
        if there != event.position:
            self._differs(event, f"{draft.unique!r} stands at position {there} already")
        reports_on = command_of(draft)
        if reports_on is not None and reports_on not in self._unique:
            self._differs(event, f"{event.type} {event.key} reports on a command that is not before it")
        if self._end is not None and event.type not in _LATE:
            self._differs(event, f"{event.type} {event.key} follows the end at {self._end.position}".replace("  ", " "))
        if event.type in ENDS and self._end is None:
            self._end = event
        elif event.type == "timer_started":
            self._due[event.key] = draft.data.get("due", 0)
        elif event.type == "timer_fired" and event.time < self._due.get(event.key, 0):
            self._differs(event, f"{event.key} fired before it was due")
        elif event.type == "hook_opened":
            self._opened[event.key] = dict(draft.data)

    def _fold(self, event: Event) -> None:
        if self.state is None:
            return
        try:
            fold([event], self.state)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self._differs(event, f"{event.type} {event.key} cannot be folded: {type(error).__name__}: {error}")
            self.state = None

    # ---- the chain

    def check_chain(
        self, settled: _Projections | None, exported: Iterable[ExportedHead]
    ) -> list[Difference]:
        """Each append's hash, the row's, and the exported ones."""
        if settled is None:
            return []
        found: list[Difference] = []
        hashes, chain, start = dict(settled.chain), b"", 0
        for last, stored in settled.chain:
            stop = start
            while stop < len(self._digests) and self._digests[stop][0] <= last:
                stop += 1
            part = self._digests[start:stop]
            if extend_chain(chain, part) != stored:
                first = part[0][0] if part else last
                span = f"position {first}" if first == last else f"positions {first}–{last}"
                found.append(Difference(self.run, first, f"the hash of this append ({span}) does not fit its events"))
            chain, start = stored, stop
        if start < len(self._digests):
            found.append(Difference(self.run, self._digests[start][0], "no append's hash covers the log from here on"))
        if settled.head.chain != chain:
            found.append(Difference(self.run, 0, "the hash in the run's row is not that of its log"))
        for head in exported:
            if head.position > self.last:
                what = f"the log ends at {self.last}, an exported head stands at {head.position}: it was cut"
            elif hashes.get(head.position, b"").hex() != head.chain:
                what = "the exported head has another hash here: the log was rewritten"
            else:
                continue
            found.append(Difference(self.run, head.position, what))
        return found

    # ---- the projections

    def check_projections(self, stored: _Projections) -> list[Difference]:
        """The run's row, open steps, pending timers and hooks against what the log folds to."""
        found: list[Difference] = []
        if stored.head.position != self.last:
            what = f"the log ends here, the run's row says {stored.head.position}"
            found.append(Difference(self.run, self.last, what))
        if self.state is None:
            return found
        compared = _row_of_state(self.state, self._time)
        row = _row(stored.head)
        for name, expected in compared.items():
            if row[name] != expected:
                what = f"the run's row says {name} = {_text(row[name])}, the log says {_text(expected)}"
                found.append(Difference(self.run, 0, what))
        if stored.head.delivered > self.last:
            what = f"the run's row says delivered = {stored.head.delivered}, the log ends at {self.last}"
            found.append(Difference(self.run, 0, what))
        for table, rows, expected_rows in self._tables(self.state, stored):
            for key in {**rows, **expected_rows}:
                if rows.get(key) != expected_rows.get(key):
                    said, meant = _text(rows.get(key)), _text(expected_rows.get(key))
                    what = f"the table of {table} says {key} = {said}, the log says {meant}"
                    found.append(Difference(self.run, 0, what))
        return found

    def _tables(
        self, state: RunState, stored: _Projections
    ) -> Iterator[tuple[str, Mapping[str, object], Mapping[str, object]]]:
        going_on = state.ended is None
        yield (
            "steps",
            {key: {"attempt": attempt, "due": due} for key, (attempt, due) in stored.steps.items()},
            {
                step.key: {"attempt": step.attempt, "due": step.due}
                for step in state.steps.values()
                if going_on and step.open
            },
        )
        pending = {t.key: t.due for t in state.timers.values() if going_on and t.status == "pending"}
        yield "timers", stored.timers, pending
        yield (
            "hooks",
            {
                key: {
                    "token": hook.token,
                    "status": hook.status,
                    "opened": hook.opened,
                    "schema": hook.schema,
                    "metadata": hook.metadata,
                }
                for key, hook in stored.hooks.items()
            },
            {
                key: {
                    "token": token_of(key),
                    "status": hook.status,
                    "opened": hook.opened,
                    "schema": self._opened.get(key, {}).get("schema"),
                    "metadata": hook.metadata,
                }
                for key, hook in state.hooks.items()
                if hook.status != "refused"
            },
        )


def _row_of_state(state: RunState, time: int) -> dict[str, object]:
    return {
        "workflow": state.workflow,
        "status": state.status,
        "time": time,
        "command": state.command,
        "fact": state.fact,
        "steps": state.open_steps,
        "timers": state.pending_timers,
        "created": state.created,
        "ended": state.ended,
        "attributes": state.attributes,
    }


def _row(head: Head) -> dict[str, object]:
    names = ("workflow", "status", "time", "command", "fact", "steps", "timers", "created", "ended", "attributes")
    return {name: getattr(head, name) for name in names}


def _text(value: object) -> str:
    """A value in a message, short."""
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 120 else f"{text[:119]}…"
