"""The figures of the runtime on this machine: `python bench/figures.py [SHAPE …] [--json]`.

sequential   n empty steps one after another, n = 1, 10, 50
concurrent   n empty steps at once
many         200 and 1,000 concurrent runs of 10 empty steps
long         one run of 5,000 steps: its first and its last hundred
replay       events per second when a run of 5,000 steps is replayed
hook         from a sent payload to the next step
idle         processor time and statements of a worker with nothing to do

What is fsynced: SQLite in WAL mode with synchronous=FULL, one fdatasync for each commit, in Holdfast and in the
floor alike. The floor of `sequential` is n + 1 raw commits (apsw, one row of the same number of bytes each) on
a database of its own in the same folder and in the same state of its WAL, measured in turns with the run
(A B A B …); the ratio is the median of the pairs. Times of one call are comparable with each other only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import apsw

import holdfast as hf
from holdfast.engine.tick import replay

began = asyncio.Event()


@hf.step
async def empty(number: int) -> int:
    began.set()
    return number


@hf.workflow
async def one_after_another(count: int) -> int:
    for number in range(count):
        await empty(number)
    return count


@hf.workflow
async def all_at_once(count: int) -> int:
    await asyncio.gather(*(empty(number) for number in range(count)))
    return count


@hf.workflow
async def answer_payloads(count: int) -> int:
    hook = hf.hook(f"bench:{hf.run_info().run_id}", type=int)
    for _ in range(count):
        await empty(await hook)
    return count


class Floor:
    """Raw durable commits, with nothing around them."""

    def __init__(self, folder: Path) -> None:
        self.db = apsw.Connection(str(folder / "floor.db"))
        for setting in ("journal_mode = WAL", "synchronous = FULL", "wal_autocheckpoint = 1000"):
            self.db.execute(f"PRAGMA {setting}").fetchall()
        self.db.execute("CREATE TABLE log (id INTEGER PRIMARY KEY, body TEXT)")
        self.run(4000, 400)  # a WAL that has reached its size, as a store's has

    def run(self, commits: int, size: int) -> float:
        body = "x" * size
        begun = time.perf_counter()
        for _ in range(commits):
            self.db.execute("INSERT INTO log (body) VALUES (?)", (body,))
        return time.perf_counter() - begun


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[hf.App]:
    async with hf.connect(f"sqlite:///{folder}/store.db") as app, app.worker():
        for _ in range(8):  # a warm WAL here too
            await (await app.start(one_after_another, 250)).result()
        yield app


async def timed(app: hf.App, workflow: Any, count: int) -> tuple[float, str]:
    begun = time.perf_counter()
    run = await app.start(workflow, count)
    await run.result()
    return time.perf_counter() - begun, run.id


def bytes_of(folder: Path, run_id: str) -> int:
    db = apsw.Connection(str(folder / "store.db"), flags=apsw.SQLITE_OPEN_READONLY)
    sql = """SELECT sum(length(type) + length(key) + length(body) + coalesce(length(uniq), 0) + 30)
             FROM events WHERE run = (SELECT row FROM runs WHERE run = ?)"""
    size = int(db.execute(sql, (run_id,)).fetchall()[0][0])
    db.close()
    return size


async def compare(
    folder: Path, workflow: Any, counts: list[int], repeat: int, commits: Callable[[int], int]
) -> list[dict[str, Any]]:
    floor, rows = Floor(folder), []
    async with serving(folder) as app:
        for count in counts:
            _, run_id = await timed(app, workflow, count)
            size = bytes_of(folder, run_id) // commits(count)
            pairs = []
            for _ in range(repeat):
                raw = floor.run(commits(count), size)
                took, _ = await timed(app, workflow, count)
                pairs.append((took, raw))
            rows.append(
                {
                    "shape": f"{workflow.name} {count}",
                    "ms": 1e3 * statistics.median(took for took, _ in pairs),
                    "floor_ms": 1e3 * statistics.median(raw for _, raw in pairs),
                    "ratio": statistics.median(took / raw for took, raw in pairs),
                    "floor": f"{commits(count)} commits of {size} bytes",
                }
            )
    return rows


async def sequential(folder: Path) -> list[dict[str, Any]]:
    return await compare(folder, one_after_another, [1, 10, 50], 30, lambda n: n + 1)


async def concurrent(folder: Path) -> list[dict[str, Any]]:
    return await compare(folder, all_at_once, [1, 10, 50], 30, lambda n: 2 if n == 1 else 3)


async def many(folder: Path) -> list[dict[str, Any]]:
    rows = []
    async with serving(folder) as app:
        for runs in (200, 1000):
            best = []
            for _ in range(5):
                begun = time.perf_counter()
                started = await asyncio.gather(*(app.start(one_after_another, 10) for _ in range(runs)))
                await asyncio.gather(*(run.result() for run in started))
                best.append(runs * 10 / (time.perf_counter() - begun))
            rows.append(
                {
                    "shape": f"{runs} runs x 10 steps",
                    "steps_per_s": statistics.median(best),
                    "min": min(best),
                    "max": max(best),
                }
            )
    return rows


async def long(folder: Path) -> list[dict[str, Any]]:
    ratios, first_ms, last_ms = [], [], []
    async with serving(folder) as app:
        for _ in range(3):
            _, run_id = await timed(app, one_after_another, 5000)
            times = [event.time async for event in app.run(run_id).events() if event.type == "step_completed"]
            first, last = times[100] - times[0], times[-1] - times[-101]
            first_ms.append(first / 1e3)
            last_ms.append(last / 1e3)
            ratios.append(last / first)
    return [
        {
            "shape": "5,000 steps",
            "first_100_ms": statistics.median(first_ms),
            "last_100_ms": statistics.median(last_ms),
            "ratio": statistics.median(ratios),
        }
    ]


async def replayed(folder: Path) -> list[dict[str, Any]]:
    async with serving(folder) as app:
        _, run_id = await timed(app, one_after_another, 5000)
        events = await app.store.read(run_id)
        rates = []
        for _ in range(7):
            begun = time.perf_counter()
            replay(one_after_another, await app.store.read(run_id)).bury()
            rates.append(len(events) / (time.perf_counter() - begun))
    return [{"shape": f"replay of {len(events)} events", "events_per_s": statistics.median(rates)}]


async def hook(folder: Path) -> list[dict[str, Any]]:
    floor, pairs = Floor(folder), []
    async with serving(folder) as app:
        run = await app.start(answer_payloads, 60)
        for number in range(60):
            raw = floor.run(2, 400)
            began.clear()
            begun = time.perf_counter()
            await app.resume(f"bench:{run.id}", number)
            await began.wait()  # the body runs: payload and start are both durable
            pairs.append((time.perf_counter() - begun, raw))
        await run.result()
    return [
        {
            "shape": "payload to next step",
            "ms": 1e3 * statistics.median(took for took, _ in pairs),
            "floor_ms": 1e3 * statistics.median(raw for _, raw in pairs),
            "floor": "2 commits",
        }
    ]


async def idle(folder: Path) -> list[dict[str, Any]]:
    async with serving(folder) as app:
        await asyncio.sleep(0.5)
        statements = 0

        def count(*_: object) -> bool:
            nonlocal statements
            statements += 1
            return True

        for name in ("_reader", "_writer"):
            connection = getattr(app.store, name)
            getattr(connection, "db", connection).exec_trace = count
        used, begun = sum(os.times()[:2]), time.perf_counter()
        await asyncio.sleep(10)
        seconds = time.perf_counter() - begun
        return [
            {
                "shape": "idle worker",
                "cpu_percent": 100 * (sum(os.times()[:2]) - used) / seconds,
                "statements_per_s": statements / seconds,
            }
        ]


SHAPES = {
    "sequential": sequential,
    "concurrent": concurrent,
    "many": many,
    "long": long,
    "replay": replayed,
    "hook": hook,
    "idle": idle,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shapes", nargs="*", metavar="SHAPE", help=", ".join(SHAPES))
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    options = parser.parse_args()
    for name in options.shapes or SHAPES:
        with tempfile.TemporaryDirectory(dir=os.environ.get("HOLDFAST_BENCH_DIR", ".")) as folder:
            for row in asyncio.run(SHAPES[name](Path(folder))):
                if options.json:
                    print(json.dumps(row), flush=True)
                else:
                    figures = (item for item in row.items() if item[0] != "shape")
                    shown = (f"{k} {v:,.2f}" if isinstance(v, float) else f"{v}" for k, v in figures)
                    print(f"{row['shape']:<28}", " · ".join(shown), flush=True)


if __name__ == "__main__":
    sys.exit(main())
