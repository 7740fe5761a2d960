"""The trouble itself: who is killed, paused or misled, and when; then peace, until every run has ended.

| kind | what befalls |
|---|---|
| kill worker, kill client | SIGKILL; another one starts within a second |
| pause worker, pause client | SIGSTOP for up to twice a lease, then SIGCONT |
| clock | one process's clock jumps by up to half a minute, either way (`with_="clock"`) |
| fsync | the disk fails to sync for a moment, for all (`with_="fsync"`) |
| disk | the disk is full for a moment (`with_="disk"`): a small tmpfs, filled to the brim; where mounting is
not allowed, SQLite's writes are refused instead |
| postgres | the store's server, one of our own, crashes and comes back within two seconds (`with_="postgres"`, or
`server=`) |
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Coroutine
from pathlib import Path
from typing import Any, Protocol

import msgspec

from ....client import App, connect
from ....errors import HoldfastError, HookNotFound, StoreError
from ..children import Child
from ..process import Setting
from ..trouble import set_offset
from .disk import Disk, disk_of
from .promises import ChaosReport, Told, check, read_effects, read_journals

KINDS = ("clock", "fsync", "disk", "postgres")
"""What may be added to kills and pauses."""
LEASE = 2.0
_EVERY = 0.7
"""Mean seconds between two blows."""
_PEACE = 120.0
"""Seconds within which every run must have ended when the trouble is over."""

Progress = Callable[[float, float, str], None]


class Server(Protocol):
    """A store's server that may be crashed, because whoever gives it has started it."""

    def crash(self) -> None:
        """End it as a power failure does."""

    def start(self) -> None:
        """Start it again, and wait until it answers."""


def _no_progress(_done: float, _total: float, _what: str) -> None:
    """Nobody looks."""


async def chaos(
    *,
    minutes: float,
    workers: int = 3,
    clients: int = 2,
    seed: str = "0",
    url: str | None = None,
    with_: Collection[str] = (),
    in_flight: int = 40,
    server: Server | None = None,
    progress: Progress = _no_progress,
) -> ChaosReport:
    """Let everything go wrong for a while, then check what was promised.

    minutes    how long the trouble lasts
    workers    worker processes; one that is killed is replaced
    clients    client processes, likewise
    seed       of the trouble's chance
    url        an empty store; without it a SQLite file that is thrown away
    with_      of `KINDS`, what else goes wrong besides kills and pauses; `postgres` starts a server of its own
    in_flight  runs at once
    server     the server of `url`, to be crashed too

    Example:
        report = await chaos(minutes=0.2, seed="7", with_=["clock"])
        assert report.problems == []

    Raises ChildFailed where a process does not come up though nothing is done to it, and ValueError where
    `postgres` is wanted for a store that somebody else has started.
    """
    own = "postgres" in with_ and server is None
    if own and url is not None:
        raise ValueError(f"a server that others started is not crashed: {url}")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="holdfast-chaos-")))
        disk = stack.enter_context(disk_of(folder, small="disk" in with_))
        if own:
            from ..postgres import Server as Postgres

            server = postgres = Postgres("max_connections=200")
            stack.callback(postgres.remove)
            url = postgres.url()
        url = url or f"sqlite:///{disk.folder}/chaos.db"
        report = ChaosReport(seed=seed, store=url.partition("://")[0])
        scene = _Scene(folder, disk, url, seed, set(with_), in_flight, server)
        try:
            await scene.people(workers, clients)
            await _begun(url)
            await scene.trouble(minutes * 60, progress)
            report.seconds = round(minutes * 60, 1)
            await scene.calm()
            async with connect(url) as app:
                begun = time.monotonic()
                told = await scene.peace(app, progress)
                report.settled = round(time.monotonic() - begun, 2)
                report.stale, report.problems = await scene.leave()
                progress(1, 1, "verifying")
                await check(app.store, report, told, read_effects(scene.effects))
        finally:
            await scene.clear()
        report.befallen = dict(scene.befallen)
        report.warnings = scene.warnings()
    return report


class _Role(msgspec.Struct):
    """What processes of one kind are given, and those of it that there are."""

    module: str
    options: dict[str, object]
    people: list[Child] = []
    count: int = 0


class _Scene:
    """The processes, and what befalls them."""

    def __init__(
        self,
        folder: Path,
        disk: Disk,
        url: str,
        seed: str,
        with_: set[str],
        in_flight: int,
        server: Server | None,
    ) -> None:
        self.folder = folder
        self.effects = folder / "effects"
        self.befallen: Counter[str] = Counter()
        self._disk = disk
        self._url = url
        self._with = with_
        self._server = server
        self._down = False
        self._seed = seed
        self._chance = random.Random(f"chaos {seed}")
        self._sync_fails = folder / "sync-fails"
        self._soon: set[asyncio.Task[None]] = set()
        self._failed: list[BaseException] = []
        package = __package__.rpartition(".")[0]
        self._worker = _Role(f"{package}.serve", {"lease": LEASE, "poll": 0.5})
        self._client = _Role(
            f"{__package__}.client", {"effects": str(self.effects), "in_flight": in_flight, "rounds": 3}
        )

    # ---- people

    async def people(self, workers: int, clients: int) -> None:
        """Everybody who is there at the beginning."""
        roles = [self._worker] * workers + [self._client] * clients
        await asyncio.gather(*(self._one_more(role) for role in roles))

    async def _one_more(self, role: _Role) -> None:
        role.count += 1
        name = f"{'worker' if role is self._worker else 'client'}-{role.count}"
        options = {**role.options}
        if role is self._client:
            options["journal"] = str(self.folder / f"{name}.journal")
        setting = Setting(
            url=self._url,
            name=name,
            seed=f"{self._seed} {name}",
            clock=str(self.folder / f"{name}.clock") if "clock" in self._with else "",
            sync_fails=str(self._sync_fails) if self._fails else "",
            disk_full=str(self.folder / "disk-full") if self._fails else "",
            options=options,
        )
        while True:
            try:
                role.people.append(await Child.start(name, role.module, setting, self.folder))
            except HoldfastError:
                if not self._broken:
                    raise
                await asyncio.sleep(0.3)  # it cannot open a store whose disk or server fails just now
            else:
                return

    @property
    def _fails(self) -> bool:
        return "fsync" in self._with or ("disk" in self._with and not self._disk.mounted)

    @property
    def _broken(self) -> bool:
        return bool({"fsync", "disk"} & self._with) or self._server is not None

    # ---- trouble

    async def trouble(self, seconds: float, progress: Progress) -> None:
        """One blow after the other."""
        begun = time.monotonic()
        blows = ["kill worker"] * 4 + ["kill client"] * 2 + ["pause worker"] * 3 + ["pause client"]
        blows += [kind for kind in KINDS if kind in self._with - {"postgres"} for _ in range(3)]
        blows += ["postgres"] * 3 if self._server is not None else []
        while (passed := time.monotonic() - begun) < seconds:
            progress(passed, seconds, f"{sum(self.befallen.values())} blows")
            await asyncio.sleep(min(self._chance.expovariate(1 / _EVERY), seconds - passed))
            kind = self._chance.choice(blows)
            if await self._befall(kind):
                self.befallen[kind] += 1
            if self._failed:
                raise self._failed[0]

    async def _befall(self, kind: str) -> bool:
        chance = self._chance
        if kind == "fsync":
            self._sync_fails.touch()
            self._later(chance.uniform(0.05, 1.0), self._sync_works)
        elif kind == "disk":
            await asyncio.to_thread(self._disk.fill)
            self._later(chance.uniform(0.2, 2.0), self._space_returns)
        elif kind == "postgres":
            return await self._crash_server(chance.uniform(0.0, 2.0))
        else:
            role = self._client if kind.endswith("client") else self._worker
            alive = [child for child in role.people if child.alive]
            if not alive:
                return False
            child = chance.choice(alive)
            if kind == "clock":
                set_offset(self.folder / f"{child.name}.clock", round(chance.uniform(-30, 30) * 1e6))
            elif kind.startswith("pause"):
                child.signal(signal.SIGSTOP)
                self._later(chance.uniform(0.1, 2 * LEASE), lambda: child.signal(signal.SIGCONT))
            else:
                role.people.remove(child)
                await child.kill()
                self._later(chance.uniform(0, 1), lambda: self._soon_one_more(role))
        return True

    async def _crash_server(self, seconds: float) -> bool:
        assert self._server is not None
        if self._down:
            return False
        self._down = True
        await asyncio.to_thread(self._server.crash)
        self._spawn(self._restart_server(self._server, seconds))
        return True

    async def _restart_server(self, server: Server, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await asyncio.to_thread(server.start)
        self._down = False

    def _sync_works(self) -> None:
        self._sync_fails.unlink(missing_ok=True)

    def _space_returns(self) -> None:
        self._disk.free()

    def _soon_one_more(self, role: _Role) -> None:
        self._spawn(self._one_more(role))

    def _later(self, seconds: float, work: Callable[[], None]) -> None:
        async def wait() -> None:
            await asyncio.sleep(seconds)
            work()

        self._spawn(wait())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._soon.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._soon.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._failed.append(error)

    # ---- peace

    async def calm(self) -> None:
        """What is paused goes on, what failed works again, who was killed is replaced."""
        while self._soon:
            await asyncio.wait(self._soon)

    async def peace(self, app: App, progress: Progress) -> Told:
        """Nothing befalls any more; clients leave; what waits for payloads gets them. Until all have ended."""
        for clock in self.folder.glob("*.clock"):
            set_offset(clock, 0)
        await asyncio.gather(*(child.leave() for child in self._client.people))
        told = read_journals(self.folder.glob("*.journal"))
        deadline, count = time.monotonic() + _PEACE, 0
        while time.monotonic() < deadline:
            left = [run async for run in app.runs(status="running")]
            left += [run async for run in app.runs(status="pending")]
            progress(0, len(left), f"peace: {len(left)} runs have still to end")
            if not left:
                break
            for run in left:
                if (
                    run.parked is not None and run.parked["kind"] == "runaway"
                ):  # its workers were killed in ticks
                    await app.run(run.id).wake()
            async for hook in app.hooks():
                count += 1
                await _send(app, hook.token, f"peace/{count}", told)
            await asyncio.sleep(0.3)
        return told

    async def leave(self) -> tuple[dict[str, int], list[str]]:
        """Everybody leaves in peace: the refusals that they counted, and who could not."""
        stale: Counter[str] = Counter()
        problems = [
            f"{child.name} had died (exit code {child.process.returncode}): {child.said()[-300:]}"
            for child in self._all
            if not child.alive
        ]
        here = [child for child in self._worker.people if child.alive]
        for child, last in zip(here, await asyncio.gather(*(child.leave() for child in here)), strict=True):
            if last:
                stale.update(msgspec.json.decode(last)["stale"])
            else:
                problems.append(f"{child.name} did not leave: {child.said()[-300:]}")
        return dict(stale), problems

    @property
    def _all(self) -> list[Child]:
        return self._worker.people

    async def clear(self) -> None:
        """Nothing is left behind."""
        for task in self._soon:
            task.cancel()
        self._disk.free()
        everybody = [*self._worker.people, *self._client.people]
        await asyncio.gather(*(child.kill() for child in everybody if child.alive))

    def warnings(self) -> dict[str, int]:
        """What the processes logged, without the names and numbers in it."""
        found: Counter[str] = Counter()
        for path in self.folder.glob("*.log"):
            for line in path.read_text(errors="replace").splitlines():
                if " WARNING " in line or " ERROR " in line or " CRITICAL " in line:
                    said = line.split(" ", 2)[2]
                    found[re.sub(r"[\w-]*\d[\w:.,/-]*", "N", said)[:160]] += 1
                elif line.startswith("Traceback") or "Fatal Python" in line:
                    found["Traceback"] += 1
        return dict(found.most_common(30))


async def _begun(url: str) -> None:
    """Until a client has started a run: a slow machine is no trouble."""
    async with connect(url) as app:
        while not [run async for run in app.runs(limit=1)]:  # noqa: ASYNC110 - another process starts it
            await asyncio.sleep(0.05)


async def _send(app: App, token: str, delivery: str, told: Told) -> None:
    told.sends.add(delivery)
    try:
        resumed = await app.resume(token, 0, delivery_id=delivery)
    except HookNotFound:
        told.refused.add(delivery)
    except StoreError:
        return
    else:
        told.sent[delivery] = resumed.run_id, resumed.position
