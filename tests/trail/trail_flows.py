"""The workflows of the tests of `hf.trail` and of the recorder; and a worker process that keeps trails.

python trail_flows.py URL FOLDER          serves the store and keeps trails, until it is killed
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass

import holdfast as hf

QUICK = hf.Backoff(initial=0.005, jitter=0)


@dataclass
class Report:
    agent: str
    pages: int
    token: str = ""


@hf.step(retries=2, backoff=QUICK)
async def read(agent: str, page: int) -> Report:
    if page == 2 and hf.step_info().attempt == 1:
        raise ConnectionError("the line is dead")
    return Report(agent, page)


@hf.step(retries=0)
async def publish(title: str, api_key: str = "") -> str:
    if not title:
        raise TimeoutError("nobody answered")
    return f"published {title}"


async def agent(name: str, pages: int) -> int:
    async with hf.trail.chapter(f"Reading by {name}", agent=name):
        for page in range(pages):
            hf.trail.note(f"{name} opens page {page}")
            await read(name, page)
    return pages


@hf.workflow
async def three_agents(pages: int) -> int:
    """Three branches side by side, each with a chapter of its own."""
    return sum(await asyncio.gather(*(agent(name, pages) for name in ("ana", "ben", "cleo"))))


@hf.workflow
async def bare_branches(names: list[str]) -> list[Report]:
    """Branches without a chapter: each is told apart all the same."""
    with hf.trail.chapter("Reading", agent="ana"):
        return list(await asyncio.gather(*(read(name, 0) for name in names)))


@hf.workflow
async def everything(title: str) -> str:
    """All that a trail can be told, with a hook to wait for."""
    hf.trail.note("Begins", tags=["start"], significance="low")
    with hf.trail.chapter("Plan", agent="ana"):
        hf.trail.decide("Which order?", "oldest first", reasoning="it is fair", alternatives=["newest first"])
        with hf.trail.chapter("Details"):
            hf.trail.find("Two pages are missing", raw={"pages": [3, 4]}, confidence=0.5)
            await read("ana", 2)
    hf.set_attributes(stage="waiting")
    async with hf.hook(f"go:{hf.run_info().run_id}") as hook:
        await hook
    await asyncio.gather(agent("ben", 1), read("nobody", 0), asyncio.sleep(0.01))
    try:
        with hf.trail.chapter("Publish", agent="cleo"):
            result = await publish(title, api_key="sk-ant-api03-" + "a" * 80)
    finally:
        hf.trail.reflect("It went as planned", confidence=0.7)
    return result


@hf.workflow
async def waits_in_a_chapter(token: str) -> str:
    with hf.trail.chapter("Wait", agent="ana"):
        hf.trail.note("before")
        answer = await hf.hook(token, type=str)
        hf.trail.note("after")
    return answer


async def _serve(url: str, folder: str) -> None:
    async with hf.connect(url) as app, app.worker(trails=folder):
        print("serving", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(*sys.argv[1:]))
