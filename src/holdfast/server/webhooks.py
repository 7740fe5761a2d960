"""Webhooks: any HTTP request below `/webhooks/TOKEN` is a payload for the run that has this webhook open.

The token is generated, 128 bits, and is all that a sender needs; so this route stands beside the door of the API:
no caller's token, no check of names and origins (whoever knows the token may send, a page in a browser too). What
else is needed stands in the hook's schema (`webhooks.Terms`): how the sender is answered, and how its signature is
checked, before anything is delivered.

A request is durable before it is answered. Sent again under the same id of its sender it counts once, and is
answered as before, also when the run has ended since (law L3).

An answer goes out with a policy that makes it nobody's page: what a run says must not act in the name of this
server, which may trust its own pages.
"""

from __future__ import annotations

import asyncio
import logging
import os
from hashlib import blake2b

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from .. import webhooks
from ..codec import payload_type
from ..errors import HoldfastError, HookNotFound, RunNotFound
from ..ids import delivery_id, is_webhook_token
from ..store.base import Store
from ..store.succession import continued_as, succeed
from ..streams import Streams
from ..webhooks import Terms, response_stream
from .refusal import Refused, answer_to
from .service import Service
from .signatures import signed, signed_id

log = logging.getLogger("holdfast.server")

PREFIX = "/webhooks/"
_LEFT_OUT = frozenset({"authorization", "cookie", "proxy-authorization"})
"""Headers that let somebody in: they do not belong into a log."""
_IDS = ("webhook-id", "x-github-delivery", "idempotency-key")
"""Where senders say which delivery it is."""
_LONGEST_ID = 255
_NOBODYS_PAGE = {
    "content-security-policy": "sandbox; default-src 'none'",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}
_request = payload_type(webhooks.Request)


def routes() -> list[BaseRoute]:
    """The routes of webhooks, for every method."""
    return [Route(f"{PREFIX}{{token}}", _Endpoint()), Route(f"{PREFIX}{{token}}/{{rest:path}}", _Endpoint())]


class _Endpoint:
    """As an ASGI application, for Starlette asks nothing of its methods then."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        service = Service.of(request)
        try:
            response = await _take(service, request)
        except (HoldfastError, Refused) as error:
            response = answer_to(error)
        except ClientDisconnect:
            return  # before all of it had come: nothing was delivered
        response.headers.update(_NOBODYS_PAGE)
        if "www-authenticate" in response.headers:
            del response.headers[
                "www-authenticate"
            ]  # no password would help, so no browser is to ask for one
        await response(scope, receive, send)


async def _take(service: Service, request: Request) -> Response:
    """Check a request, deliver it, and answer as its webhook says. Raises Refused and errors of the store."""
    service.access.throttle(request)
    token = request.path_params["token"]
    terms = await _terms(service.store, token)
    headers = _headers(request)
    body = await _body(service, request)
    now = service.store.clock.now()
    if terms.verify is not None and not signed(
        terms.verify, _secrets(terms.verify), headers, body, now // 1_000_000
    ):
        log.info("a request to webhook %s… was not signed as it must be", token[:8])
        raise Refused(401, "signature", "the signature does not fit: nothing was delivered")
    known = _known_id(terms, headers, body)
    delivery = known or delivery_id()
    rest = request.path_params.get("rest")
    payload = _request.encode(
        webhooks.Request(
            id=delivery,
            method=request.method,
            path="" if rest is None else f"/{rest}",
            query_string=request.url.query,
            headers={name: value for name, value in headers.items() if name not in _LEFT_OUT},
            body=body,
        ),
        "request",
    )
    if len(payload) > service.app.payload_limit:
        raise _too_large(service.app.payload_limit)
    # The sender's id says that it is the same request: its headers (a time, a signature) may be new ones.
    digest = None if known is None else blake2b(known.encode(), digest_size=8).hexdigest()
    taken = await service.app.resume_raw(token, payload, delivery_id=delivery, digest=digest)
    if terms.respond == "manual":
        return _response(await _answer(service, taken.run_id, delivery))
    return _response(terms.respond)


async def _terms(store: Store, token: str) -> Terms:
    """What the webhook says of itself. Raises HookNotFound where the token is none's."""
    unknown = HookNotFound("no webhook is open here: it was closed, or never was")
    if not is_webhook_token(token):
        raise unknown
    # A run that continues again and again leaves a row behind each time: the open one is asked for by itself.
    hooks = await store.hooks(token=token, limit=1) or await store.hooks(token=token, open_only=False)
    newest = max(hooks, key=lambda hook: hook.opened, default=None)
    told = None if newest is None else (newest.schema or {}).get("webhook")
    if told is None:
        raise unknown
    return msgspec.convert(told, Terms)


def _headers(request: Request) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


async def _body(service: Service, request: Request) -> bytes:
    limit = service.app.payload_limit
    body = bytearray()
    try:
        async with asyncio.timeout(service.settings.webhook_timeout):
            async for part in request.stream():
                body += part
                if len(body) > limit:
                    raise _too_large(limit)
    except TimeoutError:
        raise Refused(
            408, "request_timeout", "the body did not come in time: nothing was delivered"
        ) from None
    return bytes(body)


def _too_large(limit: int) -> Refused:
    return Refused(
        413, "body_too_large", f"the request is over the limit of {limit:,} bytes, as it is recorded"
    )


def _secrets(verify: webhooks.Signature) -> list[str]:
    """The secrets; there may be several, while one replaces the other."""
    secrets = os.environ.get(verify.secret, "").split()
    if not secrets:
        log.error("webhooks: $%s, which holds a signing secret, is not set for this server", verify.secret)
        raise Refused(
            503,
            "secret_missing",
            "this server cannot check signatures for now: send it again",
            retry_after=60,
        )
    return secrets


def _known_id(terms: Terms, headers: dict[str, str], body: bytes) -> str | None:
    """The delivery's id, where its sender gave one; where requests are signed, the id of that scheme alone."""
    if terms.verify is not None:
        id = signed_id(terms.verify, headers, body)
    else:
        id = next((headers[name] for name in _IDS if headers.get(name)), None)
    if id and not (len(id) <= _LONGEST_ID and id.isprintable()):
        id = blake2b(id.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return id or None


async def _answer(service: Service, run: str, delivery: str) -> webhooks.Response:
    """What a step of the run gives to `request.respond`, once it does. Raises Refused."""
    answer = asyncio.ensure_future(_responded(service.store, run, delivery))
    closing = asyncio.ensure_future(service.closed.wait())
    try:
        await asyncio.wait(
            (answer, closing), timeout=service.settings.webhook_timeout, return_when=asyncio.FIRST_COMPLETED
        )
        if answer.done():
            return answer.result()
        if closing.done():
            raise Refused(503, "closing", "the server stops: send the same request again", retry_after=1)
        raise Refused(
            504,
            "no_response",
            "the run did not answer in time: the request is recorded, send it again to ask",
        )
    finally:
        answer.cancel()
        closing.cancel()
        await asyncio.gather(answer, closing, return_exceptions=True)


async def _responded(store: Store, run: str, delivery: str) -> webhooks.Response:
    """The first chunk of the response's stream, in the run or in the one that it continues as."""
    while True:
        async for chunk in Streams(store).read(run, response_stream(delivery)):
            return msgspec.convert(chunk.data, webhooks.Response)
        end = await store.end_of(run)
        if end is None:
            raise RunNotFound(f"no run {run!r}")  # not reached: a stream ends with its run
        if continued_as(end) is None:
            raise Refused(502, "no_response", "the run has ended and answered nothing")
        run = await succeed(store, run)


def _response(told: webhooks.Response) -> Response:
    response = Response(told.body, told.status)
    for name, value in told.headers.items():
        response.headers[name] = value
    return response
