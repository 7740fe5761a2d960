"""Another tool's record as entries, and what a record says that our entries do not.

A record's events have no ids. An id is derived from what the event says and from how many like it came before
in its chapter, so importing a record twice, on two machines or after it has grown gives the same entries.
What a record says is told as it is: agents are those that it lists, a chapter that it left open stays so, and
what the model does not know stands under `extra` in an entry's data. Folded, the entries are the record again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from ..clock import from_datetime, from_text
from ..errors import PayloadError, TrailBroken
from . import entry as line
from . import ids, journal, record
from .entry import STRUCTURE, Entry
from .fold import check, fold
from .model import Agent, Chapter, Event, Trail

DERIVED = "_holdfast"
"""The key by which a record says that we wrote it, and that no other tool has rewritten it since."""
SIGN = f'"{DERIVED}"'.encode()
"""What stands in the last bytes of such a record."""


def signed(data: dict[str, Any]) -> dict[str, Any]:
    """A record with the sign that we wrote it; other tools drop it when they rewrite the record."""
    return data | {DERIVED: {"events": sum(len(chapter["events"]) for chapter in data["chapters"])}}


def is_derived(trail: Trail) -> bool:
    """Whether a record was derived from a journal and not rewritten by another tool since."""
    return DERIVED in trail.extra


def tell(trail_id: str, entries: Iterable[Entry], path: str = "") -> Trail:
    """The trail of entries from files: one with data of a wrong shape is passed over. Raises TrailBroken."""
    told = list(entries)
    try:
        return fold(trail_id, told)
    except PayloadError:
        good = [entry for entry in told if _is_well_formed(trail_id, entry)]
    try:
        return fold(trail_id, good)
    except PayloadError as error:
        raise TrailBroken(f"{path or trail_id}: {error}", path=path) from None


def entries_of(trail: Trail, *, origin: str) -> Iterator[Entry]:
    """The entries that tell a trail, numbered from 1; `origin` names where it came from.

    Example:
        folder.absorb(trail.id, entries_of(trail, origin="npm"))
    """
    # The sort is stable: what was recorded at one instant stays in the order in which the record tells it.
    told = sorted(_tell(trail, origin), key=lambda entry: from_text(entry.recorded_at))
    for seq, entry in enumerate(told, start=1):
        entry.seq = seq
        yield entry


def new_in(trail: Trail, ours: Iterable[Entry], *, origin: str) -> list[Entry]:
    """Of the entries that tell a record, those that our entries of the trail do not tell; numbered after them.

    Raises TrailBroken where ours tell no trail.
    """
    ours = list(ours)
    have = tell(trail.id, ours)
    known = {entry.id for entry in ours}
    seq = max(entry.seq for entry in ours)
    wanted = _Wanted(trail, have)
    new = [entry for entry in entries_of(trail, origin=origin) if wanted(entry) and entry.id not in known]
    new += [entry for entry in _grown(trail, have, origin) if entry.id not in known]
    for entry in new:
        seq += 1
        entry.seq = seq
    return new


class _Wanted:
    """Which entries of a record say something that the trail we have does not say in its own words."""

    def __init__(self, trail: Trail, have: Trail) -> None:
        self.trail, self.have = trail, have
        self.chapters = {chapter.id: chapter.ended_at is not None for chapter in have.chapters}
        self.agents = Counter(agent.name for agent in have.agents)
        self.told = Counter(_key(chapter.id, event) for chapter in have.chapters for event in chapter.events)

    def __call__(self, entry: Entry) -> bool:
        match entry.type:
            case "trail_started":
                return False
            case "agent_joined":
                return self.agents[entry.agent] < int(entry.data.get("again", 1))
            case "chapter_opened":
                return entry.chapter not in self.chapters
            case "chapter_closed":
                return not self.chapters.get(entry.chapter or "", False)
            case "trail_completed" | "trail_abandoned":
                return _ends_otherwise(self.trail, self.have)
            case "trail_amended":
                return self.have.retrospective is None
        at = max(1, from_text(entry.occurred_at) // 1000)
        key = (entry.chapter, at, entry.data.get("type", entry.type), entry.data["content"])
        self.told[key] -= 1
        return self.told[key] < 0


def _is_well_formed(trail_id: str, entry: Entry) -> bool:
    try:
        check(trail_id, entry)
    except PayloadError as error:
        journal.log.error("%s: a line is passed over: %s", trail_id, error)
        return False
    return True


def _tell(trail: Trail, origin: str) -> Iterator[Entry]:
    start = from_datetime(trail.started_at)
    yield line.new(_id(trail, "started"), "trail_started", _start(trail, origin), occurred_at=start)
    seen: Counter[str] = Counter()
    for agent in trail.agents:
        seen[agent.name] += 1
        yield _joined(trail, agent, seen[agent.name], origin, start)
    taken: set[tuple[str, str]] = set()
    last = 0
    for chapter in trail.chapters:
        last = max(last, from_datetime(chapter.started_at))  # the order of the list is that of the chapters
        yield from _tell_chapter(trail, chapter, origin, last, taken)
    yield from _tell_end(trail, origin)


def _start(trail: Trail, origin: str) -> dict[str, Any]:
    whole = record.to_record(trail)
    data: dict[str, Any] = {"origin": origin, "title": trail.task.title}
    task = whole["task"]
    data |= {key: task[key] for key in ("description", "source") if key in task}
    keys = ("projectId", "workflowId", "tags", "_trace", "commits", "filesChanged", "session", "worktree")
    data |= {key: whole[key] for key in keys if whole.get(key) not in (None, [])}
    if trail.task.extra:
        data["task"] = trail.task.extra
    extra = {key: value for key, value in trail.extra.items() if key != DERIVED}
    if trail.status == "active" and trail.completed_at is not None:
        extra["completedAt"] = whole["completedAt"]
    if trail.status != "abandoned" and trail.abandon_reason is not None:
        extra["abandonReason"] = trail.abandon_reason
    return data | ({"extra": extra} if extra else {})


def _joined(trail: Trail, agent: Agent, time: int, origin: str, start: int) -> Entry:
    data: dict[str, Any] = {"role": agent.role, "origin": origin}
    if agent.left_at is not None:
        data["leftAt"] = record.instant(agent.left_at)
    if agent.extra:
        data["extra"] = agent.extra
    again = () if time == 1 else (str(time),)
    if again:
        data["again"] = time
    at = from_datetime(agent.joined_at)
    id = _id(trail, "agent", agent.name, *again)
    return line.new(id, "agent_joined", data, occurred_at=at, recorded_at=start, agent=agent.name)


def _tell_chapter(
    trail: Trail, chapter: Chapter, origin: str, recorded: int, taken: set[tuple[str, str]]
) -> Iterator[Entry]:
    data: dict[str, Any] = {"title": chapter.title, "origin": origin}
    if chapter.parent is not None:
        data["parent"] = chapter.parent
    if chapter.extra:
        data["extra"] = chapter.extra
    opened = from_datetime(chapter.started_at)
    id = _unused(chapter.id, taken)
    yield line.new(
        _id(trail, "chapter", id),
        "chapter_opened",
        data,
        occurred_at=opened,
        recorded_at=recorded,
        agent=chapter.agent_name,
        chapter=id,
    )
    yield from _tell_events(trail, chapter.events, id, origin, taken)
    if chapter.ended_at is not None:
        ended = from_datetime(chapter.ended_at)
        closed = _id(trail, "closed", id)
        yield line.new(closed, "chapter_closed", {"origin": origin}, occurred_at=ended, chapter=id)


def _tell_events(
    trail: Trail, events: list[Event], chapter: str, origin: str, taken: set[tuple[str, str]]
) -> Iterator[Entry]:
    seen: Counter[Any] = Counter()
    last = 0
    for event in events:
        key = _key(chapter, event)
        seen[key] += 1
        occurred, recorded = _times(event)
        last = max(last, recorded)  # the order of a record's list is the order of its events
        id = event.id if ("event", event.id) not in taken else ""
        taken.add(("event", event.id))
        yield line.new(
            id or _id(trail, "event", *map(str, key), str(seen[key])),
            event.type if event.type not in STRUCTURE else "event",
            _event(event, origin if not (id and is_derived(trail)) else None),
            occurred_at=occurred,
            recorded_at=last,
            agent=event.agent,
            chapter=chapter,
        )


def _event(event: Event, origin: str | None) -> dict[str, Any]:
    data = record.to_record(event)
    for key in ("ts", "id", "seq", "agent", "chapter", "occurredAt", "recordedAt", "late"):
        data.pop(key, None)
    if event.type not in STRUCTURE:  # the entry's own type says it; such a one would change the trail
        del data["type"]
    origin = event.origin or origin
    return data | ({"origin": origin} if origin else {})


def _tell_end(trail: Trail, origin: str) -> Iterator[Entry]:
    told: dict[str, Any] = {"origin": origin}
    if trail.retrospective is not None:
        extra = trail.retrospective.extra
        whole = record.to_record(trail.retrospective)
        told |= {key: value for key, value in whole.items() if key not in extra}
        told |= {"extra": extra} if extra else {}
    if trail.status == "active":
        if trail.retrospective is not None:
            at = from_datetime(trail.started_at)
            yield line.new(_id(trail, "amended"), "trail_amended", told, occurred_at=at)
        return
    if trail.abandon_reason is not None and trail.status == "abandoned":
        told["reason"] = trail.abandon_reason
    if trail.completed_at is None:
        told["undated"] = True
    ended = from_datetime(trail.completed_at or trail.started_at)
    id = _id(trail, "ended", trail.status, str(told.get("summary", "")))
    yield line.new(id, f"trail_{trail.status}", told, occurred_at=ended, recorded_at=_last(trail))


def _last(trail: Trail) -> int:
    """When the last thing before the end of a trail was recorded."""
    times = [from_datetime(trail.completed_at or trail.started_at)]
    for chapter in trail.chapters:
        times += [from_datetime(when) for when in (chapter.started_at, chapter.ended_at) if when is not None]
        times += [_times(event)[1] for event in chapter.events if not event.late]
    return max(times)


def _ends_otherwise(trail: Trail, have: Trail) -> bool:
    """Whether a record's end says something that the trail we have does not; if that has ended, it is late."""
    ours, theirs = have.retrospective, trail.retrospective
    differs = theirs is not None and (ours is None or ours.summary != theirs.summary)
    return have.status == "active" or have.status != trail.status or differs


def _grown(trail: Trail, have: Trail, origin: str) -> list[Entry]:
    """What a record says of the trail as a whole and we do not: commits, files, tags, the trace, other keys."""
    whole = record.to_record(trail)
    data: dict[str, Any] = {}
    for key, ours in (("commits", have.commits), ("filesChanged", have.files_changed), ("tags", have.tags)):
        if more := [item for item in whole[key] if item not in ours]:
            data[key] = more
    extra = {k: v for k, v in trail.extra.items() if k != DERIVED and k not in have.extra}
    extra |= {key: whole[key] for key in ("projectId", "workflowId") if key in whole and not _has(have, key)}
    if trail.trace is not None and have.trace is None:
        extra["_trace"] = whole["_trace"]
    elif trail.trace is not None and have.trace is not None:
        if have.trace.end_ref in (None, have.trace.start_ref, ""):
            data |= {"endRef": end} if (end := trail.trace.end_ref) != have.trace.end_ref and end else {}
        if have.trace.trace_id is None and trail.trace.trace_id is not None:
            data["traceId"] = trail.trace.trace_id
    if extra:
        data["trail"] = extra
    if not data:
        return []
    id = _id(trail, "grown", json.dumps(data, sort_keys=True))
    at = max(from_datetime(trail.started_at), _last(trail))
    return [line.new(id, "trail_amended", data | {"origin": origin}, occurred_at=at)]


def _has(have: Trail, key: str) -> bool:
    return record.to_record(have).get(key) is not None


def _times(event: Event) -> tuple[int, int]:
    """When an event happened and when it was recorded."""
    occurred = from_datetime(event.occurred_at) if event.occurred_at is not None else event.ts * 1000
    return occurred, from_datetime(event.recorded_at) if event.recorded_at is not None else occurred


def _key(chapter: str, event: Event) -> tuple[Any, ...]:
    """What an event says, as far as every tool keeps it."""
    return chapter, event.ts, event.type, event.content


def _unused(id: str, taken: set[tuple[str, str]]) -> str:
    """A chapter's id; the second chapter of one id is told as '<id>-2'."""
    name, number = id, 1
    while ("chapter", name) in taken:
        number += 1
        name = f"{id}-{number}"
    taken.add(("chapter", name))
    return name


def _id(trail: Trail, *parts: str) -> str:
    return ids.derived("evt", (trail.id, *parts))
