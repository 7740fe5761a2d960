"""Simulate deployments from many seeds, with a progress bar; a seed that finds a problem is repeated and reduced.

    python proof/simulate.py --seeds 1000            seeds 0 to 999
    python proof/simulate.py --seeds 1000 --first N  from seed N on
    python proof/simulate.py --seed 23 --trace       one seed, with its trace

Exit code 1 where a seed found a problem.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "simulation"))

import random

import msgspec
from scenarios import generated

from holdfast.testing.simulation import Report, profile, simulate

TOTAL = ("calls", "befallen", "statuses")


def play(seed: int) -> Report:
    """One seed."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    return simulate(generated(seed), seed)


def outcome(seed: int) -> tuple[int, list[str], dict[str, Any]]:
    """What is sent back from a process of the pool."""
    report = play(seed)
    return seed, report.problems, {name: getattr(report, name) for name in TOTAL}


def reduce(seed: int) -> Report:
    """The same seed with every kind of trouble taken away that the problem does not need."""
    trouble = profile(random.Random(f"{seed}/profile"))
    best = simulate(generated(seed, trouble), seed)
    for group in ("calls", "news", "events"):
        for kind in list(getattr(trouble, group)):
            less = msgspec.structs.replace(
                trouble, **{group: {k: v for k, v in getattr(trouble, group).items() if k != kind}}
            )
            report = simulate(generated(seed, less), seed)
            if report.problems:
                trouble, best = less, report
    return best


def show(seed: int, *, trace: bool) -> int:
    report = play(seed)
    if report.problems:
        report = reduce(seed)
        print(f"reduced to {report.befallen}")
    if trace or report.problems:
        print("\n".join(report.trace))
    print(
        json.dumps(
            {"seed": seed, "digest": report.digest, "problems": report.problems, "calls": report.calls}
        )
    )
    return 1 if report.problems else 0


def sweep(first: int, count: int, processes: int) -> int:
    begun, calls, bad = time.monotonic(), 0, 0
    befallen: Counter[str] = Counter()
    statuses: Counter[str] = Counter()
    with multiprocessing.Pool(processes) as pool:
        seeds = range(first, first + count)
        for done, (seed, problems, totals) in enumerate(
            pool.imap_unordered(outcome, seeds, chunksize=4), start=1
        ):
            calls += totals["calls"]
            befallen.update(totals["befallen"])
            statuses.update(totals["statuses"])
            if problems:
                bad += 1
                print(f"\nseed {seed}: {problems[0]}\n  repeat it: python proof/simulate.py --seed {seed}")
            bar(done, count, bad, begun)
    print(file=sys.stderr)
    result = {"seeds": count, "first": first, "bad": bad, "calls": calls, "faults": sum(befallen.values())}
    print(
        json.dumps(
            result
            | {"befallen": dict(befallen), "runs": dict(statuses), "s": round(time.monotonic() - begun)}
        )
    )
    return 1 if bad else 0


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
    parser.add_argument("--seed", type=int)
    parser.add_argument("--trace", action="store_true")
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count())
    given = parser.parse_args()
    if given.seed is not None:
        return show(given.seed, trace=given.trace)
    return sweep(given.first, given.seeds, given.processes)


if __name__ == "__main__":
    sys.exit(main())
