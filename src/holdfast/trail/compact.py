"""Compaction without a model: what many ended trails decided, learnt and found, folded into one record.

Guarantee: `compact` is a function of the trails alone, whatever their order. Abandoned trails count as completed
ones do, for what was learnt by failing is learnt. What `write` has returned is on the disk, in files that took
the place of no other: of a compaction only if the new one tells of all its trails. `sources` says how trails are
chosen, marked and, once this is durable, discarded.

The record has the shape of the npm tool's, and what that has no place for: `sources`, challenges, suggestions.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, TypeVar

from ..errors import PayloadError, TrailError
from . import ids, journal, places, record
from .model import Event, Instant, Part, Trail

if TYPE_CHECKING:
    from .folder import TrailFolder

FOLDER = "compacted"
OTHER = "other"
CATEGORIES = {
    "architecture": "architecture component coupling dependency design domain event layer microservice module "
    "monolith package pattern plugin queue refactor service structure worker",
    "api": "api client contract endpoint graphql grpc http json openapi parameter payload protocol request "
    "response rest route sdk signature url version versioning webhook",
    "database": "column database db index migration mongodb mysql orm postgres postgresql query redis row schema "
    "sql sqlite storage store table transaction",
    "testing": "assertion coverage fixture flaky mock property pytest regression stub suite test testing verify",
    "security": "auth authentication authorisation authorization cookie credential csrf encryption escape hash "
    "jwt key login oauth password permission sandbox sanitise sanitize secret secure security session token tls "
    "vulnerability xss",
    "performance": "async batch benchmark cache caching concurrency fast latency lazy memory optimise optimize "
    "parallel performance pool slow speed throughput timeout",
    "tooling": "build bundler ci compiler container docker formatter lint linter makefile mypy npm pipeline pnpm "
    "release ruff script tool tooling typescript uv webpack",
    "naming": "abbreviation casing convention identifier name naming prefix rename spelling suffix term",
    "compliance": "accessibility audit compliance consent gdpr hipaa legal licence license pii policy privacy "
    "regulation retention soc2",
}
"""The words of each category; each stands for its plural with -s too."""
_WORDS = {name: frozenset(words.split()) for name, words in CATEGORIES.items()}

T = TypeVar("T")


class Span(Part, kw_only=True):
    """From the first beginning to the last end."""

    start: Instant
    end: Instant


class Totals(Part, kw_only=True):
    """How much there was; decisions and events are counted before what says the same is made one."""

    total_decisions: int
    total_events: int
    unique_agents: list[str]


class Made(Part, kw_only=True):
    """A decision, and the trail in which it was made (first, where several say the same)."""

    question: str
    chosen: str
    reasoning: str
    from_trajectory: str


class Group(Part, kw_only=True):
    """The decisions of one category."""

    category: str
    decisions: list[Made]


class Source(Part, kw_only=True):
    """One of the trails; `outcome` is its summary, or why it was abandoned."""

    id: str
    title: str
    status: Literal["completed", "abandoned"]
    outcome: str | None = None


class Compacted(Part, kw_only=True):
    """What many trails say."""

    id: str
    version: Literal[1] = 1
    type: Literal["compacted"] = "compacted"
    compacted_at: Instant
    workflow_id: str | None = None
    source_trajectories: list[str]
    date_range: Span
    summary: Totals
    decision_groups: list[Group]
    key_learnings: list[str]
    key_findings: list[str]
    key_challenges: list[str]
    key_suggestions: list[str]
    files_affected: list[str]
    commits: list[str]
    sources: list[Source]


def compact(
    trails: Iterable[Trail], *, at: datetime, workflow_id: str | None = None, focus: Iterable[str] = ()
) -> Compacted:
    """Fold ended trails into one record; `at` is the instant that it will say it was made at.

    `focus` names categories whose decisions come first. Raises PayloadError for no trails, an active one, or a
    category that there is not.

    Example:
        compact([folder.load(trail_id)], at=datetime.now(UTC))
    """
    chosen = sorted({trail.id: trail for trail in trails}.values(), key=lambda trail: (_end(trail), trail.id))
    if not chosen:
        raise PayloadError("compact: expected trails that have ended, got none")
    for trail in chosen:
        if trail.status == "active":
            raise PayloadError(f"compact: expected trails that have ended, got {trail.id}, which is active")
    names = [trail.id for trail in chosen]
    events = [event for trail in chosen for event in trail.events]
    made = [_made(trail) for trail in chosen]
    told = [trail.retrospective for trail in chosen if trail.retrospective is not None]
    return Compacted(
        id=ids.derived("compact", [record.instant(at), *sorted(names)])[: len("compact_") + 12],
        compacted_at=at,
        workflow_id=workflow_id,
        source_trajectories=names,
        date_range=Span(start=min(trail.started_at for trail in chosen), end=max(map(_end, chosen))),
        summary=Totals(
            total_decisions=sum(map(len, made)),
            total_events=len(events),
            unique_agents=sorted({name for trail in chosen for name in _agents(trail)}),
        ),
        decision_groups=_groups([each for several in made for each in several], tuple(focus)),
        key_learnings=_once(text for part in told for text in part.learnings),
        key_findings=_once(event.content for event in events if event.type == "finding"),
        key_challenges=_once(text for part in told for text in part.challenges),
        key_suggestions=_once(text for part in told for text in part.suggestions),
        files_affected=sorted({name for trail in chosen for name in trail.files_changed}),
        commits=list(dict.fromkeys(commit for trail in chosen for commit in trail.commits)),
        sources=[_source(trail) for trail in chosen],
    )


def category_of(text: str) -> str:
    """The category of which a text has the most words; of equals the first, and `other` for none.

    Example:
        category_of("Which decision for the cache?")  # 'performance': the 'ci' in 'decision' is no word
    """
    said = set(re.findall(r"[^\W_]+", text.casefold()))
    said |= {word.removesuffix("s") for word in said}
    hits = {name: len(said & words) for name, words in _WORDS.items()}
    best = max(hits, key=lambda name: hits[name])
    return best if hits[best] else OTHER


def _groups(made: list[Made], focus: tuple[str, ...]) -> list[Group]:
    for name in focus:
        if name not in CATEGORIES and name != OTHER:
            raise PayloadError(f"focus: expected {', '.join(CATEGORIES)} or {OTHER}, got {name!r:.80}")
    groups: dict[str, list[Made]] = {name: [] for name in (*focus, *CATEGORIES, OTHER)}
    for one in _first(made, lambda one: (_plain(one.question), _plain(one.chosen), _plain(one.reasoning))):
        groups[category_of(f"{one.question} {one.chosen} {one.reasoning}")].append(one)
    return [Group(category=name, decisions=each) for name, each in groups.items() if each]


def _made(trail: Trail) -> list[Made]:
    return [
        Made(question=d.question, chosen=d.chosen, reasoning=d.reasoning, from_trajectory=trail.id)
        for d in trail.decisions
    ]


def _agents(trail: Trail) -> set[str]:
    names = {agent.name for agent in trail.agents} | {chapter.agent_name for chapter in trail.chapters}
    return (names | {event.agent for event in trail.events}) - {""}


def _source(trail: Trail) -> Source:
    told = trail.retrospective
    outcome = (
        trail.abandon_reason or (told.summary if told is not None else None) or _last_words(trail.events)
    )
    status: Literal["completed", "abandoned"] = "completed" if trail.status == "completed" else "abandoned"
    return Source(id=trail.id, title=trail.title, status=status, outcome=outcome)


def _last_words(events: list[Event]) -> str | None:
    """What an abandoned trail of another tool says at its end."""
    return next((event.content for event in reversed(events) if event.type == "abandoned"), None)


def _end(trail: Trail) -> datetime:
    return max(trail.started_at, trail.completed_at or trail.started_at)


def _once(texts: Iterable[str]) -> list[str]:
    """Each text once, as it was first written; letters' case and blanks make no difference."""
    return _first((text for text in texts if text.strip()), _plain)


def _first(items: Iterable[T], key: Callable[[T], object]) -> list[T]:
    first: dict[object, T] = {}
    for item in items:
        first.setdefault(key(item), item)
    return list(first.values())


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


# ---- on the disk --------------------------------------------------------------------------------------------


def write(
    folder: TrailFolder,
    compacted: Compacted,
    *,
    output: str | os.PathLike[str] | None = None,
    markdown: bool = True,
) -> list[str]:
    """Write a compaction, durably, into the folder's `compacted/` or the file `output`; then mark its trails.

    Returns the paths: the record's and, with `markdown`, the page's. Raises TrailError where a file cannot be
    written, or `output` is something else than an earlier compaction of these trails.
    """
    from . import sources
    from .export import compacted as page

    data = record.to_record(compacted)
    if folder.files.redact is not None:  # another tool's trails hold whatever was written there
        data = folder.files.redact(data)
    texts = {".json": record.dump(data, indent=2) + b"\n"}
    if markdown:
        shown = page.render(record.from_record(data, Compacted))
        texts = {".md": shown.encode("utf-8", "replace"), **texts}
    with folder.files.locked():
        stem = _stem(folder, compacted, output)
        for ending, text in texts.items():
            try:
                places.replace(stem + ending, text, durable=True)
            except OSError as error:
                raise journal.cannot_write(stem + ending, error) from None
        sources.mark(folder, compacted)
    return [stem + ending for ending in reversed(texts)]


def _stem(folder: TrailFolder, compacted: Compacted, output: str | os.PathLike[str] | None) -> str:
    """Where to write, without the ending, such that nothing is lost there."""
    if output is not None:
        stem = os.path.abspath(output)
        stem = places.stem(stem) if stem.endswith((".json", ".md")) else stem
        if not _is_free(stem, compacted):
            raise TrailError(f"{output}: there is a file that tells of something else; name another")
        return stem
    where = folder.files.places.path(FOLDER)
    if os.path.islink(where):
        raise TrailError(f"{where} is a symbolic link: a folder of trails keeps its own files")
    try:
        os.makedirs(where, exist_ok=True)
        places.sync_folder(os.path.dirname(where))
    except OSError as error:
        raise journal.cannot_write(where, error) from None
    first = stem = os.path.join(where, name_of(compacted))
    number = 1
    while not _is_free(stem, compacted):
        number += 1
        stem = f"{first}-{number}"
    return stem


def name_of(compacted: Compacted) -> str:
    """The name of a compaction's files; a workflow's id never leaves the folder.

    Example:
        name_of(of_workflow_wf1)  # 'workflow-wf1'
    """
    if compacted.workflow_id is None:
        return f"{compacted.id}_{compacted.compacted_at.astimezone(UTC).date().isoformat()}"
    safe = re.sub(r"[^A-Za-z0-9_-]", "_", compacted.workflow_id)[:80]
    if safe != compacted.workflow_id:  # others may look the same now
        safe += f"-{ids.derived('', [compacted.workflow_id])[1:9]}"
    return f"workflow-{safe}"


def _is_free(stem: str, compacted: Compacted) -> bool:
    """Whether nothing is there but a compaction of no other trails."""
    path = stem + ".json"
    if not os.path.lexists(path):
        return not os.path.lexists(stem + ".md")
    try:
        with open(path, "rb") as file:
            before = record.from_record(record.parse(file.read()), Compacted)
    except (OSError, PayloadError):
        return False
    return set(before.source_trajectories) <= set(compacted.source_trajectories)


__all__ = ["CATEGORIES", "Compacted", "Group", "Made", "Source", "category_of", "compact", "name_of", "write"]
