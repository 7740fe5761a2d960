"""A connection that is made again when it is lost, and what is wrong in one line.

What fails is sorted once, here (`kind_of`): a lost connection and a server that is just going down or coming
up are waited for; a serialization failure or a deadlock is tried again at once; everything else is the answer.
Work that is tried again must bear it: appends do, by their batch ids (law L12).

Every error of the driver is translated here; nothing above the PostgreSQL backend knows it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from holdfast.errors import HoldfastError, PayloadError, StoreBroken, StoreError
from holdfast.store.queries import load_queries

try:
    import asyncpg
except ImportError as missing:
    raise StoreError(
        "postgresql:// needs the driver asyncpg: install it with `pip install 'holdfast[postgres]'`"
    ) from missing

T = TypeVar("T")
Connection = Any  # asyncpg's connection; the package has no types of its own
log = logging.getLogger("holdfast.store")

SQL = load_queries("postgres")
PATIENCE = 30.0
"""Seconds for which a server that was lost is waited for, and within which it must have answered."""
FOR_WRITING = {"enable_seqscan": "off"}
"""Settings of a connection that writes: a plan made for small tables would go on reading them whole."""
IDLE_IN_TRANSACTION = 5000
"""Milliseconds for which the server waits for the next statement of a transaction."""
_PAUSES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)
"""Seconds between attempts to connect again; the last one repeats."""

_LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    OSError,
    EOFError,
    TimeoutError,
)


class Collided(Exception):
    """Two writers met where no lock could be taken before (both created a run, say): the work is done again."""


_COLLIDED = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError, Collided)

Kind = Literal["lost", "collided", "final"]


def kind_of(error: BaseException) -> Kind:
    """What is to be done about an error: connect again, try again, or answer with it."""
    if isinstance(error, asyncpg.DataError | HoldfastError):
        return "final"
    if isinstance(error, asyncpg.InterfaceError):
        # The driver's word for misuse too, but ours are tested: what is left is a connection that is gone.
        return "lost"
    if isinstance(error, _LOST):
        return "lost"
    return "collided" if isinstance(error, _COLLIDED) else "final"


def translate(error: BaseException, where: str) -> BaseException:
    """The error as the contract knows it, in one line that says what to do."""
    if isinstance(error, HoldfastError) or not isinstance(error, Exception):
        return error
    if isinstance(error, asyncpg.DataError | UnicodeError | asyncpg.CharacterNotInRepertoireError):
        return PayloadError(f"names and payloads must be UTF-8 text ({_line(error)}): escape what is not")
    if isinstance(error, asyncpg.ProgramLimitExceededError):
        return PayloadError(
            f"a name is too long for an index of PostgreSQL ({_line(error)}): use a shorter one"
        )
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return StoreError(f"{where}: {_line(error)}: create it (CREATE DATABASE), or name another")
    if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError):
        return StoreError(f"{where}: {_line(error)}: check user and password")
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return StoreError(f"{where}: {_line(error)}: grant it, or connect as another user")
    if isinstance(error, asyncpg.UndefinedTableError | asyncpg.UndefinedColumnError):
        return StoreBroken(f"{where}: {_line(error)}: the schema `holdfast` was changed by hand")
    if isinstance(error, asyncpg.DiskFullError):
        return StoreError(
            f"{where}: the server's disk is full, nothing was stored: make room, then try again"
        )
    if kind_of(error) == "lost":
        return StoreError(f"{where} cannot be reached ({_line(error)}): check that the server runs")
    if isinstance(error, asyncpg.PostgresError):
        return StoreError(f"{where}: {type(error).__name__}: {_line(error)}")
    return error


def _line(error: BaseException) -> str:
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 300 else words[:300] + "…"


def shown(url: str) -> str:
    """The URL as messages show it: without its password, and without parameters that may hold one."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    user = parts.username
    return f"{parts.scheme}://{user + '@' if user else ''}{host}{parts.path}"


PLAN_AGAIN = 64
"""Pieces of work after which a connection forgets its plans; then after four times as many, and so on."""


class Line:
    """One connection, used by one piece of work at a time, made again when it is lost."""

    def __init__(
        self,
        url: str,
        where: str,
        *,
        settings: dict[str, str] | None = None,
        prepare: Callable[[Connection], Awaitable[None]] | None = None,
    ) -> None:
        self._url = url
        self._where = where
        self._settings = {
            "application_name": "holdfast",
            # Plans of these statements are tiny; compiling them is not.
            "jit": "off",
            # The same plan each time: planning these statements costs more than to run them. Those for which the
            # values matter (pages of large tables) are planned anew, see `plan_anew`. And all are now and then
            # (`PLAN_AGAIN`): for tables that were empty when a plan was made, it reads them from end to end.
            "plan_cache_mode": "force_generic_plan",
            "default_transaction_isolation": "read committed",
            "tcp_keepalives_idle": "10",
            "tcp_keepalives_interval": "5",
            "tcp_keepalives_count": "3",
            # Whoever stops in the middle (paused, or cut off) must not hold rows that others want.
            "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION),
            **(settings or {}),
        }
        self._prepare = prepare
        self._uses, self._plan_again_at = 0, PLAN_AGAIN
        self._lock = asyncio.Lock()
        self._connection: Connection = None
        self.pid = 0
        self.closed = False

    async def connect(self) -> None:
        """Connect now, once. Raises StoreError."""
        async with self._lock:
            try:
                await self._connected()
            except Exception as error:
                raise translate(error, self._where) from error

    async def run(self, work: Callable[[Connection], Awaitable[T]], *, resend: bool = True) -> T:
        """Do a piece of work, again where the server was lost or two collided.

        Without `resend`, work whose connection is lost is not done twice: whether it was done is unknown.
        Raises StoreError where the server does not come back, and what `work` raises.
        """
        begun, attempt = time.monotonic(), 0
        async with self._lock:
            while True:
                sent = False
                try:
                    async with asyncio.timeout(PATIENCE):
                        connection = await self._connected()
                        sent = True
                        return await work(connection)
                except BaseException as error:
                    await self._tidy(error)
                    kind = kind_of(error) if isinstance(error, Exception) else "final"
                    late = time.monotonic() - begun > PATIENCE or self.closed
                    if kind == "final" or late or (kind == "lost" and sent and not resend):
                        raise translate(error, self._where) from error
                    if kind == "lost" and attempt == 0:
                        log.info("%s: connection lost (%s), connecting again", self._where, _line(error))
                await asyncio.sleep(_PAUSES[min(attempt, len(_PAUSES) - 1)])
                attempt += 1

    async def fetch(self, name: str, *values: Any, resend: bool = True) -> list[Any]:
        """The rows of a named query."""
        return await self.run(lambda connection: connection.fetch(SQL[name], *values), resend=resend)

    async def close(self) -> None:
        """Disconnect."""
        self.closed = True
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            try:
                await connection.close(timeout=5)
            except Exception:  # noqa: BLE001 - an error at closing helps nobody
                connection.terminate()

    async def _connected(self) -> Connection:
        connection = self._connection
        if connection is None or connection.is_closed():
            if self.closed:
                raise StoreError(f"{self._where} is not open: use it inside `async with`")
            self._connection = None
            connection = await asyncpg.connect(
                self._url, server_settings=self._settings, max_cached_statement_lifetime=0, timeout=10
            )
            try:
                if self._prepare is not None:
                    await self._prepare(connection)
            except BaseException:
                connection.terminate()
                raise
            self._connection = connection
            self.pid = connection.get_server_pid()
        self._uses += 1
        if self._uses == self._plan_again_at:
            self._plan_again_at *= 4
            await connection.execute(SQL["plan_again"])
        return connection

    async def _tidy(self, error: BaseException) -> None:
        """Leave no connection behind that is in the middle of something."""
        connection = self._connection
        if connection is None:
            return
        lost = not isinstance(error, Exception) or kind_of(error) == "lost"
        if not lost and connection.is_in_transaction():
            try:
                await connection.execute(SQL["rollback"])
            except Exception:  # noqa: BLE001 - then it is lost as well
                lost = True
        if lost:
            self._connection = None
            with contextlib.suppress(Exception):
                connection.terminate()


async def prepare_writing(connection: Connection) -> None:
    """Make a connection that writes.

    Most of the time in which a server writes a megabyte of a stream is its compression, and PostgreSQL's own kind
    (pglz) takes several times as long as LZ4 for about the same size.
    """
    await connection.fetch(SQL["compress_quickly"])
