"""What the slow path reads: a `View` of a group's runs and tokens, behind their locks; rows made into objects.

Locks are taken in one order by everybody: first the tokens (by their numbers), then the runs (by their ids). A
payload's run is not known before its token is looked up, which is why tokens come first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any

from holdfast.errors import HoldfastError
from holdfast.events import Event, load_json
from holdfast.store.messages import Append
from holdfast.store.rows import Child, Head, Hook, WorkerRow
from holdfast.store.rules import resolve, wanted
from holdfast.store.streams import Author, Write

from .connect import SQL, Connection
from .known import Known, Looked, View, tokens_of
from .text import escape, unescape, unescape_some
from .writes import read_attributes

SMALL = 32
"""Open steps, timers and children that are worth reading in full, though only some of them are named."""


def to_head(row: Sequence[Any]) -> Head:
    """A row of `runs`, in the order of the queries."""
    head = Head(*row)
    head.run, head.workflow = unescape(head.run), unescape(head.workflow)
    head.attributes, head.owner = read_attributes(row[14]), unescape_some(head.owner)
    head.parent, head.root = unescape_some(head.parent), unescape_some(head.root)
    return head


def to_hook(row: Sequence[Any]) -> Hook:
    """A row of `hooks`, in the order of the queries."""
    token, run, key, status, opened, schema, metadata = row
    return Hook(
        unescape(token),
        unescape(run),
        unescape(key),
        status,
        opened,
        _from_json(schema),
        _from_json(metadata),
    )


def to_child(row: Sequence[Any]) -> Child:
    """A row of `children` with its parent's id and whether it has ended."""
    run, key, child, position, status, ended = row
    return Child(unescape(run), unescape(key), unescape(child), position, status, ended)


def to_worker(id: str, pid: int, host: str, expires: int, counters: str) -> WorkerRow:
    """A row of `workers`."""
    return WorkerRow(unescape(id), pid, unescape(host), expires, load_json(counters.encode()))


def to_event(run: str, row: Sequence[Any]) -> Event:
    """A row of `events`: position, type, key, time, body."""
    position, type_, key, time, body = row
    return Event(run, position, type_, unescape(key), time, body.encode())


def lock_number(text: str) -> int:
    """The number under which PostgreSQL locks a name (advisory locks have numbers only)."""
    digest = blake2b(b"holdfast\0" + text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


async def look(
    db: Connection, requests: Sequence[Append], writes: Sequence[Write] = ()
) -> tuple[View, dict[int, HoldfastError]]:
    """Lock and look up what judging these appends needs, and the runs of these writes to streams.

    With it come the answers of payloads that no run can take, by the identity of their requests.
    """
    view = View()
    refused: dict[int, HoldfastError] = {}
    await _look_at_tokens(db, requests, view)
    for request in requests:
        if request.token is not None:
            answer = resolve(request, view.tokens(request))
            if answer is not None:
                refused[id(request)] = answer
    left = [request for request in requests if id(request) not in refused]
    await _look_at_runs(db, left, writes, view)
    if view.holders:
        # Again, behind the locks of their runs: one may have closed a hook, or ended, while we waited for it.
        await _read_holders(db, list(view.holders), view)
    return view, refused


async def _look_at_tokens(db: Connection, requests: Sequence[Append], view: View) -> None:
    tokens = {token for request in requests for token in tokens_of(request.drafts)}
    if not tokens:
        return
    await db.fetch(SQL["lock_tokens"], sorted(lock_number(f"token {token}") for token in tokens))
    await _read_holders(db, tokens, view)
    uniques = {
        draft.unique
        for request in requests
        for draft in request.drafts
        if draft.type == "hook_received" and draft.unique is not None
    }
    if uniques:
        for uniq, run, position, digest in await db.fetch(SQL["deliveries"], [escape(u) for u in uniques]):
            view.deliveries[unescape(uniq)] = (unescape(run), position, digest)


async def _read_holders(db: Connection, tokens: Iterable[str], view: View) -> None:
    names = [escape(token) for token in tokens]
    view.holders = defaultdict(list)
    for token, run, key in await db.fetch(SQL["holders"], names):
        view.holders[unescape(token)].append((unescape(run), unescape(key)))
    free = [name for name in names if unescape(name) not in view.holders]
    if free:
        for token, status, run in await db.fetch(SQL["former"], free):
            view.former[unescape(token)] = status
            if status == "continued":
                view.continued[unescape(token)] = unescape(run)


async def _look_at_runs(
    db: Connection, requests: Sequence[Append], writes: Sequence[Write], view: View
) -> None:
    by_run: defaultdict[str, list[Append]] = defaultdict(list)
    authors = [write.author for write in writes if write.author is not None]
    for run in (*(write.run for write in writes), *(author.run for author in authors)):
        by_run[run] = []
    for request in requests:
        by_run[request.run].append(request)
    names = sorted(escape(run) for run in by_run)
    for row in await db.fetch(SQL["lock_heads"], names):
        head = to_head(row)
        view.runs[head.run] = Looked(Known(head, full=False))
    rows = {looked.known.head.row: looked for looked in view.runs.values()}
    if rows:
        there = [(looked, by_run[run]) for run, looked in view.runs.items()]
        await _read_keys(db, there, rows)
        await _read_open(db, there, authors, rows)
        await _read_beyond(db, there, rows)


Wanted = Sequence[tuple[Looked, Sequence[Append]]]
Rows = dict[int, Looked]


async def _read_keys(db: Connection, there: Wanted, rows: Rows) -> None:
    uniques, batches = [], []
    for looked, requests in there:
        row = looked.known.head.row
        keys = {key for request in requests for key in wanted(request.drafts)}
        uniques += [(row, escape(key)) for key in keys]
        batches += [(row, escape(request.batch), request.after) for request in requests]
    if uniques:
        for run, uniq, position in await db.fetch(SQL["uniques"], *zip(*uniques, strict=True)):
            rows[run].uniques[unescape(uniq)] = position
    if batches:
        for run, batch, first, last in await db.fetch(SQL["batches"], *zip(*batches, strict=True)):
            rows[run].batches[unescape(batch)] = (first, last)


async def _read_open(db: Connection, there: Wanted, authors: Sequence[Author], rows: Rows) -> None:
    """What is open: all of them for a decider, who will be back, and where there are few."""
    full, named = [], []
    for looked, requests in there:
        head = looked.known.head
        count = head.steps + head.timers + head.children
        looked.known.full = any(r.after is not None for r in requests) or count <= SMALL
        if count == 0:
            continue
        if looked.known.full:
            full.append(head.row)
        else:
            named += [(head.row, escape(draft.key)) for request in requests for draft in request.drafts]
            named += [(head.row, escape(author.step)) for author in authors if author.run == head.run]
    found = await db.fetch(SQL["open_of"], full) if full else []
    if named:
        found += await db.fetch(SQL["named_of"], *zip(*set(named), strict=True))
    for kind, run, key, number, due, child, status in found:
        known = rows[run].known
        if kind == "step":
            known.steps[unescape(key)] = (number, due)
        elif kind == "timer":
            known.timers[unescape(key)] = due
        else:
            known.children[unescape(key)] = (unescape(child), number, status)


async def _read_beyond(db: Connection, there: Wanted, rows: Rows) -> None:
    behind = []
    for looked, requests in there:
        after = min((r.after for r in requests if r.after is not None), default=looked.known.head.position)
        if after < looked.known.head.position:
            behind.append((looked.known.head.row, max(after, 0)))
    if behind:
        for run, *event in await db.fetch(SQL["beyond"], *zip(*behind, strict=True)):
            looked = rows[run]
            looked.beyond.append(to_event(looked.known.head.run, event))


def _from_json(text: str | None) -> Any:
    return None if text is None else load_json(text.encode())
