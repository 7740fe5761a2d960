"""What may go wrong in a simulation, and how often: a profile that the seed draws.

Each seed switches some kinds of trouble on and the others off: a run in which everything fails all the time
gets nowhere, and one in which everything fails a little hides what only a flood of one kind brings out.
"""

from __future__ import annotations

import random

import msgspec

CALLS = ("slow", "refused", "lost", "unanswered", "twice", "crash before", "crash after")
"""What may befall a call of the store: it takes long, it is refused, it never arrives, its answer is lost, it
arrives twice; its caller dies before it is committed, or after."""

NEWS = ("news dropped", "news doubled", "news late")
EVENTS = ("crash", "pause", "clock jump", "lease lost", "outage", "deploy")
"""What may befall a worker, or the store as a whole, whatever it is doing."""


class Profile(msgspec.Struct, kw_only=True):
    """`calls` and `news` are the chances of each kind for each call; `events` the seconds between two."""

    calls: dict[str, float] = {}
    news: dict[str, float] = {}
    events: dict[str, float] = {}
    delay: float = 0.0
    """How long a call travels at most, in seconds, each way."""

    def call(self, chance: random.Random) -> str | None:
        """What befalls this call; None for nothing."""
        return _draw(self.calls, chance)

    def notice(self, chance: random.Random) -> str | None:
        """What befalls a notice to another process."""
        return _draw(self.news, chance)


QUIET = Profile()


def profile(chance: random.Random) -> Profile:
    """A profile, some kinds of trouble strong and others absent."""

    def some(kinds: tuple[str, ...], low: float, high: float) -> dict[str, float]:
        return {kind: chance.uniform(low, high) for kind in kinds if chance.random() < 0.5}

    calls = some(CALLS, 0.005, 0.08)
    for kind in ("crash before", "crash after"):
        if kind in calls:
            calls[kind] /= 5  # a worker that dies at every tenth call does nothing else
    return Profile(
        calls=calls,
        news=some(NEWS, 0.05, 0.9),
        events=some(EVENTS, 1.0, 30.0),
        delay=chance.choice([0.0, 0.001, 0.05, 1.0]),
    )


def _draw(chances: dict[str, float], chance: random.Random) -> str | None:
    for kind, likely in chances.items():
        if chance.random() < likely:
            return kind
    return None
