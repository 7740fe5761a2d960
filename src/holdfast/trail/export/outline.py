"""What there is to tell of a trail, before it is put into a form: the tree of chapters, what in them matters.

A reader of a trail wants what was meant to be read: decisions, findings, reflections, errors, notes, evidence
and types that we do not know, for somebody wrote them on purpose. What a machine says while it works
(prompts, thinking, calls of tools, messages) is counted, not told, unless it is marked high or critical; so
is what its writer marked low. A count stands in the place of all that is left out.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

import msgspec

from ..decisions import content_of
from ..model import Chapter, Decision, Event, Trail
from .text import clock, line, utc

DEEPEST = 8
"""Chapters below this depth stand beside their parent: nobody sees nine levels, and a page breaks at 500."""

TALK = ("prompt", "thinking", "tool_call", "tool_result", "message_sent", "message_received")
ALWAYS = ("decision", "finding", "reflection", "error", "abandoned")
_USUALLY_HIGH = ("decision", "error", "reflection", "abandoned")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SAME_TIME = timedelta(minutes=1)


class Row(msgspec.Struct, eq=False):
    """A chapter in the tree. `end` is None while it is open; `beside` counts siblings of the same hours."""

    chapter: Chapter
    number: str
    depth: int
    start: datetime
    end: datetime | None
    beside: int = 0
    children: list[Row] = []


def tree(trail: Trail) -> list[Row]:
    """The top of the tree of chapters; each chapter stands in it once, whatever their parents say.

    A parent that is not there makes a chapter of the top; of parents in a circle, the first stands at the top.
    """
    below = _children(trail.chapters)
    top = Row(Chapter(id=" ", title=" ", agent_name=" ", started_at=trail.started_at), "", 0, _EPOCH, None)
    seen: set[int] = set()
    for root in (*below.get(None, ()), *range(len(trail.chapters))):
        stack = [(root, top)]
        while stack:
            index, parent = stack.pop()
            if index in seen:
                continue
            seen.add(index)
            row = _row(trail.chapters[index], parent)
            target = row if row.depth < DEEPEST else parent
            stack.extend((child, target) for child in reversed(below.get(index, ())))
    for row in (top, *walk(top.children)):
        _count_beside(row.children)
    return top.children


def walk(rows: Iterable[Row]) -> Iterator[Row]:
    """All rows, each before its children."""
    for row in rows:
        yield row
        yield from walk(row.children)


def extent(trail: Trail) -> tuple[datetime, datetime]:
    """From when to when: the trail's own times and those of its chapters; of open ones, the last event's."""
    times = [utc(trail.started_at)]
    if trail.completed_at is not None:
        times.append(utc(trail.completed_at))
    for chapter in trail.chapters:
        times.append(utc(chapter.started_at))
        times.extend([utc(chapter.ended_at)] if chapter.ended_at is not None else _moments(chapter))
    return min(times), max(times)


def moment(event: Event) -> datetime | None:
    """When it happened; None where the record's number is no time."""
    if event.occurred_at is not None:
        return utc(event.occurred_at)
    try:
        return _EPOCH + timedelta(milliseconds=event.ts)
    except OverflowError:
        return None


def matters(event: Event) -> bool:
    """Whether a reader wants to see it (see above)."""
    if event.type in ALWAYS or event.significance in ("high", "critical") or event.late:
        return True
    return event.type not in TALK and event.significance != "low"


def left_out(events: Iterable[Event]) -> str:
    """'9 tool_call, 5 thinking': what is not told; '' for nothing."""
    counts = Counter(line(event.type) for event in events)
    return ", ".join(
        f"{number} {type}" for type, number in sorted(counts.items(), key=lambda c: (-c[1], c[0]))
    )


def told(event: Event) -> str:
    """The event in words. A decision that other tools wrote as 'A: A' is 'A'."""
    decision = event.decision
    if decision is None:
        return event.content
    question, chosen = decision.question, decision.chosen
    return (
        f"{question} {chosen}"
        if question.endswith("?") and question != chosen
        else content_of(question, chosen)
    )


def remarks(event: Event) -> list[str]:
    """What else to say of an event: its weight, that it came late, where it is from."""
    said: list[str] = []
    if event.significance == "critical" or (event.significance == "high" and event.type not in _USUALLY_HIGH):
        said.append(event.significance)
    happened = moment(event)
    if event.late:
        said.append("recorded after the end")
    elif event.recorded_at is not None and happened is not None:
        recorded = utc(event.recorded_at)
        if recorded - happened >= _SAME_TIME:
            said.append(f"written down at {clock(recorded, happened)}")
    if event.origin:
        said.append(f"from {line(event.origin)}")
    return said


def adjustments(event: Event) -> str:
    """What a reflection wants to change; '' where it says nothing of it."""
    raw = event.raw if event.type == "reflection" and isinstance(event.raw, dict) else {}
    wanted = raw.get("adjustments")
    return wanted if isinstance(wanted, str) else ""


def decisions(trail: Trail) -> list[tuple[Decision, Event | None]]:
    """Every decision, with its event; those that only the retrospective tells have none."""
    events = [event for event in trail.events if event.decision is not None]
    known = trail.decisions
    return list(zip(known, [*events, *[None] * (len(known) - len(events))], strict=True))


def agents(trail: Trail) -> dict[str, str]:
    """Who took part, as what; also those whom only a chapter or an event names."""
    named = {agent.name: agent.role for agent in trail.agents}
    for chapter in trail.chapters:
        named.setdefault(chapter.agent_name, "")
        for event in chapter.events:
            if event.agent:
                named.setdefault(event.agent, "")
    return named


def event_count(trail: Trail) -> int:
    """How many events the trail has."""
    return sum(len(chapter.events) for chapter in trail.chapters)


def signature(trail: Trail) -> str:
    """The comment at the end of a document: of which trail it is, and of how many events."""
    id = re.sub(r"[^A-Za-z0-9_]", "_", trail.id)
    return f"<!-- holdfast: {id}, {event_count(trail)} events -->"


def _children(chapters: list[Chapter]) -> dict[int | None, list[int]]:
    first: dict[str, int] = {}
    for index, chapter in enumerate(chapters):
        first.setdefault(chapter.id, index)
    below: dict[int | None, list[int]] = {}
    for index, chapter in enumerate(chapters):
        parent = first.get(chapter.parent) if chapter.parent is not None else None
        below.setdefault(None if parent == index else parent, []).append(index)
    return below


def _row(chapter: Chapter, parent: Row) -> Row:
    place = len(parent.children) + 1
    number = f"{parent.number}.{place}" if parent.number else str(place)
    end = utc(chapter.ended_at) if chapter.ended_at is not None else None
    row = Row(chapter, number, parent.depth + 1, utc(chapter.started_at), end)
    parent.children.append(row)
    return row


def _count_beside(rows: list[Row]) -> None:
    """Of siblings, those that neither ended before this one began nor began after it ended."""
    latest = datetime.max.replace(tzinfo=UTC)
    starts = sorted(row.start for row in rows)
    ends = sorted(row.end or latest for row in rows)
    for row in rows:
        end = row.end or latest
        if end > row.start:
            row.beside = max(0, bisect_left(starts, end) - bisect_right(ends, row.start) - 1)


def _moments(chapter: Chapter) -> list[datetime]:
    return [when for event in chapter.events if (when := moment(event)) is not None]
