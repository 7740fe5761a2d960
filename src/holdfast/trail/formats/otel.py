"""OpenTelemetry: a trail as one trace, in OTLP/JSON, which collectors take at /v1/traces. No SDK is needed.

    trail                      span `invoke_workflow {title}`, the root
    chapter                    span `invoke_agent {agent}`, in its parent's or the root's
    tool_call, tool_result     span `execute_tool {tool}`, from the call to its result
    all other events           events of their chapter's span: `holdfast.decision`, `holdfast.finding`, …

Ids are derived from the trail's id and what is told, so an export has the same bytes whenever it is made, and a
trail that has grown extends its trace. Spans are well nested: one lasts at least as long as what it holds. A
span that has not ended ends with the last thing that is known of it; a call without a result has no length.

Names are those of the semantic conventions for GenAI agents, version 1.41 (status: development; they move to a
repository of their own). `gen_ai.provider.name`, which they want on `invoke_agent`, is left out: a trail does
not know which company answers, and a guess would be counted as a fact. What tools were asked and what they
answered is opt-in there; whoever exports a trail asks for what it says.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from ...clock import from_datetime
from .. import record
from ..decisions import decision_of
from ..model import Chapter, Event, Trail
from . import calls
from .calls import Place

SCHEMA = "https://opentelemetry.io/schemas/1.41.0"
SCOPE = "holdfast.trail"

_INTERNAL = 1  # SpanKind
_ERROR = 2  # StatusCode
_LATEST = 2**63 - 1
"""The last nanosecond that every reader can hold; it is in the year 2262."""


class _Span(NamedTuple):
    """A span before it is written. Times are microseconds since 1970."""

    id: str
    parent: str | None
    name: str
    start: int
    end: int
    attributes: dict[str, Any]
    events: list[dict[str, Any]]
    failed: str | None = None


def of_trail(trail: Trail) -> dict[str, Any]:
    """The trail as the body of an OTLP export request with one trace."""
    trace = _digest(trail.id, "trace")[:32]
    spans = [_written(span, trace) for span in _spans(trail)]
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": _attributes({"service.name": "holdfast"})},
                "scopeSpans": [{"scope": {"name": SCOPE}, "spans": spans, "schemaUrl": SCHEMA}],
                "schemaUrl": SCHEMA,
            }
        ]
    }


def _spans(trail: Trail) -> list[_Span]:
    """The root, the chapters in their order, then the calls."""
    places = calls.placed(trail)
    results = calls.results(places)
    parents = _parents(trail.chapters)
    told: list[list[dict[str, Any]]] = [[] for _ in trail.chapters]
    tools: list[tuple[int, _Span]] = []
    paired = set(results.values())
    for number, place in enumerate(places):
        if place.event.type == "tool_call":
            result = places[results[number]].event if number in results else None
            tools.append((place.chapter, _tool(trail, place, place.event, result)))
        elif place.event.type == "tool_result" and number not in paired:
            tools.append((place.chapter, _tool(trail, place, None, place.event)))
        elif place.event.type != "tool_result":
            told[place.chapter].append(_point(place.event))
    times = _times(trail, places, parents, tools)
    root = _root(trail, times[-1])
    chapters = [
        _chapter(trail, number, parent, times[number], told[number]) for number, parent in enumerate(parents)
    ]
    return [root, *chapters, *(span for _, span in tools)]


def _root(trail: Trail, times: tuple[int, int]) -> _Span:
    end = trail.retrospective
    attributes = {
        "gen_ai.operation.name": "invoke_workflow",
        "gen_ai.workflow.name": trail.title,
        "gen_ai.conversation.id": trail.session or trail.id,
        "holdfast.trail.id": trail.id,
        "holdfast.trail.status": trail.status,
        "holdfast.trail.tags": trail.tags or None,
        "holdfast.trail.workflow_id": trail.workflow_id,
        "holdfast.trail.summary": end.summary if end is not None else None,
        "holdfast.trail.confidence": end.confidence if end is not None else None,
    }
    reason = None
    if trail.status == "abandoned":
        reason = trail.abandon_reason or "abandoned"
        attributes["error.type"] = "abandoned"
    name = f"invoke_workflow {trail.title}"
    return _Span(_span_id(trail, "trail"), None, name, *times, attributes, [], reason)


def _chapter(
    trail: Trail, number: int, parent: int | None, times: tuple[int, int], told: list[dict[str, Any]]
) -> _Span:
    chapter = trail.chapters[number]
    attributes = {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": chapter.agent_name,
        "gen_ai.conversation.id": trail.session or trail.id,
        "holdfast.chapter.id": chapter.id,
        "holdfast.chapter.title": chapter.title,
    }
    above = _span_id(trail, "trail") if parent is None else _span_id(trail, "chapter", parent)
    name = f"invoke_agent {chapter.agent_name}"
    return _Span(_span_id(trail, "chapter", number), above, name, *times, attributes, told)


def _tool(trail: Trail, place: Place, call: Event | None, result: Event | None) -> _Span:
    first = call if call is not None else place.event
    last = result if result is not None else first
    tool = calls.name_of(first)
    attributes = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": tool,
        "gen_ai.tool.call.id": calls.id_of(first) or None,
        "gen_ai.tool.call.arguments": _json(calls.arguments_of(call)) if call is not None else None,
        "gen_ai.tool.call.result": result.content if result is not None else None,
        "gen_ai.agent.name": first.agent or trail.chapters[place.chapter].agent_name,
    }
    failed = calls.failure_of(last) if result is not None else None
    if failed is not None:
        attributes["error.type"] = "tool_error"
    start = _at(first)
    id = _span_id(trail, "event", place.chapter, place.order)
    above = _span_id(trail, "chapter", place.chapter)
    return _Span(id, above, f"execute_tool {tool}", start, max(start, _at(last)), attributes, [], failed)


def _point(event: Event) -> dict[str, Any]:
    """An event of a span. A decision tells its parts, too."""
    decision = decision_of(event)
    attributes: dict[str, Any] = {
        "holdfast.event.id": event.id or None,
        "holdfast.event.content": event.content,
        "holdfast.event.significance": event.significance,
        "holdfast.event.confidence": event.confidence,
        "holdfast.event.tags": event.tags or None,
        "holdfast.event.late": event.late or None,
        "gen_ai.agent.name": event.agent or None,
    }
    if decision is not None:
        others = record.to_record(decision)["alternatives"]
        attributes |= {
            "holdfast.decision.question": decision.question,
            "holdfast.decision.chosen": decision.chosen,
            "holdfast.decision.reasoning": decision.reasoning or None,
            "holdfast.decision.alternatives": [_option(other) for other in others] or None,
        }
    return {
        "timeUnixNano": _nanos(_at(event)),
        "name": f"holdfast.{event.type}",
        "attributes": _attributes(attributes),
    }


def _option(alternative: Any) -> str:
    if isinstance(alternative, str):
        return alternative
    reason = alternative.get("reason")
    return f"{alternative['option']} ({reason})" if reason else str(alternative["option"])


def _times(
    trail: Trail, places: list[Place], parents: list[int | None], tools: list[tuple[int, _Span]]
) -> list[tuple[int, int]]:
    """From when to when each chapter is, and last the trail: themselves, and all that they hold."""
    spans = [
        [from_datetime(one.started_at), from_datetime(one.ended_at or one.started_at)]
        for one in trail.chapters
    ]
    begun = from_datetime(trail.started_at)
    spans.append([begun, from_datetime(trail.completed_at or trail.started_at)])
    held = [(place.chapter, _at(place.event), _at(place.event)) for place in places]
    held += [(chapter, span.start, span.end) for chapter, span in tools]
    for number, start, end in held:
        _widen(spans[number], start, end)
    for number in _inner_first(parents):
        parent = parents[number]
        _widen(spans[-1 if parent is None else parent], *spans[number])
    return [(start, max(start, end)) for start, end in spans]


def _widen(span: list[int], start: int, end: int) -> None:
    span[0], span[1] = min(span[0], start), max(span[1], end)


def _inner_first(parents: list[int | None]) -> Iterator[int]:
    """The chapters, each after all that are inside it."""
    inside = Counter(parents)
    ready = [number for number in range(len(parents)) if not inside[number]]
    while ready:
        number = ready.pop()
        yield number
        parent = parents[number]
        if parent is not None:
            inside[parent] -= 1
            if not inside[parent]:
                ready.append(parent)


def _parents(chapters: list[Chapter]) -> list[int | None]:
    """For each chapter, the number of its parent; a parent that is not there, or closes a circle, is none."""
    first: dict[str, int] = {}
    for number, chapter in enumerate(chapters):
        first.setdefault(chapter.id, number)
    parents = [first.get(chapter.parent) if chapter.parent is not None else None for chapter in chapters]
    settled: set[int] = set()
    for number in range(len(parents)):
        way: set[int] = set()
        at: int | None = number
        while at is not None and at not in settled:
            way.add(at)
            if parents[at] in way:
                parents[at] = None
            at = parents[at]
        settled |= way
    return parents


def _written(span: _Span, trace: str) -> dict[str, Any]:
    parent = {"parentSpanId": span.parent} if span.parent is not None else {}
    status = {"code": _ERROR, "message": span.failed} if span.failed is not None else {}
    return {
        "traceId": trace,
        "spanId": span.id,
        **parent,
        "name": span.name,
        "kind": _INTERNAL,
        "startTimeUnixNano": _nanos(span.start),
        "endTimeUnixNano": _nanos(span.end),
        "attributes": _attributes(span.attributes),
        "events": span.events,
        "status": status,
    }


def _attributes(values: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in values.items() if value is not None]


def _value(value: Any) -> dict[str, Any]:
    """An AnyValue: integers of 64 bits are text in OTLP/JSON."""
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case list():
            return {"arrayValue": {"values": [_value(item) for item in value]}}
    return {"stringValue": str(value)}


def _at(event: Event) -> int:
    return from_datetime(event.occurred_at) if event.occurred_at is not None else event.ts * 1000


def _nanos(micros: int) -> str:
    return str(min(max(micros, 0) * 1000, _LATEST))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _span_id(trail: Trail, kind: str, *place: int) -> str:
    return _digest(trail.id, kind, *map(str, place))[:16]


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join((SCOPE, *parts)).encode()).hexdigest()
