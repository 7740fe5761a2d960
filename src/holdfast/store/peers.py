"""News for the other processes on one SQLite file: a datagram socket for each process that listens.

    app.db-peers/4711-9f86d081.sock          one socket a listener; process 4711 receives here
    app.db-peers/4712-1b4f0e98.every.sock    a listener that follows logs: it is told of every commit

After a commit its writer sends the news to every socket in the folder: 20 to 40 µs, and the other process
wakes within a tenth of a millisecond, where polling costs two and a part of a core. Nothing rests on it: a
datagram that finds no room is dropped, for each worker also looks for work slowly (law L14: what is ready is
derived from the log). Sockets whose process is gone refuse, and are removed by whoever notices.

Rejected: inotify on the WAL (fires before the commit is visible), a named pipe (one reader takes it all),
polling `data_version` every 2 ms (1.6 % of a core, idle).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from .messages import News, NewsRow, news_row

LARGEST = 60_000
"""Bytes of a datagram; more news than fit go in several."""
_PATH_LIMIT = 107
"""Bytes that the path of a Unix socket may have."""
_EVERY = ".every.sock"
_SETTLED = 0.05
"""Seconds for which a folder is listed again though its time of change is the same: the kernel's clock for it
is coarse, so a second change right after the first can leave it as it is."""

_decode = msgspec.json.Decoder(list[NewsRow]).decode
_encode = msgspec.json.Encoder().encode


def datagrams(news: Sequence[News]) -> Iterable[bytes]:
    """The news as JSON, in as many parts as they need."""
    whole = _encode([news_row(item) for item in news])
    if len(whole) < LARGEST or len(news) == 1:
        yield whole
        return
    half = len(news) // 2
    yield from datagrams(news[:half])
    yield from datagrams(news[half:])


def read_datagram(raw: bytes) -> list[News]:
    """The reverse; what is not news (another version's, say) is none."""
    try:
        return [News(*fields) for fields in _decode(raw)]
    except msgspec.DecodeError:
        return []


class Peers:
    """The sockets beside one file: ours, if we listen, and those of the others."""

    def __init__(self, path: str) -> None:
        self.folder = Path(f"{path}-peers").absolute()
        self._listing = str(self.folder)
        self._own: str | None = None
        self._receiver: socket.socket | None = None
        self._sender: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._addresses: dict[str, str] = {}
        self._changed = -1
        self._settled = 0.0
        self._listed = False
        self._folder_fd: int | None = None

    # ---- receiving

    def listen(
        self, loop: asyncio.AbstractEventLoop, tell: Callable[[list[News]], None], *, every: bool = False
    ) -> None:
        """Receive from now on. Where that cannot be (no such sockets, read-only folder), polling remains."""
        if self._receiver is not None:
            if every:
                self._ask_for_every()
            return
        if not hasattr(socket, "AF_UNIX"):
            return
        name = f"{os.getpid()}-{secrets.token_hex(4)}{_EVERY if every else '.sock'}"
        receiver = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            address = self._address(name)
            if address is None:
                return
            receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            receiver.setblocking(False)
            receiver.bind(address)
            loop.add_reader(receiver, self._receive, tell)
        except (OSError, NotImplementedError):
            if receiver is not None:
                receiver.close()
            return
        self._own, self._receiver, self._loop = name, receiver, loop

    def _ask_for_every(self) -> None:
        own = str(self._own)
        if not own.endswith(_EVERY):
            name = own.removesuffix(".sock") + _EVERY
            with contextlib.suppress(OSError):
                (self.folder / own).rename(self.folder / name)
                self._own = name

    def _receive(self, tell: Callable[[list[News]], None]) -> None:
        news: list[News] = []
        assert self._receiver is not None
        with contextlib.suppress(OSError):  # BlockingIOError: that was all
            for _ in range(100):
                news += read_datagram(self._receiver.recv(1 << 18))
        if news:
            tell(news)

    # ---- sending

    def send(self, news: Iterable[News], every: Sequence[News] = ()) -> None:
        """Tell the others `news`, and those who asked for it `every`; never waits, never fails."""
        names = self._others()
        if not names:
            return
        if every:
            curious = [name for name in names if name.endswith(_EVERY)]
            self._send_all(every, curious)
            names = [name for name in names if name not in curious]
        if names and (told := list(news)):
            self._send_all(told, names)

    def _send_all(self, news: Sequence[News], names: Sequence[str]) -> None:
        if not names:
            return
        if self._sender is None:
            self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._sender.setblocking(False)
        for part in datagrams(news):
            for name in names:
                self._send(self._sender, part, name)

    def _send(self, sender: socket.socket, part: bytes, name: str) -> None:
        try:
            sender.sendto(part, self._addresses[name])
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:
                with contextlib.suppress(OSError):
                    (self.folder / name).unlink()

    def _others(self) -> list[str]:
        try:
            changed = os.stat(self._listing).st_mtime_ns  # noqa: PTH116 - pathlib costs five times as much
            now = time.monotonic()
            if changed != self._changed:
                self._changed, self._settled = changed, now + _SETTLED
            if now < self._settled or not self._listed:
                self._listed = now >= self._settled
                names = (f.name for f in self.folder.glob("*.sock") if f.name != self._own)
                addresses = {name: self._address(name) for name in names}
                self._addresses = {
                    name: address for name, address in addresses.items() if address is not None
                }
        except OSError:
            self._addresses = {}
        return list(self._addresses)

    def _address(self, name: str) -> str | None:
        """The socket's path, where it is too long by way of the open folder; None where there is no way."""
        path = str(self.folder / name)
        if len(os.fsencode(path)) <= _PATH_LIMIT:
            return path
        if not Path("/proc/self/fd").is_dir():
            return None
        if self._folder_fd is None:
            self._folder_fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        return f"/proc/self/fd/{self._folder_fd}/{name}"

    # ----

    def close(self) -> None:
        """Stop receiving, and leave nothing behind."""
        if self._receiver is not None and self._loop is not None:
            self._loop.remove_reader(self._receiver)
            self._receiver.close()
            with contextlib.suppress(OSError):
                (self.folder / str(self._own)).unlink()
            with contextlib.suppress(OSError):  # others are still there
                self.folder.rmdir()
        if self._sender is not None:
            self._sender.close()
        if self._folder_fd is not None:
            os.close(self._folder_fd)
        self._receiver = self._sender = self._loop = self._own = self._folder_fd = None
        self._listed = False
