"""Small scopes, whole: two deciders, a client and a timer on one run, in every order of their calls of the store.

    python proof/interleavings.py                 every scope, on the store in memory
    python proof/interleavings.py --sqlite        the same on a SQLite file, with two handles on it and a third
    python proof/interleavings.py --postgres      the same on a PostgreSQL of its own (--most N: a share of each)
    python proof/interleavings.py --scope timer   one scope; --list names them
    python proof/interleavings.py --without fence,tail   the same with protections taken out of the store's rules

After each schedule: the code of `holdfast verify` finds nothing in the log, replay included (L1–L9, L11, L13);
the run has ended without anybody looking for it a second time (L14); each payload that was acknowledged stands
where it was said, and was read once or is counted as unread (L10, L12). Exit code 1 where that does not hold.

The deciders are the real `Advance` of two real workers. `scheduler.py` says what is enumerated, and how.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "tests" / "kit")]

import postgres_kit
import scheduler
from backends import MemoryBackend, PostgresBackend, SqliteBackend
from processes import RUN
from scheduler import Tried, World, explore, replay

import holdfast as hf
from holdfast.engine.tick import tick
from holdfast.events import fold
from holdfast.runtime import attempt_here
from holdfast.store import outcomes, rules
from holdfast.store.memory import appends as memory_appends
from holdfast.store.sqlite import appends as sqlite_appends
from holdfast.store.verdict import Found, copy_of
from holdfast.verify import Verification
from holdfast.workflow import Workflow, workflows

# ---- the workflows; each returns the payloads that it has read


@hf.step(name="proof.work", retries=0)
async def work(what: str) -> str:
    return what


@hf.step(name="proof.slow", retries=0)
async def slow(what: str) -> str:
    attempt = attempt_here.get()
    assert attempt is not None
    await scheduler.now.gate(f"{attempt.info.step} {attempt.attempt}")
    return what


@hf.workflow(name="proof.timer")
async def timer() -> list[int]:
    """A sleep, then a step."""
    await asyncio.sleep(5)
    await work("after")
    return []


@hf.workflow(name="proof.hook")
async def hook() -> list[int]:
    """A payload, and nothing that wakes the run if its news are missed."""
    return [await hf.hook("go", type=int)]


@hf.workflow(name="proof.beside")
async def beside() -> list[int]:
    """A step, and two payloads beside it."""
    hook = hf.hook("go", type=int)
    _, *got = await asyncio.gather(work("beside"), hook.next(), hook.next())
    return got


@hf.workflow(name="proof.hook_or_timer")
async def hook_or_timer() -> list[int]:
    """Vercel's race: a payload against a time-out, and a step that tells which came first."""
    got: list[int] = []
    async with hf.hook("go", type=int) as hook:
        try:
            async with asyncio.timeout(5):
                got.append(await hook.next())
        except TimeoutError:
            await work("late")
            return got
    await work("in time")
    return got


@hf.workflow(name="proof.wait")
async def wait() -> list[int]:
    """The same with `asyncio.wait`; the wait that has lost stays behind."""
    hook = hf.hook("go", type=int)
    payload, sleep = asyncio.ensure_future(hook.next()), asyncio.ensure_future(asyncio.sleep(5))
    done, _ = await asyncio.wait({payload, sleep}, return_when=asyncio.FIRST_COMPLETED)
    hf.set_attributes(first="payload" if payload in done else "sleep")
    await sleep
    return [payload.result()] if payload.done() else []


@hf.workflow(name="proof.gather")
async def gather() -> list[int]:
    """A step and a hook at once."""
    _, payload = await asyncio.gather(work("beside"), hf.hook("go", type=int).next())
    return [payload]


@hf.workflow(name="proof.race")
async def race() -> list[int]:
    """A payload against a time-out, and nothing else."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(5):
            return [await hf.hook("go", type=int)]
    return []


@hf.workflow(name="proof.two_hooks")
async def two_hooks() -> list[int]:
    """One hook after the other."""
    return [await hf.hook(token, type=int) for token in ("one", "two")]


@hf.workflow(name="proof.step_or_hook")
async def step_or_hook() -> list[int]:
    """A step with a long body against a payload; the loser is cancelled."""
    hook = hf.hook("go", type=int)
    payload, step = asyncio.ensure_future(hook.next()), asyncio.ensure_future(slow("long"))
    await asyncio.wait({payload, step}, return_when=asyncio.FIRST_COMPLETED)
    for task in (payload, step):
        task.cancel()
    await asyncio.gather(payload, step, return_exceptions=True)
    return [] if payload.cancelled() else [payload.result()]


class Scope(NamedTuple):
    """A workflow, and what happens to it; `World` has the rest.

    `script` is what the client does: a payload for a token, or `cancel`. `losses` calls are given up by their
    senders. Reads of a `far` store take time. What is on its way when the run ends arrives in every order with
    `beyond`. A run that is `begun` has had its first tick when the deciders come to it.
    """

    workflow: Workflow[..., Any]
    script: tuple[str, ...] = ()
    deciders: int = 2
    losses: int = 0
    far: bool = False
    beyond: bool = False
    begun: bool = False

    def world(self, backend: Any) -> World:
        return World(backend, *self[:2], **dict(zip(self._fields[2:], self[2:], strict=True)))


SCOPES = {
    "hook or timer": Scope(hook_or_timer, ("go",)),
    "timer": Scope(timer),
    "timer, beyond its end": Scope(timer, beyond=True),
    "timer, cancel": Scope(timer, ("cancel",), begun=True),
    "timer, a call given up": Scope(timer, losses=1, begun=True),
    "timer, far": Scope(timer, far=True),
    "hook, a call given up": Scope(hook, ("go",), losses=1),
    "hook, far": Scope(hook, ("go",), far=True),
    "beside, far": Scope(beside, ("go", "go"), deciders=1, far=True),
    "race, two payloads": Scope(race, ("go", "go"), begun=True),
    "race, cancel": Scope(race, ("cancel", "go"), begun=True),
    "race, a call given up": Scope(race, ("go",), losses=1, begun=True),
    "wait": Scope(wait, ("go",), begun=True),
    "gather": Scope(gather, ("go",)),
    "two hooks": Scope(two_hooks, ("one", "two")),
    "step or hook": Scope(step_or_hook, ("go",)),
}

# ---- what must hold


async def check(world: World) -> None:
    """Add to the world's problems what is not as the laws say."""
    problems, client = world.problems, world.client
    store = world.backend.plain()
    head = await store.head(RUN)
    assert head is not None
    async for difference in Verification(store, run_id=RUN, workflows={head.workflow}).run():
        problems.append(f"verify: {difference}")
    workflow, log = workflows.get(head.workflow), list(world.backend.log())
    assert workflow is not None
    if head.parked is not None:
        problems.append(f"parked: {head.parked}")
    elif head.ended is None and (head.steps or head.timers or not client.refused or tick(workflow, log)):
        problems.append("nothing more happens, and the run has not ended")  # though no payload was refused it
    places = {e.data["delivery"]: e.position for e in log if e.type == "hook_received"}
    if {**places, **client.acknowledged} != places or places.keys() - client.acknowledged - client.unsure:
        problems.append(f"payloads stand at {places}, acknowledged were {client.acknowledged}")
    state = fold(log)
    read = next((e.data["value"] for e in log if e.type == "run_completed"), None)
    order = sorted(places, key=places.__getitem__)
    if read is not None and (read != [int(name) for name in order[: len(read)]] or state.read != len(read)):
        problems.append(f"the code read {read} of {order}, the log says {state.read}")


# ---- protections that can be taken out, of this process alone


def _without_fence(request: Any, found: Found, now: int) -> Any:
    """`judge`, with a view that was old taken for a new one."""
    head, after = found.head, request.after
    if head is None or after is None or head.command <= after:
        return rules.judge(request, found, now)
    blind = copy_of(head)
    blind.command = after
    found.head = blind
    verdict = rules.judge(request, found, now)
    if verdict.head is not None:
        verdict.head.command = max(verdict.head.command, head.command)
    return verdict


_fits, _there = outcomes.Writing.fits_exactly, outcomes.Writing._there
PROTECTIONS = {
    "fence": [(memory_appends, "judge", _without_fence), (sqlite_appends, "judge", _without_fence)],
    "tail": [(outcomes.Writing, "fits_exactly", lambda self: self.before.position > 0 or _fits(self))],
    "keys": [
        (
            outcomes.Writing,
            "_there",
            lambda self, draft: None if draft.cls == "command" else _there(self, draft),
        )
    ],
}
"""fence: of commands (L4); tail: early facts only right behind `after` (L5); keys: commands are unique (L4)."""


@contextlib.contextmanager
def without(*names: str) -> Iterator[None]:
    """Take protections out of the store's rules, for a while."""
    changes = [change for name in names for change in PROTECTIONS[name]]
    before = [(where, what, getattr(where, what)) for where, what, _ in changes]
    try:
        for where, what, instead in changes:
            setattr(where, what, instead)
        yield
    finally:
        for where, what, was in before:
            setattr(where, what, was)


# ---- trying them


def enumerate_scope(
    scope: Scope,
    backend: Any = MemoryBackend,
    *,
    also: Callable[[World], object] = lambda world: None,
    **more: Any,
) -> Tried:
    """Every schedule of a scope; `backend()` gives an empty store, `also` looks at each world at its end."""

    async def look(world: World) -> None:
        await check(world)
        also(world)

    frozen = gc.get_freeze_count() > 0  # somebody did before, and for longer
    gc.collect()
    gc.freeze()  # what is there already need not be looked through for the garbage of each world
    threshold = gc.get_threshold()
    gc.set_threshold(100_000, 20, 100)
    try:
        return explore(lambda: scope.world(backend()), look, **more)
    finally:
        gc.set_threshold(*threshold)
        if not frozen:
            gc.unfreeze()


def story(scope: Scope, path: Sequence[int], backend: Any = MemoryBackend) -> list[str]:
    """A schedule in words, and the log that it leaves."""
    world = replay(lambda: scope.world(backend()), path)
    lines = [str(choice) for choice in world.chosen]
    lines += [f"{e.position:3} {e.type} {e.key} {e.body.decode():.80}" for e in world.backend.log()]
    world.finish()
    return lines


class Job(NamedTuple):
    """What one process of the pool does."""

    name: str
    store: str
    without: tuple[str, ...]
    most: int | None


def work_through(job: Job) -> tuple[str, Tried, list[str], float]:
    """One scope, in a process of the pool."""
    logging.disable(logging.CRITICAL)
    begun, told = time.monotonic(), [0.0]

    def watch(tried: Tried) -> None:
        if time.monotonic() - told[0] > (0.5 if sys.stderr.isatty() else 30):
            told[0] = time.monotonic()
            bar(job.name, tried, begun)

    scope = SCOPES[job.name]
    with contextlib.ExitStack() as stack:
        stack.enter_context(without(*job.without))
        backend: Any = MemoryBackend
        if job.store == "sqlite":
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            backend = stack.enter_context(contextlib.closing(SqliteBackend(Path(folder)))).emptied
        elif job.store == "postgres":
            databases = postgres_kit.databases()
            stack.callback(databases.remove)
            backend = stack.enter_context(contextlib.closing(PostgresBackend(databases.fresh()))).emptied
        tried = enumerate_scope(scope, backend, most=job.most, watch=watch)
        told_path = story(scope, tried.problems[0][1], backend) if tried.problems else []
    return job.name, tried, told_path, time.monotonic() - begun


def bar(name: str, tried: Tried, begun: float) -> None:
    full, end = int(40 * tried.share), "" if sys.stderr.isatty() else "\n"
    print(
        f"\r[{'#' * full}{'.' * (40 - full)}] {name}: "
        f"{tried.played} played, {tried.cut} cut, {tried.states} states, "
        f"{time.monotonic() - begun:.0f} s",
        end=end,
        file=sys.stderr,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--scope", action="append", choices=SCOPES, help="a scope; several may be given")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--sqlite", dest="store", action="store_const", const="sqlite", default="memory")
    parser.add_argument("--postgres", dest="store", action="store_const", const="postgres")
    parser.add_argument("--without", default="", help=f"of {', '.join(PROTECTIONS)}, with commas")
    parser.add_argument("--most", type=int, help="schedules to play or cut, of each scope")
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count())
    given = parser.parse_args()
    if given.list:
        print("\n".join(SCOPES))
        return 0
    gone = tuple(given.without.split(",")) if given.without else ()
    jobs = [Job(name, given.store, gone, given.most) for name in given.scope or SCOPES]
    bad = 0
    total = Tried(whole=True)
    with multiprocessing.Pool(given.processes) as pool:
        for name, tried, told, seconds in pool.imap_unordered(work_through, jobs):
            total.schedules += tried.schedules
            total.played += tried.played
            total.cut += tried.cut
            total.states += tried.states
            total.whole &= tried.whole
            figures = {
                key: getattr(tried, key)
                for key in tried.__struct_fields__
                if key not in ("share", "problems")
            }
            print("\r" + json.dumps({"scope": name, **figures, "s": round(seconds)}), flush=True)
            if tried.problems or tried.loops:
                bad += 1
                print(
                    "\n".join(["UNLAWFUL", *told, *(tried.problems[0][0] if tried.problems else ["a loop"])])
                )
    print(
        f"{total.schedules:,} schedules of {len(jobs)} scopes, {'every one' if total.whole else 'not all'}: "
        f"{total.played:,} played to the end, {total.cut:,} cut at one of {total.states:,} states seen before; "
        f"{bad} scopes unlawful"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
