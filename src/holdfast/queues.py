"""Queues: steps that run elsewhere, so many at once, so many in a time, the important ones first.

    gpu = hf.queue("gpu", concurrency=4)
    mail = hf.queue("mail", rate=(100, 60), per_key=1)

    @hf.step(queue="gpu", timeout=600)
    async def render(scene: Scene) -> str: ...

    @hf.step(queue="mail", limit_key=lambda letter: letter.customer, priority=lambda letter: letter.weight)
    async def send(letter: Letter) -> None: ...

The limits are part of the code of the workers that serve the queue; what they are held against (who runs what,
what was started when) stands in the store, so they are exact over all workers of one store.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec

from .definition import seconds
from .errors import DefinitionError


class Queue(msgspec.Struct, frozen=True):
    """A queue as the code declares it: `hf.queue(…)` makes one.

    concurrency  attempts that run at once, over all workers
    per_key      of these, attempts with one `limit_key`
    rate         (n, seconds): attempts that are given out to workers within any such time
    """

    name: str
    concurrency: int | None = None
    per_key: int | None = None
    rate: tuple[int, float] | None = None


class Placement(msgspec.Struct, frozen=True):
    """Where a step runs: what `@hf.step(queue=, limit_key=, priority=)` says.

    `limit_key` and `priority` are values, or functions of the step's arguments. Higher priorities go first,
    then what was asked for first.
    """

    queue: str
    limit_key: str | Callable[..., str] | None = None
    priority: int | Callable[..., int] = 0

    def of(self, args: Any, kwargs: Any) -> dict[str, Any]:
        """What the step's command says of it, for one call."""
        key = self.limit_key(*args, **kwargs) if callable(self.limit_key) else self.limit_key
        priority = self.priority(*args, **kwargs) if callable(self.priority) else self.priority
        if key is not None and not (isinstance(key, str) and 0 < len(key) <= 255):
            raise DefinitionError(
                f"queue {self.queue}: expected limit_key to be 1–255 characters, got {key!r}"
            )
        if not isinstance(priority, int) or not -(2**31) <= priority < 2**31:
            raise DefinitionError(f"queue {self.queue}: expected priority to be an int, got {priority!r}")
        data: dict[str, Any] = {"queue": self.queue}
        if key is not None:
            data["limit_key"] = key
        if priority:
            data["priority"] = priority
        return data


declared: dict[str, Queue] = {}
"""The queues of this process, by name."""


def queue(
    name: str,
    *,
    concurrency: int | None = None,
    per_key: int | None = None,
    rate: tuple[int, float | timedelta] | None = None,
) -> Queue:
    """Declare a queue and its limits; without limits, it only says which workers run its steps.

    A step names it with `@hf.step(queue="gpu")`, a worker that should serve only some queues names those:
    `app.worker(queues=["gpu"])`, `holdfast worker shop --queue gpu`.

    Example:
        hf.queue("openai", concurrency=20, rate=(500, 60))

    Raises DefinitionError for a limit that is no positive number, and for a queue that was declared before
    with other limits.
    """
    _check_name(name)
    for what, limit in (("concurrency", concurrency), ("per_key", per_key)):
        if limit is not None and (not isinstance(limit, int) or limit < 1):
            raise DefinitionError(f"queue {name}: expected {what} to be an int of 1 or more, got {limit!r}")
    made = Queue(name, concurrency, per_key, None if rate is None else _rate(name, rate))
    if declared.setdefault(name, made) != made:
        raise DefinitionError(
            f"queue {name!r} was declared before with other limits ({declared[name]}): declare it once, and name "
            "it in the steps"
        )
    return made


def placement(queue: Queue | str | None, limit_key: Any, priority: Any) -> Placement | None:
    """What a step's decorator says of its queue. Raises DefinitionError."""
    if queue is None:
        if limit_key is not None or priority != 0:
            raise DefinitionError("@step: limit_key and priority need a queue: @hf.step(queue=…)")
        return None
    name = queue.name if isinstance(queue, Queue) else queue
    _check_name(name)
    return Placement(name, limit_key, priority)


def _rate(name: str, rate: Any) -> tuple[int, float]:
    try:
        starts, time = rate
        span = seconds(time, f"queue {name} rate")
    except (TypeError, ValueError):
        raise DefinitionError(f"queue {name}: expected rate=(starts, seconds), got {rate!r}") from None
    if not isinstance(starts, int) or starts < 1 or span <= 0:
        raise DefinitionError(f"queue {name}: expected rate=(starts, seconds), both above 0, got {rate!r}")
    return starts, span


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not name or not name.isprintable() or len(name) > 255:
        raise DefinitionError(f"a queue's name is 1–255 printable characters, got {name!r}")
