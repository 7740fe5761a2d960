"""Simulate deployments from many seeds, with a progress bar; a seed that finds a problem is repeated and shrunk.

    python proof/simulate.py --seeds 1000            seeds 0 to 999
    python proof/simulate.py --seeds 1000 --first N  from seed N on
    python proof/simulate.py --seed 23 --trace       one seed, with its trace
    python proof/simulate.py --shrink 23             one seed, made small: the command that repeats what is left
    python proof/simulate.py --case '{"seed": …}'    what is left of a seed, with its trace (or @FILE)

A sweep shrinks the first seed that finds a problem. Exit code 1 where a seed found one.
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

import msgspec
from scenarios import Case, drawn, generated, played, scenario_of, shrunk, statements

from holdfast.testing.simulation import Report

TOTAL = ("calls", "befallen", "statuses", "events")


def play(seed: int) -> Report:
    """One seed."""
    be_quiet()
    return played(generated(seed), seed)


def be_quiet() -> None:
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")


def outcome(seed: int) -> tuple[int, list[str], dict[str, Any]]:
    """What is sent back from a process of the pool."""
    report = play(seed)
    return seed, report.problems, {name: getattr(report, name) for name in TOTAL}


def show(case: Case, *, trace: bool) -> int:
    be_quiet()
    report = played(scenario_of(case), case.seed)
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


def sweep(first: int, count: int, processes: int) -> int:
    begun, calls, bad = time.monotonic(), 0, list[int]()
    befallen: Counter[str] = Counter()
    statuses: Counter[str] = Counter()
    events: Counter[str] = Counter()
    with multiprocessing.Pool(processes) as pool:
        seeds = range(first, first + count)
        for done, (seed, problems, totals) in enumerate(
            pool.imap_unordered(outcome, seeds, chunksize=4), start=1
        ):
            calls += totals["calls"]
            befallen.update(totals["befallen"])
            statuses.update(totals["statuses"])
            events.update(totals["events"])
            if problems:
                bad.append(seed)
                print(f"\nseed {seed}: {problems[0]}\n  repeat it: python proof/simulate.py --seed {seed}")
            bar(done, count, len(bad), begun)
    print(file=sys.stderr)
    result = {
        "seeds": count,
        "first": first,
        "bad": sorted(bad),
        "calls": calls,
        "faults": sum(befallen.values()),
    }
    print(
        json.dumps(
            result
            | {"befallen": dict(befallen), "runs": dict(statuses), "events": dict(events)}
            | {"s": round(time.monotonic() - begun)}
        )
    )
    if bad:
        make_small(min(bad))
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
    parser.add_argument("--shrink", type=int)
    parser.add_argument("--case")
    parser.add_argument("--trace", action="store_true")
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count())
    given = parser.parse_args()
    if given.shrink is not None:
        return make_small(given.shrink)
    if given.case is not None:
        text = Path(given.case[1:]).read_text() if given.case.startswith("@") else given.case
        return show(msgspec.json.decode(text, type=Case), trace=True)
    if given.seed is not None:
        return show(drawn(given.seed), trace=given.trace)
    return sweep(given.first, given.seeds, given.processes)


if __name__ == "__main__":
    sys.exit(main())
