"""What a group writes, gathered run by run and laid out as the columns of one statement.

Several appends of one run become one new row for it, many events, and the last word on each step and timer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from holdfast import ids
from holdfast.events import Event, dump_json, load_json, name_of, token_of
from holdfast.store.messages import Append, Appended, News, news_of_queues
from holdfast.store.queued import Queued
from holdfast.store.rows import Head
from holdfast.store.rules import Changes, Verdict

from .columns import columns
from .text import escape, escape_some

_newest = 0


def new_id() -> int:
    """The short name of a new run: its milliseconds, then chance; ever growing within this process."""
    global _newest
    stamp = (ids.wall_nanoseconds() // 1_000_000) << 21 | int.from_bytes(ids.random_bytes(3), "big") >> 3
    _newest = max(stamp, _newest + 1)
    return _newest


def attribute_lines(attributes: dict[str, str]) -> str:
    """Attributes as they stand in the tables: a JSON array [name, value] a line."""
    return "\n".join(attribute_items(attributes))


def attribute_items(attributes: Iterable[tuple[str, str]] | dict[str, str]) -> list[str]:
    """The lines that a run with these attributes holds."""
    pairs = attributes.items() if isinstance(attributes, dict) else attributes
    return [dump_json(list(pair)).decode() for pair in pairs]


def read_attributes(lines: str) -> dict[str, str]:
    """The reverse of `attribute_lines`."""
    return dict(load_json(line.encode()) for line in lines.split("\n")) if lines else {}


def json_text(value: object) -> str | None:
    """A column that holds JSON text, or NULL."""
    return None if value is None else dump_json(value).decode()


EVENTS = "nntsntstsnn"
"""The shape of the rows of `events` (see `columns`). Most have no hash and no batch: empty texts there."""
_PARTS = attrgetter("position", "draft", "time")


class RunWrite(msgspec.Struct):
    """What a group makes of one run; `before` is its row in the table."""

    before: Head | None
    head: Head
    acts: bool = False
    fact: bool = False
    ended: bool = False
    continued: bool = False
    end: Event | None = None
    steps: dict[str, tuple[int, int | None] | None] = {}
    timers: dict[str, int | None] = {}
    children: dict[str, tuple[str, int, str] | None] = {}


class Writes:
    """The rows of a group."""

    def __init__(self) -> None:
        self.appends = 0
        self.runs: dict[str, RunWrite] = {}
        self.events: list[tuple[Any, ...]] = []
        self.opened: list[tuple[Any, ...]] = []
        self.closed: list[tuple[Any, ...]] = []
        self.deliveries: dict[str, tuple[Any, ...]] = {}
        self.queued: list[tuple[Any, ...]] = []
        self.queues: list[News] = []

    def add(self, request: Append, verdict: Verdict, before: Head | None) -> None:
        """Add a verdict; `before` is the run's row as it is in the table, None for a run that is new."""
        head, changes = verdict.head, verdict.changes
        assert head is not None
        assert changes is not None
        self.appends += 1
        write = self.runs.get(head.run)
        if write is None:
            write = self.runs[head.run] = RunWrite(before, head)
            if before is None:
                head.row = new_id()
            command, fact = (0, 0) if before is None else (before.command, before.fact)
        else:
            command, fact = write.head.command, write.head.fact
            write.head = head
        whole = isinstance(verdict.answer, Appended)
        if head.command > command:
            write.acts = True
        if head.fact > fact and not (whole and request.after is not None):
            write.fact = True
        write.steps.update(changes.steps)
        self._add_events(request, verdict, head, whole=whole)
        if not changes.only_steps:
            self._add_other(write, verdict, head, changes)

    def _add_events(self, request: Append, verdict: Verdict, head: Head, *, whole: bool) -> None:
        add, run, rows = self.events.append, head.row, verdict.rows
        for position, draft, time in map(_PARTS, rows):
            add((
                run, position, draft.type, draft.key, time, draft.body.decode(), draft.unique, "", "", None, None,
            ))  # fmt: skip
        end = (request.batch, rows[0].position, request.after) if whole else ("", None, None)
        self.events[-1] = (*self.events[-1][:7], head.chain.hex(), *end)

    def _add_other(self, write: RunWrite, verdict: Verdict, head: Head, changes: Changes) -> None:
        """What an append changes beside steps."""
        write.timers.update(changes.timers)
        write.children.update(changes.children)
        if changes.ended:
            write.ended, write.continued, write.end = True, changes.continued, verdict.end()
            write.steps.clear()  # all of them go
            write.timers.clear()
        for change in changes.hooks:
            self._add_hook(verdict, head.row, change.key, change.data, change.time)
        if changes.queued and not changes.ended:
            self._add_queued(head, changes.queued)
        for unique, position, digest in changes.deliveries:
            self.deliveries[unique] = (unique, head.row, position, digest)

    def _add_queued(self, head: Head, queued: Mapping[str, Queued]) -> None:
        for key, q in queued.items():
            place = (escape(q.queue), escape_some(q.limit_key), q.priority, q.time, q.position)
            self.queued.append((head.row, escape(key), *place, escape(name_of(key))))
        self.queues += news_of_queues(head.run, queued)

    def _add_hook(self, verdict: Verdict, run: int, key: str, data: Any, time: int) -> None:
        if data is None:
            self.closed.append((run, escape(key)))
            return
        opening = (r.position for r in verdict.rows if r.draft.type == "hook_opened" and r.draft.key == key)
        place = next(opening, verdict.rows[0].position)  # by the creation: open in the run before already
        token, schema, metadata = token_of(key), data.get("schema"), data.get("metadata")
        self.opened.append(
            (run, escape(key), escape(token), time, place, json_text(schema), json_text(metadata))
        )

    def statement(self, now: int | None, own: tuple[str, ...], *, every: bool) -> tuple[str, list[Any]]:
        """The name of the statement that writes all of it, and its parameters.

        Who hears of it: news of the runs of `own` workers concern nobody else, unless `every` one is wanted.
        """
        if len(self.runs) == 1 and not every:
            [write] = self.runs.values()
            small = self._of_one(write, now, own)
            if small is not None:
                return small
        return "write_group", self._of_many(now, own, every=every)

    def _of_one(self, write: RunWrite, now: int | None, own: tuple[str, ...]) -> tuple[str, list[Any]] | None:
        """The statement of one append, where what is to be written is what most appends write."""
        before, steps = write.before, write.steps
        if self.appends > 1 or write.timers or write.children:
            return None
        last = self.events[-1]
        _, [first, *_], types, keys, times, bodies, uniques, *_ = transposed(self.events, 11)
        events = [
            first, types, [*map(escape, keys)], times, bodies, [*map(escape_some, uniques)],
            None if last[9] is None else escape(last[8]), last[10],
        ]  # fmt: skip
        dropped = [escape(key) for key, step in steps.items() if step is None]
        put = transposed([(escape(key), *step) for key, step in steps.items() if step is not None], 3)
        if before is None:
            if self.deliveries or self.opened:
                return None
            return "make_run", [*_made(write.head), now, *events, *put, write.fact, write.ended, own]
        run = [*_moved(write.head, before, acts=write.acts), now, *events]
        if write.ended:
            if self.deliveries or before.timers or before.children:
                return None
            return "end_run", [*run, write.continued, write.fact]
        if self.deliveries:
            if steps:
                return None
            names, _, positions, digests = transposed([*self.deliveries.values()], 4)
            return "deliver_payload", [*run, [*map(escape, names)], positions, digests]
        return None if write.fact else ("move_run", [*run, dropped, *put, own])

    def _of_many(self, now: int | None, own: tuple[str, ...], *, every: bool) -> list[Any]:
        """The parameters of `write_group`."""
        moved, made, ended, news = [], [], [], []
        put_steps, dropped_steps, put_timers, dropped_timers = [], [], [], []
        put_children, dropped_children = [], []
        # In run-id order, so that two groups never wait for each other.
        for name in sorted(self.runs):
            write = self.runs[name]
            head, before = write.head, write.before
            row = head.row
            if before is None:
                made.append(_made(head))
            else:
                moved.append(_moved(head, before, acts=write.acts))
            if write.ended:
                ended.append((row, write.continued))
            if write.fact or write.ended:
                news.append((row, write.fact, write.ended))
            for key, step in write.steps.items():
                if step is None:
                    dropped_steps.append((row, key))
                else:
                    put_steps.append((row, key, *step))
            for key, due in write.timers.items():
                if due is None:
                    dropped_timers.append((row, key))
                else:
                    put_timers.append((row, key, due))
            for key, child in write.children.items():
                if child is None:
                    dropped_children.append((row, key))
                else:
                    run, position, status = child
                    put_children.append((row, key, run, position, status, write.ended))
        touched = [*(row[:2] for row in put_children), *dropped_children]
        marks, laid_out = columns(
            (moved, "nbnnbnnnnnnnttn"), (made, "ntttnnbnnnnnnnntttt"), (self.events, EVENTS),
            (put_steps, "nsnn"), (dropped_steps, "ns"), (put_timers, "nsn"), (dropped_timers, "ns"),
            (put_children, "nssntn"), (dropped_children, "ns"), (touched, "ns"),
            (ended, "nn"), (news, "nnn"), ([*self.deliveries.values()], "snnt"),
        )  # fmt: skip
        return [*marks, now, own, every, *laid_out]

    def news(self, accepted: dict[int, tuple[str | None, bool]]) -> list[News]:
        """What the commit tells: `accepted` are the rows that were, with their (owner, ready)."""
        told = []
        for write in self.runs.values():
            row = accepted.get(write.head.row)
            if row is not None:
                told.append(News(write.head.run, row[0], write.fact, write.ended, row[1], end=write.end))
        return told


def transposed(rows: Sequence[tuple[Any, ...]], width: int) -> list[Any]:
    """Rows as columns."""
    return list(zip(*rows, strict=True)) if rows else [()] * width


def _moved(head: Head, before: Head, *, acts: bool) -> tuple[Any, ...]:
    attributes = None
    if head.attributes is not before.attributes:
        attributes = attribute_lines(head.attributes)
    return (
        head.row, before.chain, head.position, head.time, head.chain, head.command, head.fact, head.delivered,
        head.steps, head.timers, head.children, acts, attributes, head.status, head.ended,
    )  # fmt: skip


def _made(head: Head) -> tuple[Any, ...]:
    return (
        head.row, escape(head.run), escape(head.workflow), head.status, head.position, head.time, head.chain,
        head.command, head.fact, head.delivered, head.steps, head.timers, head.children, head.created,
        head.ended, attribute_lines(head.attributes), escape_some(head.owner), escape_some(head.parent),
        escape_some(head.root),
    )  # fmt: skip
