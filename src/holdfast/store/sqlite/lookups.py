"""What a write transaction reads: the look-ups for one append, and rows made into objects."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import apsw

from holdfast.events import Draft, Event, dump_json, load_json, token_of
from holdfast.store.known import Known
from holdfast.store.messages import Append
from holdfast.store.rows import Child, Head, Hook, WorkerRow
from holdfast.store.rules import Found, wanted

from .connect import SQL


def to_head(row: Sequence[Any]) -> Head:
    """A row of `runs`, in the order of the queries."""
    head = Head(*row)
    head.attributes = {} if row[14] == "{}" else load_json(row[14].encode())
    return head


def to_hook(row: Sequence[Any]) -> Hook:
    """A row of `hooks`, in the order of the queries."""
    token, run, key, status, opened, schema, metadata = row
    return Hook(token, run, key, status, opened, from_json(schema), from_json(metadata))


def to_child(row: Sequence[Any]) -> Child:
    """A row of `children` with its parent's id and whether it has ended."""
    run, key, child, position, status, ended = row
    return Child(run, key, child, position, status, bool(ended))


def to_worker(id: str, pid: int, host: str, expires: int, counters: str) -> WorkerRow:
    """A row of `workers`."""
    return WorkerRow(id, pid, host, expires, load_json(counters.encode()))


def to_json(value: object) -> str | None:
    """A column that holds JSON text, or NULL."""
    return None if value is None else dump_json(value).decode()


def from_json(text: str | None) -> Any:
    """The reverse of `to_json`."""
    return None if text is None else load_json(text.encode())


LITTLE = 32
"""Steps, timers and children that are read in full at little cost."""


def _is_little(head: Head) -> bool:
    return head.steps + head.timers + head.children <= LITTLE


class Lookups:
    """The look-ups of one append, in the transaction that will write the verdict."""

    def __init__(self, db: apsw.Connection) -> None:
        self._db = db

    def head(self, run: str) -> Head | None:
        """A run's row."""
        row = self._db.execute(SQL["head"], (run,)).fetchall()
        return to_head(row[0]) if row else None

    def tokens(self, request: Append, found: Found) -> None:
        """Who holds the tokens that an append names, who held them, and which deliveries are known."""
        tokens = {
            token_of(draft.key) for draft in request.drafts if draft.type in ("hook_opened", "hook_received")
        }
        holders, former, continued, deliveries = {}, {}, {}, {}
        for token in tokens:
            for run, key in self._rows("holder", token):
                holders[token] = (run, key)
            for status, run in () if token in holders else self._rows("former", token):
                former[token] = status
                if status == "continued":
                    continued[token] = run
        for draft in request.drafts:
            if draft.type == "hook_received" and draft.unique is not None:
                for row in self._rows("delivery", draft.unique):
                    deliveries[draft.unique] = row
        found.holders, found.former, found.deliveries = holders, former, deliveries
        found.continued = continued

    def find(self, request: Append, found: Found, known: Known | None) -> Known | None:
        """Everything else that judging an append needs, into `found`, and what the run comes to.

        `known` saves reads where it is still true. What is open is read in full for a decider, who will be back,
        and for a fact where it is little; who sends a payload is most often no worker of the run.
        """
        head = found.head = self.head(request.run)
        if head is None:
            return None
        if request.after is None:
            batches = self._rows("batch", head.row, request.batch)
        else:
            batches = self._rows("fenced_batch", head.row, request.batch, request.after)
        for first, last in batches:
            found.batch = (first, last)
        keys = ((head.row, key) for key in wanted(request.drafts))
        there: list[Any] = self._db.executemany(SQL["unique"], keys).fetchall()
        found.uniques = dict(there)
        if known is not None and known.head.chain == head.chain:
            known.head = head
        elif request.after is not None or (request.token is None and _is_little(head)):
            known = self._open(head)
        else:
            self._named(found, head.row, request.drafts)
            return Known(head, full=False)
        found.steps, found.timers, found.children = known.steps, known.timers, known.children
        if request.after is not None and request.after < head.position:
            found.beyond = self.beyond(head, request.after)
        return known

    def beyond(self, head: Head, after: int) -> list[Event]:
        """The events that a decider has not read."""
        return [Event(head.run, *row) for row in self._rows("beyond", head.row, after)]

    def _open(self, head: Head) -> Known:
        """A run with all that it waits for."""
        known = Known(head)
        known.steps = _by_key(self._rows("steps", head.row))
        known.timers = dict(self._rows("timers", head.row))
        known.children = _by_key(self._rows("children", head.row))
        return known

    def _named(self, found: Found, row: int, drafts: Iterable[Draft]) -> None:
        """Of what a run waits for, what these events speak of."""
        steps: dict[str, Any] = {}
        timers: dict[str, int] = {}
        children: dict[str, Any] = {}
        for kind, key in {(draft.type.partition("_")[0], draft.key) for draft in drafts}:
            if kind == "step":
                steps.update(_by_key(self._rows("step", row, key)))
            elif kind == "timer":
                timers.update(self._rows("timer", row, key))
            elif kind == "child":
                children.update(_by_key(self._rows("child", row, key)))
        found.steps, found.timers, found.children = steps, timers, children

    def _rows(self, query: str, *values: Any) -> list[Any]:
        return self._db.execute(SQL[query], values).fetchall()


def _by_key(rows: list[Any]) -> dict[str, Any]:
    """What each row says of its key, which comes first."""
    return {key: tuple(rest) for key, *rest in rows}
