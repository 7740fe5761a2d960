"""Which trail a command writes to, where many are active and the caller names none.

Guarantee: it is never somebody else's. What the caller names counts: `--id`, $TRAJECTORIES_ID. Then what is the
caller's, from near to far: the trail of this session, of this agent, of this work tree, and the only active one
there is; `resume` says it at any of these levels. Where a level has several, the command says which, and does
nothing. Anybody may add to the only active trail, but end it only the session or agent that started it, or one
that named or resumed it: otherwise an agent that never started a trail would close its neighbour's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..problem import Problem, did_you_mean

if TYPE_CHECKING:
    from ...trail.folder import TrailFolder
    from ...trail.model import Summary
    from .call import Call, Caller

_RESUMED = ".cache/resumed"
"""Where `resume` keeps what it was told. It is of one machine, so it is not in the trails."""

Level = tuple[str, list["Summary"]]


def which(call: Call, *, ends: bool = False) -> str:
    """The id of the trail to write to. Raises Problem: none is active, several are, or it is another's."""
    if call.id is not None:
        return known(call.folder, call.id)
    active = call.folder.list("active")
    for level, trails in _levels(call, active):
        if len(trails) > 1:
            raise _several(call, trails)
        if trails:
            if ends and level != "resumed":
                _refuse_anothers(call, trails[0])
            return trails[0].id
    raise none_active(call)


def current(call: Call) -> tuple[str | None, list[Summary]]:
    """For commands that look: the trail that `which` would give, if there is one, and all active ones."""
    active = call.folder.list("active")
    if call.id is not None:
        return known(call.folder, call.id), active
    for _, trails in _levels(call, active):
        if trails:
            return (trails[0].id if len(trails) == 1 else None), active
    return None, active


def known(folder: TrailFolder, trail_id: str) -> str:
    """The id of a trail that there is. Raises TrailIdError; Problem with ids that are near."""
    from ...trail.ids import checked

    found = folder.files.places.find(checked(trail_id))
    if not found.journals and not found.records:
        raise unknown(folder, trail_id)
    return trail_id


def unknown(folder: TrailFolder, trail_id: str) -> Problem:
    """What is said of an id that no trail has."""
    near = did_you_mean(trail_id, [trail.id for trail in folder.list()])
    return Problem(
        f"trail not found: {trail_id}, in {folder.root}", hint=near or "`list` shows what there is"
    )


def none_active(call: Call) -> Problem:
    """What is said where there is no trail to write to."""
    return Problem(
        f"no active trail in {call.folder.root}",
        hint=f'start one with `{call.program.name} start "Task description"`',
    )


def in_the_way(call: Call) -> Summary | None:
    """The active trail of the same agent and work tree, for those who want one; a caller without a name is any."""
    me = call.caller
    for trail in call.folder.list("active"):
        named = me.agent is None or me.agent == _begun(trail, "agent")
        if named and not _differs(me, trail, "session") and not _differs(me, trail, "worktree"):
            return trail
    return None


# ---- levels -------------------------------------------------------------------------------------------------


def _levels(call: Call, active: list[Summary]) -> Iterator[Level]:
    """Active trails from near to far: those that were resumed there, then those that were started there."""
    me = call.caller
    for key in ("session", "agent", "worktree"):
        if getattr(me, key) is None:
            continue
        yield "resumed", _resumed(call, key, active)
        own = [trail for trail in active if _begun(trail, key) == getattr(me, key)]
        here = [trail for trail in own if not _differs(me, trail, "worktree")]
        yield key, here if len(own) > 1 and here else own
    yield "resumed", _resumed(call, "", active)
    yield "", active


def _begun(trail: Summary, key: str) -> str | None:
    """Who started a trail, in which session and work tree; None where it does not say."""
    value: str | None = getattr(trail, key)
    return None if key == "agent" and value == "default" else value


def _differs(me: Caller, trail: Summary, key: str) -> bool:
    """Whether both sides say it, and not the same."""
    mine, theirs = getattr(me, key), _begun(trail, key)
    return mine is not None and theirs is not None and mine != theirs


def _refuse_anothers(call: Call, trail: Summary) -> None:
    """A named agent did not start what nobody's name is on; a caller without a name may be anybody."""
    me = call.caller
    for key, what in (("session", "session"), ("agent", "agent"), ("worktree", "work tree")):
        mine, theirs = getattr(me, key), _begun(trail, key)
        if mine is None or (theirs is None and key != "agent"):
            continue
        if mine == theirs:
            return
        raise Problem(
            f"the only active trail is another {what}'s: {trail.id} by {trail.agent}, {trail.title!r:.60}",
            hint=f"--id {trail.id} ends it all the same; `{call.program.name} resume {trail.id}` takes it over",
        )


def _several(call: Call, trails: list[Summary]) -> Problem:
    shown = "; ".join(f"{trail.id} {trail.title!r:.40} by {trail.agent}" for trail in trails[:8])
    more = f"; and {len(trails) - 8} more" if len(trails) > 8 else ""
    return Problem(
        f"{len(trails)} trails are active: {shown}{more}",
        hint=f"name one with --id or $TRAJECTORIES_ID, or make it yours with `{call.program.name} resume ID`",
    )


# ---- resume -------------------------------------------------------------------------------------------------


def resume(call: Call, trail_id: str) -> str:
    """Make a trail the one that this session, or agent, or work tree writes to; returns which of them."""
    from ...trail.places import replace

    key = _nearest(call.caller)
    path = _path(call, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(str(path), trail_id.encode())
    return key


def forget(call: Call) -> None:
    """Undo `resume`: what is started now comes first."""
    try:
        _path(call, _nearest(call.caller)).unlink(missing_ok=True)
    except OSError:
        return  # the folder cannot be written, which the start has said


def _resumed(call: Call, key: str, active: list[Summary]) -> list[Summary]:
    try:
        trail_id = _path(call, key).read_text(encoding="ascii", errors="replace")
    except OSError:
        return []
    return [trail for trail in active if trail.id == trail_id]


def _nearest(me: Caller) -> str:
    return next((key for key in ("session", "agent", "worktree") if getattr(me, key) is not None), "")


def _path(call: Call, key: str) -> Path:
    from ...trail.ids import derived

    me = call.caller
    parts = {
        "session": ["session", me.session or ""],
        "agent": ["agent", me.agent or "", me.worktree or ""],
        "worktree": ["worktree", me.worktree or ""],
        "": ["anyone"],
    }
    return call.folder.root / _RESUMED / derived("for", parts[key])
