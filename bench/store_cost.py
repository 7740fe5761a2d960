"""What the SQLite store adds to a raw durable commit, and what an append costs in a group.

    python bench/store_cost.py [--repeat N]

The worker that owns the runs is enlisted, as in life: what only it can use is not sent to other processes.
Medians, and in brackets the 5th percentile, which a busy machine disturbs less.

Sequential: each append [step_completed, step_scheduled, step_started] alternates with one raw commit of the
same bytes (one row, apsw, another file in the same folder, both WALs warm), so that slow phases of the disk
hit both. Groups: 1,000 runs append the same at once.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

import apsw

from holdfast.events import new
from holdfast.store import open_store
from holdfast.store.rows import WorkerRow

WORKER = WorkerRow("wrk_1", 1, "host", 0)
PAYLOAD = {"result": {"amount": 1250, "currency": "EUR", "reference": "ch_000000000000"}}


def created(name="bench"):
    return [
        new("run_created", data={"workflow": name, "input": {"args": [1], "kwargs": {}}}),
        new("run_started", data={"worker": "wrk_1"}),
        new("step_scheduled", key="charge#1", data={"name": "charge", "args": {"n": 1}}),
        new("step_started", key="charge#1", data={"attempt": 1, "worker": "wrk_1"}),
    ]


def step(n):
    return [
        new("step_completed", key=f"charge#{n}", data={"attempt": 1, **PAYLOAD}),
        new("step_scheduled", key=f"charge#{n + 1}", data={"name": "charge", "args": {"n": n}}),
        new("step_started", key=f"charge#{n + 1}", data={"attempt": 1, "worker": "wrk_1"}),
    ]


def size(drafts):
    return sum(len(d.body) + len(d.type) + len(d.key) for d in drafts)


def raw_database(folder):
    db = apsw.Connection(str(folder / "raw.db"))
    db.pragma("journal_mode", "wal")
    db.pragma("synchronous", "full")
    db.pragma("wal_autocheckpoint", 1000)
    db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB)")
    db.execute("INSERT INTO t (body) VALUES (zeroblob(4500000))")
    db.execute("DELETE FROM t")
    db.execute("PRAGMA wal_checkpoint(RESTART)")
    return db


async def sequential(folder, appends):
    db = raw_database(folder)
    ours, raw, made = [], [], []
    async with open_store(f"sqlite:///{folder}/store.db") as store:
        await store.enlist(WORKER)
        last = (await store.append("run-1", created(), after=0, owner="wrk_1")).last
        for n in range(1, appends):
            t0 = time.perf_counter()
            drafts = step(n)
            t1 = time.perf_counter()
            last = (await store.append("run-1", drafts, after=last)).last
            t2 = time.perf_counter()
            body = b"x" * size(drafts)
            t3 = time.perf_counter()
            db.execute("INSERT INTO t (body) VALUES (?)", (body,))
            t4 = time.perf_counter()
            made.append(t1 - t0)
            ours.append(t2 - t1)
            raw.append(t4 - t3)
    cut = len(ours) // 10
    ours, raw, made = ours[cut:], raw[cut:], made[cut:]
    over = [a - b for a, b in zip(ours, raw, strict=True)]
    return [(statistics.median(x) * 1e6, low(x) * 1e6) for x in (ours, raw, made, over)]


def low(values):
    return sorted(values)[len(values) // 20]


async def groups(folder, runs, rounds):
    took = []
    async with open_store(f"sqlite:///{folder}/groups-{runs}.db") as store:
        await store.enlist(WORKER)
        names = [f"run-{i}" for i in range(runs)]
        first = await asyncio.gather(*(store.append(n, created(), after=0, owner="wrk_1") for n in names))
        last = [a.last for a in first]
        for n in range(1, rounds + 1):
            drafts = [step(n) for _ in names]
            t0 = time.perf_counter()
            answers = await asyncio.gather(
                *(
                    store.append(name, d, after=after)
                    for name, d, after in zip(names, drafts, last, strict=True)
                )
            )
            took.append((time.perf_counter() - t0) / runs * 1e6)
            last = [a.last for a in answers]
    return statistics.median(took)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--appends", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--folder", help="where the files go (default: a temporary folder)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        names = ("one append of 3 events", "one raw commit", "making the drafts", "over the raw commit")
        for title, (middle, best) in zip(
            names, asyncio.run(sequential(folder, arguments.appends)), strict=True
        ):
            print(f"one run: {title:24} {middle:8.1f} µs ({best:.1f})")
        for runs in (50, 200, 1000):
            cost = asyncio.run(groups(folder, runs, arguments.rounds))
            print(f"groups of {runs:5}: per append      {cost:8.1f} µs   {1e6 / cost:,.0f} appends/s")


if __name__ == "__main__":
    main()
