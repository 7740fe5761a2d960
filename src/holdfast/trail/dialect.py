"""A trail's record in the form that the npm tool's schema takes, and back.

The tool refuses a whole record for one value that its schema does not know: a retrospective without a number for
confidence, a decision without a reason, a title of more than 500 UTF-16 units, an address that JavaScript cannot
parse. So these are filled in or cut, and what stood there is kept beside it under `WAS`, in the same object. The
tool drops that key when it saves; a record that it has not touched comes back as it was.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from .model import TITLE_LIMIT, Trail
from .record import to_record

WAS = "_holdfastWas"
"""The key under which an object keeps the values that were changed for the tool; null: there was none."""
NO_REASON = "none given"
"""The reasoning of a decision without one: the tool shows no decision that lacks it."""
NO_CONFIDENCE = 0.5
"""The confidence of a retrospective that gives none."""

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_ADDRESS = re.compile(
    rf"[A-Za-z][A-Za-z0-9+.-]*://(?:{_LABEL}\.)*[A-Za-z](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?::\d{{1,4}})?(?:[/?#]\S*)?\Z",
    re.ASCII,
)


def to_npm(trail: Trail) -> dict[str, Any]:
    """The record of a trail, such that the npm tool reads it and shows all its decisions."""
    data = to_record(trail)
    task = data["task"]
    _change(task, "title", _cut(task["title"]))
    if "source" in task and not _is_address(task["source"].get("url", "http://x")):
        _change(task["source"], "url", None)
    for chapter, told in zip(trail.chapters, data["chapters"], strict=True):
        for event, written in zip(chapter.events, told["events"], strict=True):
            decision = event.decision
            if decision is not None:
                whole = event.raw if isinstance(event.raw, dict) else {}
                reason = decision.reasoning or NO_REASON
                _change(written, "raw", whole | to_record(decision) | {"reasoning": reason})
    if "retrospective" in data:
        _change(data["retrospective"], "confidence", data["retrospective"].get("confidence", NO_CONFIDENCE))
        for decision in data["retrospective"].get("decisions", ()):
            _change(decision, "reasoning", decision["reasoning"] or NO_REASON)
    return data


def from_npm(data: Any) -> Any:
    """The same record with the values that `to_npm` had changed. Data of any other shape is left as it is."""
    for part in _parts(data):
        was = part.get(WAS)
        if isinstance(was, dict):
            del part[WAS]
            part.update(was)
            for key in [key for key, value in was.items() if value is None]:
                del part[key]
    return data


def _parts(data: Any) -> Iterator[dict[str, Any]]:
    """The objects of a record in which `to_npm` changes values."""
    task, told = _get(data, "task"), _get(data, "retrospective")
    events = (e for c in _items(_get(data, "chapters")) for e in _items(_get(c, "events")))
    for part in (task, _get(task, "source"), told, *_items(_get(told, "decisions")), *events):
        if isinstance(part, dict):
            yield part


def _change(part: dict[str, Any], key: str, value: Any) -> None:
    was = part.get(key)
    if was == value:
        return
    part.setdefault(WAS, {})[key] = was
    part[key] = value
    if value is None:
        del part[key]


def _cut(title: str) -> str:
    """At most 500 UTF-16 units, as JavaScript counts them."""
    units = title.encode("utf-16-le", "surrogatepass")
    if len(units) <= 2 * TITLE_LIMIT:
        return title
    text = units[: 2 * TITLE_LIMIT - 2].decode("utf-16-le", "surrogatepass")
    return (text[:-1] if "\ud800" <= text[-1] <= "\udbff" else text) + "…"  # no half of a character


def _is_address(text: str) -> bool:
    """Whether JavaScript surely parses it as a URL: stricter than JavaScript is, for nothing is lost by it."""
    return _ADDRESS.match(text) is not None and "xn--" not in text.lower()


def _get(data: Any, key: str) -> Any:
    return data.get(key) if isinstance(data, dict) else None


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
