"""Trails beside the npm tool that they replace: `python bench/trails.py [SHAPE …] [--quick] [--json]`.

at-once   20 new trails saved at once in one process, 30 times
new       8 processes save 50 new trails each, in a folder that does not exist yet
shared    8 processes write 50 events each into one trail
kill      100 x kill -9 while a process writes: what was acknowledged and cannot be read afterwards
full      a disk of 256 KiB becomes full (needs the right to mount one)
scale     10,000 trails: start, list, search
saves     saves per second, one after another, and the floor of the disk

The other side is the real package, agent-trajectories 0.6.1, in the same run and in turns with ours; npm puts it
into a folder outside of the checkout, once ($HOLDFAST_BENCH_NPM, else the user's cache). Without Node, ours is
measured alone. Each side has folders of its own.

What is synced: Holdfast calls fdatasync on the journal for each event, and fsync on the folder for each new
trail, before it returns; the index is not synced, for it is derived. The npm tool syncs nothing, ever. The floor
of `saves` is what the disk takes for the same bytes with nothing around them, measured in turns with ours
(A B A B …): append and fdatasync for an event; new file, fdatasync and fsync of its folder for a trail.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

PACKAGE = "agent-trajectories@0.6.1"
DRIVERS = Path(__file__).with_name("drivers")
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
"""Of the measured processes: an installed package has its byte code."""


def progress(*words: object) -> None:
    print(*words, file=sys.stderr, flush=True)


# ---- the two sides ------------------------------------------------------------------------------------------


class Process:
    """One measured process: it says "ready", is let go, and says what it did."""

    def __init__(self, command: list[str], quiet: bool) -> None:
        self.process = subprocess.Popen(
            command,
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if quiet else None,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n", " ".join(command)

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def used(self) -> float:
        """Its processor time so far, in seconds; 0 where there is no /proc."""
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self, seconds: float | None = None) -> list[str]:
        """What it said, when it has ended; it is killed after so many seconds."""
        try:
            out, _ = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, _ = self.process.communicate()
        return out.splitlines()

    def kill(self) -> list[str]:
        self.process.send_signal(signal.SIGKILL)
        return self.end()


class Side:
    """One of the tools, and the folders that it works in."""

    def __init__(self, name: str, command: list[str], base: Path) -> None:
        self.name = name
        self.command = command
        self.base = base
        self.count = 0

    def folder(self, base: Path | None = None) -> Path:
        """A place that does not exist yet, where a folder of trails will be."""
        self.count += 1
        return (base or self.base) / f"{self.name}-{self.count}" / ".trajectories"

    def start(self, role: str, folder: Path, *args: object, quiet: bool = False) -> Process:
        place = folder if self.ours else folder.parent
        place.parent.mkdir(parents=True, exist_ok=True)
        quiet = quiet or not self.ours  # the npm tool counts what it cannot read, each time
        return Process([*self.command, role, str(place), *map(str, args)], quiet)

    def run(self, role: str, folder: Path, *args: object, seconds: float | None = None) -> list[str]:
        process = self.start(role, folder, *args)
        process.go()
        return process.end(seconds)

    @property
    def ours(self) -> bool:
        return self.name == "holdfast"

    def readable(self, folder: Path) -> dict[str, dict[str, Any]]:
        """What a new process can read of each trail."""
        process = self.start("look", folder)
        process.go()
        return {row["id"]: row for row in map(json.loads, process.end())}

    def listed(self, folder: Path) -> set[str]:
        """The trails that there are: in index.json itself, where there is one."""
        if self.ours:
            return set(json.loads((folder / "index.json").read_bytes())["trajectories"])
        return set(self.readable(folder))


def sides(base: Path) -> list[Side]:
    both = [Side("holdfast", [sys.executable, str(DRIVERS / "trails.py")], base)]
    package = npm_package()
    if package is not None:
        both.append(Side("npm", ["node", str(DRIVERS / "trails.mjs"), str(package)], base))
    return both


def npm_package() -> Path | None:
    """The folder of the real package, fetched by npm when it is not there; None where that cannot be."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        progress("Node is not here: Holdfast is measured alone")
        return None
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = Path(os.environ.get("HOLDFAST_BENCH_NPM") or cache / "holdfast-bench" / PACKAGE)
    package = home / "node_modules" / PACKAGE.partition("@")[0]
    if not package.exists():
        progress(f"npm fetches {PACKAGE} into {home}")
        home.mkdir(parents=True, exist_ok=True)
        words = ["npm", "install", "--prefix", str(home), "--no-audit", "--no-fund", "--silent", PACKAGE]
        if subprocess.run(words, check=False, stdout=sys.stderr).returncode != 0:
            progress(f"npm could not fetch {PACKAGE}: Holdfast is measured alone")
            return None
    return package


class Run(NamedTuple):
    """What processes did together: the seconds until the last was done, their processor time, what they said."""

    seconds: float
    cpu: float
    lines: list[str]


def together(processes: list[Process]) -> Run:
    """Let all go at one moment. What they did before, to get ready, is not counted."""
    before = spent() + sum(process.used() for process in processes)
    begun = time.perf_counter()
    for process in processes:
        process.go()
    lines = [line for process in processes for line in process.end()]
    return Run(time.perf_counter() - begun, spent() - before, lines)


def spent() -> float:
    """The processor time of all processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def split(lines: list[str]) -> tuple[list[str], int]:
    """What was acknowledged, and how often something was thrown."""
    return [line[2:] for line in lines if line.startswith("+ ")], sum(line.startswith("! ") for line in lines)


# ---- the shapes ---------------------------------------------------------------------------------------------

Rows = list[dict[str, Any]]


def shape_at_once(both: list[Side], quick: bool) -> Rows:
    rounds, rows = (5 if quick else 30), []
    for side in both:
        folder = side.folder()
        run = together([side.start("at-once", folder, 20, rounds)])
        saved, thrown = split(run.lines)
        rows.append(
            {
                "side": side.name,
                "shape": f"20 at once x {rounds}",
                "acknowledged": len(saved),
                "thrown": thrown,
                "missing": len(set(saved) - side.listed(folder)),
                "saves_per_s": len(saved) / run.seconds,
                "cpu_ms_per_save": 1e3 * run.cpu / len(saved),
            }
        )
    return rows


def shape_new(both: list[Side], quick: bool) -> Rows:
    results: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for turn in range(2 if quick else 6):
        for side in both:
            folder, watched = side.folder(), turn == 0
            processes = [side.start("new", folder, 50) for _ in range(8)]
            watcher = Process([*both[0].command, "watch", str(folder.parent)], quiet=False)
            if watched:
                watcher.go()
            run = together(processes)
            if not watched:
                watcher.go()  # a reader takes time from the writers: it is there in the first round only
            watcher.process.stdin.write("\n")  # type: ignore[union-attr]
            saw = json.loads(watcher.end()[-1])
            saved, thrown = split(run.lines)
            missing = len(set(saved) - side.listed(folder))
            told = {
                "saved": len(saved),
                "thrown": thrown,
                "missing": missing,
                "rate": len(saved) / run.seconds,
            }
            told["cpu"] = 1e3 * run.cpu / len(saved)
            results[side.name].append(told | {"torn": saw["torn"] if watched else 0, "seen": saw["seen"]})
    rows: Rows = []
    for name, told in results.items():
        rates = [one["rate"] for one in told[1:]]
        rows.append(
            {
                "side": name,
                "shape": "8 processes x 50 new",
                "acknowledged": min(one["saved"] for one in told),
                "thrown": max(one["thrown"] for one in told),
                "missing": max(one["missing"] for one in told),
                "torn_reads": told[0]["torn"],
                "of_reads": told[0]["seen"],
                "saves_per_s": statistics.median(rates),
                "cpu_ms_per_save": statistics.median(one["cpu"] for one in told[1:]),
                "runs": [round(rate) for rate in rates],
            }
        )
    if len(rows) == 2:
        pairs = zip(results["holdfast"][1:], results["npm"][1:], strict=True)
        rows[0]["times_npm"] = statistics.median(ours["rate"] / theirs["rate"] for ours, theirs in pairs)
    return rows


def shape_shared(both: list[Side], quick: bool) -> Rows:
    rows: Rows = []
    for side in both:
        for _ in range(1 if quick else 3):
            folder = side.folder()
            (trail_id,) = split(side.run("create", folder))[0]
            run = together([side.start("shared", folder, trail_id, 50) for _ in range(8)])
            told, thrown = split(run.lines)
            kept = side.readable(folder).get(trail_id, {"events": []})["events"]
            rows.append(
                {
                    "side": side.name,
                    "shape": "8 processes x 50 events on one",
                    "acknowledged": len(told),
                    "thrown": thrown,
                    "lost": len(set(told) - set(kept)),
                    "doubled": len(kept) - len(set(kept)),
                    "saves_per_s": len(told) / run.seconds,
                }
            )
    return rows


def acknowledged(lines: list[str]) -> dict[str, tuple[int, str]]:
    """For each trail the events and the status that a writer had been told are saved."""
    told: dict[str, tuple[int, str]] = {}
    for line in split(lines)[0]:
        trail_id, events, status = line.split()
        told[trail_id] = int(events), status
    return told


def lost(told: dict[str, tuple[int, str]], readable: dict[str, dict[str, Any]]) -> int:
    """The trails that cannot be read as they were acknowledged."""
    return sum(
        trail_id not in readable
        or len(readable[trail_id]["events"]) < events
        or (status == "completed" and readable[trail_id]["status"] != "completed")
        for trail_id, (events, status) in told.items()
    )


def shape_kill(both: list[Side], quick: bool) -> Rows:
    times, rows = (10 if quick else 100), []
    for side in both:
        folder, chance, told = side.folder(), random.Random(4), {}
        for number in range(times):
            process = side.start("live", folder)
            process.go()
            time.sleep(chance.uniform(0.005, 0.125))
            told |= acknowledged(process.kill())
            if number % 25 == 24:
                progress(f"  {side.name}: {number + 1} kills")
        readable = side.readable(folder)
        left = [path for path in folder.parent.rglob("*") if path.name.endswith(".tmp")]
        rows.append(
            {
                "side": side.name,
                "shape": f"{times} x kill -9",
                "acknowledged": len(told),
                "lost": lost(told, readable),
                "temporary_files": len(left),
            }
        )
    return rows


def shape_full(both: list[Side], quick: bool) -> Rows:
    rows: Rows = []
    for side in both:
        disk = side.base / f"{side.name}-disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "holdfast-bench", str(disk)]
        if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
            progress("  no right to mount a small disk: left out")
            return rows
        try:
            folder = side.folder(disk)
            process = side.start("fill", folder, quiet=True)
            process.go()
            told = acknowledged(process.end(60))
            rows.append(
                {
                    "side": side.name,
                    "shape": "disk full",
                    "acknowledged": sum(events for events, _ in told.values()),
                    "lost": lost(told, side.readable(folder)),
                    "temporary_files": len([p for p in disk.rglob("*") if p.name.endswith(".tmp")]),
                }
            )
        finally:
            subprocess.run(["umount", str(disk)], check=True)
    return rows


def shape_scale(both: list[Side], quick: bool) -> Rows:
    number, rows = (1000 if quick else 10_000), []
    for side in both:
        folder = side.folder()
        progress(f"  {side.name}: {number:,} trails are built")
        lines = side.run("build", folder, number)
        progress(f"  {side.name}: and used")
        lines += side.run("scale", folder, seconds=30 if quick else 120)
        times: dict[str, list[float]] = defaultdict(list)
        for row in map(json.loads, lines):
            times[row["what"]].append(row["ms"])
        for what, taken in times.items():
            told = {"side": side.name, "shape": f"{number:,} trails: {what}", "first_ms": taken[0]}
            rows.append(told | ({"ms": statistics.median(taken[1:])} if len(taken) > 1 else {}))
        if not side.ours and "search, a miss" not in times:
            rows.append(
                {"side": side.name, "shape": f"{number:,} trails: search, a miss", "ms": "not waited for"}
            )
    return rows


def shape_saves(both: list[Side], quick: bool) -> Rows:
    number, rows = (50 if quick else 400), []
    for side in both:
        times: dict[str, list[float]] = defaultdict(list)
        for row in map(json.loads, side.run("saves", side.folder(), number)):
            times[row["what"]].append(row["ms"])
        for what in ("event", "new trail"):
            told = {"side": side.name, "shape": f"one after another: {what}"}
            told |= {"saves_per_s": 1e3 * number / sum(times[what]), "ms": statistics.median(times[what])}
            if floor := times.get(f"{what}, floor"):
                told |= {
                    "floor_per_s": 1e3 * number / sum(floor),
                    "times_floor": statistics.median(a / b for a, b in zip(times[what], floor, strict=True)),
                }
            rows.append(told | {"durable": "yes" if side.ours else "no"})
    return rows


SHAPES = {
    "at-once": shape_at_once,
    "new": shape_new,
    "shared": shape_shared,
    "kill": shape_kill,
    "full": shape_full,
    "scale": shape_scale,
    "saves": shape_saves,
}


def table(rows: Rows) -> None:
    """All rows, one under the other, those of one shape together."""
    print(f"\n{'shape':<46} {'side':<9} figures")
    order = {row["shape"]: None for row in rows}
    for shape in order:
        for row in (row for row in rows if row["shape"] == shape):
            figures = (item for item in row.items() if item[0] not in ("shape", "side"))
            shown = (f"{k} {v:,.1f}" if isinstance(v, float) else f"{k} {v}" for k, v in figures)
            print(f"{shape:<46} {row['side']:<9} {' · '.join(shown)}")


def verdicts(rows: Rows) -> Iterator[str]:
    """Whether the figures to reach were reached."""
    figures = [
        ("8 processes x 50 new", "times_npm", lambda v: v >= 4, "at least 4 times the npm tool"),
        ("10,000 trails: start", "ms", lambda v: v < 50, "start below 50 ms"),
        ("10,000 trails: list", "ms", lambda v: v < 100, "list below 100 ms"),
        ("10,000 trails: search, 20 hits", "ms", lambda v: v < 100, "search below 100 ms"),
    ]
    for shape, key, reached, what in figures:
        for row in rows:
            if row["side"] == "holdfast" and row["shape"] == shape and key in row:
                yield f"{'reached' if reached(row[key]) else 'MISSED'}: {what} ({row[key]:,.1f})"
    bad = sum(
        row.get(k, 0) for row in rows if row["side"] == "holdfast" for k in ("thrown", "missing", "lost")
    )
    bad += sum(
        row.get("torn_reads", 0) + row.get("temporary_files", 0) for row in rows if row["side"] == "holdfast"
    )
    yield f"{'reached' if bad == 0 else 'MISSED'}: nothing thrown, missing, lost, torn or left over ({bad})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shapes", nargs="*", metavar="SHAPE", help=", ".join(SHAPES))
    parser.add_argument("--quick", action="store_true", help="fewer rounds, and 1,000 trails for 10,000")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    options = parser.parse_args()
    rows: Rows = []
    with tempfile.TemporaryDirectory(dir=os.environ.get("HOLDFAST_BENCH_DIR", ".")) as place:
        ENVIRONMENT["PYTHONPYCACHEPREFIX"] = str(Path(place).resolve() / "bytecode")
        both = sides(Path(place).resolve())
        for name in options.shapes or SHAPES:
            progress(name)
            rows += SHAPES[name](both, options.quick)
            with contextlib.suppress(OSError):
                for side in both:  # the folders of 10,000 trails are not carried along
                    for folder in Path(place).glob(f"{side.name}-*"):
                        shutil.rmtree(folder)
    if options.json:
        for row in rows:
            print(json.dumps(row))
        return
    table(rows)
    for verdict in verdicts(rows):
        print(verdict)


if __name__ == "__main__":
    main()
