"""Something goes wrong at a named point of Holdfast's own code, while a block lasts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from .. import faults


@contextlib.contextmanager
def fault(
    point: str, action: Callable[[], object] = faults.fail, *, on: int | None = None
) -> Iterator[Callable[[], int]]:
    """Call `action` each time the point is passed inside the block, or only the `on`th time.

    Without `action`, StoreError is raised there: before a commit (`store.commit.before`), the store cannot be
    reached; after it (`store.commit.after`), its answer is lost. `holdfast.faults.POINTS` names all points. What
    the block is given tells how often the point was passed, so that a test knows that it was passed at all.

    Example:
        with fault("store.commit.after", on=2) as passed:
            assert durable.execute(fulfil, order) == Result("r-1")
        assert passed() >= 2

    Raises ValueError for a point that there is not, or that is armed already.
    """
    count = 0

    def act() -> None:
        nonlocal count
        count += 1
        if on is None or count == on:
            action()

    if faults.is_armed(point):
        raise ValueError(f"{point} is armed already: two faults at one point need one action")
    faults.arm(point, act)
    try:
        yield lambda: count
    finally:
        faults.disarm(point)
