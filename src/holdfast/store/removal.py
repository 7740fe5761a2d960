"""Which ended runs may be removed, and which stay though they are old.

A run is removed whole, with all that belongs to it, and stays while somebody needs it:

- its parent has not heard of its end yet (a crash would make the parent's worker start it again);
- a schedule has not noted yet that its due time was seen to (a worker died in between, and all the others are
  down): the run would be started once more;
- children that it left are still to be cancelled or started, or its successor is still to be created;
- it is a part of a chain (`succession.py`) of which another part stays. A chain is one thing: it is found from
  its first run on, and a part that is missing would be created again. So it goes at once, or not at all, and
  the runs of a chain that goes on stay, old as they are.

A pure function (`choose`), for all backends; they look up (`Candidate`) and delete in one transaction.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Literal, TypeVar

import msgspec

from ..events import load_json

T = TypeVar("T")

Reason = Literal["parent", "children", "schedule", "continued", "chain"]
"""Why a run stays. `schedule`: it would be started again; `continued`: it is not the last of its chain; `chain`:
it is not the first."""


class Removal(msgspec.Struct):
    """What came of removing runs: `removed` are gone, with so many events; of `kept`, each has its reason.

    Runs that are not there, have not ended long enough ago, or are just being written are in neither.
    """

    removed: list[str] = []
    events: int = 0
    kept: dict[str, Reason] = {}


class Candidate(msgspec.Struct):
    """What a backend looks up of a run that is to go; `row` is its short name there.

    `created` is the body of its first event, `end` that of its last command: each where it may name another run
    of its chain ("previous", "continued") or the due time that it was started for ("due"), and else None.
    `children`: whether any are left in its list; `parent`: whether its parent still lists it; `since`: up to where
    the schedule of its workflow says that due times were seen to, where there is one.
    """

    run: str
    row: int
    position: int
    created: bytes | None = None
    end: bytes | None = None
    children: bool = False
    parent: bool = False
    since: int | None = None

    @property
    def owed(self) -> bool:
        """Whether a schedule would start it again."""
        due = _field(self.created, "due", int)
        return due is not None and self.since is not None and self.since < due

    @property
    def neighbours(self) -> list[tuple[Reason, str]]:
        """The runs before and behind it in its chain."""
        before = _field(self.created, "previous", str)
        behind = _field(self.end, "continued", str)
        named: list[tuple[Reason, str | None]] = [("continued", behind), ("chain", before)]
        return [(reason, name) for reason, name in named if name is not None]


def neighbours_of(candidates: Sequence[Candidate]) -> list[str]:
    """The runs of which a backend must say whether they are there."""
    return sorted({name for candidate in candidates for _, name in candidate.neighbours})


def choose(
    candidates: Sequence[Candidate], there: Container[str]
) -> tuple[list[Candidate], dict[str, Reason]]:
    """Those that may go, and why the others stay."""
    going = {candidate.run: candidate for candidate in candidates}
    kept: dict[str, Reason] = {}
    for candidate in candidates:
        reason = _needed(candidate)
        if reason is not None:
            kept[candidate.run] = reason
            del going[candidate.run]
    links = {run: links for run, candidate in going.items() if (links := candidate.neighbours)}
    settled = False
    while not settled:
        settled = True
        for run, neighbours in links.items():
            staying = [reason for reason, name in neighbours if name in there and name not in going]
            if run in going and staying:
                kept[run] = staying[0]
                del going[run]
                settled = False
    return list(going.values()), kept


def _needed(candidate: Candidate) -> Reason | None:
    if candidate.children:
        return "children"
    if candidate.parent:
        return "parent"
    return "schedule" if candidate.owed else None


def _field(body: bytes | None, name: str, type_: type[T]) -> T | None:
    found = None if body is None else load_json(body).get(name)
    return found if isinstance(found, type_) else None
