"""A compaction in Markdown: the same words as its record, for people and for the agents that come after."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .markdown import block, bullets, code, inline
from .text import clock, count

if TYPE_CHECKING:
    from ..compact import Compacted, Made, Source


def render(compacted: Compacted) -> str:
    """The compaction as Markdown."""
    about = f" of workflow {code(compacted.workflow_id)}" if compacted.workflow_id else ""
    parts = [[f"# Compacted trails{about}"], _facts(compacted)]
    if compacted.decision_groups:
        parts.append(["## Decisions"])
    for group in compacted.decision_groups:
        parts.append([f"### {inline(group.category.capitalize())}"])
        for made in group.decisions:
            parts.extend(_made(made))
    parts.extend(bullets("Learnings", compacted.key_learnings))
    parts.extend(bullets("Findings", compacted.key_findings))
    parts.extend(bullets("Challenges", compacted.key_challenges))
    parts.extend(bullets("Suggestions", compacted.key_suggestions))
    parts.append(["## Trails"])
    parts.append([line for source in compacted.sources for line in _source(source)])
    for title, names in (("Commits", compacted.commits), ("Files", compacted.files_affected)):
        if names:
            parts.append([f"## {title}"])
            parts.append([f"- {code(name)}" for name in names])
    return "\n\n".join("\n".join(part).rstrip() for part in parts) + "\n"


def _facts(compacted: Compacted) -> list[str]:
    span, totals = compacted.date_range, compacted.summary
    facts = {
        "Of": f"{count(len(compacted.source_trajectories), 'trail')}, "
        f"{count(totals.total_decisions, 'decision')}, {count(totals.total_events, 'event')}",
        "From": f"{clock(span.start)} to {clock(span.end)} UTC",
        "Agents": ", ".join(inline(name) for name in totals.unique_agents),
        "Compaction": f"{code(compacted.id)}, {clock(compacted.compacted_at)} UTC",
    }
    return [f"- {name}: {value}" for name, value in facts.items() if value]


def _made(made: Made) -> list[list[str]]:
    parts = [[f"**{inline(made.question)}**"]]
    if made.chosen != made.question:
        parts.append([f"Chosen: {inline(made.chosen)}"])
    if made.reasoning.strip():
        parts.append(block(made.reasoning))
    return [*parts, [f"*{code(made.from_trajectory)}*"]]


def _source(source: Source) -> list[str]:
    abandoned = " (abandoned)" if source.status == "abandoned" else ""
    head = f"- {code(source.id)}{abandoned} {inline(source.title)}"
    return (
        [head] if not (source.outcome or "").strip() else [head, "", *block(source.outcome or "", "  "), ""]
    )
