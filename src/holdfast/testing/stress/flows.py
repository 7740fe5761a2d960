"""The workflows of the storms, each with the parameters that it and its driver take.

`hook-sleep` is the reproduction of a race in another system: a tick with an old view recorded "the sleep is
over" behind a payload that had landed. `step-storm` and `hook-storm` broke that system far more often: many
branches race a step, or a hook, against a watchdog, and a hook that nobody awaits is sent payloads all the
while, so that each decider's view is always a little old.

In a branch with an even number whoever loses the race is cancelled; in an odd one it is left alone, so that
its outcome comes when nobody waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Coroutine
from typing import Any

import msgspec

import holdfast as hf

BUCKETS = 5
"""How many different delays there are, around the mean."""


class HookSleep(msgspec.Struct, frozen=True, kw_only=True):
    """Runs that sleep while payloads come. Times are in milliseconds."""

    count: int = 200
    iterations: int = 8
    sleep_ms: int = 500
    sleep_branch_wait_count: int = 2
    sleep_branch_wait_ms: int = 100
    drain_delay_ms: int = 50
    fire_after_ms: int = 3000
    fire_count: int = 10
    fire_burst_spacing_ms: int = 0
    cycles: int = 1


class Storm(msgspec.Struct, frozen=True, kw_only=True):
    """Runs of rounds; in each, `width` branches race against a watchdog. Times are in milliseconds."""

    count: int = 100
    rounds: int = 6
    width: int = 8
    watchdog_ms: int = 2500
    step_delay_ms: int = 2200
    step_spread_ms: int = 250
    between_ms: int = 1000
    poke_ms: int = 250
    cycles: int = 1

    def offset(self, round_: int, index: int) -> float:
        """What one branch's delay differs from the mean, in seconds: one of five values."""
        bucket = (round_ * 3 + index * 5 + index // BUCKETS + round_ * index) % BUCKETS
        return self.step_spread_ms * (2 * bucket / (BUCKETS - 1) - 1) / 1000


class StepStorm(Storm, frozen=True, kw_only=True):
    """A storm whose branches wait for a step."""


class HookStorm(Storm, frozen=True, kw_only=True):
    """A storm whose branches wait for a payload that comes about when the watchdog barks."""


# ---- hook-sleep --------------------------------------------------------------------------------------------


@hf.step(name="stress.quick")
async def quick(i: int) -> int:
    """Nothing, at once."""
    return i


@hf.step(name="stress.drain")
async def drain(i: int, payload: int, seconds: float) -> int:
    """What a payload leads to."""
    await asyncio.sleep(seconds)
    return payload


@hf.workflow(name="stress.hook-sleep")
async def hook_sleep(token: str, given: HookSleep) -> list[int]:
    """Race a payload against a sleep, again and again; gives the payloads that won."""
    hook = hf.hook(token, type=int)
    pending: asyncio.Task[int] | None = None
    drained: list[int] = []
    for i in range(given.iterations):
        await quick(i)
        pending = pending or asyncio.create_task(hook.next())
        nap = asyncio.create_task(asyncio.sleep(given.sleep_ms / 1000))
        await asyncio.wait([pending, nap], return_when=asyncio.FIRST_COMPLETED)
        if not pending.done():
            wait = given.sleep_branch_wait_ms / 1000
            await asyncio.gather(*(asyncio.sleep(wait) for _ in range(given.sleep_branch_wait_count)))
            continue
        nap.cancel()
        drained.append(await drain(i, pending.result(), given.drain_delay_ms / 1000))
        pending = None
    return drained


# ---- storms ------------------------------------------------------------------------------------------------


@hf.step(name="stress.settle")
async def settle(seconds: float) -> None:
    """The work of a branch."""
    await asyncio.sleep(seconds)


@hf.step(name="stress.recover")
async def recover(index: int) -> int:
    """What follows when the watchdog was quicker."""
    return index


@hf.step(name="stress.finalize")
async def finalize(index: int) -> int:
    """The end of a branch."""
    return index


@hf.step(name="stress.release")
async def release(index: int) -> int:
    """What a branch must do whatever happened."""
    return index


@hf.step(name="stress.reconcile")
async def reconcile(number: int) -> int:
    """The end of a round, several times at once."""
    return number


@hf.workflow(name="stress.step-storm")
async def step_storm(token: str, given: StepStorm) -> dict[str, int]:
    """Branches that race a step against the watchdog; gives how often each kind of step was done."""
    return await _rounds(token, given, hooks=False)


@hf.workflow(name="stress.hook-storm")
async def hook_storm(token: str, given: HookStorm) -> dict[str, int]:
    """Branches that race a hook against the watchdog; gives how often each kind of step was done."""
    return await _rounds(token, given, hooks=True)


async def _rounds(token: str, given: Storm, *, hooks: bool) -> dict[str, int]:
    hf.hook(poke_token(token))  # nobody awaits it
    done: Counter[str] = Counter()

    async def branch(round_: int, index: int) -> bool:
        if hooks:
            async with hf.hook(branch_token(token, round_, index), type=int) as hook:
                return await one(_payload(hook), index)
        return await one(settle(given.step_delay_ms / 1000 + given.offset(round_, index)), index)

    async def one(work: Coroutine[Any, Any, Any], index: int) -> bool:
        try:
            late = await _late(work, given.watchdog_ms / 1000, cancels=index % 2 == 0)
            if late:
                await recover(index)
                done["recover"] += 1
            await finalize(index)
            done["finalize"] += 1
            return late
        finally:
            await release(index)
            done["release"] += 1

    for round_ in range(given.rounds):
        stragglers = sum(await asyncio.gather(*(branch(round_, i) for i in range(given.width))))
        hf.set_attributes(round=str(round_), stragglers=str(stragglers))
        await asyncio.gather(*(reconcile(n) for n in range(2 + stragglers)))
        done["reconcile"] += 2 + stragglers
        await asyncio.sleep(given.between_ms / 1000)
    return dict(done)


async def _payload(hook: hf.Hook[int]) -> int | None:
    with contextlib.suppress(hf.HookNotFound):  # a waiter that is left behind sees its hook closed
        return await hook.next()
    return None


async def _late(work: Coroutine[Any, Any, Any], seconds: float, *, cancels: bool) -> bool:
    """Whether the watchdog came first."""
    settled = asyncio.create_task(work)
    watchdog = asyncio.create_task(asyncio.sleep(seconds))
    await asyncio.wait([settled, watchdog], return_when=asyncio.FIRST_COMPLETED)
    late = not settled.done()
    if cancels:
        (settled if late else watchdog).cancel()
    return late


def poke_token(token: str) -> str:
    """The hook that nobody awaits."""
    return f"{token}:poke"


def branch_token(token: str, round_: int, index: int) -> str:
    """The hook of one branch."""
    return f"{token}:{round_}:{index}"
