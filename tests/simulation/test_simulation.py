"""Whole deployments on one seeded loop: workers die, pause and lose answers, and every log stays lawful."""

from __future__ import annotations

import asyncio
import functools
import random
import sys
from datetime import timedelta
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import msgspec
import scenarios
from scenarios import Case, drawn, generated, played, scenario_of, shrunk, statements
from troubled import MARKS

import holdfast as hf
from holdfast.events import new
from holdfast.testing.simulation import Profile, Scenario, Start, World, invariants, shrink, simulate
from holdfast.testing.simulation.faults import CALLS, EVENTS, NEWS
from holdfast.testing.simulation.shrink import fewest
from holdfast.worker.maintain import Maintain

pytestmark = MARKS


@hf.step
async def pay(amount: int) -> int:
    await asyncio.sleep(0.1)
    return amount


@hf.workflow
async def month(amount: int) -> int:
    paid = await pay(amount)
    await hf.sleep(timedelta(days=30))
    return paid + await pay(1)


@hf.workflow
async def approval(amount: int) -> str:
    try:
        async with asyncio.timeout(5):
            return f"approved {await hf.hook(f'approve-{amount}', type=int)}"
    except TimeoutError:
        await pay(amount)
        return "too late"


@pytest.mark.parametrize("seed", range(3))
def test_a_seed_is_one_history(seed):
    """Twice the same seed: the same calls, faults, answers and logs, to the byte."""
    first, second = simulate(generated(seed), seed), simulate(generated(seed), seed)
    assert first.trace == second.trace
    assert first.digest == second.digest
    assert first.befallen == second.befallen
    assert first.trace != simulate(generated(seed), f"{seed} other").trace


def test_thirty_days_pass_in_a_moment():
    """Nobody waits: the clock jumps from one alarm to the next."""
    quiet_life = Scenario(
        starts=[Start(month, (1,), "r")], workers=1, profile=Profile(), meddle=False, horizon=40 * 86400
    )
    report = simulate(quiet_life, 1)
    assert report.problems == []
    assert report.statuses == {"completed": 1}


@pytest.mark.parametrize("kind", [*CALLS, *NEWS, *EVENTS])
def test_each_kind_of_trouble_alone(kind):
    """A flood of one kind: it happens, and nothing is corrupt, lost or stuck."""
    profile = Profile(
        calls={kind: 0.2 if "crash" not in kind else 0.02} if kind in CALLS else {},
        news={kind: 0.9} if kind in NEWS else {},
        events={kind: 3.0} if kind in EVENTS else {},
        delay=0.02,
    )
    befallen = 0
    for seed in range(4):
        runs = [Start(approval, (n,), f"approval-{n}") for n in range(4)]
        report = simulate(Scenario(starts=runs, profile=profile), f"{kind} {seed}")
        assert report.problems == [], (seed, report.problems, report.trace[-40:])
        befallen += report.befallen.get(kind, 0)
    assert befallen > 0


@pytest.mark.parametrize("block", range(4))
def test_generated_programs_in_all_kinds_of_trouble(block):
    """What `make simulate` does with more seeds."""
    for seed in range(block * 20, block * 20 + 20):
        report = simulate(generated(seed), seed)
        assert report.problems == [], f"seed {seed}: {report.problems}"


def test_a_claim_whose_answer_is_lost_is_found_again():
    """The store gave the run to a worker that does not know: nobody else may claim it (found by seed 23)."""
    report = simulate(generated(23), 23)
    assert report.problems == []
    profile = Profile(calls={"unanswered": 0.5})
    for seed in range(6):
        report = simulate(Scenario(starts=[Start(approval, (1,), "r")], profile=profile, workers=1), seed)
        assert report.problems == [], report.trace[-40:]


@pytest.mark.parametrize(
    ("seen", "told", "problem"),
    [
        (slice(0, 3), 3, None),
        (slice(0, 2), 3, "r: a read beyond 0 ended at 2, 3 was acknowledged before"),
        (slice(1, 3), 0, "r: what was read beyond 0 is no part of its log"),
    ],
)
def test_what_processes_read_is_held_against_the_log(seen, told, problem):
    """L1, L-08: reads are prefixes, and hold what was acknowledged before they began."""
    world = World(1)

    async def main():
        async with world.plain() as store:
            created = new("run_created", data={"workflow": month.name, "args": {"amount": 1}})
            await store.append("r", [created, new("run_started"), new("woken", key="1")], after=0)
            world.reads.append(("r", 0, told, (await store.read("r"))[seen]))
        await invariants.check(world, [], set())

    world.run(main())
    assert [found for found in world.problems if "read" in found] == ([problem] if problem else [])


LINES = [f"line {n}" for n in range(6)]


@hf.step(retries=50, backoff=0.1)
async def dictate(name: str, keyed: bool) -> None:
    async with hf.stream(name) as out:
        for line in LINES:
            await asyncio.sleep(0.2)
            await out.write(line, key=line if keyed else None)


@hf.step(retries=50, backoff=0.1)
async def proofread(name: str) -> list[str]:
    return [chunk.data async for chunk in hf.stream(name).read(latest=True)]


@hf.workflow
async def book(keyed: bool) -> None:
    await dictate("book", keyed)
    await hf.stream("book two").write("by the workflow")
    assert await proofread("book") == LINES
    await hf.stream("book two").end()
    assert await proofread("book two") == ["by the workflow"]


def test_streams_are_whole_in_all_kinds_of_trouble():
    """By keys, or by taking the latest attempt: what a step that has ended wrote is there, once, in order."""
    befallen: set[str] = set()
    for seed in range(40):
        runs = [Start(book, (n % 2 == 0,), f"book-{n}") for n in range(3)]
        report = simulate(Scenario(starts=runs, meddle=False), f"books {seed}")
        assert report.problems == [], (seed, report.problems, report.trace[-40:])
        assert report.statuses.keys() == {"completed"}, (seed, report.trace[-40:])  # some clients die first
        befallen |= report.befallen.keys()
    assert befallen >= {*CALLS, *EVENTS}


class TooMuch(Exception):
    """What some children fail with."""


few_cooks = hf.queue("cooks", concurrency=2, per_key=1)


@hf.step(queue=few_cooks, limit_key=lambda dish: str(dish % 3), retries=50, backoff=0.1)
async def cook(dish: int) -> int:
    await asyncio.sleep(0.3)
    return dish


@hf.workflow
async def course(dish: int) -> int:
    if dish == 3:
        await pay(1)
        raise TooMuch(dish)
    return await cook(dish)


@hf.workflow
async def guest(number: int) -> int:
    """Stays until somebody sends him home, and then takes leave."""
    try:
        return await hf.hook(f"guest-{number}", type=int)
    except asyncio.CancelledError:
        await pay(number)
        raise


@hf.workflow
async def dinner(number: int, courses: int = 2) -> list[object]:
    bell = hf.hook(f"bell-{number}", type=int)
    dishes = await asyncio.gather(*(course(n) for n in range(4)), return_exceptions=True)
    assert [*dishes[:3], type(dishes[3])] == [0, 1, 2, TooMuch]
    try:
        async with asyncio.timeout(1):
            await guest(10 * number + courses)
    except TimeoutError:
        pass
    await course.start(courses)
    left = asyncio.create_task(guest(100 + 10 * number + courses))
    await asyncio.sleep(0.5)
    assert not left.done() or left.exception() is None
    if courses:
        hf.continue_as_new(number, courses - 1)
    return [await bell]


def test_families_are_whole_in_all_kinds_of_trouble():
    """Children are started once, heard of once, and sent home; runs go on as others; queues hold their limits."""
    befallen: set[str] = set()
    for seed in range(30):
        runs = [Start(dinner, (n,), f"dinner-{n}") for n in range(2)]
        report = simulate(Scenario(starts=runs, meddle=False), f"dinners {seed}")
        assert report.problems == [], (seed, report.problems, report.trace[-40:])
        dinners = report.statuses["failed"]  # one course of each; a client that dies may have asked for none
        assert report.events["run_created"] == 8 * dinners, (seed, report.events)
        assert report.events["child_started"] == 7 * dinners, (seed, report.events)
        befallen |= report.befallen.keys()
    assert befallen >= {*CALLS, *EVENTS}


def test_a_paused_process_goes_on_with_what_was_due():
    """As after SIGSTOP and SIGCONT: nothing is lost, everything is late."""
    world = World("pause")
    seen: list[tuple[str, float]] = []

    async def ticking(name: str) -> None:
        for _ in range(3):
            await asyncio.sleep(1)
            seen.append((name, world.now))

    async def main() -> None:
        world.launch("a", ticking)
        world.launch("b", ticking)
        await asyncio.sleep(1.5)
        paused, dead = world.alive("a")[0], world.alive("b")[0]
        paused.paused = True
        world.crash(dead)
        await asyncio.sleep(10)
        world.loop.resume(paused)
        await asyncio.sleep(10)

    world.run(main())
    assert seen == [("a-1", 1.0), ("b-2", 1.0), ("a-1", 11.5), ("a-1", 12.5)]


def test_chance_does_not_leak_out_of_a_world():
    """Ids outside of a simulation are as random as before."""
    from holdfast import ids

    random.seed(1)
    simulate(Scenario(starts=[Start(approval, (1,), "r")], profile=Profile()), 1)
    assert ids.run_id() != ids.run_id()
    assert ids.random_bytes.__module__ == "posix"


def test_all_the_troubles_of_a_seed_named_one_by_one_are_the_seed():
    """What shrinking leaves out, it leaves out by name; nothing else changes."""
    whole = played(scenario_of(drawn(7)), 7)
    assert whole.troubles
    again = played(scenario_of(msgspec.structs.replace(drawn(7), only=whole.troubles)), 7)
    assert again.trace == whole.trace
    less = played(scenario_of(msgspec.structs.replace(drawn(7), only=whole.troubles[:1])), 7)
    assert less.troubles == whole.troubles[:1]


def test_the_few_parts_that_matter_are_left():
    needed = {3: 2, 40: 1, 41: 2}

    def fails(levels):
        return all(levels[part] >= level for part, level in needed.items())

    levels = fewest(60, fails)
    assert {part: level for part, level in enumerate(levels) if level} == needed


def test_a_seed_that_finds_a_problem_is_shrunk_and_can_be_repeated(monkeypatch):
    """With a protection taken out (the dead keep their runs), one crash is left of it all."""

    async def bury_nobody(_self):
        pass

    monkeypatch.setattr(Maintain, "_bury_expired", bury_nobody)
    trouble = Profile(events={"crash": 4.0, "clock jump": 4.0}, calls={"slow": 0.05}, delay=0.05)
    scenario = Scenario(
        starts=[Start(approval, (n,), f"approval-{n}") for n in range(2)],
        profile=trouble,
        workers=2,
        clients=1,
        horizon=20.0,
    )
    seed = next(seed for seed in range(20) if len(simulate(scenario, seed).problems) > 0)
    before = simulate(scenario, seed)
    small = shrink(scenario, seed, tries=80)
    assert len(before.troubles) > 5
    assert [trouble.partition(" ")[0] for trouble in small.report.troubles] == ["crash"]
    assert small.report.problems
    assert simulate(small.scenario, seed).trace == small.report.trace
    with pytest.raises(ValueError, match="finds no problem"):
        shrink(Scenario(starts=scenario.starts[:1], profile=Profile()), seed)


def test_a_program_shrinks_statement_by_statement(monkeypatch):
    monkeypatch.setattr(scenarios, "played", suspicious)
    small, report, _ = shrunk(Case(1, [drawn(1).programs[0], drawn(2).programs[0]], workers=3, horizon=10.0))
    assert report.problems
    assert statements(small.programs) == 1
    assert (small.workers, small.clients, small.meddle) == (1, 1, False)
    assert msgspec.json.decode(msgspec.json.encode(small), type=Case).programs[0][0][0] == "step"


def suspicious(scenario, seed):
    """As if each program with a step in it were wrong; nothing is played."""
    steps = '"step"' in str([start.args for start in scenario.starts]).replace("'", '"')
    return msgspec.structs.replace(nothing_happens(), problems=["a step"] * steps)


@functools.cache
def nothing_happens():
    return simulate(Scenario(starts=[], profile=Profile(), horizon=1.0), 1)
