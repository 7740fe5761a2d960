"""Removing runs: a short transaction that locks the rows of ended runs, and no other."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast import faults
from holdfast.store.removal import Candidate, Removal, choose, neighbours_of

from .connect import SQL, Connection, Line
from .text import escape, unescape


async def remove(line: Line, runs: Sequence[str], ended_before: int, *, dry: bool) -> Removal:
    """Remove what may go. Where the answer was lost and is asked for again, it tells of what was left."""
    names = [escape(run) for run in runs]

    async def work(db: Connection) -> Removal:
        await db.execute(SQL["begin"])
        await db.fetch(SQL["plan_anew"])
        candidates = [
            Candidate(unescape(run), row, position, _bytes(created), _bytes(end), children, parent, since)
            for run, row, position, created, end, children, parent, since in await db.fetch(
                SQL["leaving"], names, ended_before
            )
        ]
        named = [escape(run) for run in neighbours_of(candidates)]
        there = {unescape(run) for (run,) in await db.fetch(SQL["present"], named)} if named else set()
        going, kept = choose(candidates, there)
        if going and not dry:
            await db.fetch(SQL["remove_runs"], [candidate.row for candidate in going])
            faults.point("prune.commit.before")
        await db.execute(SQL["commit"])
        return Removal([c.run for c in going], sum(c.position for c in going), kept)

    removal = await line.run(work)
    faults.point("prune.commit.after")
    return removal


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode()
