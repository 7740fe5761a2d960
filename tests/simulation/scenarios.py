"""The scenarios of the simulation: generated programs of tests/laws, as workflows on simulated workers."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path
from typing import Any

# Beside tests/laws: import-mode=importlib leaves both folders out of the path.
sys.path[:0] = [str(Path(__file__).parent.parent / "laws"), str(Path(__file__).parent.parent / "engine")]

import durable
from durable import DurablePlay, woven

import holdfast as hf
from holdfast.testing.simulation import Profile, Scenario, Start

bodies = random.Random()
"""What steps' bodies do by chance; seeded by `generated`."""


@hf.step(retries=2, backoff=hf.Backoff(initial=0.5, jitter=0))
async def labour(where: str, sees: Any = None) -> Any:
    await asyncio.sleep(bodies.choice([0, 0, 0.1, 3]))
    if bodies.random() < 0.25:
        raise durable.Boom(where)
    return [where]


class LabouringPlay(DurablePlay):
    """A generated program whose steps have bodies."""

    async def do_step(self, where: str) -> None:
        got = await labour(where, len(self.trace))
        got.append("changed by the code")
        self.note(where, got)

    async def do_undo(self, where: str, program: Any) -> None:
        try:
            await self.run(program, where)
        finally:
            await labour(where)

    async def do_patched(self, where: str, number: int) -> None:
        if hf.patched(f"patch-{number}"):
            await labour(where)

    async def do_race(self, where: str, number: int) -> None:
        hook = hf.hook(f"token-{number}")
        waiting = {asyncio.create_task(hook.next()), asyncio.create_task(labour(where))}
        _, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


@hf.workflow
async def labouring(program: Any) -> None:
    await LabouringPlay(program).main()


def generated(seed: int, profile: Profile | None = None) -> Scenario:
    """One to three runs of a generated program each, in trouble that the seed draws."""
    chance = random.Random(f"{seed}/programs")
    bodies.seed(seed)
    starts = [
        Start(labouring, (woven(chance.randrange(2**32)),), f"run-{n}") for n in range(chance.randint(1, 3))
    ]
    return Scenario(
        starts=starts, workers=chance.choice([1, 2, 3]), horizon=chance.choice([10.0, 60.0]), profile=profile
    )
