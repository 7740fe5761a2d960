"""The runs of a chaos: some of everything that a run can wait for, and steps that leave their mark outside.

An effect is a whole line in a side journal, appended at once: step, attempt, process. The journal is not part
of the store; when all is over, the logs are held against it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os

import holdfast as hf

QUICK = hf.Backoff(initial=0.02, maximum=0.2, jitter=0)
RETRIES = 200
"""More than the workers that can be killed while one step is under way."""


@hf.step(name="chaos.effect", retries=RETRIES, backoff=QUICK)
async def effect(journal: str, seconds: float = 0.0) -> int:
    """Leaves its mark, then takes a while."""
    _mark(journal)
    await asyncio.sleep(seconds)
    return 1


@hf.step(name="chaos.effect-in-a-thread", retries=RETRIES, backoff=QUICK)
def effect_in_a_thread(journal: str) -> int:
    """Leaves its mark."""
    _mark(journal)
    return 1


@hf.step(name="chaos.flaky", retries=RETRIES, backoff=QUICK)
async def flaky(journal: str) -> int:
    """Leaves its mark each time, and fails the first time."""
    _mark(journal)
    if hf.step_info().attempt == 1:
        raise ConnectionError("the first attempt always fails")
    return 1


def _mark(journal: str) -> None:
    info = hf.step_info()
    fd = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, f"{info.key}\t{info.attempt}\t{os.getpid()}\n".encode())
    finally:
        os.close(fd)


@hf.workflow(name="chaos.part")
async def part(journal: str) -> int:
    """A child run: gives how many steps it saw completed."""
    done = await effect(journal, 0.1)
    await asyncio.sleep(0.05)
    return done + await flaky(journal)


@hf.workflow(name="chaos.errand")
async def errand(journal: str, token: str, rounds: int) -> int:
    """Gives how many steps it saw completed; the log must hold as many."""
    done = 0
    try:
        inbox = hf.hook(f"{token}:in", type=int)
        for number in range(rounds):
            done += sum(
                await asyncio.gather(effect(journal), effect_in_a_thread(journal), effect(journal, 0.05))
            )
            await asyncio.sleep(0.03)
            done += await flaky(journal)
            done += await _asked(journal, f"{token}:{number}")
            done += await _raced(journal, inbox)
            await _parted(journal)
    finally:
        done += await effect(journal)
    return done


async def _asked(journal: str, token: str) -> int:
    """A payload against a time-out."""
    async with hf.hook(token, type=int) as hook:
        try:
            async with asyncio.timeout(1.0):
                await hook
        except TimeoutError:
            return 0
    return await effect(journal)


async def _parted(journal: str) -> None:
    """A child run against a time-out; one that is late, or that somebody cancels, counts for nothing."""
    with contextlib.suppress(TimeoutError, hf.RunCancelled):
        async with asyncio.timeout(1.0):
            await part(journal)


async def _raced(journal: str, inbox: hf.Hook[int]) -> int:
    """A payload against a step; whoever loses is cancelled."""
    payload = asyncio.create_task(inbox.next())
    step = asyncio.create_task(effect(journal, 0.3))
    done, waiting = await asyncio.wait([payload, step], return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    return 1 if step in done else await effect(journal)
