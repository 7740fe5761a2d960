"""One log under examination: its order, its hashes, and the projections beside it.

`LogCheck` takes a run's events one at a time and remembers what the later ones are judged by; it does no I/O.
Where an append does not fit its hash, the next one is judged from the stored hash: so each edited place is
named, not everything behind the first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from .errors import HoldfastError
from .events import ENDS, TYPES, Draft, Event, RunState, fold, new, numbered, token_of
from .store.rows import Head, Hook, Link
from .store.rules import command_of, extend_chain

_LATE = frozenset({"step_completed", "step_failed", "hook_refused"})
"""What may still be recorded after a run's end (law L11); the refusal of a token by the ending append itself."""


class Difference(msgspec.Struct, frozen=True):
    """What is not as it must be. `position` is 0 where it is about no event, `run` '' about no run."""

    run: str
    position: int
    what: str

    def __str__(self) -> str:
        place = f" position {self.position}" if self.position else ""
        return f"{self.run or 'the store'}{place}: {self.what}"


class ExportedHead(msgspec.Struct, frozen=True):
    """How far a run's log went, and its hash there: what a later proof holds against the store."""

    run: str
    position: int
    chain: str


class Projections(msgspec.Struct):
    """What the store derived from one run's log."""

    head: Head
    steps: dict[str, tuple[int, int | None]]
    timers: dict[str, int]
    children: dict[str, tuple[str, int, str]]
    hooks: dict[str, Hook]
    chain: list[Link]


class LogCheck:
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
        self._classes: list[str] = []

    def unseen(self, page: list[Event]) -> list[Event]:
        """Of a page that begins at the last position seen, what is new: doubles of that position are."""
        return [event for event in page if event.position > self.last or event not in self._at_last]

    def add(self, event: Event) -> None:
        """Check the next event against all before it."""
        self.count += 1
        expected = self.last + 1
        if event.position == self.last:
            self._differs(event, f"this position is taken twice (the second is {_named(event)})")
        elif event.position != expected:
            gap = (
                f"position {expected}"
                if event.position == expected + 1
                else f"{expected}–{event.position - 1}"
            )
            self._differs(event, f"{gap} missing before it")
        self._at_last = [*self._at_last, event] if event.position == self.last else [event]
        self.last = event.position
        self._digests.append((event.position, event.type, event.key, event.time, event.body))
        self._classes.append(_class_of(event))
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
                content: object = event.data
                if isinstance(content, dict):
                    return new(event.type, key=event.key, data=content)
                self._differs(event, f"{_named(event)} holds no object")
            except (ValueError, TypeError, KeyError, HoldfastError) as error:
                self._differs(event, f"{_named(event)} cannot be read: {error}")
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
            self._differs(event, f"{_named(event)} reports on a command that is not before it")
        if self._end is not None and event.type not in _LATE:
            self._differs(event, f"{_named(event)} follows the end at {self._end.position}")
        if event.type in ENDS and self._end is None:
            self._end = event
        elif event.type == "timer_started":
            self._due[event.key] = draft.data.get("due", 0)
        elif event.type == "timer_cancelled":
            # What fires after that is late and delivered to nobody: the store, which no longer knows when it was
            # due, gives it its own time, and the clock of whoever rang it may have been ahead.
            self._due.pop(event.key, None)
        elif event.type == "timer_fired" and event.time < self._due.get(event.key, 0):
            self._differs(event, f"{event.key} fired before it was due")
        elif event.type == "hook_opened":
            self._opened[event.key] = dict(draft.data)
        elif event.type == "run_created":
            for token, schema in (draft.data.get("hooks") or {}).items():  # taken over from the run before
                self._opened[numbered(token, 0)] = {"schema": schema}
                self._unique[f"hook {numbered(token, 0)}"] = event.position

    def _fold(self, event: Event) -> None:
        if self.state is None:
            return
        try:
            fold([event], self.state)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self._differs(event, f"{_named(event)} cannot be folded: {type(error).__name__}: {error}")
            self.state = None

    # ---- the chain

    def check_chain(self, settled: Projections | None, exported: Iterable[ExportedHead]) -> list[Difference]:
        """Each append's hash and its view, the row's hash, and the exported ones."""
        if settled is None:
            return []
        found: list[Difference] = []
        hashes, chain, start = {link.last: link.hash for link in settled.chain}, b"", 0
        for last, stored, after in settled.chain:
            stop = start
            while stop < len(self._digests) and self._digests[stop][0] <= last:
                stop += 1
            part = self._digests[start:stop]
            if extend_chain(chain, part) != stored:
                first = part[0][0] if part else last
                span = f"position {first}" if first == last else f"positions {first}–{last}"
                found.append(
                    Difference(self.run, first, f"the hash of this append ({span}) does not fit its events")
                )
            if after is not None and part:
                found += self._check_view(start, stop, after)
            chain, start = stored, stop
        if start < len(self._digests):
            found.append(
                Difference(self.run, self._digests[start][0], "no append's hash covers the log from here on")
            )
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

    def _check_view(self, start: int, stop: int, after: int) -> Iterator[Difference]:
        """What an append rested on held each command before it; its early facts follow right behind (L4, L5)."""
        first, classes = self._digests[start][0], self._classes
        if "command" in classes[start:stop]:
            unread = next((at for at in range(start - 1, -1, -1) if classes[at] == "command"), None)
            if unread is not None and self._digests[unread][0] > after:
                lacks = f"which lacks the command at {self._digests[unread][0]}"
                yield Difference(
                    self.run, first, f"commands were decided here on a view that ends at {after}, {lacks}"
                )
        if first != after + 1 and any(
            classes[at] == "fact" and self._digests[at][1] != "hook_refused" for at in range(start, stop)
        ):
            what = f"facts were delivered here on a view that ends at {after}, and do not follow it"
            yield Difference(self.run, first, what)

    # ---- the projections

    def check_projections(self, stored: Projections) -> list[Difference]:
        """The run's row, open steps, pending timers and hooks against what the log folds to."""
        found: list[Difference] = []
        if stored.head.position != self.last:
            here = "ends here" if self.last else "is empty"
            what = f"the log {here}, the run's row says {stored.head.position}"
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
        self, state: RunState, stored: Projections
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
        if going_on:  # those of an ended run go when a worker has seen to them: no log says when
            open_ = {c.key: (c.run, c.position, c.status) for c in state.children.values() if c.ended is None}
            yield "children", stored.children, open_
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


def _class_of(event: Event) -> str:
    """The class of an event, also where it is of no known type or cannot be read."""
    try:
        return event.cls
    except (KeyError, ValueError, TypeError, AttributeError, HoldfastError):
        return ""


def _named(event: Event) -> str:
    return f"{event.type} {event.key}".strip()


def _row_of_state(state: RunState, time: int) -> dict[str, object]:
    return {
        "workflow": state.workflow,
        "status": state.status,
        "time": time,
        "command": state.command,
        "fact": state.fact,
        "steps": state.open_steps,
        "timers": state.pending_timers,
        "children": state.open_children,
        "parent": state.parent,
        "root": state.root,
        "created": state.created,
        "ended": state.ended,
        "attributes": state.attributes,
    }


def _row(head: Head) -> dict[str, object]:
    names = (
        "workflow",
        "status",
        "time",
        "command",
        "fact",
        "steps",
        "timers",
        "children",
        "parent",
        "root",
        "created",
        "ended",
        "attributes",
    )
    return {name: getattr(head, name) for name in names}


def _text(value: object) -> str:
    """A value in a message, short."""
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 120 else f"{text[:119]}…"
