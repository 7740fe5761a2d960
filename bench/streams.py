"""Streams from process to process: `python bench/streams.py [SHAPE …] [--repeat N] [--json]`.

first      a step writes 50 chunks of 100 bytes: until the first is read, and until the last
pipeline   a source and 5 transforms, each a step that reads a stream and writes one, 1 MB in all of them
parallel   10 steps write 1 MB each, 10 readers
fan        a step deals 1 MB out to 10 streams, 10 transforms, one step merges them
latency    a chunk every 10 ms, 300 of them: from its write to its reading, and what the 300 take beyond 3 s

The worker, which writes, is a process of its own; this one starts the runs and reads. A run's time begins before
`app.start` and ends when the last byte has been read here. Megabytes are 1,048,576 bytes in chunks of 64 KiB.

What is fsynced: every chunk, before it can be read. SQLite in WAL mode with synchronous=FULL: one fdatasync for
each commit; what is written while one commit is under way shares the next. The floor, in turns with the run, is
the same bytes as rows of the same size in raw durable commits of at most 1 MiB (apsw, one process, nothing read).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path

import apsw

import holdfast as hf

BLOCK, BLOCKS = 64 * 1024, 16
GOALS = {"first": 10, "pipeline": 80, "parallel": 100, "fan": 200}
Shape = Callable[[hf.App], Awaitable[dict[str, float]]]


@hf.step
async def speak(count: int, size: int) -> None:
    async with hf.stream("out") as out:
        for _ in range(count):
            await out.write(b"x" * size)


@hf.step
async def transform(given: hf.Stream, out: hf.Stream) -> None:
    async with out:
        async for chunk in given:
            await out.write(chunk.data.swapcase())


@hf.step
async def fill(out: hf.Stream) -> None:
    async with out:
        for _ in range(BLOCKS):
            await out.write(b"x" * BLOCK)


@hf.step
async def deal(outs: list[hf.Stream]) -> None:
    for n in range(BLOCKS * 10):
        await outs[n % 10].write(b"x" * (BLOCK // 10))
    await asyncio.gather(*(out.end() for out in outs))


@hf.step
async def merge(given: list[hf.Stream], out: hf.Stream) -> None:
    async def pour(one: hf.Stream) -> None:
        async for chunk in one:
            await out.write(chunk.data)

    async with out:
        await asyncio.gather(*(pour(one) for one in given))


@hf.step
async def tick(count: int, interval: float) -> None:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with hf.stream("out") as out:
        for n in range(count):
            await asyncio.sleep(max(0, begun + (n + 1) * interval - loop.time()))
            await out.write(time.time())


@hf.workflow
async def first_workflow() -> None:
    await speak(50, 100)


@hf.workflow
async def pipeline_workflow() -> None:
    stages = [hf.stream(f"stage-{n}") for n in range(6)]
    await asyncio.gather(fill(stages[0]), *(transform(a, b) for a, b in pairwise(stages)))


@hf.workflow
async def parallel_workflow() -> None:
    await asyncio.gather(*(fill(hf.stream(f"out-{n}")) for n in range(10)))


@hf.workflow
async def fan_workflow() -> None:
    dealt = [hf.stream(f"dealt-{n}") for n in range(10)]
    changed = [hf.stream(f"changed-{n}") for n in range(10)]
    transforms = [transform(a, b) for a, b in zip(dealt, changed, strict=True)]
    await asyncio.gather(deal(dealt), *transforms, merge(changed, hf.stream("out")))


@hf.workflow
async def latency_workflow() -> None:
    await tick(300, 0.01)


async def read(run: hf.Run[None], name: str, size: int, begun: float) -> tuple[float, float]:
    """When the first chunk of a stream was read and when the last, in ms; checks that all of it came."""
    first = 0.0
    got = 0
    async for chunk in run.stream(name):
        first = first or ms(begun)
        got += len(chunk.body)
    assert got == size, f"{name}: {got} bytes of {size}"
    return first, ms(begun)


def ms(begun: float) -> float:
    return 1000 * (time.perf_counter() - begun)


async def first(app: hf.App) -> dict[str, float]:
    begun = time.perf_counter()
    run = await app.start(first_workflow)
    byte, whole = await read(run, "out", 5000, begun)
    return {"first byte": byte, "whole": whole}


async def pipeline(app: hf.App) -> dict[str, float]:
    begun = time.perf_counter()
    run = await app.start(pipeline_workflow)
    byte, whole = await read(run, "stage-5", BLOCK * BLOCKS, begun)
    return {"first byte": byte, "whole": whole}


async def parallel(app: hf.App) -> dict[str, float]:
    begun = time.perf_counter()
    run = await app.start(parallel_workflow)
    reads = await asyncio.gather(*(read(run, f"out-{n}", BLOCK * BLOCKS, begun) for n in range(10)))
    return {"first byte": min(byte for byte, _ in reads), "whole": max(whole for _, whole in reads)}


async def fan(app: hf.App) -> dict[str, float]:
    begun = time.perf_counter()
    run = await app.start(fan_workflow)
    byte, whole = await read(run, "out", BLOCK // 10 * 10 * BLOCKS, begun)
    return {"first byte": byte, "whole": whole}


async def latency(app: hf.App) -> dict[str, float]:
    run = await app.start(latency_workflow)
    delays, written = [], []
    async for chunk in run.stream("out"):
        delays.append(1000 * (time.time() - chunk.data))
        written.append(chunk.data)
    begun = written[0] - 0.01
    delays_sorted = sorted(delays)
    return {
        "write to read": statistics.median(delays),
        "p99": delays_sorted[len(delays) * 99 // 100],
        "overhead of 300": 1000 * (time.time() - begun) - 3000,
    }


SHAPES: dict[str, tuple[Shape, list[int]]] = {
    "first": (first, [5000]),
    "pipeline": (pipeline, [BLOCK * BLOCKS] * 6),
    "parallel": (parallel, [BLOCK * BLOCKS] * 10),
    "fan": (fan, [BLOCK * BLOCKS] * 3),
    "latency": (latency, []),
}


class Floor:
    """The same bytes in raw durable commits."""

    def __init__(self, folder: Path) -> None:
        self.db = apsw.Connection(str(folder / "floor.db"))
        for setting in ("journal_mode = WAL", "synchronous = FULL", "wal_autocheckpoint = 1000"):
            self.db.execute(f"PRAGMA {setting}").fetchall()
        self.db.execute("CREATE TABLE log (id INTEGER PRIMARY KEY, body BLOB)")
        self.run([BLOCK * BLOCKS] * 8)  # a WAL that has reached its size, as a store's has

    def run(self, commits: list[int]) -> float:
        begun = time.perf_counter()
        for size in commits:
            rows = [(b"x" * min(BLOCK, size),)] * max(1, size // BLOCK)
            self.db.execute("BEGIN IMMEDIATE")
            self.db.executemany("INSERT INTO log (body) VALUES (?)", rows).fetchall()
            self.db.execute("COMMIT")
        return ms(begun)


async def serve(url: str) -> None:
    async with hf.connect(url) as app, app.worker():
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def measure(names: list[str], repeat: int) -> dict[str, dict[str, list[float]]]:
    with tempfile.TemporaryDirectory() as folder:
        floor = Floor(Path(folder))
        url = f"sqlite:///{folder}/bench.db"
        command = [sys.executable, __file__, "--serve", url]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            await asyncio.to_thread(child.stdout.readline)
            try:
                async with hf.connect(url) as app:
                    return await in_turns(app, floor, names, repeat)
            finally:
                child.communicate()


async def in_turns(
    app: hf.App, floor: Floor, names: list[str], repeat: int
) -> dict[str, dict[str, list[float]]]:
    found: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    for turn in range(repeat + 2):
        for name in names:
            shape, commits = SHAPES[name]
            if name == "latency" and turn not in (2, 3):
                continue  # 3 s each
            figures = await shape(app)
            if commits:
                figures["floor"] = floor.run(commits)
            if turn >= 2:  # the first two warm both sides
                for what, value in figures.items():
                    found[name].setdefault(what, []).append(value)
    return found


def report(found: dict[str, dict[str, list[float]]]) -> None:
    for name, figures in found.items():
        goal = f"   (goal {GOALS[name]} ms)" if name in GOALS else ""
        print(f"{name}{goal}")
        for what, values in figures.items():
            middle, low, high = statistics.median(values), min(values), max(values)
            print(f"  {what:<16} {middle:8.2f} ms   ({low:.2f} to {high:.2f}, n={len(values)})")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shapes", nargs="*", metavar="SHAPE", help=", ".join(SHAPES))
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", metavar="URL", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        asyncio.run(serve(given.serve))
        return
    unknown = set(given.shapes) - set(SHAPES)
    if unknown:
        parser.error(f"no shape {', '.join(sorted(unknown))}: there are {', '.join(SHAPES)}")
    found = asyncio.run(measure(given.shapes or list(SHAPES), given.repeat))
    print(json.dumps(found)) if given.json else report(found)


if __name__ == "__main__":
    main()
