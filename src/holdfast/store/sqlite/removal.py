"""Removing runs: look-ups and deletes inside a group's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apsw

from holdfast import faults
from holdfast.events import dump_json
from holdfast.store.removal import Candidate, Removal, choose, neighbours_of

from .connect import SQL

_STATEMENTS = (
    *("remove_chunks", "remove_streams", "remove_deliveries", "remove_events"),
    *("remove_hooks", "remove_steps", "remove_timers", "remove_runs"),
)
"""The tables, in the order in which the rows of one are found by those of the next."""


def remove(db: apsw.Connection, runs: Sequence[str], ended_before: int, *, dry: bool) -> Removal:
    """Remove what may go."""
    rows: list[Any] = db.execute(SQL["leaving"], (_names(runs), ended_before)).fetchall()
    candidates = [
        Candidate(run, row, position, created, end, bool(children), bool(parent), since)
        for run, row, position, created, end, children, parent, since in rows
    ]
    named = neighbours_of(candidates)
    there = {run for (run,) in db.execute(SQL["present"], (_names(named),))} if named else set()
    going, kept = choose(candidates, there)
    if going and not dry:
        numbers = dump_json([candidate.row for candidate in going]).decode()
        for statement in _STATEMENTS:
            db.execute(SQL[statement], (numbers,)).fetchall()
        faults.point("prune.commit.before")
    return Removal([c.run for c in going], sum(c.position for c in going), kept)


def _names(runs: Sequence[str]) -> str:
    return dump_json(list(runs)).decode()
