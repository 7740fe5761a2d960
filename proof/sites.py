"""Where the runs of a simulated world are, if not in memory: in a SQLite file, in a PostgreSQL database.

The same seeds, workers, clients and troubles; the store is the real one. Each call of it waits for its turn, which
the seed gives: whoever else is on his way arrives before it or after it, and what arrives is done whole before the
next one is let in. So each interleaving of calls can be forced, and is repeated by its seed. How durable the
commits are is not looked at here (`synchronous=off`), nor what two servers' processes do at once inside a call:
storms and chaos are for that.

Each process has connections of its own, as it has in a deployment, and remembers for itself what it has seen of a
run. News go to others as they do there: SQLite's are those that a worker would send, PostgreSQL's what its server
tells (LISTEN), with the troubles that befall news in a simulated world.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from backends import Elsewhere

from holdfast.clock import Clock
from holdfast.errors import StoreError
from holdfast.events import Event
from holdfast.queues import Queue
from holdfast.store import open_store
from holdfast.store.base import Store
from holdfast.store.group import Answers, Item
from holdfast.store.memory import Data
from holdfast.store.memory.data import Run
from holdfast.store.messages import Listener, News
from holdfast.store.postgres.appends import Audience
from holdfast.store.postgres.appends import GroupWriter as PostgresWriter
from holdfast.store.postgres.connect import Line
from holdfast.store.postgres.hearing import CHANNEL, read_news
from holdfast.store.postgres.store import PostgresStore, _request
from holdfast.store.queued import Queued, Taken
from holdfast.store.rows import Claim, Hook, TakenUp, WorkerRow
from holdfast.store.sqlite import SqliteStore
from holdfast.store.sqlite.appends import GroupWriter as SqliteWriter
from holdfast.store.sqlite.connect import close, connect
from holdfast.testing.simulation.store import Distant, tell_all
from holdfast.testing.simulation.world import World

T = TypeVar("T")
ALL = 1 << 30
HELD = """SELECT r.run, s.key, s.queue, s.limit_key, s.holder
FROM {schema}steps s JOIN {schema}runs r ON s.run = r.{row} WHERE s.queue IS NOT NULL"""


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """What a coroutine comes to that waits for nobody."""
    while True:
        try:
            work.send(None)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]


def look(store: Store, held: Sequence[Sequence[Any]], before: Data | None) -> Data:
    """All that is stored, in the form of the memory store; logs that have not grown since are not read again."""
    data = Data()
    for head in reversed(at_once(store.runs(limit=ALL))):
        run = data.runs[head.run] = Run(head)
        known = None if before is None else before.runs.get(head.run)
        same = known is not None and known.head.chain == head.chain
        run.log = known.log if known is not None and same else at_once(store.read(head.run))
        run.steps = {step.key: (step.attempt, step.due) for step in at_once(store.open_steps(head.run))}
        run.timers = {timer.key: timer.due for timer in at_once(store.timers(run=head.run, limit=ALL))}
    for run_id, key, queue, limit_key, holder in held:
        data.runs[run_id].queued[key] = Queued(queue, limit_key, 0, 0, 0)
        if holder is not None:
            data.runs[run_id].holders[key] = holder
    data.orphaned = {child.run: data.runs[child.run] for child in at_once(store.orphans(ALL))}
    data.workers = {row.id: row for row in at_once(store.workers())}
    return data


# ---- SQLite


class InFile(SqliteStore):
    """A handle on the file whose connections outlive it, and that hears of others by its world alone."""

    presence_folder = None

    def use(self, connections: Any) -> Any:
        self.presence_folder = None
        writer, self._reader = connections
        self._writer = SqliteWriter(writer, self.path, self.clock)
        return self

    async def open(self) -> None:
        self.opened()

    async def close(self) -> None:
        await self.drain()

    def listen(self, listener: Listener, *, every: bool = False) -> Callable[[], None]:
        return Store.listen(self, listener, every=every)


class DistantFile(Distant, InFile):
    """What a process sees of the file."""

    def for_others(self, news: Sequence[News]) -> list[News]:
        return list(filter(self._concerns_others, news))


class PlainFile(InFile):
    """The file itself."""

    handles: Sequence[Distant]

    def tell_others(self, news: Sequence[News]) -> None:
        tell_all(self.handles, news)


class SqliteSite:
    """A file; `emptied` gives it for the next world."""

    def __init__(self, folder: Path) -> None:
        self._path = str(folder / "simulated.db")
        self._connections: list[Any] = []
        self._used = 0
        self._seen: Data | None = None
        self._looked = self._next()
        self._version = 0

    def _next(self) -> Any:
        if self._used == len(self._connections):
            self._connections.append(connect(self._path, 0))
            self._connections[-1][0].pragma("synchronous", "off")
        self._used += 1
        return self._connections[self._used - 1]

    def emptied(self) -> SqliteSite:
        self._used, self._seen = 1, None
        db = self._looked[0]
        for (table,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
            if table != "migrations":
                db.execute(f"DELETE FROM {table}")
        return self

    def close(self) -> None:
        for connections in self._connections:
            close(list(connections))

    def store(self, world: World, clock: Clock, name: str) -> Distant:
        handle: Distant = DistantFile(f"sqlite:///{self._path}", clock).join(world, name)
        handle.use(self._next())  # type: ignore[attr-defined]
        return handle

    def plain(self, world: World | None = None, clock: Clock | None = None) -> Store:
        plain: Any = PlainFile(f"sqlite:///{self._path}", clock).use(self._looked)
        plain.handles = [] if world is None else world.handles
        return plain  # type: ignore[no-any-return]

    @property
    def data(self) -> Data:
        reader = self._looked[1]
        version = reader.pragma("data_version")
        if self._seen is None or version != self._version:
            held = reader.execute(HELD.format(schema="", row="row")).fetchall()
            self._seen, self._version = look(self.plain(), held, self._seen), version
        return self._seen


# ---- PostgreSQL


class NearLine:
    """A connection whose work is done when the call comes back."""

    def __init__(self, elsewhere: Elsewhere, line: Line) -> None:
        self._elsewhere, self._line, self.pid = elsewhere, line, 0

    async def run(self, work: Any, *, resend: bool = True) -> Any:
        return self._elsewhere.do(self._line.run(work, resend=resend))

    async def fetch(self, name: str, *values: Any, resend: bool = True) -> Any:
        return self._elsewhere.do(self._line.fetch(name, *values, resend=resend))


class InDatabase(PostgresStore):
    """A handle on the database whose connections outlive it, and that hears of others by its world alone."""

    def use(self, lines: Any) -> Any:
        self._writing, self._reading = lines
        self._writer = PostgresWriter(self._writing, self.where, self.clock, self._audience)
        return self

    async def open(self) -> None:
        self.opened()

    async def close(self) -> None:
        await self.drain()

    def _audience(self) -> Audience:
        return Audience(tuple(self._enlisted), False)

    def listen(self, listener: Listener, *, every: bool = False) -> Callable[[], None]:
        return Store.listen(self, listener, every=every)

    async def attend(self, worker: str) -> None:
        pass

    async def next_death(self, worker: str) -> str:
        return await Store.next_death(self, worker)

    def commit_group(self, group: Sequence[Item]) -> tuple[Answers, list[News]]:
        return at_once(self._writer.commit([_request(item) for item in group]))


class DistantDatabase(Distant, InDatabase):
    """What a process sees of the database. Who owns what is settled by statements of their own there."""

    site: PostgresSite

    def for_others(self, news: Sequence[News]) -> list[News]:
        return self.site.told()

    async def _do(self, what: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        world = self._world
        fate = world.befalls(self._name, what)
        there, back = world.travel(fate), world.travel(None)
        if fate == "crash before":
            world.crash_soon(self._name)
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(there)
        if fate in ("refused", "lost") or world.down:
            raise StoreError("the store cannot be reached")
        try:
            result = await work()
        finally:
            world.note(f"{self._name}: {what}")
            self._spread([])
        if fate == "crash after":
            world.crash_soon(self._name)
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(back)
        if fate == "unanswered":
            raise StoreError("the connection was lost")
        return result

    async def take_up(self, run_id: str) -> TakenUp:
        ask = super().take_up
        return await self._ask("take_up", lambda: ask(run_id))

    async def catch_up(self, run_id: str, after: int) -> list[Event]:
        ask = super().catch_up
        return await self._ask("catch_up", lambda: ask(run_id, after))

    async def end_of(self, run_id: str) -> Event | None:
        ask = super().end_of
        return await self._ask("end_of", lambda: ask(run_id))

    async def receiver(self, token: str) -> Hook | None:
        ask = super().receiver
        return await self._ask("receiver", lambda: ask(token))

    async def enlist(self, worker: WorkerRow) -> None:
        ask = super().enlist
        await self._do("enlist", lambda: ask(worker))

    async def discharge(self, worker: str) -> None:
        ask = super().discharge
        await self._do("discharge", lambda: ask(worker))

    async def claim(self, worker: str, workflows: Sequence[str], **more: Any) -> list[Claim]:
        ask = super().claim
        return await self._do("claim", lambda: ask(worker, workflows, **more))

    async def release(self, worker: str, marks: Mapping[str, int]) -> None:
        ask = super().release
        await self._do("release", lambda: ask(worker, marks))

    async def park(self, run_id: str, reason: str | None) -> None:
        ask = super().park
        await self._do("park", lambda: ask(run_id, reason))

    async def crashed(self, run_id: str) -> int:
        ask = super().crashed
        return await self._do("crashed", lambda: ask(run_id))

    async def bury_orphan(self, run_id: str, key: str) -> None:
        ask = super().bury_orphan
        await self._do("bury_orphan", lambda: ask(run_id, key))

    async def take_steps(
        self, worker: str, queues: Sequence[Queue], steps: Sequence[str], room: int
    ) -> Taken:
        ask = super().take_steps
        return await self._do("take_steps", lambda: ask(worker, queues, steps, room))

    async def put_back(self, worker: str, steps: Sequence[tuple[str, str]]) -> None:
        ask = super().put_back
        await self._do("put_back", lambda: ask(worker, steps))


class PlainDatabase(InDatabase):
    """The database itself."""

    site: PostgresSite
    handles: Sequence[Distant]

    async def discharge(self, worker: str) -> None:
        await super().discharge(worker)
        tell_all(self.handles, self.site.told())


class PostgresSite:
    """A database; `emptied` gives it for the next world."""

    def __init__(self, url: str) -> None:
        self._url, self._elsewhere, self._used = url, Elsewhere(), 0
        self._lines: list[tuple[NearLine, NearLine]] = []
        self._said: list[str] = []
        self._seen: Data | None = None
        self._elsewhere.do(self._prepare())
        self._looked = self._next()
        self._hearing = Line(url, "here")
        self._elsewhere.do(self._hearing.run(lambda db: db.add_listener(CHANNEL, self._heard)))

    async def _prepare(self) -> None:
        async with open_store(self._url):
            pass

    def _heard(self, _connection: Any, _pid: int, _channel: str, payload: str) -> None:
        self._said.append(payload)

    def _next(self) -> tuple[NearLine, NearLine]:
        if self._used == len(self._lines):
            settings = {"synchronous_commit": "off"}
            both = (Line(self._url, "here", settings=settings) for _ in range(2))
            self._lines.append(tuple(NearLine(self._elsewhere, line) for line in both))  # type: ignore[arg-type]
        self._used += 1
        return self._lines[self._used - 1]

    def _run(self, text: str, how: str = "fetch") -> Any:
        return at_once(self._looked[1].run(lambda db: getattr(db, how)(text)))

    def told(self) -> list[News]:
        """What the server has told since this was last asked: a listener who asks something is told all first."""
        self._elsewhere.do(self._hearing.run(lambda db: db.execute("SELECT 1")))
        self._seen = None if self._said else self._seen
        said, self._said = self._said, []
        return [news for payload in said for news in read_news(payload)]

    def emptied(self) -> PostgresSite:
        self._used, self._seen = 1, None
        tables = self._run("SELECT tablename FROM pg_tables WHERE schemaname = 'holdfast'")
        self._run(
            "; ".join(f"DELETE FROM holdfast.{name}" for (name,) in tables if name != "migrations"), "execute"
        )
        self.told()
        return self

    def close(self) -> None:
        for line in (line for lines in self._lines for line in lines):
            self._elsewhere.do(line._line.close())
        self._elsewhere.do(self._hearing.close())
        self._elsewhere.close()

    def store(self, world: World, clock: Clock, name: str) -> Distant:
        handle: Any = DistantDatabase(self._url, clock).join(world, name)
        handle.site = self
        handle.use(self._next())
        return handle  # type: ignore[no-any-return]

    def plain(self, world: World | None = None, clock: Clock | None = None) -> Store:
        plain: Any = PlainDatabase(self._url, clock).use(self._looked)
        plain.site, plain.handles = self, [] if world is None else world.handles
        plain._closed = False
        return plain  # type: ignore[no-any-return]

    @property
    def data(self) -> Data:
        held = self._run(HELD.format(schema="holdfast.", row="id"))
        self._seen = look(self.plain(), held, self._seen)
        return self._seen
