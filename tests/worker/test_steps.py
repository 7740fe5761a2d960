"""Steps: attempts, retries, time-outs, heartbeats, cancellation, and what a body may do to its worker."""

import asyncio
import threading
import time
from collections import Counter
from typing import Any

import pytest
from patience import PATIENCE
from worker_kit import Gate, assert_one_end, log_of, logged, of_type, types

import holdfast as hf

bodies: Counter[str] = Counter()
seen: list[Any] = []
gates: dict[str, Gate] = {}

QUICK = hf.Backoff(initial=0.01, jitter=0)


@pytest.fixture(autouse=True)
def _fresh():
    bodies.clear()
    seen.clear()
    gates.clear()


async def result(app, workflow, *args, **kwargs):
    run = await app.start(workflow, *args, **kwargs)
    return await run.result(PATIENCE)


async def failure(app, workflow, *args, **kwargs):
    """The original exception of a run that must fail, and its log."""
    run = await app.start(workflow, *args, **kwargs)
    with pytest.raises(hf.RunFailed) as caught:
        await run.result(PATIENCE)
    return caught.value.__cause__, await log_of(app, run.id)


# ---- kinds of steps, and how arguments are bound


@hf.step(name="steps.where")
def where() -> str:
    return threading.current_thread().name


@hf.step(name="steps.where-async")
async def where_async() -> str:
    return threading.current_thread().name


@hf.workflow(name="steps.places")
async def places() -> list[str]:
    return [await where(), await where_async()]


async def test_sync_steps_run_in_threads_and_async_ones_on_the_loop(working):
    sync, on_loop = await result(working, places)
    assert sync.startswith("holdfast-step")
    assert on_loop == threading.current_thread().name


@hf.step(name="steps.bound")
async def bound(a: int, /, b: int, *rest: int, c: int, d: int = 4, **more: int) -> list[Any]:
    return [a, b, list(rest), c, d, more]


@hf.step(name="steps.bound-sync")
def bound_sync(a: int, /, b: int = 2, *rest: int, c: int = 3, **more: int) -> list[Any]:
    return [a, b, list(rest), c, more]


@hf.step(name="steps.own-names")
async def own_names(self: int, args: int, kwargs: int, fn: int, run_id: int, key: int) -> int:
    return self + args + kwargs + fn + run_id + key


@hf.workflow(name="steps.binds")
async def binds() -> list[Any]:
    return [
        await bound(1, 2, c=3),
        await bound(1, 2, 5, 6, c=3, d=7, e=8, a=9),
        await bound(1, b=2, c=3),
        await bound_sync(1),
        await bound_sync(1, 2, 3, 4, c=5, z=6),
        await own_names(self=1, args=2, kwargs=3, fn=4, run_id=5, key=6),
    ]


async def test_every_kind_of_parameter_is_bound_as_python_binds_it(memory):
    """R-11: positional-only, *args, keyword-only, **kwargs, and names that a library likes to use itself."""
    assert await result(memory, binds) == [
        [1, 2, [], 3, 4, {}],
        [1, 2, [5, 6], 3, 7, {"e": 8, "a": 9}],
        [1, 2, [], 3, 4, {}],
        [1, 2, [], 3, {}],
        [1, 2, [3, 4], 5, {"z": 6}],
        21,
    ]


@hf.workflow(name="steps.misbinds")
async def misbinds(how: str) -> Any:
    calls: dict[str, Any] = {
        "missing": lambda: bound(1, c=3),  # type: ignore[call-arg]
        "unknown": lambda: where(colour="red"),  # type: ignore[call-arg]
        "type": lambda: bound("one", 2, c=3),  # type: ignore[arg-type]
        "rest": lambda: bound(1, 2, "three", c=3),  # type: ignore[arg-type]
        "more": lambda: bound(1, 2, c=3, e="e"),  # type: ignore[arg-type]
    }
    return await calls[how]()


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("missing", "'b'"),
        ("unknown", "colour"),
        ("type", "argument a: expected `int`, got `str`"),
        ("rest", "argument rest"),
        ("more", "argument more"),
    ],
)
async def test_arguments_that_do_not_fit_a_step_fail_the_run_at_the_call(memory, how, says):
    """R-11: said at the call, with the step and the parameter."""
    error, events = await failure(memory, misbinds, how)
    assert type(error) is hf.PayloadError
    assert says in str(error)
    assert "\n" not in str(error)
    assert "step_completed" not in types(events)


# ---- what a step knows of itself


@hf.step(name="steps.knows", retries=2, backoff=QUICK)
async def knows(n: int) -> dict[str, Any]:
    info = hf.step_info()
    seen.append(info)
    if info.attempt < 3:
        raise ConnectionError("not yet")
    return {"run": info.run_id, "key": info.key, "attempt": info.attempt, "step": info.step}


@hf.step(name="steps.knows-sync", retries=1, backoff=QUICK)
def knows_sync() -> dict[str, Any]:
    info = hf.step_info()
    if info.attempt < 2:
        raise ConnectionError("not yet")
    return {"run": info.run_id, "key": info.key, "attempt": info.attempt, "step": info.step}


@hf.workflow(name="steps.informed")
async def informed() -> list[dict[str, Any]]:
    return [*await asyncio.gather(knows(1), knows(2)), await knows_sync()]


async def test_a_step_knows_its_run_key_and_attempt(working):
    run = await working.start(informed, run_id="informed")
    first, second, third = await run.result(PATIENCE)
    assert {i["attempt"] for i in (first, second)} == {3}
    assert third["attempt"] == 2
    assert {i["run"] for i in (first, second, third)} == {"informed"}
    assert len({i["key"] for i in (first, second, third)}) == 3
    for key in (first["key"], second["key"]):
        assert [info.attempt for info in seen if info.key == key] == [1, 2, 3], "one key for all attempts"


def test_step_info_outside_a_step_says_so():
    with pytest.raises(hf.DefinitionError, match="running step"):
        hf.step_info()
    with pytest.raises(hf.DefinitionError, match="running step"):
        hf.heartbeat()


# ---- retries


@hf.step(name="steps.flaky", retries=3, backoff=hf.Backoff(initial=0.02, factor=2, jitter=0.5))
async def flaky(succeed_at: int) -> int:
    bodies["flaky"] += 1
    if hf.step_info().attempt < succeed_at:
        raise ConnectionError(f"attempt {hf.step_info().attempt}")
    return hf.step_info().attempt


@hf.workflow(name="steps.tries")
async def tries(succeed_at: int) -> int:
    return await flaky(succeed_at)


async def test_retries_wait_for_the_delay_that_the_log_names(working):
    """H-07: each attempt is recorded before its body, each delay with the failure that caused it."""
    run = await working.start(tries, 4)
    assert await run.result(PATIENCE) == 4
    assert bodies["flaky"] == 4
    events = await log_of(working, run.id)
    starts, retried = of_type(events, "step_started"), of_type(events, "step_retried")
    assert [e.data["attempt"] for e in starts] == [1, 2, 3, 4]
    assert [e.data["attempt"] for e in retried] == [1, 2, 3]
    for n, (failed, start) in enumerate(zip(retried, starts[1:], strict=True)):
        plain = 0.02 * 2**n
        assert plain * 0.5 <= failed.data["delay"] <= plain * 1.5
        assert start.time >= failed.data["due"], "never too early"
        assert failed.data["error"]["message"] == f"attempt {n + 1}"
    assert_one_end(events)


async def test_after_the_last_attempt_the_workflow_sees_the_steps_own_exception(working):
    error, events = await failure(working, tries, 99)
    assert type(error) is ConnectionError
    assert str(error) == "attempt 4"
    assert bodies["flaky"] == 4
    assert types(events).count("step_failed") == 1


@hf.step(name="steps.once", retries=0)
async def once() -> None:
    bodies["once"] += 1
    raise ConnectionError("no")


@hf.workflow(name="steps.tries-once")
async def tries_once() -> None:
    await once()


async def test_no_retries_is_one_attempt(memory):
    _, events = await failure(memory, tries_once)
    assert bodies["once"] == 1
    assert "step_retried" not in types(events)


@hf.step(name="steps.fatal", retries=5)
async def fatal() -> None:
    bodies["fatal"] += 1
    raise hf.FatalError("reported stolen")


@hf.workflow(name="steps.dies")
async def dies() -> None:
    await fatal()


async def test_a_fatal_error_is_not_tried_again(memory):
    error, _ = await failure(memory, dies)
    assert bodies["fatal"] == 1
    assert type(error) is hf.FatalError
    assert str(error) == "reported stolen"


@hf.step(name="steps.busy", retries=1, backoff=hf.Backoff(initial=60))
async def busy() -> int:
    if hf.step_info().attempt == 1:
        raise hf.RetryAfter(0.15, "rate limited")
    return hf.step_info().attempt


@hf.workflow(name="steps.patient")
async def patient() -> int:
    return await busy()


async def test_retry_after_is_honoured_instead_of_the_backoff(working):
    run = await working.start(patient)
    assert await run.result(PATIENCE) == 2
    events = await log_of(working, run.id)
    failed, again = of_type(events, "step_retried")[0], of_type(events, "step_started")[1]
    assert failed.data["delay"] == 0.15
    assert failed.data["due"] <= again.time < failed.data["due"] + 1_000_000


async def test_the_default_backoff_begins_within_half_a_second():
    """DESIGN §8, and jitter spreads what failed together."""
    delays = {hf.Backoff().delay(1, chance / 10) for chance in range(10)}
    assert max(delays) <= 0.5
    assert len(delays) > 1
    assert hf.Backoff(maximum=9, jitter=0).delay(10_000, 0.5) == 9


# ---- exceptions


class Refused(Exception):
    def __init__(self, card: str, *, code: int) -> None:
        super().__init__(f"{card} refused")
        self.card, self.code = card, code


@hf.step(name="steps.refuses", retries=0)
async def refuses() -> None:
    try:
        raise ValueError("limit reached")
    except ValueError as cause:
        error = Refused("4242", code=7)
        error.add_note("ask for another card")
        raise error from cause


@hf.workflow(name="steps.catches")
async def catches() -> list[Any]:
    try:
        await refuses()
    except Refused as error:
        return [error.card, error.code, str(error), error.__notes__, repr(error.__cause__)]
    return []


async def test_workflow_code_catches_what_the_step_raised(working):
    assert await result(working, catches) == [
        "4242", 7, "4242 refused", ["ask for another card"], "ValueError('limit reached')",
    ]  # fmt: skip


RAISED: dict[str, Any] = {
    "system-exit": SystemExit(3),
    "base": BaseException("base"),
    "generator-exit": GeneratorExit("gone"),
    "stop": StopIteration(5),
    "stop-async": StopAsyncIteration("end"),
    "cancelled": asyncio.CancelledError("by itself"),
    "group": ExceptionGroup("two", [ValueError("a"), KeyError("b")]),
}


@hf.step(name="steps.raises", retries=0)
async def raises(what: str) -> None:
    raise RAISED[what]


@hf.step(name="steps.raises-sync", retries=0)
def raises_sync(what: str) -> None:
    raise RAISED[what]


@hf.workflow(name="steps.survives")
async def survives(what: str, sync: bool) -> str:
    try:
        await (raises_sync if sync else raises)(what)
    except BaseException as error:
        return type(error).__name__
    return "nothing"


@pytest.mark.parametrize("sync", [False, True])
@pytest.mark.parametrize("what", RAISED)
async def test_whatever_a_step_raises_is_its_own_affair(memory, what, sync):
    """H-10: also SystemExit and the exceptions that Python's own machinery uses; neighbours do not notice."""
    gate = gates["neighbour"] = Gate()
    neighbour = await memory.start(waits_at, "neighbour")
    await gate.come.wait()
    said = await result(memory, survives, what, sync)
    assert said == ("RuntimeError" if what == "stop" else type(RAISED[what]).__name__)
    gate.open.set()
    assert await neighbour.result(PATIENCE) == "neighbour"


# ---- time-outs and heartbeats


@hf.step(name="steps.slow", timeout=0.05, retries=1, backoff=QUICK)
async def slow(seconds: float) -> int:
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        bodies["interrupted"] += 1
        raise
    return hf.step_info().attempt


@hf.workflow(name="steps.times-out")
async def times_out(seconds: float) -> int:
    return await slow(seconds)


async def test_a_timeout_interrupts_each_attempt(working):
    error, events = await failure(working, times_out, 30.0)
    assert isinstance(error, TimeoutError)
    assert "steps.slow#1 attempt 2 took longer than 0.05 s" in str(error)
    assert bodies["interrupted"] == 2
    assert types(events).count("step_started") == 2
    assert await result(working, times_out, 0.0) == 1


sync_gate = threading.Event()


@hf.step(name="steps.slow-sync", timeout=0.05, retries=0)
def slow_sync() -> None:
    sync_gate.wait(PATIENCE)


@hf.workflow(name="steps.times-out-sync")
async def times_out_sync() -> None:
    await slow_sync()


async def test_a_timeout_of_a_sync_step_does_not_wait_for_its_thread(working):
    sync_gate.clear()
    try:
        error, _ = await failure(working, times_out_sync)
        assert isinstance(error, TimeoutError)
        assert "took longer than 0.05 s" in str(error)
    finally:
        sync_gate.set()


@hf.step(name="steps.own-timeout", timeout=30, retries=0)
async def own_timeout() -> None:
    raise TimeoutError("the bank did not answer")


@hf.workflow(name="steps.passes-timeout-on")
async def passes_timeout_on() -> None:
    await own_timeout()


async def test_a_timeout_of_the_bodys_own_is_told_apart(memory):
    error, _ = await failure(memory, passes_timeout_on)
    assert (type(error), str(error)) == (TimeoutError, "the bank did not answer")


@hf.step(name="steps.brief-sync", timeout=1.5, retries=0)
def brief_sync(n: int) -> int:
    time.sleep(0.25)
    return n


@hf.workflow(name="steps.many-brief")
async def many_brief(count: int) -> list[int]:
    return await asyncio.gather(*(brief_sync(n) for n in range(count)))


async def test_the_timeout_counts_from_when_a_sync_body_runs(memory):
    """H-12: 100 sync steps at concurrency 100 run at once; none uses up its time-out waiting for a thread.

    On the threads of a default pool they would take 4 s on two cores, far over the time-out.
    """
    assert await result(memory, many_brief, 100) == list(range(100))


@hf.step(name="steps.beats", heartbeat=0.15, retries=0)
async def beats(times: int, every: float) -> str:
    for _ in range(times):
        await asyncio.sleep(every)
        hf.heartbeat()
    return "alive"


@hf.step(name="steps.beats-sync", heartbeat=0.15, retries=0)
def beats_sync(times: int, every: float) -> str:
    for _ in range(times):
        time.sleep(every)
        hf.heartbeat()
    return "alive"


@hf.workflow(name="steps.alive")
async def alive(times: int, every: float, sync: bool = False) -> str:
    return await (beats_sync if sync else beats)(times, every)


@pytest.mark.parametrize("sync", [False, True])
async def test_a_missed_heartbeat_ends_the_attempt_and_a_kept_one_does_not(memory, sync):
    """H-08: a long step goes on as long as it says that it is alive, also from a thread."""
    assert await result(memory, alive, 12, 0.03, sync) == "alive"
    error, _ = await failure(memory, alive, 1, 0.6, sync)
    assert isinstance(error, TimeoutError)
    assert "heartbeat" in str(error)


# ---- cancellation


@hf.step(name="steps.at-gate")
async def at_gate(name: str) -> str:
    try:
        await gates[name].wait()
    except asyncio.CancelledError:
        bodies[f"{name} cancelled"] += 1
        raise
    return name


@hf.workflow(name="steps.waits-at")
async def waits_at(name: str) -> str:
    return await at_gate(name)


@hf.workflow(name="steps.gives-up")
async def gives_up(name: str) -> str:
    task = asyncio.create_task(at_gate(name))
    await hf.hook(f"give up {name}")
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return "went on"
    return "never"


async def test_a_step_whose_await_is_cancelled_is_interrupted_and_the_run_goes_on(working):
    gate = gates["given up"] = Gate()
    run = await working.start(gives_up, "given up")
    await gate.come.wait()
    await working.resume("give up given up")
    assert await run.result(PATIENCE) == "went on"
    events = await logged(working, run.id, "step_failed")
    assert bodies["given up cancelled"] == 1
    assert of_type(events, "step_failed")[0].data["error"]["type"].endswith("CancelledError")
    assert_one_end(events)


@hf.step(name="steps.instant", retries=0)
async def instant(what: str) -> str:
    bodies[what] += 1
    if what == "fails":
        raise LookupError("at once")
    return what


@hf.workflow(name="steps.group")
async def group(name: str) -> str:
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(failing_branch())
            tasks.create_task(long_branch(name))
    except ExceptionGroup:
        return "group failed"
    return "never"


async def failing_branch() -> None:
    await instant("fails")


async def long_branch(name: str) -> None:
    await instant("first")
    await at_gate(name)


async def test_a_step_that_is_cancelled_in_the_moment_it_starts_frees_its_slot(memory_url):
    """H-12: the outcome that cancels it waits while the commit that starts it is under way.

    An asyncio task that is cancelled before it first runs never enters its coroutine.
    """
    async with hf.connect(memory_url) as app, app.worker(concurrency=3) as worker:
        for n in range(10):
            gates[f"g{n}"] = Gate()
            assert await result(app, group, f"g{n}") == "group failed"
        assert worker.executor.busy == 0
        assert await result(app, where_in_a_run) == "free"


@hf.workflow(name="steps.where-in-a-run")
async def where_in_a_run() -> str:
    await instant("after")
    return "free"


@hf.workflow(name="steps.start-and-cancel")
async def start_and_cancel(name: str) -> str:
    begin, go = hf.hook("begin"), hf.hook("go")
    await begin
    task = asyncio.create_task(at_gate(name))
    await go
    task.cancel()
    await asyncio.wait([task])
    await instant("after")
    return "done"


@pytest.mark.parametrize("late", [False, True])
async def test_a_cancel_that_comes_while_the_start_is_being_committed(memory_url, late):
    """The payload that cancels the step is in the log before the step's start, or right behind it."""
    async with hf.connect(memory_url) as app, app.worker(concurrency=1) as worker:
        gates["racing"] = Gate()
        submit, held, come = app.store.submit, [], asyncio.Event()

        def hold(request, **how):
            if any(d.type == "step_scheduled" and d.key == "steps.at-gate#1" for d in request.drafts):
                held.append((request, how))
                come.set()
            else:
                submit(request, **how)

        app.store.submit = hold
        run = await app.start(start_and_cancel, "racing")
        await logged(app, run.id, "hook_opened", 2)
        await app.resume("begin")
        await come.wait()
        app.store.submit = submit
        request, how = held[0]
        if late:
            submit(request, **how)
        await app.resume("go")
        if not late:
            submit(request, **how)
        assert await run.result(PATIENCE) == "done"
        await logged(app, run.id, "step_failed")
        assert worker.executor.busy == 0
        assert_one_end(await log_of(app, run.id))


@hf.workflow(name="steps.cancels-a-retry")
async def cancels_a_retry() -> str:
    task = asyncio.create_task(never_well())
    await hf.hook("stop trying")
    task.cancel()
    await asyncio.wait([task])
    return "stopped"


@hf.step(name="steps.never-well", retries=9, backoff=3600)
async def never_well() -> None:
    bodies["never well"] += 1
    raise ConnectionError("no")


async def test_a_step_that_waits_for_its_next_attempt_can_be_cancelled(working):
    run = await working.start(cancels_a_retry)
    await logged(working, run.id, "step_retried")
    await working.resume("stop trying")
    assert await run.result(PATIENCE) == "stopped"
    assert bodies["never well"] == 1


@hf.step(name="steps.stubborn")
async def stubborn(name: str) -> str:
    gate = gates[name]
    try:
        await gate.wait()
    except asyncio.CancelledError:
        return "finished all the same"
    return "never"


@hf.workflow(name="steps.cancels-stubborn")
async def cancels_stubborn(name: str) -> str:
    task = asyncio.create_task(stubborn(name))
    await hf.hook(f"cancel {name}")
    task.cancel()
    await asyncio.wait([task])
    await hf.hook(f"end {name}")
    return "cancelled" if task.cancelled() else task.result()


async def test_a_body_that_finishes_in_spite_of_its_cancellation_is_recorded_and_not_delivered(working):
    gate = gates["stubborn"] = Gate()
    run = await working.start(cancels_stubborn, "stubborn")
    await gate.come.wait()
    await working.resume("cancel stubborn")
    await logged(working, run.id, "step_completed")
    await working.resume("end stubborn")
    assert await run.result(PATIENCE) == "cancelled"


# ---- bounds


running = 0
most = 0


@hf.step(name="steps.counted")
async def counted(n: int) -> int:
    global running, most
    running += 1
    most = max(most, running)
    bodies["counted"] += 1
    await asyncio.sleep(0)
    await asyncio.sleep(0.001)
    running -= 1
    return n


counting = threading.Lock()


@hf.step(name="steps.counted-sync")
def counted_sync(n: int) -> int:
    global running, most
    with counting:
        running += 1
        most = max(most, running)
        bodies["counted"] += 1
    time.sleep(0.001)
    with counting:
        running -= 1
    return n


@hf.workflow(name="steps.storm")
async def storm(count: int, sync: bool) -> int:
    return sum(await asyncio.gather(*((counted_sync if sync else counted)(n) for n in range(count))))


@pytest.mark.parametrize("sync", [False, True])
async def test_792_calls_at_once_on_ten_slots(url, sync):
    """H-12: never more bodies at once than `concurrency`, each call once, and nothing wedges."""
    global running, most
    running = most = 0
    async with hf.connect(url) as app, app.worker(concurrency=10) as worker:
        assert await result(app, storm, 792, sync) == sum(range(792))
        assert most <= 10
        assert bodies["counted"] == 792
        assert worker.executor.busy == 0


async def test_ten_slots_for_many_runs_together(memory_url):
    """H-12: the bound is the worker's, not each run's."""
    global running, most
    running = most = 0
    async with hf.connect(memory_url) as app, app.worker(concurrency=10):
        runs = await asyncio.gather(*(app.start(storm, 20, False) for _ in range(40)))
        assert [await run.result(PATIENCE) for run in runs] == [190] * 40
        assert 0 < most <= 10
        assert bodies["counted"] == 800


# ---- results


@hf.step(name="steps.odd-result", retries=2)
async def odd_result(what: str) -> int:
    bodies["odd"] += 1
    results: dict[str, Any] = {
        "wrong type": "forty-two",
        "unserialisable": object(),
        "nothing": None,
        "a step": odd_result,
    }
    return results[what]


@hf.workflow(name="steps.gets-odd")
async def gets_odd(what: str) -> int:
    return await odd_result(what)


@pytest.mark.parametrize("what", ["wrong type", "unserialisable", "nothing", "a step"])
async def test_a_result_of_another_type_is_refused_with_the_step_named(memory, what):
    """Said where it happened, and not tried again: the body would only give it once more."""
    error, events = await failure(memory, gets_odd, what)
    assert type(error) is hf.PayloadError
    assert "steps.odd-result#1 result" in str(error)
    assert ("expected `int`" in str(error)) is (what in {"wrong type", "nothing"})
    assert bodies["odd"] == 1
    assert_one_end(events)


@hf.step(name="steps.nested-result")
async def nested_result() -> dict[str, Any]:
    return {"fine": 1, "rows": [{"ok": 1}, {"bad": threading.Lock()}]}


@hf.step(name="steps.large-result")
async def large_result(size: int) -> str:
    return "x" * size


@hf.workflow(name="steps.gets-nested")
async def gets_nested() -> Any:
    return await nested_result()


@hf.workflow(name="steps.gets-large")
async def gets_large(size: int) -> int:
    return len(await large_result(size))


async def test_an_unserialisable_result_names_step_and_field(memory):
    error, _ = await failure(memory, gets_nested)
    assert type(error) is hf.PayloadError
    for word in ("steps.nested-result#1 result", "rows", "bad", "lock"):
        assert word in str(error)


async def test_a_result_over_the_limit_names_step_and_size(memory_url):
    async with hf.connect(memory_url, payload_limit=10_000) as app, app.worker():
        assert await result(app, gets_large, 9_000) == 9_000
        error, _ = await failure(app, gets_large, 10_001)
        assert type(error) is hf.PayloadError
        assert "steps.large-result#1 result is 10,003 bytes, over the limit of 10,000" in str(error)


async def test_a_megabyte_is_within_the_default_limit(working):
    """DESIGN §8: at least 1 MiB."""
    assert await result(working, gets_large, (1 << 20) - 2) == (1 << 20) - 2


# ---- outside of workflows


async def test_outside_a_workflow_a_step_is_the_plain_function():
    assert await instant("plain") == "plain"
    assert where() == threading.current_thread().name
    with pytest.raises(LookupError):
        await instant("fails")
