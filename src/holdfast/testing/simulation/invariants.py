"""What must hold after every scenario, whatever happened in it; each is a promise of the laws.

- the code of `holdfast verify` finds no difference: order, density, keys, chain, projections (L1–L5, L11, L13);
- each log replays from nothing, with today's code, to what it holds (L6–L9);
- a payload that was acknowledged stands at its position, once; payloads are read once or counted as unread (L10);
- a run whose start was acknowledged is there;
- no run has something to do that nobody is about to do (L14): when peace has lasted, a run that goes on waits
  for a payload, and for nothing else;
- a run is parked only while nobody can replay it;
- in a stream, no chunk of an attempt follows one of a later attempt of the same step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...engine.tick import tick
from ...events import fold
from ...verify import Verification
from ...workflow import workflows

if TYPE_CHECKING:
    from .scenario import Sent
    from .world import World


async def check(world: World, sent: Sequence[Sent], started: set[str]) -> None:
    """Add to the world's problems what does not hold."""
    problems = world.problems
    async with world.plain() as store:
        async for difference in Verification(store, workflows=set(workflows.names())).run():
            problems.append(f"verify: {difference}")
    for run_id in sorted(started - world.data.runs.keys()):
        problems.append(f"{run_id}: its start was acknowledged, and it is not there")
    for run_id, run in world.data.runs.items():
        state = fold(run.log)
        if state.ended is None:
            problems.append(f"{run_id}: has not ended")
        if run.head.parked is not None:
            problems.append(f"{run_id}: is parked: {run.head.parked}")
        if state.read > state.received:
            problems.append(f"{run_id}: read {state.read} payloads of {state.received}")
        for name, stream in run.streams.items():
            latest: dict[str, int] = {}
            for chunk in stream.chunks:
                if chunk.attempt < latest.get(chunk.step, 0):
                    problems.append(f"{run_id}: stream {name}: {chunk.position} follows a later attempt")
                latest[chunk.step] = chunk.attempt
    _check_payloads(world, sent)


def _check_payloads(world: World, sent: Sequence[Sent]) -> None:
    stands: Counter[str] = Counter()
    places: dict[str, tuple[str, int]] = {}
    for run_id, run in world.data.runs.items():
        for event in run.log:
            if event.type == "hook_received":
                delivery = event.data["delivery"]
                stands[delivery] += 1
                places[delivery] = (run_id, event.position)
    for one in sent:
        if stands[one.delivery] > 1:
            world.problems.append(f"{one.delivery}: stands {stands[one.delivery]} times")
        if one.position is not None and places.get(one.delivery) != (one.run, one.position):
            world.problems.append(
                f"{one.delivery}: acknowledged at {one.run} {one.position}, "
                f"it stands at {places.get(one.delivery)}"
            )


async def check_not_stuck(world: World) -> None:
    """Runs that go on wait for payloads, and for nothing else."""
    for run_id, run in world.data.runs.items():
        state = fold(run.log)
        if state.ended is not None:
            continue
        definition = workflows.get(run.head.workflow)
        if state.open_steps:
            world.problems.append(f"{run_id}: stuck with open steps {sorted(run.steps)}")
        elif state.pending_timers:
            world.problems.append(f"{run_id}: stuck with pending timers {sorted(run.timers)}")
        elif definition is not None and tick(definition, run.log):
            world.problems.append(f"{run_id}: stuck with facts that nobody has answered")
