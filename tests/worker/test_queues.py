"""Steps that run elsewhere: on workers that serve their queue, within its limits, whoever has the run."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from patience import PATIENCE
from worker_kit import Gate, assert_one_end, log_of, logged, of_type

import holdfast as hf
from holdfast.errors import DefinitionError
from holdfast.verify import Verification

QUICK = hf.Backoff(initial=0.01, jitter=0)
at_once: Counter[str] = Counter()
most: Counter[str] = Counter()
order: list[Any] = []
gates: dict[str, Gate] = {}

hf.queue("queues.two", concurrency=2)
hf.queue("queues.keyed", per_key=1)
hf.queue("queues.one", concurrency=1)
hf.queue("queues.slow", rate=(2, 0.2))


@pytest.fixture(autouse=True)
def _fresh():
    for seen in (at_once, most, order, gates):
        seen.clear()


class busy:
    """Counts who is in here at once."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def __aenter__(self) -> None:
        at_once[self.name] += 1
        most[self.name] = max(most[self.name], at_once[self.name])

    async def __aexit__(self, *_: object) -> None:
        at_once[self.name] -= 1


@hf.step(name="queues.render", queue="queues.two")
async def render(number: int) -> int:
    async with busy("render"):
        await asyncio.sleep(0.002)
    return number


@hf.workflow(name="queues.film")
async def film(scenes: int) -> int:
    return sum(await asyncio.gather(*(render(n) for n in range(scenes))))


async def assert_proven(app):
    assert [found async for found in Verification(app.store).run()] == []


async def test_a_queue_holds_its_limit_over_two_workers_and_all_is_done(url):
    """H-12: 5 runs of 10 steps each, two workers with room for a hundred: never more than two at once."""
    async with hf.connect(url) as one, hf.connect(url) as two, one.worker(), two.worker():
        runs = [await (one, two)[n % 2].start(film, 10) for n in range(5)]
        assert [await run.result(PATIENCE) for run in runs] == [45] * 5
        events = [event for run in runs for event in await log_of(one, run.id)]
        starts = of_type(events, "step_started")
        assert len(starts) == 50
        assert 1 <= most["render"] <= 2
        assert await one.store.queues() == []
        await assert_proven(one)


async def test_a_worker_of_queues_alone_runs_steps_and_no_runs(url):
    """Its runs are advanced by one that serves no queue: waiting costs that one nothing (H-09)."""
    async with (
        hf.connect(url) as runs,
        hf.connect(url) as gpu,
        runs.worker(queues=[], concurrency=1),
        gpu.worker(queues=["queues.two"], runs=False) as server,
    ):
        run = await runs.start(film, 3)
        assert await run.result(PATIENCE) == 3
        workers = {event.data["worker"] for event in of_type(await log_of(runs, run.id), "step_started")}
        assert workers == {server.id}
        assert (await runs.store.head(run.id)).owner is None
        other = await gpu.start(film, 2)  # started where no run is advanced
        assert await other.result(PATIENCE) == 1


async def test_without_a_worker_for_its_queue_a_step_waits(url):
    async with hf.connect(url) as app, app.worker(queues=["queues.keyed"]):
        run = await app.start(film, 1)
        await logged(app, run.id, "step_scheduled")
        [row] = await app.store.queues()
        assert (row.name, row.waiting, row.running) == ("queues.two", 1, 0)
        async with hf.connect(url) as other, other.worker(queues=["queues.two"], runs=False):
            assert await run.result(PATIENCE) == 0


@hf.step(name="queues.letter", queue="queues.keyed", limit_key=lambda to, _n: to)
async def letter(to: str, number: int) -> str:
    async with busy(to):
        order.append((to, number))
        await asyncio.sleep(0.001)
    return to


@hf.workflow(name="queues.post")
async def post(people: list[str], each: int) -> int:
    return len(await asyncio.gather(*(letter(who, n) for who in people for n in range(each))))


async def test_one_at_a_time_for_each_key(working):
    run = await working.start(post, ["ana", "ben", "cy"], 4)
    assert await run.result(PATIENCE) == 12
    assert set(most.values()) == {1}
    for who in ("ana", "ben", "cy"):
        assert [n for to, n in order if to == who] == [0, 1, 2, 3]


@hf.step(name="queues.urgent", queue="queues.one", priority=lambda weight: weight)
async def urgent(weight: int) -> None:
    order.append(weight)


@hf.workflow(name="queues.ward")
async def ward(weights: list[int]) -> None:
    await asyncio.gather(*(urgent(weight) for weight in weights))


async def test_the_important_ones_go_first(url):
    async with hf.connect(url) as app, app.worker(queues=[]):
        run = await app.start(ward, [1, 9, 5, 9, 0])
        await logged(app, run.id, "step_scheduled", 5)
        async with hf.connect(url) as other, other.worker(runs=False):
            await run.result(PATIENCE)
    assert order == [9, 9, 5, 1, 0]


@hf.step(name="queues.paced", queue="queues.slow")
async def paced() -> None:
    order.append(asyncio.get_running_loop().time())


@hf.workflow(name="queues.pace")
async def pace(count: int) -> None:
    await asyncio.gather(*(paced() for _ in range(count)))


async def test_a_rate_is_held_and_the_rest_is_not_forgotten(working):
    """Nobody sends news when time has passed: the worker asks again by itself."""
    begun = asyncio.get_running_loop().time()
    run = await working.start(pace, 5)
    await run.result(PATIENCE)
    assert order[2] - begun >= 0.2
    assert order[4] - begun >= 0.4


@hf.step(name="queues.flaky", queue="queues.one", retries=2, backoff=QUICK)
async def flaky(good: int) -> int:
    order.append(hf.step_info().attempt)
    if hf.step_info().attempt < good:
        raise ValueError(f"attempt {hf.step_info().attempt}")
    return hf.step_info().attempt


@hf.workflow(name="queues.tries")
async def tries(good: int) -> int:
    return await flaky(good)


async def test_attempts_of_a_queued_step_are_retried_and_counted(working):
    run = await working.start(tries, 3)
    assert await run.result(PATIENCE) == order.pop() == 3
    run = await working.start(tries, 9)
    with pytest.raises(hf.RunFailed) as caught:
        await run.result(PATIENCE)
    assert str(caught.value.__cause__) == "attempt 3"
    assert_one_end(await log_of(working, run.id))
    await assert_proven(working)


@hf.step(name="queues.held", queue="queues.one", retries=1)
async def held(name: str) -> str:
    order.append(f"begun {name}")
    try:
        await gates.setdefault(name, Gate()).wait()
    except asyncio.CancelledError:
        order.append(f"interrupted {name}")
        raise
    return name


@hf.workflow(name="queues.impatient")
async def impatient(name: str, seconds: float) -> str:
    try:
        async with asyncio.timeout(seconds):
            return await held(name)
    except TimeoutError:
        return "too late"


@hf.workflow(name="queues.called-off")
async def called_off(name: str) -> str:
    step = asyncio.create_task(held(name))
    word: str = await hf.hook(f"queues:{name}", type=str)
    step.cancel()
    return word


async def test_a_step_that_nobody_waits_for_is_interrupted_wherever_it_runs(url):
    """And its place is free: the next one runs."""
    gates["first"], gates["second"] = Gate(), Gate()
    gates["second"].open.set()
    async with (
        hf.connect(url) as app,
        hf.connect(url) as other,
        app.worker(queues=[]),
        other.worker(runs=False),
    ):
        first = await app.start(called_off, "first")
        async with asyncio.timeout(PATIENCE):
            await gates["first"].come.wait()
        second = await app.start(impatient, "second", 600)
        await app.resume("queues:first", "never mind")
        assert await first.result(PATIENCE) == "never mind"
        assert await second.result(PATIENCE) == "second"
    assert order == ["begun first", "interrupted first", "begun second"]


async def test_a_step_that_nobody_waits_for_leaves_the_queue(url):
    async with hf.connect(url) as app, app.worker(queues=[]):
        run = await app.start(impatient, "never", 0.01)
        assert await run.result(PATIENCE) == "too late"
        assert await app.store.queues() == []


async def test_a_run_that_ends_takes_its_steps_with_it(url):
    async with (
        hf.connect(url) as app,
        hf.connect(url) as other,
        app.worker(queues=[]),
        other.worker(runs=False),
    ):
        gates["gone"] = Gate()
        run = await app.start(impatient, "gone", 600)
        async with asyncio.timeout(PATIENCE):
            await gates["gone"].come.wait()
        await run.terminate("enough")
        async with asyncio.timeout(PATIENCE):
            while "interrupted gone" not in order:
                await asyncio.sleep(0.005)


async def test_a_worker_that_leaves_finishes_what_it_runs_and_the_rest_goes_to_others(url):
    """SIGTERM: nothing is repeated."""
    async with hf.connect(url) as app, app.worker(queues=[]):
        async with hf.connect(url) as other:
            leaving = other.worker(runs=False)
            await leaving.__aenter__()
            gates.update((f"r{n}", Gate()) for n in range(3))
            runs = [await app.start(impatient, f"r{n}", 600) for n in range(3)]
            async with asyncio.timeout(PATIENCE):
                await gates["r0"].come.wait()
            stopping = asyncio.ensure_future(leaving.__aexit__(None, None, None))
            await asyncio.sleep(0)
            gates["r0"].open.set()
            await stopping
        async with hf.connect(url) as third, third.worker(runs=False):
            for n, run in enumerate(runs):
                gates[f"r{n}"].open.set()
                assert await run.result(PATIENCE) == f"r{n}"
            attempts = [len(of_type(await log_of(app, run.id), "step_started")) for run in runs]
    assert attempts == [1, 1, 1]


def test_limits_that_make_no_sense_are_refused_with_the_reason():
    for wrong in ({"concurrency": 0}, {"per_key": -1}, {"rate": (0, 1)}, {"rate": 5}, {"rate": (5, 0)}):
        with pytest.raises(DefinitionError, match="wrong: expected"):
            hf.queue("queues.wrong", **wrong)
    with pytest.raises(DefinitionError, match="declared before with other limits"):
        hf.queue("queues.two", concurrency=3)
    assert hf.queue("queues.two", concurrency=2).concurrency == 2
    with pytest.raises(DefinitionError, match="need a queue"):
        hf.step(priority=3)(lambda: None)


@hf.step(name="queues.wrong-key", queue="queues.two", limit_key=lambda number: number)
async def wrong_key(number: int) -> int:
    return number


@hf.workflow(name="queues.wrong")
async def wrong() -> str:
    try:
        await wrong_key(5)
    except DefinitionError as error:
        return str(error)
    return "accepted"


async def test_a_limit_key_of_the_wrong_kind_is_told_at_the_call(working):
    run = await working.start(wrong)
    assert "expected limit_key to be 1–255 characters, got 5" in await run.result(PATIENCE)
