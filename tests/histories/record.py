"""Record a golden history: `python tests/histories/record.py NAME`, or without NAME those that are missing.

Add a workflow to `workflows.py` and a scene here, record it once, and commit the file. A recorded history is
never recorded again: that it is old is what it is for.
"""

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import holdfast as hf
from holdfast.replay import dump_history
from holdfast.testing import ManualClock

HERE = Path(__file__).parent
Scene = Callable[[hf.App, Any], Awaitable[hf.Run[Any]]]


async def _until(run: hf.Run[Any], type: str, count: int = 1) -> None:
    """Wait until the run's log holds so many events of a type."""
    while sum([event.type == type async for event in run.events()]) < count:
        await asyncio.sleep(0.001)


async def _sequence(app: hf.App, code: Any) -> hf.Run[Any]:
    order = code.Order("o-1", Decimal("1.50"), date(2026, 1, 31))
    return await app.start(code.sequence, order, run_id="sequence")


async def _gather_and_race(app: hf.App, code: Any) -> hf.Run[Any]:
    return await app.start(code.gather_and_race, 5, run_id="gather_and_race")


async def _hooks_and_timers(app: hf.App, code: Any) -> hf.Run[Any]:
    run = await app.start(code.hooks_and_timers, "ana", run_id="hooks_and_timers")
    await app.resume("approve:ana", code.Approval(ok=True, by="ben"), delivery_id="first")
    await _until(run, "hook_opened", 2)
    for line in ("hello", "how are you", "bye"):
        await app.resume("chat:ana", line)
    await _until(run, "timer_started", 2)
    return run


async def _retries_and_failure(app: hf.App, code: Any) -> hf.Run[Any]:
    return await app.start(code.retries_and_failure, run_id="retries_and_failure")


async def _cancelled_with_finally(app: hf.App, code: Any) -> hf.Run[Any]:
    run = await app.start(code.cancelled_with_finally, "the desk", run_id="cancelled_with_finally")
    await _until(run, "timer_started")
    await run.cancel("not needed any more")
    return run


async def _patched_before(app: hf.App, code: Any) -> hf.Run[Any]:
    return await app.start(code.notify, "ana", run_id="patched_before")


async def _patched_after(app: hf.App, code: Any) -> hf.Run[Any]:
    return await app.start(code.notify, "ben", run_id="patched_after")


async def _trails(app: hf.App, code: Any) -> hf.Run[Any]:
    return await app.start(code.trails, ["ana", "ben"], run_id="trails", attributes={"customer": "cleo"})


async def _in_flight(app: hf.App, code: Any) -> hf.Run[Any]:
    run = await app.start(code.in_flight, "ana", run_id="in_flight")
    await _until(run, "hook_opened")
    return run


SCENES: dict[str, Scene] = {
    "sequence": _sequence,
    "gather_and_race": _gather_and_race,
    "hooks_and_timers": _hooks_and_timers,
    "retries_and_failure": _retries_and_failure,
    "cancelled_with_finally": _cancelled_with_finally,
    "patched_before": _patched_before,
    "patched_after": _patched_after,
    "trails": _trails,
    "in_flight": _in_flight,
}
STAY_OPEN = {"in_flight"}
TIME_STANDS_STILL = {"cancelled_with_finally", "gather_and_race", "hooks_and_timers"}
"""Scenes in which a timer must not fire before its scene is played."""


async def record(name: str) -> None:
    """Play one scene on a store in memory, in virtual time, and write its log."""
    sys.path.insert(0, str(HERE))
    code = __import__("before" if name == "patched_before" else "workflows")
    clock = ManualClock(autojump=None if name in TIME_STANDS_STILL else 0.005)
    async with hf.connect("memory://", clock=clock) as app, app.worker():
        run = await SCENES[name](app, code)
        while name not in STAY_OPEN and await run.status() in ("pending", "running"):
            await asyncio.sleep(0.05)
            clock.jump()
        path = HERE / f"{name}.jsonl"
        dump_history(await app.store.read(run.id), path)
        # Tracebacks name the files of this checkout: the recorded ones name them from its root.
        path.write_text(path.read_text().replace(f"{HERE.parent.parent}/", ""))


def main() -> None:
    """Record what is named, or what is missing; each in a process of its own."""
    if len(sys.argv) == 2:
        if (HERE / f"{sys.argv[1]}.jsonl").exists():
            sys.exit(f"{sys.argv[1]}.jsonl is there: a golden history is recorded once")
        asyncio.run(record(sys.argv[1]))
        return
    for name in SCENES:
        if not (HERE / f"{name}.jsonl").exists():
            subprocess.run([sys.executable, __file__, name], check=True)
            print(f"recorded {name}.jsonl")


if __name__ == "__main__":
    main()
