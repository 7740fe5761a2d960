"""Places for attempts: how many a worker begins, and which run's is next."""

import asyncio

import pytest
from patience import PATIENCE
from worker_kit import assert_one_end, log_of, logged, of_type

import holdfast as hf
from holdfast.worker.places import _MOMENT, Places

gates: dict[str, asyncio.Event] = {}
running: list[str] = []


@pytest.fixture(autouse=True)
def _fresh():
    running.clear()
    gates.clear()
    gates.update({name: asyncio.Event() for name in ("a", "crowd", "single", "x", "y")})


@hf.step(name="places.held", retries=0)
async def held(name: str, number: int) -> int:
    running.append(f"{name} {number}")
    await gates[name].wait()
    return number


@hf.step(name="places.fails", retries=1, backoff=0)
async def fails_once(number: int) -> int:
    if hf.step_info().attempt == 1:
        raise ValueError("once")
    return number


@hf.workflow(name="places.wide")
async def wide(name: str, width: int) -> int:
    return sum(await asyncio.gather(*(held(name, number) for number in range(width))))


@hf.workflow(name="places.again")
async def again(width: int) -> int:
    return sum(await asyncio.gather(*(fails_once(number) for number in range(width))))


@hf.workflow(name="places.gives-up")
async def gives_up(name: str, width: int) -> str:
    try:
        async with asyncio.timeout(0.05):
            await asyncio.gather(*(held(name, number) for number in range(width)))
    except TimeoutError:
        return "gave up"
    return "done"


def most_at_once(events):
    """The attempts that had begun and not ended, at most, by the log."""
    open_, most = 0, 0
    for event in events:
        open_ += event.type == "step_started"
        open_ -= event.type in ("step_completed", "step_failed", "step_retried")
        most = max(most, open_)
    return most


async def test_a_run_begins_no_more_than_there_is_room_for(app):
    """H-12."""
    async with app.worker(concurrency=5):
        run = await app.start(wide, "a", 200)
        assert len(await logged(app, run.id, "step_started", 5)) > 200
        gates["a"].set()
        assert await run.result(PATIENCE) == sum(range(200))
    events = await log_of(app, run.id)
    assert_one_end(events)
    assert most_at_once(events) == 5
    assert running == [f"a {number}" for number in range(200)]


async def test_retries_wait_for_a_place_too(app):
    async with app.worker(concurrency=3):
        run = await app.start(again, 30)
        assert await run.result(PATIENCE) == sum(range(30))
    events = await log_of(app, run.id)
    assert len(of_type(events, "step_started")) == 60
    assert most_at_once(events) == 3


async def test_a_run_with_one_step_goes_before_the_next_of_many(app):
    """H-12: nobody waits for the end of somebody's gather; the next place that is free is theirs."""
    async with app.worker(concurrency=2):
        crowd = await app.start(wide, "crowd", 100)
        await logged(app, crowd.id, "step_started", 2)
        single = await app.start(wide, "single", 1)
        await logged(app, single.id, "step_scheduled")
        assert not of_type(await log_of(app, single.id), "step_started")
        gates["crowd"].set()
        await logged(app, single.id, "step_started")
        ahead = running.index("single 0")
        gates["single"].set()
        assert await single.result(PATIENCE) == 0
        assert await crowd.result(PATIENCE) == sum(range(100))
    assert ahead <= 10


async def test_steps_that_nobody_waits_for_leave_the_line(app):
    """Their await was cancelled before they had begun: they never run, and give no place away."""
    async with app.worker(concurrency=2) as worker:
        run = await app.start(gives_up, "x", 50)
        assert await run.result(PATIENCE) == "gave up"
        assert len(running) == 2
        gates["y"].set()
        assert await (await app.start(wide, "y", 10)).result(PATIENCE) == sum(range(10))
        assert worker.places._taken == 0
    events = await log_of(app, run.id)
    assert_one_end(events)
    assert len(of_type(events, "step_started")) == 2


class Run:
    """What `Places` sees of a run's attempts."""

    def __init__(self, places: Places, waiting: int = 0) -> None:
        self.begun: set[int] = set()
        self.places, self.waiting, self.turns = places, waiting, 0

    def ask(self, count: int) -> int:
        """Ask for so many places; how many there were."""
        got = 0
        for _ in range(count):
            if self.places.take(self):
                got += 1
                self.begun.add(len(self.begun))
            else:
                self.waiting += 1
                self.places.wait(self)
        return got

    def granted(self) -> bool:
        self.waiting -= 1
        self.begun.add(len(self.begun))
        return self.waiting > 0

    def turn(self) -> None:
        self.turns += 1

    def end(self) -> None:
        self.begun.pop()
        self.places.ended(self)


def test_quick_steps_of_many_runs_begin_ahead_and_slow_ones_do_not():
    now = [100.0]
    places = Places(10, lambda: now[0])
    runs = [Run(places) for _ in range(100)]
    assert sum(run.ask(1) for run in runs) == 10
    for run in runs[:10]:
        run.end()
    assert sum(len(run.begun) for run in runs) == 20  # ten, and as many as have ended
    for run in runs[10:30]:
        run.end()
    assert sum(len(run.begun) for run in runs) == 40
    assert Run(places).ask(2) == 0  # the others were here before
    now[0] += 3 * _MOMENT
    for run in runs[30:69]:
        run.end()
    crowd = [run for run in runs if run.begun]
    assert len(crowd) <= 31  # what has ended in this moment counts anew


def test_the_allowance_is_for_a_runs_only_attempt():
    now = [100.0]
    places = Places(4, lambda: now[0])
    quick = Run(places)
    for _ in range(50):
        assert quick.ask(1) == 1
        quick.end()
    assert Run(places).ask(50) == 4
    assert sum(Run(places).ask(1) for _ in range(100)) == 50
