"""Workflows that the page is shown with, and logs that are too long to be run for a test."""

import asyncio
from dataclasses import dataclass
from typing import Any, Literal

import holdfast as hf
from holdfast.events import new
from holdfast.store.base import Store


@dataclass
class Approval:
    approved: bool
    by: str
    amount: int
    route: Literal["air", "sea"] = "sea"


gate: list[asyncio.Event] = []
"""What `hold` waits for: tests set it."""


@hf.step
async def page_pack(box: int) -> str:
    return f"box {box}"


@hf.step(retries=2, backoff=0.01)
async def page_flaky() -> str:
    if hf.step_info().attempt < 3:
        raise ConnectionError("gateway answered 503")
    return "charged"


@hf.step
async def page_hold() -> str:
    await gate[-1].wait()
    return "released"


@hf.step(retries=0)
async def page_breaks(text: str) -> None:
    raise ValueError(text)


@hf.workflow(version="2")
async def page_order(order: str) -> str:
    async with hf.trail.chapter("Take the money", agent="cashier"):
        await page_flaky()
        hf.trail.decide("Which gateway?", "stripe", reasoning="The other was down", alternatives=["adyen"])
    await asyncio.gather(*(page_pack(box) for box in range(3)))
    answer = await hf.hook(f"approve:{order}", type=Approval, metadata={"question": "Ship it?"})
    return f"shipped by {answer.route} for {answer.amount}"


@hf.workflow
async def page_holds() -> str:
    return await page_hold()


@hf.workflow
async def page_sleeps(hours: int) -> int:
    await asyncio.sleep(hours * 3600)
    return hours


@hf.workflow
async def page_fails(text: str) -> None:
    await page_breaks(text)


@hf.workflow
async def page_asks(question: str) -> Any:
    return await hf.hook(question)


@hf.workflow
async def page_counts() -> list[int]:
    async with hf.hook("numbers", type=int) as numbers:
        return [await numbers.next() for _ in range(3)]


mail = hf.queue("page-mail", concurrency=2, per_key=1, rate=(100, 60))


@hf.step
async def page_says() -> None:
    words = hf.stream("words")
    await words.write("first")
    await gate[-1].wait()
    await words.write(" and last")
    await words.end()


@hf.workflow
async def page_tells() -> None:
    await page_says()


async def many_runs(store: Store, number: int, *, live: int = 10) -> None:
    """Runs as a store holds them that has long been in use: all but each `live`th have ended."""

    async def one(place: int) -> None:
        end = [new("run_completed", data={"value": place, "read": 0})] if place % live else []
        data = {"workflow": f"flow-{place % 3}", "args": {}, "seed": 1, "python": "3.11"}
        await store.append(
            f"many-{place:05}",
            [
                new("run_created", data={**data, "attributes": {"shard": str(place % 7)}}),
                new("run_started", data={"worker": "w"}),
                *end,
            ],
            after=0,
        )

    for start in range(0, number, 1000):
        await asyncio.gather(*(one(place) for place in range(start, min(start + 1000, number))))


async def long_run(store: Store, run_id: str, steps: int) -> None:
    """A run of three events a step, and two before them."""
    begin = {"workflow": "long", "args": {}, "seed": 1, "python": "3.11"}
    drafts = [new("run_created", data=begin), new("run_started", data={"worker": "w"})]
    after = (await store.append(run_id, drafts, after=0)).last
    for start in range(0, steps, 100):
        keys = [f"fetch#{place + 1}" for place in range(start, min(start + 100, steps))]
        asked = [new("step_scheduled", key=key, data={"args": {"page": key}}) for key in keys]
        await store.append(run_id, asked, after=after)
        started = [new("step_started", key=key, data={"attempt": 1, "worker": "w"}) for key in keys]
        await store.append(run_id, started)
        ended = [new("step_completed", key=key, data={"attempt": 1, "value": key}) for key in keys]
        after = (await store.append(run_id, ended)).last
