"""Handles to write with: an open trail and its open chapters.

Which chapter an event belongs to follows from where the code runs: `with` makes a chapter the current one of
this task or thread, and what it starts inherits that (asyncio tasks and `asyncio.to_thread` copy the context).
A plain thread does not copy it; there, an event goes to the innermost open chapter if the open ones are nested
in each other, and to no chapter if they are side by side, for which of them it belongs to nobody can know.
`with trail.chapter(…) as chapter: chapter.note(…)` is exact everywhere.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from datetime import datetime
from itertools import pairwise
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ..clock import from_datetime
from ..errors import PayloadError, TrailEnded, TrailError
from . import entry as line
from . import ids
from .decisions import content_of
from .entry import STRUCTURE
from .journal import Tail, log
from .model import Alternative, Decision, Significance
from .record import to_record

if TYPE_CHECKING:
    from .folder import TrailFolder

_stack: ContextVar[tuple[OpenTrail | OpenChapter, ...]] = ContextVar("holdfast_trail", default=())


def current() -> OpenTrail | OpenChapter | None:
    """The innermost `with` block of a trail or chapter around the code that asks."""
    stack = _stack.get()
    return stack[-1] if stack else None


class Writer:
    """What can be told to a trail and to a chapter. Each call is on the disk when it returns."""

    def note(self, content: str, **more: Any) -> str:
        """Something worth knowing later; returns the event's id.

        Keywords of every such call: `agent`, `tags`, `significance` (low, medium, high, critical),
        `confidence` (0 to 1), `raw` (any JSON data) and `occurred_at` (an aware datetime, if not now).
        """
        return self.event("note", content, **more)

    def find(self, content: str, *, significance: Significance = "medium", **more: Any) -> str:
        """A finding: something that was discovered about the code or the problem."""
        return self.event("finding", content, significance=significance, **more)

    def error(self, content: str, *, significance: Significance = "high", **more: Any) -> str:
        """Something that went wrong."""
        return self.event("error", content, significance=significance, **more)

    def decide(
        self,
        question: str,
        chosen: str,
        *,
        reasoning: str = "",
        alternatives: Iterable[str | Alternative | dict[str, str]] = (),
        confidence: float | None = None,
        significance: Significance = "high",
        **more: Any,
    ) -> str:
        """A choice, why it was made and what else could have been.

        Example:
            trail.decide("Which token?", "JWT", reasoning="stateless", alternatives=["session"])
        """
        decision = decision_data(question, chosen, reasoning, alternatives, confidence)
        more = {"raw": decision, "significance": significance, **more}
        return self.event("decision", content_of(question, chosen), **more)

    def reflect(
        self,
        content: str,
        *,
        confidence: float | None = None,
        focal_points: Sequence[str] = (),
        adjustments: str | None = None,
        significance: Significance = "high",
        **more: Any,
    ) -> str:
        """A look back on how it goes; `confidence` is from 0 to 1."""
        if focal_points or adjustments:
            told = {"focalPoints": list(focal_points), "adjustments": adjustments, "confidence": confidence}
            more.setdefault("raw", {key: value for key, value in told.items() if value})
        return self.event("reflection", content, confidence=confidence, significance=significance, **more)

    def event(
        self,
        type: str,
        content: str,
        *,
        agent: str | None = None,
        tags: Sequence[str] = (),
        significance: Significance | None = None,
        confidence: float | None = None,
        raw: Any = None,
        occurred_at: datetime | None = None,
    ) -> str:
        """An event of any type, for example 'prompt', 'tool_call' or 'tool_result'; returns its id.

        Raises PayloadError for values of a wrong shape (nothing is written then), TrailNotFound where the
        trail was deleted, TrailError where the disk refuses.
        """
        data = event_data(type, content, tags, significance, confidence, raw)
        return self._record(type, data, agent, occurred_at)

    def _record(
        self, type: str, data: dict[str, Any], agent: str | None, occurred_at: datetime | None
    ) -> str:
        raise NotImplementedError


class OpenTrail(Writer):
    """A trail to write in. Several handles, in any number of processes, may write in one trail."""

    def __init__(self, folder: TrailFolder, trail_id: str, agent: str) -> None:
        self.folder = folder
        self.id = trail_id
        self.agent = agent
        self._tail = Tail()
        self._turn = threading.Lock()
        self._open: list[OpenChapter] = []
        self._told: BaseException | None = None

    def __repr__(self) -> str:
        return f"<trail {self.id} in {self.folder.root}>"

    def chapter(self, title: str, *, agent: str | None = None) -> OpenChapter:
        """Open a chapter, in the current one if there is one; `with` closes it.

        Example:
            with trail.chapter("Investigate", agent="ben"):
                trail.note("…")
        """
        return self._chapter(title, agent, self._current())

    def join(self, agent: str, role: str = "contributor") -> None:
        """Say that an agent takes part, and as what. The first role of an agent stays."""
        if not agent or not role:
            raise PayloadError(f"join: expected an agent's name and role, got {agent!r} and {role!r}")
        self._write("agent_joined", {"role": role}, agent, None, None)

    def tag(self, *tags: str) -> None:
        """Put tags on the trail."""
        self._write("trail_amended", {"tags": texts("tags", tags)}, self.agent, None, None)

    def complete(
        self,
        summary: str,
        approach: str = "Standard approach",
        confidence: float | None = None,
        *,
        challenges: Sequence[str] = (),
        learnings: Sequence[str] = (),
        suggestions: Sequence[str] = (),
        decisions: Iterable[Decision] = (),
        time_spent: str | None = None,
        commits: Sequence[str] = (),
        files_changed: Sequence[str] = (),
        end_ref: str | None = None,
    ) -> None:
        """End the trail with its retrospective. Raises TrailEnded where it has an end: that one stands."""
        if not isinstance(summary, str) or not summary.strip():
            raise PayloadError(f"complete: expected a summary, got {summary!r:.80}")
        data = retrospective_data(
            summary=summary,
            approach=approach,
            confidence=confidence,
            challenges=challenges,
            learnings=learnings,
            suggestions=suggestions,
            decisions=decisions,
            time_spent=time_spent,
        )
        data |= artifacts(commits, files_changed, end_ref)
        self._end("trail_completed", data)

    def abandon(
        self,
        reason: str | None = None,
        *,
        cause: BaseException | None = None,
        commits: Sequence[str] = (),
        files_changed: Sequence[str] = (),
        end_ref: str | None = None,
    ) -> None:
        """End the trail without success, and say why. Raises TrailEnded where it has an end already."""
        data: dict[str, Any] = {}
        if reason or cause is not None:
            data["reason"] = reason or _one_line(cause)
        if cause is not None:
            data["cause"] = _cause(cause)
        self._end("trail_abandoned", data | artifacts(commits, files_changed, end_ref))

    def amend(
        self, *, commits: Sequence[str] = (), files_changed: Sequence[str] = (), **retrospective: Any
    ) -> None:
        """Correct or complete what an ended trail says: parts of its retrospective, commits, files.

        Example:
            folder.open(id, late=True).amend(learnings=["the cache was stale"])
        """
        data = retrospective_data(**retrospective) | artifacts(commits, files_changed, None)
        self._write("trail_amended", data, self.agent, None, None)
        self.folder.settle(self.id)

    def __enter__(self) -> Self:
        _stack.set((*_stack.get(), self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        _leave(self)
        if error is None:
            self.folder.files.refresh([self.id])
            return
        try:
            self.abandon(cause=error)
        except TrailEnded:
            self.folder.files.refresh([self.id])  # it ended before the exception came: that end stands
        except TrailError as failed:
            log.error("%s could not be abandoned: %s", self.id, failed)  # what left the block matters more

    def _current(self) -> OpenChapter | None:
        """The chapter of this trail that the asking code is in."""
        here = [
            part for part in _stack.get() if part.id == self.id or getattr(part, "trail_id", "") == self.id
        ]
        if here:
            return here[-1] if isinstance(here[-1], OpenChapter) else None
        with self._turn:
            chain = list(self._open)
        nested = all(inner.parent is outer for outer, inner in pairwise(chain))
        return chain[-1] if chain and nested else None

    def _chapter(self, title: str, agent: str | None, parent: OpenChapter | None) -> OpenChapter:
        if not isinstance(title, str) or not title.strip():
            raise PayloadError(f"chapter: expected a title, got {title!r:.80}")
        chapter = OpenChapter(
            self, ids.chapter_id(), agent or (parent.agent if parent else self.agent), parent
        )
        data = {"title": title} | ({"parent": parent.id} if parent is not None else {})
        self._write("chapter_opened", data, chapter.agent, chapter.id, None)
        with self._turn:
            self._open.append(chapter)
        return chapter

    def _record(
        self, type: str, data: dict[str, Any], agent: str | None, occurred_at: datetime | None
    ) -> str:
        chapter = self._current()
        if chapter is not None:
            return chapter._record(type, data, agent, occurred_at)
        return self._write(type, data, agent or self.agent, None, occurred_at)

    def _write(
        self, type: str, data: dict[str, Any], agent: str, chapter: str | None, occurred_at: datetime | None
    ) -> str:
        entry = self._entry(type, data, agent, chapter, occurred_at)
        with self._turn:
            self.folder.files.append(self.id, self._tail, entry)
        return entry.id

    def _end(self, type: str, data: dict[str, Any]) -> None:
        entry = self._entry(type, data, self.agent, None, None)
        with self._turn:
            self.folder.files.end(self.id, self._tail, entry)

    def _entry(
        self, type: str, data: dict[str, Any], agent: str, chapter: str | None, occurred_at: datetime | None
    ) -> line.Entry:
        now = self.folder.now()
        when = from_datetime(occurred_at) if occurred_at is not None else now
        entry = line.new(
            ids.event_id(), type, data, occurred_at=when, recorded_at=now, agent=agent, chapter=chapter
        )
        return self.folder.files.ready(entry, self.id)

    def _fail(self, chapter: OpenChapter, error: BaseException) -> None:
        """Record an exception once, in the innermost chapter that it leaves."""
        if self._told is not error:
            self._told = error
            chapter.error(_one_line(error), raw=_cause(error))


class OpenChapter(Writer):
    """A chapter to write in; `with` makes it the current one and closes it."""

    def __init__(self, trail: OpenTrail, chapter_id: str, agent: str, parent: OpenChapter | None) -> None:
        self.trail = trail
        self.trail_id = trail.id
        self.id = chapter_id
        self.agent = agent
        self.parent = parent
        self._closed = False

    def __repr__(self) -> str:
        return f"<chapter {self.id} of {self.trail_id}>"

    def chapter(self, title: str, *, agent: str | None = None) -> OpenChapter:
        """Open a chapter inside this one."""
        return self.trail._chapter(title, agent, self)

    def close(self) -> None:
        """Say that the chapter is done. Further events of it are kept all the same."""
        if not self._closed:
            self._closed = True
            with self.trail._turn:
                self.trail._open.remove(self)
            self.trail._write("chapter_closed", {}, self.agent, self.id, None)

    def __enter__(self) -> Self:
        _stack.set((*_stack.get(), self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        _leave(self)
        if error is not None:
            self.trail._fail(self, error)
        self.close()

    def _record(
        self, type: str, data: dict[str, Any], agent: str | None, occurred_at: datetime | None
    ) -> str:
        return self.trail._write(type, data, agent or self.agent, self.id, occurred_at)


def _leave(part: OpenTrail | OpenChapter) -> None:
    # Not by token: a generator may be closed in another context than it was opened in.
    _stack.set(tuple(other for other in _stack.get() if other is not part))


# ---- the data of entries ------------------------------------------------------------------------------------


def event_data(
    type: str,
    content: str,
    tags: Sequence[str] = (),
    significance: str | None = None,
    confidence: float | None = None,
    raw: Any = None,
) -> dict[str, Any]:
    """The data of an event's entry. Raises PayloadError for what no record may hold."""
    if not isinstance(type, str) or not type or type in STRUCTURE:
        raise PayloadError(f"event: expected a type such as 'note' or 'tool_call', got {type!r:.80}")
    if not isinstance(content, str) or not content.strip():
        raise PayloadError(f"{type}: expected text that says something, got {content!r:.80}")
    data: dict[str, Any] = {"content": content}
    if raw is not None:
        data["raw"] = raw
    if significance is not None:
        data["significance"] = significance
    if tags:
        data["tags"] = texts("tags", tags)
    if confidence is not None:
        data["confidence"] = confidence
    return data


def decision_data(
    question: str,
    chosen: str,
    reasoning: str,
    alternatives: Iterable[str | Alternative | dict[str, str]],
    confidence: float | None,
) -> dict[str, Any]:
    """A decision as JSON data. Raises PayloadError."""
    for what, text in (("question", question), ("choice", chosen)):
        if not isinstance(text, str) or not text.strip():
            raise PayloadError(f"decide: expected a {what}, got {text!r:.80}")
    if not isinstance(reasoning, str) or isinstance(alternatives, str):
        raise PayloadError(
            "decide: expected reasoning as text and alternatives as a list, "
            f"got {reasoning!r:.80} and {alternatives!r:.80}"
        )
    others = [to_record(other) if isinstance(other, Alternative) else other for other in alternatives]
    data = {"question": question, "chosen": chosen, "alternatives": others, "reasoning": reasoning}
    return data | ({} if confidence is None else {"confidence": confidence})


def retrospective_data(**given: Any) -> dict[str, Any]:
    """The keys of a retrospective that are given, as JSON data."""
    names = ("summary", "approach", "confidence", "time_spent")
    lists = ("challenges", "learnings", "suggestions")
    unknown = set(given) - {*names, *lists, "decisions"}
    if unknown:
        raise PayloadError(
            f"retrospective: expected {', '.join((*names, *lists))}, got {', '.join(sorted(unknown))}"
        )
    data = {
        ("timeSpent" if name == "time_spent" else name): given[name]
        for name in names
        if given.get(name) is not None
    }
    data |= {name: texts(name, given[name]) for name in lists if given.get(name)}
    decisions = [to_record(decision) for decision in given.get("decisions", ())]
    return data | ({"decisions": decisions} if decisions else {})


def artifacts(commits: Sequence[str], files_changed: Sequence[str], end_ref: str | None) -> dict[str, Any]:
    """What the work left behind, as JSON data."""
    data: dict[str, Any] = {
        "commits": texts("commits", commits),
        "filesChanged": texts("files_changed", files_changed),
    }
    data["endRef"] = end_ref
    return {key: value for key, value in data.items() if value}


def texts(name: str, values: Sequence[str]) -> list[str]:
    """A list of text. Raises PayloadError, also for one text in place of a list."""
    if isinstance(values, str) or not all(isinstance(value, str) for value in values):
        raise PayloadError(f"{name}: expected a list of text, got {values!r:.80}")
    return list(values)


def _one_line(error: BaseException | None) -> str:
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return text if len(text) <= 500 else text[:499] + "…"


def _cause(error: BaseException) -> dict[str, Any]:
    frames = traceback.extract_tb(error.__traceback__)
    where = [
        f"{frame.name}:{frame.lineno}" for frame in frames[-5:]
    ]  # names, not paths: those are of one machine
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    data: dict[str, Any] = {"type": type(error).__name__, "message": str(error)[:2000], "where": where}
    return data | ({"cause": _one_line(cause)} if cause is not None else {})
