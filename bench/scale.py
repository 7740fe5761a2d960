"""What bounds one PostgreSQL: crowds on 1, 2 and 4 workers, what each step costs whom, and a model of it.

    python bench/scale.py [--workers 1 2 4] [--runs 200] [--rounds 3] [--json]

Each round starts so many workers, processes of their own, and lets them do RUNS runs of ten empty steps at once;
the numbers of workers take turns (1 2 4, 1 2 4, …), so that a slow minute is everybody's. Counted around each
crowd: processor seconds of the workers, of all processes of the server and of the client that starts the runs
(/proc), transactions that wrote (transaction ids) and bytes of the write-ahead log. PostgreSQL has its durable
defaults: fsync and synchronous_commit on.

The model (docs/scale.md tells it in words) has one law for prices and one for rates:

    price    a step costs processor seconds  d = a + b · (commits a step), for workers and server each
    rate     steps/s = the least of  W · u / d_worker  and  K / (d_worker + d_server + d_client)

a and b are fitted to all points. K, the cores that all of it had at most, and u, the share of a core that a lone
worker had, are fitted to the rates; on a quiet machine they are its cores and 1. What the model says beside what
was measured tells whether to believe it; then it says what other machines would give, where every worker has a
core and the server has its own.
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
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import workers as side

import holdfast as hf
from holdfast.bench.place import postgres
from holdfast.errors import StoreError

TICK = os.sysconf("SC_CLK_TCK")
STEPS = 10
LOG_RATE = 200e6
"""Bytes that the disk of a server's log takes in a second, synced: an assumption, as of a good cloud volume."""
LARGER = (1, 4, 16, 64)
"""Workers for which the model says what they would do."""
LOOK = "SELECT txid_current() AS commits, pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint AS wal"


class Point(NamedTuple):
    """A crowd: what a step cost, and how many there were in a second."""

    workers: int
    rate: float
    commits: float
    wal: float
    worker_cpu: float
    server_cpu: float
    client_cpu: float


class Line(NamedTuple):
    """d = a + b · x."""

    a: float
    b: float

    def at(self, x: float) -> float:
        return self.a + self.b * x


class Model(NamedTuple):
    worker: Line
    server: Line
    client: float
    cores: float
    share: float

    def rate(self, workers: int, commits: float) -> float:
        """Steps/s of so many workers that share these cores with the server and the client."""
        worker, server = self.worker.at(commits), self.server.at(commits)
        return min(workers * self.share / worker, self.cores / (worker + server + self.client))

    def apart(self, workers: int, cores: float, last: Point) -> tuple[float, str]:
        """Steps/s where every worker has a core and the server has its own; and what bounds them."""
        bounds = {
            "workers": workers / self.worker.at(last.commits),
            "server": cores / self.server.at(last.commits),
            "log": LOG_RATE / last.wal,
        }
        name = min(bounds, key=lambda bound: bounds[bound])
        return bounds[name], name


# ---- fitting


def fit(points: Sequence[Point]) -> Model:
    """The model of these points: least squares, with prices that are not below zero."""
    commits = [point.commits for point in points]
    worker = line(commits, [point.worker_cpu for point in points])
    server = line(commits, [point.server_cpu for point in points])
    client = statistics.mean(point.client_cpu for point in points)
    asked = [point.rate * (worker.at(point.commits) + server.at(point.commits) + client) for point in points]
    lone = min(points, key=lambda point: point.workers)
    share = min(1.0, lone.rate / lone.workers * worker.at(lone.commits))
    return Model(worker, server, client, max(asked), share)


def line(x: Sequence[float], y: Sequence[float]) -> Line:
    """The straight line through points; level or through zero where its slope or start would be negative."""
    if max(x) - min(x) < 1e-9:
        return Line(statistics.mean(y), 0.0)
    slope, start = statistics.linear_regression(x, y)
    if slope < 0:
        return Line(statistics.mean(y), 0.0)
    if start < 0:
        return Line(0.0, sum(a * b for a, b in zip(x, y, strict=True)) / sum(a * a for a in x))
    return Line(start, slope)


# ---- measuring


def cpu_of(pids: Sequence[int]) -> float:
    """Processor seconds of these processes, and of their children."""
    parents: dict[int, list[int]] = {}
    used: dict[int, float] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        pid = int(stat.parent.name)
        parents.setdefault(int(fields[1]), []).append(pid)
        used[pid] = (int(fields[11]) + int(fields[12])) / TICK
    total, rest = 0.0, list(pids)
    while rest:
        pid = rest.pop()
        total += used.get(pid, 0.0)
        rest += parents.get(pid, ())
    return total


async def crowd(url: str, postmaster: int, count: int, runs: int, label: str) -> Point:
    import asyncpg

    look = await asyncpg.connect(url)
    with side.workers(url, count) as started:
        pids = [worker.process.pid for worker in started]
        async with hf.connect(url) as app:
            await side.crowd(app, 20, f"warm-{label}")
            before, begun = await look.fetchrow(LOOK), time.perf_counter()
            used = cpu_of(pids), cpu_of([postmaster]), time.process_time()
            await side.crowd(app, runs, label)
            taken = time.perf_counter() - begun
            spent = cpu_of(pids) - used[0], cpu_of([postmaster]) - used[1], time.process_time() - used[2]
            after = await look.fetchrow(LOOK)
    await look.close()
    steps = runs * STEPS
    counted = [(after[name] - before[name]) / steps for name in ("commits", "wal")]
    return Point(count, steps / taken, *counted, *(seconds / steps for seconds in spent))


async def measure(url: str, postmaster: int, given: argparse.Namespace) -> list[Point]:
    """The medians of each number of workers."""
    taken: dict[int, list[Point]] = {count: [] for count in given.workers}
    for turn in range(given.rounds):
        for count in given.workers:
            print(f"… round {turn + 1} of {given.rounds}: {count} workers", file=sys.stderr, flush=True)
            label = f"scale-{turn}-{count}"
            taken[count].append(await crowd(url, postmaster, count, given.runs, label))
    return [Point(*map(statistics.median, zip(*points, strict=True))) for points in taken.values()]


# ---- telling


def report(points: Sequence[Point], model: Model) -> None:
    print("workers   steps/s   model    ×   commits/step  WAL B/step   µs a step: worker  server  client")
    for point in points:
        said = model.rate(int(point.workers), point.commits)
        print(
            f"{point.workers:7.0f}  {point.rate:8,.0f}  {said:6,.0f}  {said / point.rate:4.2f}  "
            f"{point.commits:11.3f}  {point.wal:10,.0f}   {point.worker_cpu * 1e6:17,.0f}  "
            f"{point.server_cpu * 1e6:6,.0f}  {point.client_cpu * 1e6:6,.0f}"
        )
    worker, server = model.worker, model.server
    print(
        f"\nworker: {worker.a * 1e6:,.0f} µs a step and {worker.b * 1e6:,.0f} µs a commit; "
        f"server: {server.a * 1e6:,.0f} and {server.b * 1e6:,.0f}\n"
        f"all of it had {model.cores:.2f} cores at most, a lone worker {model.share:.2f}"
    )
    print(
        f"\nWith a core for every worker, a server of its own and a log of {LOG_RATE / 1e6:,.0f} MB/s: "
        "steps/s, and what bounds them"
    )
    for cores in (2, 8, 32):
        rates = (model.apart(count, cores, points[-1]) for count in LARGER)
        said = [f"{rate:8,.0f} {name:7}" for rate, name in rates]
        print(f"  server of {cores:2} cores   " + "  ".join(said))
    print("          workers   " + "  ".join(f"{count:8}        " for count in LARGER).rstrip())


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    words.add_argument("--runs", type=int, default=200)
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--json", action="store_true", help="one object a line: the points, then the model")
    given = words.parse_args()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="holdfast-scale-"))
        try:
            url = stack.enter_context(postgres(Path(folder)))
        except StoreError as error:
            raise SystemExit(str(error)) from None
        postmaster = int((Path(folder) / "postmaster.pid").read_text().split()[0])
        points = asyncio.run(measure(url, postmaster, given))
    model = fit(points)
    if given.json:
        for found in (*points, model):
            print(json.dumps(found._asdict()))
    else:
        report(points, model)


if __name__ == "__main__":
    main()
