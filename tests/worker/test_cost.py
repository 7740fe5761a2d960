"""What a step costs, counted and not timed: bytecodes, calls, statements, commits, memory, by shape.

Times say more and cannot be asserted on a shared machine; these counts do not depend on who else is busy. The
figures are upper limits, a little above what was measured. Who lowers the cost lowers them; who must raise one
says why in the commit.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import pytest

import holdfast as hf
from holdfast.engine.tick import replay
from holdfast.store.sqlite.store import FEW

OURS = str(Path(hf.__file__).parent)
OTHER_PYTHON = 1.0 if sys.version_info[:2] == (3, 11) else 1.4
"""The budgets of bytecodes are those of Python 3.11; other versions compile otherwise."""


@hf.step(name="cost.empty")
async def empty(number: int) -> int:
    return number


@hf.workflow(name="cost.sequence")
async def sequence(count: int) -> int:
    for number in range(count):
        await empty(number)
    return count


@hf.workflow(name="cost.gather")
async def gather(count: int) -> int:
    return len(await asyncio.gather(*(empty(number) for number in range(count))))


@hf.workflow(name="cost.payload")
async def payload(token: str) -> int:
    return await hf.hook(token, type=int)


class Counted(NamedTuple):
    bytecodes: float
    calls: float
    statements: float
    commits: int


async def count(app: hf.App | None, steps: int, work: Callable[[], Awaitable[object]]) -> Counted:
    """What `work` makes Holdfast's own code and its store do; bytecodes, calls and statements by the step."""
    counts: Counter[str] = Counter()

    def trace(frame: FrameType, event: str, _arg: Any) -> Any:
        if event == "call":
            if not frame.f_code.co_filename.startswith(OURS):
                return None
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            counts["calls"] += 1
        elif event == "opcode":
            counts["bytecodes"] += 1
        return trace

    def executed(_cursor: object, statement: str, _values: object) -> bool:
        counts["statements"] += 1
        counts["commits"] += statement.strip().startswith("COMMIT")
        return True

    connections = [] if app is None else [app.store._writer.db, app.store._reader]  # type: ignore[attr-defined]
    for connection in connections:
        connection.exec_trace = executed
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        await work()
    finally:
        sys.settrace(before)
        for connection in connections:
            connection.exec_trace = None
    return Counted(*(counts[name] / steps for name in Counted._fields[:3]), counts["commits"])


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[hf.App]:
    async with (
        hf.connect(f"sqlite:///{folder}/cost.db") as app,
        app.worker(poll=3600, probe=3600, lease=36_000),
    ):
        for workflow in (sequence, gather):  # what happens once has happened
            await (await app.start(workflow, 30)).result()
        yield app


async def run(app: hf.App, workflow: Any, steps: int) -> None:
    assert await (await app.start(workflow, steps)).result() == steps


async def crowd(app: hf.App, runs: int, steps: int) -> None:
    await asyncio.gather(*(run(app, sequence, steps) for _ in range(runs)))


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow moment of the disk would send commits to the writer thread, where nothing is counted."""
    pace = property(lambda _store: 0.0, lambda _store, _value: None)
    monkeypatch.setattr("holdfast.store.sqlite.store.SqliteStore._pace", pace, raising=False)


@pytest.mark.parametrize(
    ("shape", "budget"),
    [
        # A step of a sequence: BEGIN, the run's row, three events, a row of `steps` put and one taken, COMMIT.
        # Metrics count each commit: 186 bytecodes and 4 calls, of which a step in a crowd has its share. To
        # ask whether somebody wants spans: 25 bytecodes a step. A place for each attempt: 105 bytecodes, 4 calls.
        ("sequence", Counted(3_980, 108, 8.3, 51)),
        ("gather", Counted(2_710, 80, 5.5, 3)),
        # Its starts (16 of 160 steps) and results are in it. A larger one is committed by the writer thread.
        ("crowd", Counted(3_720, 97, 7.2, 12)),
    ],
)
async def test_a_step_stays_within_its_budget(tmp_path: Path, shape: str, budget: Counted) -> None:
    """HOTPATH: the price of a step is bytecode; statements and commits are the disk's."""
    async with serving(tmp_path) as app:
        if shape == "sequence":
            counted = await count(app, 50, lambda: run(app, sequence, 50))
        elif shape == "gather":
            counted = await count(app, 50, lambda: run(app, gather, 50))
        else:
            counted = await count(app, 160, lambda: crowd(app, FEW, 10))
    assert counted.bytecodes <= budget.bytecodes * OTHER_PYTHON
    assert counted.calls <= budget.calls
    assert counted.statements <= budget.statements
    assert counted.commits <= budget.commits


@pytest.mark.parametrize(("side", "statements"), [("sender", 12), ("worker", 9)])
async def test_a_payload_asks_the_file_no_more_than_it_must(
    tmp_path: Path, side: str, statements: int
) -> None:
    """Each question is asked after a pause, by a process whose pages another one has changed: it is dear."""
    async with serving(tmp_path) as app, hf.connect(f"sqlite:///{tmp_path}/cost.db") as sender:

        async def waiting(token: str) -> hf.Run[int]:
            started = await app.start(payload, token)
            while not [hook async for hook in app.hooks(token=token)]:
                await asyncio.sleep(0)
            return started

        async def send(token: str, started: hf.Run[int]) -> None:
            await sender.resume(token, 7)
            assert await started.result() == 7

        await send("first", await waiting("first"))
        started = await waiting("second")
        counted = await count(sender if side == "sender" else app, 1, lambda: send("second", started))
    assert counted.statements <= statements
    assert counted.commits == 1


async def test_an_event_that_is_replayed_stays_within_its_budget(tmp_path: Path) -> None:
    async with serving(tmp_path) as app:
        started = await app.start(sequence, 200)
        await started.result()
        log = await app.store.read(started.id)

        async def work() -> None:
            replay(sequence, log).bury()

        counted = await count(None, len(log), work)
    assert counted.bytecodes <= 200 * OTHER_PYTHON
    assert counted.calls <= 4.9 * OTHER_PYTHON  # from 3.12 on it is three functions that switch the watch


async def test_a_step_costs_the_same_however_long_the_run_is(tmp_path: Path) -> None:
    """DESIGN §9: n steps cost O(n); the live execution is fed, never replayed."""
    async with serving(tmp_path) as app:
        short = await count(app, 100, lambda: run(app, sequence, 100))
        long = await count(app, 1000, lambda: run(app, sequence, 1000))
    assert long.bytecodes <= short.bytecodes * 1.02


async def test_runs_that_have_ended_leave_nothing_in_memory(tmp_path: Path) -> None:
    """Blocks of memory per step: what stays is the runs' table of a bounded size, not their steps."""
    async with serving(tmp_path) as app:
        await crowd(app, 20, 50)
        gc.collect()
        before = sys.getallocatedblocks()
        await crowd(app, 20, 50)
        await asyncio.sleep(0)
        gc.collect()
        assert (sys.getallocatedblocks() - before) / 1000 < 1
