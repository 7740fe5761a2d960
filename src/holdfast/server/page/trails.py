"""The folder's trails: a list, a search over all they say, and each trail as it is exported."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from ...errors import HoldfastError
from ...trail.export.html import body
from ...trail.folder import TrailFolder
from ...trail.search import MARK, hits
from ..service import Service
from . import shell

PAGE = 100


def _folder(request: Request) -> TrailFolder:
    folder = Service.of(request).settings.trails
    if folder is None:
        raise shell.Refused(404, "no folder of trails is served here: `holdfast serve --trails FOLDER`")
    return TrailFolder(folder)


async def index(request: Request) -> Response:
    """The newest trails, or those that hold all words of `?q=`."""
    folder = _folder(request)
    text = request.query_params.get("q", "")[:500]
    status = request.query_params.get("status", "")
    status = status if status in ("active", "completed", "abandoned") else ""
    if text.strip():
        found = [
            (hit.summary, list(hit.snippet.split(MARK)))
            for hit in await asyncio.to_thread(hits, folder, text, PAGE)
            if status in ("", hit.summary.status)
        ]
    else:
        listed = await asyncio.to_thread(folder.list, status or None, PAGE)  # type: ignore[arg-type]
        found = [(summary, []) for summary in listed]
    return shell.page(request, "trails.html", found=found, text=text, wanted=status, most=PAGE)


async def show(request: Request) -> Response:
    """One trail, as `holdfast trail export --format html` tells it."""
    folder = _folder(request)
    trail_id = request.path_params["trail"]
    try:
        trail = await asyncio.to_thread(folder.load, trail_id)
    except HoldfastError as error:
        raise shell.Refused(404, str(error)) from error
    return shell.page(request, "trail.html", trail=trail, body=body(trail), styled=True)
