"""Presence across machines: the server knows when a process is gone, and the others ask it.

Guarantee: when a worker's process dies, another worker hears of it within a second, on whatever machine. A
worker that merely loses its connection and makes it again is not taken for dead. Nothing rests on either: a
worker that is declared dead wrongly finds out when it renews its lease, and the fence (L4) holds meanwhile.

What it rests on: the connection that reads holds an advisory lock, whose number stands in the worker's row. The
kernel closes the connections of a process that dies, the server ends the session, and the lock comes free.
Workers stand in a ring, and each waits on a connection of its own for the lock of the next. When it gets it, it
looks again after a moment: a worker that was only disconnected has written the number of its new session by
then. After the server itself was away, everybody has to come back, so the moment is longer. A cut network says
nothing; there the server's keepalive, or the lease, ends the session.

Rejected: asking every moment whether the lock is free (four statements a second from a worker that does
nothing); a wait without an end (a statement that lasts holds back what vacuum may remove); one lock for each
worker whatever its session (a new session would wait for the end of a lost one, behind those who watch).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from functools import partial

import asyncpg

from holdfast.errors import HoldfastError

from .connect import SQL, Connection, Line
from .hearing import HERE
from .text import escape, unescape

GRACE = 0.4
"""Seconds within which a worker that lost its connection has made it again."""
GRACE_OF_ALL = 5.0
"""The same where the server was away: then everybody comes back at once."""
TURN = 10.0
"""Seconds after which a wait is begun anew, with whoever is the next in the ring then."""


class Sessions:
    """The sessions by which the workers of one store are present, and those that they watch."""

    def __init__(self, reading: Line, connect: Callable[[], Line]) -> None:
        self._reading = reading
        self._connect = connect
        self._present: dict[str, int] = {}
        self._watches: dict[str, Line] = {}
        self._joined = asyncio.Event()
        self._waking: asyncio.Task[None] | None = None
        self._chance = random.SystemRandom()

    async def prepare(self, connection: Connection) -> None:
        """The reading connection was made (again): be present by it."""
        await notice_dead_clients(connection)
        for worker in self._present:
            await self._attend(connection, worker)

    async def attend(self, worker: str) -> None:
        """The worker is present by the reading connection; see the contract."""
        if worker not in self._present:
            self._present[worker] = 0
            await self._reading.run(lambda db: self._attend(db, worker))
            await self._reading.fetch("say", HERE)

    async def next_death(self, worker: str) -> str:
        """Wait until a worker is gone; see the contract. Who asks is present until its question is cancelled."""
        try:
            await self.attend(worker)
            if worker not in self._watches:
                self._watches[worker] = self._connect()
            return await self._watch(worker, self._watches[worker])
        except asyncio.CancelledError:
            self._present.pop(worker, None)
            watch = self._watches.pop(worker, None)
            if watch is not None:
                await watch.close()
            raise

    async def _watch(self, worker: str, watch: Line) -> str:
        while True:
            self._joined.clear()
            rows = await self._reading.fetch("neighbour", escape(worker))
            if not rows:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._joined.wait(), TURN)
                continue
            name, session = rows[0]
            before, after = watch.pid, await watch.run(partial(_released, session))
            if await self._gone(name, session):
                await asyncio.sleep(GRACE if before in (0, after) else GRACE_OF_ALL)
                if await self._gone(name, session):
                    return unescape(name)

    async def close(self) -> None:
        """Watch no more."""
        for watch in self._watches.values():
            await watch.close()

    def joined(self) -> None:
        """A worker has come: the next in the ring may be another one now."""
        self._joined.set()
        pids = [watch.pid for watch in self._watches.values() if watch.pid]
        if pids and self._waking is None:
            self._waking = asyncio.get_running_loop().create_task(self._wake(pids))

    async def _wake(self, pids: list[int]) -> None:
        try:
            with contextlib.suppress(HoldfastError):
                await self._reading.fetch("stop_waiting", pids)
        finally:
            self._waking = None

    async def _attend(self, connection: Connection, worker: str) -> None:
        session = self._present[worker] = self._chance.getrandbits(62)
        await connection.fetch(SQL["attend"], escape(worker), session)

    async def _gone(self, name: str, session: int) -> bool:
        return bool(await self._reading.fetch("is_gone", name, session))


async def notice_dead_clients(connection: Connection) -> None:
    """Let the server notice within a second that nobody waits for a statement any more, where its system can."""
    with contextlib.suppress(asyncpg.PostgresError):
        await connection.fetch(SQL["notice_dead_clients"])


async def prepare_watch(connection: Connection) -> None:
    """Make a connection that waits."""
    await notice_dead_clients(connection)
    await connection.fetch(SQL["limit_waits"], str(round(TURN * 1000)))


async def _released(session: int, watch: Connection) -> int:
    with contextlib.suppress(asyncpg.QueryCanceledError):  # just before it began to wait
        await watch.fetch(SQL["watch"], str(session))
        await watch.execute(SQL["await_release"])
    return int(watch.get_server_pid())
