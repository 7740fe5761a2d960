"""Records that other tools left in the folder, as entries: read where they stand, whatever their layout.

A record's events have no ids. An id is derived from what the event says and from how many like it came before
in its chapter, so importing a record twice, on two machines or after it has grown gives the same entries.
What a record says is told as it is: agents are those that it lists, and a chapter that it left open stays so.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from ..clock import from_datetime
from ..errors import PayloadError, TrailBroken
from . import entry as line
from . import ids, journal, record
from .entry import Entry
from .model import Chapter, Event, Trail
from .places import Found

DERIVED = "_holdfast"
"""The key by which a record says that it was derived from the journal beside it."""


def entries(root: str, trail_id: str, found: Found) -> list[Entry]:
    """What the files of a trail say. Raises TrailBroken, and FileNotFoundError where they are gone."""
    if not found.journals:
        return list(entries_of(read(root, trail_id, found.records[0]), origin="record"))
    lines: list[Entry] = []
    for path in found.journals:
        reading = journal.read(os.path.join(root, path))
        for bad in reading.bad:
            journal.log.error("%s line %d is no entry, and is passed over: %s", path, bad.number, bad.reason)
        lines += reading.entries
    if not any(entry.type == "trail_started" for entry in lines):
        raise TrailBroken(
            f"{found.journals[0]}: expected a line of type trail_started, got {len(lines)} lines without it; "
            "`holdfast trail doctor` tells more",
            path=found.journals[0],
        )
    return line.ordered(lines)


def read(root: str, trail_id: str, path: str) -> Trail:
    """Another tool's record. Raises TrailBroken with its path for what is none, FileNotFoundError.

    Where `is_derived` says so of it, it is our own, and tells nothing that its journal does not.
    """
    fd = os.open(os.path.join(root, path), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with open(fd, "rb") as file:
        text = file.read()
    try:
        data = record.parse(text, path)
        trail = record.from_record(data, what=path)
    except PayloadError as error:
        raise TrailBroken(str(error), path=path) from None
    if trail.id != trail_id:
        raise TrailBroken(f"{path}: expected the id {trail_id}, as its name says, got {trail.id}", path=path)
    return trail


def is_derived(trail: Trail) -> bool:
    """Whether a record was derived from a journal and not rewritten by another tool since."""
    return DERIVED in trail.extra


def entries_of(trail: Trail, *, origin: str) -> Iterator[Entry]:
    """The entries that tell a trail, numbered from 1; `origin` names where it came from.

    Example:
        folder.absorb(trail.id, entries_of(trail, origin="npm"))
    """
    for seq, entry in enumerate(sorted(_tell(trail, origin), key=lambda entry: entry.rank), start=1):
        entry.seq = seq
        yield entry


def new_in(trail: Trail, have: Trail, *, origin: str) -> list[Entry]:
    """Of the entries that tell a record, those that the trail we have does not tell already."""
    chapters = {chapter.id for chapter in have.chapters}
    closed = {chapter.id for chapter in have.chapters if chapter.ended_at is not None}
    agents = {agent.name for agent in have.agents}
    told = Counter(_key(chapter, event) for chapter in have.chapters for event in chapter.events)
    known = {event.id for chapter in have.chapters for event in chapter.events}
    new = []
    for entry in entries_of(trail, origin=origin):
        match entry.type:
            case "trail_started":
                wanted = False
            case "agent_joined":
                wanted = entry.agent not in agents
            case "chapter_opened":
                wanted = entry.chapter not in chapters
            case "chapter_closed":
                wanted = entry.chapter not in closed
            case "trail_completed" | "trail_abandoned":
                wanted = have.status == "active"
            case "trail_amended":
                wanted = have.retrospective is None
            case _:
                at = record.moment(entry.occurred_at)
                key = (entry.chapter, from_datetime(at) // 1000, entry.type, entry.data["content"])
                wanted = told[key] <= 0 and entry.id not in known
                told[key] -= 1
        if wanted:
            new.append(entry)
    return new


def _tell(trail: Trail, origin: str) -> Iterator[Entry]:
    start = from_datetime(trail.started_at)
    yield line.new(_id(trail, "started"), "trail_started", _start(trail, origin), occurred_at=start)
    for agent in trail.agents:
        data: dict[str, Any] = {"role": agent.role, **agent.extra, "origin": origin}
        if agent.left_at is not None:
            data["leftAt"] = record.instant(agent.left_at)
        at = from_datetime(agent.joined_at)
        yield line.new(
            _id(trail, "agent", agent.name),
            "agent_joined",
            data,
            occurred_at=at,
            recorded_at=start,
            agent=agent.name,
        )
    for chapter in trail.chapters:
        yield from _tell_chapter(trail, chapter, origin)
    yield from _tell_end(trail, origin)


def _start(trail: Trail, origin: str) -> dict[str, Any]:
    whole = record.to_record(trail)
    data: dict[str, Any] = {"origin": origin, "title": trail.task.title}
    task = whole["task"]
    data |= {key: task[key] for key in ("description", "source") if key in task}
    keys = ("projectId", "workflowId", "tags", "_trace", "commits", "filesChanged")
    data |= {key: whole[key] for key in keys if whole.get(key)}
    if trail.task.extra:
        data["task"] = trail.task.extra
    extra = {key: value for key, value in trail.extra.items() if key != DERIVED}
    return data | ({"extra": extra} if extra else {})


def _tell_chapter(trail: Trail, chapter: Chapter, origin: str) -> Iterator[Entry]:
    opened = from_datetime(chapter.started_at)
    data: dict[str, Any] = {"title": chapter.title, **chapter.extra, "origin": origin}
    if chapter.parent is not None:
        data["parent"] = chapter.parent
    yield line.new(
        _id(trail, "chapter", chapter.id),
        "chapter_opened",
        data,
        occurred_at=opened,
        agent=chapter.agent_name,
        chapter=chapter.id,
    )
    seen: Counter[Any] = Counter()
    last = 0
    for event in chapter.events:
        key = _key(chapter, event)
        seen[key] += 1
        occurred = from_datetime(event.occurred_at) if event.occurred_at is not None else event.ts * 1000
        recorded = from_datetime(event.recorded_at) if event.recorded_at is not None else occurred
        last = max(last, recorded)  # the order of a record's list is the order of its events
        yield line.new(
            event.id or _id(trail, "event", *map(str, key), str(seen[key])),
            event.type,
            _event(event, origin),
            occurred_at=occurred,
            recorded_at=last,
            agent=event.agent,
            chapter=chapter.id,
        )
    if chapter.ended_at is not None:
        yield line.new(
            _id(trail, "closed", chapter.id),
            "chapter_closed",
            {"origin": origin},
            occurred_at=from_datetime(chapter.ended_at),
            chapter=chapter.id,
        )


def _event(event: Event, origin: str) -> dict[str, Any]:
    data = record.to_record(event)
    for key in ("ts", "type", "id", "seq", "agent", "chapter", "occurredAt", "recordedAt", "late"):
        data.pop(key, None)
    data["origin"] = event.origin or origin
    return data


def _tell_end(trail: Trail, origin: str) -> Iterator[Entry]:
    told = record.to_record(trail.retrospective) if trail.retrospective is not None else {}
    if trail.status == "active":
        if told:
            at = from_datetime(trail.started_at)
            yield line.new(_id(trail, "amended"), "trail_amended", told | {"origin": origin}, occurred_at=at)
        return
    data: dict[str, Any] = {**told, "origin": origin}
    if trail.abandon_reason is not None:
        data["reason"] = trail.abandon_reason
    if trail.completed_at is None:
        data["undated"] = True
    ended = from_datetime(trail.completed_at or trail.started_at)
    last = max(
        [ended]
        + [
            from_datetime(e.recorded_at) if e.recorded_at else e.ts * 1000
            for c in trail.chapters
            for e in c.events
            if not e.late
        ]
        + [from_datetime(c.started_at) for c in trail.chapters]
        + [from_datetime(c.ended_at) for c in trail.chapters if c.ended_at]
    )
    type = "trail_completed" if trail.status == "completed" else "trail_abandoned"
    yield line.new(_id(trail, "ended"), type, data, occurred_at=ended, recorded_at=last)


def _key(chapter: Chapter, event: Event) -> tuple[Any, ...]:
    """What an event says, as far as every tool keeps it."""
    return chapter.id, event.ts, event.type, event.content


def _id(trail: Trail, *parts: str) -> str:
    return ids.derived("evt", (trail.id, *parts))


def origins(lines: Iterable[Entry]) -> set[str]:
    """Where the imported ones among entries came from."""
    return {str(entry.data["origin"]) for entry in lines if entry.data.get("origin")}
