"""Answers that are lost, deciders that do not know of each other: slow, never wrong (laws L3–L6, L12)."""

import asyncio
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from patience import PATIENCE
from worker_kit import assert_one_end, log_of, logged, of_type

import holdfast as hf
from holdfast import faults
from holdfast.client import App
from holdfast.engine.tick import replay
from holdfast.errors import ReplayDivergence
from holdfast.store import open_store
from holdfast.worker.attempts import Attempts

bodies: Counter[tuple[str, int]] = Counter()


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    bodies.clear()
    monkeypatch.setattr("holdfast.worker.live.LiveRun.retry_first", 0.001)
    monkeypatch.setattr("holdfast.worker.live.LiveRun.retry_most", 0.01)


def body():
    info = hf.step_info()
    bodies[info.key, info.attempt] += 1


@hf.step(name="doubt.work", backoff=hf.Backoff(initial=0.002, jitter=0))
async def work(n: int) -> int:
    body()
    if n == 3 and hf.step_info().attempt == 1:
        raise ConnectionError("the first attempt fails")
    await asyncio.sleep(0.001 * (n % 3))
    return n


@hf.step(name="doubt.work-sync")
def work_sync(n: int) -> int:
    body()
    return n


@hf.workflow(name="doubt.mixed")
async def mixed(token: str) -> int:
    """Steps in a row and at once, sleeps, a time-out that is not needed, a retry, payloads, a cancelled step."""
    hook = hf.hook(token, type=int)
    value = await work(1)
    value += sum(await asyncio.gather(work(2), work(3), work_sync(4), work(5)))
    await asyncio.gather(asyncio.sleep(0.005), asyncio.sleep(0.005))
    async with asyncio.timeout(3600):
        value += await hook
    loser = asyncio.create_task(work(6))
    await hf.sleep(0)
    loser.cancel()
    return value + await work_sync(await hook)


RESULT = 1 + 2 + 3 + 4 + 5 + 100 + 200


async def drive(app: App, count: int) -> None:
    """Start, pay, and see that each run ends as if nothing had happened."""
    runs = [await app.start(mixed, f"doubt-{n}", run_id=f"run-{n}") for n in range(count)]
    for run in runs:
        await logged(app, run.id, "hook_opened")
    for value in (100, 200):
        await asyncio.gather(*(app.resume(f"doubt-{n}", value) for n in range(count)))
    for run in runs:
        assert await run.result(PATIENCE) == RESULT


def assert_sound(events, deciders=1):
    """One end, each attempt one body, and today's code says the same as the log (L7)."""
    assert_one_end(events, deciders)
    starts = Counter((e.key, e.data["attempt"]) for e in of_type(events, "step_started"))
    assert set(starts.values()) == {1}
    for (key, attempt), count in bodies.items():
        if key.startswith(f"{events[0].run}/"):
            assert count == 1, f"attempt {attempt} of {key} had {count} bodies"
            assert (key.partition("/")[2], attempt) in starts
    try:
        replay(mixed, events).bury()
    except ReplayDivergence as error:
        raise AssertionError(f"the log does not replay: {error}") from error


class Lossy:
    """Makes every nth append answer StoreError: after it was committed, or instead."""

    def __init__(self, store, every: int, *, committed: bool) -> None:
        self._submit = store.submit
        self._every = every
        self._committed = committed
        self._count = 0
        self._lost: set[str] = set()
        store.submit = self.submit

    def submit(self, request, **how):
        if request.batch not in self._lost:
            self._count += 1
            if self._count % self._every == 0:
                self._lost.add(request.batch)
                answer = request.answer

                def lose(_real):
                    request.answer = answer
                    answer(hf.StoreError("the answer was lost"))

                if not self._committed:
                    asyncio.get_running_loop().call_soon(answer, hf.StoreError("nobody there"))
                    return
                request.answer = lose
        self._submit(request, **how)

    @property
    def lost(self) -> int:
        return len(self._lost)


@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize("every", [1, 2, 3, 5])
async def test_a_lost_answer_doubles_no_event_and_runs_no_second_body(url, every, committed):
    """L-13, L-12, law L12: sent again under the same batch id, the store says what the lost answer had said."""
    async with hf.connect(url) as app, app.worker():
        lossy = Lossy(app.store, every, committed=committed)
        await drive(app, 6)
        assert lossy.lost >= 6
        for n in range(6):
            assert_sound(await log_of(app, f"run-{n}"))
        assert set(bodies.values()) == {1}


@hf.workflow(name="doubt.one")
async def one_step() -> int:
    return await work(1)


async def test_an_end_whose_answer_is_lost_is_told_at_once(url, monkeypatch):
    """L12: whoever waits for the result does not wait for the slow look."""
    monkeypatch.setattr("holdfast.ends._LOOK_AGAIN", 10 * PATIENCE)
    async with hf.connect(url) as app, app.worker():
        run = await app.start(one_step)  # its next commit is the end

        def once():
            faults.disarm("store.commit.after")
            faults.fail()

        faults.arm("store.commit.after", once)
        assert await run.result(PATIENCE) == 1
        assert not faults.is_armed("store.commit.after")
        assert_one_end(await log_of(app, run.id))


async def test_a_store_that_fails_before_or_after_its_commit(url):
    """L12 at the store's own fault points: for whole groups, and for starts, payloads and claims too."""
    failed = 0
    chance = random.Random(7)

    def now_and_then():
        nonlocal failed
        if chance.random() < 0.2:
            failed += 1
            faults.fail()

    async def insist(action):
        """What a caller does that was told: try again. Its ids make that safe."""
        while True:
            try:
                return await action()
            except hf.StoreError:
                continue

    async with hf.connect(url) as app, app.worker():
        faults.arm("store.commit.before", now_and_then)
        faults.arm("store.commit.after", now_and_then)
        runs = [await insist(lambda n=n: app.start(mixed, f"doubt-{n}", run_id=f"run-{n}")) for n in range(6)]
        for run in runs:
            await logged(app, run.id, "hook_opened")
        for value in (100, 200):
            for n in range(6):
                await insist(lambda n=n, v=value: app.resume(f"doubt-{n}", v, delivery_id=f"{n}-{v}"))
        for run in runs:
            assert await run.result(PATIENCE) == RESULT
        faults.disarm()
        assert failed > 10
        for n in range(6):
            assert_sound(await log_of(app, f"run-{n}"))


# ---- two deciders


@hf.workflow(name="doubt.hook-sleep")
async def hook_sleep(token: str, iterations: int, sleep_ms: int, branch_ms: int, drain_ms: int) -> int:
    """The workflow of RACES.md."""
    hook = hf.hook(token)
    pending: asyncio.Task | None = None
    received = 0
    for i in range(iterations):
        await quick(i)
        pending = pending or asyncio.create_task(hook.next())
        nap = asyncio.create_task(asyncio.sleep(sleep_ms / 1000))
        done, _ = await asyncio.wait([pending, nap], return_when=asyncio.FIRST_COMPLETED)
        if pending not in done:
            await asyncio.gather(*(asyncio.sleep(branch_ms / 1000) for _ in range(2)))
            continue
        nap.cancel()
        received += 1
        pending = None
        await drain(i, drain_ms)
    return received


@hf.step(name="doubt.quick")
async def quick(i: int) -> int:
    body()
    return i


@hf.step(name="doubt.drain")
async def drain(i: int, ms: int) -> int:
    body()
    await asyncio.sleep(ms / 1000)
    return i


class Jitter:
    """Lets appends, answers and reads of a store take some turns of the loop, drawn from a seed."""

    def __init__(self, store, seed: int) -> None:
        self._chance = random.Random(seed)
        self._submit, store.submit = store.submit, self.submit
        for name in ("read", "take_up", "catch_up"):
            setattr(store, name, self._slow(getattr(store, name)))

    def _turns(self, work, turns: int) -> None:
        loop = asyncio.get_running_loop()
        if turns <= 0:
            work()
        elif turns > 8:
            loop.call_later(turns / 4000, work)
        else:
            loop.call_soon(self._turns, work, turns - 1)

    def submit(self, request, **how):
        answer = request.answer
        request.answer = lambda real: self._turns(lambda: answer(real), self._chance.randrange(12))
        self._turns(lambda: self._submit(request, **how), self._chance.randrange(12))

    def _slow(self, read):
        async def slowly(*args, **kwargs):
            for _ in range(self._chance.randrange(8)):
                await asyncio.sleep(0)
            found = await read(*args, **kwargs)
            for _ in range(self._chance.randrange(8)):
                await asyncio.sleep(0)
            return found

        return slowly


async def two_deciders(url: str, seed: int, runs: int) -> tuple[int, int]:
    """All runs on two workers that both believe them theirs; gives refusals and payloads accepted."""
    async with hf.connect(url) as first, hf.connect(url) as second:
        chance = random.Random(seed)
        Jitter(first.store, seed)
        Jitter(second.store, seed + 1)
        async with first.worker() as one, second.worker() as other:
            names = [f"hs-{seed}-{n}" for n in range(runs)]
            handles = []
            for name in names:
                handles.append(await first.start(hook_sleep, name, 4, 20, 5, 2, run_id=name))
                other.runs.wake(name, "doubt.hook-sleep")

            async def pay(name):
                accepted = 0
                for n in range(4):
                    await asyncio.sleep(chance.random() * 0.04)
                    try:
                        await (first if n % 2 else second).resume(name, n)
                    except hf.HookNotFound:
                        break
                    accepted += 1
                return accepted

            paid = await asyncio.gather(*(pay(name) for name in names))
            received = [await handle.result(PATIENCE) for handle in handles]
            refusals = one.refusals + other.refusals
        for name, accepted, got in zip(names, paid, received, strict=True):
            events = await log_of(first, name)
            assert_one_end(events, deciders=2)
            end = events[-1] if events[-1].type == "run_completed" else of_type(events, "run_completed")[0]
            assert len(of_type(events, "hook_received")) == accepted
            unread = await first.run(name).unread()
            assert end.data["read"] + unread == accepted
            assert got <= end.data["read"]
            replay(hook_sleep, events).bury()
        for (key, attempt), count in bodies.items():
            assert count == 1, f"attempt {attempt} of {key} had {count} bodies"
        return refusals, sum(paid)


@pytest.mark.parametrize("seed", range(3))
async def test_two_deciders_on_the_same_twenty_runs(url, seed):
    """L-01, L-12: leases off: 0 corrupt, 0 stuck, all payloads read or counted, and refusals did happen."""
    refusals, paid = await two_deciders(url, seed * 10, 20)
    assert refusals > 0, "otherwise this test shows nothing"
    assert paid > 0


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 1 << 30), runs=st.integers(1, 6))
def test_two_deciders_under_drawn_delays(seed, runs):
    """L-01: the same with delays that hypothesis draws and shrinks."""
    bodies.clear()
    asyncio.run(two_deciders(f"memory://two-{seed}-{runs}", seed, runs))


@hf.step(name="doubt.unlucky", retries=4, backoff=hf.Backoff(initial=0.03, factor=1, jitter=0))
async def unlucky() -> int:
    body()
    if hf.step_info().attempt < 5:
        raise ConnectionError("not yet")
    return 1


@hf.workflow(name="doubt.retries")
async def retries(token: str) -> int:
    await hf.hook(token)
    return await unlucky()


async def test_two_deciders_that_both_wait_for_one_retry(url):
    """L3: both ring for the next attempt; one of them is told *already there*, and runs no body."""
    async with hf.connect(url) as first, hf.connect(url) as second:
        runs = [await first.start(retries, f"retry-{n}", run_id=f"retry-{n}") for n in range(10)]
        async with first.worker(), second.worker() as other:
            for run in runs:
                await logged(first, run.id, "hook_opened")
                await first.resume(run.id)
            for run in runs:
                await logged(first, run.id, "step_retried")
                other.runs.wake(run.id, "doubt.retries")
            assert [await run.result(PATIENCE) for run in runs] == [1] * 10
        for run in runs:
            events = await log_of(first, run.id)
            assert_one_end(events, deciders=2)
            starts = Counter((e.key, e.data["attempt"]) for e in of_type(events, "step_started"))
            assert set(starts.values()) == {1}
        assert len(bodies) == 50
        assert set(bodies.values()) == {1}, "one attempt, one body"


async def test_two_workers_that_both_take_up_a_started_attempt(url):
    """L3: the second claimer of an attempt gets *already there*, and its body does not run."""
    async with hf.connect(url) as first:
        run = await first.start(mixed, "claimed", run_id="claimed")
    async with hf.connect(url) as one_app, hf.connect(url) as other_app:
        async with one_app.worker(), other_app.worker() as other:
            other.runs.wake(run.id, "doubt.mixed")
            await logged(one_app, run.id, "hook_opened")
            for value in (100, 200):
                await one_app.resume("claimed", value)
            assert await other_app.run(run.id).result(PATIENCE) == RESULT
        assert_sound(await log_of(one_app, run.id), deciders=2)


@hf.step(name="doubt.once", retries=0)
async def once(gate: str) -> str:
    body()
    await gates[gate].wait()
    return "done"


@hf.workflow(name="doubt.one-chance")
async def one_chance(gate: str) -> str:
    return await once(gate)


gates: dict[str, asyncio.Event] = {}


@pytest.mark.parametrize("dies", [False, True])
async def test_a_last_attempt_is_lost_only_when_its_worker_is(url, monkeypatch, dies):
    """A second decider waits for the attempt of a worker that is alive, however few retries there are."""
    monkeypatch.setattr("holdfast.worker.doubts.EVERY", 0.02)
    gate = gates["once"] = asyncio.Event()
    async with hf.connect(url) as first, hf.connect(url) as second, first.worker() as holder:
        run = await first.start(one_chance, "once", run_id="once")
        await logged(first, run.id, "step_started")
        async with second.worker() as other:
            looks, look = asyncio.Semaphore(0), Attempts.is_under_way

            async def counted(attempts, key):
                found = await look(attempts, key)
                looks.release()
                return found

            monkeypatch.setattr(Attempts, "is_under_way", counted)
            other.runs.wake(run.id, "doubt.one-chance")
            for _ in range(3):
                await looks.acquire()
            assert not of_type(await log_of(first, run.id), "step_failed")
            if dies:
                await first.store.discharge(holder.id)
                with pytest.raises(hf.RunFailed, match="StepLost"):
                    await second.run(run.id).result(PATIENCE)
            gate.set()
            if not dies:
                assert await second.run(run.id).result(PATIENCE) == "done"
    assert bodies == {("once/doubt.once#1", 1): 1}


async def test_a_store_of_another_process_has_the_same_view(url):
    """What these tests look at through one handle is what a fresh one reads."""
    async with hf.connect(url) as app, app.worker():
        await drive(app, 1)
        async with open_store(url) as fresh:
            assert await fresh.read("run-0") == await log_of(app, "run-0")
