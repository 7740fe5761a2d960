"""How every page is made: templates, headers, and what a form must bring to be heard.

Guarantee: no text of users is markup. Templates escape all that is not made by a template, and before that
`clean` turns control characters into pictures and takes those out that turn the direction of what follows.
Should an escape ever be forgotten, the policy (CSP) lets no inline script run and nothing load from elsewhere.

Writes are POSTs whose `Origin` is this server: browsers send it with every POST, and another site cannot choose
it. Rejected: a token in each form, which a page that was open since before a restart would have to fetch anew.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from ... import phrases
from ...clock import to_text
from ...errors import HoldfastError
from ...trail.export.tag import Html
from ...trail.export.text import clean, with_code
from ..service import Service
from .pretty import pretty

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with no-referrer, browsers would send `Origin: null`
    "Cache-Control": "no-store",
}
_CODE, _PLAIN = Markup("<code>{}</code>"), Markup("{}")
_FORM_LIMIT = 4 << 20
_STATIC = {
    "tokens.css": ("holdfast.trail.export", "text/css"),
    "page.css": ("holdfast.trail.export", "text/css"),
}
_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


class Refused(Exception):
    """A request that is answered with an error page: its status, and a sentence that says what to do."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


# ---- out


def page(
    request: Request, template: str, *, status: int = 200, styled: bool = False, **values: Any
) -> HTMLResponse:
    """A whole page, or a part of one, from a template; `styled` where elements carry styles of their own."""
    service = Service.of(request)
    known = {
        "request": request,
        "store": service.store.url,
        "trails": service.settings.trails,
        "now": service.store.clock.now(),
    }
    text = _environment().get_template(template).render({**known, **values})
    policy = f"{POLICY}; style-src-attr 'unsafe-inline'" if styled else POLICY
    return HTMLResponse(text, status, {**_HEADERS, "Content-Security-Policy": policy})


def part(template: str, **values: Any) -> str:
    """A piece of a page as text, for those who send several in one answer."""
    return _environment().get_template(template).render(**values)


def failed(request: Request, error: Exception) -> Response:
    """What went wrong, as a page; as one line where a script asked."""
    status = error.status if isinstance(error, Refused) else 500
    if wants_part(request):
        return PlainTextResponse(clean(str(error)), status, _HEADERS)
    return page(request, "error.html", status=status, message=str(error))


def wants_part(request: Request) -> bool:
    """Whether the page's own script asks, which puts the answer into the page."""
    return request.headers.get("x-holdfast-part") == "1"


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_final,
    )
    for word in (
        phrases.ago,
        phrases.due,
        phrases.span,
        phrases.size,
        phrases.instant,
        phrases.error_line,
        pretty,
        run_url,
    ):
        made.filters[word.__name__] = word
    made.filters.update(iso=to_text, coded=_coded, share="{:.3f}".format)
    made.globals.update(asset=asset, query=query, attribute_url=attribute_url)
    return made


def _final(value: Any) -> Any:
    """What stands in place of a value: nothing for None, clean text for text."""
    if value is None:
        return ""
    if isinstance(value, Html):
        return Markup(value)  # noqa: S704 - made by `tag`, which escapes
    if isinstance(value, Markup):
        return value
    return clean(value) if isinstance(value, str) else value


def _coded(text: str) -> Markup:
    """Text whose pieces between backticks are code."""
    pieces = [(_CODE if coded else _PLAIN).format(piece) for piece, coded in with_code(clean(text))]
    return Markup("").join(pieces)


# ---- addresses


def run_url(run_id: str, **parameters: object) -> str:
    """The address of a run's page."""
    return f"/runs/{quote(run_id, safe='')}{query(**parameters)}"


def query(**parameters: object) -> str:
    """'?status=running', without what is None or ''; nothing where there is none."""
    given = {name: str(value) for name, value in parameters.items() if value not in (None, "")}
    return f"?{urlencode(given, errors='surrogatepass')}" if given else ""


def attribute_url(name: str, value: str) -> str:
    """The address of the runs that have an attribute."""
    return f"/{query(q=shlex.quote(f'{name}={value}'))}"


def asset(name: str) -> str:
    """The address of a static file; it changes with what is in it.

    Not that of a script: modules import each other by name, and one under two addresses would run twice.
    """
    return f"/static/{name}" if name.endswith(".js") else f"/static/{name}?{_file(name)[1]}"


def _file(name: str) -> tuple[bytes, str, str]:
    package, kind = _STATIC.get(name, (f"{__package__}.static", _TYPES.get(name.rpartition(".")[2], "")))
    return _read(package, name, kind)


@cache
def _read(package: str, name: str, kind: str) -> tuple[bytes, str, str]:
    content = (files(package) / name).read_bytes()
    return content, hashlib.sha256(content).hexdigest()[:16], kind


async def static(request: Request) -> Response:
    """A style or a script of the page."""
    name = request.path_params["name"]
    try:
        if "/" in name or name.startswith("."):
            raise FileNotFoundError
        content, tag, kind = _file(name)
    except (OSError, ModuleNotFoundError):
        return PlainTextResponse("no such file", 404, _HEADERS)
    headers = {**_HEADERS, "ETag": f'"{tag}"', "Cache-Control": "no-cache"}
    if request.url.query == tag:
        headers["Cache-Control"] = "public, max-age=31536000, immutable"
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=kind, headers=headers)


# ---- in


async def form(request: Request) -> dict[str, list[str]]:
    """What a form of this page has sent. Raises Refused where it came from elsewhere, or is too large."""
    origin = request.headers.get("origin", "")
    if origin.partition("://")[2] != request.headers.get("host") or (
        request.headers.get("sec-fetch-site", "same-origin") != "same-origin"
    ):
        raise Refused(403, "this form was not sent from this page: open the page, and send it from there")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _FORM_LIMIT:
            raise Refused(413, f"the form is larger than {_FORM_LIMIT >> 20} MiB: use the command line")
    found: dict[str, list[str]] = {}
    try:
        pairs = parse_qsl(body.decode("latin-1"), keep_blank_values=True, max_num_fields=10_000)
    except ValueError:
        raise Refused(413, "the form has more than 10,000 fields: use the command line") from None
    for name, value in pairs:
        found.setdefault(name, []).append(value.replace("\r\n", "\n"))  # as browsers write line breaks
    return found


def only(form: Mapping[str, list[str]], name: str) -> str:
    """A field that has one value; '' where it has none."""
    return form.get(name, [""])[0].strip()


def told(error: HoldfastError) -> Refused:
    """An error of the store as the page tells it."""
    status = {"run_not_found": 404, "run_exists": 409, "payload": 422}.get(error.code, 409)
    return Refused(status, str(error))
