"""What a process learns of runs before it writes to them: to take them up, to catch up, to send them payloads.

Each is one statement for many runs, and so one moment: what is open fits the row that comes with it, and the row
is that of the log so far. So what was read serves as memory for the next append (`known.py`), which is then
judged and written in one round trip, on the condition that the log is still the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from holdfast.errors import StoreBroken
from holdfast.events import ENDS, Event
from holdfast.store.rows import Child, Hook, OpenStep, TakenUp

from .connect import SQL, Connection
from .known import Known
from .logs import to_events, with_mark
from .lookups import to_child, to_event, to_head, to_hook
from .text import escape, unescape, unescape_some

_ROW, _OPEN = 21, 11
"""Columns of a run's row, and behind it of what is open."""
_EACH = 100
"""Events of each run, at least, that a statement for many reads."""
MOST = 100
"""Runs in one statement."""


class Part(NamedTuple):
    """A run, and events of it; `whole` where these are all that there were."""

    known: Known
    found: TakenUp
    whole: bool


class Receiver(NamedTuple):
    """The hook that gets the payloads of a token, and its run."""

    known: Known
    hook: Hook
    position: int


async def take_up(db: Connection, runs: Sequence[tuple[str, int]], page: int) -> dict[tuple[str, int], Part]:
    """These runs, each with its events beyond a position: `page` of them, or a few of each."""
    limit = max(page // len(runs), _EACH)
    names, after = [escape(run) for run, _ in runs], [after for _, after in runs]

    async def query(name: str, *values: Any) -> list[Any]:
        rows: list[Any] = await db.fetch(SQL[name], *values)
        return rows

    async def ask(mark: str) -> dict[tuple[str, int], Part]:
        parts = {}
        for row in await query("take_up", names, after, limit, mark):
            known, steps, children = _with_open(row)
            run = known.head.run
            events = await to_events(query, run, row[-5:], mark)
            found = TakenUp(events, steps, children)
            parts[run, row[_ROW + _OPEN]] = Part(known, found, len(events) < limit)
        return parts

    return await with_mark(ask)


async def receivers(db: Connection, tokens: Sequence[str]) -> dict[str, Receiver]:
    """Of these tokens, those that are open."""
    found = {}
    for row in await db.fetch(SQL["receivers"], [escape(token) for token in tokens]):
        known, *_ = _with_open(row)
        token, key, position, opened, schema, metadata = row[_ROW + _OPEN :]
        hook = to_hook((token, row[0], key, "open", opened, schema, metadata))
        found[hook.token] = Receiver(known, hook, position)
    return found


async def ends(db: Connection, runs: Sequence[str]) -> dict[str, tuple[Event | None]]:
    """Of these runs, those that are there, each with the event that ended it, or None."""
    found: dict[str, tuple[Event | None]] = {}
    for name, ended, *event in await db.fetch(SQL["ends"], [escape(run) for run in runs], list(ENDS)):
        run = unescape(name)
        if ended and event[0] is None:
            raise StoreBroken(f"run {run!r} has ended, but its log holds no end: see `holdfast verify`")
        found[run] = (to_event(run, event) if ended else None,)
    return found


def _with_open(row: Sequence[Any]) -> tuple[Known, list[OpenStep], list[Child]]:
    """A run's row and what is open, as the columns of the statements have it."""
    head = to_head(row[:_ROW])
    columns = [column or () for column in row[_ROW : _ROW + _OPEN]]
    run, known = head.run, Known(head)
    steps = [
        OpenStep(run, unescape(key), attempt, due, unescape_some(queue))
        for key, attempt, due, queue in zip(*columns[:4], strict=True)
    ]
    known.steps = {step.key: (step.attempt, step.due) for step in steps}
    known.timers = {unescape(key): due for key, due in zip(*columns[4:6], strict=True)}
    children = [to_child((row[0], *child)) for child in zip(*columns[6:], strict=True)]
    known.children = {child.key: (child.child, child.position, child.status) for child in children}
    return known, steps, children
