"""A trail as one page for the browser: no script, no network, nothing beside the file.

The page's policy (CSP) forbids scripts and all loading, should an escape ever be forgotten. It tells what the
Markdown tells, and folded away also what that leaves out: what the machine said while it worked, and raw data.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from itertools import groupby

from ...errors import PayloadError
from ..model import Alternative, Decision, Event, Trail
from ..record import dump
from . import outline
from .lanes import lanes
from .outline import Row
from .tag import Html, joined, tag
from .text import address, clean, clip, clock, count, line, percent, span, utc, with_code

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_LONG = 900
"""Characters from which on an event's text is folded."""


def render(trail: Trail) -> str:
    """The trail as a page that stands alone."""
    return f"<!doctype html>\n{_Page(trail).whole()}\n{outline.signature(trail)}\n"


def body(trail: Trail) -> Html:
    """What the page shows, without the page around it: for a page that has its own (with `page.css`)."""
    return joined(*_Page(trail).parts())


@cache
def _style() -> Html:
    return Html(
        "".join((files(__package__) / name).read_text("utf-8") for name in ("tokens.css", "page.css"))
    )


class _Page:
    def __init__(self, trail: Trail) -> None:
        self.trail = trail
        self.rows = outline.tree(trail)
        self.decisions = outline.decisions(trail)
        self.agents = outline.agents(trail)
        self.hues = {name: f"hue{place % 8}" for place, name in enumerate(self.agents)}
        self.of_event = {
            id(event): place for place, (_, event) in enumerate(self.decisions, 1) if event is not None
        }
        self.row_of = {id(event): row for row in outline.walk(self.rows) for event in row.chapter.events}

    def whole(self) -> Html:
        head = tag(
            "head",
            tag("meta", charset="utf-8"),
            tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", name="color-scheme", content="light dark"),
            tag("title", line(self.trail.title)),
            tag("style", _style()),
        )
        return tag("html", head, tag("body", tag("main", *self.parts())), lang="en")

    def parts(self) -> list[Html | None]:
        told = self.trail.retrospective
        parts = [
            self.header(),
            self.abandoned(),
            self.summary(),
            self.work(),
            self.choices(),
            self.chapters(),
        ]
        if told is not None:
            lists = (
                _texts("Challenges", told.challenges),
                _texts("Learnings", told.learnings),
                _texts("Suggestions", told.suggestions),
            )
            parts.append(tag("div", *lists, class_="columns") if any(lists) else None)
        return [*parts, self.artifacts(), self.footer()]

    # ---- what it is

    def header(self) -> Html:
        trail, told = self.trail, self.trail.retrospective
        start, end = trail.started_at, trail.completed_at
        until = f" – {clock(end, start)} UTC" if end is not None else " UTC"
        facts = [
            tag("span", trail.status, class_=f"status {trail.status}"),
            _sure(told.confidence) if told is not None and told.confidence is not None else None,
            tag("span", span(utc(end) - utc(start)), class_="fact") if end is not None else None,
            tag("span", f"{clock(start)}{until}", class_="fact"),
            tag("span", f"{told.time_spent} spent", class_="fact")
            if told is not None and told.time_spent
            else None,
        ]
        return tag(
            "header",
            tag("p", "Trail ", tag("code", trail.id), class_="eyebrow"),
            tag("h1", line(trail.title), dir="auto"),
            tag("div", *facts, class_="facts"),
            self.people(),
            self.origin(),
            tag("div", _text(trail.task.description), class_="lead") if trail.task.description else None,
        )

    def people(self) -> Html | None:
        if not self.agents:
            return None
        chips = [
            tag(
                "li",
                tag("bdi", line(name)),
                tag("small", line(role)) if role else None,
                class_=f"agent {self.hues[name]}",
            )
            for name, role in self.agents.items()
        ]
        return tag("ul", *chips, class_="chips", aria_label="Agents")

    def origin(self) -> Html | None:
        trail, source = self.trail, self.trail.task.source
        pairs = [
            ("Task", _link(f"{source.system} {source.id}", source.url)) if source is not None else None,
            ("Project", tag("code", line(trail.project_id))) if trail.project_id else None,
            ("Workflow", tag("code", line(trail.workflow_id))) if trail.workflow_id else None,
            ("Tags", joined(*(tag("span", line(each), class_="tag") for each in trail.tags)))
            if trail.tags
            else None,
        ]
        shown = [tag("div", tag("dt", pair[0]), tag("dd", pair[1])) for pair in pairs if pair is not None]
        return tag("dl", *shown) if shown else None

    def abandoned(self) -> Html | None:
        reason = self.trail.abandon_reason
        return (
            tag("section", tag("h2", "Why it was abandoned"), _text(reason), class_="card warning")
            if reason
            else None
        )

    def summary(self) -> Html | None:
        told = self.trail.retrospective
        if told is None:
            return None
        approach = None
        if told.approach and told.approach != "Standard approach":
            approach = joined(tag("h3", "Approach"), _text(told.approach))
        return tag("section", tag("h2", "Summary"), _text(told.summary), approach, class_="card")

    def work(self) -> Html | None:
        chart = lanes(self.trail, self.rows, self.hues)
        return (
            tag("section", tag("h2", "Who worked when"), chart, class_="card") if chart is not None else None
        )

    # ---- decisions

    def choices(self) -> Html | None:
        if not self.decisions:
            return None
        cards = [self.choice(place, *made) for place, made in enumerate(self.decisions, start=1)]
        return tag("section", tag("h2", "Key decisions", _badge(len(cards))), *cards)

    def choice(self, place: int, decision: Decision, event: Event | None) -> Html:
        same = decision.chosen == decision.question
        others = [_alternative(other) for other in decision.alternatives]
        sure = _sure(decision.confidence) if decision.confidence is not None else None
        return tag(
            "article",
            tag("h3", _shown(line(decision.question)), dir="auto"),
            tag(
                "p",
                tag("span", "✓", class_="tick"),
                _shown(line(decision.chosen)),
                class_="chosen",
                dir="auto",
            )
            if not same
            else None,
            _text(decision.reasoning) if decision.reasoning.strip() else None,
            tag("ul", *others, class_="others", aria_label="Not chosen") if others else None,
            tag("p", self.made_by(event), sure, class_="by")
            if event is not None or sure is not None
            else None,
            class_="card choice",
            id=f"d{place}",
        )

    def made_by(self, event: Event | None) -> Html | None:
        if event is None:
            return None
        row = self.row_of[id(event)]
        who = event.agent or row.chapter.agent_name
        where = tag("a", f"{row.number} {line(row.chapter.title)}", href=f"#c{row.number}", dir="auto")
        return joined(self.name(who), " ", _time(event, self.trail), " in ", where)

    # ---- chapters

    def chapters(self) -> Html | None:
        if not self.rows:
            return None
        number = len(self.trail.chapters)
        return tag(
            "section", tag("h2", "Chapters", _badge(number)), *map(self.chapter, self.rows), class_="chapters"
        )

    def chapter(self, row: Row) -> Html:
        took = span(row.end - row.start) if row.end is not None else "still open"
        head = tag(
            "summary",
            tag("span", row.number, class_="number"),
            tag("span", _shown(line(row.chapter.title)), class_="name", dir="auto"),
            self.name(row.chapter.agent_name),
            tag(
                "span",
                f"∥ {row.beside}",
                class_="beside",
                title=f"beside {count(row.beside, 'other chapter')}",
            )
            if row.beside
            else None,
            tag("span", f"{clock(row.start, self.trail.started_at)} · {took}", class_="when"),
        )
        groups = groupby(row.chapter.events, key=outline.matters)
        events = [each for told, group in groups for each in self.events(row, told, list(group))]
        return tag(
            "details",
            head,
            tag("ol", *events, class_="events") if events else None,
            *map(self.chapter, row.children),
            class_=f"chapter {self.hues[row.chapter.agent_name]}",
            id=f"c{row.number}",
            open=True,
        )

    def events(self, row: Row, told: bool, group: list[Event]) -> list[Html]:
        items = [self.event(row, event) for event in group]
        if told:
            return items
        folded = tag("details", tag("summary", outline.left_out(group)), tag("ol", *items, class_="events"))
        return [tag("li", folded, class_="talk")]

    def event(self, row: Row, event: Event) -> Html:
        by = self.name(event.agent) if event.agent and event.agent != row.chapter.agent_name else None
        notes = [tag("span", note, class_="remark") for note in outline.remarks(event)]
        place = self.of_event.get(id(event))
        more = tag("a", "reasons", href=f"#d{place}", class_="remark") if place is not None else None
        change = outline.adjustments(event)
        body = tag(
            "div",
            tag("div", tag("span", line(event.type), class_="type"), by, *notes, more, class_="about"),
            _folded(outline.told(event)),
            tag("p", tag("b", "Adjustments: "), _shown(change), class_="text", dir="auto")
            if change.strip()
            else None,
            tag("p", *(tag("span", line(each), class_="tag") for each in event.tags)) if event.tags else None,
            _raw(event) if event.raw is not None and event.type != "decision" else None,
        )
        kind = event.type if event.type in _KINDS else "other"
        weight = event.significance or ""
        return tag("li", _time(event, self.trail), body, class_=f"event {kind} {weight}".rstrip())

    # ---- what came of it

    def artifacts(self) -> Html | None:
        trail = self.trail
        if not trail.commits and not trail.files_changed and trail.trace is None:
            return None
        trace = None
        if trail.trace is not None:
            ends = joined(" to ", tag("code", line(trail.trace.end_ref))) if trail.trace.end_ref else None
            trace = tag("p", "Code from ", tag("code", line(trail.trace.start_ref)), ends)
        commits = (
            tag("p", *(tag("code", line(each), class_="tag") for each in trail.commits))
            if trail.commits
            else None
        )
        names = [tag("li", tag("code", line(each))) for each in trail.files_changed]
        changed = None
        if names:
            changed = tag(
                "details",
                tag("summary", count(len(names), "file"), " changed"),
                tag("ul", *names, class_="files"),
                open=len(names) <= 20,
            )
        return tag("section", tag("h2", "Artifacts"), commits, changed, trace, class_="card")

    def footer(self) -> Html:
        events = count(outline.event_count(self.trail), "event")
        return tag("footer", f"Times are in UTC. Made by Holdfast of {self.trail.id}, {events}.")

    def name(self, agent: str) -> Html:
        return tag("bdi", line(agent), class_=f"agent {self.hues.get(agent, 'hue0')}")


_KINDS = ("decision", "finding", "reflection", "error", "abandoned", "note")


def _text(text: str) -> Html:
    return tag("p", _shown(text.strip("\n")), class_="text", dir="auto")


def _shown(text: str) -> Html:
    return joined(*(tag("code", piece) if coded else piece for piece, coded in with_code(clean(text))))


def _texts(title: str, texts: Iterable[str]) -> Html | None:
    items = [tag("li", _shown(each), class_="text", dir="auto") for each in texts if each.strip()]
    return tag("section", tag("h2", title), tag("ul", *items), class_="card") if items else None


def _folded(text: str) -> Html:
    if len(text) <= _LONG:
        return _text(text)
    return tag("details", tag("summary", clip(text, 200), dir="auto"), _text(text), class_="long")


def _raw(event: Event) -> Html:
    try:
        shown = dump(event.raw, indent=2).decode()
    except (TypeError, ValueError, RecursionError) as error:
        raise PayloadError(
            f"{line(event.id or event.type)}: expected raw to be JSON data, got: {error}"
        ) from None
    return tag("details", tag("summary", "data"), tag("pre", shown), class_="raw")


def _alternative(other: str | Alternative) -> Html:
    if isinstance(other, str):
        return tag("li", _shown(other), dir="auto")
    reason = joined(" – ", _shown(other.reason)) if other.reason else None
    return tag("li", _shown(other.option), reason, dir="auto")


def _sure(share: float) -> Html:
    width = max(0.0, min(1.0, share)) * 100
    bar = tag("span", tag("span", style=f"width:{width:.1f}%"), class_="bar")
    return tag("span", bar, f"{percent(share)} confidence", class_="sure")


def _time(event: Event, trail: Trail) -> Html:
    when = outline.moment(event)
    exact = f"{when.isoformat()}" if when is not None else None
    return tag("time", clock(when, trail.started_at), datetime=exact, title=exact)


def _badge(number: int) -> Html:
    return tag("span", str(number), class_="badge")


def _link(label: str, url: str | None) -> Html:
    where = address(url)
    if where is not None:
        return tag("a", line(label), href=where, rel="noopener noreferrer")
    return joined(line(label), tag("code", " ", line(url)) if url else None)
