"""Calls of tools and what came of them: which result belongs to which call.

A trail has events `tool_call` and `tool_result`, and writers put what they like in `raw`. A result belongs to
the oldest call with the same id that has none yet; without an id, to the oldest such call of its chapter and
agent. Ids, names and arguments are looked for under the keys that the common libraries use.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from typing import Any, NamedTuple

from ..model import Event, Trail

_ID = (
    "tool_call_id",
    "toolCallId",
    "tool_use_id",
    "toolUseId",
    "call_id",
    "callId",
    "step",
    "childRun",
    "id",
)
_NAME = ("function_name", "tool_name", "toolName", "tool", "function", "name")
_ARGUMENTS = ("arguments", "tool_input", "args", "input", "parameters")


class Place(NamedTuple):
    """Where an event stands: the number of its chapter in the trail, its number there, from 0, and itself."""

    chapter: int
    order: int
    event: Event


def placed(trail: Trail) -> list[Place]:
    """All events in the order in which they were recorded, with where they stand."""
    places = [
        Place(number, index, event)
        for number, chapter in enumerate(trail.chapters)
        for index, event in enumerate(chapter.events)
    ]
    return sorted(places, key=lambda place: place.event.seq)


def results(places: list[Place]) -> dict[int, int]:
    """For each call that has a result, where in `places` the two are. Other results belong to no call."""
    open_calls: dict[Any, deque[int]] = defaultdict(deque)
    found: dict[int, int] = {}
    for number, place in enumerate(places):
        if place.event.type == "tool_call":
            open_calls[_key(place)].append(number)
        elif place.event.type == "tool_result" and (waiting := open_calls[_key(place)]):
            found[waiting.popleft()] = number
    return found


def id_of(event: Event) -> str:
    """The id of the call that an event is, or is the result of; '' where it does not say."""
    return next((str(value) for value in _values(event, _ID) if isinstance(value, str | int) and value), "")


def name_of(event: Event) -> str:
    """The tool that a call is of: what `raw` says, or the first word of the content."""
    named = next((value for value in _values(event, _NAME) if isinstance(value, str) and value), "")
    words = event.content.split()
    return named or (words[0].partition("(")[0][:80] if words else "") or "tool"


def arguments_of(event: Event) -> dict[str, Any]:
    """The arguments of a call; those that are no object, or not told, stand under 'input'."""
    given = next(_values(event, _ARGUMENTS), None)
    if isinstance(given, dict):
        return given
    return {"input": event.content if given is None else given}


def failure_of(event: Event) -> str | None:
    """Why a call failed, where its result says so; None where it does not."""
    raw = event.raw if isinstance(event.raw, dict) else {}
    if raw.get("is_error") is True or raw.get("isError") is True:
        return event.content
    error = raw.get("error")
    return (error if isinstance(error, str) else event.content) if error else None


def _values(event: Event, keys: tuple[str, ...]) -> Iterator[Any]:
    raw = event.raw if isinstance(event.raw, dict) else {}
    return (raw[key] for key in keys if raw.get(key) is not None)


def _key(place: Place) -> Any:
    return id_of(place.event) or (place.chapter, place.event.agent)
