"""Every error on its way: its stable code, a sentence for people, and what belongs to it."""

from __future__ import annotations

from typing import Any

import msgspec

from holdfast.errors import HoldfastError, StoreError

from .events import EventRow, event_rows, events_of


class Problem(msgspec.Struct, omit_defaults=True):
    """Every error: its stable code, a sentence for people, and what else belongs to it.

    `missed` are the events that a stale decider has not read, `recorded` the positions of what was kept all the
    same, `reason` why there is no such hook, `owner` the run that holds a token, `retry_after` seconds,
    `run` whose events those are, or which run goes on as another.
    """

    code: str
    message: str
    run: str | None = None
    missed: list[EventRow] = []
    recorded: list[int] = []
    position: int | None = None
    reason: str | None = None
    owner: str | None = None
    retry_after: float | None = None


def problem_of(error: HoldfastError) -> Problem:
    """An error as it travels: by its code and its fields, never by its text."""
    problem = Problem(error.code, str(error))
    for name, value in vars(error).items():
        if name == "missed":
            problem.missed = event_rows(value)
            problem.run = value[0].run if value else None
        elif name in Problem.__struct_fields__ and name not in ("code", "message"):
            setattr(problem, name, value)
    return problem


def error_of(problem: Problem) -> HoldfastError:
    """The error that the server met, of the same class; StoreError for a code that is not known here."""
    kind = _classes().get(problem.code, StoreError)
    error = kind.__new__(kind)
    HoldfastError.__init__(error, problem.message)
    fields = _FIELDS.get(problem.code, ())
    for name in fields:
        value: Any = getattr(problem, name)
        setattr(error, name, events_of(problem.run or "", value) if name == "missed" else value)
    return error


_FIELDS = {
    "stale_log": ("missed", "recorded", "position"),
    "run_ended": ("recorded",),
    "hook_not_found": ("reason",),
    "hook_taken": ("owner",),
    "run_continued": ("run",),
}


def _classes() -> dict[str, type[HoldfastError]]:
    if not _known:
        waiting: list[type[HoldfastError]] = [HoldfastError]
        while waiting:
            kind = waiting.pop()
            _known.setdefault(kind.code, kind)
            waiting += kind.__subclasses__()
    return _known


_known: dict[str, type[HoldfastError]] = {}
