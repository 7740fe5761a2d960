"""How near streams of megabytes can come to their goals on PostgreSQL: the smallest programs, in turns with it.

    python bench/stream_floor.py [--store URL] [--rounds 15] [--json]

Two shapes of `holdfast bench`: a megabyte through five transforms, each of which reads what the one before has
committed; and ten streams of a megabyte at once. A megabyte is 16 chunks of 64 KiB, one statement and one commit
(fsync=on, synchronous_commit=on: one flush of the server's log). Each side reads on a second connection, and only
what is committed. They take turns in one process, each turn in another order:

- `floor`: a table of (run, stream, position, body), a hash over the chunks as each chain needs one (blake2b), the
  bytes as one parameter that the server cuts into rows. No engine, no steps, no news: a reader is called when the
  commit has returned.
- `array`: the same with the chunks as an array, which is what asyncpg makes of a list.
- `external`: as `floor`, in a table whose column is EXTERNAL, so that the server compresses nothing. The chunks
  are all one letter, so this writes 75 times as much to the log.
- `copy`: as `floor`, by COPY in its binary format.
- `holdfast`: as it is.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from hashlib import blake2b
from pathlib import Path
from typing import Any

import holdfast as hf
from holdfast.bench.place import postgres
from holdfast.bench.streams import BLOCK, BLOCKS, MEGABYTE
from holdfast.bench.streams import parallel as parallel_flow
from holdfast.bench.streams import pipeline as pipeline_flow

TRANSFORMS, STREAMS = 5, 10
STARTS = [1 + BLOCK * number for number in range(BLOCKS)]
POSITIONS = list(range(1, BLOCKS + 1))
Sides = dict[str, dict[str, Callable[[], Awaitable[object]]]]
Times = dict[str, dict[str, list[float]]]


class Floor:
    PACKED = (
        "INSERT INTO {} SELECT $1, $2, position, substring($3::bytea FROM start FOR $4) "
        "FROM unnest($5::integer[], $6::integer[]) AS c (position, start)"
    )
    ARRAY = "INSERT INTO {} SELECT $1, $2, c.* FROM unnest($3::integer[], $4::bytea[]) AS c"
    READ = "SELECT position, body FROM {} WHERE run = $1 AND stream = $2 ORDER BY position"

    def __init__(self, writing: Any, reading: Any, how: str) -> None:
        self.writing, self.reading, self.how = writing, reading, how
        self.table = f"stream_floor_{how}"
        self.run = 0

    @classmethod
    async def open(cls, url: str, how: str) -> Floor:
        import asyncpg

        floor = cls(await asyncpg.connect(url), await asyncpg.connect(url), how)
        await floor.writing.execute(
            f"DROP TABLE IF EXISTS {floor.table}; "
            f"CREATE TABLE {floor.table} (run bigint, stream integer, position integer, body bytea, "
            "PRIMARY KEY (run, stream, position))"
        )
        if how == "external":
            await floor.writing.execute(f"ALTER TABLE {floor.table} ALTER body SET STORAGE EXTERNAL")
        return floor

    async def write(self, stream: int, chunks: list[bytes]) -> None:
        chain = b""
        for chunk in chunks:
            digest = blake2b(chain, digest_size=16)
            digest.update(chunk)
            chain = digest.digest()
        if self.how == "array":
            await self.writing.fetch(self.ARRAY.format(self.table), self.run, stream, POSITIONS, chunks)
        elif self.how == "copy":
            rows = [(self.run, stream, position, chunk) for position, chunk in enumerate(chunks, 1)]
            await self.writing.copy_records_to_table(self.table, records=rows)
        else:
            await self.writing.fetch(
                self.PACKED.format(self.table), self.run, stream, b"".join(chunks), BLOCK, POSITIONS, STARTS
            )

    async def read(self, stream: int) -> list[bytes]:
        rows = await self.reading.fetch(self.READ.format(self.table), self.run, stream)
        return [body for _, body in rows]

    async def pipeline(self) -> None:
        self.run += 1
        chunks = [b"x" * BLOCK for _ in range(BLOCKS)]
        await self.write(0, chunks)
        for stage in range(TRANSFORMS):
            await self.write(stage + 1, [chunk.swapcase() for chunk in await self.read(stage)])
        assert sum(map(len, await self.read(TRANSFORMS))) == MEGABYTE

    async def parallel(self) -> None:
        self.run += 1
        read = asyncio.Queue[int | None]()

        async def reads() -> None:
            while (stream := await read.get()) is not None:
                assert sum(map(len, await self.read(stream))) == MEGABYTE

        reader = asyncio.create_task(reads())
        for stream in range(STREAMS):
            await self.write(stream, [b"x" * BLOCK for _ in range(BLOCKS)])
            read.put_nowait(stream)
        read.put_nowait(None)
        await reader

    async def close(self) -> None:
        await self.writing.execute(f"DROP TABLE {self.table}")
        await self.writing.close()
        await self.reading.close()


async def ours(app: hf.App, flow: Any, size: int, names: list[str]) -> None:
    run = await app.start(flow, size)

    async def read(name: str) -> None:
        assert sum([len(chunk.body) async for chunk in run.stream(name)]) == MEGABYTE

    await asyncio.gather(*(read(name) for name in names))
    await run.result()


async def measure(url: str, rounds: int) -> Times:
    taken: Times = {"pipeline": {}, "parallel": {}}
    async with hf.connect(url) as app, app.worker(concurrency=1000):
        floors = {name: await Floor.open(url, name) for name in ("floor", "array", "external", "copy")}
        sides: Sides = {
            "pipeline": {name: floor.pipeline for name, floor in floors.items()},
            "parallel": {name: floor.parallel for name, floor in floors.items()},
        }
        outs = [f"out-{number}" for number in range(STREAMS)]
        sides["pipeline"]["holdfast"] = lambda: ours(app, pipeline_flow, TRANSFORMS, [f"stage-{TRANSFORMS}"])
        sides["parallel"]["holdfast"] = lambda: ours(app, parallel_flow, STREAMS, outs)
        for turn in range(-2, rounds):
            for shape, those in sides.items():
                for name, go in random.sample(list(those.items()), len(those)):
                    begun = time.perf_counter()
                    await go()
                    if turn >= 0:
                        taken[shape].setdefault(name, []).append((time.perf_counter() - begun) * 1000)
        for floor in floors.values():
            await floor.close()
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", help="URL of a database; without it, a server of its own")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with ExitStack() as stack:
        url = options.store
        if url is None:
            here = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="."))).absolute()
            url = stack.enter_context(postgres(here / "server"))
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start", file=sys.stderr)
        found = asyncio.run(measure(url, options.rounds))
    for shape, taken in found.items():
        for name, times in taken.items():
            pairs = [a / b for a, b in zip(times, taken["floor"], strict=True)]
            row = {
                "shape": shape, "side": name, "ms": statistics.median(times), "least": min(times),
                "by_floor": statistics.median(pairs),
            }  # fmt: skip
            if options.json:
                print(json.dumps(row), flush=True)
                continue
            print(
                f"{shape} {name:<9} {row['ms']:6.1f} ms, least {row['least']:6.1f}, by floor {row['by_floor']:.2f}"
            )


if __name__ == "__main__":
    main()
