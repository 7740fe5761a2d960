"""Code that no longer counts: evicted, diverged or left behind at the end, it does nothing to the world."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from deciders import log_of, serving, until_logged
from patience import PATIENCE

import holdfast as hf
from holdfast.client import App
from holdfast.engine import burial
from holdfast.engine.tick import Execution
from holdfast.replay import replay_run
from holdfast.testing import Rehearsal

ran: list[str] = []
"""The step bodies that have run: none may, for nobody executes steps here."""


@pytest.fixture(autouse=True)
def no_body_runs() -> Any:
    ran.clear()
    yield
    gc.collect()
    assert ran == []
    assert burial.unburied == []


@hf.step
async def body(name: str) -> None:
    ran.append(name)


@hf.step
def sync_body(name: str) -> None:
    ran.append(name)


@hf.workflow
async def undoes() -> None:
    try:
        await body("do")
    finally:
        hf.set_attributes(stage="undone")
        await body("undo")
        sync_body("undo too")


@hf.workflow
async def undoes_in_a_generator() -> None:
    async def numbers() -> Any:
        try:
            yield 1
        finally:
            await body("undo")

    async for _ in numbers():
        await body("do")


@hf.workflow
async def waits_in_a_generator() -> None:
    async def numbers() -> Any:
        try:
            await body("do")
            yield 1
        finally:
            await body("undo")

    async for _ in numbers():
        pass


@hf.workflow
async def waits_deep_in_a_generator() -> None:
    async def helper() -> None:
        try:
            await body("do")
        finally:
            await body("undo")

    async def numbers() -> Any:
        try:
            await asyncio.gather(helper(), helper())
            yield 1
        finally:
            await helper()

    async with contextlib.aclosing(numbers()) as generator:
        async for _ in generator:
            pass


@hf.workflow
async def abandons_a_generator() -> None:
    async def numbers() -> Any:
        try:
            yield 1
        finally:
            await body("undo")
            yield 2

    async for _ in numbers():
        break
    await body("do")


@hf.workflow
async def listens_beside() -> None:
    async def listen() -> None:
        async with hf.hook("T") as hook:
            async for _ in hook:
                await body("heard")

    listener = asyncio.create_task(listen())
    await body("do")
    listener.cancel()


@hf.workflow
async def groups_and_limits() -> None:
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        for name in "abc":
            group.create_task(body(name))
        async with asyncio.Lock(), asyncio.timeout(3):
            await asyncio.shield(asyncio.create_task(body("shielded")))


@hf.workflow
async def waits_again_in_finally() -> None:
    try:
        await body("do")
    finally:
        for _ in range(20):
            await asyncio.get_running_loop().create_future()


SUSPENDED = [
    undoes,
    undoes_in_a_generator,
    waits_in_a_generator,
    waits_deep_in_a_generator,
    abandons_a_generator,
    listens_beside,
    groups_and_limits,
    waits_again_in_finally,
]


@pytest.mark.parametrize("workflow", SUSPENDED, ids=lambda workflow: workflow.name)
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
async def test_an_eviction_runs_no_step_body_and_asks_for_nothing(workflow: Any) -> None:
    """The generator's `finally` once went to the worker's own loop, which ran the step's body for real."""
    run = Rehearsal(workflow)
    if workflow is undoes_in_a_generator:
        assert run.steps == ["body#1"]
    before = [draft.key for draft in run.execution.asked]
    log = list(run.log)
    run.close()
    for _ in range(5):
        gc.collect()
        await asyncio.sleep(0)
    assert [draft.key for draft in run.execution.asked] == before
    assert run.log == log
    replay_run(log, workflow)


@pytest.mark.parametrize("workflow", SUSPENDED, ids=lambda workflow: workflow.name)
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_an_eviction_leaves_nothing_in_memory(workflow: Any) -> None:
    """A worker evicts and replays for months."""
    run = Rehearsal(workflow)
    execution = weakref.ref(run.execution)
    run.close()
    del run
    gc.collect()
    assert execution() is None


@hf.workflow
async def takes_no_for_an_answer() -> None:
    while True:
        try:
            await body("again")
        except BaseException:
            with contextlib.suppress(BaseException):
                await asyncio.sleep(1)
            with contextlib.suppress(BaseException):
                await hf.hook("T")
            with contextlib.suppress(BaseException):
                await asyncio.gather(body("a"), body("b"))


@pytest.mark.timeout(20)
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_code_that_catches_everything_in_a_loop_cannot_hold_the_worker_up() -> None:
    """Told a thousand times that it is evicted, it is left waiting: a bare `except:` once span for ever."""
    run = Rehearsal(takes_no_for_an_answer)
    run.close()
    assert burial.unburied == ["takes_no_for_an_answer"]  # for good: to close it would run its code
    burial.unburied.clear()


@hf.workflow
async def leaves_a_task() -> str:
    async def left() -> None:
        try:
            await body("left")
        finally:
            await body("undo left")

    asyncio.create_task(left())
    await asyncio.sleep(0)
    return "done"


def test_tasks_left_behind_at_the_end_ask_for_nothing_more() -> None:
    """Their `finally` runs when the run is over; what it asks for would stand behind the end."""
    run = Rehearsal(leaves_a_task)
    assert run.result() == "done"
    assert [command.type for command in run.commands] == ["step_scheduled", "run_completed"]
    replay_run(run.log)


def test_a_buried_run_takes_no_more_facts() -> None:
    """Burying twice, and feeding what is buried, does nothing."""
    run = Rehearsal(undoes)
    run.close()
    run.close()
    run.complete("body#1")
    assert [command.type for command in run.commands] == ["step_scheduled"]


@hf.workflow
async def slowly(name: str) -> str:
    async def numbers() -> Any:
        try:
            for number in range(3):
                yield number
        finally:
            hf.set_attributes(ended=name)

    got = []
    async with contextlib.aclosing(numbers()) as generator:
        async for number in generator:
            got.append(f"{number}{await hf.hook(f'{name}-{number}')}")
    return "".join(got)


async def test_runs_that_a_worker_has_no_room_for_go_on_when_something_happens(app: App) -> None:
    """With room for one live run, each payload wakes another one from its log."""
    async with serving(app, keep=1):
        runs = [await app.start(slowly, f"w{n}") for n in range(5)]
        for number in range(3):
            for run in runs:
                await until_logged(app, run.id, "hook_opened", f"w{runs.index(run)}-{number}#1")
                await app.resume(f"w{runs.index(run)}-{number}", "!")
        for run in runs:
            assert await run.result(PATIENCE) == "0!1!2!"
            replay_run(await log_of(app, run.id))


def test_a_dead_execution_is_dead_before_its_first_event() -> None:
    """An execution that has seen nothing can be dropped, too."""
    Execution("r", undoes).bury()


def test_generators_of_others_are_left_to_their_own_loop_and_to_no_dead_one() -> None:
    """The hooks stay in place between ticks; they once sent a generator to a loop that had been closed."""

    async def numbers() -> Any:
        yield 1

    async def world() -> list[int]:
        Rehearsal(leaves_a_task)  # a tick within a loop
        return [number async for number in numbers()]

    Rehearsal(leaves_a_task)  # and one without
    assert asyncio.run(world()) == [1]
    with pytest.raises(StopIteration) as first:
        numbers().asend(None).send(None)  # no loop is here: a ResourceWarning would be an error
    assert first.value.value == 1
