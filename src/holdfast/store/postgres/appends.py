"""What a group of appends becomes.

What it guarantees: each append is judged on what is true when it is written; a refused one leaves nothing and
fails no neighbour; a group that cannot be written leaves nothing at all, or, where only the answer was lost,
is recognised by its batch ids when it is sent again (law L12).

There are two ways to judge an append.

- *Fast*: from what this process remembers of the run (`Known`): from its own appends, or from what it read to
  take the run up, to find who gets a payload (`takeup.py`), or to keep up with it (`follow.py`). The whole group
  is one statement, and so one round trip and one commit (`write_group`, or a smaller one for one run). It moves
  a run on only if the hash of its log is still the remembered one, which says more than any position: it is the
  same log. So times, chain and
  projections can be computed here and still be what the laws say. What memory cannot know, a unique key that is
  there already, the unique indexes find out. Only plain acceptance is believed; every other verdict is judged
  again, slowly, and so is what the statement did not accept. So a large group may be judged over several turns
  of the loop: what comes to be known in between is believed under the same condition.
- *Slow*: a transaction that locks the tokens and runs of the group, looks everything up for all of them
  together, judges one append after the other, and writes what comes of it with the same statement.

Rejected: judging in SQL (a second copy of the rules), a lock before each fast append (a second round trip),
COPY (four round trips), pipelining (slower than arrays).
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from holdfast import faults
from holdfast.clock import Clock
from holdfast.events import Event
from holdfast.store.group import Answers
from holdfast.store.known import follow
from holdfast.store.messages import Append, Appended, News
from holdfast.store.rules import (
    FROM_MEMORY,
    Found,
    Verdict,
    judge,
    judge_in_full,
    judge_plainly,
    resolve,
)
from holdfast.store.streams import Write

from .clock import ServerClock
from .connect import SQL, Collided, Connection, Line, kind_of, translate
from .follow import Sent, Since
from .hearing import as_payload
from .known import Known, View
from .lookups import look, to_event
from .streams import Request, Streams, write_quickly
from .takeup import Receiver, receivers
from .text import unescape_some
from .writes import Writes

log = logging.getLogger("holdfast.store")
AT_ONCE = 16
"""How many appends are judged before others have a turn of the loop."""
REMEMBERED = 10_000
"""How many runs a process remembers."""


class Audience(NamedTuple):
    """Who is to hear what: news of the runs of `own` workers concern nobody else, unless `every` one is wanted."""

    own: tuple[str, ...]
    every: bool


class GroupWriter:
    """Writes groups through one connection, one at a time."""

    def __init__(self, line: Line, where: str, clock: Clock, audience: Callable[[], Audience]) -> None:
        self._line = line
        self._where = where
        self._clock = clock
        self._audience = audience
        self._sent = Sent()
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._tokens: OrderedDict[str, str] = OrderedDict()  # tokens that were looked up lately -> the run

    async def commit(self, group: Sequence[Request]) -> tuple[Answers, list[News]]:
        """Judge and write a group, and make it durable. Raises StoreError where nothing could be written."""
        return await self._line.run(lambda db: self._commit(db, group))

    async def _commit(self, db: Connection, group: Sequence[Request]) -> tuple[Answers, list[News]]:
        answers: dict[int, Any] = {}
        news: list[News] = []
        try:
            left = group
            appends = [request for request in group if isinstance(request, Append)]
            # Appends beside writes to streams go in a transaction: all share one commit.
            if len(appends) == len(group):
                await self._find_receivers(db, appends)
                left = await self._fast(db, appends, answers, news)
            elif not appends:
                left = await write_quickly(db, group, self._known, self._clock, answers)
            if left:
                await self._slowly(db, left, answers, news)
        except BaseException:
            for request in group:
                self._known.pop(request.run, None)
            raise
        faults.point("store.commit.after")
        return [answers[id(request)] for request in group], news

    # ---- fast

    def remember(self, known: Known) -> None:
        """What was read of a run, all of it as of one moment: the next append may be judged on it."""
        there = self._known.get(known.head.run)
        if there is None or there.head.position < known.head.position:
            self._remember(known)

    def remember_receiver(self, found: Receiver) -> None:
        """Which run gets the payloads of a token, and what was read of it."""
        self.remember(found.known)
        run, token = found.known.head.run, found.hook.token
        known = self._known.get(run)
        if known is None or known.head.chain != found.known.head.chain:
            return  # this process has gone on with the run meanwhile, and the hook may be closed
        known.hooks[token] = (found.hook.key, found.position)
        self._tokens[token] = run
        self._tokens.move_to_end(token)
        if len(self._tokens) > REMEMBERED:
            self._tokens.popitem(last=False)

    def sent(self, run: str, after: int) -> list[Event]:
        """The payloads beyond a position, where this process has sent them and nothing has come since."""
        known = self._known.get(run)
        return self._sent.take(run, after, None if known is None else known.head.chain)

    def remembered(self, run: str, after: int) -> int | None:
        """The row of a run whose log is remembered up to just there."""
        known = self._known.get(run)
        return known.head.row if known is not None and known.head.position == after else None

    def follow(self, run: str, after: int, rows: Since | None) -> list[Event] | None:
        """What has come to a run since it was remembered; None where that must be read with all that is open."""
        if rows is None or self.remembered(run, after) is None:
            return None
        new = [(to_event(run, row), chain) for *row, chain in rows]
        return [event for event, _ in new] if follow(self._known[run], new) else None

    async def _find_receivers(self, db: Connection, group: Sequence[Append]) -> None:
        """Look up the runs of payloads whose tokens are not remembered."""
        tokens = {request.token for request in group if request.token is not None}
        unknown = [token for token in tokens if self._receiver(token) is None]
        if unknown:
            for found in (await receivers(db, unknown)).values():
                self.remember_receiver(found)

    def _receiver(self, token: str) -> tuple[Known, str, int] | None:
        """The run that gets the payloads of a token, the hook's key and where it opened."""
        known = self._known.get(self._tokens.get(token, ""))
        hook = None if known is None else known.hooks.get(token)
        return None if known is None or hook is None else (known, *hook)

    async def _fast(
        self, db: Connection, group: Sequence[Append], answers: dict[int, Any], news: list[News]
    ) -> list[Append]:
        """Write what can be judged from memory; the appends that are left over."""
        writes = Writes()
        quick: list[tuple[Append, Verdict]] = []
        slow: list[Append] = []
        slow_runs: set[str] = set()
        for number, request in enumerate(group, 1):
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
            verdict = None
            found = self._found_in_memory(request)
            if found is not None and request.run not in slow_runs:
                verdict = self._judge_from_memory(request, found, writes)
            if verdict is None:
                slow.append(request)
                slow_runs.add(request.run)
            else:
                quick.append((request, verdict))
        if not quick:
            return slow
        faults.point("store.commit.before")
        try:
            accepted = await self._write(db, writes, news, checked=False)
        except Exception as error:
            if kind_of(error) != "final":
                raise
            accepted = set()  # an index refused one of them, or it is no text: each gets its own answer
        own = self._audience().own
        ours = {item.run for item in news if item.owner in own} if own else ()
        for request, verdict in quick:
            if request.run in accepted:
                answers[id(request)] = verdict.answer
                if request.token is not None and request.run in ours:
                    assert verdict.head is not None
                    payloads = [row.event(request.run) for row in verdict.rows]
                    self._sent.keep(payloads, verdict.head.chain)
            else:
                self._known.pop(request.run, None)
        return [request for request in group if id(request) not in answers]

    def _found_in_memory(self, request: Append) -> Found | None:
        """What judging takes; None where this process does not know. A payload is pointed at its run."""
        if request.token is not None:
            receiver = self._receiver(request.token)
            if receiver is None:
                return None
            known, key, position = receiver
            found = known.found()
            found.holders = {request.token: (known.head.run, key)}
            found.uniques = {f"hook {key}": position}
            resolve(request, found)
            return found
        known_run, after = self._known.get(request.run), request.after
        if known_run is None:
            creates = after == 0 and request.drafts and request.drafts[0].type == "run_created"
            return Found(None) if creates else None
        if after is not None and after != known_run.head.position:
            return None
        return known_run.found()

    def _judge_from_memory(self, request: Append, found: Found, writes: Writes) -> Verdict | None:
        drafts, known = request.drafts, self._known.get(request.run)
        now = self._clock.now()
        try:
            verdict = judge_plainly(request, found, now)
            if verdict is None:
                if request.token is None and not all(draft.type in FROM_MEMORY for draft in drafts):
                    return None
                verdict = judge_in_full(request, found, now)
        except Exception:  # noqa: BLE001 - a program's error: it comes again, as this append's own answer
            return None
        answer = verdict.answer
        if not isinstance(answer, Appended) or not verdict.rows or answer.duplicates:
            return None
        head, changes = verdict.head, verdict.changes
        assert head is not None
        assert changes is not None
        if not changes.only_steps:
            if changes.hooks or changes.queued:
                return None  # a run that takes over the hooks of another: under their tokens' locks; queues: rare
            if any(unique in writes.deliveries for unique, *_ in changes.deliveries):
                return None  # sent twice at one moment
        writes.add(request, verdict, None if known is None else known.head)
        if known is None:
            known = Known(head)
            known.streams = {}
        known.apply(head, changes)
        self._remember(known)
        return verdict

    # ---- slow

    async def _slowly(
        self, db: Connection, requests: Sequence[Request], answers: dict[int, Any], news: list[News]
    ) -> None:
        """All together; where that fails, each alone, so that its error is its own."""
        told = len(news)
        try:
            await self._slow(db, requests, answers, news)
        except Exception as error:
            if kind_of(error) != "final":
                raise
            await db.execute(SQL["rollback"])
            del news[told:]
            if len(requests) == 1:
                answers[id(requests[0])] = translate(error, self._where)
                return
            for request in requests:
                await self._slowly(db, [request], answers, news)

    async def _slow(
        self, db: Connection, requests: Sequence[Request], answers: dict[int, Any], news: list[News]
    ) -> None:
        await db.execute(SQL["begin"])
        appends = [request for request in requests if isinstance(request, Append)]
        chunks = [request for request in requests if isinstance(request, Write)]
        view, refused = await look(db, appends, chunks)
        streams = Streams()
        if chunks:
            await streams.look(db, chunks, view)
        now = await self._now(db)
        answers.update(refused)
        left = [request for request in requests if id(request) not in refused]
        writes = _judge(left, view, streams, now, answers, news)
        if writes.runs:
            await self._write_hooks(db, writes)
            accepted = await self._write(db, writes, news, checked=True)
            if len(accepted) < len(writes.runs):
                # A run that was not there is being created by another: nothing could hold its place.
                raise Collided
            await self._queue_steps(db, writes, news)
        if not await streams.write(db, None) >= streams.names:
            raise Collided
        faults.point("store.commit.before")
        await db.execute(SQL["commit"])
        for looked in view.runs.values():
            if looked.known.full:
                self._remember(looked.known)
            else:
                self._known.pop(looked.known.head.run, None)

    async def _write_hooks(self, db: Connection, writes: Writes) -> None:
        for name, rows in (("open_hooks", writes.opened), ("close_hooks", writes.closed)):
            if rows:
                await db.fetch(SQL[name], *zip(*rows, strict=True))

    async def _queue_steps(self, db: Connection, writes: Writes, news: list[News]) -> None:
        """Steps that are new wait in their queues; who serves those hears of it."""
        if not writes.queued:
            return
        await db.fetch(SQL["queue_steps"], *zip(*writes.queued, strict=True))
        named = {item.queue: item for item in writes.queues}
        await db.fetch(SQL["say"], as_payload(list(named.values())))
        news += writes.queues

    async def _now(self, db: Connection) -> int:
        """The store's clock: the server's, or that of the test."""
        if not isinstance(self._clock, ServerClock):
            return self._clock.now()
        sent = self._clock.instant()
        server: int = await db.fetchval(SQL["now"])
        self._clock.learn(server, sent, self._clock.instant())
        return server

    # ---- both

    async def _write(self, db: Connection, writes: Writes, news: list[News], *, checked: bool) -> set[str]:
        """Write what was gathered; the runs whose log was the one that was judged."""
        clock = self._clock if isinstance(self._clock, ServerClock) else None
        now = None if checked or clock is None else clock.now()
        sent = ServerClock.instant()
        own, every = self._audience()
        name, values = writes.statement(now, own, every=every)
        rows = await db.fetch(SQL[name], *values)
        if rows and clock is not None:
            clock.learn(rows[0][3], sent, clock.instant())
        told = writes.news({id: (unescape_some(owner), ready) for id, owner, ready, *_ in rows})
        news += told
        return {item.run for item in told}

    def _remember(self, known: Known) -> None:
        run = known.head.run
        if known.streams is None and run in self._known:
            known.streams = self._known[run].streams
        if known.head.ended is not None:
            self._known.pop(run, None)
            return
        self._known[run] = known
        self._known.move_to_end(run)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)


def _judge(
    requests: Sequence[Request],
    view: View,
    streams: Streams,
    now: int,
    answers: dict[int, Any],
    news: list[News],
) -> Writes:
    """Judge one after the other, each on what the ones before it have made of the view."""
    stored = {run: looked.known.head for run, looked in view.runs.items()}
    writes = Writes()
    for request in requests:
        if isinstance(request, Write):
            answers[id(request)] = streams.judge(request, view, now)
            continue
        if request.token is not None:
            # Its hook may have closed since it was looked up: while we waited, or by an append of this group.
            gone = resolve(request, view.tokens(request))
            if gone is not None:
                answers[id(request)] = gone
                continue
            if request.run not in view.runs:
                raise Collided
        found = view.find(request)
        try:
            verdict = judge(request, found, now)
        except Exception as error:  # noqa: BLE001 - the answer of this append alone
            answers[id(request)] = error
            continue
        answers[id(request)] = verdict.answer
        if verdict.rows:
            writes.add(request, verdict, stored.get(request.run))
            view.apply(request, verdict)
        elif found.batch is not None and found.head is not None:
            # Its answer was lost, and with it perhaps what it had to tell.
            head = found.head
            news.append(News(head.run, head.owner, True, head.ended is not None, head.ready))
    return writes
