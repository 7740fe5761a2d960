"""Webhooks: hooks with a URL of their own, to which any HTTP request is a payload.

What a webhook is stands whole in its `hook_opened`: beside the type of its payloads the schema has the `Terms`
(URL, how senders are answered, how their signature is checked). So the server needs no code of the workflow, and
whoever replays the log finds the URL that the code was given then, whatever the address is today.

The token comes of the run's seed and of how many webhooks the run has opened: the same on replay, and not to be
guessed by whoever does not know the seed. Rejected: a random token from a step, which costs a step, and of which a
retry would make a second one.
"""

from __future__ import annotations

import functools
import json
import re
from typing import Any, Literal

import msgspec

from .errors import DefinitionError, PayloadError
from .publish import Stream
from .runtime import Hook, inside

Scheme = Literal["github", "stripe", "standard-webhooks"]
SCHEMES: tuple[Scheme, ...] = ("github", "stripe", "standard-webhooks")
PUBLIC_URL = "http://127.0.0.1:8470"
"""Where webhooks are reached, unless the worker says otherwise: `holdfast serve` as it listens by itself."""
MOST_RECORDED = 64 * 1024
"""Bytes of the body of a response that is set when the webhook is opened."""

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_ENVIRONMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FRAMING = frozenset({"connection", "content-length", "keep-alive", "transfer-encoding", "upgrade"})
_ANSWER = "response"
"""The key of the one chunk of a response's stream: what is answered first holds."""


class Response(msgspec.Struct, frozen=True):
    """An answer to a request: status, headers, body.

    Raises DefinitionError where it is none that HTTP could carry.

    Example:
        hf.Response.json({"ok": True}), hf.Response.text("thanks", status=201), hf.Response(204)
    """

    status: int = 200
    headers: dict[str, str] = {}
    body: bytes = b""

    def __post_init__(self) -> None:
        if not 200 <= self.status <= 599:
            raise DefinitionError(f"response status: expected 200–599, got {self.status}")
        if self.body and self.status in (204, 205, 304):
            raise DefinitionError(f"response: a {self.status} has no body")
        for name, value in self.headers.items():
            if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
                raise DefinitionError(
                    f"response header: not one that HTTP can carry: {name!r}: {value!r:.80}"
                )
            if name.lower() in _FRAMING:
                raise DefinitionError(f"response header {name!r} is the server's own to set: leave it out")

    @classmethod
    def text(cls, text: str, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
        """Plain text."""
        return cls(status, {"content-type": "text/plain; charset=utf-8", **(headers or {})}, text.encode())

    @classmethod
    def json(cls, value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
        """A value as JSON."""
        return cls(
            status, {"content-type": "application/json", **(headers or {})}, msgspec.json.encode(value)
        )


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """An HTTP request that came for a webhook, as workflow code and steps get it.

    `path` is what follows the token in the URL ('' or '/…'), `query_string` what follows the '?', as sent. Names
    of headers are in lower case; those that let somebody in elsewhere (`authorization`, `cookie`) are left out.
    `id` is the delivery's: the sender's own where it gave one, so that a request that is sent again counts once.
    `run` is the run that has read it.
    """

    id: str = ""
    method: str = "POST"
    path: str = ""
    query_string: str = ""
    headers: dict[str, str] = {}
    body: bytes = b""
    run: str = ""

    @property
    def query(self) -> dict[str, str]:
        """The query's parameters; of one that comes several times, the last."""
        from urllib.parse import parse_qsl

        return dict(parse_qsl(self.query_string, keep_blank_values=True))

    def text(self) -> str:
        """The body as UTF-8 text. Raises PayloadError."""
        try:
            return self.body.decode()
        except UnicodeDecodeError as error:
            raise PayloadError(f"request {self.id}: the body is no UTF-8 text: {error}") from None

    def json(self) -> Any:
        """What the body's JSON says. Raises PayloadError."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise PayloadError(f"request {self.id}: the body is no JSON: {error}") from None

    async def respond(self, response: Response) -> None:
        """Answer the sender of a webhook that was opened with `respond="manual"`: in a step, or in workflow code.

        It is durable when this returns. The first answer holds: one by a step's next attempt changes nothing. A
        sender that has gone gets it when it sends the same request again. Raises RunEnded where the run that read
        the request has ended.

        Example:
            @hf.step
            async def answer(request: hf.Request, total: int) -> None:
                await request.respond(hf.Response.json({"total": total}))
        """
        stream = self._stream()
        await stream.write(msgspec.to_builtins(response), key=_ANSWER)
        await stream.flush()

    def respond_sync(self, response: Response) -> None:
        """`respond`, in a sync step."""
        stream = self._stream()
        stream.write_sync(msgspec.to_builtins(response), key=_ANSWER)
        stream.flush_sync()

    def _stream(self) -> Stream:
        if not self.run:
            raise DefinitionError(
                "this request came for no webhook: only a run that waits for one can answer"
            )
        return Stream(response_stream(self.id), self.run)


def response_stream(delivery: str) -> str:
    """The name of the stream, of the run that reads a request, in which its response stands."""
    from hashlib import blake2b  # takes 2 ms, and few who import this get requests

    return f"webhook.{blake2b(delivery.encode(), digest_size=16).hexdigest()}"


class Signature(msgspec.Struct, frozen=True):
    """How requests are signed: by GitHub, by Stripe, or by the rules of standardwebhooks.com.

    `secret` is the *name* of an environment variable of the server, which holds the secret (or several, with
    spaces between, while one replaces the other). The secret itself is never recorded. Signatures with a time
    (Stripe, Standard Webhooks) hold for `tolerance` seconds.

    Example:
        hf.Signature("github", secret="GITHUB_WEBHOOK_SECRET")
    """

    scheme: Scheme
    secret: str
    tolerance: int = 300

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise DefinitionError(f"signature: expected one of {', '.join(SCHEMES)}, got {self.scheme!r}")
        if not _ENVIRONMENT.fullmatch(self.secret):
            raise DefinitionError(
                "signature secret: expected the name of an environment variable, such as GITHUB_WEBHOOK_SECRET; "
                "what was given is none, and is not repeated here in case it is the secret itself"
            )


class Terms(msgspec.Struct, frozen=True):
    """What `hook_opened` says of a webhook, under `webhook` in its schema."""

    url: str = ""
    respond: Response | Literal["manual"] = Response(202)
    verify: Signature | None = None


def webhook(
    *,
    respond: int | Response | Literal["manual"] = 202,
    verify: Signature | None = None,
    metadata: Any = None,
) -> Hook[Request]:
    """Open a hook with a URL of its own (`.url`): each HTTP request to it comes as a `Request`.

    The server (`holdfast serve`, or one of `holdfast.ext`) answers when the request is durable: with a status,
    with a `Response`, or, with "manual", with what a step gives to `request.respond`. `verify` lets only signed
    requests in. The URL begins with the worker's `public_url`; its token is generated, so it is needed and enough
    to send. A run that continues as a new one gets its open webhooks back in the order in which they were opened.

    Example:
        paid = hf.webhook(verify=hf.Signature("stripe", secret="STRIPE_SECRET"))
        await create_invoice(order, callback=paid.url)
        event = (await paid).json()
    """
    if isinstance(respond, int) and not isinstance(respond, bool):
        respond = Response(respond)
    if respond != "manual" and not isinstance(respond, Response):
        raise DefinitionError(
            f'webhook respond: expected a status, a Response or "manual", got {respond!r:.80}'
        )
    if isinstance(respond, Response) and len(respond.body) > MOST_RECORDED:
        raise DefinitionError(
            f"webhook respond: a body of {len(respond.body):,} bytes, over {MOST_RECORDED:,}"
        )
    if verify is not None and not isinstance(verify, Signature):
        raise DefinitionError(f"webhook verify: expected a Signature, got {verify!r:.80}")
    terms = msgspec.to_builtins(Terms("", respond, verify))
    return inside("hf.webhook()").webhook(Request, {**_schema(), "webhook": terms}, metadata)


@functools.cache
def _schema() -> dict[str, Any]:
    """What a request looks like, without the prose: it stands in the log of each run that opens a webhook."""
    from .schema import json_schema

    schema = json_schema(Request) or {}
    return {name: schema["$defs"]["Request"][name] for name in ("title", "type", "properties")}
