"""What the memory store holds: runs, streams and the rest; shared by the handles of one name."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from holdfast.chunks import Chunk
from holdfast.events import Event
from holdfast.store.queued import Queued
from holdfast.store.removal import Candidate
from holdfast.store.rows import AccessToken, Head, Hook, Link, ScheduleRow, WorkerRow
from holdfast.store.streams import StreamHead

if TYPE_CHECKING:
    from .store import MemoryStore


class Run:
    """One run: its log, and what is derived from it."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self.log: list[Event] = []
        self.uniques: dict[str, int] = {}
        self.batches: dict[str, tuple[int, int]] = {}
        self.appends: list[Link] = []
        self.steps: dict[str, tuple[int, int | None]] = {}
        self.timers: dict[str, int] = {}
        self.children: dict[str, tuple[str, int, str]] = {}
        self.queued: dict[str, Queued] = {}
        self.holders: dict[str, str] = {}
        """Of the queued steps, those that a worker has taken."""
        self.streams: dict[str, Stream] = {}


class Stream:
    """One stream of a run, with what its writes are found again by."""

    def __init__(self, head: StreamHead) -> None:
        self.head = head
        self.chunks: list[Chunk] = []
        self.keys: dict[str, int] = {}
        self.batches: dict[str, tuple[int, int]] = {}


class Data:
    """What the handles of one name share."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.runs: dict[str, Run] = {}
        self.hooks: dict[tuple[str, str], Hook] = {}
        self.tokens: dict[str, list[tuple[str, str]]] = {}
        """Of each token, its hooks (run, key) in the order in which they opened."""
        self.deliveries: dict[str, tuple[str, int, str]] = {}
        self.workers: dict[str, WorkerRow] = {}
        self.starts: dict[str, list[int]] = {}
        """When steps of a queue were taken, as far as its rate asks."""
        self.orphaned: dict[str, Run] = {}
        """Ended runs with children that nobody has seen to."""
        self.callers: dict[str, AccessToken] = {}
        self.schedules: dict[str, ScheduleRow] = {}
        self.handles: list[MemoryStore] = []

    def candidates(self, names: Sequence[str], ended_before: int) -> list[Candidate]:
        """What removing these runs takes to know, of those that ended before a time."""
        found = []
        for name in dict.fromkeys(names):
            run = self.runs.get(name)
            if run is None or run.head.ended is None or run.head.ended >= ended_before:
                continue
            parent = None if run.head.parent is None else self.runs.get(run.head.parent)
            schedule = self.schedules.get(run.head.workflow)
            found.append(
                Candidate(
                    name,
                    run.head.row,
                    run.head.position,
                    run.log[0].body,
                    run.log[run.head.command - 1].body if run.head.command else None,
                    bool(run.children),
                    parent is not None and any(child == name for child, *_ in parent.children.values()),
                    None if schedule is None else schedule.since,
                )
            )
        return found

    def drop(self, names: Sequence[str]) -> None:
        """Forget runs, and all that belongs to them."""
        gone = set(names)
        for name in gone:
            del self.runs[name]
        self.deliveries = {key: row for key, row in self.deliveries.items() if row[0] not in gone}
        self.hooks = {place: hook for place, hook in self.hooks.items() if place[0] not in gone}
        left = {token: [at for at in places if at[0] not in gone] for token, places in self.tokens.items()}
        self.tokens = {token: places for token, places in left.items() if places}
