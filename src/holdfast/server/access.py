"""Who may do what, and how much of it.

- A caller beyond this machine needs a token (`tokens.py`), as `Authorization: Bearer …`, or as the password of
  `Authorization: Basic …`, which is what a browser asks people for.
- A caller on this machine needs none, unless the settings say so. It counts as such only if its connection comes
  from a loopback address, it calls the server by a loopback name (a web page that rebinds its own name to
  127.0.0.1 does not), and no proxy says that it speaks for somebody else.
- A browser is refused what a page of another site makes it send: a request that changes anything and names an
  `Origin` must name this server's own, or one of the settings' origins.
- Every caller has a bucket of requests; who guesses at tokens has a very small one.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import time
from collections import OrderedDict
from urllib.parse import urlsplit

import msgspec
from starlette.requests import Request

from ..store.base import Store
from .refusal import Refused
from .settings import Settings
from .tokens import allows, recognise

_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
_GUESSES, _GUESSES_PER_SECOND = 10, 0.2
_MOST_CALLERS = 10_000


class Caller(msgspec.Struct, frozen=True):
    """Who calls: a token's id, or `local`; and what it may do."""

    name: str
    scope: str


class Access:
    """The door of one server."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._callers = _Buckets(settings.burst, settings.rate)
        self._guesses = _Buckets(_GUESSES, _GUESSES_PER_SECOND)

    async def admit(self, request: Request, scope: str) -> Caller:
        """The caller, if it may do what needs `scope`. Raises Refused."""
        self.check_host(request)
        self.check_origin(request)
        caller = await self._caller(request)
        if not allows(caller.scope, scope):
            raise Refused(
                403,
                "access_denied",
                f"this token has the scope {caller.scope}, and {scope} is needed for this",
            )
        return caller

    def throttle(self, request: Request) -> None:
        """Count a request that needs no token, by where it comes from. Raises Refused where there are too many."""
        self._callers.take(f"from {request.client.host if request.client is not None else ''}")

    async def _caller(self, request: Request) -> Caller:
        peer = request.client.host if request.client is not None else ""
        text = _token_of(request)
        if text is None:
            if self._settings.token_needed or not is_local(request):
                raise Refused(
                    401,
                    "access_denied",
                    "a token is needed: `holdfast token create --scope read` makes one; send it as "
                    "Authorization: Bearer …, or connect to http://TOKEN@host:port",
                )
            self._callers.take("local")
            return Caller("local", "work")
        self._guesses.check(peer)
        token = await recognise(self._store, text)
        if token is None:
            self._guesses.take(peer)
            raise Refused(
                401, "access_denied", "this token is not known here: it was revoked, or is of another store"
            )
        self._callers.take(token.id)
        return Caller(token.id, token.scope)

    def check_host(self, request: Request) -> None:
        """Refuse a call by a name that is not this server's. Raises Refused."""
        host = _name(request.headers.get("host", ""))
        known = {"localhost", self._settings.host, *self._settings.hosts}
        if host in known or _is_address(host):
            return
        if _is_loopback(self._settings.host) or self._settings.hosts:
            raise Refused(
                421,
                "host_not_allowed",
                f"this server is not called {host!r:.80}: see --allow-host",
            )

    def check_origin(self, request: Request) -> None:
        """Refuse what a page of another site makes a browser send. Raises Refused."""
        origin = request.headers.get("origin")
        if origin is None or request.method in ("GET", "HEAD", "OPTIONS") or origin in self._settings.origins:
            return
        if urlsplit(origin).netloc != request.headers.get("host", ""):
            raise Refused(
                403,
                "origin_not_allowed",
                f"a page of {origin!r:.80} may not do this: see --allow-origin",
            )


def is_local(request: Request) -> bool:
    """Whether the caller is on this machine, and says nothing else."""
    peer = request.client.host if request.client is not None else ""
    host = _name(request.headers.get("host", ""))
    forwarded = any(name in request.headers for name in _FORWARDED)
    return _is_loopback(peer) and _is_loopback(host) and not forwarded


def _token_of(request: Request) -> str | None:
    kind, _, value = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return value.strip()
    if kind.lower() == "basic":
        try:
            user, _, password = base64.b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return ""
        return password or user
    return None


def _name(host: str) -> str:
    """A Host header without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower().rstrip(".")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


class _Buckets:
    """A bucket of tokens for each caller, filled at a steady rate; none where the rate is 0."""

    def __init__(self, size: int, rate: float) -> None:
        self._size, self._rate = size, rate
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str) -> None:
        """One of the caller's requests. Raises Refused where it has none left."""
        if not self._rate:
            return
        left, now = self._now(name)
        if left < 1:
            self._refuse(left)
        self._left[name] = (left - 1, now)
        self._left.move_to_end(name)
        if len(self._left) > _MOST_CALLERS:
            self._left.popitem(last=False)

    def check(self, name: str) -> None:
        """Raises Refused where the caller has none left."""
        left, _ = self._now(name)
        if left < 1:
            self._refuse(left)

    def _now(self, name: str) -> tuple[float, float]:
        now = time.monotonic()
        left, then = self._left.get(name, (float(self._size), now))
        return min(self._size, left + (now - then) * self._rate), now

    def _refuse(self, left: float) -> None:
        wait = max(0.001, (1 - left) / self._rate)
        raise Refused(
            429,
            "too_many_requests",
            f"too many requests: wait {wait:.3g} s, and send fewer",
            retry_after=wait,
        )
