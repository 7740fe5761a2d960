"""What a process remembers of a run, so that most appends are judged without a read.

It is never trusted: it is used under the condition that the hash of the run's log is still the same, which the
statement checks that writes the verdict. What others append meanwhile is read by the run's worker in any case;
`follow` moves on by it what is remembered, if the hashes that come with it say that it follows on just that log.

Rejected: events that travel with the news. Whoever may hear what is told there is not always one who may read the
tables.
"""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.events import Event

from .effects import EFFECTS, Effects
from .messages import Append
from .rows import Head
from .rules import Changes, Found, change_rows, copy_of, extend_chain

_FOLLOWED = frozenset({
    "hook_received", "cancel_requested", "woken", "step_started", "step_retried", "step_completed", "step_failed",
})  # fmt: skip
"""What others may append while a worker has the run; after anything else, all that is open is read again."""


class Known:
    """What a run's log came to when this process last saw it: its head, and what is open; `full`: all of that."""

    __slots__ = ("children", "full", "head", "steps", "timers")

    def __init__(self, head: Head, *, full: bool = True) -> None:
        self.head = head
        self.full = full
        self.steps: dict[str, tuple[int, int | None]] = {}
        self.timers: dict[str, int] = {}
        self.children: dict[str, tuple[str, int, str]] = {}

    def apply(self, head: Head, changes: Changes) -> None:
        """What the run comes to after a verdict."""
        self.head = head
        change_rows(self.steps, changes.steps)
        if changes.only_steps:
            return
        change_rows(self.timers, changes.timers)
        change_rows(self.children, changes.children)
        if changes.ended:
            self.steps.clear()
            self.timers.clear()

    def found(self) -> Found:
        """What judging from it takes."""
        return Found(self.head, steps=self.steps, timers=self.timers, children=self.children)


def follow(known: Known, new: Iterable[tuple[Event, bytes | None]]) -> bool:
    """Move on what is remembered of a run; False, and nothing done, where these do not follow on it.

    Each event comes with the hash of the log up to it, where an append ends with it.
    """
    head = copy_of(known.head)
    effects = Effects(_NOBODY, known.found(), head)
    appended: list[tuple[int, str, str, int, bytes]] = []
    for event, chain in new:
        if event.type not in _FOLLOWED or event.position != head.position + 1:
            return False
        head.position, head.time = event.position, event.time
        if event.cls == "fact":
            head.fact = event.position
        if event.type.startswith("step_"):
            EFFECTS[event.type](effects, event.data, event.key)
        appended.append((event.position, event.type, event.key, event.time, event.body))
        if chain is not None:
            head.chain = extend_chain(head.chain, appended)
            appended.clear()
            if head.chain != chain:
                return False
    if appended:
        return False
    known.apply(head, effects.changes)
    return True


_NOBODY = Append("", [], None, "", lambda _: None)
