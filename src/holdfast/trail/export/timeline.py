"""A trail for the terminal: bars that show which chapters ran at the same time, then the tree in its order.

    09:00:00  ██████████████··········  12m 03s  1 Survey (ana)
    09:01:00  ·█████··················   3m 00s  ├─ 1.1 Read the lexer (ben) ∥ 1
    09:01:30  ·█████████··············   8m 10s  └─ 1.2 Read the parser (carl) ∥ 1

Text of users stands last in each line, so that no letter's width can move what follows it.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from ..model import Event, Trail
from . import outline
from .outline import Row
from .text import clip, clock, count, line, percent, span, utc

BAR = 24
WORDS = 140
"""Characters of a text that a line shows; the record has them all."""


def render(trail: Trail) -> str:
    """The trail as a tree, in lines for a terminal; times are in UTC."""
    return _Timeline(trail).whole()


class _Timeline:
    def __init__(self, trail: Trail) -> None:
        self.trail = trail
        self.first, self.last = outline.extent(trail)
        one_day = self.first.date() == self.last.date()
        self.day = self.first if one_day else None  # a trail of several days has its dates in each line
        self.blank = " " * (8 if one_day else 19)

    def whole(self) -> str:
        trail, rows = self.trail, outline.tree(self.trail)
        parts = [self.head()]
        if len(trail.chapters) > 1:
            parts.append(self.bars(rows))
        parts.append([each for row in rows for each in self.chapter(row, "", "")])
        parts.append(self.end())
        return "\n\n".join("\n".join(part) for part in parts if part) + "\n"

    def head(self) -> list[str]:
        trail, start, end = self.trail, self.trail.started_at, self.trail.completed_at
        until = f" to {clock(end, start)} UTC, {span(utc(end) - utc(start))}" if end is not None else " UTC"
        who = [
            f"{line(name)} ({line(role)})" if role else line(name)
            for name, role in outline.agents(trail).items()
        ]
        lines = [line(trail.title), f"{line(trail.id)} · {trail.status}", f"{clock(start)}{until}"]
        return [*lines, ", ".join(who)] if who else lines

    def bars(self, rows: list[Row], before: str = "") -> list[str]:
        lines = []
        for row in rows:
            joint, below = ("", "") if row.depth == 1 else _joint(row is rows[-1])
            beside = f" ∥ {row.beside}" if row.beside else ""
            bar = f"{self.bar(row)}  {_took(row):>7}"
            lines.append(f"{self.at(row.start)}  {bar}  {before}{joint}{_name(row)}{beside}")
            lines.extend(self.bars(row.children, before + below))
        return lines

    def bar(self, row: Row) -> str:
        """Its part of the whole, at least one cell wide."""
        whole = (self.last - self.first) or timedelta(microseconds=1)
        left = min(BAR - 1, int((row.start - self.first) / whole * BAR))
        end = row.end or self.last
        right = min(BAR, max(left + 1, round((end - self.first) / whole * BAR)))
        return "·" * left + "█" * (right - left) + "·" * (BAR - right)

    def chapter(self, row: Row, joint: str, below: str) -> list[str]:
        """A chapter's line, and below it its events and chapters in the order of their time."""
        beside = f" ∥ beside {count(row.beside, 'other')}" if row.beside else ""
        lines = [f"{self.at(row.start)}  {joint}{_name(row)}, {_took(row)}{beside}"]
        rest = outline.left_out(event for event in row.chapter.events if not outline.matters(event))
        parts = _in_order(row)
        for position, part in enumerate(parts, start=1):
            own, under = _joint(position == len(parts) and not rest)
            if isinstance(part, Row):
                lines.extend(self.chapter(part, below + own, below + under))
            else:
                lines.append(f"{self.at(outline.moment(part))}  {below}{own}{_event(row, part)}")
        return [*lines, f"{self.blank}  {below}└─ (and {rest})"] if rest else lines

    def end(self) -> list[str]:
        trail, told = self.trail, self.trail.retrospective
        sure = (
            f", {percent(told.confidence)} sure" if told is not None and told.confidence is not None else ""
        )
        lines = []
        if trail.completed_at is not None:
            lines.append(f"{self.at(trail.completed_at)}  {trail.status}{sure}")
        if trail.abandon_reason:
            lines.append(f"{self.blank}  reason: {clip(trail.abandon_reason, WORDS)}")
        if told is not None:
            lines.append(f"{self.blank}  {clip(told.summary, WORDS)}")
        return lines

    def at(self, when: datetime | None) -> str:
        return f"{clock(when, self.day):<{len(self.blank)}}"


def _joint(final: bool) -> tuple[str, str]:
    """How a line hangs in the tree, and what stands before the lines below it."""
    return ("└─ ", "   ") if final else ("├─ ", "│  ")


def _name(row: Row) -> str:
    return f"{row.number} {clip(row.chapter.title, WORDS)} ({clip(row.chapter.agent_name, 60)})"


def _took(row: Row) -> str:
    return span(row.end - row.start) if row.end is not None else "open"


def _in_order(row: Row) -> list[Event | Row]:
    """Events in the order in which they were recorded; a chapter goes before the first event after its start."""
    parts: list[Event | Row] = []
    waiting = sorted(row.children, key=lambda child: child.start)[::-1]
    for event in filter(outline.matters, row.chapter.events):
        when = outline.moment(event)
        while waiting and when is not None and waiting[-1].start < when:
            parts.append(waiting.pop())
        parts.append(event)
    return [*parts, *reversed(waiting)]


def _event(row: Row, event: Event) -> str:
    by = f" by {clip(event.agent, 60)}" if event.agent and event.agent != row.chapter.agent_name else ""
    remarks = outline.remarks(event)
    more = f" ({', '.join(remarks)})" if remarks else ""
    return f"{clip(event.type, 40)}{by}{more}: {clip(outline.told(event), WORDS)}"
