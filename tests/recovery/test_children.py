"""Processes that die between a parent and its children: nothing is started twice, and nothing is lost."""

import asyncio
import contextlib
import signal

import pytest
from patience import PATIENCE
from recovery_flows import chain, parent
from recovery_kit import effects
from worker_kit import assert_one_end, log_of, of_type, told

import holdfast as hf
from holdfast.faults import POINTS
from holdfast.store.rows import RunFilter
from holdfast.verify import Verification
from holdfast.workflow import workflows

CHILD = [point for point in POINTS if point.startswith("child.")]


@pytest.mark.parametrize(
    ("point", "passing"),
    [(point, passing) for point in CHILD for passing in (1, 4, 6)]
    + [("store.commit.before", 7), ("store.commit.after", 3), ("store.commit.after", 9)],
)
async def test_kill_9_between_a_parent_and_its_children(children, point, passing):
    """L14: committed, but not started; started, but not known; ended, but not told: the next worker goes on."""
    child = children.start("parents", "2", faults=f"{point}=kill@{passing}")
    assert await asyncio.to_thread(child.process.wait, PATIENCE) == -signal.SIGKILL, child.said()
    async with hf.connect(children.url) as app, app.worker(poll=0.2):
        runs = [await app.start(parent, str(children.effects), run_id=f"parent-{n}") for n in range(2)]
        assert [await run.result(PATIENCE) for run in runs] == [6, 6]
        for run in runs:
            assert await app.run(f"{run.id}-detached").result(PATIENCE) == 4
            await told(app.store, lambda run=run: app.store.runs(RunFilter(root=run.id)), all_ended)
            rows = await app.store.runs(RunFilter(root=run.id))
            assert sorted(row.status for row in rows) == ["cancelled"] + 5 * ["completed"]
            events = await log_of(app, run.id)
            assert_one_end(events)
            assert len({e.key for e in of_type(events, "child_ended")}) == len(of_type(events, "child_ended"))
            for row in rows:
                assert_one_end(await log_of(app, row.run))
        assert await told(app.store, app.store.orphans, lambda orphans: not orphans) == []
        check = Verification(app.store, workflows=set(workflows.names()))
        assert [str(difference) async for difference in check.run()] == []
    for key, attempts in effects(children.effects).items():
        assert len(set(attempts)) == len(attempts), f"{key}: one attempt, two bodies"


@pytest.mark.parametrize("passing", range(2, 24, 3))
@pytest.mark.parametrize("point", ["store.commit.before", "store.commit.after"])
async def test_kill_9_between_a_run_and_its_successor(children, point, passing):
    """L10, L14: one successor for each run, and each payload read once, whoever died between the two."""
    child = children.start("chain", faults=f"{point}=kill@{passing}")
    assert await asyncio.to_thread(child.process.wait, PATIENCE) == -signal.SIGKILL, child.said()
    async with hf.connect(children.url) as app, app.worker(poll=0.2):
        run = await app.start(chain, str(children.effects), 5, run_id="chain")
        await told(app.store, lambda: app.store.hooks(token="chain-chain", open_only=False), bool)
        for n in range(10):
            with contextlib.suppress(hf.HookNotFound):  # where all were read before the process died
                await app.resume("chain-chain", n, delivery_id=str(n))
        assert await run.result(PATIENCE) == sum(range(10))
        rows = await app.store.runs()
        assert len(rows) == 5
        for row in rows:
            assert_one_end(await log_of(app, row.run))
        check = Verification(app.store, workflows=set(workflows.names()))
        assert [str(difference) async for difference in check.run()] == []


def all_ended(rows) -> bool:
    return len(rows) == 6 and all(row.ended is not None for row in rows)
