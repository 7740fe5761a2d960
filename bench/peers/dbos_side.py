"""DBOS Transact as one of the sides: `python bench/peers/dbos_side.py DATABASE-URL`.

Its settings are those that it ships with; `sqlite-wal` of bench/peers.py hands it a file whose journal has
been switched to WAL beforehand, which a user may do and DBOS does not (its default is the rollback journal).
"""

from __future__ import annotations

import asyncio
import os
import sys

from dbos import DBOS
from line import Steps, serve

steps = Steps()


@DBOS.step()
async def empty(number: int) -> int:
    return number


@DBOS.step()
async def after_payload(number: int) -> int:
    steps.began()
    return number


@DBOS.workflow()
async def sequential(count: int) -> int:
    for number in range(count):
        await empty(number)
    return count


@DBOS.workflow()
async def gather(count: int) -> int:
    return len(await asyncio.gather(*(empty(number) for number in range(count))))


@DBOS.workflow()
async def payloads(count: int) -> None:
    for _ in range(count):
        await after_payload(await DBOS.recv_async("go", timeout_seconds=60))


async def no_steps(_n: int) -> None:
    await sequential(0)


async def one_by_one(n: int) -> None:
    await sequential(n)


async def at_once(n: int) -> None:
    await gather(n)


async def many(n: int) -> None:
    await asyncio.gather(*(sequential(10) for _ in range(n)))


async def hook(n: int) -> float:
    handle = await DBOS.start_workflow_async(payloads, n)
    taken = await steps.latencies(n, lambda number: DBOS.send_async(handle.workflow_id, number, "go"))
    await handle.get_result()
    return taken


async def main(url: str) -> None:
    DBOS(
        config={"name": "peers", "system_database_url": url, "log_level": "ERROR", "application_version": "1"}
    )
    DBOS.launch()
    sqlite = url.startswith("sqlite")
    about = {
        "sync": "synchronous=FULL (SQLite's default)" if sqlite else "synchronous_commit=on",
        "records": "inputs of the workflow, the result of every step",
    }
    shapes = {"no_steps": no_steps, "sequential": one_by_one, "gather": at_once, "many": many, "hook": hook}
    await serve(about, shapes)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
    os._exit(0)  # its threads may sleep on for a while
