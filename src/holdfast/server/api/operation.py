"""What an operation of the API is: said once, as a decorator, for the route and for the OpenAPI document.

    @operation("GET", "/v1/runs/{run}", scope="read", gives=Run, errors=(RunNotFound,))
    async def info(call: Call[None, None]) -> Run:
        "A run as it stands."

The request is checked against its types before the function is called; what it returns is the answer, and what
it raises is answered in the one form of errors.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar, Union, get_args, get_origin, get_type_hints
from urllib.parse import unquote

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from ...errors import HoldfastError, PayloadError
from ...store.http.wire.encoding import decoder, encode
from ..access import Caller
from ..refusal import Refused, answer_to
from ..service import Service

log = logging.getLogger("holdfast.server")

B = TypeVar("B")
Q = TypeVar("Q")
KEY_LIMIT = 255


class Call(Generic[B, Q]):
    """One request, checked: who calls, where, and with what."""

    __slots__ = ("_path", "body", "caller", "query", "request", "service")

    def __init__(
        self, service: Service, request: Request, caller: Caller, path: dict[str, str], query: Q, body: B
    ) -> None:
        self.service = service
        self.request = request
        self.caller = caller
        self.query = query
        self.body = body
        self._path = path

    def path(self, name: str) -> str:
        """A parameter of the path."""
        return self._path[name]

    @property
    def key(self) -> str | None:
        """The `Idempotency-Key`: the same key says that it is the same request, sent again."""
        key = self.request.headers.get("idempotency-key")
        if key is not None and not (1 <= len(key) <= KEY_LIMIT and key.isprintable()):
            raise PayloadError(
                f"Idempotency-Key: expected 1–{KEY_LIMIT} printable characters, got {key!r:.80}"
            )
        return key


class Reply(msgspec.Struct):
    """An answer with a status of its own."""

    status: int
    value: Any


Handler = Callable[[Call[Any, Any]], Awaitable[Any]]


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """An operation, as its decorator says."""

    method: str
    path: str
    scope: str
    handler: Handler
    takes: Any = None
    query: Any = None
    gives: Any = None
    also: dict[int, Any] = {}
    media: tuple[str, ...] = ("application/json",)
    errors: tuple[type[HoldfastError], ...] = ()
    keyed: bool = False

    @property
    def name(self) -> str:
        """Its name: that of its function."""
        return self.handler.__name__.lstrip("_")


OPERATIONS: list[Operation] = []


def operation(method: str, path: str, **options: Any) -> Callable[[Handler], Handler]:
    """Make a function an operation of the API; see `Operation` for the options."""

    def add(handler: Handler) -> Handler:
        OPERATIONS.append(Operation(method=method, path=path, handler=handler, **options))
        return handler

    return add


def route_of(operation: Operation) -> Route:
    """The route that checks, calls and answers."""
    read = None if operation.takes is None else decoder(operation.takes)
    names = [part[1:-1] for part in operation.path.split("/") if part.startswith("{")]
    keyed = {"POST", "PUT", "DELETE", "PATCH"}

    async def endpoint(request: Request) -> Response:
        service = Service.of(request)
        try:
            caller = await service.access.admit(request, operation.scope)
            path = {name: _unquoted(request.path_params[name], name) for name in names}
            query = None if operation.query is None else read_query(request, operation.query)
            body = None
            if read is not None:
                body = read(await read_body(request, service.settings.body_limit))
            elif operation.method in keyed:
                await read_body(request, service.settings.body_limit, needed=False)
            answer = await operation.handler(Call(service, request, caller, path, query, body))
        except (HoldfastError, Refused) as error:
            return stamped(answer_to(error), service)
        except (OverflowError, UnicodeEncodeError) as error:
            told = PayloadError(f"a number or a text that no store can hold: {error}")
            return stamped(answer_to(told), service)
        except ClientDisconnect:
            return Response(status_code=499)
        return stamped(_response(answer), service)

    return Route(operation.path, endpoint, methods=[operation.method], name=operation.name)


def stamped(response: Response, service: Service) -> Response:
    """With the server's time, by which workers elsewhere set their clocks."""
    response.headers["Holdfast-Now"] = str(service.store.clock.now())
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def _response(answer: Any) -> Response:
    if isinstance(answer, Response):
        return answer
    if isinstance(answer, Reply):
        return Response(encode(answer.value), answer.status, media_type="application/json")
    return Response(encode(answer), media_type="application/json")


async def read_body(request: Request, limit: int, *, needed: bool = True) -> bytes:
    """The body, if it is JSON and no larger than may be. Raises Refused."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit:
        raise _too_large(limit)
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit:
            raise _too_large(limit)
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if (needed or body) and media != "application/json":
        raise Refused(415, "media_type", f"expected Content-Type: application/json, got {media!r:.80}")
    return bytes(body)


def _too_large(limit: int) -> Refused:
    return Refused(413, "body_too_large", f"the body is over the limit of {limit:,} bytes: send less at once")


def read_query(request: Request, kind: Any) -> Any:
    """The query as a struct. Raises PayloadError."""
    given = {}
    for name, hint in parameters(kind).items():
        values = request.query_params.getlist(name)
        several = get_origin(hint) is list
        if len(values) > 1 and not several:
            raise PayloadError(f"query: {name}: expected one value, got {len(values)}")
        if values:
            try:
                given[name] = msgspec.convert(values if several else values[0], hint, strict=False)
            except msgspec.ValidationError as error:
                raise PayloadError(f"query: {name}: {str(error)[:1].lower()}{str(error)[1:]}") from None
    return kind(**given)


@functools.cache
def parameters(kind: Any) -> dict[str, Any]:
    """The parameters of a query with their types, without None: a query leaves out, it knows no null."""
    hints = get_type_hints(kind, include_extras=True)
    return {name: _without_none(hint) for name, hint in hints.items()}


def _without_none(hint: Any) -> Any:
    kinds = [kind for kind in get_args(hint) if kind is not type(None)]
    return Union[tuple(kinds)] if type(None) in get_args(hint) else hint  # noqa: UP007 - made at run time


def _unquoted(text: str, name: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise PayloadError(f"{name}: expected UTF-8, percent-encoded, got {text!r:.80}") from None
