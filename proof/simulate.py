"""Simulate deployments from many seeds, with a progress bar; a seed that finds a problem is repeated and shrunk.

    python proof/simulate.py --seeds 1000            seeds 0 to 999
    python proof/simulate.py --seeds 1000 --first N  from seed N on
    python proof/simulate.py --seeds 5000 --seconds 600   as many of them as there is time for
    python proof/simulate.py --seed 23 --trace       one seed, with its trace
    python proof/simulate.py --shrink 23             one seed, made small: the command that repeats what is left
    python proof/simulate.py --case '{"seed": …}'    what is left of a seed, with its trace (or @FILE)
    python proof/simulate.py --store sqlite --seeds 100   the same deployments on a real file, or on a PostgreSQL

A sweep shrinks the first seed that finds a problem (in memory). Exit code 1 where a seed found one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import multiprocessing
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent.parent / "tests"
sys.path[:0] = [str(Path(__file__).parent), str(TESTS / "simulation"), str(TESTS / "kit")]

import msgspec
from scenarios import Case, drawn, generated, played, scenario_of, shrunk, statements

from holdfast.testing.simulation import Report
from holdfast.testing.simulation.store import Site

TOTAL = ("calls", "befallen", "statuses", "events")
STORES = ("memory", "sqlite", "postgres")
site: Site | None = None
"""Where this process has its runs; None: each seed in a memory of its own."""


@contextlib.contextmanager
def stored(store: str) -> Iterator[None]:
    """Have the runs there, meanwhile."""
    global site
    with contextlib.ExitStack() as stack:
        if store == "sqlite":
            from sites import SqliteSite

            folder = stack.enter_context(tempfile.TemporaryDirectory())
            site = stack.enter_context(contextlib.closing(SqliteSite(Path(folder))))
        elif store == "postgres":
            import postgres_kit
            from sites import PostgresSite

            databases = postgres_kit.databases()
            stack.callback(databases.remove)
            site = stack.enter_context(contextlib.closing(PostgresSite(databases.fresh())))
        try:
            yield
        finally:
            site = None


def play(seed: int) -> Report:
    """One seed."""
    be_quiet()
    return played(generated(seed), seed, None if site is None else site.emptied())


def be_quiet() -> None:
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")


def outcome(seed: int) -> tuple[int, list[str], dict[str, Any]]:
    """What is sent back from a process of the pool."""
    report = play(seed)
    return seed, report.problems, {name: getattr(report, name) for name in TOTAL}


def show(case: Case, *, trace: bool) -> int:
    be_quiet()
    report = played(scenario_of(case), case.seed, None if site is None else site.emptied())
    if trace:
        print("\n".join(report.trace))
    print(
        json.dumps(
            {"seed": case.seed, "digest": report.digest, "problems": report.problems, "calls": report.calls}
        )
    )
    return 1 if report.problems else 0


def make_small(seed: int) -> int:
    """Shrink a seed; say what it was, what is left, and how to repeat that."""
    be_quiet()
    begun, case = time.monotonic(), drawn(seed)
    before = played(scenario_of(case), seed)
    if not before.problems:
        print(f"seed {seed} finds no problem")
        return 0
    small, after, tries = shrunk(case)
    for name, one, report in (("was", case, before), ("is left", small, after)):
        size = {
            "runs": len(one.programs),
            "statements": statements(one.programs),
            "troubles": len(report.troubles),
            "workers": one.workers,
            "calls": report.calls,
        }
        print(f"{name}: {json.dumps(size)}")
    print(f"after {tries} simulations, {time.monotonic() - begun:.0f} s")
    print("\n".join(after.problems))
    print(f"repeat it: python proof/simulate.py --case '{msgspec.json.encode(small).decode()}'")
    return 1


class Sum:
    """What the seeds of a sweep have come to."""

    def __init__(self) -> None:
        self.bad: list[int] = []
        self.calls = 0
        self.counts: dict[str, Counter[str]] = {name: Counter() for name in TOTAL[1:]}

    def add(self, seed: int, problems: list[str], totals: dict[str, Any]) -> None:
        self.calls += totals["calls"]
        for name, counter in self.counts.items():
            counter.update(totals[name])
        if problems:
            self.bad.append(seed)
            print(f"\nseed {seed}: {problems[0]}", flush=True)


def sweep(first: int, count: int, processes: int, store: str, seconds: float) -> int:
    begun, total, done = time.monotonic(), Sum(), 0
    with contextlib.ExitStack() as stack:
        seeds = range(first, first + count)
        if store == "memory":
            pool = stack.enter_context(multiprocessing.Pool(processes))
            outcomes = pool.imap_unordered(outcome, seeds, chunksize=4)
        else:
            stack.enter_context(stored(store))
            outcomes = map(outcome, seeds)  # type: ignore[assignment]
        for done, one in enumerate(outcomes, start=1):
            total.add(*one)
            bar(done, count, len(total.bad), begun)
            if time.monotonic() - begun > seconds:
                break
    print(file=sys.stderr)
    befallen, statuses, events = total.counts.values()
    result = {"store": store, "seeds": done, "first": first, "bad": sorted(total.bad), "calls": total.calls}
    result |= {"faults": befallen.total(), "befallen": befallen, "runs": statuses, "events": events}
    print(json.dumps(result | {"s": round(time.monotonic() - begun)}))
    for seed in total.bad:
        print(f"repeat it: python proof/simulate.py --store {store} --seed {seed} --trace")
    if total.bad and store == "memory":
        make_small(min(total.bad))
    return 1 if total.bad else 0


def bar(done: int, count: int, bad: int, begun: float) -> None:
    if not sys.stderr.isatty() and done % 100 and done != count:
        return
    full = 40 * done // count
    rate = done / max(time.monotonic() - begun, 0.001)
    end = "" if sys.stderr.isatty() else "\n"
    print(
        f"\r[{'#' * full}{'.' * (40 - full)}] {done}/{count} seeds, {rate:.0f}/s, {bad} bad",
        end=end,
        file=sys.stderr,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Simulate deployments from many seeds.")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no more after these")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--shrink", type=int)
    parser.add_argument("--case")
    parser.add_argument("--trace", action="store_true")
    parser.add_argument("--store", choices=STORES, default="memory")
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count())
    given = parser.parse_args()
    if given.shrink is not None:
        return make_small(given.shrink)
    if given.case is not None:
        text = Path(given.case[1:]).read_text() if given.case.startswith("@") else given.case
        return show(msgspec.json.decode(text, type=Case), trace=True)
    if given.seed is not None:
        with stored(given.store):
            return show(drawn(given.seed), trace=given.trace)
    return sweep(given.first, given.seeds, given.processes, given.store, given.seconds)


if __name__ == "__main__":
    sys.exit(main())
