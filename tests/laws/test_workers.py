"""Whole workers under trouble: generated workflows, two deciders, lost answers, lost memory, floods.

Whatever happens, each log replays to itself, agrees with what was derived from it, and holds no command twice.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

sys.path.insert(0, str(Path(__file__).parent))

import durable
from deciders import join
from durable import BodiedPlay, seeds, woven
from patience import PATIENCE

import holdfast as hf
from holdfast import faults
from holdfast.client import App
from holdfast.engine.tick import tick
from holdfast.errors import HoldfastError, StoreError
from holdfast.events import Event, fold
from holdfast.replay import replay_run
from holdfast.testing import ManualClock
from holdfast.verify import Verification
from holdfast.worker import live
from holdfast.worker.worker import Worker

chance = random.Random()


@hf.step(retries=2, backoff=hf.Backoff(initial=0.5, jitter=0))
async def toil(where: str, sees: Any = None) -> Any:
    for _ in range(chance.choice([0, 0, 1, 3])):
        await asyncio.sleep(0)
    if chance.random() < 0.25:
        raise durable.Boom(where)
    return [where]


@hf.step(queue=hf.queue("toil", concurrency=2), retries=2, backoff=hf.Backoff(initial=0.5, jitter=0))
async def toil_in_turn(where: str, sees: Any = None) -> Any:
    await asyncio.sleep(0)
    return [where]


class ToilingPlay(BodiedPlay):
    body = toil
    queued = toil_in_turn

    @property
    def family(self) -> Any:
        return toiling


@hf.workflow
async def toiling(program: Any) -> int:
    play = ToilingPlay(program)
    await play.main()
    return len(play.trace)


SCENARIOS = int(os.environ.get("HOLDFAST_SCENARIOS", "4"))
"""How many on each real store; `make scenarios COUNT=200` plays more."""

# Programs that are cut off leave coroutines which nobody will await, on both loops.
pytestmark = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    monkeypatch.setattr(live.LiveRun, "retry_first", 0.0005)
    monkeypatch.setattr(live.LiveRun, "retry_most", 0.002)
    caplog.set_level("CRITICAL")
    yield
    gc.collect()


def trouble(workers: list[Worker], clock: ManualClock) -> None:
    """Commits that fail before or after the write, live runs that are lost, time that passes meanwhile."""

    def fail() -> None:
        if chance.random() < 0.1:
            raise StoreError("trouble")

    def forget() -> None:
        clock.advance(chance.random() / 1000)
        if chance.random() < 0.1:
            for worker in workers:
                for one in worker.runs.live.values():
                    one._stale = True

    faults.arm("store.commit.before", fail)
    faults.arm("store.commit.after", fail)
    faults.arm("worker.append.before", forget)


async def play(program: Any, url: str, *, two: bool, troubled: bool, keep: int) -> None:
    """Start some runs of a program, send to their hooks, and end what waits for ever."""
    clock = ManualClock(autojump=0.0005)
    async with (
        hf.connect(url, clock=clock) as app,
        hf.connect(app.store.url, clock=clock) as other,
    ):
        async with app.worker(keep=keep, poll=0.01) as worker, other.worker(poll=0.01) as second:
            try:
                ids = [f"run-{n}" for n in range(2)]
                for run_id in ids:
                    await app.start(toiling, program, run_id=run_id)
                if troubled:
                    trouble([worker, second], clock)
                await asyncio.wait_for(meddle(app, second, ids, two=two), PATIENCE)
            finally:
                faults.disarm()
            for run_id in ids:
                await assert_not_stuck(app, run_id)
                await end(app, run_id)
        for run_id in ids:
            await assert_sound(app, run_id)


async def meddle(app: App, second: Worker, ids: list[str], *, two: bool) -> None:
    """Payloads, a second decider, perhaps a cancel, for as long as something happens."""
    positions: list[int] = []
    quiet = 0
    while quiet < 12:
        if two and chance.random() < 0.2:
            run_id = chance.choice(ids)
            head = await app.store.head(run_id)
            if head is not None and head.ended is None and run_id not in second.runs.live:
                join(second, run_id, toiling)
        open_hooks = [hook async for hook in app.hooks()]
        if open_hooks and chance.random() < 0.4:
            try:
                await app.resume(chance.choice(open_hooks).token, chance.randrange(9))
            except HoldfastError:
                pass  # trouble hits senders, too
        if chance.random() < 0.01:
            try:
                await app.run(chance.choice(ids)).wake()
            except HoldfastError:
                pass
        await asyncio.sleep(0.001)
        heads = [await app.store.head(run_id) for run_id in ids]
        now = [head.position for head in heads if head is not None]
        quiet = quiet + 1 if now == positions else 0
        positions = now
        if all(head is not None and head.ended is not None for head in heads):
            return


async def assert_not_stuck(app: App, run_id: str) -> None:
    """The trouble is over: in a moment nothing is left to do but wait for payloads (law L14)."""
    async with asyncio.timeout(PATIENCE):
        while (state := fold(log := await app.store.read(run_id))).ended is None:
            if not state.open_steps and not state.pending_timers and not tick(toiling, log):
                return
            await asyncio.sleep(0.001)


async def end(app: App, run_id: str) -> None:
    """End a run that waits for ever: by a cancel, and where its code will not, by force."""
    run = app.run(run_id)
    assert (await run.info()).parked is None, f"{run_id} is parked: {(await run.info()).parked}"
    await run.cancel()
    await run.terminate()


async def assert_sound(app: App, run_id: str) -> None:
    log: list[Event] = await app.store.read(run_id)
    commands = Counter((event.type, event.key) for event in log if event.cls == "command")
    assert set(commands.values()) <= {1}
    replay_run(log, toiling)
    differs = [str(difference) async for difference in Verification(app.store, run_id=run_id).run()]
    assert differs == []


@settings(max_examples=max(10, settings.default.max_examples // 3))
@given(seeds, seeds)
async def test_workers_under_trouble_write_sound_logs(program: int, luck: int) -> None:
    """All laws at once, through the store's door."""
    chance.seed(luck)
    two, troubled = chance.random() < 0.5, chance.random() < 0.7
    url = f"memory://{program}-{luck}"
    await play(woven(program), url, two=two, troubled=troubled, keep=chance.choice([1, 100]))


def short(luck: int) -> Any:
    """A generated program that a real store is done with in a second or two."""
    return next(program for seed in count(1000 * luck) if len(repr(program := woven(seed))) < 800)


@pytest.mark.parametrize("luck", range(SCENARIOS))
async def test_workers_under_trouble_write_sound_logs_on_disk(luck: int, tmp_path: Path) -> None:
    """The same on SQLite: two handles on one file, which do not share what they remember."""
    chance.seed(luck)
    await play(
        woven(luck), f"sqlite:///{tmp_path}/store.db", two=chance.random() < 0.5, troubled=True, keep=1
    )


@pytest.mark.parametrize("luck", range(SCENARIOS))
async def test_workers_under_trouble_write_sound_logs_on_a_server(luck: int, postgres_url: str) -> None:
    """The same on PostgreSQL: two handles with connections of their own."""
    chance.seed(luck)
    await play(short(luck), postgres_url, two=chance.random() < 0.5, troubled=True, keep=1)
