"""The scenarios of the simulation: generated programs of tests/laws, as workflows on simulated workers."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

# Beside tests/laws: import-mode=importlib leaves both folders out of the path.
sys.path[:0] = [str(Path(__file__).parent.parent / "laws"), str(Path(__file__).parent.parent / "engine")]

import durable
from durable import BodiedPlay, woven

import holdfast as hf
from holdfast.testing.simulation import Profile, Reduction, Report, Scenario, Start, shrink, simulate
from holdfast.testing.simulation.shrink import INSIDE, KEEP, Levels
from holdfast.testing.simulation.store import Site

bodies = random.Random()
"""What steps' bodies do by chance; seeded by `generated`."""


@hf.step(retries=2, backoff=hf.Backoff(initial=0.5, jitter=0))
async def labour(where: str, sees: Any = None) -> Any:
    await asyncio.sleep(bodies.choice([0, 0, 0.1, 3]))
    if bodies.random() < 0.25:
        raise durable.Boom(where)
    return [where]


few = hf.queue("few labourers", concurrency=2, per_key=1)


@hf.step(queue=few, limit_key=lambda where, sees: f"key {len(where) % 3}", retries=2, backoff=0.5)
async def labour_in_turn(where: str, sees: Any = None) -> Any:
    await asyncio.sleep(bodies.choice([0, 0.1, 3]))
    if bodies.random() < 0.25:
        raise durable.Boom(where)
    return [where]


class LabouringPlay(BodiedPlay):
    body = labour
    queued = labour_in_turn

    @property
    def family(self) -> Any:
        return labouring


@hf.workflow
async def labouring(program: Any) -> int:
    play = LabouringPlay(program)
    await play.main()
    return len(play.trace)


class Case(msgspec.Struct):
    """A generated scenario as data: what a seed draws, or what is left of it when it has been shrunk."""

    seed: int
    programs: list[Any]
    workers: int
    horizon: float
    clients: int = 2
    meddle: bool = True
    only: list[str] | None = None


def drawn(seed: int) -> Case:
    """One to three runs of a generated program each."""
    chance = random.Random(f"{seed}/programs")
    programs = [woven(chance.randrange(2**32)) for _ in range(chance.randint(1, 3))]
    return Case(seed, programs, workers=chance.choice([1, 2, 3]), horizon=chance.choice([10.0, 60.0]))


def scenario_of(case: Case, profile: Profile | None = None) -> Scenario:
    """The case in trouble: that of its seed, or of the profile."""
    return Scenario(
        starts=[Start(labouring, (program,), f"run-{n}") for n, program in enumerate(case.programs)],
        workers=case.workers,
        clients=case.clients,
        meddle=case.meddle,
        horizon=case.horizon,
        profile=profile,
        only=None if case.only is None else frozenset(case.only),
    )


def played(scenario: Scenario, seed: int, site: Site | None = None) -> Report:
    """What comes of it; the bodies of steps take their chance from the seed, too."""
    bodies.seed(seed)
    return simulate(scenario, seed, site)


def generated(seed: int, profile: Profile | None = None) -> Scenario:
    """The scenario of a seed, in trouble that the seed draws; it is to be simulated next (`bodies` is seeded)."""
    bodies.seed(seed)
    return scenario_of(drawn(seed), profile)


# ---- smaller


def statements(program: Any) -> int:
    """How many statements a program has, those inside of others too."""
    return (
        sum(1 + sum(statements(arg) for arg in rest) for _, *rest in program)
        if _is_body(program)
        else (sum(statements(one) for one in program) if isinstance(program, list) else 0)
    )


def reduced(start: Start) -> Reduction:
    """A program falls into its statements; of one that holds others, these may be left in its place."""
    [program] = start.args

    def rebuild(levels: Levels) -> Start:
        left = iter(levels)
        return start._replace(args=(_less(program, left),))

    return Reduction(statements(program), rebuild)


def _less(part: Any, levels: Iterator[int]) -> Any:
    if not isinstance(part, list):
        return part
    if not _is_body(part):
        return [_less(one, levels) for one in part]
    out: list[Any] = []
    for kind, *args in part:
        level = next(levels)
        args = [_less(arg, levels) for arg in args]
        if level == KEEP:
            out.append((kind, *args))
        elif level == INSIDE:
            out += [one for arg in args for one in _bodies(arg)]
    return out


def _bodies(part: Any) -> list[Any]:
    if not isinstance(part, list):
        return []
    return part if _is_body(part) else [one for inner in part for one in _bodies(inner)]


def _is_body(part: Any) -> bool:
    """A body is a list of statements, each with its name first."""
    return (
        isinstance(part, list)
        and bool(part)
        and isinstance(part[0], list | tuple)
        and (isinstance(part[0][0], str) if part[0] else False)
    )


def shrunk(case: Case) -> tuple[Case, Report, int]:
    """The smallest case in which the seed finds a problem, what it comes to, and how many were simulated."""
    small = shrink(
        scenario_of(case), case.seed, reduce=reduced, play=lambda scenario: played(scenario, case.seed)
    )
    left = small.scenario
    return (
        Case(
            case.seed,
            programs=[start.args[0] for start in left.starts],
            workers=left.workers,
            horizon=left.horizon,
            clients=left.clients,
            meddle=left.meddle,
            only=sorted(left.only or ()),
        ),
        small.report,
        small.tries,
    )
