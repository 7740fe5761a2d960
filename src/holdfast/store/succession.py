"""How a run that continues as a new one gets its successor (`hf.continue_as_new`).

What it guarantees: after the end that says `continued` there is exactly one successor, whoever dies, and no
payload falls between the two: those that nobody has read stand in the successor's log, in order, and whoever
sends one between the end and the successor's creation creates it himself, and sends it to that.

It rests on this: the successor is a function of the old log alone, for an ended log takes no more payloads, and
a run is created once under its id. So anybody may create it at any time: the worker that ended the run, another
one that sees to its orphans, a sender, somebody who waits for the result. And the old run's open hooks keep
their tokens (status `continued`) until the successor, in the commit that creates it, opens them as `token#0`.

Rejected: one transaction over both runs (they may be on two shards); a new run that opens its hooks only when
its code does (a payload in between would be refused, for no reason that its sender could know).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from .. import ids, tracing
from ..errors import RunNotFound, StaleLog
from ..events import ENDS, Draft, Event, dump_json, fold, new, numbered
from .base import Store


def continued_as(end: Event) -> str | None:
    """The id of the successor of the run that ended so, or None."""
    return end.data.get("continued") if b'"continued":' in end.body else None


async def succeed(store: Store, run_id: str) -> str:
    """See to it that the successor of this run is there; its id. Raises RunNotFound, KeyMissing, StoreError."""
    log = await store.read(run_id)
    if not log:
        raise RunNotFound(f"no run {run_id!r} in {store.url}")
    successor, drafts = _beginning(log)
    try:
        await store.append(successor, drafts, after=0)
    except StaleLog:
        pass  # somebody was quicker
    return successor


async def last_of(store: Store, run_id: str) -> tuple[str, Event | None]:
    """The last run of a chain, and its end, if it has ended; a successor that is missing is created."""
    end = await store.end_of(run_id)
    while end is not None and (successor := continued_as(end)):
        try:
            after = await store.end_of(successor)
        except RunNotFound:
            await succeed(store, run_id)
            continue
        run_id, end = successor, after
    return run_id, end


def _beginning(log: Sequence[Event]) -> tuple[str, list[Draft]]:
    """The first append of the successor."""
    created, state = log[0].data, fold(log)
    end = next(event for event in log if event.type in ENDS)
    told = end.data
    open_hooks = {hook.token: key for key, hook in state.hooks.items() if hook.status == "continued"}
    schemas = {event.key: event.data.get("schema") for event in log if event.type == "hook_opened"}
    schemas |= {numbered(token, 0): schema for token, schema in (created.get("hooks") or {}).items()}
    data: dict[str, Any] = {
        "workflow": created["workflow"],
        "args": msgspec.Raw(dump_json(told["args"])),
        "seed": ids.seed(),
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "previous": end.run,
        "first": created.get("first") or end.run,
        "number": (created.get("number") or 1) + 1,
    }
    data |= {name: created[name] for name in ("parent", "root", "due", *tracing.FIELDS) if name in created}
    if "version" in told:
        data["version"] = told["version"]
    if state.attributes:
        data["attributes"] = state.attributes
    if open_hooks:
        data["hooks"] = {token: schemas.get(key) for token, key in open_hooks.items()}
    unread = set(told.get("unread") or ())
    drafts = [new("run_created", data=data)]
    for event in log:
        if event.type != "hook_received" or event.position > end.position:
            continue
        token = event.key.rpartition("#")[0]
        if token in open_hooks and (event.position in unread or event.position > told.get("seen", 0)):
            payload = msgspec.Raw(dump_json(event.data["payload"]))
            carried = {"payload": payload, "from": {"run": event.run, "position": event.position}}
            drafts.append(new("hook_received", key=numbered(token, 0), data=carried))
    if state.cancel is not None and not told.get("cancel_seen"):
        drafts.append(new("cancel_requested", data={"reason": state.cancel}))
    return str(told["continued"]), drafts
