"""One append for a caller: which scope it needs, its way to the store, and what came of it."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from ...errors import HoldfastError, InvalidAppend
from ...store.http.wire import problems, writing
from ...store.http.wire.events import DraftRow
from ...store.messages import Appended
from ..access import Caller
from ..refusal import Refused, status_of
from ..service import Service
from ..tokens import allows

_OUTSIDE = frozenset({"cancel_requested", "woken", "hook_received", "run_created"})
"""What those may append who only start and signal runs."""


def scope_of(row: writing.AppendRow) -> str:
    """What an append needs: work, or write where it is what `app.start`, `resume`, `cancel` … append."""
    for draft in row.drafts:
        if draft.type not in _OUTSIDE and not _terminates(draft):
            return "work"
        if draft.type == "hook_received" and row.token is None:
            return "work"
    return "work" if row.owner is not None else "write"


def _terminates(draft: DraftRow) -> bool:
    if draft.type != "run_cancelled":
        return False
    try:
        data = msgspec.json.decode(draft.body)
    except msgspec.DecodeError:
        return False
    return isinstance(data, dict) and data.get("by") == "terminate"


def submit(service: Service, caller: Caller, row: writing.AppendRow) -> asyncio.Future[Any]:
    """Hand an append to the store; the future has the answer, or the error as its result."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def answer(result: Appended | BaseException) -> None:
        if not future.done():
            future.set_result(result)

    needed = scope_of(row)
    if not allows(caller.scope, needed):
        message = f"this token has the scope {caller.scope}, and {needed} is needed for this append"
        future.set_result(Refused(403, "access_denied", message))
        return future
    try:
        service.store.submit(writing.append_of(row, answer))
    except HoldfastError as error:
        future.set_result(error)
    return future


def outcome(answer: Any, row: writing.AppendRow) -> writing.Outcome:
    """What an append came to, with the status that it would have alone."""
    if isinstance(answer, Appended):
        return writing.Outcome(200, taken=writing.taken_row(answer, row.run))
    if isinstance(answer, Refused):
        return writing.Outcome(answer.status, problem=answer.problem)
    if isinstance(answer, HoldfastError):
        return writing.Outcome(status_of(answer), problem=problems.problem_of(answer))
    if isinstance(answer, ArithmeticError | LookupError | TypeError | ValueError):
        return outcome(InvalidAppend(f"an append to {row.run!r} that no store can hold: {answer}"), row)
    raise answer
