"""How near Holdfast can come to its goals on this machine: the smallest program, in turns with it.

    python bench/step_floor.py [--runs 1000] [--processes 1 2] [--steps 50] [--rounds 5] [--json]

The program keeps no promise of Holdfast's: it has no engine, no replay, no fence, no leases, no answers. It does
what no durable step of an async function can do without: a task for the body, its arguments and result as JSON,
the hash over the log, and the rows of a step (three events, the run's row moved on, one row of `steps` put and
one taken) in the very tables of Holdfast, in groups as large as Holdfast's, each group one durable commit. SQLite
by apsw in WAL mode with synchronous=FULL, PostgreSQL by asyncpg with synchronous_commit=on, one statement a group.

`engine` is that program with the three things that no engine for this code goes without: the workflow is a task
on an inner loop of its own (so that it may `gather`), watched while it runs by a profile function that does
nothing (beside an audit hook that does nothing, see `replay_floor.py`); each append is judged against the run's
head in memory before it is written; who started the run waits for its end. It still has no replay, names,
retries, cancellation, timers or leases, and no second process may touch its runs.

`floor`, `engine` and `holdfast` run crowds of runs of ten empty steps, A B C A B C …; with two processes each has
half of them, and advances the runs that it starts itself. In all of them the garbage collector looks as rarely as
in `holdfast worker`. Then a sequence: one run of `--steps` steps, five times a round, beside as many raw commits
and one (`raw`: the floor of `holdfast bench`, 300 bytes each, about what the append of a step holds). What no
floor reaches on a machine, no engine in front of it will.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from asyncio import events
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from contextvars import copy_context
from functools import partial
from hashlib import blake2b
from operator import truediv
from pathlib import Path
from typing import Any

import msgspec
from replay_floor import Queue, nothing

import holdfast as hf
from holdfast.bench.floor import floor_of
from holdfast.bench.place import Where, postgres
from holdfast.cli.collector import collect_rarely
from holdfast.errors import StoreError

STEPS = 10
SEQUENCES = 5
"""Sequences in a round: the median of their ratios counts."""
BYTES = 300
encode, decode = msgspec.json.encode, msgspec.json.decode


@hf.step(name="step-floor.empty")
async def empty(number: int) -> int:
    return number


@hf.workflow(name="step-floor.sequence")
async def sequence(steps: int) -> int:
    for number in range(steps):
        await empty(number)
    return steps


async def body(number: int) -> int:
    return number


# ---- the floor


class Groups:
    """Appends that wait at one moment, written together: `largest` at most, one group at a time."""

    largest = 128

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.pending: list[tuple[Any, asyncio.Future[None]]] = []
        self.busy = False

    def append(self, rows: Any) -> asyncio.Future[None]:
        future = self.loop.create_future()
        if not self.pending and not self.busy:
            self.loop.call_soon(self.flush)
        self.pending.append((rows, future))
        return future

    def flush(self) -> None:
        group, self.pending = self.pending[: self.largest], self.pending[self.largest :]
        self.busy = True
        self.write(group)

    def done(self, group: list[tuple[Any, asyncio.Future[None]]]) -> None:
        self.busy = False
        for _, future in group:
            future.set_result(None)
        if self.pending:
            self.loop.call_soon(self.flush)

    def write(self, group: list[tuple[Any, asyncio.Future[None]]]) -> None:
        raise NotImplementedError


class Sqlite(Groups):
    RUN = (
        "INSERT INTO runs (row, run, workflow, status, position, time, chain, command, fact, delivered, steps, "
        "timers, created, attributes) VALUES (?, ?, 'floor', 'running', 0, 0, x'', 0, 0, 0, 0, 0, ?, '')"
    )
    MOVE = (
        "UPDATE runs SET chain = ?, position = ?, time = ?, command = ?, fact = ?, steps = 1 "
        "WHERE row = ? AND chain = ?"
    )
    EVENT = (
        "INSERT INTO events (run, position, type, key, time, body, uniq, chain, batch, first, fence) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    )
    PUT = "INSERT INTO steps (run, key, attempt) VALUES (?, ?, 1)"
    DROP = "DELETE FROM steps WHERE run = ? AND key = ?"

    async def open(self, url: str) -> None:
        import apsw

        self.db = apsw.Connection(url.removeprefix("sqlite:///"))
        self.db.set_busy_timeout(60_000)
        for pragma in ("journal_mode = WAL", "synchronous = FULL"):
            self.db.execute(f"PRAGMA {pragma}").fetchall()

    def write(self, group: list[tuple[Any, asyncio.Future[None]]]) -> None:
        db = self.db
        created, moved, events, put, dropped = columns([rows for rows, _ in group])
        db.execute("BEGIN IMMEDIATE")
        if created:
            db.executemany(self.RUN, created)
        db.executemany(self.MOVE, moved)
        db.executemany(self.EVENT, events)
        db.executemany(self.PUT, put)
        db.executemany(self.DROP, dropped)
        db.execute("COMMIT")
        self.done(group)


class Postgres(Groups):
    WRITE = """
        WITH made AS (
            INSERT INTO holdfast.runs (id, run, workflow, status, position, time, chain, command, fact, delivered,
                                       steps, timers, children, created, attributes)
            SELECT id, run, 'floor', 'running', 3, time, chain, 3, 1, 0, 1, 0, 0, time, ''
            FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::bytea[]) AS r (id, run, time, chain)
        ), moved AS (
            UPDATE holdfast.runs SET chain = m.chain, position = m.position, time = m.time, command = m.command,
                fact = m.fact, steps = 1
            FROM unnest($5::bytea[], $6::integer[], $7::bigint[], $8::integer[], $9::integer[], $10::bigint[],
                        $11::bytea[]) AS m (chain, position, time, command, fact, id, before)
            WHERE runs.id = m.id AND runs.chain = m.before
        ), logged AS (
            INSERT INTO holdfast.events (run, position, type, key, time, body, uniq, chain, batch, first, fence)
            SELECT * FROM unnest($12::bigint[], $13::integer[], $14::text[], $15::text[], $16::bigint[],
                                 $17::text[], $18::text[], $19::bytea[], $20::text[], $21::integer[],
                                 $22::integer[])
        ), put AS (
            INSERT INTO holdfast.steps (run, key, attempt)
            SELECT run, key, 1 FROM unnest($23::bigint[], $24::text[]) AS s (run, key)
        )
        DELETE FROM holdfast.steps USING unnest($25::bigint[], $26::text[]) AS d (run, key)
        WHERE steps.run = d.run AND steps.key = d.key"""

    async def open(self, url: str) -> None:
        import asyncpg

        self.db = await asyncpg.connect(url, server_settings={"plan_cache_mode": "force_generic_plan"})

    def write(self, group: list[tuple[Any, asyncio.Future[None]]]) -> None:
        self.task = self.loop.create_task(self.send(group))

    async def send(self, group: list[tuple[Any, asyncio.Future[None]]]) -> None:
        created, moved, events, put, dropped = columns([rows for rows, _ in group])
        first = {row[5]: row for row in moved if row[6] == b""}
        made = [(id, run, time, first[id][0]) for id, run, time in created]
        moved = [row for row in moved if row[6] != b""]
        parts = ((made, 4), (moved, 7), (events, 11), (put, 2), (dropped, 2))
        await self.db.fetch(self.WRITE, *(c for rows, width in parts for c in turned(rows, width)))
        self.done(group)


def turned(rows: list[Any], width: int) -> list[Any]:
    return list(zip(*rows, strict=True)) if rows else [()] * width


def columns(appends: list[Any]) -> tuple[list[Any], ...]:
    created: list[Any] = []
    moved, events, put, dropped = [], [], [], []
    for creates, moves, logs, puts, drops in appends:
        if creates is not None:
            created.append(creates)
        moved.append(moves)
        events += logs
        if puts is not None:
            put.append(puts)
        if drops is not None:
            dropped.append(drops)
    return created, moved, events, put, dropped


async def one(store: Groups, row: int, name: str, steps: int, code: Code | None = None) -> None:
    """A run: one append more than it has steps, the last one without a next step."""
    head = Head()
    done: list[tuple[str, str, Any, str]] = [("run_created", "", {"workflow": "floor"}, "created")]
    number = 0 if code is None else code.go_on()
    for turn in range(steps + 1):
        key, drop = f"empty#{turn + 1}", f"empty#{turn}" if turn else None
        drafts = done
        if turn < steps:
            drafts = [
                *done,
                ("step_scheduled", key, {"args": {"number": number}}, f"step {key}"),
                ("step_started", key, {"attempt": 1, "worker": "wrk_floor"}, f"step {key} attempt 1 started"),
            ]
        if code is not None:
            judge(head, turn and head.position, drafts)
        before, first, moment = head.chain, head.position + 1, time.time_ns() // 1000
        parts, rows = [before], []
        for type_, of, data, unique in drafts:
            head.position += 1
            text = encode(data)
            parts += f"{head.position}\0{type_}\0{of}\0{moment}\0{len(text)}\0".encode(), text
            rows.append(
                [row, head.position, type_, of, moment, text.decode(), unique, None, None, None, None]
            )
        head.chain = chain = blake2b(b"".join(parts), digest_size=16).digest()
        rows[-1][7:] = chain, f"{name}.{turn}", first, first - 1
        creates = (row, name, moment) if turn == 0 else None
        put, dropped = (row, key) if turn < steps else None, None if drop is None else (row, drop)
        moves = (chain, head.position, moment, head.position - 1, first, row, before)
        await store.append((creates, moves, rows, put, dropped))
        if turn < steps:
            args = decode(encode({"number": number}), type=dict[str, int])
            value = await asyncio.create_task(body(**args))
            result = msgspec.Raw(encode(value))
            back = decode(result, type=int)
            number = turn + 1 if code is None else code.go_on(back)
            done = [("step_completed", key, {"attempt": 1, "value": result}, f"step {key} attempt 1 ended")]


class Head:
    """What is remembered of a run; an engine's appends are judged by it."""

    __slots__ = ("chain", "open", "position")

    def __init__(self) -> None:
        self.chain, self.position, self.open = b"", 0, set[str]()


def judge(head: Head, after: int, drafts: list[tuple[str, str, Any, str]]) -> None:
    """The fence, and that each step is scheduled once and ends once. Raises ValueError."""
    if after != head.position:
        raise ValueError("conflict")
    for type_, key, _, _ in drafts:
        if type_ == "step_scheduled":
            if key in head.open:
                raise ValueError("scheduled twice")
            head.open.add(key)
        elif type_ == "step_completed":
            head.open.remove(key)


class Code:
    """The code of a run, as a task on a loop that is one queue; watched while it runs."""

    on, off = staticmethod(partial(sys.setprofile, nothing)), staticmethod(partial(sys.setprofile, None))

    def __init__(self, steps: int) -> None:
        self.loop: Any = Queue()  # type: ignore[abstract]
        self.asked: int | None = None
        self.waiting: Any = None
        self.task: Any = asyncio.Task(self.sequence(steps), loop=self.loop, context=copy_context())

    async def sequence(self, steps: int) -> int:
        for number in range(steps):
            await self.empty(number)
        return steps

    async def empty(self, number: int) -> Any:
        self.off()
        self.asked = number
        self.waiting = asyncio.Future(loop=self.loop)
        try:
            return await self.waiting
        finally:
            self.on()

    def go_on(self, value: int | None = None) -> int | None:
        """Run the code on, with a step's result or from its beginning: the step that it asks for."""
        outer, self.asked = asyncio.get_running_loop(), None
        events._set_running_loop(self.loop)
        if self.waiting is None:
            self.on()
        else:
            self.waiting.set_result(value)
        self.loop.run()
        self.off()
        events._set_running_loop(outer)
        return self.asked


# ---- a process of either side


Crowd = Callable[[int, int, int], Any]
"""Do, in this turn, so many runs of so many steps."""


@asynccontextmanager
async def raw(url: str) -> AsyncIterator[Crowd]:
    commits = await floor_of(Where(url.partition(":")[0], url, url))
    assert commits is not None

    async def crowd(_turn: int, runs: int, steps: int) -> None:
        await commits.run(runs * (steps + 1), BYTES)

    yield crowd
    await commits.close()


@asynccontextmanager
async def floor(url: str) -> AsyncIterator[Crowd]:
    store = Sqlite() if url.startswith("sqlite") else Postgres()
    await store.open(url)

    async def crowd(turn: int, runs: int, steps: int) -> None:
        base = (os.getpid() << 32) + (turn << 20)
        await asyncio.gather(*(one(store, base + n, f"floor-{base + n}", steps) for n in range(runs)))

    yield crowd


@asynccontextmanager
async def engine(url: str) -> AsyncIterator[Crowd]:
    store = Sqlite() if url.startswith("sqlite") else Postgres()
    await store.open(url)
    sys.addaudithook(nothing)

    async def crowd(turn: int, runs: int, steps: int) -> None:
        base = (os.getpid() << 32) + (turn << 20)

        async def one_run(row: int) -> None:
            await asyncio.create_task(one(store, row, f"engine-{row}", steps, Code(steps)))

        await asyncio.gather(*(one_run(base + n) for n in range(runs)))

    yield crowd


@asynccontextmanager
async def holdfast(url: str) -> AsyncIterator[Crowd]:
    async with hf.connect(url) as app, app.worker(concurrency=1000):

        async def crowd(_turn: int, runs: int, steps: int) -> None:
            async def one_run() -> None:
                await (await app.start(sequence, steps)).result()

            await asyncio.gather(*(one_run() for _ in range(runs)))

        yield crowd


SIDES = {"raw": raw, "floor": floor, "engine": engine, "holdfast": holdfast}
CROWDS = ("floor", "engine", "holdfast")


async def side(name: str, url: str) -> None:
    """For each line that comes (runs and steps), a crowd; says the time it took, and the processor time."""
    collect_rarely()
    async with SIDES[name](url) as crowd:
        print("ready", flush=True)
        loop, turn = asyncio.get_running_loop(), 0
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            runs, steps = map(int, line.split())
            turn, used, begun = turn + 1, time.process_time(), time.perf_counter()
            await crowd(turn, runs, steps)
            print(time.perf_counter() - begun, time.process_time() - used, flush=True)


class Process:
    def __init__(self, name: str, url: str) -> None:
        self.child = subprocess.Popen(
            [sys.executable, __file__, "--side", name, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if self.hear() != "ready\n":
            raise RuntimeError(f"{name} did not start")

    def hear(self) -> str:
        assert self.child.stdout is not None
        return self.child.stdout.readline()

    def hear_times(self) -> tuple[float, float]:
        """Seconds of the last crowd: on the clock, and of processor time."""
        taken, used = map(float, self.hear().split())
        return taken, used

    def tell(self, line: str) -> None:
        assert self.child.stdin is not None
        self.child.stdin.write(line)
        self.child.stdin.flush()

    def leave(self) -> None:
        self.child.communicate(timeout=60)


# ---- the whole


def measure(url: str, processes: int, options: argparse.Namespace) -> dict[str, Any]:
    sides: dict[str, list[Process]] = {name: [] for name in CROWDS}
    rates: dict[str, list[float]] = {name: [] for name in sides}
    used: dict[str, list[float]] = {name: [] for name in sides}
    try:
        for name in sides:
            while len(sides[name]) < processes:
                sides[name].append(Process(name, url))
        for turn in range(-1, options.rounds):
            runs = options.runs // processes if turn >= 0 else 20
            for name, those in sides.items():
                begun = time.perf_counter()
                for process in those:
                    process.tell(f"{runs} {STEPS}\n")
                cpu = sum(process.hear_times()[1] for process in those)
                if turn >= 0:
                    steps = runs * processes * STEPS
                    rates[name].append(steps / (time.perf_counter() - begun))
                    used[name].append(cpu / steps * 1e6)
    finally:
        for those in sides.values():
            for process in those:
                process.leave()
    pairs = [ours / least for ours, least in zip(rates["holdfast"], rates["floor"], strict=True)]
    return {
        "store": url.partition(":")[0],
        "processes": processes,
        "runs": options.runs,
        **{f"{name}_rate": statistics.median(rates[name]) for name in sides},
        **{f"{name}_cpu_us": statistics.median(used[name]) for name in sides},
        **{f"{name}_best": max(rates[name]) for name in sides},
        "paired": statistics.median(pairs),
    }


def measure_sequence(url: str, options: argparse.Namespace) -> dict[str, Any]:
    sides = {name: Process(name, url) for name in SIDES}
    taken: dict[str, list[float]] = {name: [] for name in SIDES}
    used: dict[str, list[float]] = {name: [] for name in SIDES}
    try:
        for turn in range(-2, options.rounds * SEQUENCES):
            for name, process in sides.items():
                process.tell(f"1 {options.steps}\n")
                seconds, cpu = process.hear_times()
                if turn >= 0:
                    taken[name].append(seconds)
                    used[name].append(cpu)
    finally:
        for process in sides.values():
            process.leave()
    return {
        "store": url.partition(":")[0],
        "steps": options.steps,
        **{f"{name}_ms": statistics.median(taken[name]) * 1000 for name in SIDES},
        **{f"{name}_cpu_ms": statistics.median(used[name]) * 1000 for name in SIDES},
        **{f"{name}_by_raw": statistics.median(map(truediv, taken[name], taken["raw"])) for name in CROWDS},
    }


def line_of_sequence(row: dict[str, Any]) -> str:
    return (
        f"{row['store']:<11} one run of {row['steps']} steps: raw commits {row['raw_ms']:.1f} ms "
        f"({row['raw_cpu_ms']:.1f} of processor time), floor {row['floor_ms']:.1f} ({row['floor_cpu_ms']:.1f}), "
        f"paired {row['floor_by_raw']:.2f}, engine {row['engine_ms']:.1f} ({row['engine_cpu_ms']:.1f}), "
        f"paired {row['engine_by_raw']:.2f}, Holdfast {row['holdfast_ms']:.1f} ({row['holdfast_cpu_ms']:.1f}), "
        f"paired {row['holdfast_by_raw']:.2f}"
    )


def line(row: dict[str, Any]) -> str:
    told = (
        f"{name} {row[f'{name}_rate']:,.0f} (best {row[f'{name}_best']:,.0f}, {row[f'{name}_cpu_us']:.0f} µs)"
        for name in CROWDS
    )
    return (
        f"{row['store']:<11} {row['processes']} process(es), {row['runs']} runs, steps/s (the best round, µs "
        f"of processor time a step): {', '.join(told)}; Holdfast by floor, paired, {row['paired']:.2f}"
    )


@contextmanager
def stores() -> Iterator[list[str]]:
    """The URLs of a new SQLite file and of a database on a server of its own, where there can be one."""
    with ExitStack() as stack:
        here = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="."))).absolute()
        urls = [f"sqlite:///{here}/floor.db"]
        try:
            urls.append(stack.enter_context(postgres(here / "server")))
        except StoreError as error:
            print(error, file=sys.stderr)
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start", file=sys.stderr)
        yield urls


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=50, help="of a sequence; 0: none")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side", nargs=2, metavar=("NAME", "URL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        asyncio.run(side(*options.side))
        return
    with stores() as urls:
        for url in urls:

            async def make(url: str = url) -> None:
                async with hf.connect(url):
                    pass

            asyncio.run(make())
            for processes in options.processes:
                row = measure(url, processes, options)
                print(json.dumps(row) if options.json else line(row), flush=True)
            if options.steps:
                row = measure_sequence(url, options)
                print(json.dumps(row) if options.json else line_of_sequence(row), flush=True)


if __name__ == "__main__":
    main()
