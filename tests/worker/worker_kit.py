"""What the tests of client, worker and recovery share: waiting for a log to say something, counting bodies."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar

from patience import PATIENCE

from holdfast.client import App
from holdfast.events import ENDS, Event
from holdfast.store import Store


async def logged(app: App, run_id: str, type_: str, count: int = 1) -> list[Event]:
    """Wait until the run's log holds `count` events of a type; woken by the store's own news."""
    return await told(
        app.store,
        lambda: app.store.read(run_id),
        lambda events: sum(event.type == type_ for event in events) >= count,
    )


async def told(store: Store, look: Callable[[], Any], enough: Callable[[Any], bool]) -> Any:
    """Look again whenever the store has news, until it is enough; now and then without, for other processes."""
    changed = asyncio.Event()
    stop = store.listen(lambda _news: changed.set())
    try:
        async with asyncio.timeout(PATIENCE):
            while not enough(found := await look()):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), 0.02)
                changed.clear()
            return found
    finally:
        stop()


async def parked(app: App, run_id: str) -> dict[str, str]:
    """Wait until a run is parked, and give the reason. Parking is no event, so this looks again and again."""
    async with asyncio.timeout(PATIENCE):
        while (reason := (await app.run(run_id).info()).parked) is None:
            await asyncio.sleep(0.005)
        return reason


async def log_of(app: App, run_id: str) -> list[Event]:
    return [event async for event in app.run(run_id).events()]


def types(events: list[Event]) -> list[str]:
    return [event.type for event in events]


def of_type(events: list[Event], *names: str) -> list[Event]:
    return [event for event in events if event.type in names]


OUTCOMES = ("step_completed", "step_failed", "step_retried")


def assert_one_end(events: list[Event], deciders: int = 1) -> None:
    """Dense positions, one end, nothing recorded twice (laws L1, L3, L11).

    Two deciders without leases take each other for dead, and so a step may have several attempts.
    """
    assert [event.position for event in events] == list(range(1, len(events) + 1))
    assert sum(event.type in ENDS for event in events) == 1
    outcomes = Counter(event.key for event in of_type(events, "step_completed"))
    assert deciders > 1 or set(outcomes.values()) <= {1}, f"a step completed twice: {outcomes}"
    attempts = Counter((event.key, event.data["attempt"]) for event in of_type(events, *OUTCOMES))
    assert set(attempts.values()) <= {1}, f"an attempt ended twice: {attempts}"
    fired = Counter(event.key for event in of_type(events, "timer_fired"))
    assert set(fired.values()) <= {1}, f"a timer fired twice: {fired}"
    scheduled = Counter(event.key for event in of_type(events, "step_scheduled"))
    assert set(scheduled.values()) <= {1}, f"a step was scheduled twice: {scheduled}"


class Gate:
    """A body waits here until the test lets it go on; the test can wait until it has come."""

    made: ClassVar[list["Gate"]] = []

    def __init__(self) -> None:
        self.made.append(self)
        self.come = asyncio.Event()
        self.open = asyncio.Event()
        self.passed = 0

    async def wait(self) -> None:
        self.come.set()
        await self.open.wait()
        self.passed += 1

    @classmethod
    def open_all(cls) -> None:
        """At the end of a test: a worker lets running steps finish, so none may be left at a gate."""
        for gate in cls.made:
            gate.open.set()
        cls.made.clear()
