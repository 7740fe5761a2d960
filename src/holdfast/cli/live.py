"""The live view of a run on a terminal: its steps, and what it waits for, redrawn as the log grows."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ..clock import Clock
from ..events import ENDS, Event, RunState, StepState, fold
from ..keys import MARK
from ..phrases import SEALED, error_line
from . import output

if TYPE_CHECKING:
    from rich.live import Live

_MARKS = {"completed": "✓", "failed": "✗", "running": "▸", "waiting": "↻", "scheduled": "·"}


class RunView:
    """What is known of the run; drawn to stderr where that is a terminal, and silent otherwise.

    Use it as `with RunView(...) as view`, and call `view.add(events)` with each page of the log.
    """

    def __init__(self, run_id: str, clock: Clock) -> None:
        self.state = RunState(run_id)
        self.end: Event | None = None
        self._run_id = run_id
        self._args: dict[str, str] = {}
        self._clock = clock
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            console = Console(stderr=True, highlight=False)
            self._live = Live(console=console, auto_refresh=False, redirect_stdout=False)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.update(self._drawn(), refresh=True)
            self._live.stop()

    def add(self, events: Sequence[Event]) -> None:
        """More of the log; without events, only the times move on."""
        fold(events, self.state)
        for event in events:
            if event.type == "step_scheduled":
                self._args[event.key] = args_text(event)
            if event.type in ENDS and self.end is None:
                self.end = event
        if self._live is not None:
            self._live.update(self._drawn(), refresh=True)

    # ---- drawing

    def _drawn(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        assert self._live is not None
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(no_wrap=True)
        grid.add_column(no_wrap=True)
        grid.add_column(no_wrap=True, overflow="ellipsis")
        room = max(self._live.console.size.height - 5, 3)
        for step in self._chosen(room):
            style = output.STATUS_STYLES.get(step.status, "")
            mark = Text(f"{_MARKS.get(step.status, ' ')} {output.clean(step.key)}", style=style)
            grid.add_row(mark, self._took(step), Text(self._remark(step), style="dim"))
        lines: list[Any] = [Text(self._title(), style="bold", no_wrap=True), grid]
        lines += [Text(line, style="yellow") for line in self._waits()]
        from rich.console import Group

        return Group(*lines)

    def _title(self) -> str:
        steps = self.state.steps.values()
        done = sum(not step.open for step in steps)
        took = output.span(
            (self.state.ended or self._clock.now()) - (self.state.created or self._clock.now())
        )
        counted = f"{done} of {len(steps)} steps" if steps else "no step yet"
        return f"{self._run_id}  {self.state.status}  {counted}  {took}"

    def _chosen(self, room: int) -> list[StepState]:
        """The steps that fit: open ones first to stay, then the latest that have ended."""
        steps = list(self.state.steps.values())
        if len(steps) <= room:
            return steps
        open_steps = [step for step in steps if step.open][:room]
        ended = [step for step in steps if not step.open]
        kept = ended[len(ended) - (room - len(open_steps)) :]
        return [*kept, *open_steps]

    def _took(self, step: StepState) -> str:
        if step.started is None:
            return ""
        return output.span((step.ended or self.state.ended or self._clock.now()) - step.started)

    def _remark(self, step: StepState) -> str:
        parts = []
        if step.attempt > 1:
            parts.append(f"attempt {step.attempt}")
        if step.status == "waiting" and step.due is not None:
            parts.append(f"again {output.due(step.due, self._clock.now())}")
        if step.error and step.status in ("waiting", "failed"):
            parts.append(error_line(step.error))
        return ", ".join(parts) or self._args.get(step.key, "")

    def _waits(self) -> list[str]:
        if self.state.ended is not None:
            return []
        now = self._clock.now()
        lines = [
            f"… a hook is open: holdfast resume {output.quoted(hook.token)} JSON"
            for hook in self.state.hooks.values()
            if hook.status == "open"
        ]
        lines += [
            f"… {timer.key} {output.due(timer.due, now)}"
            for timer in self.state.timers.values()
            if timer.status == "pending"
        ]
        return lines[:6]


def args_text(event: Event) -> str:
    """The arguments of a step that was scheduled, short: 'folder="src" depth=2'."""
    args = event.data.get("args") or {}
    if MARK in args:
        return SEALED
    pairs = args.items()
    return output.shorten(" ".join(f"{name}={output.compact(value)}" for name, value in pairs), 100)
