"""Take a protection out, and see that a test notices: each mutant is a patch, applied to a copy of the source.

    python proof/mutants.py                 all of `mutants.toml`, with a progress line each
    python proof/mutants.py --only fence    those whose name holds "fence"
    python proof/mutants.py --seconds 50    as many as there is time for, other ones after each commit
    python proof/mutants.py --only fence --search tests/worker   another test that notices
    python proof/mutants.py --table         the list in README.md anew

A mutant is killed where the test that is named beside it fails without its protection. A test that cannot be
collected has not failed, nor has one that hangs, unless the list says of the mutant that it `hangs`. Exit code 1
where a mutant survives, or its patch does not fit the source (then the list is what is out of date).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src"
README = ROOT / "proof" / "README.md"


class Mutant(NamedTuple):
    """A protection, what it holds, its patch of src/holdfast, and the test that fails (or `hangs`) without it."""

    name: str
    law: str
    file: str
    old: str
    new: str
    killer: str
    hangs: bool = False


MUTANTS = [Mutant(**one) for one in tomllib.loads((ROOT / "proof" / "mutants.toml").read_text())["mutant"]]

PATIENCE = 180.0
"""Seconds after which a test hangs."""
HUNG = f"no test has failed in {PATIENCE:g} s: it hangs"
_TABLE = re.compile(r"(?<=<!-- mutants -->\n).*?(?=<!-- end of mutants -->)", re.DOTALL)
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


class Outcome(NamedTuple):
    """`killer` is the test that failed; None where the mutant lives, for the reason in `why`. `hung` says so."""

    mutant: Mutant
    killer: str | None
    why: str
    seconds: float
    hung: bool = False


def patched(mutant: Mutant) -> str:
    """The file without the protection. Raises ValueError where the patch does not fit."""
    text = (SOURCE / "holdfast" / mutant.file).read_text()
    if text.count(mutant.old) != 1:
        raise ValueError(f"its patch fits {text.count(mutant.old)} places of {mutant.file}")
    return text.replace(mutant.old, mutant.new)


def play(mutant: Mutant, tests: str) -> Outcome:
    """Apply a mutant to a copy, and run the tests until one fails."""
    begun = time.monotonic()
    try:
        text = patched(mutant)
    except ValueError as error:
        return Outcome(mutant, None, str(error), 0.0)
    with tempfile.TemporaryDirectory(prefix="holdfast-mutant-") as folder:
        source = Path(folder) / "src"
        shutil.copytree(SOURCE, source, ignore=shutil.ignore_patterns("__pycache__"))
        (source / "holdfast" / mutant.file).write_text(text)
        killer, why = _run(source, tests)
    hung = why == HUNG
    if hung and mutant.hangs:
        killer, why = tests, ""
    return Outcome(mutant, killer, why, time.monotonic() - begun, hung)


def _run(source: Path, tests: str) -> tuple[str | None, str]:
    """The test that failed, or None and why none did."""
    options = ["-x", "-q", "-rfE", "-p", "no:cacheprovider", "-p", "no:xdist"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(source),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOLDFAST_PATIENCE": "4",  # less than the time after which waiters look by themselves: no news is a hang
    }
    with subprocess.Popen(
        [sys.executable, "-m", "pytest", *options, *tests.split()],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            said, _ = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            return None, HUNG
    found = _FAILED.search(said)
    if process.returncode == 1 and found is not None:
        return found[1], ""
    return None, "" if process.returncode == 0 else f"pytest ended with {process.returncode}: {said[-300:]}"


def chosen(only: str, in_time: bool) -> list[Mutant]:
    """The mutants of a name; where there may not be time for all, in an order that each commit draws anew."""
    mutants = [mutant for mutant in MUTANTS if only in mutant.name]
    if in_time:
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        random.Random(head.stdout).shuffle(mutants)
    return mutants


def table() -> str:
    """Which test kills which mutant, as people read it."""
    rows = [
        f"| {m.law} | {m.name} | `{m.killer.replace('tests/', '', 1)}`{' (hangs)' * m.hangs} |"
        for m in MUTANTS
    ]
    return "\n".join(["", "| holds | without it: | fails (of `tests/`) |", "|---|---|---|", *rows, "", ""])


def tell(outcome: Outcome, done: int, count: int, *, as_json: bool) -> None:
    mutant = outcome.mutant
    if as_json:
        more = {
            "killed_by": outcome.killer,
            "hung": outcome.hung,
            "why": outcome.why,
            "s": round(outcome.seconds, 1),
        }
        print(json.dumps({**mutant._asdict(), **more}), flush=True)
        return
    verdict = f"{'hung' if outcome.hung else 'killed by'} {outcome.killer}" if outcome.killer else "SURVIVES"
    why = f" ({outcome.why})" if outcome.why else ""
    print(
        f"[{done}/{count}] {mutant.law:8} {mutant.name}: {verdict}{why}, {outcome.seconds:.0f} s", flush=True
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Take protections out, and see that a test notices.")
    parser.add_argument("--only", default="", help="those whose name holds this")
    parser.add_argument("--seconds", type=float, help="begin none later than this")
    parser.add_argument("--search", help="tests to run in place of the ones that are named")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--table", action="store_true", help="write the list in README.md anew")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.table:
        README.write_text(_TABLE.sub(lambda _: table(), README.read_text()))
        return 0
    mutants, alive, done = chosen(given.only, given.seconds is not None), 0, 0
    until = time.monotonic() + (given.seconds if given.seconds is not None else float("inf"))

    def one(mutant: Mutant) -> Outcome | None:
        return None if time.monotonic() > until else play(mutant, given.search or mutant.killer)

    with ThreadPoolExecutor(given.processes) as pool:
        for future in as_completed([pool.submit(one, mutant) for mutant in mutants]):
            outcome = future.result()
            if outcome is None:
                continue
            done += 1
            alive += outcome.killer is None
            tell(outcome, done, len(mutants), as_json=given.json)
    print(f"{done} of {len(mutants)} mutants, {alive} of them alive", file=sys.stderr)
    return 1 if alive or not done else 0


if __name__ == "__main__":
    sys.exit(main())
