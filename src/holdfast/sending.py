"""A payload on its way to a hook: checked against what the hook takes, and delivered once.

Plain JSON is one text. What has a class of its own is written in two ways: as the class has it, for a hook with a
type, and with tags that tell which class it was, for a hook without one.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from . import ids
from .codec import UNTYPED, check_bounds, payload_type
from .errors import DeliveryConflict, PayloadError, RunContinued
from .schema import validate
from .store.base import Store
from .store.succession import succeed


class Resumed(msgspec.Struct, frozen=True):
    """Where a payload went: the run, its position in the log, and whether it was there already."""

    run_id: str
    position: int
    duplicate: bool


async def send(store: Store, limit: int, token: str, payload: Any, delivery_id: str | None) -> Resumed:
    """As `App.resume`; the payload has at most `limit` bytes."""
    _check_text(token, "token")
    tagged = UNTYPED.encode(payload, f"{token} payload")
    plain = _plain(payload, tagged, token)
    raw, other = tagged, plain
    hook = await store.receiver(token)
    if hook is not None and hook.schema is not None:
        raw, other = plain, tagged
        check_bounds(raw, limit, f"{token} payload")
        validate(hook.schema, json.loads(raw), f"{token} payload")
    try:
        return await send_raw(store, limit, token, raw, delivery_id)
    except DeliveryConflict:
        # The hook that took it the first time may have had a type, and this one none, or the reverse.
        return await send_raw(store, limit, token, other, delivery_id)


async def send_raw(
    store: Store, limit: int, token: str, payload: bytes, delivery_id: str | None, digest: str | None = None
) -> Resumed:
    """As `App.resume_raw`."""
    check_bounds(payload, limit, f"{token} payload")
    _check_text(token, "token")
    if delivery_id is not None:
        _check_text(delivery_id, "delivery_id")
    delivery = delivery_id or ids.delivery_id()
    while True:
        try:
            answer = await store.deliver(token, payload, delivery, digest=digest)
            break
        except RunContinued as error:
            await succeed(store, error.run)
    return Resumed(answer.run, answer.first, bool(answer.duplicates))


def _plain(payload: Any, tagged: bytes, token: str) -> bytes:
    """The payload as its own class writes it: what a typed hook reads, and what a schema can check."""
    if payload is None or isinstance(payload, str | int | float | bool | list | dict):
        return tagged
    return payload_type(type(payload)).encode(payload, f"{token} payload")


def _check_text(text: str, what: str) -> None:
    try:
        text.encode()
    except (AttributeError, UnicodeEncodeError):
        raise PayloadError(f"{what}: expected text, got {text!r:.80}") from None
