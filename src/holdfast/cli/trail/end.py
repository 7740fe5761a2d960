"""`complete`, `abandon`, `amend`, `delete`: how a trail ends, and what may still be done to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..problem import Problem
from .call import AGENT, WHICH, Call, given
from .words import Argument, Option, command, confidence

if TYPE_CHECKING:
    from ...trail.model import Trail
    from .git import Done

_TOLD = (
    Option("--approach", "TEXT", "How it was done ('Standard approach')."),
    Option("-c --confidence", "0..1", "How sure, from 0 to 1. As `trail`: 0.8 without it.", read=confidence),
    Option("--learning", "TEXT", "What was learned; may be given several times.", many=True),
    Option("--challenge", "TEXT", "What was hard; may be given several times.", many=True),
    Option("--suggestion", "TEXT", "What to do next; may be given several times.", many=True),
    Option("--time-spent", "TEXT", "For example '2 h'."),
)
_MADE = (
    Option("--commit", "HASH", "A commit of the work; may be given several times.", many=True),
    Option("--file", "PATH", "A file it changed; may be given several times.", many=True),
)
_LISTS = {"learning": "learnings", "challenge": "challenges", "suggestion": "suggestions"}
_CODES = {
    0: "it is ended, and index.json says so",
    1: "it had ended already; that end stands",
    2: "cannot: no such trail, none or several active, another's, or a folder that cannot be written",
}


@command(
    Option("--summary", "TEXT", "What came of it; needed. `-` reads it from stdin."),
    *_TOLD,
    *_MADE,
    Option("--no-git", "", "Take no commits and files from git."),
    *WHICH,
    examples=["complete --summary 'Names are quoted now' -c 0.9"],
    codes=_CODES,
)
def complete(
    call: Call,
    summary: str | None = None,
    commit: list[str] | None = None,
    file: list[str] | None = None,
    no_git: bool = False,
    **told: Any,
) -> int:
    """Complete a trail with what came of it.

    The commits since it was started, and the files they changed, are taken from git.
    """
    if summary is None:
        raise Problem("--summary is required", hint="what came of the work, in a sentence or two")
    if call.program.npm:
        told.setdefault("confidence", 0.8)
    trail = call.writer(ends=True)
    done = _done(call, trail.id, no_git)
    trail.complete(
        given(summary),
        commits=[*done.commits, *(commit or ())],
        files_changed=[*done.files, *(file or ())],
        end_ref=_head(no_git),
        **{_LISTS.get(key, key): value for key, value in told.items()},
    )
    return _ended(call, trail.id)


@command(
    Option("-r --reason", "TEXT", "Why; it is kept. `-` reads it from stdin."),
    Option("--no-git", "", "Take no commits and files from git."),
    *WHICH,
    examples=["abandon --reason 'The API is gone'"],
    codes=_CODES,
)
def abandon(call: Call, reason: str | None = None, no_git: bool = False) -> int:
    """End a trail without success, and say why."""
    trail = call.writer(ends=True)
    done = _done(call, trail.id, no_git)
    trail.abandon(
        None if reason is None else given(reason),
        commits=done.commits,
        files_changed=done.files,
        end_ref=_head(no_git),
    )
    return _ended(call, trail.id)


@command(
    Argument("TRAIL", "The trail's id, as `list` shows it."),
    Option("--summary", "TEXT", "What came of it."),
    *_TOLD,
    *_MADE,
    AGENT,
    examples=["amend traj_k3j9x0a1b2c3 --learning 'The cache was stale'"],
    codes={0: "it is on the disk", 2: "cannot: no such trail, or nothing to say"},
)
def amend(
    call: Call, trail: str, commit: list[str] | None = None, file: list[str] | None = None, **told: Any
) -> int:
    """Correct what a trail says came of it, also after its end.

    Text takes the place of what was there; learnings, challenges and suggestions too. Commits and files are
    added.
    """
    from .which import known

    if not (told or commit or file):
        raise Problem("nothing to say", hint="`amend --help` names what may be amended")
    handle = call.folder.open(known(call.folder, trail), late=True, agent=call.caller.agent)
    told = {_LISTS.get(key, key): value for key, value in told.items()}
    handle.amend(commits=commit or (), files_changed=file or (), **told)
    return call.answer(_as_json(call.folder.load(trail)), f"{trail} is amended")


@command(
    Argument("TRAIL", "The trail's id, as `list` shows it."),
    examples=["delete traj_k3j9x0a1b2c3"],
    codes={0: "it is gone", 2: "cannot: there is no such trail"},
)
def delete(call: Call, trail: str) -> int:
    """Remove a trail and all its files, for good."""
    from .which import known

    call.folder.delete(known(call.folder, trail))
    return call.answer({"id": trail, "deleted": True}, f"{trail} is deleted")


def _done(call: Call, trail_id: str, no_git: bool) -> Done:
    from ...trail.record import instant
    from .git import Done, done_since

    if no_git:
        return Done([], [])
    trail = call.folder.load(trail_id)
    start = trail.trace.start_ref if trail.trace is not None else None
    return done_since(start, instant(trail.started_at), call.folder.root)


def _head(no_git: bool) -> str | None:
    from .git import head

    return None if no_git else head()


def _ended(call: Call, trail_id: str) -> int:
    trail = call.folder.load(trail_id)
    return call.answer(_as_json(trail), f"{trail_id} is {trail.status}")


def _as_json(trail: Trail) -> dict[str, Any]:
    from ...trail.record import to_record

    record = to_record(trail)
    kept = ("id", "status", "startedAt", "completedAt", "retrospective", "commits", "filesChanged")
    shown = {key: record[key] for key in (*kept, "abandonReason") if key in record}
    return {**shown, "title": trail.title}
