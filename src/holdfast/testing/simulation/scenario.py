"""A scenario: some runs, several workers and clients, trouble for a while, then peace; and what must hold.

    report = simulate(Scenario([Start(fulfil, (order,), "order-1")]), seed=7)
    assert report.problems == []

The workers, the clients and the engine are the real ones. While the trouble lasts, clients start runs, send
payloads, ask for cancels and wakes, and try again until they are answered. When it is over, every run must end
or wait for a payload; what still waits is sent one, then cancelled. `invariants` says what is checked then.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec

from ...client import App
from ...errors import HoldfastError, HookNotFound, RunEnded, StoreError
from ...events import fold
from ...store.rows import Hook
from ...workflow import Workflow
from . import invariants
from .faults import QUIET, Profile, profile
from .loop import Process, Stuck
from .store import Site
from .world import World

POLL, LEASE = 2.5, 30.0
"""A worker's usual settings, in seconds; over months of simulated time, looking so often would be all it does."""
PEACE = 600.0
"""Seconds after the trouble within which a run must have done what it can, where the settings are the usual."""


class Start(NamedTuple):
    """A run to be started: its workflow, arguments and id."""

    workflow: Workflow[..., Any]
    args: tuple[Any, ...]
    run_id: str


Payload = Callable[[Hook, random.Random], Any]


class Scenario(msgspec.Struct, kw_only=True):
    """What is to happen. `payload` makes what clients send to an open hook; `horizon` is in seconds."""

    starts: list[Start]
    payload: Payload = lambda _hook, chance: chance.randrange(100)
    workers: int = 2
    clients: int = 2
    horizon: float = 60.0
    meddle: bool = True
    """Whether clients also cancel, wake and terminate runs."""
    profile: Profile | None = None
    """The trouble; None: what the seed draws."""
    only: frozenset[str] | None = None
    """Of that trouble, what happens, as `Report.troubles` names it; None: all."""


class Sent(msgspec.Struct):
    """A payload that a client has sent: acknowledged where `position` is set."""

    token: str
    delivery: str
    run: str | None = None
    position: int | None = None
    refused: bool = False


class Report(msgspec.Struct):
    """What a simulation came to. `problems` is empty where every invariant held.

    `troubles` names what went wrong, in order: "unanswered 17" befell the 17th call, "crash 2" was the second
    crash; `befallen` counts them by kind, `events` what the logs hold, by type.
    """

    seed: int | str
    digest: str
    problems: list[str]
    trace: list[str]
    calls: int
    troubles: list[str]
    befallen: dict[str, int]
    statuses: dict[str, int]
    events: dict[str, int]
    seconds: float


def simulate(scenario: Scenario, seed: int | str, site: Site | None = None) -> Report:
    """Play a scenario with the chance of a seed; the same seed gives the same trace.

    The runs are in memory, unless a `site` has them.

    Example:
        for seed in range(100):
            assert simulate(scenario, seed).problems == []
    """
    trouble = scenario.profile if scenario.profile is not None else profile(random.Random(f"{seed}/profile"))
    play = _Play(World(seed, trouble, scenario.only, site), scenario)
    try:
        play.world.run(play.main())
    except Stuck as stuck:
        play.world.problems.append(f"everything stands still: {stuck}")
    return play.report()


class _Play:
    def __init__(self, world: World, scenario: Scenario) -> None:
        self.world = world
        self.scenario = scenario
        self.sent: list[Sent] = []
        self.started: set[str] = set()
        self.peaceful = False
        self.pace = max(1.0, scenario.horizon / 3600)
        """How much slower than usual everybody looks about."""
        world.on_death = self._replace  # type: ignore[method-assign]

    def report(self) -> Report:
        world = self.world
        statuses: Counter[str] = Counter(run.head.status for run in world.data.runs.values())
        events = Counter(event.type for run in world.data.runs.values() for event in run.log)
        return Report(
            world.seed,
            world.digest,
            world.problems,
            world.trace,
            world.calls,
            world.troubles,
            dict(world.befallen),
            dict(statuses),
            dict(events),
            world.now,
        )

    async def main(self) -> None:
        for _ in range(self.scenario.workers):
            self.world.launch("worker", self._worker)
        for number in range(self.scenario.clients):
            starts = self.scenario.starts[number :: self.scenario.clients]
            self.world.launch("client", lambda name, mine=starts: self._client(name, mine))  # type: ignore[misc]
        trouble = asyncio.ensure_future(self._trouble())
        await asyncio.sleep(self.scenario.horizon)
        trouble.cancel()
        await self._make_peace()
        await self._settle()
        await invariants.check(self.world, self.sent, self.started)

    # ---- processes

    async def _worker(self, name: str) -> None:
        chance = random.Random(f"{self.world.seed}/{name}")
        async with self.world.app(name) as app:
            options: dict[str, Any] = {"keep": chance.choice([1, 2, 10_000]), "tick_limit": 1e9}
            options |= {"poll": POLL * self.pace, "lease": LEASE * self.pace}
            async with app.worker(concurrency=chance.choice([1, 3, 100]), **options):
                await asyncio.Event().wait()

    def _replace(self, owner: Process) -> None:
        """A supervisor starts another worker for one that died; a client that dies is gone."""
        if owner.name.startswith("worker") and not self.peaceful:
            self.world.later(self.world.chance.uniform(0, 5), self._one_more)

    def _one_more(self) -> None:
        if not self.peaceful:
            self.world.launch("worker", self._worker)

    async def _client(self, name: str, starts: Sequence[Start]) -> None:
        chance = random.Random(f"{self.world.seed}/{name}")
        async with self.world.app(name) as app:
            for start in starts:
                await asyncio.sleep(chance.expovariate(1.0))
                await self._start(app, start)
            while not self.peaceful:
                await asyncio.sleep(chance.expovariate(2.0) * self.pace)
                await self._meddle(app, chance)

    async def _start(self, app: App, start: Start) -> None:
        while True:
            try:
                await app.start(start.workflow, *start.args, run_id=start.run_id)
            except StoreError:
                await asyncio.sleep(0.5)
            else:
                self.started.add(start.run_id)
                return

    async def _meddle(self, app: App, chance: random.Random) -> None:
        try:
            what = chance.random()
            if what < 0.75 or not self.scenario.meddle:
                await self._send(app, chance)
                return
            runs = sorted(self.started)
            if not runs:
                return
            run = app.run(chance.choice(runs))
            if what < 0.90:
                await run.wake()
            elif what < 0.99:
                await run.status()
            else:
                await run.cancel("meddling")
        except HoldfastError:
            return

    async def _send(self, app: App, chance: random.Random) -> None:
        hooks = [hook async for hook in app.hooks()]
        if not hooks:
            return
        hook = chance.choice(hooks)
        sent = Sent(hook.token, f"delivery-{len(self.sent)}")
        self.sent.append(sent)
        payload = self.scenario.payload(hook, chance)
        for _ in range(chance.choice([1, 3, 10])):  # some senders give up before they know
            try:
                resumed = await app.resume(hook.token, payload, delivery_id=sent.delivery)
            except (HookNotFound, RunEnded):
                sent.refused = True
                return
            except StoreError:
                await asyncio.sleep(0.2)
            else:
                sent.run, sent.position = resumed.run_id, resumed.position
                return

    # ---- trouble and peace

    async def _trouble(self) -> None:
        """Things that befall workers and the store, whatever they are doing."""
        await asyncio.gather(
            *(self._befall(kind, every) for kind, every in self.world.profile.events.items())
        )

    async def _befall(self, kind: str, every: float) -> None:
        chance = random.Random(f"{self.world.seed}/{kind}")
        for number in itertools.count(1):
            await asyncio.sleep(chance.expovariate(1 / every))
            workers = self.world.alive("worker")
            if not workers:
                continue
            owner = chance.choice(workers)
            if not self.world.happens(kind, number):
                continue
            self.world.note(f"{owner.name}: {kind}")
            match kind:
                case "crash":
                    self.world.crash(owner)
                case "pause":
                    owner.paused = True
                    self.world.later(chance.uniform(0.1, 60), partial(self.world.loop.resume, owner))
                case "clock jump":
                    self.world.clocks[owner.name].skew += round(chance.uniform(-30, 30) * 1e6)
                case "lease lost":
                    workers_known = list(self.world.data.workers)
                    if workers_known:
                        await self._depose(chance.choice(workers_known))
                case "outage":
                    self.world.down = True
                    await asyncio.sleep(chance.uniform(0.1, 10))
                    self.world.down = False
                case "deploy":
                    self.world.version += 1
                    self.world.crash(owner)

    async def _depose(self, worker_id: str) -> None:
        store = self.world.plain()
        async with store:
            await store.discharge(worker_id)

    async def _make_peace(self) -> None:
        """The trouble is over: what is paused goes on, and perhaps only new workers are left."""
        world = self.world
        self.peaceful, world.down, world.profile = True, False, QUIET
        world.note("peace")
        for owner in world.alive():
            if owner.paused:
                world.loop.resume(owner)
        for owner in world.alive("client"):
            world.crash(owner)
        workers = world.alive("worker")
        # Parked runs are taken up by workers that start: code that was old when they were parked is gone.
        if world.chance.random() < 0.5 or "deploy" in world.befallen:
            for owner in workers:
                world.crash(owner)
            await asyncio.sleep(1.5 * LEASE * self.pace)  # their leases run out
            workers = []
        world.launch("worker", self._worker)

    async def _settle(self) -> None:
        """Every run does what it can; what waits for payloads gets some, and is cancelled at last."""
        world = self.world
        self.world.launch("finisher", self._finish)
        deadline = world.now + PEACE * self.pace
        while world.now < deadline:
            await asyncio.sleep(5 * self.pace)
            if self._over():
                return

    def _over(self) -> bool:
        """Whether all runs have ended, and nobody has to see to what they left to others."""
        data = self.world.data
        return not data.orphaned and all(run.head.ended is not None for run in data.runs.values())

    async def _finish(self, name: str) -> None:
        chance = random.Random(f"{self.world.seed}/finish")
        async with self.world.app(name) as app:
            for _ in range(20):
                await asyncio.sleep(6 * self.pace)
                for _ in [hook async for hook in app.hooks()]:
                    await self._send(app, chance)
            await asyncio.sleep(100 * self.pace)
            await invariants.check_not_stuck(self.world)
            for run_id in list(self.world.data.runs):
                await app.run(run_id).cancel("the scenario is over")
            while not self._over():  # of a run that has ended, a child or a successor may begin
                await asyncio.sleep(100 * self.pace)
                for run_id, run in list(self.world.data.runs.items()):
                    if run.head.ended is None and fold(run.log).ended is None:
                        await app.run(run_id).terminate("the scenario is over")


__all__ = ["Payload", "Report", "Scenario", "Sent", "Start", "simulate"]
