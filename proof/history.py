"""The logs as list-append histories: many processes append and read at once, then their observations are judged.

    python proof/history.py                                    a SQLite file, 4 writers, 2 deciders, 3 readers
    python proof/history.py --store postgresql://… --seconds 30

Each process notes when it asked, when it was answered, and what the answer was. After that, without looking at
how the store works (the idea of Jepsen's Elle):

- each read of a log is a prefix of every longer one: nothing is ever taken back, swapped or slipped in (L1, L7);
- an acknowledged append stands at the positions that it was given; one that was refused stands nowhere (L2, L4);
- in real time: what was acknowledged before a read began is in it; who was answered first stands first;
- no cycles: with edges from each append to the next in its log, from an append to the reads that see it, from
  a read to the first append that it does not see, and from each answer to whatever was asked after it, the
  operations on all logs together have an order. So the store is strictly serializable for what was tried.

Exit code 1 where something does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import graphlib
import itertools
import json
import multiprocessing
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from holdfast.errors import HoldfastError, StaleLog, StoreError
from holdfast.events import new
from holdfast.store import Store, open_store


class Op(NamedTuple):
    """One operation as its process saw it. Times are of the machine's monotonic clock."""

    kind: str  # append, read
    log: str
    asked: float
    answered: float
    elements: tuple[str, ...]  # appended, or seen from the beginning of the log on
    first: int = 0  # the position that the append was given; 0: the answer is unknown
    refused: bool = False


# ---- recording ---------------------------------------------------------------------------------------------


def log_name(number: int) -> str:
    return f"log-{number}"


async def create(store: Store, logs: int) -> None:
    """Each log: its creation, and a hook that payloads go to."""
    for number in range(logs):
        data = {"workflow": "proof.history", "args": {}, "seed": "s", "python": "3.11"}
        opened = new("hook_opened", key=f"{log_name(number)}#1", data={})
        with contextlib.suppress(StaleLog):  # several processes may try
            await store.append(log_name(number), [new("run_created", data=data), opened], after=0)


async def write(store: Store, name: str, logs: int, until: float) -> list[Op]:
    """Payloads to the logs in turn: facts, which no fence refuses."""
    ops, count = [], 0
    while time.monotonic() < until:
        count += 1
        log, element = log_name((count + hash_of(name)) % logs), f"{name}/{count}"
        asked = time.monotonic()
        try:
            answer = await store.deliver(log, json.dumps(element).encode(), element)
        except StoreError:
            ops.append(Op("append", log, asked, float("inf"), (element,)))
        else:
            ops.append(Op("append", log, asked, time.monotonic(), (element,), answer.first))
    return ops


async def decide(store: Store, name: str, logs: int, until: float) -> list[Op]:
    """Two commands at once under the fence, as a decider appends them: refused where another was quicker."""
    ops, count = [], 0
    while time.monotonic() < until:
        count += 1
        log = log_name((count + hash_of(name)) % logs)
        after = (await store.read(log))[-1].position
        elements = f"{name}/{count}a", f"{name}/{count}b"
        drafts = [new("step_scheduled", key=f"{element}#1", data={"args": {}}) for element in elements]
        asked = time.monotonic()
        try:
            answer = await store.append(log, drafts, after=after)
        except StaleLog:
            ops.append(Op("append", log, asked, time.monotonic(), elements, refused=True))
        except StoreError:
            ops.append(Op("append", log, asked, float("inf"), elements))
        else:
            ops.append(Op("append", log, asked, time.monotonic(), elements, answer.first))
    return ops


async def look(store: Store, name: str, logs: int, until: float) -> list[Op]:
    """Whole logs, and what has come since, by a cursor: both must show the same list."""
    ops, count, known = [], 0, {log_name(n): ((), 0) for n in range(logs)}
    while time.monotonic() < until:
        count += 1
        log = log_name((count + hash_of(name)) % logs)
        seen, after = known[log] if count % 3 else ((), 0)
        asked = time.monotonic()
        events = await store.read(log, after)
        answered = time.monotonic()
        if events:
            assert [e.position for e in events] == list(range(after + 1, events[-1].position + 1)), "dense"
            known[log] = seen + tuple(map(element_of, events)), events[-1].position
            seen = known[log][0]
        ops.append(Op("read", log, asked, answered, seen))
        await asyncio.sleep(0.001)
    return ops


def hash_of(name: str) -> int:
    return sum(name.encode())


def element_of(event: Any) -> str:
    if event.type == "hook_received":
        return str(event.data["payload"])
    return event.key.removesuffix("#1") if event.type == "step_scheduled" else event.type


ROLES = {"writer": write, "decider": decide, "reader": look}


async def record_here(url: str, people: Sequence[tuple[str, str]], logs: int, seconds: float) -> list[Op]:
    """All people as tasks of this process, on one handle."""
    async with open_store(url) as store:
        await create(store, logs)
        until = time.monotonic() + seconds
        parts = await asyncio.gather(*(ROLES[role](store, name, logs, until) for role, name in people))
        ops = [op for part in parts for op in part]
        asked = time.monotonic()
        for number in range(logs):
            events = await store.read(log_name(number))
            ops.append(Op("read", log_name(number), asked, time.monotonic(), tuple(map(element_of, events))))
        return ops


def _record(url: str, people: Sequence[tuple[str, str]], logs: int, seconds: float) -> list[Op]:
    return asyncio.run(record_here(url, people, logs, seconds))


def record(url: str, *, writers: int, deciders: int, readers: int, logs: int, seconds: float) -> list[Op]:
    """Everybody as a process; where the store lives in one, as tasks of this one."""
    roles = ["writer"] * writers + ["decider"] * deciders + ["reader"] * readers
    people = [(role, f"{role}-{number}") for number, role in enumerate(roles)]
    if url.startswith("memory:"):
        return _record(url, people, logs, seconds)
    asyncio.run(_create(url, logs))
    with ProcessPoolExecutor(len(people), multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(_record, url, [person], logs, seconds) for person in people]
        return [Op(*op) for future in futures for op in future.result()]


async def _create(url: str, logs: int) -> None:
    async with open_store(url) as store:
        await create(store, logs)


# ---- judging -----------------------------------------------------------------------------------------------


def judge(history: Iterable[Op]) -> list[str]:
    """What does not hold, in words; no list where everything does."""
    by_log: dict[str, list[Op]] = defaultdict(list)
    for op in history:
        by_log[op.log].append(op)
    problems: list[str] = []
    longest: dict[str, tuple[str, ...]] = {}
    for log, ops in by_log.items():
        longest[log] = max((op.elements for op in ops if op.kind == "read"), key=len, default=())
        problems += _judge_log(log, ops, longest[log])
    if not problems:
        problems += _cycle([op for ops in by_log.values() for op in ops if not op.refused], longest)
    return problems


def _judge_log(log: str, ops: Sequence[Op], whole: tuple[str, ...]) -> list[str]:
    problems = []
    if len(set(whole)) != len(whole):
        problems.append(f"{log}: an element stands twice")
    there = set(whole)
    for op in ops:
        if op.kind == "read":
            if whole[: len(op.elements)] != op.elements:
                problems.append(f"{log}: a read of {len(op.elements)} is no prefix of the longest")
        elif op.refused:
            if there & set(op.elements):
                problems.append(f"{log}: {op.elements} was refused, and is there")
        elif op.first:
            if whole[op.first - 1 : op.first - 1 + len(op.elements)] != op.elements:
                problems.append(f"{log}: {op.elements} was acknowledged at {op.first}, and is not there")
        elif 0 < len(there & set(op.elements)) < len(op.elements):
            problems.append(f"{log}: {op.elements} is there in part")
    return problems


def _cycle(ops: Sequence[Op], longest: dict[str, tuple[str, ...]]) -> list[str]:
    """An order of all operations that agrees with every edge, or the cycle that forbids it."""
    sorter: graphlib.TopologicalSorter[Any] = graphlib.TopologicalSorter()
    place = {(log, element): n for log, whole in longest.items() for n, element in enumerate(whole)}
    appends: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for number, op in enumerate(ops):
        sorter.add(number)
        if op.kind == "append" and (op.log, op.elements[0]) in place:
            appends[op.log].append((place[op.log, op.elements[0]], number))
    for found in appends.values():
        found.sort()
        for (_, earlier), (_, later) in itertools.pairwise(found):
            sorter.add(later, earlier)
    for number, op in enumerate(ops):
        if op.kind == "read":
            before = [n for at, n in appends[op.log] if at < len(op.elements)]
            behind = [n for at, n in appends[op.log] if at >= len(op.elements)]
            if before:
                sorter.add(number, before[-1])
            if behind:
                sorter.add(behind[0], number)
    _add_real_time(sorter, ops)
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        cycle = [ops[n] for n in error.args[1] if isinstance(n, int)]
        return ["a cycle: " + " → ".join(f"{op.kind} {op.log} {op.elements[-1:]}" for op in cycle)]
    return []


def _add_real_time(sorter: graphlib.TopologicalSorter[Any], ops: Sequence[Op]) -> None:
    """Who was answered stands before who asked later: by a chain of moments, one edge in and out for each."""
    moments = sorted(
        [(op.answered, 0, n) for n, op in enumerate(ops) if op.answered != float("inf")]
        + [(op.asked, 1, n) for n, op in enumerate(ops)]
    )
    last = None
    for index, (_, asks, number) in enumerate(moments):
        if asks:
            if last is not None:
                sorter.add(number, last)
        else:
            moment = ("moment", index)
            sorter.add(moment, number, *([last] if last is not None else []))
            last = moment


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", metavar="URL", help="an empty store; without it, a SQLite file")
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--deciders", type=int, default=2)
    parser.add_argument("--readers", type=int, default=3)
    parser.add_argument("--logs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = given.store or f"sqlite:///{Path(folder)}/history.db"
        try:
            history = record(
                url,
                writers=given.writers,
                deciders=given.deciders,
                readers=given.readers,
                logs=given.logs,
                seconds=given.seconds,
            )
        except HoldfastError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
    problems = judge(history)
    appends = [op for op in history if op.kind == "append"]
    told = {
        "store": url.partition("://")[0],
        "reads": len(history) - len(appends),
        "appends": sum(bool(op.first) for op in appends),
        "refused": sum(op.refused for op in appends),
        "unknown": sum(not op.first and not op.refused for op in appends),
        "problems": problems[:20],
    }
    print(json.dumps(told))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
