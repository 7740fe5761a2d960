"""A trail in Markdown, for people and for pull requests.

What people and agents wrote is escaped (CommonMark, and the tables, formulas and strikethrough of GitHub), so
that it can begin no heading, list, table, code or HTML. Text of several lines that looks like code, with
indented lines or fences of its own, stands in a fence that is longer than any in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..model import Alternative, Decision, Event, Trail
from . import outline
from .outline import Row
from .text import address, clean, clock, count, line, percent, span, utc, with_code

_SPECIAL = re.compile(r"[\\`*\[\]|~$<]|&(?=[#\w])|(?<![^\W_])_|_(?![^\W_])|(?<= )#+$")
_BEGINS = re.compile(r"[#>+=:-]")
_NUMBERED = re.compile(r"(\d{1,9})([.)])")
_ENTITIES = {"<": "&lt;", "&": "&amp;"}


def render(trail: Trail) -> str:
    """The trail as Markdown; its last line says of which trail and of how many events it is."""
    parts = [[f"# {inline(trail.title)}"], _facts(trail)]
    if trail.task.description:
        parts.append(block(trail.task.description))
    if trail.abandon_reason:
        parts.extend([["## Why it was abandoned"], block(trail.abandon_reason)])
    parts.extend(_summary(trail))
    rows = outline.tree(trail)
    made = outline.decisions(trail)
    if made:
        parts.append(["## Key decisions"])
        for number, (decision, event) in enumerate(made, start=1):
            parts.extend(_decision(trail, number, decision, event))
    if rows:
        parts.append(["## Chapters"])
        for row in outline.walk(rows):
            parts.extend(_chapter(trail, row))
    retrospective = trail.retrospective
    if retrospective is not None:
        parts.extend(bullets("Challenges", retrospective.challenges))
        parts.extend(bullets("Learnings", retrospective.learnings))
        parts.extend(bullets("Suggestions", retrospective.suggestions))
    parts.extend(_artifacts(trail))
    parts.append([outline.signature(trail)])
    return "\n\n".join("\n".join(part).rstrip() for part in parts) + "\n"


# ---- text


def inline(text: str) -> str:
    """User text as one line that Markdown shows as it is; `words` between backticks stay code."""
    pieces = with_code(line(text))
    return _at_start(
        "".join(f"`{piece}`" if coded else _SPECIAL.sub(_escape, piece) for piece, coded in pieces)
    )


def block(text: str, indent: str = "") -> list[str]:
    """User text as the lines of a block; within a list item, each line has its indent."""
    given = [each.rstrip() for each in clean(text).strip("\n").split("\n")]
    if len(given) > 1 and any(each.startswith((" ", "\t", "```", "~~~")) for each in given):
        longest = max((len(run) for run in re.findall("`+", text)), default=0)
        fence = "`" * max(3, longest + 1)
        return [(indent + each).rstrip() for each in (f"{fence}text", *given, fence)]
    shown = [inline(each) if each.strip() else "" for each in given]
    return [
        f"{indent}{each}\\" if each and following else f"{indent}{each}".rstrip()
        for each, following in zip(shown, [*shown[1:], ""], strict=True)
    ]


def code(text: str) -> str:
    """User text as code within a line."""
    shown = line(text)
    longest = max((len(run) for run in re.findall("`+", shown)), default=0)
    ticks = "`" * (longest + 1)
    return f"{ticks} {shown} {ticks}" if "`" in shown else f"{ticks}{shown}{ticks}"


def link(label: str, url: str | None) -> str:
    """User text as a link, where the URL is one of the web; else the text, and the URL as code."""
    where = address(url)
    if where is not None:
        return f"[{inline(label)}](<{where.replace('&', '&amp;')}>)"
    return f"{inline(label)} ({code(url)})" if url else inline(label)


def _escape(match: re.Match[str]) -> str:
    return _ENTITIES.get(match[0], "\\" + match[0])


def _at_start(text: str) -> str:
    if _BEGINS.match(text):
        return "\\" + text
    return _NUMBERED.sub(r"\1\\\2", text, count=1) if _NUMBERED.match(text) else text


def _item(head: str, text: str) -> list[str]:
    """A list item: a head, and the text beside it, or below it if it has several lines."""
    if "\n" not in clean(text).strip():
        return [" ".join(each for each in ("-", head, inline(text)) if each)]
    below = block(text.strip(), "  ")
    return [f"- {head}", "", *below, ""] if head else [f"- {below[0].lstrip()}", *below[1:], ""]


def bullets(title: str, texts: Iterable[str]) -> list[list[str]]:
    """A section of user texts as a list; nothing where there are none."""
    given = [text for text in texts if text.strip()]
    return [[f"## {title}"], [each for text in given for each in _item("", text)]] if given else []


# ---- sections


def _facts(trail: Trail) -> list[str]:
    start, end = trail.started_at, trail.completed_at
    facts = [("Status", f"**{trail.status}**")]
    source = trail.task.source
    if source is not None:
        facts.append(("Task", link(f"{source.system} {source.id}", source.url)))
    facts.append(("Began", f"{clock(start)} UTC"))
    if end is not None:
        facts.append(("Ended", f"{clock(end)} UTC, after {span(utc(end) - utc(start))}"))
    who = [
        f"{inline(name)} ({inline(role)})" if role else inline(name)
        for name, role in outline.agents(trail).items()
    ]
    if who:
        facts.append(("Agents", ", ".join(who)))
    told = trail.retrospective
    if told is not None and told.confidence is not None:
        facts.append(("Confidence", percent(told.confidence)))
    if told is not None and told.time_spent:
        facts.append(("Time spent", inline(told.time_spent)))
    facts.extend(
        (name, code(id))
        for name, id in (("Project", trail.project_id), ("Workflow", trail.workflow_id))
        if id
    )
    if trail.tags:
        facts.append(("Tags", ", ".join(code(tag) for tag in trail.tags)))
    facts.append(("Trail", code(trail.id)))
    return [f"- {name}: {value}" for name, value in facts]


def _summary(trail: Trail) -> list[list[str]]:
    told = trail.retrospective
    if told is None:
        return []
    parts = [["## Summary"], block(told.summary)]
    if told.approach and told.approach != "Standard approach":
        parts.extend([["**Approach**"], block(told.approach)])
    return parts


def _decision(trail: Trail, number: int, decision: Decision, event: Event | None) -> list[list[str]]:
    parts = [[f"### {number}. {inline(decision.question)}"]]
    sure = f" ({percent(decision.confidence)} sure)" if decision.confidence is not None else ""
    if decision.chosen != decision.question or sure:
        parts.append([f"**Chosen{sure}:** {inline(decision.chosen)}"])
    if decision.reasoning.strip():
        parts.extend([["**Reasons:**"], block(decision.reasoning)])
    if decision.alternatives:
        parts.append(["**Not chosen:**"])
        parts.append([each for other in decision.alternatives for each in _alternative(other)])
    if event is not None:
        who = f"{inline(event.agent)}, " if event.agent else ""
        parts.append([f"*{who}{clock(outline.moment(event), trail.started_at)}*"])
    return parts


def _alternative(other: str | Alternative) -> list[str]:
    if isinstance(other, str):
        return _item("", other)
    return _item("", f"{other.option}: {other.reason}" if other.reason else other.option)


def _chapter(trail: Trail, row: Row) -> list[list[str]]:
    chapter, day = row.chapter, trail.started_at
    until = (
        f"{clock(row.end, row.start)} ({span(row.end - row.start)})" if row.end is not None else "still open"
    )
    beside = f", beside {count(row.beside, 'other')}" if row.beside else ""
    parts = [
        [f"{'#' * min(6, row.depth + 2)} {row.number} · {inline(chapter.title)}"],
        [f"{inline(chapter.agent_name)}: {clock(row.start, day)} to {until}{beside}"],
    ]
    shown = [event for event in chapter.events if outline.matters(event)]
    lines = [each for event in shown for each in _event(trail, row, event)]
    rest = outline.left_out(event for event in chapter.events if not outline.matters(event))
    if rest:
        lines.append(f"- (and {inline(rest)}, in the record)")
    return [*parts, lines] if lines else parts


def _event(trail: Trail, row: Row, event: Event) -> list[str]:
    head = f"{clock(outline.moment(event), trail.started_at)} **{inline(event.type)}**"
    if event.agent and event.agent != row.chapter.agent_name:
        head += f" by {inline(event.agent)}"
    remarks = outline.remarks(event)
    if remarks:
        head += f" ({inline(', '.join(remarks))})"
    lines = _item(f"{head}:", outline.told(event))
    changes = outline.adjustments(event)
    return [*lines, *(f"  {each}" for each in _item("Adjustments:", changes))] if changes.strip() else lines


def _artifacts(trail: Trail) -> list[list[str]]:
    parts: list[list[str]] = []
    if trail.commits:
        parts.append([f"**Commits** ({len(trail.commits)})"])
        parts.append([f"- {code(commit)}" for commit in trail.commits])
    if trail.files_changed:
        parts.append([f"**Files** ({len(trail.files_changed)})"])
        parts.append([f"- {code(name)}" for name in trail.files_changed])
    if trail.trace is not None:
        ends = f" to {code(trail.trace.end_ref)}" if trail.trace.end_ref else ""
        parts.append([f"Code from {code(trail.trace.start_ref)}{ends}"])
    return [["## Artifacts"], *parts] if parts else []
