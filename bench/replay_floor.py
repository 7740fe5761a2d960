"""How near Holdfast's replay can come to its goal on this machine: the smallest programs, in turns with it.

    python bench/replay_floor.py [--store sqlite postgres] [--steps 5000] [--rounds 15] [--json]

A log of a run of empty steps, three events a step, is read from a store and the run's code is driven through it.
Each side does so in a process of its own, and they take turns, A B C D E F A B …:

- `read`: the rows alone, by one statement of apsw or asyncpg.
- `coroutine`: the least that can be called a replay. The rows are read; a step's arguments are written and
  compared with the logged ones, its result is read with its type, and the coroutine is sent on with it. There are
  no tasks, so workflow code could not `gather`, and nothing is watched.
- `asyncio`: the same with asyncio's own tasks and futures, on a loop that is one queue.
- `watched`: the same, with a profile function that does nothing, switched on as workflow code goes on and off when
  it asks for a step, beside an audit hook that does nothing (without one, workflow code could switch it off). No
  replay that refuses impure calls on Python 3.11 goes below this; from 3.12 on one does (`engine/guard`).
- `unwatched`: Holdfast's own reading and replay, without its watch. `holdfast`: as it is.

Each is measured in processor time of its process, and on the clock, which has PostgreSQL's own time in it.

What Holdfast does and no floor does: keys by name and ordinal, commands that mean the same though they are written
otherwise, late outcomes, cancellation, chapters, queues, timers, hooks, children, burial.
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
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextlib import ExitStack
from contextvars import copy_context
from functools import partial
from operator import truediv
from pathlib import Path
from typing import Any

import apsw
import msgspec

import holdfast as hf
from holdfast.bench.place import postgres

RUN = "replay-floor"
SIDES = ("read", "coroutine", "asyncio", "watched", "unwatched", "holdfast")


@hf.step(name="replay-floor.empty")
async def empty(number: int) -> int:
    return number


@hf.workflow(name="replay-floor.sequence")
async def sequence(count: int) -> int:
    for number in range(count):
        await empty(number)
    return count


# ---- the floors


class Arguments(msgspec.Struct):
    number: int


class Outcome(msgspec.Struct):
    value: int


class Diverged(Exception):
    pass


class Sqlite:
    QUERY = (
        "SELECT position, type, key, time, body FROM events WHERE run = (SELECT row FROM runs WHERE run = ?) "
        "ORDER BY position"
    )

    def __init__(self, url: str) -> None:
        self.db = apsw.Connection(url.removeprefix("sqlite:///"))

    def read(self) -> list[Any]:
        return self.db.execute(self.QUERY, (RUN,)).fetchall()


class Postgres:
    QUERY = (
        "SELECT position, type, key, time, body FROM holdfast.events "
        "WHERE run = (SELECT id FROM holdfast.runs WHERE run = $1) ORDER BY position"
    )

    def __init__(self, url: str) -> None:
        import asyncpg

        self.runner = asyncio.Runner()
        self.db = self.runner.run(asyncpg.connect(url))

    def read(self) -> list[Any]:
        async def ask() -> list[Any]:
            rows: list[Any] = await self.db.fetch(self.QUERY, RUN)
            return rows

        return self.runner.run(ask())


class Floor:
    """Reads, and drives the same workflow; `waiting` is what the step that was asked for waits with."""

    def __init__(self, url: str) -> None:
        self.store = Postgres(url) if url.startswith("postgresql") else Sqlite(url)
        self.encode = msgspec.json.Encoder().encode
        self.outcome = msgspec.json.Decoder(Outcome).decode
        self.asked = b""
        self.waiting: Any = None

    def turn(self) -> int:
        """Read the log and replay it: how many events it has."""
        self.rows = self.store.read()
        self.replay()
        return len(self.rows)

    async def sequence(self, count: int) -> int:
        for number in range(count):
            await self.empty(number)
        return count

    async def empty(self, number: int) -> Any:
        self.ask(number)
        self.waiting = self.future()
        return await self.waiting

    def ask(self, number: int) -> None:
        self.asked = b'{"args":%b}' % self.encode(Arguments(number))

    def replay(self) -> None:
        for _, type_, _, _, body in self.rows:
            if type_ == "step_scheduled":
                if body.encode() != self.asked:
                    raise Diverged(body)
            elif type_ == "step_completed":
                self.go_on(self.outcome(body).value)
            elif type_ == "run_created":
                self.begin(self.sequence(json.loads(body)["args"]["count"]))

    def future(self) -> Any:
        raise NotImplementedError

    def begin(self, code: Coroutine[Any, Any, Any]) -> None:
        raise NotImplementedError

    def go_on(self, value: int) -> None:
        raise NotImplementedError


class Reading(Floor):
    def replay(self) -> None:
        pass


class Waiting:
    def __await__(self) -> Generator[None, Any, Any]:
        return (yield)


class Bare(Floor):
    def future(self) -> Waiting:
        return Waiting()

    def begin(self, code: Coroutine[Any, Any, Any]) -> None:
        self.code = code
        code.send(None)

    def go_on(self, value: int) -> None:
        try:
            self.code.send(value)
        except StopIteration:
            pass


class Queue(asyncio.AbstractEventLoop):
    def __init__(self) -> None:
        self.ready: deque[Any] = deque()

    get_debug = bool

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Any = None) -> None:  # type: ignore[override]
        self.ready.append((callback, args, context))

    def run(self) -> None:
        while self.ready:
            callback, args, context = self.ready.popleft()
            context.run(callback, *args)


class Tasks(Floor):
    def future(self) -> Any:
        return asyncio.Future(loop=self.loop)

    def begin(self, code: Coroutine[Any, Any, Any]) -> None:
        self.task: Any = asyncio.Task(code, loop=self.loop, context=copy_context())
        self.loop.run()

    def go_on(self, value: int) -> None:
        self.waiting.set_result(value)
        self.loop.run()

    def replay(self) -> None:
        self.loop: Any = Queue()  # type: ignore[abstract]
        events._set_running_loop(self.loop)
        try:
            super().replay()
        finally:
            events._set_running_loop(None)
        if not self.task.done():
            raise Diverged("the code goes on where the log ends")


def nothing(*_: object) -> None:
    pass


class Watched(Tasks):
    on, off = staticmethod(partial(sys.setprofile, nothing)), staticmethod(partial(sys.setprofile, None))

    def __init__(self, url: str) -> None:
        super().__init__(url)
        sys.addaudithook(nothing)

    async def empty(self, number: int) -> Any:
        self.off()
        self.ask(number)
        self.waiting = self.future()
        try:
            return await self.waiting
        finally:
            self.on()

    def begin(self, code: Coroutine[Any, Any, Any]) -> None:
        self.on()
        super().begin(code)
        self.off()

    def go_on(self, value: int) -> None:
        super().go_on(value)
        self.off()  # after the last step the code did not ask for another one


# ---- Holdfast


class Ours:
    def __init__(self, url: str, *, watch: bool) -> None:
        from holdfast.engine import context

        if not watch:
            context.switch_on = nothing  # type: ignore[assignment]
        self.url = url

    def turn(self) -> int:
        return asyncio.run(self.read_and_replay())

    async def read_and_replay(self) -> int:
        from holdfast.engine.tick import replay

        async with hf.connect(self.url) as app:
            await app.store.read(RUN, limit=1)
            self.begun = moment()
            log = await app.store.read(RUN)
            replay(sequence, log).bury()
            self.ended = moment()
        return len(log)


async def record(url: str, steps: int) -> None:
    async with hf.connect(url) as app, app.worker():
        await (await app.start(sequence, steps, run_id=RUN)).result()


# ---- a process of either side


def moment() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


def side(name: str, url: str) -> None:
    """For each line that comes, a replay; tells its µs an event, of processor time and on the clock."""
    made: dict[str, Callable[[str], Any]] = {
        "read": Reading,
        "coroutine": Bare,
        "asyncio": Tasks,
        "watched": Watched,
        "unwatched": partial(Ours, watch=False),
        "holdfast": partial(Ours, watch=True),
    }
    it = made[name](url)
    print("ready", flush=True)
    for _ in sys.stdin:
        begun = moment()
        count = it.turn()
        ended = moment()
        if isinstance(it, Ours):
            begun, ended = it.begun, it.ended
        print(*((to - since) / count * 1e6 for since, to in zip(begun, ended, strict=True)), flush=True)


class Process:
    def __init__(self, name: str, url: str) -> None:
        self.child = subprocess.Popen(
            [sys.executable, __file__, "--side", name, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.taken: list[tuple[float, float]] = []
        if self.child.stdout is None or self.child.stdout.readline() != "ready\n":
            raise RuntimeError(f"{name} did not start")

    def turn(self, *, counts: bool) -> None:
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.write("\n")
        self.child.stdin.flush()
        used, taken = map(float, self.child.stdout.readline().split())
        if counts:
            self.taken.append((used, taken))


def measure(url: str, rounds: int) -> dict[str, list[tuple[float, float]]]:
    processes: dict[str, Process] = {}
    try:
        for name in SIDES:
            processes[name] = Process(name, url)
        for number in range(-2, rounds):
            for process in processes.values():
                process.turn(counts=number >= 0)
    finally:
        for process in processes.values():
            process.child.communicate(timeout=60)
    return {name: process.taken for name, process in processes.items()}


def show(store: str, measured: dict[str, list[tuple[float, float]]], *, as_json: bool) -> None:
    ours = [used for used, _ in measured["holdfast"]]
    for name, values in measured.items():
        used, taken = zip(*values, strict=True)
        row = {
            "store": store,
            "side": name,
            "us_per_event": statistics.median(used),
            "least": min(used),
            "us_on_the_clock": statistics.median(taken),
            "least_on_the_clock": min(taken),
            "events_per_s": 1e6 / statistics.median(taken),
            "holdfast_paired": statistics.median(map(truediv, ours, used)),
        }
        if as_json:
            print(json.dumps(row), flush=True)
            continue
        print(
            f"{store:<11} {name:<10} {row['us_per_event']:5.2f} µs an event (least {row['least']:5.2f}), on the "
            f"clock {row['us_on_the_clock']:5.2f} ({row['least_on_the_clock']:5.2f}), "
            f"{row['events_per_s']:>9,.0f} events/s; Holdfast needs {row['holdfast_paired']:.2f} times as much",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", nargs="+", choices=("sqlite", "postgres"), default=["sqlite", "postgres"])
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side", nargs=2, metavar=("NAME", "URL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        side(*options.side)
        return
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start", file=sys.stderr)
    with ExitStack() as stack:
        here = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="."))).absolute()
        for store in options.store:
            url = f"sqlite:///{here}/replay.db"
            if store == "postgres":
                url = stack.enter_context(postgres(here / "server"))
            asyncio.run(record(url, options.steps))
            show(store, measure(url, options.rounds), as_json=options.json)


if __name__ == "__main__":
    main()
