"""SWE-agent: one of its `.traj` files as a trail with one chapter.

Written against the types of SWE-agent 1.1; older files, which lack some keys, are read too. For each step, the
model's thought is `thinking`, its action a `tool_call`, the observation its `tool_result`. The first prompt of
the history is the `prompt`; the messages that each step repeats (`query`, once `messages`) are not kept, as
they grow with the square of the steps. A submission makes a completed trail, with the patch as evidence; another
exit status an abandoned one; a file without any is of a run that goes on, and taken in again when it has ended.

The files tell no times but how long each action took: all is dated with `when`, in the order of the file.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import msgspec

from ...clock import from_datetime, to_datetime
from ...errors import PayloadError
from .. import ids
from ..model import Agent, Chapter, Event, Retrospective, Task, Trail

ORIGIN = "swe-agent"
AGENT = "swe-agent"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LEFT_OUT = {"query", "messages", "response", "thought", "action", "observation"}
_CHANGED = re.compile(r"^\+\+\+ b/(.+?)\t?$", re.MULTILINE)


class _Step(msgspec.Struct):
    action: str | None = None
    observation: str | None = None
    response: str | None = None
    thought: str | None = None


class _Message(msgspec.Struct):
    role: str = ""
    content: str | list[dict[str, Any]] | None = None
    is_demo: bool | None = None


class _Info(msgspec.Struct):
    exit_status: str | int | None = None
    submission: str | dict[str, Any] | None = None


class _Document(msgspec.Struct):
    trajectory: list[_Step]
    history: list[_Message] = []
    info: _Info = msgspec.field(default_factory=_Info)
    environment: str | None = None
    replay_config: str | dict[str, Any] | None = None


def to_trail(data: Any, *, when: datetime | None = None) -> Trail:
    """The trail that a `.traj` file tells. Raises PayloadError: expected, got and path."""
    try:
        document = msgspec.convert(data, _Document)
    except (msgspec.ValidationError, RecursionError) as error:
        raise PayloadError(f"SWE-agent: {str(error)[:1].lower()}{str(error)[1:]}") from None
    return _trail(document, data, to_datetime(max(1000, from_datetime(when or _EPOCH))))


def _trail(document: _Document, data: dict[str, Any], when: datetime) -> Trail:
    problem = _problem(document)
    prompt = next((_text(m) for m in document.history if m.role == "user" and not m.is_demo), "")
    # The first step is there from the first save on: a file that has grown is of the same trail.
    first = json.dumps(data["trajectory"][:1], sort_keys=True)
    trail_id = ids.derived(
        "traj", (ORIGIN, str(problem.get("id", "")), document.environment or "", prompt, first)
    )
    chapter = Chapter(
        id=ids.derived("chap", (trail_id,)),
        title=_title(problem, document, prompt),
        agent_name=AGENT,
        started_at=when,
    )
    patch = document.info.submission if isinstance(document.info.submission, str) else ""
    told: list[tuple[str, str, Any]] = [("prompt", prompt, None)]
    for number, (step, given) in enumerate(
        zip(document.trajectory, data["trajectory"], strict=True), start=1
    ):
        told += _step(step, given, number)
    told.append(("completion-evidence", patch, None))
    chapter.events = [
        _event(trail_id, chapter, number, when, *said) for number, said in enumerate(told) if said[1]
    ]
    trail = Trail(
        id=trail_id,
        task=Task(title=chapter.title, description=_words(problem.get("text")) or None),
        status="active",
        started_at=when,
        agents=[Agent(name=AGENT, role="lead", joined_at=when)],
        chapters=[chapter],
        files_changed=list(dict.fromkeys(_CHANGED.findall(patch))),
        extra={"swe_agent": {k: v for k, v in (data.get("info") or {}).items() if k != "submission"}},
    )
    _end(trail, document.info, bool(patch), when)
    return trail


def _step(step: _Step, given: dict[str, Any], number: int) -> list[tuple[str, str, Any]]:
    """What a step says: type, content and raw of its events; content may be empty."""
    thought, action = step.thought or step.response or "", (step.action or "").strip()
    call = {"call_id": f"step {number}", "tool": action.split()[0]} if action else {}
    more = {key: value for key, value in given.items() if key not in _LEFT_OUT}
    asked = {"arguments": {"command": action}} if action else {}
    whole = {"response": step.response} if step.response and step.response != thought else {}
    result = "" if step.observation is None and not action else step.observation or "(no output)"
    return [
        ("thinking", thought, whole or None),
        ("tool_call", action, call | asked),
        ("tool_result", result, call | more or None),
    ]


def _event(
    trail_id: str, chapter: Chapter, number: int, when: datetime, type: str, content: str, raw: Any
) -> Event:
    return Event(
        id=ids.derived(
            "evt", (trail_id, str(number) if type != "completion-evidence" else "", type, content)
        ),
        ts=from_datetime(when) // 1000,
        type=type,
        content=content,
        raw=raw,
        agent=AGENT,
        chapter=chapter.id,
        occurred_at=when,
        origin=ORIGIN,
    )


def _end(trail: Trail, info: _Info, patched: bool, when: datetime) -> None:
    """Put down how the run ended, if it did."""
    if info.exit_status is None and not patched:
        return
    trail.completed_at = trail.chapters[0].ended_at = when
    how = str(info.exit_status or "submitted")
    if patched or how.startswith("submitted"):
        trail.status = "completed"
        trail.retrospective = Retrospective(summary=f"A patch was handed in ({how})", approach="SWE-agent")
    else:
        trail.status, trail.abandon_reason = "abandoned", how


def _problem(document: _Document) -> dict[str, Any]:
    """The problem statement of the configuration, which is JSON in a string."""
    config: Any = document.replay_config
    if isinstance(config, str):
        try:
            config = json.loads(config)
        except (ValueError, RecursionError):
            return {}
    problem = config.get("problem_statement") if isinstance(config, dict) else None
    return problem if isinstance(problem, dict) else {}


def _title(problem: dict[str, Any], document: _Document, prompt: str) -> str:
    text = _words(problem.get("text")) or prompt
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [_words(problem.get("id")), lines[0] if lines else ""]
    return (
        ": ".join(filter(None, told))[:200]
        or f"A run of SWE-agent in {document.environment or 'a repository'}"[:200]
    )


def _text(message: _Message) -> str:
    if isinstance(message.content, str):
        return message.content
    return "\n".join(_words(part.get("text")) for part in message.content or ())


def _words(value: Any) -> str:
    return value if isinstance(value, str) else ""
