"""Steps that wait in queues, and who may take one: the rules for all backends, without I/O.

A queued step is a row of the projection `steps` that also names its queue. `take` chooses, inside the store's
write transaction, which of the waiting ones a worker gets; the backend then marks them as held by it. That
mark is no history (as the owner of a run is none): the attempt begins with `step_started` in the run's log,
which a second worker would be refused.

What it guarantees: at no moment do more attempts hold a place than the limits say, over all workers of the
store, for the count and the choice happen in one transaction that no other `take` of the queue can overlap. It
rests on rows: a place is freed by the commit that records the attempt's outcome, or by the discharge of a dead
worker, and never twice. Starts within a time (`rate`) are rows as well, kept as long as they count: a sliding
window, exact where a token bucket lets twice the rate through at its edges.

Rejected: counters in the row of the queue (a crash between two writes makes them lie), limits kept in the store
(code is where people look for them, and a deployment changes them with the code).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping, Sequence

import msgspec

from ..queues import Queue

PAGE = 200
"""Waiting steps that are looked at in one go."""


class Queued(msgspec.Struct, frozen=True, gc=False):
    """Where a new step waits: its place in the queue, and where its command stands in the log."""

    queue: str
    limit_key: str | None
    priority: int
    time: int
    position: int


class Waiting(msgspec.Struct, frozen=True, gc=False):
    """A queued step that may be taken, or has been. `attempt` is the last one (0: none yet).

    With `due`, that attempt has ended and the next may start then; without, it was lost with its worker.
    """

    run: str
    key: str
    attempt: int
    due: int | None
    limit_key: str | None
    position: int
    """Where its command stands in the log."""


class Taken(msgspec.Struct, frozen=True):
    """What a worker got: steps to run now, and when to ask again (microseconds) where time alone forbids more."""

    steps: list[Waiting] = []
    again: int | None = None

    def plus(self, other: Taken, due: int | None) -> Taken:
        """Both together, and when the next retry of that queue is due."""
        times = [time for time in (self.again, other.again, due) if time is not None]
        return Taken(self.steps + other.steps, min(times, default=None))


class QueueRow(msgspec.Struct, frozen=True):
    """A queue as people see it: how many steps wait, how many run, since when the oldest waits."""

    name: str
    waiting: int
    running: int
    oldest: int | None


class Usage(msgspec.Struct):
    """What a queue's limits are held against: attempts that run, by limit key, and recent starts."""

    running: dict[str | None, int]
    starts: list[int] = []
    """Times of the starts within the queue's rate, the oldest first."""


Page = tuple[Collection[str], int]
"""What `choose` asks for: the next waiting steps of the queue, the best first, without those of these limit keys,
and how many at most."""
Look = Callable[[Collection[str], int], Sequence[Waiting]]


def choose(queue: Queue, usage: Usage, room: int, now: int) -> Generator[Page, Sequence[Waiting], Taken]:
    """Which steps of a queue a worker with `room` may begin now. It asks for pages, and is sent them."""
    running: dict[str | None, int] = dict(usage.running)
    places = room
    if queue.concurrency is not None:
        places = min(places, queue.concurrency - sum(running.values()))
    again = None
    if queue.rate is not None:
        starts, span = queue.rate
        left = starts - len(usage.starts)
        if left < places:
            places = left
            again = (usage.starts[0] if usage.starts else now) + round(span * 1e6)
    chosen: list[Waiting] = []
    seen: set[tuple[str, str]] = set()
    progress = True
    while progress and len(chosen) < places:
        progress = False
        for step in (yield _full(queue, running), PAGE + len(chosen)):
            if (step.run, step.key) in seen:
                continue
            if len(chosen) >= places:
                break
            if step.limit_key in _full(queue, running):
                continue
            running[step.limit_key] = running.get(step.limit_key, 0) + 1
            seen.add((step.run, step.key))
            chosen.append(step)
            progress = True
    return Taken(chosen, again if len(chosen) >= places else None)


def answered(choice: Generator[Page, Sequence[Waiting], Taken], look: Look) -> Taken:
    """The outcome of `choose`, where looking needs no waiting."""
    try:
        page = next(choice)
        while True:
            page = choice.send(look(*page))
    except StopIteration as end:
        taken: Taken = end.value
        return taken


def _full(queue: Queue, running: Mapping[str | None, int]) -> set[str]:
    """The limit keys that have no place left."""
    if queue.per_key is None:
        return set()
    return {key for key, count in running.items() if key is not None and count >= queue.per_key}
