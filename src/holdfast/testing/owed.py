"""What a rehearsed run is owed, read off its log: outcomes of steps, alarms, payloads, ends of child runs."""

from __future__ import annotations

from collections.abc import Callable

from ..events import Draft, Event, new, token_of


class Owed:
    """Noted event by event."""

    def __init__(self) -> None:
        self.steps: dict[str, None] = {}
        "keys of the steps without an outcome, in order"
        self.timers: dict[str, int] = {}
        "key -> due"
        self.hooks: dict[str, str] = {}
        "token -> key"
        self.children: dict[str, str] = {}
        "key -> run, of those of whose end the run has not heard"
        self.outcomes: dict[str, tuple[int, Draft]] = {}
        "key -> time and event, of the ends of children that are to come"

    def note(self, event: Event) -> None:
        """What an event of the log changes."""
        change = _CHANGES.get(event.type)
        if change is not None:
            change(self, event)

    def _child_started(self, event: Event) -> None:
        self.children[event.key] = str(event.data["run"])

    def _child_cancelled(self, event: Event) -> None:
        if event.key not in self.children:
            return  # it ended before it was told
        run = self.children[event.key]
        data = {"status": "cancelled", "run": run, "reason": "its parent does not wait for it any more"}
        self.outcomes[event.key] = (event.time, new("child_ended", key=event.key, data=data))

    def _child_ended(self, event: Event) -> None:
        self.children.pop(event.key, None)
        self.outcomes.pop(event.key, None)

    def _step_scheduled(self, event: Event) -> None:
        self.steps[event.key] = None

    def _step_ended(self, event: Event) -> None:
        self.steps.pop(event.key, None)

    def _timer_started(self, event: Event) -> None:
        self.timers[event.key] = event.data["due"]

    def _timer_ended(self, event: Event) -> None:
        self.timers.pop(event.key, None)

    def _hook_opened(self, event: Event) -> None:
        self.hooks[token_of(event.key)] = event.key

    def _hook_closed(self, event: Event) -> None:
        if self.hooks.get(token_of(event.key)) == event.key:
            del self.hooks[token_of(event.key)]


_CHANGES: dict[str, Callable[[Owed, Event], None]] = {
    "step_scheduled": Owed._step_scheduled,
    "step_completed": Owed._step_ended,
    "step_failed": Owed._step_ended,
    "child_started": Owed._child_started,
    "child_cancelled": Owed._child_cancelled,
    "child_ended": Owed._child_ended,
    "timer_started": Owed._timer_started,
    "timer_fired": Owed._timer_ended,
    "timer_cancelled": Owed._timer_ended,
    "hook_opened": Owed._hook_opened,
    "hook_closed": Owed._hook_closed,
    "hook_refused": Owed._hook_closed,
}
