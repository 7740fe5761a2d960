"""The answers of the program `trail`, in the words and the form that users of the npm tool know."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ..output import ago, clean

Result = Mapping[str, Any]

_MARKS = {"active": "🔄", "completed": "✅", "abandoned": "❌"}
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_NONE = ("No active trajectory", 'Start one with: trail start "Task description"')


def started(result: Result) -> Iterator[str]:
    """`trail start`."""
    yield f"✓ Trajectory started: {result['id']}"
    yield f"  Title: {clean(result['title'])}"
    if result["agent"] not in (None, "default"):
        yield f"  Agent: {clean(result['agent'])}"
    if result.get("projectId"):
        yield f"  Project: {clean(result['projectId'])}"
    source = result["task"].get("source")
    if source is not None:
        yield f"  Linked to: {clean(source['id'])} ({clean(source['system'])})"


def decided(result: Result) -> Iterator[str]:
    """`trail decision`."""
    yield f"✓ Decision recorded: {_title(result)}"
    if result.get("reasoning"):
        yield f"  Reasoning: {clean(result['reasoning'])}"
    if result.get("alternatives"):
        yield f"  Alternatives: {clean(', '.join(result['alternatives']))}"


def reflected(result: Result) -> Iterator[str]:
    """`trail reflect`."""
    yield f"✓ Reflection recorded: {clean(result['content'])}"
    if result.get("focal_points"):
        yield f"  Focal points: {clean(', '.join(result['focal_points']))}"
    if result.get("confidence") is not None:
        yield f"  Confidence: {result['confidence']:g}"
    if result.get("adjustments"):
        yield f"  Adjustments: {clean(result['adjustments'])}"


def completed(result: Result) -> Iterator[str]:
    """`trail complete`."""
    told = result["retrospective"]
    yield f"✓ Trajectory completed: {result['id']}"
    yield f"  Summary: {clean(told['summary'])}"
    if told.get("confidence") is not None:
        yield f"  Confidence: {told['confidence']:.0%}"
    if result.get("commits"):
        yield f"  Commits: {len(result['commits'])}"
    if result.get("filesChanged"):
        yield f"  Files changed: {len(result['filesChanged'])}"


def abandoned(result: Result) -> Iterator[str]:
    """`trail abandon`."""
    yield f"✓ Trajectory abandoned: {result['id']}"
    if result.get("abandonReason"):
        yield f"  Reason: {clean(result['abandonReason'])}"


def status(result: Result) -> Iterator[str]:
    """`trail status`."""
    if result["id"] is None:
        if not result["active"]:
            yield from _NONE
            return
        yield f"{len(result['active'])} active trajectories; name one with --id or $TRAJECTORIES_ID:"
        yield ""
        for trail in result["trails"]:
            yield f"{_MARKS['active']} {trail['id']}"
            yield f"   {clean(trail['title'])}  ({clean(trail.get('agent', 'default'))})"
        return
    yield (
        f"Active Trajectory: {result['id']}"
        if result["status"] == "active"
        else f"Trajectory: {result['id']}"
    )
    yield "━" * 30
    source = result.get("source")
    rows = {
        "Task": result["title"],
        "Source": f"{source['system']}:{source['id']}" if source else "",
        "Status": result["status"],
        "Started": _ago(result["startedAt"]),
        "Chapters": result["chapters"],
        "Events": result["events"],
        "Decisions": result["decisions"],
        "Commits": len(result["commits"]) or "",
        "Files": len(result["filesChanged"]) or "",
    }
    yield from (f"{name + ':':<10} {clean(value)}" for name, value in rows.items() if value != "")
    if result["chapter"] is not None:
        yield ""
        yield f"Current Chapter: {clean(result['chapter']['title'])}"
        yield f"  Agent: {clean(result['chapter']['agent'])}"


def found(trails: Sequence[Result], search: str | None) -> Iterator[str]:
    """`trail list`."""
    if not trails:
        yield "No trajectories found" + (f' matching "{clean(search)}"' if search else "")
        return
    yield f"Found {len(trails)} trajectories" + (f' matching "{clean(search)}":' if search else ":")
    yield ""
    for trail in trails:
        sure = f" ({trail['confidence']:.0%})" if trail.get("confidence") is not None else ""
        yield f"{_MARKS[trail['status']]} {trail['id']}"
        yield f"   {clean(trail['title'])}{sure}"
        yield f"   Started: {_day(trail['startedAt'])}"
        if trail.get("completedAt"):
            yield f"   Completed: {_day(trail['completedAt'])}"
        yield ""


def shown(record: Result, made: Sequence[Result]) -> Iterator[str]:
    """`trail show`."""
    yield f"Trajectory: {record['id']}"
    yield "━" * 50
    yield f"Title:   {clean(record['task']['title'])}"
    yield f"Status:  {record['status']}"
    yield f"Started: {record['startedAt']}"
    if record.get("completedAt"):
        yield f"Ended:   {record['completedAt']}"
    source = record["task"].get("source")
    if source is not None:
        yield f"Source:  {clean(source['system'])}:{clean(source['id'])}"
    yield ""
    yield f"Chapters: {len(record['chapters'])}"
    for chapter in record["chapters"]:
        yield f"  • {clean(chapter['title'])} ({clean(chapter['agentName'])})"
        yield f"    Events: {len(chapter['events'])}"
    if made:
        yield ""
        yield f"Decisions: {len(made)}"
        yield from (f"  • {_title(decision)}" for decision in made)
    if record.get("abandonReason"):
        yield ""
        yield f"Abandoned: {clean(record['abandonReason'])}"
    told = record.get("retrospective")
    if told is not None:
        yield ""
        yield "Retrospective:"
        yield f"  Summary: {clean(told['summary'])}"
        if told.get("confidence") is not None:
            yield f"  Confidence: {told['confidence']:.0%}"
        for name in ("challenges", "learnings", "suggestions"):
            yield from (f"  {name[:-1].capitalize()}: {clean(text)}" for text in told.get(name, ()))


def decisions(record: Result, made: Sequence[Result]) -> Iterator[str]:
    """`trail show -d`: all of them, also those without a reason."""
    yield f"Decisions for {clean(record['task']['title'])}:"
    yield ""
    for decision in made:
        yield f"• {clean(decision['question'])}"
        yield f"  Chose: {clean(decision['chosen'])}"
        if decision.get("reasoning"):
            yield f"  Reasoning: {clean(decision['reasoning'])}"
        others = [a if isinstance(a, str) else a["option"] for a in decision["alternatives"]]
        if others:
            yield f"  Alternatives: {clean(', '.join(others))}"
        yield ""
    if not made:
        yield "No decisions recorded"


def trace(record: Result, made: Sequence[Result]) -> Iterator[str]:
    """`trail show -t`."""
    yield f"Trace for {clean(record['task']['title'])}:"
    yield ""
    told = record.get("_trace")
    if told is None:
        yield "No trace information available"
        return
    yield "Trace Reference:"
    names = {"startRef": "Start Ref:", "endRef": "End Ref:", "traceId": "Trace ID:"}
    yield from (f"  {label:<11}{clean(told[key])}" for key, label in names.items() if told.get(key))


def compacted(result: Result) -> Iterator[str]:
    """`trail compact`."""
    told = result["compacted"]
    if told is None:
        yield (
            "No trajectories found matching criteria"
            if result["narrow"]
            else "No uncompacted trajectories found. Use --all to include previously compacted."
        )
        return
    yield f"Compacting {len(told['sourceTrajectories'])} trajectories..."
    yield ""
    if result["dryRun"]:
        yield "=== DRY RUN - Preview ==="
    for path in result["paths"]:
        yield f"{'Markdown summary' if path.endswith('.md') else 'Compacted trajectory'} saved to: {clean(path)}"
    gone = result["discarded"]
    if gone is not None:
        yield (
            f"Discarded source trajectories: {gone['trails']} trajectories, {gone['records']} JSON files, "
            f"{gone['pages']} Markdown files, {gone['traces']} trace files, {gone['markers']} compaction markers"
        )
    yield ""
    yield f"Decisions: {told['summary']['totalDecisions']}"
    yield from (f"  {group['category']}: {len(group['decisions'])}" for group in told["decisionGroups"])
    yield f"Learnings: {len(told['keyLearnings'])}"
    yield f"Findings:  {len(told['keyFindings'])}"


def enabled(result: Result) -> Iterator[str]:
    """`trail enable`."""
    yield "Trajectory hook installed" if result["changed"] else "Trajectory hook is already installed"


def disabled(result: Result) -> Iterator[str]:
    """`trail disable`."""
    yield "Trajectory hook removed" if result["changed"] else "No trajectory hook installed"


def _title(decision: Result) -> str:
    question, chosen = decision.get("question") or decision.get("content", ""), decision["chosen"]
    return clean(chosen if question == chosen else f"{question}: {chosen}")


def _ago(text: str) -> str:
    from ...clock import SystemClock, from_text

    now, then = SystemClock().now(), from_text(text)
    return "0s ago" if now - then < 1_000_000 else ago(then, now)


def _day(text: str) -> str:
    when = datetime.fromisoformat(text).astimezone(UTC)
    return f"{_MONTHS[when.month - 1]} {when.day}, {when.year}"


LINES: dict[str, Callable[[Result], Iterator[str]]] = {
    "start": started,
    "decide": decided,
    "reflect": reflected,
    "complete": completed,
    "abandon": abandoned,
    "status": status,
    "compact": compacted,
    "enable": enabled,
    "disable": disabled,
}
"""Commands whose answers the npm tool's users know, and how they read."""
