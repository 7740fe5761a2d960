"""Decisions as events: how a choice becomes an event's content and `raw`, and how it is read back.

Records of other tools hold decisions in several ways: `raw` with a question, without one, or not at all, the
content as 'question: chosen' or 'question → chosen: reasoning'. None of them is dropped for its form.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .model import Alternative, Decision

if TYPE_CHECKING:
    from .model import Event


def content_of(question: str, chosen: str) -> str:
    """What a decision's event says: 'question: chosen', or the choice alone where they are the same."""
    return chosen if question == chosen else f"{question}: {chosen}"


def decision_of(event: Event) -> Decision | None:
    """The decision that an event reports; None for events of other types."""
    if event.type != "decision":
        return None
    raw = event.raw if isinstance(event.raw, dict) else {}
    question, chosen, reasoning = _read(event.content)
    return Decision(
        question=_text(raw.get("question")) or question,
        chosen=_text(raw.get("chosen")) or chosen,
        alternatives=[a for given in _list(raw.get("alternatives")) if (a := _alternative(given))],
        reasoning=_text(raw.get("reasoning")) or ("" if raw else reasoning),
        confidence=_confidence(raw.get("confidence", event.confidence)),
    )


def _read(content: str) -> tuple[str, str, str]:
    """Question, choice and reasoning from 'q → c: r', 'q: c' or a choice alone."""
    question, arrow, rest = content.partition(" → ")
    if arrow and question and rest:
        chosen, _, reasoning = rest.partition(": ")
        return question, chosen or rest, reasoning
    question, colon, chosen = content.partition(": ")
    if colon and question and chosen:
        return question, chosen, ""
    return content, content, ""


def _alternative(given: Any) -> str | Alternative | None:
    if isinstance(given, dict) and _text(given.get("option")):
        extra = {key: value for key, value in given.items() if key not in ("option", "reason")}
        return Alternative(option=given["option"], reason=_text(given.get("reason")) or None, extra=extra)
    return _text(given) or None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _confidence(value: Any) -> float | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and 0 <= value <= 1 else None
