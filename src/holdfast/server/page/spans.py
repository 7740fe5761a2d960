"""A run's log as spans of time: each step with its attempts, each timer, hook and child, in order of their start.

A span is named by the position of the command that began it, so no text of users stands in an address.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from ...events import ENDS, Event, name_of


class Segment(msgspec.Struct):
    """A part of a span. `kind`: queued, attempt, backoff, open, sleep, child. `end` is None while it lasts."""

    kind: str
    start: int
    end: int | None = None
    status: str = ""
    attempt: int = 0
    worker: str | None = None
    error: dict[str, Any] | None = None
    due: int | None = None


class Mark(msgspec.Struct, frozen=True):
    """Something that happened at one time within a span: a payload, at this position of the log."""

    kind: str
    time: int
    position: int


class Span(msgspec.Struct):
    """A row of the timeline. `kind`: step, timer, hook, child. `last` is the position that changed it last."""

    position: int
    kind: str
    key: str
    name: str
    start: int
    status: str
    segments: list[Segment]
    end: int | None = None
    marks: list[Mark] = []
    branch: int = 0
    chapter: str | None = None
    schema: dict[str, Any] | None = None
    metadata: Any = None
    owner: str | None = None
    child: str | None = None
    last: int = 0

    @property
    def attempts(self) -> list[Segment]:
        """The attempts of a step."""
        return [segment for segment in self.segments if segment.kind == "attempt"]

    def close(self, time: int, status: str) -> None:
        """It is over."""
        self.end, self.status = time, status
        if self.segments[-1].end is None:
            self.segments[-1].end = time
            self.segments[-1].status = self.segments[-1].status or status


class Spans:
    """All spans of a run, and the stretches of time in which no step ran."""

    def __init__(self) -> None:
        self.rows: list[Span] = []
        self.start = 0
        self.last = 0
        self.end: int | None = None
        self.idle: list[tuple[int, int]] = []
        self.busy = 0
        self.at_work = 0
        """Attempts that run."""
        self._of: dict[tuple[str, str], Span] = {}
        self._of_token: dict[str, Span] = {}

    def feed(self, event: Event) -> None:
        """The run's next event."""
        if not self.start:
            self.start = self.last = event.time
        if event.time > self.last:
            if self.at_work:
                self.busy += event.time - self.last
            else:
                self.idle.append((self.last, event.time))
            self.last = event.time
        handle = _HANDLERS.get(event.type)
        if handle is not None:
            handle(self, event, event.data)
        if event.type in ENDS and self.end is None:
            self._end(event)

    def open_hook(self, token: str) -> Span | None:
        """The hook that takes the payloads sent to this token."""
        span = self._of_token.get(token)
        return span if span is not None and span.end is None else None

    # ---- how events change them

    def _begin(self, event: Event, data: dict[str, Any], kind: str, segment: Segment, status: str) -> Span:
        span = Span(
            event.position,
            kind,
            event.key,
            name_of(event.key),
            event.time,
            status,
            [segment],
            branch=data.get("branch") or 0,
            chapter=data.get("chapter"),
            last=event.position,
        )
        self.rows.append(span)
        self._of[kind, event.key] = span
        return span

    def _find(self, kind: str, event: Event) -> Span | None:
        span = self._of.get((kind, event.key))
        if span is not None:
            span.last = event.position
        return span

    def _step_scheduled(self, event: Event, data: dict[str, Any]) -> None:
        self._begin(event, data, "step", Segment("queued", event.time), "scheduled")

    def _step_started(self, event: Event, data: dict[str, Any]) -> None:
        span = self._find("step", event)
        if span is None or span.end is not None:
            return
        latest = span.segments[-1]
        if latest.end is None:
            self.at_work -= latest.kind == "attempt"  # lost with its worker; another one takes over
            latest.end = event.time
            latest.status = latest.status or ("lost" if latest.kind == "attempt" else "")
        attempt = Segment(
            "attempt", event.time, attempt=data.get("attempt", 1), worker=data.get("worker"), status="running"
        )
        span.segments.append(attempt)
        span.status = "running"
        self.at_work += 1

    def _step_retried(self, event: Event, data: dict[str, Any]) -> None:
        span = self._find("step", event)
        if span is None or span.end is not None:
            return
        self._attempt_over(span, event.time, "failed", data.get("error"))
        span.segments.append(Segment("backoff", event.time, due=data.get("due")))
        span.status = "waiting"

    def _step_ended(self, event: Event, data: dict[str, Any]) -> None:
        span = self._find("step", event)
        if span is None or span.end is not None:
            return
        status = event.type.removeprefix("step_")
        if span.segments[-1].kind == "queued":  # an attempt that was never announced
            span.segments.append(Segment("attempt", event.time, attempt=data.get("attempt", 1)))
            self.at_work += 1
            span.segments[0].end = event.time
        self._attempt_over(span, event.time, status, data.get("error"))
        span.close(event.time, status)

    def _attempt_over(self, span: Span, time: int, status: str, error: dict[str, Any] | None) -> None:
        latest = span.segments[-1]
        if latest.end is None:
            self.at_work -= latest.kind == "attempt"
            latest.end = time
        latest.status, latest.error = status, error

    def _timer_started(self, event: Event, data: dict[str, Any]) -> None:
        self._begin(event, data, "timer", Segment("sleep", event.time, due=data.get("due")), "pending")

    def _timer_over(self, event: Event, _data: dict[str, Any]) -> None:
        span = self._find("timer", event)
        if span is not None and span.end is None:
            span.close(event.time, event.type.removeprefix("timer_"))

    def _hook_opened(self, event: Event, data: dict[str, Any]) -> None:
        span = self._begin(event, data, "hook", Segment("open", event.time), "open")
        span.schema, span.metadata = data.get("schema"), data.get("metadata")
        self._of_token[span.name] = span

    def _hook_received(self, event: Event, _data: dict[str, Any]) -> None:
        span = self._of.get(("hook", event.key)) or self._of_token.get(name_of(event.key))
        if span is not None:
            span.marks = [*span.marks, Mark("payload", event.time, event.position)]
            span.last = event.position

    def _hook_over(self, event: Event, data: dict[str, Any]) -> None:
        span = self._find("hook", event)
        if span is not None and span.end is None:
            span.owner = data.get("owner")
            span.close(event.time, event.type.removeprefix("hook_"))

    def _child_started(self, event: Event, data: dict[str, Any]) -> None:
        span = self._begin(event, data, "child", Segment("child", event.time), "running")
        child = data.get("run")
        span.child = child if isinstance(child, str) else None

    def _child_cancelled(self, event: Event, _data: dict[str, Any]) -> None:
        span = self._find("child", event)
        if span is not None and span.end is None:
            span.status = "cancelling"

    def _child_ended(self, event: Event, data: dict[str, Any]) -> None:
        span = self._find("child", event)
        if span is not None and span.end is None:
            span.close(event.time, str(data.get("status") or "completed"))

    def _end(self, event: Event) -> None:
        self.end, self.at_work = event.time, 0
        for span in self.rows:
            if span.end is None:
                span.close(event.time, "run_ended" if span.kind == "hook" else "left open")


_HANDLERS: dict[str, Callable[[Spans, Event, dict[str, Any]], None]] = {
    "step_scheduled": Spans._step_scheduled,
    "step_started": Spans._step_started,
    "step_retried": Spans._step_retried,
    "step_completed": Spans._step_ended,
    "step_failed": Spans._step_ended,
    "timer_started": Spans._timer_started,
    "timer_fired": Spans._timer_over,
    "timer_cancelled": Spans._timer_over,
    "hook_opened": Spans._hook_opened,
    "hook_received": Spans._hook_received,
    "hook_closed": Spans._hook_over,
    "hook_refused": Spans._hook_over,
    "child_started": Spans._child_started,
    "child_cancelled": Spans._child_cancelled,
    "child_ended": Spans._child_ended,
}
