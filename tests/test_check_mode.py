"""Check mode finds, on the first day, what a recovery would stumble over later."""

from __future__ import annotations

import asyncio

import pytest

import holdfast as hf
from holdfast.testing import checking


@hf.step
async def visit(city: str) -> str:
    return city.upper()


@hf.workflow
async def visits_in_the_order_of_a_set(cities: list[str]) -> int:
    # The trap: the order of a set of strings is another one in the next process.
    for city in set(cities):
        await visit(city)
    return len(cities)


@hf.workflow
async def visits_in_order(cities: list[str]) -> list[str]:
    return list(await asyncio.gather(*(visit(city) for city in sorted(set(cities)))))


CITIES = [f"city {number}" for number in range(12)]


async def test_a_workflow_that_depends_on_hashes_is_found_out():
    """R-01, L6: live and in this process all is well; another hash seed shows what the log does not hold."""
    with pytest.raises(AssertionError, match="the log holds step_scheduled"):
        async with hf.connect("memory://") as app, app.worker(), checking(app):
            assert await (await app.start(visits_in_the_order_of_a_set, CITIES)).result() == 12


async def test_a_deterministic_workflow_passes():
    async with hf.connect("memory://") as app, app.worker(), checking(app):
        assert len(await (await app.start(visits_in_order, CITIES)).result()) == 12


async def test_a_local_workflow_is_replayed_in_this_process():
    """No other process can import it; and a change between run and replay is still seen."""
    trip = ["Rome", "Oslo"]

    @hf.workflow
    async def local_trip(times: int) -> int:
        for city in trip[:times]:
            await visit(city)
        return times

    with pytest.raises(AssertionError, match="Rome"):
        async with hf.connect("memory://") as app, app.worker(), checking(app):
            await (await app.start(local_trip, 2)).result()
            trip[0] = "Bern"
