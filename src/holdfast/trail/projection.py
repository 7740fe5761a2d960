"""A run's log as a trail: a pure function of the events, entry for entry.

    lines = entries_of("order-1", await store.read("order-1"))

Guarantee: the entries of a log are those of any prefix of it and then those of the rest, and made again they
are the same bytes. So a recorder may stop anywhere, and two may work on one trail. It rests on three things:
ids are derived from the run and the position, times are the events' own, and nothing is looked at but the log.
A run is known by its id and the time at which it was created, for two stores may each have an `order-1`.

What becomes of what:

    run_created                    the trail begins: workflow, arguments (shortened), where it comes from
    noted                          chapters, and what was told in them
    step_scheduled, _completed     tool_call, tool_result, with a short preview
    step_failed                    an error: its cause (see `verdict`), class and attempts
    retries, timers, hooks, …      notes
    run_completed                  the trail is completed, with a retrospective by the rules of `verdict`
    run_failed, run_cancelled      the trail is abandoned, with the cause
    what comes after the end       late events

`credit` says in which chapter each event stands. Agents are those that the code names; the workflow is the
agent of all else.

Rejected: the arguments in the trail's title. Titles are listed, and trails are committed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..clock import from_text
from ..errors import PayloadError
from ..events import ENDS, Event, Noted, check_noted, name_of
from . import entry as line
from . import ids
from .credit import MAIN, Chapter, Chapters, Place
from .entry import STRUCTURE, Entry
from .happenings import ANSWERED, ASKED, TELLS, TEXT, related
from .model import TITLE_LIMIT
from .shorten import Redact, call, cut, preview
from .verdict import StepTold, cause_of, confidence, retrospective, said

_SYSTEM = "holdfast"


def trail_of(run_id: str, created: int) -> str:
    """The id of a run's trail; `created` is the time of its first event (`Head.created`), in microseconds."""
    return ids.derived("traj", (run_id, str(created)))


def entries_of(run_id: str, events: Iterable[Event], *, redact: Redact | None = None) -> list[Entry]:
    """The journal of a run's trail, from its log; `redact` takes secrets out of values before they are cut.

    Example:
        folder.absorb(trail_of(run_id, events[0].time), entries_of(run_id, events))
    """
    run = RunTrail(run_id, redact=redact)
    return [entry for event in events for entry in run.feed(event)]


class RunTrail:
    """One run's log on its way into a trail: feed it the events in order, take the entries that each makes."""

    def __init__(self, run_id: str, *, redact: Redact | None = None) -> None:
        self.run_id = run_id
        self.position = 0
        self.id = ""
        """The trail's id; known once the first event was fed."""
        self.status = "pending"
        self._redact = redact or (lambda value: value)
        self._seq = 0
        self._created = 0
        self._workflow = ""
        self._event: Event
        self._made: list[Entry] = []
        self._chapters: Chapters
        self._places: dict[str, Place] = {}
        self._agents: set[str] = set()
        self._steps: dict[str, StepTold] = {}
        self._confidence: float | None = None

    def feed(self, event: Event) -> list[Entry]:
        """The entries that follow from the run's next event. Unknown types make none."""
        self.position = event.position
        self._event, self._made = event, []
        handle = _HANDLERS.get(event.type)
        if not self.id and event.type != "run_created":
            return []
        if handle is not None:
            handle(self, event, event.data)
        elif event.type in TELLS:
            self._on_happening(event, event.data)
        return self._made

    # ---- making entries

    def _add(
        self,
        type: str,
        data: dict[str, Any],
        chapter: Chapter,
        *,
        agent: str | None = None,
        occurred_at: int | None = None,
    ) -> None:
        event, who = self._event, agent or chapter.agent
        self._seq += 1
        self._agents.add(who)
        if type != "chapter_closed":
            self._chapters.touch(chapter.id, event.time)
        self._made.append(
            line.new(
                self._id("evt", str(event.position), type, chapter.id),
                type,
                data,
                occurred_at=event.time if occurred_at is None else occurred_at,
                recorded_at=event.time,
                agent=who,
                chapter=chapter.id if type != "trail_started" else None,
                seq=self._seq,
            )
        )

    def _id(self, prefix: str, *parts: str) -> str:
        return ids.derived(prefix, (self.run_id, str(self._created), *parts))

    def _tell(
        self,
        place: Place,
        type: str,
        content: str,
        *,
        significance: str | None = "low",
        raw: Any = None,
        agent: str | None = None,
        title: str = "",
        occurred_at: int | None = None,
        **more: Any,
    ) -> None:
        """An event, in the chapter that it belongs to."""
        chapter, new = self._chapters.of(place, agent, title or self._event.key, self._event.time)
        if new:
            self._begin(chapter)
        data: dict[str, Any] = {"content": content}
        if significance is not None:
            data["significance"] = significance
        if raw is not None:
            data["raw"] = raw
        self._add(type, data | more, chapter, agent=agent, occurred_at=occurred_at)

    def _begin(self, chapter: Chapter) -> None:
        data = {"title": chapter.title} | ({"parent": chapter.parent} if chapter.parent else {})
        self._add("chapter_opened", data, chapter)

    def _error(self, data: Mapping[str, Any]) -> dict[str, Any]:
        error = data.get("error")
        return self._redact(error) if isinstance(error, dict) else {}

    def _said(self, error: Mapping[str, Any]) -> str:
        return cut(said(error), TEXT)

    # ---- the run

    def _on_created(self, event: Event, data: dict[str, Any]) -> None:
        self._created = event.time
        self._workflow = str(data.get("workflow") or "workflow")
        self.id = trail_of(self.run_id, event.time)
        parent, root = related(data.get("parent")), related(data.get("root"))
        begun: dict[str, Any] = {
            "title": self._workflow[:TITLE_LIMIT],
            "description": call(self._workflow, data.get("args"), self._redact),
            "source": {"system": _SYSTEM, "id": self.run_id},
            "workflowId": root or parent or self.run_id,
            "role": "workflow",
        }
        attributes = data.get("attributes")
        if isinstance(attributes, dict) and attributes:
            begun["tags"] = [f"{key}={value}" for key, value in attributes.items()]
        named = {"parentRun": parent, "previousRun": data.get("previous")}
        extra = {name: run for name, run in named.items() if run}
        if extra:
            begun["extra"] = extra
        self._chapters = Chapters(self._workflow, self._id, event.time)
        self._add("trail_started", begun, self._chapters.root)
        self._begin(self._chapters.root)

    def _on_started(self, _event: Event, _data: dict[str, Any]) -> None:
        self.status = "running"

    def _on_end(self, event: Event, data: dict[str, Any]) -> None:
        self.status = event.type.removeprefix("run_")
        end = "terminated" if data.get("by") == "terminate" else self.status
        error = self._error(data)
        elapsed = event.time - self._created
        told = retrospective(
            self._workflow, len(self._agents), self._steps, elapsed, error=error or None, end=end
        )
        root = self._chapters.root
        for own, last in self._chapters.left():
            self._add("chapter_closed", {}, own, occurred_at=last)
        if self.status == "completed":
            told_value = f"{self._workflow} returned {preview(data.get('value'), self._redact)}"
            if data.get("continued"):
                told_value = f"{self._workflow} goes on as run {data['continued']}"
            self._tell(MAIN, "completion-evidence", told_value, significance="medium")
            sure = confidence(self._steps, self._confidence)
            if sure is not None:
                told["confidence"] = sure
            self._add("trail_completed", told, root)
            return
        if self.status == "failed":
            reason = f"failed [{cause_of(error)}]: {self._said(error)}"
            cause = {"end": end, "cause": cause_of(error), "type": str(error.get("type", ""))}
        else:
            given = str(data.get("reason") or "")
            reason, cause = f"{end}: {given}" if given else end, {"end": end}
        told = {"reason": reason, "cause": cause, **told}
        self._add("trail_abandoned", told, root)

    def _on_happening(self, event: Event, data: dict[str, Any]) -> None:
        asked, answered = ASKED.get(event.type), ANSWERED.get(event.type)
        place = self._places.get(f"{answered} {event.key}", MAIN)
        if asked is not None:
            place = self._places[f"{asked} {event.key}"] = self._chapters.place(data)
        told = TELLS[event.type](event, data, self._redact)
        self._tell(place, told.type, told.content, significance=told.significance, raw=told.raw)

    # ---- steps

    def _on_scheduled(self, event: Event, data: dict[str, Any]) -> None:
        place = self._places[f"step {event.key}"] = self._chapters.place(data)
        self._steps[event.key] = StepTold(event.key)
        name = name_of(event.key)
        text = call(name, data.get("args"), self._redact)
        self._tell(place, "tool_call", text, raw={"step": event.key, "tool": name}, significance=None)

    def _on_attempt(self, event: Event, data: dict[str, Any]) -> None:
        number = _number(data)
        step = self._steps.get(event.key)
        if step is None or number < 2:
            return
        why = ": the one before was lost with its worker" if data.get("reason") == "recovered" else ""
        self._tell(self._of_step(event), "note", f"{event.key}: attempt {number} begins{why}")

    def _on_retried(self, event: Event, data: dict[str, Any]) -> None:
        error, number = self._error(data), _number(data)
        step = self._steps.get(event.key)
        if step is not None and not step.outcome:
            step.attempts = max(step.attempts, number)
            step.first_error = step.first_error or error
        delay = data.get("delay")
        wait = f"; the next one in {delay:.3g} s" if isinstance(delay, int | float) else ""
        self._tell(
            self._of_step(event),
            "note",
            f"{event.key}: attempt {number} failed [{cause_of(error)}]: {self._said(error)}{wait}",
            significance="medium",
            raw={"step": event.key, "attempt": number, "cause": cause_of(error)},
        )

    def _on_completed(self, event: Event, data: dict[str, Any]) -> None:
        number = _number(data)
        raw = {"step": event.key, "tool": name_of(event.key), "attempts": number}
        if self._is_second(event, data):
            return
        text = f"{event.key} gave {preview(data.get('value'), self._redact)}"
        self._tell(self._of_step(event), "tool_result", text, significance=None, raw=raw)

    def _on_failed(self, event: Event, data: dict[str, Any]) -> None:
        error, number = self._error(data), _number(data)
        if self._is_second(event, data):
            return
        cause = cause_of(error)
        raw = {
            "step": event.key,
            "tool": name_of(event.key),
            "cause": cause,
            "type": str(error.get("type", "")),
            "attempts": number,
        }
        if cause == "aborted":
            self._tell(self._of_step(event), "note", f"{event.key} was cancelled", raw=raw)
            return
        times = f"{number} attempts" if number > 1 else "1 attempt"
        text = f"{event.key} failed [{cause}] after {times}: {self._said(error)}"
        self._tell(self._of_step(event), "error", text, significance="high", raw=raw)

    def _is_second(self, event: Event, data: dict[str, Any]) -> bool:
        """A step's first outcome counts; a later one is told, and changes nothing."""
        step = self._steps.setdefault(event.key, StepTold(event.key))
        what = event.type.removeprefix("step_")
        if step.outcome:
            text = f"{event.key}: attempt {_number(data)} {what} later; its first outcome stands"
            self._tell(self._of_step(event), "note", text)
            return True
        step.outcome = what
        step.attempts = max(step.attempts, _number(data))
        step.error = self._error(data) or None
        step.first_error = step.first_error or step.error
        return False

    def _of_step(self, event: Event) -> Place:
        return self._places.get(f"step {event.key}", MAIN)

    # ---- notes of the code

    def _on_noted(self, event: Event, data: dict[str, Any]) -> None:
        try:
            noted = check_noted(data)
        except PayloadError:
            return
        place = self._chapters.place(data)
        if noted.kind == "chapter_opened":
            title = noted.title or ""
            self._begin(self._chapters.open(event.key, title, noted.agent, place, event.time))
        elif noted.kind == "chapter_closed":
            self._close(noted)
        elif noted.kind not in STRUCTURE:
            self._note(noted, place)

    def _close(self, noted: Noted) -> None:
        chapter = self._chapters.opened(noted.chapter)
        if chapter is None:
            return
        if noted.error is not None:
            cause = cause_of(noted.error)
            text = self._said(self._error({"error": noted.error}))
            data: dict[str, Any] = {"content": text, "significance": "high"}
            data["raw"] = {"cause": cause, "type": str(noted.error.get("type", ""))}
            if cause == "aborted":
                data |= {"content": "Cancelled", "significance": "medium"}
            kind = "note" if cause == "aborted" else "error"
            self._add(kind, data, chapter)
        self._add("chapter_closed", {}, chapter)

    def _note(self, noted: Noted, place: Place) -> None:
        if noted.kind == "reflection" and noted.confidence is not None:
            self._confidence = noted.confidence
        more: dict[str, Any] = {"tags": noted.tags} if noted.tags else {}
        if noted.confidence is not None:
            more["confidence"] = noted.confidence
        self._tell(
            place,
            noted.kind,
            noted.content or "",
            significance=noted.significance,
            raw=noted.raw,
            agent=noted.agent,
            title=noted.agent or noted.kind,
            occurred_at=_instant(noted.occurred_at),
            **more,
        )


def _number(data: Mapping[str, Any]) -> int:
    number = data.get("attempt", 1)
    return number if isinstance(number, int) else 1


def _instant(text: str | None) -> int | None:
    try:
        return from_text(text) if text else None
    except ValueError:
        return None


_HANDLERS: dict[str, Callable[[RunTrail, Event, dict[str, Any]], None]] = {
    "run_created": RunTrail._on_created,
    "run_started": RunTrail._on_started,
    **dict.fromkeys(ENDS, RunTrail._on_end),
    "step_scheduled": RunTrail._on_scheduled,
    "step_started": RunTrail._on_attempt,
    "step_retried": RunTrail._on_retried,
    "step_completed": RunTrail._on_completed,
    "step_failed": RunTrail._on_failed,
    "noted": RunTrail._on_noted,
}
