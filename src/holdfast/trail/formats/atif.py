"""ATIF, the Agent Trajectory Interchange Format of Harbor: a trail as a list of steps, and back.

Written against ATIF-v1.7: it brought the `extra` of calls and results that we need, and v1.8 only adds audio,
which a trail has not. Its validators refuse keys they do not know, so what ATIF has no word for stands in
`extra`: at the top the trail without its events, at each step the event without its content, and the decision.
Read back, that is the whole trail again, under the same id; a reader that knows nothing of it sees a dialogue:

    the task, prompt, message_received  step of the user          thinking        `reasoning_content`
    tool_call                           `tool_calls`              tool_result     `observation` of the call's step
    all other events                    a message of the agent

A trajectory of another tool becomes one chapter for each agent, those of subagents inside their parent's. What
has no field in a trail (metrics, model, effort) is kept in `raw` of the step's first event.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from ...clock import to_datetime
from ...errors import PayloadError
from .. import ids, record
from ..decisions import decision_of
from ..model import LAST_TS, Agent, Chapter, Event, Task, Trail
from . import calls
from .calls import Place

VERSION = "ATIF-v1.7"
ORIGIN = "atif"
OURS = "holdfast"
"""The key of `extra` under which we keep what ATIF has no word for."""

_USER = ("prompt", "message_received")
_EMPTY = "(empty)"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def of_trail(trail: Trail) -> dict[str, Any]:
    """The trail as an ATIF trajectory."""
    places = calls.placed(trail)
    results = calls.results(places)
    paired = set(results.values())
    steps = [_task_step(trail)]
    for number, place in enumerate(places):
        if number not in paired:
            result = places[results[number]] if number in results else None
            steps.append(_step(place, len(steps) + 1, result))
    lead = trail.agents[0].name if trail.agents else trail.chapters[0].agent_name if trail.chapters else ""
    whole = record.to_record(trail)
    whole["chapters"] = [chapter | {"events": []} for chapter in whole["chapters"]]
    return {
        "schema_version": VERSION,
        "session_id": trail.id,
        "trajectory_id": trail.id,
        "agent": {"name": lead or "unknown", "version": "unknown"},
        "steps": steps,
        "final_metrics": {"total_steps": len(steps)},
        "extra": {OURS: whole},
    }


def _task_step(trail: Trail) -> dict[str, Any]:
    words = [trail.task.title, *([trail.task.description] if trail.task.description else [])]
    when = record.instant(trail.started_at)
    return {"step_id": 1, "timestamp": when, "source": "user", "message": "\n\n".join(words)}


def _step(place: Place, number: int, result: Place | None) -> dict[str, Any]:
    event = place.event
    step: dict[str, Any] = {"step_id": number, "timestamp": _time(event)}
    extra = {OURS: _told(place)}
    if event.type == "tool_call":
        call_id = calls.id_of(event) or f"call_{number}"
        call: dict[str, Any] = {"tool_call_id": call_id, "function_name": calls.name_of(event)}
        call |= {"arguments": calls.arguments_of(event)}
        step |= {"source": "agent", "message": event.content, "tool_calls": [call], "extra": extra}
        if result is not None:
            step["observation"] = {"results": [{"source_call_id": call_id} | _result(result)]}
    elif event.type == "tool_result":  # of no call that we know
        step |= {"source": "system", "message": "", "observation": {"results": [_result(place)]}}
    elif event.type == "thinking":
        step |= {"source": "agent", "message": "", "reasoning_content": event.content, "extra": extra}
    else:
        decision = decision_of(event)
        extra |= {"decision": record.to_record(decision)} if decision is not None else {}
        source = "user" if event.type in _USER else "agent"
        step |= {"source": source, "message": event.content, "extra": extra}
    return step


def _result(place: Place) -> dict[str, Any]:
    return {"content": place.event.content, "extra": {OURS: _told(place)}}


def _told(place: Place) -> dict[str, Any]:
    """An event without its content, and where it stands: of the chapters, and in its chapter, from 0."""
    event = record.to_record(place.event)
    del event["content"]
    return {"at": [place.chapter, place.order], "event": event}


def _time(event: Event) -> str:
    return record.instant(event.occurred_at or to_datetime(event.ts * 1000))


class _Call(msgspec.Struct):
    tool_call_id: str
    function_name: str
    arguments: dict[str, Any]


class _Result(msgspec.Struct):
    source_call_id: str | None = None
    content: str | list[dict[str, Any]] | None = None
    extra: dict[str, Any] | None = None


class _Observation(msgspec.Struct):
    results: list[_Result]


class _Step(msgspec.Struct):
    step_id: int
    source: str
    message: str | list[dict[str, Any]]
    timestamp: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_Call] | None = None
    observation: _Observation | None = None
    extra: dict[str, Any] | None = None


class _By(msgspec.Struct):
    name: str


class _Document(msgspec.Struct):
    schema_version: str
    agent: _By
    steps: list[_Step]
    session_id: str | None = None
    trajectory_id: str | None = None
    subagent_trajectories: list[_Document] | None = None
    extra: dict[str, Any] | None = None


class _At(msgspec.Struct):
    at: tuple[int, int]
    event: dict[str, Any]


_ORDINARY = {"step_id", "timestamp", "source", "message", "reasoning_content", "tool_calls", "observation"}


def to_trail(data: Any, *, when: datetime | None = None) -> Trail:
    """The trail that a trajectory tells: what `of_trail` wrote is the same trail again.

    Times that it does not tell are those of the step before, or `when`. Raises PayloadError: expected, got and
    path.
    """
    try:
        document = msgspec.convert(data, _Document)
    except (msgspec.ValidationError, RecursionError) as error:
        raise PayloadError(f"ATIF: {str(error)[:1].lower()}{str(error)[1:]}") from None
    if not document.schema_version.startswith("ATIF-v1."):
        raise PayloadError(
            f"ATIF: expected ATIF-v1.x, got {document.schema_version!r:.80} - at `$.schema_version`"
        )
    if isinstance((document.extra or {}).get(OURS), dict):
        return _ours(document)
    return _Reading(document, data, when or _EPOCH).trail


def _ours(document: _Document) -> Trail:
    """The trail that `of_trail` wrote: its own words for what it is, the steps for what was said."""
    whole = (document.extra or {})[OURS]
    trail = record.from_record(whole, what="ATIF: $.extra.holdfast")
    told: list[tuple[int, int, Event]] = []
    for number, step in enumerate(document.steps):
        path = f"ATIF: $.steps[{number}]"
        if OURS in (step.extra or {}):
            content = step.reasoning_content if step.reasoning_content is not None else step.message
            told.append(_event(step.extra, content, path, len(trail.chapters)))
        for place, result in enumerate(step.observation.results if step.observation is not None else ()):
            if OURS in (result.extra or {}):
                path = f"ATIF: $.steps[{number}].observation.results[{place}]"
                told.append(_event(result.extra, result.content, path, len(trail.chapters)))
    for chapter, _, event in sorted(told, key=lambda one: one[:2]):
        trail.chapters[chapter].events.append(event)
    return trail


def _event(extra: Any, content: Any, path: str, chapters: int) -> tuple[int, int, Event]:
    try:
        told = msgspec.convert(extra[OURS], _At)
    except msgspec.ValidationError as error:
        raise PayloadError(f"{path}.extra.holdfast: {error}") from None
    if not 0 <= told.at[0] < chapters:
        raise PayloadError(f"{path}.extra.holdfast.at: expected a chapter below {chapters}, got {told.at[0]}")
    return (*told.at, record.from_record(told.event | {"content": content}, Event, path))


class _Said(NamedTuple):
    """What a step says once: an event's type and content, and what is kept of it in `raw`."""

    type: str
    content: str
    raw: Any = None


class _Reading:
    """Another tool's trajectory, read as a trail."""

    def __init__(self, document: _Document, data: dict[str, Any], when: datetime) -> None:
        self.when = self.last = when
        self.id = _id(document, data)
        self.chapters: list[Chapter] = []
        self._read(document, data, None, "$")
        agents = {chapter.agent_name: chapter for chapter in reversed(self.chapters)}
        lead = self.chapters[0].agent_name
        self.trail = Trail(
            id=self.id,
            task=Task(title=_title(document)),
            status="completed",
            started_at=self.chapters[0].started_at,
            completed_at=max(chapter.ended_at or self.last for chapter in self.chapters),
            agents=[
                Agent(name=name, role="lead" if name == lead else "subagent", joined_at=chapter.started_at)
                for name, chapter in reversed(agents.items())
            ],
            chapters=self.chapters,
            session=document.session_id or None,
            extra={"atif": {k: v for k, v in data.items() if k not in ("steps", "subagent_trajectories")}},
        )

    def _read(self, document: _Document, data: dict[str, Any], parent: str | None, path: str) -> None:
        times = [self._time(step, f"{path}.steps[{n}]") for n, step in enumerate(document.steps)]
        known = [time for time in times if time is not None]
        self.last = known[0] if known else self.last
        place = document.trajectory_id or str(len(self.chapters))
        chapter = Chapter(
            id=ids.derived("chap", (self.id, parent or "", place)),
            title=document.agent.name or "agent",
            agent_name=document.agent.name or "agent",
            started_at=self.last,
            parent=parent,
        )
        self.chapters.append(chapter)
        for step, raw, time in zip(document.steps, data["steps"], times, strict=True):
            self.last = time or self.last
            self._take(chapter, step, raw)
        chapter.ended_at = max([chapter.started_at, *known])
        inside = zip(
            document.subagent_trajectories or (), data.get("subagent_trajectories") or (), strict=True
        )
        for number, (sub, raw) in enumerate(inside):
            self._read(sub, raw, chapter.id, f"{path}.subagent_trajectories[{number}]")

    def _take(self, chapter: Chapter, step: _Step, raw: dict[str, Any]) -> None:
        for number, said in enumerate(_said(step, raw)):
            parts = (chapter.id, str(step.step_id), str(number), said.type, said.content)
            event = Event(
                id=ids.derived("evt", (self.id, *parts)),
                ts=min(max(1, int(self.last.timestamp() * 1000)), LAST_TS),
                type=said.type,
                content=said.content,
                raw=said.raw,
                tags=["system"] if step.source == "system" else [],
                agent=chapter.agent_name,
                chapter=chapter.id,
                occurred_at=self.last,
                origin=ORIGIN,
            )
            chapter.events.append(event)

    def _time(self, step: _Step, path: str) -> datetime | None:
        if step.timestamp is None:
            return None
        try:
            time = datetime.fromisoformat(step.timestamp)
            return (time.replace(tzinfo=UTC) if time.tzinfo is None else time).astimezone(UTC)
        except (ValueError, OverflowError):
            raise PayloadError(
                f"ATIF: expected an ISO 8601 time, got {step.timestamp!r:.80} - at `{path}.timestamp`"
            ) from None


def _said(step: _Step, data: dict[str, Any]) -> Iterator[_Said]:
    """The events of a step, in the order in which they happened; the first keeps the step's other keys."""
    rest: Any = {"step": more} if (more := {k: v for k, v in data.items() if k not in _ORDINARY}) else None
    if step.reasoning_content:
        yield _Said("thinking", step.reasoning_content, rest)
        rest = None
    message = _text(step.message)
    if message or not (step.reasoning_content or step.tool_calls or step.observation):
        type = "message_sent" if step.source == "agent" else "prompt"
        yield _Said(type, message or _EMPTY, _with_parts(rest, step.message))
        rest = None
    for call, given in zip(step.tool_calls or (), data.get("tool_calls") or (), strict=True):
        words = json.dumps(call.arguments, ensure_ascii=False) if call.arguments else ""
        yield _Said("tool_call", f"{call.function_name or 'tool'}({words})", given | (rest or {}))
        rest = None
    if step.observation is not None:
        for result, given in zip(step.observation.results, data["observation"]["results"], strict=True):
            known = {"tool_call_id": result.source_call_id} if result.source_call_id else {}
            kept = (
                given
                if not isinstance(result.content, str)
                else {k: given[k] for k in given if k != "content"}
            )
            raw = known | {k: v for k, v in kept.items() if k != "source_call_id"} | (rest or {})
            yield _Said("tool_result", _text(result.content) or _EMPTY, raw or None)
            rest = None


def _with_parts(raw: Any, message: str | list[dict[str, Any]]) -> Any:
    return raw if isinstance(message, str) else (raw or {}) | {"message": message}


def _text(content: str | list[dict[str, Any]] | None) -> str:
    """The words of a message; of an image or a sound, where it is."""
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(filter(None, map(_part, content)))


def _part(part: dict[str, Any]) -> str:
    if isinstance(part.get("text"), str):
        return str(part["text"])
    source = part.get("source")
    where = source.get("path", "") if isinstance(source, dict) else ""
    return f"[{part.get('type', 'part')}: {where}]"


def _title(document: _Document) -> str:
    asked = [_text(step.message) for step in document.steps if step.source == "user"]
    lines = [line for text in asked for line in text.splitlines() if line.strip()]
    return lines[0].strip()[:200] if lines else f"A trajectory of {document.agent.name or 'an agent'}"[:200]


def _id(document: _Document, data: dict[str, Any]) -> str:
    """The trail's id. A session may have many trajectories: without an id of its own, its beginning tells it."""
    if document.trajectory_id:
        return ids.derived("traj", ("atif", document.trajectory_id))
    first = json.dumps(data["steps"][:1], sort_keys=True)
    return ids.derived("traj", ("atif", document.session_id or "", document.agent.name, first))
