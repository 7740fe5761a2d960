"""Trails: the read side of a folder, where the server was given one."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from ...errors import PayloadError, TrailIdError, TrailNotFound
from ...trail import TrailFolder
from ...trail.model import Summary
from ...trail.record import to_record
from ..refusal import Refused
from ..service import Service
from .operation import Call, operation
from .runs import Limit


class TrailsQuery(msgspec.Struct):
    """Which trails: by status, or those that hold all of these words."""

    status: Literal["active", "completed", "abandoned"] | None = None
    search: Annotated[str, Meta(max_length=1000)] | None = None
    limit: Limit = 100


class TrailList(msgspec.Struct):
    """Trails, the newest first; of a search, the best match first."""

    trails: list[Summary]


@operation(
    "GET",
    "/v1/trails",
    scope="read",
    query=TrailsQuery,
    gives=TrailList,
    errors=(PayloadError, TrailNotFound),
)
async def list_trails(call: Call[None, TrailsQuery]) -> TrailList:
    """List the trails of the server's folder, or search them."""
    folder, asked = _folder(call.service), call.query
    if asked.search:
        found = await asyncio.to_thread(folder.search, asked.search, asked.limit)
        return TrailList([trail for trail in found if asked.status in (None, trail.status)])
    return TrailList(await asyncio.to_thread(folder.list, asked.status, asked.limit))


@operation(
    "GET", "/v1/trails/{trail}", scope="read", gives=dict[str, Any], errors=(TrailIdError, TrailNotFound)
)
async def show_trail(call: Call[None, None]) -> Any:
    """The whole record of a trail."""
    trail = await asyncio.to_thread(_folder(call.service).load, call.path("trail"))
    return to_record(trail)


def _folder(service: Service) -> TrailFolder:
    if service.settings.trails is None:
        raise Refused(
            404, "not_found", "this server was given no folder of trails: start it with --trails FOLDER"
        )
    return TrailFolder(service.settings.trails)
