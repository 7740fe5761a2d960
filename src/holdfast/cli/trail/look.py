"""`status`, `list`, `show`, `search`: reading trails."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from .. import output
from .call import AGENT, SESSION, Call
from .words import Argument, Option, command, instant, number, one_of

if TYPE_CHECKING:
    from ...trail.folder import TrailFolder
    from ...trail.model import Summary, Trail

_TREE = re.compile(r"([\d:. -]*)([│├└─ ]*)")
"""The time at which a line of the tree begins, and its branches."""
_LIMIT = Option("-l --limit", "N", "At most so many; 0 or nothing for all.", read=number)


@command(
    Option("-v --verbose", "", "Read all files first, and say which cannot be read."),
    Option("--id", "ID", "This trail. Without it: $TRAJECTORIES_ID, else the one that a command writes to."),
    AGENT,
    SESSION,
    examples=["status", "status --json"],
    codes={0: "shown, also where none is active", 2: "cannot: there is no such trail"},
)
def status(call: Call, verbose: bool = False) -> int:
    """Show the active trail, or all that could be meant."""
    from .which import current

    if verbose:
        _tell_unreadable(call)
    trail_id, active = current(call)
    if trail_id is not None:
        return _status_of(call, trail_id, active)
    told = {"id": None, "active": [trail.id for trail in active]}
    if call.json or call.program.npm:
        return call.answer(told | {"trails": [_row_json(trail) for trail in active]}, ())
    if active:
        _table(active)
        output.note(f"{len(active)} are active, and none is the caller's alone; --id names one")
    else:
        output.note(f"no active trail in {call.folder.root}")
    return 0


def _status_of(call: Call, trail_id: str, active: list[Summary]) -> int:
    from ...trail.record import to_record

    trail = call.folder.load(trail_id)
    record = to_record(trail)
    kept = ("id", "status", "startedAt", "completedAt", "projectId", "workflowId", "session", "worktree")
    told: dict[str, Any] = {key: record[key] for key in kept if key in record}
    place = next((c for c in reversed(trail.chapters) if c.ended_at is None), None)
    commits, files = trail.commits, trail.files_changed
    if trail.status == "active":
        from .git import done_since

        done = done_since(
            trail.trace.start_ref if trail.trace else None, record["startedAt"], call.folder.root
        )
        commits, files = done.commits, done.files
    told |= {
        "title": trail.title,
        "source": record["task"].get("source"),
        "agents": [agent.name for agent in trail.agents],
        "chapters": len(trail.chapters),
        "events": len(trail.events),
        "decisions": len(trail.decisions),
        "commits": commits,
        "filesChanged": files,
        "chapter": None if place is None else _chapter_json(place.id, place.title, place.agent_name),
        "active": [other.id for other in active],
    }
    return call.answer(told, _status_lines(trail, told))


def _chapter_json(id: str, title: str, agent: str) -> dict[str, str]:
    return {"id": id, "title": title, "agent": agent}


def _status_lines(trail: Trail, told: dict[str, Any]) -> list[str]:
    others = [other for other in told["active"] if other != trail.id]
    holds = [_count(told[f"{what}s"], what) for what in ("chapter", "event", "decision")]
    facts = [*_facts(trail), ("holds", ", ".join(holds))]
    if told["commits"] or told["filesChanged"]:
        facts.append(
            ("made", f"{_count(len(told['commits']), 'commit')}, {_count(len(told['filesChanged']), 'file')}")
        )
    if told["chapter"] is not None:
        place = told["chapter"]
        facts.append(("chapter", output.clean(f"{place['title']}  ({place['agent']}, {place['id']})")))
    if others:
        facts.append(("others", f"{len(others)} more active: {', '.join(others[:5])}"))
    return [_heading(trail), output.clean(trail.title), *map(_fact, facts)]


def _tell_unreadable(call: Call) -> None:
    from ...trail.doctor import diagnose

    failures = diagnose(call.folder).failures
    for failure in failures:
        output.note(output.clean(f"{failure.path}: {failure.reason}: {failure.message}"))
    output.note(f"{_count(len(failures), 'file')} cannot be read" if failures else "all files can be read")


# ---- lists --------------------------------------------------------------------------------------------------


@command(
    Option(
        "-s --status",
        "STATUS",
        "Only active, completed or abandoned ones.",
        read=one_of("active", "completed", "abandoned"),
    ),
    _LIMIT,
    Option("--search", "TEXT", "Only those that hold all these words, in whatever place."),
    Option("--since", "TIME", "Only those started since: an ISO date, or 3h, 7d, 2w, 1m ago.", read=instant),
    Option("--until", "TIME", "Only those started before.", read=instant),
    Option("--agent", "NAME", "Only those that this agent started."),
    examples=["list --status active", "list --since 7d --search 'login token'", "list --json"],
    codes={0: "listed, if only an empty list", 2: "cannot: the folder cannot be read"},
)
def list_(
    call: Call,
    status: Any = None,
    limit: int = 0,
    search: str | None = None,
    since: Any = None,
    until: Any = None,
) -> int:
    """List trails, the newest first.

    $TRAJECTORIES_SEARCH_PATHS names several folders, with colons between them: all of them are listed, and of
    trails with one id the first counts.
    """
    agent = call.named_agent
    found: dict[str, Summary] = {}
    for folder in call.folders:
        trails = folder.list(status, since=since, until=until)
        if search is not None:
            hits = {trail.id for trail in folder.search(search)}
            trails = [trail for trail in trails if trail.id in hits]
        for trail in trails:
            if agent is None or trail.agent == agent:
                found.setdefault(trail.id, trail)
    trails = sorted(found.values(), key=lambda trail: (trail.started_at, trail.id), reverse=True)
    chosen = any(value is not None for value in (status, search, since, until, agent))
    return _listed(call, trails[:limit] if limit else trails, search, chosen)


@command(
    Argument("TEXT", "Whole words; a trail must hold them all."),
    _LIMIT,
    examples=["search 'login token'"],
    codes={0: "listed, if only an empty list", 2: "cannot: the folder cannot be read"},
)
def search(call: Call, text: str, limit: int = 0) -> int:
    """Search all that trails hold.

    Titles, events of every type, decisions with their reasons, what was learned and why work was abandoned.
    """
    found: dict[str, Summary] = {}
    for folder in call.folders:
        for trail in folder.search(text, limit or None):
            found.setdefault(trail.id, trail)
    trails = list(found.values())
    return _listed(call, trails[:limit] if limit else trails, text, True)


def _listed(call: Call, trails: list[Summary], search: str | None, chosen: bool) -> int:
    if call.json:
        return call.answer_many([_row_json(trail) for trail in trails])
    if call.program.npm:
        from .theirs import found

        for line in found([_row_json(trail) for trail in trails], search):
            output.data(line)
        return 0
    if trails:
        _table(trails)
    else:
        where = ", ".join(str(folder.root) for folder in call.folders)
        output.note("no trails like that" if chosen else f"no trails in {where} yet")
    return 0


def _row_json(trail: Summary) -> dict[str, Any]:
    from ...trail.record import instant

    row = {
        "id": trail.id,
        "title": trail.title,
        "status": trail.status,
        "startedAt": instant(trail.started_at),
        "completedAt": None if trail.completed_at is None else instant(trail.completed_at),
        "confidence": trail.confidence,
        "agent": trail.agent,
        "path": trail.path,
    }
    return {key: value for key, value in row.items() if value is not None}


def _table(trails: list[Summary]) -> None:
    from ...clock import SystemClock, from_datetime

    now = SystemClock().now()
    rows = [
        [
            trail.id,
            output.status(trail.status),
            output.ago(from_datetime(trail.started_at), now),
            "" if trail.confidence is None else f"{trail.confidence:.0%}",
            output.clean(trail.agent or ""),
            output.clean(trail.title),
        ]
        for trail in trails
    ]
    output.table(["TRAIL", "STATUS", "STARTED", "SURE", "AGENT", "TITLE"], rows)


# ---- one trail ----------------------------------------------------------------------------------------------


@command(
    Argument("TRAIL", "The trail's id, as `list` shows it."),
    Option("-d --decisions", "", "Only its decisions."),
    Option("-t --trace", "", "Only its commits, and where its trace begins and ends."),
    examples=["show traj_k3j9x0a1b2c3", "show traj_k3j9x0a1b2c3 --json"],
    codes={0: "shown", 2: "cannot: there is no such trail, or its file is malformed"},
)
def show(call: Call, trail: str, decisions: bool = False, trace: bool = False) -> int:
    """Show a trail: chapters, events, what came of it.

    With --json it is the whole record, as <id>.json has it.
    """
    from ...trail.record import to_record
    from .which import known

    folder = call.holds(trail)
    found = folder.load(known(folder, trail))
    made = [to_record(decision) for decision in found.decisions]
    if call.program.npm and not call.json:
        from . import theirs

        view = theirs.decisions if decisions else theirs.trace if trace else theirs.shown
        for line in view(to_record(found), made):
            output.data(line)
        return 0
    if decisions and call.json:
        return call.answer_many(made)
    lines = _decisions(found) if decisions else _trace(found) if trace else _whole(found, folder)
    return call.answer(to_record(found), lines)


def _whole(trail: Trail, folder: TrailFolder) -> list[str]:
    from ...trail.export import export

    title, state, *lines = export(trail, "timeline").rstrip().splitlines()
    lines = [
        output.paint(title, "bold"),
        state.replace(trail.status, output.status(trail.status)),
        *lines,
    ]
    found = folder.files.places.find(trail.id)
    file = os.path.relpath(folder.root / (found.journals or found.records)[0])
    facts = [_fact(fact) for fact in [*_facts(trail), ("file", file)]]
    return [*(part for line in lines for part in _fitted(line)), "", *facts]


def _fitted(line: str) -> list[str]:
    """A line of the tree, broken where the terminal ends, and going on below its text."""
    width = output.terminal_width()
    before = _TREE.match(line)
    if width is None or before is None or output.width_of(line) <= width:
        return [line]
    import textwrap

    below = " " * len(before[1]) + before[2].replace("├", "│").replace("└", " ").replace("─", " ")
    return textwrap.wrap(line, width, subsequent_indent=below, break_on_hyphens=False)


def _decisions(trail: Trail) -> list[str]:
    lines = []
    for decision in trail.decisions:
        same = decision.question == decision.chosen
        lines.append(output.paint(output.clean(decision.question), "bold"))
        parts = [] if same else [("chosen", decision.chosen)]
        parts += [("because", decision.reasoning)] if decision.reasoning else []
        for other in decision.alternatives:
            parts.append(("not", other if isinstance(other, str) else _option(other.option, other.reason)))
        lines += [_fact((name, output.clean(text))) for name, text in parts]
    return lines


def _option(option: str, reason: str | None) -> str:
    return f"{option} ({reason})" if reason else option


def _trace(trail: Trail) -> list[str]:
    lines = [_heading(trail)]
    if trail.trace is not None:
        lines.append(_fact(("from", trail.trace.start_ref)))
        lines += [_fact(("to", trail.trace.end_ref))] if trail.trace.end_ref else []
    lines += [_fact(("commit", output.clean(commit))) for commit in trail.commits]
    return lines + [_fact(("file", output.clean(name))) for name in trail.files_changed]


def _facts(trail: Trail) -> list[tuple[str, str]]:
    from ...clock import SystemClock, from_datetime

    start = from_datetime(trail.started_at)
    facts = [("started", f"{output.instant(start)}  ({output.ago(start, SystemClock().now())})")]
    source = trail.task.source
    if source is not None:
        facts.append(("task", " ".join(filter(None, [f"{source.system}:{source.id}", source.url]))))
    pairs = (("project", trail.project_id), ("workflow", trail.workflow_id), ("session", trail.session))
    facts += [(name, value) for name, value in pairs if value]
    return [(name, output.clean(value)) for name, value in facts]


def _heading(trail: Trail) -> str:
    return f"{output.paint(trail.id, 'bold')}  {output.status(trail.status)}"


def _fact(fact: tuple[str, str]) -> str:
    return f"  {output.paint(f'{fact[0]:<10}', 'dim')} {fact[1]}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
