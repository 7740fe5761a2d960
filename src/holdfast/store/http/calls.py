"""Requests to a server, each sent again where that is safe, until it is answered or patience is at its end.

A request that never reached the server may always be sent again. One whose answer was lost may have been carried
out (law L12): it is sent again only where doing it twice is doing it once. Appends are, by their batch ids.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlsplit, urlunsplit

import aiohttp
from yarl import URL

from holdfast.clock import Clock
from holdfast.errors import HoldfastError, StoreError

from .wire.encoding import decoder, encode
from .wire.problems import Problem, error_of

T = TypeVar("T")

PATIENCE = 10.0
"""Seconds for which a request is sent again before StoreError says that the server does not answer."""
_FIRST, _MOST = 0.02, 0.5
_LARGE = 1 << 20
"""Bytes from which on a body is sent in parts, so that the loop goes on meanwhile."""
_LOST = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, asyncio.TimeoutError, OSError)
_read_problem = decoder(Problem)


class Calls:
    """The connections to one server."""

    def __init__(self, url: str, clock: Clock) -> None:
        self.url, self._token = _address(url)
        self.offset: int | None = None
        """How far (µs) the server's clock is ahead of ours, by the answer that says it most exactly."""
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._exactly = 0

    async def open(self) -> None:
        """Make ready to connect."""
        headers = {} if self._token is None else {"Authorization": f"Bearer {self._token}"}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=32),
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=60),
            auto_decompress=False,
        )

    async def close(self) -> None:
        """Close every connection."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def ask(self, path: str, question: object, read: Callable[[bytes], T], *, again: bool = True) -> T:
        """The answer to a question. `again` says that it may be asked twice.

        Raises the error that the server met, and StoreError where it does not answer.
        """
        return read(await self.send(path, encode(question), again=again))

    async def send(self, path: str, body: bytes, *, again: bool = True, patience: float = PATIENCE) -> bytes:
        """The answer to one request, as it came."""
        loop = asyncio.get_running_loop()
        delay, end = _FIRST, loop.time() + patience
        while True:
            wait = delay
            try:
                status, answer = await self._once(path, body)
            except _LOST as error:
                if not again and not isinstance(error, aiohttp.ClientConnectorError):
                    raise StoreError(
                        f"{self.url}: the connection broke before the answer came ({_said(error)}): "
                        "whether it was done is not known"
                    ) from error
                failure = StoreError(
                    f"{self.url} does not answer ({_said(error)}): is `holdfast serve` running?"
                )
                failure.__cause__ = error
            else:
                if status < 300:
                    return answer
                problem = self._problem(status, answer)
                if problem.code != "too_many_requests":
                    raise error_of(problem)
                wait, failure = problem.retry_after or delay, StoreError(problem.message)
            if loop.time() + wait > end:
                raise failure
            await asyncio.sleep(wait)
            delay = min(delay * 2, _MOST)

    async def _once(self, path: str, body: bytes) -> tuple[int, bytes]:
        before = self._clock.now()
        headers = {"Content-Type": "application/json"}
        data = body if len(body) < _LARGE else io.BytesIO(body)
        async with self._open_session.post(
            self._at(path),
            data=data,
            headers=headers,
            allow_redirects=False,
        ) as response:
            answer = await response.read()
            self._look_at_clock(before, response)
            return response.status, answer

    def stream(
        self, path: str, headers: dict[str, str]
    ) -> contextlib.AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """A GET whose answer is read as it comes; 45 s of silence end it."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=45)
        return self._open_session.get(self._at(path), headers=headers, timeout=timeout, allow_redirects=False)

    def _at(self, path: str) -> URL:
        return URL(f"{self.url}/v1/{path}", encoded=True)

    @property
    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise StoreError(f"{self.url} is not open: use it inside `async with`")
        return self._session

    def _problem(self, status: int, answer: bytes) -> Problem:
        try:
            return _read_problem(answer)
        except HoldfastError:
            return Problem("store", f"{self.url} answered {status}, and not as `holdfast serve` does")

    def _look_at_clock(self, before: int, response: aiohttp.ClientResponse) -> None:
        """Learn the server's time; the quicker the answer, the more exactly it tells."""
        told = response.headers.get("Holdfast-Now", "")
        if not told.isdecimal():
            return
        after = self._clock.now()
        took = max(after - before, 0)
        if self.offset is None or took <= self._exactly:
            self.offset, self._exactly = int(told) - (before + after) // 2, took
        else:
            self._exactly += took // 50  # clocks drift: what was exact is less so with each answer


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _address(url: str) -> tuple[str, str | None]:
    """A URL without its token, and the token: `http://TOKEN@host:port`, else $HOLDFAST_TOKEN."""
    parts = urlsplit(url)
    if not parts.hostname:
        raise StoreError(f"{url!r} names no server: write http://host:port or https://host:port")
    host = parts.netloc.rpartition("@")[2]
    token = parts.password or parts.username or os.environ.get("HOLDFAST_TOKEN") or None
    return urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", "")), token
