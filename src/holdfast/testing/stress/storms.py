"""The storms: what is started, what is sent meanwhile, and the report when every run has ended or the time is up.

The driver is a client only: the runs are advanced by worker processes beside it (with `workers=0`, by a worker
in this process, which a `memory://` store needs).
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ... import ids
from ...client import App, connect
from ...errors import HoldfastError, StoreError
from ...handle import Run
from ...workflow import Workflow
from . import report as reports
from .children import Workers
from .flows import (
    HookSleep,
    HookStorm,
    StepStorm,
    Storm,
    branch_token,
    hook_sleep,
    hook_storm,
    poke_token,
    step_storm,
)
from .ledger import Ledger
from .process import Setting
from .refusals import count_refusals
from .report import Judge, Report

LIMIT = 180.0
"""Seconds within which every run of a cycle must have ended."""
PLACES = 1000
"""Steps that each worker runs at once: a storm of the usual size is to be bound by its log, not by these."""
_LOOK = 0.1
"""Seconds between two looks for hooks that have been opened."""
_LEFT = 10.0
"""Seconds that the driver has, when all runs have ended, to send what was planned and be refused."""

Progress = Callable[[int, int, str], None]
"""Told how many runs have ended, of how many, and what is going on."""


def _no_progress(_done: int, _total: int, _what: str) -> None:
    """Nobody looks."""


class _Driver:
    """One kind of storm: its workflow, what is sent while its runs go on, and what they must show."""

    workflow: Workflow[..., Any]

    def __init__(self, given: Any, ledger: Ledger) -> None:
        self.given = given
        self.ledger = ledger

    async def drive(self, app: App, tokens: Sequence[str]) -> None:
        """Send what there is to send; cancelled when the runs have ended."""
        raise NotImplementedError

    def judge(self) -> Judge:
        raise NotImplementedError


class _HookSleepDriver(_Driver):
    workflow = hook_sleep

    async def drive(self, app: App, tokens: Sequence[str]) -> None:
        await asyncio.sleep(self.given.fire_after_ms / 1000)
        await _together(self._fire(app, token) for token in tokens)

    async def _fire(self, app: App, token: str) -> None:
        for n in range(self.given.fire_count):
            await self.ledger.send(app, token, n, opens=True)
            await asyncio.sleep(self.given.fire_burst_spacing_ms / 1000)

    def judge(self) -> Judge:
        return reports.judge_hook_sleep(self.given)


class _StormDriver(_Driver):
    async def drive(self, app: App, tokens: Sequence[str]) -> None:
        await _together(self._poke(app, poke_token(token)) for token in tokens)

    async def _poke(self, app: App, token: str) -> None:
        n = 0
        while not (await self.ledger.send(app, token, n, opens=True)).reason:
            n += 1
            await asyncio.sleep(self.given.poke_ms / 1000)

    def judge(self) -> Judge:
        return reports.judge_storm(self.given)


class _StepStormDriver(_StormDriver):
    workflow = step_storm


class _HookStormDriver(_StormDriver):
    workflow = hook_storm

    async def drive(self, app: App, tokens: Sequence[str]) -> None:
        await _together([super().drive(app, tokens), self._fire_hooks(app, tokens)])

    async def _fire_hooks(self, app: App, tokens: Sequence[str]) -> None:
        """One payload for each branch's hook, some well before its watchdog barks, some about then."""
        given: Storm = self.given
        waiting = {
            branch_token(token, round_, index): self._delay(round_, index)
            for token in tokens
            for round_ in range(given.rounds)
            for index in range(given.width)
        }
        async with asyncio.TaskGroup() as group:
            while waiting:
                with contextlib.suppress(StoreError):
                    async for hook in app.hooks():
                        delay = waiting.pop(hook.token, None)
                        if delay is not None:
                            group.create_task(self._at(app, hook.opened / 1e6 + delay, hook.token))
                await asyncio.sleep(_LOOK)

    def _delay(self, round_: int, index: int) -> float:
        given: Storm = self.given
        mean = given.watchdog_ms if (index // 2) % 2 else given.step_delay_ms
        return mean / 1000 + given.offset(round_, index)

    async def _at(self, app: App, due: float, token: str) -> None:
        await asyncio.sleep(max(0.0, due - app.store.clock.now() / 1e6))
        await self.ledger.send(app, token, 1)


STORMS: Mapping[str, tuple[type[Any], type[_Driver]]] = {
    "hook-sleep": (HookSleep, _HookSleepDriver),
    "step-storm": (StepStorm, _StepStormDriver),
    "hook-storm": (HookStorm, _HookStormDriver),
}
"""By name: the parameters, and what drives it."""


async def stress(
    name: str,
    given: msgspec.Struct | None = None,
    *,
    url: str | None = None,
    workers: int = 1,
    limit: float = LIMIT,
    progress: Progress = _no_progress,
) -> Report:
    """Let a storm loose on a store, and prove from the logs what it came to.

    name       hook-sleep, step-storm or hook-storm
    given      its parameters (`HookSleep`, `StepStorm`, `HookStorm`); their defaults where there are none
    url        the store; without it a SQLite file that is thrown away
    workers    worker processes beside this one; 0: a worker in this process
    limit      seconds that each cycle may take; runs that have not ended then are problems

    Example:
        report = await stress("hook-sleep", HookSleep(count=20, fire_after_ms=500), workers=2)
        assert report.problems == []

    Raises KeyError for a storm that there is not, ChildFailed where a worker process does not come up.
    """
    parameters, driver = STORMS[name]
    ledger, given = Ledger(), given or parameters()
    with tempfile.TemporaryDirectory(prefix="holdfast-stress-") as scratch:
        folder = Path(scratch)
        url = url or f"sqlite:///{folder}/storm.db"
        report = Report(
            storm=name,
            store=url.partition("://")[0],
            workers=workers,
            parameters=msgspec.to_builtins(given),
        )
        async with connect(url) as app:
            async with _served(app, url, workers, folder, report):
                runs = await _cycles(app, driver(given, ledger), limit, progress)
            delivered = await reports.look_at(app.store, report, runs, driver(given, ledger).judge())
            await reports.hold_to_ledger(app.store, report, ledger.sent, delivered)
            progress(report.runs, report.runs, "verifying")
            await reports.verify(app.store, report)
    return report


@contextlib.asynccontextmanager
async def _served(app: App, url: str, count: int, folder: Path, report: Report) -> AsyncIterator[None]:
    """While workers serve: processes, or this one."""
    if count == 0:
        refusals = count_refusals()
        async with app.worker(concurrency=PLACES):
            yield
        report.stale = dict(refusals.by_site)
        return
    workers = Workers(Setting(url=url, options={"concurrency": PLACES}), count, folder)
    async with workers:
        yield
    report.stale = dict(workers.stale)
    report.problems += workers.lost


async def _cycles(app: App, driver: _Driver, limit: float, progress: Progress) -> list[list[str]]:
    """Start the runs of each cycle at once, and wait for their ends; gives their ids."""
    cycles = []
    for number in range(1, driver.given.cycles + 1):
        batch = ids.run_id().rpartition("_")[2][-8:].lower()
        tokens = [f"stress-{batch}-{n}" for n in range(driver.given.count)]
        cycles.append(tokens)
        what = f"cycle {number} of {driver.given.cycles}" if driver.given.cycles > 1 else "running"
        progress(0, len(tokens), what)
        driving = asyncio.ensure_future(driver.drive(app, tokens))
        try:
            async with asyncio.timeout(limit):
                runs = await asyncio.gather(
                    *(app.start(driver.workflow, token, driver.given, run_id=token) for token in tokens)
                )
                await _until_ended(app, runs, lambda done: progress(done, len(runs), what))  # noqa: B023
                await asyncio.wait([driving], timeout=_LEFT)
        except TimeoutError:
            pass
        finally:
            driving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await driving
    return cycles


async def _until_ended(app: App, runs: Sequence[Run[Any]], ended: Callable[[int], None]) -> None:
    """Until each run has ended, or is parked: nothing happens to such a one any more."""
    waiting = {asyncio.ensure_future(_end_of(run)) for run in runs}
    total = len(waiting)
    try:
        while waiting:
            _, waiting = await asyncio.wait(waiting, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
            ended(total - len(waiting))
            parked = [head async for head in app.runs(parked=True, limit=total)]
            if parked and len(parked) >= len(waiting):
                return
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def _end_of(run: Run[Any]) -> None:
    with contextlib.suppress(HoldfastError):
        await run.result()


async def _together(works: Any) -> None:
    """All of them; the first one that fails ends the others."""
    async with asyncio.TaskGroup() as group:
        for work in works:
            _start(group, work)


def _start(group: asyncio.TaskGroup, work: Coroutine[Any, Any, None]) -> None:
    group.create_task(work)
