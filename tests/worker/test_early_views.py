"""A view that the log does not bear out leaves nothing behind: an early fact that another one has preceded (L5).

A worker delivers a timer that is due before it is committed, and the code goes on from there. Where a payload
turns out to have come first, that went on in vain: the worker replays. Found by `holdfast stress chaos`.
"""

import asyncio
from contextlib import asynccontextmanager

import pytest
from patience import PATIENCE
from worker_kit import Gate, log_of, logged, of_type, told

import holdfast as hf
from holdfast import faults
from holdfast.codec import digest
from holdfast.events import new
from holdfast.store.messages import Append
from holdfast.testing import ManualClock

bodies: list[str] = []


@hf.step(name="early.work")
async def work(what: str) -> str:
    bodies.append(what)
    return what


@hf.step(name="early.held")
async def held(gate: int) -> str:
    bodies.append("begun")
    await Gate.made[gate].wait()
    bodies.append("done")
    return "held"


@hf.workflow(name="early.starts")
async def starts(token: str) -> str:
    hook = hf.hook(token)
    try:
        async with asyncio.timeout(PATIENCE):
            await hook
    except TimeoutError:
        loser = asyncio.create_task(work("late"))  # the same key as below: the first of its name
        await asyncio.sleep(0)
        loser.cancel()
        return "timed out"
    return await work("in time")


@hf.workflow(name="early.guards")
async def guards(token: str, gate: int) -> str:
    hook = hf.hook(token)
    guarded = asyncio.create_task(held(gate))
    try:
        async with asyncio.timeout(PATIENCE):
            await hook
    except TimeoutError:
        guarded.cancel()
        return "timed out"
    return await guarded


@pytest.fixture(autouse=True)
def _fresh():
    bodies.clear()
    yield
    Gate.open_all()


@asynccontextmanager
async def payload_lands_first(url, workflow, *args):
    """A run whose time-out rings while a payload lands of which its worker has not heard."""
    clock = ManualClock()
    async with hf.connect(url, clock=clock) as app, hf.connect(url, clock=clock) as other, app.worker():
        run = await app.start(workflow, "token", *args)
        await logged(app, run.id, "timer_started")

        def land() -> None:
            faults.disarm()
            data = {"delivery": "d-1", "payload": "here", "digest": digest(b'"here"')}
            draft = new("hook_received", key="token#0", data=data)
            request = Append("", [draft], None, other.store.next_batch(), answers.append, token="token")
            other.store.submit(request, flush=True)

        answers = []
        faults.arm("worker.append.before", land)
        clock.advance(60)
        await logged(app, run.id, "timer_fired")
        yield app, run
        events = await log_of(app, run.id)
        assert answers, "the payload was sent while the worker was about to commit the timer"
        assert of_type(events, "hook_received")[0].position < of_type(events, "timer_fired")[0].position


async def test_a_step_is_not_unwanted_because_another_view_did_not_want_it():
    """L5, R-04: a step that an early view started and cancelled is, after the replay, another call."""
    async with payload_lands_first("memory://early-starts", starts) as (app, run):
        assert await run.result(PATIENCE) == "in time"
        assert bodies == ["in time"]
        assert of_type(await log_of(app, run.id), "step_failed") == []


async def test_a_body_is_not_interrupted_by_a_view_that_the_log_does_not_bear_out():
    """L5: the time-out that was delivered early cancels a step that runs; a payload was first, it goes on."""
    gate = len(Gate.made)
    waiting = Gate()
    async with payload_lands_first("memory://early-guards", guards, gate) as (app, run):
        waiting.open.set()
        assert await run.result(PATIENCE) == "held"
        assert bodies == ["begun", "done"]
        assert of_type(await log_of(app, run.id), "step_failed") == []


@hf.workflow(name="early.doubles")
async def doubles(n: int) -> int:
    return 2 * n


async def test_a_run_that_is_given_to_a_worker_while_it_tries_to_start_it_is_gone_on_with():
    """Another process was first; its run was claimed before the worker's own start was refused, then by nobody."""
    store = "memory://claimed-while-starting"
    async with hf.connect(store) as app, hf.connect(store) as other, app.worker() as worker:
        submit, under_way, held = app.store.submit, asyncio.Event(), []

        def hold(request, **how):
            held.append((request, how))
            under_way.set()

        app.store.submit = hold
        start = asyncio.create_task(app.start(doubles, 21, run_id="r"))
        await under_way.wait()
        await other.start(doubles, 21, run_id="r")
        await told(app.store, lambda: app.store.head("r"), lambda head: head.owner == worker.id)
        while "r" not in worker.runs._claimed:
            await asyncio.sleep(0)
        app.store.submit = submit
        for request, how in held:
            submit(request, **how)
        assert await (await start).result(PATIENCE) == 42
