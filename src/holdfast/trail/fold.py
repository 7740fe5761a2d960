"""What a set of entries says: the trail, a pure function of the set, whatever the order of the lines.

The first end in the order of entries counts and stands; what comes after it is kept and marked `late`.
An event belongs to its own chapter. Where it has none, it stands in a chapter 'Work' of its agent, never in
somebody else's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from ..clock import from_text, to_datetime
from ..errors import PayloadError
from . import ids
from .entry import ENDS, STRUCTURE, Entry, ordered
from .model import Agent, Chapter, Event, Instant, Retrospective, Summary, Title, Trail, Words
from .record import from_record, to_record

_RETROSPECTIVE = {key for key in Retrospective.__struct_encode_fields__ if not key.startswith(" ")}
_MORE = {"commits", "filesChanged", "endRef", "traceId", "tags", "reason", "cause"}
_IMPORTED = {"origin", "undated", "extra", "trail"}
"""Keys of entries that were made of another tool's record: see `retell`."""


def fold(trail_id: str, entries: Iterable[Entry]) -> Trail:
    """The trail that entries tell. Raises PayloadError where they hold no beginning, or data of a wrong shape.

    Example:
        trail = fold("traj_abc", journal.read(path).entries)
    """
    try:
        return _Fold(trail_id, ordered(entries)).trail
    except (ValueError, OverflowError) as error:  # a journal that was edited
        raise PayloadError(f"{trail_id}: an entry has data of a wrong shape: {error}") from None


def summary_of(trail: Trail, path: str = "") -> Summary:
    """The line of a list for a trail."""
    return Summary(
        id=trail.id,
        title=trail.title,
        status=trail.status,
        started_at=trail.started_at,
        completed_at=trail.completed_at,
        confidence=trail.retrospective.confidence if trail.retrospective is not None else None,
        agent=trail.agents[0].name if trail.agents else None,
        session=trail.session,
        worktree=trail.worktree,
        path=path,
    )


def check(trail_id: str, entry: Entry) -> None:
    """Refuse an entry that could not be read back. Raises PayloadError: expected, got and path."""
    needs = _NEEDS.get(entry.type)
    try:
        if needs is not None:
            msgspec.convert(entry.data, needs)
        match entry.type:
            case "trail_started":
                _begin(trail_id, entry)
            case "trail_completed" | "trail_abandoned" | "trail_amended":
                _retrospective({"summary": "-"} | entry.data)
                _widened(trail_id, entry.data.get("trail", {}))
        _event(entry, 1, late=False)
    except (ValueError, OverflowError) as error:
        raise PayloadError(f"{entry.type} {entry.id}: {error}") from None


class _Opened(msgspec.Struct):
    title: Words
    parent: str | None = None


class _Joined(msgspec.Struct, rename="camel"):
    role: str = ""
    left_at: Instant | None = None


class _Gathered(msgspec.Struct, rename="camel"):
    commits: list[str] = []
    files_changed: list[str] = []
    tags: list[str] = []
    end_ref: str | None = None
    trace_id: str | None = None
    reason: str | None = None


class _Amended(_Gathered):
    title: Title = "-"
    description: str | None = None
    trail: dict[str, Any] = {}


_NEEDS: dict[str, type[msgspec.Struct]] = {
    "chapter_opened": _Opened,
    "agent_joined": _Joined,
    "trail_completed": _Gathered,
    "trail_abandoned": _Gathered,
    "trail_amended": _Amended,
}
"""What the data of a structural entry must look like, beyond its retrospective; other keys are free."""


class _Fold:
    def __init__(self, trail_id: str, entries: list[Entry]) -> None:
        start = next((entry for entry in entries if entry.type == "trail_started"), None)
        if start is None:
            raise PayloadError(
                f"{trail_id}: expected a line of type trail_started, got {len(entries)} without it"
            )
        self.trail = _begin(trail_id, start)
        self.chapters: dict[str, Chapter] = {}
        self.agents: dict[tuple[str, str], Agent] = {}
        if start.agent:
            self._join(start.agent, start.data.get("role", "lead"), start)
        for entry in entries:
            if entry.type == "chapter_opened":
                self._open(entry)
        late = False
        for position, entry in enumerate(entries, start=1):
            if entry is not start:
                self._take(entry, position, late)
            late = late or entry.type in ENDS
        self.trail.agents.extend(self.agents.values())
        self.trail.chapters.extend(self.chapters.values())

    def _take(self, entry: Entry, position: int, late: bool) -> None:
        if entry.type == "agent_joined":
            self._join(entry.agent, entry.data.get("role") or "contributor", entry)
            return
        if entry.agent and "origin" not in entry.data:  # an imported record lists its agents itself
            self._join(entry.agent, "contributor" if self.agents else "lead", entry)
        match entry.type:
            case "chapter_closed":
                self._close(entry)
            case "trail_completed" if not late:
                self._complete(entry)
            case "trail_abandoned" if not late:
                self._abandon(entry)
            case "trail_amended":
                self._amend(entry.data)
        told = _event(entry, position, late) if not self._is_said(entry) else None
        if told is not None:
            chapter = self._chapter_of(entry)
            told.chapter = chapter.id
            chapter.events.append(told)

    def _is_said(self, entry: Entry) -> bool:
        """Whether another tool's copy of this trail tells the end that stands already."""
        end = self.trail.retrospective
        again = entry.type == "trail_completed" and "origin" in entry.data and end is not None
        return again and end is not None and end.summary == entry.data.get("summary")

    def _join(self, name: str, role: str, entry: Entry) -> None:
        joined = entry.type == "agent_joined"
        again = str(entry.data.get("again", "")) if joined else ""
        key = (name, again)  # another tool's record may list one twice
        if key not in self.agents:
            self.agents[key] = Agent(
                name=name,
                role=str(role) or "contributor",
                joined_at=_when(entry.occurred_at),
                left_at=_when(entry.data["leftAt"]) if joined and entry.data.get("leftAt") else None,
                extra=_unknown(entry.data, {"role", "leftAt", "again"}) if joined else {},
            )

    def _open(self, entry: Entry) -> None:
        id = entry.chapter or entry.id
        self.chapters.setdefault(
            id,
            Chapter(
                id=id,
                title=_text(entry, "title"),
                agent_name=entry.agent or "default",
                started_at=_when(entry.occurred_at),
                parent=entry.data.get("parent"),
                extra=_unknown(entry.data, {"title", "parent"}),
            ),
        )

    def _close(self, entry: Entry) -> None:
        chapter = self.chapters.get(entry.chapter or "")
        if chapter is not None and chapter.ended_at is None:
            chapter.ended_at = _when(entry.occurred_at)

    def _chapter_of(self, entry: Entry) -> Chapter:
        chapter = self.chapters.get(entry.chapter or "")
        if chapter is not None:
            return chapter
        agent = entry.agent or "default"
        id = entry.chapter or ids.derived("chap", (self.trail.id, "work", agent))[:17]
        if id not in self.chapters:
            when = _when(entry.occurred_at)
            self.chapters[id] = Chapter(id=id, title="Work", agent_name=agent, started_at=when)
        return self.chapters[id]

    def _complete(self, entry: Entry) -> None:
        self.trail.status = "completed"
        self._end(entry)
        if entry.data.get("summary"):
            self.trail.retrospective = _retrospective(entry.data)

    def _abandon(self, entry: Entry) -> None:
        self.trail.status = "abandoned"
        self.trail.abandon_reason = entry.data.get("reason")
        self._end(entry)
        if entry.data.get("summary"):
            self.trail.retrospective = _retrospective(entry.data)

    def _end(self, entry: Entry) -> None:
        ended = _when(entry.occurred_at)
        self.trail.completed_at = None if entry.data.get("undated") else ended
        for chapter in self.chapters.values():
            if chapter.ended_at is None and "origin" not in entry.data:
                chapter.ended_at = max(ended, chapter.started_at)
        self._gather(entry.data)

    def _amend(self, data: Mapping[str, Any]) -> None:
        trail = self.trail
        told = {key: value for key, value in data.items() if key in _RETROSPECTIVE}
        told |= _extra(data)
        if told:
            have = trail.retrospective or Retrospective(summary=str(data.get("summary") or trail.title))
            trail.retrospective = from_record(to_record(have) | told, Retrospective, "retrospective")
        self._widen(data.get("trail") or {})
        trail.task.title = data.get("title", trail.task.title)
        trail.task.description = data.get("description", trail.task.description)
        self._gather(data)

    def _gather(self, data: Mapping[str, Any]) -> None:
        """What any end or amendment may add: commits, files, tags, the trace."""
        trail = self.trail
        for have, key in (
            (trail.commits, "commits"),
            (trail.files_changed, "filesChanged"),
            (trail.tags, "tags"),
        ):
            have.extend(item for item in _list(data.get(key)) if item not in have)
        if trail.trace is not None:
            trail.trace.end_ref = data.get("endRef", trail.trace.end_ref)
            trail.trace.trace_id = data.get("traceId", trail.trace.trace_id)

    def _widen(self, more: dict[str, Any]) -> None:
        """Take keys of the whole record that another tool added later."""
        if more:
            trail = self.trail
            told = _widened(trail.id, more)
            trail.project_id = trail.project_id or told.project_id
            trail.workflow_id = trail.workflow_id or told.workflow_id
            trail.trace = trail.trace or told.trace
            trail.extra = told.extra | trail.extra


_TASK = ("title", "description", "source")
_TRAIL = ("projectId", "workflowId", "tags", "_trace", "commits", "filesChanged", "session", "worktree")


def _begin(trail_id: str, start: Entry) -> Trail:
    data = start.data
    task: dict[str, Any] = {key: data[key] for key in _TASK if data.get(key) is not None}
    whole = {key: data[key] for key in _TRAIL if data.get(key) is not None}
    whole |= {"id": trail_id, "version": 1, "status": "active", "startedAt": start.occurred_at}
    whole["task"] = task | data.get("task", {})
    whole |= _extra(data)
    return from_record(whole, Trail, trail_id)


def _widened(trail_id: str, more: dict[str, Any]) -> Trail:
    """A trail that holds nothing but these keys of a record, and what none can do without."""
    least = {"id": trail_id, "status": "active", "startedAt": "1970-01-01T00:00:00Z", "task": {"title": "-"}}
    return from_record(least | more, Trail, trail_id)


def _event(entry: Entry, position: int, late: bool) -> Event | None:
    """The event of an entry; ends and amendments are told as events too, so that no reason is lost."""
    data = entry.data
    if entry.type == "trail_abandoned" and "origin" in data:
        return None  # the record from which it came tells it among its events, if at all
    if entry.type == "trail_abandoned":
        data = {
            "type": "abandoned",
            "content": _reason(data),
            "significance": "high",
            "raw": data.get("cause"),
        }
    elif late and entry.type == "trail_completed":
        told = {"content": f"Completed again: {data.get('summary', '')}", "raw": dict(data)}
        data = {"type": "reflection", "significance": "high", **told}
    elif entry.type in STRUCTURE:
        return None
    occurred = from_text(entry.occurred_at)
    known: dict[str, Any] = {"type": entry.type, **data, "ts": max(1, occurred // 1000)}
    event = from_record(known, Event, entry.id)
    event.id, event.seq, event.agent, event.chapter = entry.id, position, entry.agent, entry.chapter
    event.occurred_at, event.recorded_at = to_datetime(occurred), _when(entry.recorded_at)
    event.late = late
    return event


def _reason(data: Mapping[str, Any]) -> str:
    return f"Abandoned: {data.get('reason') or 'no reason given'}"


def _retrospective(data: Mapping[str, Any]) -> Retrospective:
    told = {key: value for key, value in data.items() if key not in _MORE | _IMPORTED}
    return from_record(told | _extra(data), Retrospective, "retrospective")


def _unknown(data: Mapping[str, Any], known: set[str]) -> dict[str, Any]:
    """What the data of an entry holds beyond what its type needs."""
    return {key: value for key, value in data.items() if key not in known | _IMPORTED} | _extra(data)


def _extra(data: Mapping[str, Any]) -> dict[str, Any]:
    extra = data.get("extra")
    return extra if isinstance(extra, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(entry: Entry, key: str) -> str:
    value = entry.data.get(key)
    if not isinstance(value, str) or not value:
        raise PayloadError(f"{entry.type} {entry.id}: expected data.{key} to be text, got {value!r:.80}")
    return value


def _when(text: str) -> datetime:
    return to_datetime(from_text(text))
