"""The workflows whose recorded runs stand beside this file: change them only as one may change live code.

A change here that a recorded run does not survive is a change that would park somebody's runs.
"""

import asyncio
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal

import holdfast as hf


@dataclass
class Order:
    id: str
    amount: Decimal
    wanted: date | None = None


@dataclass
class Approval:
    ok: bool
    by: str = ""


class Declined(Exception):
    pass


# ---- sequence: steps one after the other, values of many types


@hf.step
async def price(order: Order) -> Decimal:
    return order.amount * 2


@hf.step
async def book(order: Order, amount: Decimal) -> set[str]:
    return {order.id, str(amount)}


@hf.workflow(version="1")
async def sequence(order: Order) -> dict[str, list[str]]:
    hf.set_attributes(order=order.id)
    amount = await price(order)
    booked = await book(order, amount)
    hf.set_attributes(stage="booked")
    lucky = hf.random().randint(1, 6)
    return {"booked": sorted(booked), "lucky": [str(lucky), str(hf.uuid4()), hf.now().isoformat()]}


# ---- gather and race


@hf.step
async def square(n: int) -> int:
    return n * n


@hf.workflow
async def gather_and_race(n: int) -> list[int]:
    squares = await asyncio.gather(*(square(i) for i in range(n)))
    fast = asyncio.create_task(square(100))
    slow = asyncio.create_task(asyncio.sleep(3600))
    done, waiting = await asyncio.wait({fast, slow}, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    async with asyncio.TaskGroup() as group:
        more = [group.create_task(square(i)) for i in (7, 8)]
    return [*squares, *(task.result() for task in done), *(task.result() for task in more)]


# ---- hooks and timers


@hf.workflow
async def hooks_and_timers(name: str) -> list[str]:
    story = []
    approval = hf.hook(f"approve:{name}", type=Approval, metadata={"who": name})
    try:
        async with asyncio.timeout(timedelta(days=3).total_seconds()):
            story.append((await approval).by)
    except TimeoutError:
        story.append("nobody")
    async with hf.hook(f"chat:{name}") as chat:
        async for line in chat:
            story.append(line)
            if line == "bye":
                break
    try:
        async with asyncio.timeout(60):
            await approval
    except TimeoutError:
        story.append("nobody else")
    await hf.sleep(timedelta(hours=1))
    return story


# ---- retries and failure


@hf.step(retries=2, backoff=0.2)
async def flaky(succeed_at: int) -> int:
    if hf.step_info().attempt < succeed_at:
        raise Declined(f"attempt {hf.step_info().attempt} of {succeed_at}")
    return succeed_at


@hf.workflow
async def retries_and_failure() -> None:
    await flaky(2)
    try:
        await flaky(9)
    except Declined as error:
        raise RuntimeError("gave up") from error


# ---- cancel with finally


@hf.step
async def tidy_up(what: str) -> str:
    return f"tidied {what}"


@hf.workflow
async def cancelled_with_finally(what: str) -> None:
    await square(3)
    try:
        await asyncio.sleep(86_400)
    finally:
        await tidy_up(what)


# ---- patched: one recorded run went through before the change (`before.py`), one after


@hf.step
async def by_mail(who: str) -> str:
    return f"mail to {who}"


@hf.step
async def by_fax(who: str) -> str:
    return f"fax to {who}"


@hf.workflow
async def notify(who: str) -> str:
    await square(1)
    told = await by_mail(who) if hf.patched("mail") else await by_fax(who)
    await square(2)
    return told


# ---- trails: chapters side by side, notes, decisions, a branch without a chapter


async def surveyor(name: str, succeed_at: int) -> int:
    async with hf.trail.chapter(f"Survey by {name}", agent=name):
        result = await flaky(succeed_at)
        hf.trail.find(f"{name} found {result}", raw={"result": result}, confidence=0.5)
    return result


@hf.workflow
async def trails(names: list[str]) -> int:
    hf.trail.note("Sets out", tags=["start"], significance="low")
    results = await asyncio.gather(*(surveyor(name, n) for n, name in enumerate(names, 1)), square(3))
    hf.trail.decide("Enough?", "yes", reasoning="two of two", alternatives=["ask again"], agent="judge")
    try:
        with hf.trail.chapter("Try more"), hf.trail.chapter("Too much"):
            await flaky(9)
    except Declined:
        hf.trail.reflect("It was enough", confidence=0.75, focal_points=["patience"])
    return sum(results)


# ---- in flight: a run that waits still


@hf.workflow
async def in_flight(name: str) -> str:
    await square(4)
    return str(await hf.hook(f"never:{name}", type=str))
