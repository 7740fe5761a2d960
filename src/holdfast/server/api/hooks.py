"""Hooks: those that are open, and sending payloads to them; timers."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from ...errors import DeliveryConflict, HookNotFound, PayloadError
from ...events import dump_json
from ...store.rows import Hook, Timer
from ..refusal import Refused
from . import cursor
from .operation import Call, operation
from .runs import Limit


class HooksQuery(msgspec.Struct):
    """Which hooks: of a run, with a token, open ones or all; and from where to go on."""

    run: str | None = None
    token: str | None = None
    open: bool = True
    cursor: str | None = None
    limit: Limit = 100


class HookPage(msgspec.Struct):
    """Hooks by token, with schema and metadata; `next` is the cursor of the next page, if there is one."""

    hooks: list[Hook]
    next: str | None = None


@operation("GET", "/v1/hooks", scope="read", query=HooksQuery, gives=HookPage, errors=(PayloadError,))
async def list_hooks(call: Call[None, HooksQuery]) -> HookPage:
    """List hooks. A token is a secret where it was generated: who reads hooks may send to them."""
    asked = call.query
    hooks = await call.service.store.hooks(
        run=asked.run,
        token=asked.token,
        open_only=asked.open,
        after=None if asked.cursor is None else cursor.read(asked.cursor, tuple[str, str]),
        limit=asked.limit,
    )
    last = hooks[-1] if len(hooks) >= asked.limit else None
    return HookPage(hooks, None if last is None else cursor.write((last.token, last.run)))


class ResumeHook(msgspec.Struct, forbid_unknown_fields=True):
    """A payload for the run that has a hook open under `token`.

    Without `delivery_id`, the Idempotency-Key is the delivery's id.
    """

    token: Annotated[str, Meta(min_length=1)]
    payload: Any = None
    delivery_id: Annotated[str, Meta(min_length=1, max_length=512)] | None = None


class Delivered(msgspec.Struct):
    """Where the payload went: the run, its position in the log, and whether it was there already."""

    run: str
    position: int
    duplicate: bool


@operation(
    "POST",
    "/v1/hooks/resume",
    scope="write",
    takes=ResumeHook,
    gives=Delivered,
    errors=(HookNotFound, DeliveryConflict, PayloadError),
    keyed=True,
)
async def resume(call: Call[ResumeHook, None]) -> Delivered:
    """Send a payload. It is checked against the hook's type, and durable when the answer comes."""
    asked, app = call.body, call.service.app
    size = len(dump_json(asked.payload))
    if size > app.payload_limit:
        raise Refused(
            413, "body_too_large", f"payload: {size:,} bytes, over the limit of {app.payload_limit:,}"
        )
    answer = await app.resume(asked.token, asked.payload, delivery_id=asked.delivery_id or call.key)
    return Delivered(answer.run_id, answer.position, answer.duplicate)


class TimersQuery(msgspec.Struct):
    """Of which run, and how many."""

    run: str | None = None
    limit: Limit = 100


class TimerList(msgspec.Struct):
    """Pending timers, the earliest first; `due` in microseconds since 1970."""

    timers: list[Timer]


@operation("GET", "/v1/timers", scope="read", query=TimersQuery, gives=TimerList, errors=(PayloadError,))
async def list_timers(call: Call[None, TimersQuery]) -> TimerList:
    """List pending timers."""
    return TimerList(await call.service.store.timers(run=call.query.run, limit=call.query.limit))
