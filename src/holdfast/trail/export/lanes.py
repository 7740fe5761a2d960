"""The chart of who worked when: a row for each agent, a bar for each chapter, marks where something turned.

Chapters of one agent that overlap stand in lanes below each other, so parallel work is seen at a glance.
Positions are percentages of the whole time, in the style of each bar: plain boxes, no script, no picture.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from ..model import Trail
from . import outline
from .outline import Row
from .tag import Html, tag
from .text import clip, clock, count, line, span

_MARKED = ("decision", "error", "abandoned")
_TICKS = 4


def lanes(trail: Trail, rows: list[Row], hues: dict[str, str]) -> Html | None:
    """The chart; None where no chapter took any time."""
    first, last = outline.extent(trail)
    if not rows or first == last:
        return None
    scale = _Scale(first, last)
    of_agent: dict[str, list[Row]] = {}
    for row in sorted(outline.walk(rows), key=lambda row: row.start):
        of_agent.setdefault(row.chapter.agent_name, []).append(row)
    agents = [_agent(name, of_agent[name], hues[name], scale) for name in hues if name in of_agent]
    ticks = [
        tag("span", span((last - first) * part / _TICKS), style=f"left:{100 * part / _TICKS:g}%")
        for part in range(_TICKS + 1)
    ]
    axis = tag("div", tag("div"), tag("div", *ticks, class_="ticks"), class_="row axis", aria_hidden="true")
    label = (
        f"{count(len(trail.chapters), 'chapter')} of {count(len(agents), 'agent')} in {span(last - first)}"
    )
    return tag("div", *agents, axis, class_="chart", role="group", aria_label=label)


class _Scale:
    def __init__(self, first: datetime, last: datetime) -> None:
        self.first, self.last = first, last

    def at(self, when: datetime) -> float:
        share = (when - self.first) / ((self.last - self.first) or timedelta(microseconds=1))
        return max(0.0, min(1.0, share)) * 100


def _agent(name: str, rows: Iterable[Row], hue: str, scale: _Scale) -> Html:
    free: list[tuple[datetime, list[Html]]] = []
    for row in rows:
        end = max(row.end or scale.last, row.start)
        bars = [_bar(row, end, scale), *_marks(row, scale)]
        for place, (until, lane) in enumerate(free):
            if until <= row.start:
                free[place] = (end, [*lane, *bars])
                break
        else:
            free.append((end, bars))
    shown = [tag("div", *lane, class_="lane") for _, lane in free]
    return tag(
        "div",
        tag("div", tag("bdi", clip(name, 80)), class_="who", title=line(name)),
        tag("div", *shown),
        class_=f"row {hue}",
    )


def _bar(row: Row, end: datetime, scale: _Scale) -> Html:
    left = scale.at(row.start)
    took = span(end - row.start) if row.end is not None else "open"
    return tag(
        "a",
        clip(row.chapter.title, 80),
        href=f"#c{row.number}",
        class_="span" if row.end is not None else "span open",
        style=f"left:{left:.3f}%;width:{scale.at(end) - left:.3f}%",
        title=f"{row.number} {line(row.chapter.title)}, from {clock(row.start)}, {took}",
    )


def _marks(row: Row, scale: _Scale) -> list[Html]:
    marks = []
    for event in row.chapter.events:
        when = outline.moment(event)
        if event.type in _MARKED and when is not None:
            told = f"{event.type}: {clip(outline.told(event), 120)}"
            marks.append(
                tag("i", class_=f"mark {event.type}", style=f"left:{scale.at(when):.3f}%", title=told)
            )
    return marks
