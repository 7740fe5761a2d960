"""How near waiting can come to its goals on this machine: the smallest programs, in turns with Holdfast.

    python bench/waiting_floor.py [--hooks 60] [--runs 1000] [--crowds 3] [--json]

**A payload to a run of another process**, from its sending until the run goes on there. What both sides do: the
sender asks who gets the payload and commits it; the other process is woken, reads it and commits what follows
(the start of a step). Each commit is durable: one fdatasync on SQLite (WAL, synchronous=FULL), one flush of the
server's log on PostgreSQL (synchronous_commit=on). They take turns:

- `raw`: two commits of 330 bytes, each after 5 ms in which the process was idle. The goal is these and 1 ms.
- `floor`: two processes that do just that with one table, prepared statements, and NOTIFY in the statement that
  writes, or a datagram to a socket beside the file. No log, no judgement, no engine, no worker.
- `code`: Holdfast as it is, a worker in a process of its own, until the workflow's code has gone on.
- `holdfast`: the same payloads, until the next step's first line, as `holdfast bench hook-apart`.

**The loop with 1,000 runs at once**: by how much a timer of 1 ms is late in the process that does ten steps for
each, 99th percentile. The floor is that of `step_floor.py`: the rows of the steps, in groups as large as
Holdfast's, encoded and sent in one go (on SQLite committed on the loop's thread, where Holdfast has a thread for
large ones).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from operator import sub
from pathlib import Path
from typing import Any

import step_floor

import holdfast as hf
from holdfast import faults
from holdfast.bench import apart, flows
from holdfast.bench.floor import floor_of, least_time
from holdfast.bench.place import Where
from holdfast.bench.shape import IDLE, Commits
from holdfast.bench.shapes import late_while

PAYLOAD = b"x" * 330
WARM = 5


# ---- the floors of a payload: `sender` and `worker` are the two processes


class Sqlite:
    """A table, and a socket for each of the two."""

    WRITE = "INSERT INTO waiting_floor (kind, number, body) VALUES (?, ?, ?)"
    READ = "SELECT body FROM waiting_floor WHERE kind = ? AND number = ?"

    async def open(self, url: str, role: str) -> None:
        import apsw

        path = url.removeprefix("sqlite:///")
        self.db = apsw.Connection(f"{path}-waiting.db")
        for pragma in ("journal_mode = WAL", "synchronous = FULL"):
            self.db.execute(f"PRAGMA {pragma}").fetchall()
        self.db.execute(
            "CREATE TABLE IF NOT EXISTS waiting_floor (kind, number, body, PRIMARY KEY (kind, number))"
        )
        here, there = (f"{Path(path).parent}/{name}" for name in sorted((role, other(role)), key=role.__ne__))
        with suppress(FileNotFoundError):
            os.unlink(here)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(here)
        self.socket.setblocking(False)
        self.there = there
        self.heard = asyncio.Queue[int]()
        asyncio.get_running_loop().add_reader(self.socket, self.hear)

    def hear(self) -> None:
        self.heard.put_nowait(int(self.socket.recv(100)))

    async def write(self, kind: str, number: int) -> None:
        self.db.execute(self.WRITE, (kind, number, PAYLOAD))
        self.socket.sendto(b"%d" % number, self.there)

    async def read(self, kind: str, number: int) -> list[Any]:
        return self.db.execute(self.READ, (kind, number)).fetchall()

    async def close(self) -> None:
        self.socket.close()


class Postgres:
    """A table, and a channel for each of the two; one connection to write, one to read and hear."""

    WRITE = (
        "WITH written AS (INSERT INTO waiting_floor VALUES ($1, $2, $3)) "
        "SELECT pg_notify('waiting_' || $1, $2::text)"
    )
    READ = "SELECT body FROM waiting_floor WHERE kind = $1 AND number = $2"

    async def open(self, url: str, role: str) -> None:
        import asyncpg

        self.db, self.reading = await asyncpg.connect(url), await asyncpg.connect(url)
        if role == "sender":
            await self.db.execute("DROP TABLE IF EXISTS waiting_floor")
            await self.db.execute(
                "CREATE TABLE waiting_floor (kind text, number bigint, body bytea, PRIMARY KEY (kind, number))"
            )
        self.heard = asyncio.Queue[int]()
        channel = "waiting_answer" if role == "sender" else "waiting_payload"
        await self.reading.add_listener(channel, lambda *said: self.heard.put_nowait(int(said[3])))

    async def write(self, kind: str, number: int) -> None:
        await self.db.fetch(self.WRITE, kind, number, PAYLOAD)

    async def read(self, kind: str, number: int) -> list[Any]:
        return list(await self.reading.fetch(self.READ, kind, number))

    async def close(self) -> None:
        await self.db.close()
        await self.reading.close()


def other(role: str) -> str:
    return "worker" if role == "sender" else "sender"


async def opened(url: str, role: str) -> Sqlite | Postgres:
    place = Sqlite() if url.startswith("sqlite") else Postgres()
    await place.open(url, role)
    return place


async def payload(place: Sqlite | Postgres, number: int) -> float:
    """When it was sent; the answer has come."""
    await asyncio.sleep(IDLE)
    sent = time.time()
    await place.read("hook", number)
    await place.write("payload", number)
    assert await place.heard.get() == number
    return sent


async def work(url: str, side: str) -> None:
    """The process of a worker, until its input ends. It then says when each of its commits was done; Holdfast's,
    when the code of a run had gone on."""
    loop = asyncio.get_running_loop()
    done: list[float] = []
    if side != "floor":
        faults.arm("worker.tick.after", lambda: done.append(time.time()))
        async with hf.connect(url) as app, app.worker(concurrency=1000):
            print((await app.start(flows.payloads, int(side))).id, flush=True)
            await loop.run_in_executor(None, sys.stdin.read)
        print(json.dumps(done), flush=True)
        return
    place = await opened(url, "worker")

    async def answers() -> None:
        while True:
            number = await place.heard.get()
            assert await place.read("payload", number)
            await place.write("answer", number)
            done.append(time.time())

    answering = asyncio.create_task(answers())
    print("ready", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    answering.cancel()
    await place.close()
    print(json.dumps(done), flush=True)


def begin(url: str, side: str) -> tuple[subprocess.Popen[str], str]:
    """The process, and its first line."""
    child = subprocess.Popen(
        [sys.executable, __file__, "--work", url, side],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    if not (line := child.stdout.readline()):
        raise RuntimeError(f"{side} did not start")
    return child, line.strip()


async def hooks(url: str, count: int) -> dict[str, list[float]]:
    """Milliseconds of each turn; the first five are not counted."""
    raw: list[float] = []
    sent: list[float] = []
    bare = await floor_of(Where(url.partition(":")[0], url, url))
    assert bare is not None
    place = await opened(url, "sender")
    (beside, _), (working, run_id) = begin(url, "floor"), begin(url, str(WARM + count))
    try:
        async with hf.connect(url) as app:
            ours = apart.Payloads(app, app.run(run_id))
            for number in range(WARM + count):
                raw.append(await least_time(bare, Commits(2, len(PAYLOAD), IDLE)))
                sent.append(await payload(place, number))
                await ours.send(number)
            began = await ours.run.result(timeout=30)
    finally:
        done, _ = beside.communicate(timeout=60)
        ticked, _ = working.communicate(timeout=60)
        await place.close()
        await bare.close()
    ticks = json.loads(ticked)
    taken = {
        "raw": raw,
        "floor": list(map(sub, json.loads(done), sent)),
        "code": [next(tick for tick in ticks if tick > at) - at for at in ours.sent],
        "holdfast": list(map(sub, began, ours.sent)),
    }
    return {side: [1000 * seconds for seconds in times[WARM:]] for side, times in taken.items()}


# ---- the loop in a crowd


async def crowds(url: str, runs: int, count: int) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {"floor": [], "holdfast": []}
    async with step_floor.floor(url) as floor, step_floor.holdfast(url) as ours:
        for turn in range(-1, count):
            for name, crowd in (("floor", floor), ("holdfast", ours)):
                work = crowd(turn + 2, runs if turn >= 0 else 20, step_floor.STEPS)
                _, late = await late_while(work)
                if turn >= 0:
                    taken[name].append(late * 1000)
    return taken


# ---- the whole


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hooks", type=int, default=60)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--crowds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--work", nargs=2, metavar=("URL", "SIDE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        asyncio.run(work(*options.work))
        return
    with step_floor.stores() as urls:
        for url in urls:
            for what, found in (
                ("payload", asyncio.run(hooks(url, options.hooks)) if options.hooks else {}),
                (
                    "loop late",
                    asyncio.run(crowds(url, options.runs, options.crowds)) if options.crowds else {},
                ),
            ):
                for name, times in found.items():
                    tell(url.partition(":")[0], what, name, times, as_json=options.json)


def tell(store: str, what: str, side: str, times: list[float], *, as_json: bool) -> None:
    row = {"store": store, "what": what, "side": side, "ms": statistics.median(times), "least": min(times)}
    if as_json:
        print(json.dumps(row), flush=True)
        return
    print(
        f"{store:<11} {what:<9} {side:<9} {row['ms']:6.2f} ms, least {row['least']:6.2f} of {len(times)}",
        flush=True,
    )


if __name__ == "__main__":
    main()
