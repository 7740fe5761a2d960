"""The rows that a group of appends writes, gathered and then written table by table.

A group of 128 appends is some ten statements this way, each prepared once. Within a flush the statements have no
order among the appends of one run, so whoever gathers flushes between two of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apsw

from holdfast.events import dump_json
from holdfast.store.messages import Append
from holdfast.store.rows import Head
from holdfast.store.rules import Row

from .connect import SQL

Values = tuple[Any, ...]

_MOVE, _TURN, _LOG = SQL["advance_run"], SQL["turn_run"], SQL["add_event"]
_PUT_STEP, _DROP_STEP = SQL["put_step"], SQL["drop_step"]
_FEWER = ("queue_step", "put_timer", "drop_timer", "put_child", "drop_child")
"""What most appends do not write, in the order in which it is written."""
_AT_ENDS = ("drop_steps", "drop_timers", "end_hooks", "orphan_children")


class Moved(Exception):
    """A run's row is not the one that we remember."""


class Writes:
    """What is to be written, by the statement that does it."""

    __slots__ = ("continued", "dropped_steps", "ended", "events", "fewer", "moved", "put_steps", "turned")

    def __init__(self) -> None:
        self.moved: list[Values] = []
        self.turned: list[Values] = []
        self.events: list[Values] = []
        self.put_steps: list[Values] = []
        self.dropped_steps: list[Values] = []
        self.fewer: dict[str, list[Values]] = {}
        self.continued: list[tuple[int]] = []
        self.ended: list[tuple[int]] = []

    def move(self, head: Head, before: Head) -> None:
        """The run's row goes on from `before`, if that is what it is still."""
        attributes = None
        if head.attributes is not before.attributes:
            attributes = dump_json(head.attributes).decode()
        values: Values = (
            head.position, head.time, head.chain, head.command, head.fact, head.delivered,
            head.steps, head.timers, head.children, head.crashes, attributes, head.row,
            before.chain, before.owner, before.parked, before.delivered, before.crashes,
        )  # fmt: skip
        if head.status == before.status and head.ended == before.ended:
            self.moved.append(values)
        else:
            self.turned.append((*values, head.status, head.ended, head.owner, head.parked))

    def log(self, head: Head, rows: Sequence[Row], request: Append, *, whole: bool) -> None:
        """The events of an append; the last one carries what belongs to all of them."""
        run, events = head.row, self.events
        events += [
            (
                run, row.position, (draft := row.draft).type, draft.key, row.time, draft.body.decode(),
                draft.unique, None, None, None, None,
            )
            for row in rows
        ]  # fmt: skip
        of_append = (request.batch, rows[0].position, request.after) if whole else (None, None, None)
        events[-1] = (*events[-1][:7], head.chain, *of_append)

    def add(self, statement: str, row: Values) -> None:
        """A row for one of the rarer statements."""
        self.fewer.setdefault(statement, []).append(row)

    def flush(self, db: apsw.Connection, cursor: apsw.Cursor) -> None:
        """Write it all. Raises Moved where a run's row is another than the one that was judged."""
        if not self.events:
            return  # without events there is nothing
        write = cursor.executemany
        before = db.total_changes()
        if self.moved:
            write(_MOVE, self.moved)
        if self.turned:
            write(_TURN, self.turned)
        if db.total_changes() - before != len(self.moved) + len(self.turned):
            raise Moved
        write(_LOG, self.events)
        if self.put_steps:
            write(_PUT_STEP, self.put_steps)
        if self.dropped_steps:
            write(_DROP_STEP, self.dropped_steps)
        for name in _FEWER if self.fewer else ():
            if name in self.fewer:
                write(SQL[name], self.fewer[name])
        if self.continued:
            write(SQL["continue_hooks"], self.continued)
        for name in _AT_ENDS if self.ended else ():
            write(SQL[name], self.ended)
