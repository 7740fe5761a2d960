"""`chapter`, `note`, `find`, `decide`, `reflect`: telling a trail what happens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..problem import Problem
from .call import WHICH, Call, given
from .words import Argument, Option, comma_list, command, confidence, instant, one_of

if TYPE_CHECKING:
    from ...trail.handle import OpenChapter, OpenTrail
    from ...trail.model import Chapter, Trail

_TEXT = "`-` reads it from stdin."
_SURE = Option("-c --confidence", "0..1", "How sure, from 0 to 1.", read=confidence)
_MORE = (
    Option("--tag", "TAG", "May be given several times.", many=True),
    Option(
        "--significance",
        "LEVEL",
        "low, medium, high or critical.",
        read=one_of("low", "medium", "high", "critical"),
    ),
    Option(
        "--at", "TIME", "When it happened, if not now: an ISO time, or 3h for three hours ago.", read=instant
    ),
    Option(
        "--chapter",
        "ID",
        "The chapter it belongs to. Without it: the one that this agent has open.",
    ),
    Option("--late", "", "Also where the trail has ended: it is kept, and marked late."),
)
_CODES = {
    0: "it is on the disk",
    1: "the trail has ended; it says how",
    2: "cannot: no such trail, none or several active, no text, or a folder that cannot be written",
}


@command(
    Argument("TEXT", f"What to note; {_TEXT}"),
    _SURE,
    *_MORE,
    *WHICH,
    examples=["note 'The cache is stale after a deploy'", "note - < findings.txt"],
    codes=_CODES,
)
def note(call: Call, text: str, **more: Any) -> int:
    """Note something worth knowing later."""
    return _event(call, "note", text, **more)


@command(
    Argument("TEXT", f"What was found; {_TEXT}"),
    _SURE,
    *_MORE,
    *WHICH,
    examples=["find 'It fails for names with a quote' --significance high"],
    codes=_CODES,
)
def find(call: Call, text: str, **more: Any) -> int:
    """Record a finding: what was discovered about code or problem."""
    return _event(call, "find", text, **more)


@command(
    Argument("QUESTION", "What was to be decided; without a CHOICE, this is the choice."),
    Argument("CHOICE", "What was chosen.", needed=False),
    Option("-r --reasoning", "TEXT", "Why."),
    Option("--alternative", "TEXT", "What else could have been; may be given several times.", many=True),
    Option("-a --alternatives", "TEXT,TEXT", "The same as a list with commas.", read=comma_list),
    _SURE,
    *_MORE,
    *WHICH,
    examples=[
        "decide 'Which token?' JWT -r stateless --alternative cookie",
        "decision 'Use JWT' -r stateless -a session,cookie",
    ],
    codes=_CODES,
)
def decide(
    call: Call,
    question: str,
    choice: str | None = None,
    reasoning: str = "",
    alternative: list[str] | None = None,
    alternatives: list[str] | None = None,
    **more: Any,
) -> int:
    """Record a decision, its reasons and what else there was.

    `decision` is the same command.
    """
    others = [*(alternative or ()), *(alternatives or ())]
    asked = given(question)
    details = {"chosen": asked if choice is None else choice, "reasoning": reasoning, "alternatives": others}
    return _event(call, "decide", asked, details=details, **more)


@command(
    Argument("TEXT", f"How it goes; {_TEXT}"),
    Option("-f --focal-points", "TEXT,TEXT", "What it looks at, as a list with commas.", read=comma_list),
    Option("-a --adjustments", "TEXT", "What will be done differently."),
    _SURE,
    *_MORE,
    *WHICH,
    examples=["reflect 'It goes well' -c 0.7 -a 'measure first'"],
    codes=_CODES,
)
def reflect(
    call: Call, text: str, focal_points: list[str] | None = None, adjustments: str | None = None, **more: Any
) -> int:
    """Look back on how it goes."""
    details = {"focal_points": focal_points or [], "adjustments": adjustments}
    return _event(call, "reflect", text, details=details, **more)


def _event(
    call: Call,
    kind: str,
    text: str,
    *,
    details: dict[str, Any] | None = None,
    confidence: float | None = None,
    tag: list[str] | None = None,
    significance: str | None = None,
    at: Any = None,
    chapter: str | None = None,
    late: bool = False,
) -> int:
    said = text if kind == "decide" else given(text)
    trail = call.writer(late=late)
    place = _place(trail, call.caller.agent, chapter)
    more: dict[str, Any] = {"confidence": confidence, "tags": tag or (), "occurred_at": at, **(details or {})}
    if significance is not None:
        more["significance"] = significance
    made = getattr(place, kind)(said, agent=call.caller.agent, **more)
    call.folder.settle(trail.id)
    result = {"id": trail.id, "event": made, "chapter": place.id if place is not trail else None}
    told = {"content": said, "confidence": confidence, **(details or {})}
    words = {"note": "noted", "find": "finding kept", "decide": "decision kept", "reflect": "reflection kept"}
    return call.answer(result | told, f"{trail.id}  {words[kind]}")


def _place(trail: OpenTrail, agent: str | None, wanted: str | None) -> OpenTrail | OpenChapter:
    """Where the agent's events belong: in the chapter that is named, else in the one it has open."""
    known = trail.folder.load(trail.id)
    if wanted is not None:
        return _opened(trail, _chapter(known, wanted))
    own = open_chapter(known, agent or trail.agent)
    return trail if own is None else _opened(trail, own)


def _opened(trail: OpenTrail, chapter: Chapter) -> OpenChapter:
    """A handle for a chapter that another process has opened."""
    handle = trail.new_chapter(chapter.title, chapter.agent_name, None)
    handle.id = chapter.id
    return handle


def open_chapter(trail: Trail, agent: str) -> Chapter | None:
    """The chapter that an agent opened last and has not closed; another agent's is never taken."""
    own = [c for c in trail.chapters if c.ended_at is None and c.agent_name == agent]
    return own[-1] if own else None


def _chapter(trail: Trail, wanted: str) -> Chapter:
    for chapter in trail.chapters:
        if wanted in (chapter.id, chapter.title):
            return chapter
    known = ", ".join(f"{chapter.id} {chapter.title!r:.30}" for chapter in trail.chapters[-8:])
    raise Problem(f"{trail.id} has no chapter {wanted!r:.80}", hint=f"it has {known}" if known else "")


@command(
    Argument("TITLE", "What this part of the work is about.", needed=False),
    Option("--in", "ID", "Open it inside this chapter, which stays open."),
    Option("--close", "ID", "Close this chapter, by its id or title; without a TITLE, open none."),
    *WHICH,
    examples=["chapter Investigate --agent ben", "chapter --close Investigate"],
    codes=_CODES,
)
def chapter(call: Call, title: str | None = None, close: str | None = None, **place: Any) -> int:
    """Open a chapter, and print its id; or close one.

    What the same agent tells goes into it. A chapter that this agent has open is closed by it, unless the new
    one is --in it; those of other agents stay as they are.
    """
    parent_id: str | None = place.get("in")
    if title is None and close is None:
        raise Problem(
            "missing argument TITLE", hint="`chapter 'Investigate'` opens one, --close ID closes one"
        )
    trail = call.writer()
    known = call.folder.load(trail.id)
    agent = call.caller.agent or trail.agent
    parent = _opened(trail, _chapter(known, parent_id)) if parent_id is not None else None
    ended = _chapter(known, close) if close is not None else None
    if ended is None and parent is None:
        ended = open_chapter(known, agent)
    if ended is not None and ended.ended_at is None:
        _opened(trail, ended).close()
    elif close is not None and ended is not None:
        raise Problem(f"chapter {ended.id} {ended.title!r:.60} is closed already", code=1)
    result: dict[str, Any] = {"id": trail.id, "closed": ended.id if ended is not None else None}
    if title is None:
        call.folder.settle(trail.id)
        return call.answer(result | {"chapter": None}, f"{result['closed']} is closed")
    text = given(title)
    made = (parent or trail).chapter(text, agent=agent)
    call.folder.settle(trail.id)
    told = {"chapter": made.id, "title": text, "agent": agent, "parent": parent.id if parent else None}
    return call.answer(result | told, made.id)
