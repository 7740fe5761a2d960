"""What can be told to a trail, checked and as the JSON data of entries; `handle` and `aio` write it down."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar

from ..errors import PayloadError
from .decisions import content_of
from .entry import STRUCTURE
from .model import Alternative, Decision, Significance
from .record import to_record

Id = TypeVar("Id")
Done = TypeVar("Done")


class Telling(Generic[Id]):
    """What can be told to a trail and to a chapter.

    `Id` is what a call gives: the event's id, or in `aio` an awaitable of it. What is told is checked, and where
    it belongs is found, at the call; when the id is there, it is on the disk.
    """

    def note(self, content: str, **more: Any) -> Id:
        """Something worth knowing later; returns the event's id.

        Keywords of every such call: `agent`, `tags`, `significance` (low, medium, high, critical),
        `confidence` (0 to 1), `raw` (any JSON data) and `occurred_at` (an aware datetime, if not now).
        """
        return self.event("note", content, **more)

    def find(self, content: str, *, significance: Significance = "medium", **more: Any) -> Id:
        """A finding: something that was discovered about the code or the problem."""
        return self.event("finding", content, significance=significance, **more)

    def error(self, content: str, *, significance: Significance = "high", **more: Any) -> Id:
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
    ) -> Id:
        """A choice, why it was made and what else could have been.

        Example:
            trail.decide("Which token?", "JWT", reasoning="stateless", alternatives=["session"])
        """
        decision = decision_data(question, chosen, reasoning, alternatives, confidence)
        given = more.pop("raw", None)
        if given is not None:
            decision = {**given, **decision} if isinstance(given, dict) else {**decision, "raw": given}
        return self.event(
            "decision", content_of(question, chosen), raw=decision, significance=significance, **more
        )

    def reflect(
        self,
        content: str,
        *,
        confidence: float | None = None,
        focal_points: Sequence[str] = (),
        adjustments: str | None = None,
        significance: Significance = "high",
        **more: Any,
    ) -> Id:
        """A look back on how it goes; `confidence` is from 0 to 1."""
        if focal_points or adjustments:
            points = texts("focal_points", focal_points)
            told = {"focalPoints": points, "adjustments": adjustments, "confidence": confidence}
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
    ) -> Id:
        """An event of any type, for example 'prompt', 'tool_call' or 'tool_result'; returns its id.

        Raises PayloadError for values of a wrong shape (nothing is written then), TrailNotFound where the
        trail was deleted, TrailError where the disk refuses.
        """
        data = event_data(type, content, tags, significance, confidence, raw)
        return self._record(type, data, agent, occurred_at)

    def _record(self, type: str, data: dict[str, Any], agent: str | None, occurred_at: datetime | None) -> Id:
        raise NotImplementedError


class TrailTelling(Telling[Id], Generic[Id, Done]):
    """What can be told to a trail alone. `Done` is None, or in `aio` an awaitable of None."""

    def join(self, agent: str, role: str = "contributor") -> Done:
        """Say that an agent takes part, and as what. The first role of an agent stays."""
        if not (isinstance(agent, str) and agent and isinstance(role, str) and role):
            raise PayloadError(f"join: expected an agent's name and role, got {agent!r} and {role!r}")
        return self._tell("agent_joined", {"role": role}, agent)

    def tag(self, *tags: str) -> Done:
        """Put tags on the trail."""
        return self._tell("trail_amended", {"tags": texts("tags", tags)})

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
    ) -> Done:
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
        return self._end("trail_completed", data)

    def abandon(
        self,
        reason: str | None = None,
        *,
        cause: BaseException | None = None,
        commits: Sequence[str] = (),
        files_changed: Sequence[str] = (),
        end_ref: str | None = None,
    ) -> Done:
        """End the trail without success, and say why. Raises TrailEnded where it has an end already."""
        data: dict[str, Any] = {}
        if reason is not None and not isinstance(reason, str):
            raise PayloadError(f"abandon: expected a reason as text, got {reason!r:.80}")
        if reason:
            data["reason"] = reason
        if cause is not None:
            data.setdefault("reason", one_line(cause))
            data["cause"] = cause_of(cause)
        return self._end("trail_abandoned", data | artifacts(commits, files_changed, end_ref))

    def amend(
        self, *, commits: Sequence[str] = (), files_changed: Sequence[str] = (), **retrospective: Any
    ) -> Done:
        """Correct or complete what an ended trail says: parts of its retrospective, commits, files.

        Example:
            folder.open(id, late=True).amend(learnings=["the cache was stale"])
        """
        data = retrospective_data(**retrospective) | artifacts(commits, files_changed, None)
        return self._amend(data)

    def _tell(self, type: str, data: dict[str, Any], agent: str | None = None) -> Done:
        raise NotImplementedError

    def _amend(self, data: dict[str, Any]) -> Done:
        raise NotImplementedError

    def _end(self, type: str, data: dict[str, Any]) -> Done:
        raise NotImplementedError


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
    decisions = list(given.get("decisions") or ())
    if not all(isinstance(decision, Decision) for decision in decisions):
        raise PayloadError(f"decisions: expected a list of Decision, got {decisions!r:.80}")
    decisions = [to_record(decision) for decision in decisions]
    return data | ({"decisions": decisions} if decisions else {})


def artifacts(commits: Sequence[str], files_changed: Sequence[str], end_ref: str | None) -> dict[str, Any]:
    """What the work left behind, as JSON data."""
    data: dict[str, Any] = {
        "commits": texts("commits", commits),
        "filesChanged": texts("files_changed", files_changed),
    }
    data["endRef"] = end_ref
    return {key: value for key, value in data.items() if value}


def texts(name: str, values: Iterable[str]) -> list[str]:
    """A list of text. Raises PayloadError, also for one text in place of a list."""
    given = list(values) if isinstance(values, Iterable) and not isinstance(values, str | bytes) else None
    if given is None or not all(isinstance(value, str) for value in given):
        raise PayloadError(f"{name}: expected a list of text, got {values!r:.80}")
    return given


def one_line(error: BaseException) -> str:
    """An exception in a line: its type and its text."""
    text = _text(error)
    line = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return line if len(line) <= 500 else line[:499] + "…"


def cause_of(error: BaseException) -> dict[str, Any]:
    """An exception as JSON data: type, message, where it was raised, and what it came from."""
    # Names, not paths: those are of one machine. No source is read: this may run on an event loop.
    where = [f"{frame.f_code.co_name}:{number}" for frame, number in traceback.walk_tb(error.__traceback__)]
    data: dict[str, Any] = {"type": type(error).__name__, "message": _text(error)[:2000], "where": where[-5:]}
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        data["cause"] = one_line(cause)
    if isinstance(error, BaseExceptionGroup):
        data["exceptions"] = [one_line(part) for part in error.exceptions[:20]]
    return data


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - somebody's __str__; what it reports matters more
        return ""
