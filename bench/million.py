"""Do finished runs slow live ones? `python bench/million.py [--runs N] [--rounds N] [--steps N] [--store …]`

Two stores of one kind, on one disk and one server: one is empty, the other holds N finished runs. In turns, each
does the same work: 200 new runs of 10 empty steps, all at once, to their ends, every commit durable (SQLite:
synchronous=FULL; PostgreSQL: fsync and synchronous_commit on). Figures are steps/s; the ratio is that of the two
neighbours in time, its median over the rounds, so a slow minute of the disk is both's.

The finished runs are real: 100 are done by a worker, then copied by SQL under new ids, row by row, with their
logs; hash, time and position do not name the run, so each copy verifies (a sample of 100 is, by `verify`).

Then the plans of the hot queries on the full store, by EXPLAIN: a scan over a whole table is named.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from rich.console import Console

import holdfast as hf
from holdfast.bench.place import postgres
from holdfast.store import open_store
from holdfast.store.queries import load_queries
from holdfast.store.rows import RunFilter
from holdfast.verify import Verification

TEMPLATES = 100
NEW = 200
STEPS = 10
AGAIN = 7
"""Executions, after which PostgreSQL has chosen between a plan for the values and one for all."""
COPIES = 20_000
"""Runs that one transaction copies."""
console = Console(stderr=True)


@hf.step
async def empty(number: int) -> int:
    return number


@hf.workflow
async def finished(count: int) -> int:
    for number in range(count):
        await empty(number)
    return count


@hf.workflow
async def fresh(count: int) -> int:
    for number in range(count):
        await empty(number)
    return count


async def crowd(app: hf.App, workflow: hf.Workflow, runs: int, steps: int, prefix: str) -> float:
    """Do runs all at once; steps/s."""
    begun = time.perf_counter()

    async def one(number: int) -> None:
        await (await app.start(workflow, steps, run_id=f"{prefix}-{number}")).result()

    await asyncio.gather(*(one(number) for number in range(runs)))
    return runs * steps / (time.perf_counter() - begun)


# ---- many finished runs ---------------------------------------------------------------------------------------

PG_RUNS = """
INSERT INTO holdfast.runs ({columns}) SELECT id + n, run || '-' || n, {rest}
FROM holdfast.runs CROSS JOIN generate_series($1::bigint, $2::bigint) AS n WHERE id = ANY ($3::bigint[])"""
PG_EVENTS = """
INSERT INTO holdfast.events SELECT e.run + n, e.position, e.type, e.key, e.time, e.body, e.uniq, e.chain, e.batch,
    e.first, e.fence
FROM unnest($3::bigint[]) AS t (run) CROSS JOIN generate_series($1::bigint, $2::bigint) AS n
JOIN holdfast.events e ON e.run = t.run"""
LITE_RUNS = """
WITH RECURSIVE n (n) AS (SELECT ?1 UNION ALL SELECT n + 1 FROM n WHERE n < ?2)
INSERT INTO runs (row, {columns}) SELECT row + n * ?3, run || '-' || n, {rest}
FROM n CROSS JOIN runs WHERE runs.row <= ?3"""
LITE_EVENTS = """
WITH RECURSIVE n (n) AS (SELECT ?1 UNION ALL SELECT n + 1 FROM n WHERE n < ?2)
INSERT INTO events SELECT run + n * ?3, position, type, key, time, body, uniq, chain, batch, first, fence
FROM n CROSS JOIN events WHERE events.run <= ?3"""
COLUMNS = (
    "workflow, status, position, time, chain, command, fact, delivered, steps, timers, children, created, ended, "
    "attributes, owner, parked, crashes, parent, root"
)


async def fill(url: str, runs: int, steps: int) -> None:
    """Finished runs: a few real ones, then copies."""
    async with hf.connect(url) as app, app.worker(concurrency=TEMPLATES):
        await crowd(app, finished, TEMPLATES, steps, "f")
    each, last = max(1, COPIES // TEMPLATES), runs // TEMPLATES - 1
    parts = [(first, min(first + each - 1, last)) for first in range(1, last + 1, each)]
    begun = time.perf_counter()
    copy = copies_in_postgres if url.startswith("postgres") else copies_in_sqlite
    await copy(url, parts)
    console.print(f"{runs:,} finished runs copied in {time.perf_counter() - begun:.0f} s")


async def copies_in_postgres(url: str, parts: list[tuple[int, int]]) -> None:
    import asyncpg

    db = await asyncpg.connect(url)
    # Ids that leave room: a copy's id is its template's and a number.
    rows = await db.fetch("SELECT id FROM holdfast.runs ORDER BY id")
    for number, row in enumerate(rows):
        for table, column in (("runs", "id"), ("events", "run")):
            await db.execute(
                f"UPDATE holdfast.{table} SET {column} = $2 WHERE {column} = $1",
                row["id"],
                number * 10_000_000 + 1,
            )
    templates = [number * 10_000_000 + 1 for number in range(len(rows))]
    insert = PG_RUNS.format(columns="id, run, " + COLUMNS, rest=COLUMNS)
    for first, last in parts:
        async with db.transaction():
            await db.execute(insert, first, last, templates)
            await db.execute(PG_EVENTS, first, last, templates)
    await db.execute("VACUUM ANALYZE")
    await db.execute("CHECKPOINT")
    await db.close()


async def copies_in_sqlite(url: str, parts: list[tuple[int, int]]) -> None:
    import apsw

    db = apsw.Connection(url.removeprefix("sqlite:///"))
    db.pragma("cache_size", -512 * 1024)
    db.pragma("synchronous", "off")  # the filling is not what is measured; synced at the end
    for first, last in parts:
        with db:
            db.execute(LITE_RUNS.format(columns="run, " + COLUMNS, rest=COLUMNS), (first, last, TEMPLATES))
            db.execute(LITE_EVENTS, (first, last, TEMPLATES))
    db.pragma("synchronous", "full")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    db.close()


# ---- what is measured ------------------------------------------------------------------------------------------


async def compare(empty_url: str, full_url: str, rounds: int) -> None:
    rates: dict[str, list[float]] = {"empty": [], "full": []}
    async with hf.connect(empty_url) as small, hf.connect(full_url) as large:
        for number in range(rounds + 1):  # the first one warms both up
            order = [("empty", small), ("full", large)]
            for name, app in order if number % 2 else reversed(order):
                async with app.worker(concurrency=NEW):
                    rate = await crowd(app, fresh, NEW, STEPS, f"new-{number}")
                if number:
                    rates[name].append(rate)
    ratios = [full / empty for full, empty in zip(rates["full"], rates["empty"], strict=True)]
    for name, found in rates.items():
        print(
            f"  {name:6} {statistics.median(found):8,.0f} steps/s   ({', '.join(f'{r:,.0f}' for r in found)})"
        )
    print(f"  full by empty, median of {rounds} pairs: {statistics.median(ratios):.3f}   "
          f"({', '.join(f'{r:.2f}' for r in ratios)})")  # fmt: skip


async def verify_sample(url: str, size: int = 100) -> None:
    async with open_store(url) as store:
        heads = await store.runs(RunFilter(workflow="finished"), limit=size)
        differences = [d for head in heads async for d in Verification(store, run_id=head.run).run()]
    print(f"  verify of {len(heads)} of the copies: {len(differences)} differences")


HOT = {
    # name: values as SQL literals for PostgreSQL, as Python values for SQLite
    "heads": (["ARRAY['f-1-5', 'nobody']"], None),
    "head": (None, ("f-1-5",)),
    "any_free": (["'w1'", "ARRAY['finished', 'fresh']"], ("w1", '["finished", "fresh"]')),
    "claim": (["'w1'", "ARRAY['finished', 'fresh']", "100"], ("w1", '["finished", "fresh"]', 100)),
    "owned": (["'w1'"], ("w1",)),
    "behind": (["'w1'"], ("w1",)),
    "ended_children": (["'w1'"], ("w1",)),
    "orphans": (["100"], (100,)),
    "list_timers": (["100"], {"limit": 100}),
    "any_waiting": (["ARRAY['gpu']"], ('["gpu"]',)),
    "list_runs": (["{created}", "'x'", "NULL", "NULL", "NULL", "NULL", "NULL", "NULL", "100"], {}),
    "list_runs_by_status": (["{created}", "'x'", "NULL", "NULL", "'failed'", "NULL", "NULL", "NULL", "100"],
                            {"status": "failed"}),
    "list_runs_by_workflow": (["{created}", "'x'", "NULL", "NULL", "NULL", "'fresh'", "NULL", "NULL", "100"],
                              {"workflow": "fresh"}),
    "list_parked": (["{created}", "'x'", "NULL", "true", "NULL", "NULL", "NULL", "NULL", "100"], {}),
    "list_hooks": (["''", "''", "true", "100"],
                   {"after_token": "", "after_run": "", "open_only": True, "limit": 100}),
    "leaving": (["ARRAY['f-1-5', 'f-2-7']", "{created}"], ('["f-1-5", "f-2-7"]', 1 << 62)),
    "remove_runs": (["ARRAY[1, 2]::bigint[]"], ("[1, 2]",)),
    "remove_events": (None, ("[1, 2]",)),
    "remove_deliveries": (None, ("[1, 2]",)),
    "remove_chunks": (None, ("[1, 2]",)),
}  # fmt: skip
LARGE = ("runs", "events")
"""The tables that are full here. To read all of one that is empty, as PostgreSQL does, is no fault."""


async def plans_in_postgres(url: str) -> None:
    import asyncpg

    db = await asyncpg.connect(url)
    await db.execute("SET jit = off")
    created = 1 << 60
    for name, (values, _) in HOT.items():
        sql = load_queries("postgres").get(name)
        if values is None or sql is None:
            continue
        literals = [value.format(created=created) for value in values]
        await db.execute(f"PREPARE hot AS {sql}")
        for _ in range(AGAIN):  # the last one has the plan that the server settled for
            transaction = db.transaction()
            await transaction.start()
            shown = await db.fetch(f"EXPLAIN ANALYZE EXECUTE hot({', '.join(literals)})")
            await transaction.rollback()
        plan = [row[0] for row in shown]
        await db.execute("DEALLOCATE hot")
        scans = [line.split(" on ")[1].split()[0] for line in plan if "Seq Scan on" in line]
        told(name, [s for s in scans if s in LARGE],
             next(line for line in plan if "Execution Time" in line).split(": ")[1])  # fmt: skip
    await db.close()


async def plans_in_sqlite(url: str) -> None:
    import apsw

    db = apsw.Connection(url.removeprefix("sqlite:///"))
    listing = dict.fromkeys(("status", "workflow", "attributes", "parked", "parent", "root"))
    for name, (_, values) in HOT.items():
        sql = load_queries("sqlite").get(name)
        if values is None or sql is None:
            continue
        if name.startswith("list_") and name not in ("list_timers", "list_hooks"):
            values = {**listing, "created": 1 << 60, "run": "x", "limit": 100, **values}
        plan = [row[3] for row in db.execute("EXPLAIN QUERY PLAN " + sql, values)]
        scans = [line for line in plan if line.startswith("SCAN") and " INDEX " not in line]
        tables = [line.split()[1] for line in scans]
        took = ""
        for _ in range(2 if not name.startswith("remove") else 0):  # the second time from memory
            db.execute("SAVEPOINT look")
            begun = time.perf_counter()
            db.execute(sql, values).fetchall()
            took = f"{(time.perf_counter() - begun) * 1000:.3f} ms"
            db.execute("ROLLBACK TO look; RELEASE look")
        told(name, [t for t in tables if t in LARGE], took)
    db.close()


def told(name: str, scans: list[str], took: str) -> None:
    print(f"  {name:24} {took:>12}  {'by index' if not scans else 'SCANS ' + ', '.join(scans)}")


async def wal_in_postgres(url: str) -> None:
    """What a step writes to the write-ahead log, by pg_current_wal_lsn around a crowd; right after a checkpoint
    the first change of each page writes the whole page."""
    import asyncpg

    db = await asyncpg.connect(url)
    async with hf.connect(url) as app, app.worker(concurrency=NEW):
        await crowd(app, fresh, NEW, STEPS, "wal-0")
        for number, (when, steps) in enumerate(
            (("after a checkpoint", STEPS), ("later", STEPS), ("one run", 500))
        ):
            if number == 0:
                await db.execute("CHECKPOINT")
            runs = NEW if steps == STEPS else 1
            before = await db.fetchrow(WAL)
            await crowd(app, fresh, runs, steps, f"wal-{number + 1}")
            after = await db.fetchrow(WAL)
            written, commits = after["bytes"] - before["bytes"], after["commits"] - before["commits"]
            print(f"  WAL, {runs} × {steps} steps, {when}: {written / runs / steps:,.0f} bytes a step, "
                  f"{commits / runs / steps:.3f} commits a step")  # fmt: skip
    await db.close()


WAL = """
SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint AS bytes, txid_current() AS commits"""


async def one_kind(kind: str, empty_url: str, full_url: str, options: argparse.Namespace) -> None:
    print(f"{kind}, {options.runs:,} finished runs of {options.steps} steps:")
    await fill(full_url, options.runs, options.steps)
    await verify_sample(full_url)
    await (plans_in_postgres if kind == "postgres" else plans_in_sqlite)(full_url)
    await compare(empty_url, full_url, options.rounds)
    if kind == "postgres":
        await wal_in_postgres(full_url)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    words.add_argument("--runs", type=int, default=20_000, help="finished runs (20,000)")
    words.add_argument("--steps", type=int, default=2, help="steps of each of them (2)")
    words.add_argument("--rounds", type=int, default=7, help="pairs of measurements (7)")
    words.add_argument("--store", choices=["postgres", "sqlite"], help="one kind only")
    options = words.parse_args()
    with tempfile.TemporaryDirectory(prefix="holdfast-million-") as place:
        folder = Path(place)
        if options.store != "postgres":
            urls = [f"sqlite:///{folder}/{name}.db" for name in ("empty", "full")]
            asyncio.run(one_kind("sqlite", *urls, options))
        if options.store != "sqlite":
            with postgres(folder / "server") as server:
                asyncio.run(one_kind("postgres", *databases(server), options))


def databases(server: str) -> list[str]:
    import asyncpg

    async def make() -> None:
        db = await asyncpg.connect(server)
        for name in ("bare", "laden"):
            await db.execute(f"CREATE DATABASE {name}")
        await db.close()

    asyncio.run(make())
    head, _, tail = server.partition("?")
    return [f"{head.rpartition('/')[0]}/{name}?{tail}" for name in ("bare", "laden")]


if __name__ == "__main__":
    main()
