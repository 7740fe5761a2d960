"""Named points in the code at which a test may make something happen: a crash, an error, a pause.

Production code calls `point("store.commit.before")`; unless something is armed this costs one look at an
empty dict. Tests arm a point with a function, or, in a child process, by the environment:

    HOLDFAST_FAULTS="store.commit.after=kill@3 worker.step.before=raise"

means: kill -9 this process the third time it passes the first point, and raise StoreError each time it
passes the second. Only the standard library is used here, so that any module may place a point.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from .errors import StoreError

POINTS = (
    "store.commit.before",
    "store.commit.after",
    "worker.tick.before",
    "worker.tick.after",
    "worker.append.before",
    "worker.append.after",
    "worker.step.before",
    "worker.step.after",
    "worker.claim.after",
    "worker.queue.taken",
    "worker.queue.begun",
    "worker.queue.ended",
    "worker.schedule.due",
    "worker.schedule.started",
    "prune.commit.before",
    "prune.commit.after",
    "child.start.before",
    "child.start.after",
    "child.end.heard",
    "trail.append.before",
    "trail.append.after",
    "trail.create.after",
    "trail.end.moved",
    "trail.index.before",
    "trail.index.after",
)
"""Every point there is; `arm` refuses other names, so a test cannot arm a point that nothing passes."""

_armed: dict[str, Callable[[], None]] = {}


def point(name: str) -> None:
    """Mark a place where a test may interfere."""
    if _armed:
        action = _armed.get(name)
        if action is not None:
            action()


def arm(name: str, action: Callable[[], None]) -> None:
    """Call `action` each time the point is passed. Raises ValueError for a point that does not exist."""
    if name not in POINTS:
        raise ValueError(f"no fault point {name!r}; there are: {', '.join(POINTS)}")
    _armed[name] = action


def is_armed(name: str) -> bool:
    """Whether something is armed at this point."""
    return name in _armed


def disarm(name: str | None = None) -> None:
    """Forget what is armed at a point, or everywhere."""
    if name is None:
        _armed.clear()
    else:
        _armed.pop(name, None)


def kill() -> None:
    """End this process as `kill -9` does: nothing is flushed, no `finally` runs."""
    os.kill(os.getpid(), signal.SIGKILL)


def stop() -> None:
    """Stop this process as SIGSTOP does, until somebody sends SIGCONT."""
    os.kill(os.getpid(), signal.SIGSTOP)


def fail() -> None:
    """Raise StoreError, as a store that cannot be reached does."""
    raise StoreError("a test armed this fault point: try again")


_ACTIONS: dict[str, Callable[[], None]] = {"kill": kill, "stop": stop, "raise": fail}


def _nth(action: Callable[[], None], count: int) -> Callable[[], None]:
    left = count

    def step() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            action()

    return step


def arm_from_environment() -> None:
    """Arm what HOLDFAST_FAULTS says: words of the form point=action or point=action@n."""
    for word in os.environ.get("HOLDFAST_FAULTS", "").split():
        name, _, what = word.partition("=")
        verb, _, count = what.partition("@")
        action = _ACTIONS[verb]
        arm(name, _nth(action, int(count)) if count else action)


arm_from_environment()
