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
from durable import BodiedPlay, woven

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


class LabouringPlay(BodiedPlay):
    body = labour


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
