"""The same shapes on Holdfast and on its peers, in turns: `python bench/peers.py [SHAPE[:N] …] [--json]`.

Each side is a process of its own (bench/peers/) that stays alive; for every repetition all sides do the shape
once, one after another, so that a slow minute of the disk is everybody's. A figure is the median; the ratio is
the median, over the repetitions, of the side's time by that of Holdfast on the same kind of store.

    holdfast-sqlite      synchronous=FULL, WAL: one fdatasync a commit
    dbos-sqlite          as it ships: rollback journal, synchronous=FULL
    dbos-sqlite-wal      the same, the file switched to WAL beforehand
    restate              its server from its npm package with default settings (fdatasync of its log, appends
                         grouped, by strace), its SDK behind hypercorn
    holdfast-postgres    the same server for both: fsync on, synchronous_commit=on
    dbos-postgres

What each one records: DBOS the inputs of a workflow and the result of each step; Restate inputs and results;
Holdfast also the arguments and the start of each attempt, all in a hash chain. So the comparison is not in its
own favour where fewer rows would do. In `hook`, the step of Restate tells the client over HTTP when it begins
(its worker is another process): about a millisecond of its time is that.

A default call takes less than five minutes, but for the first one, which fetches; shapes that are slow have fewer
rounds (the column n), one at least.

The peers' packages go into build/peers, by pip and npm, once. Where one cannot be had, the line says so.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.progress import track
from rich.table import Table

from holdfast.bench.place import postgres
from holdfast.errors import StoreError

HERE = Path(__file__).parent / "peers"
BUILD = Path(__file__).parent.parent / "build" / "peers"
PACKAGES = {
    "dbos": ["dbos==3.4.0"],
    "restate": ["restate-sdk==1.3.0", "hypercorn>=0.18", "aiohttp>=3.10"],
}
SHAPES = ["no_steps", "sequential:10", "sequential:50", "gather:50", "hook:10", "many:50"]
SIDES = ["holdfast-sqlite", "dbos-sqlite", "dbos-sqlite-wal", "restate", "holdfast-postgres", "dbos-postgres"]


class Unavailable(Exception):
    """A side cannot be had on this machine; the message says why."""


def python_of(peer: str) -> str:
    """The interpreter of a peer's own virtual environment, made when it is first asked for."""
    home = BUILD / f"venv-{peer}"
    python, done = home / "bin" / "python", home / ".ready"
    if not done.exists() or done.read_text() != repr(PACKAGES[peer]):
        venv.create(home, with_pip=True)
        command = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *PACKAGES[peer]]
        if subprocess.run(command, capture_output=True).returncode:
            raise Unavailable(f"pip cannot install {' '.join(PACKAGES[peer])}")
        done.write_text(repr(PACKAGES[peer]))
    return str(python)


def restate_server() -> str:
    """The server's binary, out of its npm package."""
    home = BUILD / "npm"
    home.mkdir(parents=True, exist_ok=True)
    found = sorted(home.glob("node_modules/@restatedev/restate-server-*/bin/restate-server"))
    if not found:
        try:
            # --prefix: else it goes where a folder above has a package.json
            command = ["npm", "install", "--silent", "--prefix", str(home), "@restatedev/restate-server"]
            subprocess.run(command, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise Unavailable(f"npm cannot install @restatedev/restate-server: {error}") from None
        found = sorted(home.glob("node_modules/@restatedev/restate-server-*/bin/restate-server"))
    if not found:
        raise Unavailable("the npm package of Restate has no server for this machine")
    return str(found[0])


class Side:
    """A system under test in its process."""

    def __init__(self, name: str, command: list[str], env: dict[str, str] | None = None) -> None:
        self.name = name
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
        )
        assert self.process.stdout is not None
        hello = self.process.stdout.readline()
        if not hello:
            raise Unavailable(f"its process ended with {self.process.wait()} before it was ready")
        self.about: dict[str, str] = json.loads(hello)["about"]

    def run(self, shape: str, n: int) -> float:
        """Milliseconds of one repetition."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"shape": shape, "n": n}) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self.name} died in {shape}:{n} with exit {self.process.wait()}")
        return float(json.loads(answer)["seconds"]) * 1e3

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def open_side(name: str, folder: Path, stack: ExitStack, servers: dict[str, str]) -> Side:
    """Bring one side up in a folder of its own."""
    system, _, store = name.partition("-")
    home = folder / name
    home.mkdir()
    if store == "postgres" and "url" not in servers:
        servers["url"] = stack.enter_context(postgres(folder / "server"))
    if system == "restate":
        side = Side(
            name,
            [python_of(system), str(HERE / "restate_side.py"), str(home)],
            {"RESTATE_SERVER": restate_server()},
        )
    else:
        python = sys.executable if system == "holdfast" else python_of(system)
        if store == "sqlite-wal":
            sqlite3.connect(home / "runs.db").execute("PRAGMA journal_mode = WAL")
        url = servers["url"] if store == "postgres" else f"sqlite:///{home / 'runs.db'}"
        side = Side(name, [python, str(HERE / f"{system}_side.py"), url])
    stack.callback(side.close)
    return side


def measure(
    sides: list[Side], shapes: list[tuple[str, int]], rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """One row a shape and side, the sides in turns: as many whole rounds as its share of the time has."""
    rows = []
    begun = time.monotonic()
    quiet = not sys.stderr.isatty()
    bar = track(shapes, "measuring", console=Console(stderr=True), disable=quiet)
    for number, (shape, n) in enumerate(bar, 1):
        taken: dict[str, list[float]] = {side.name: [] for side in sides}
        for side in sides:
            side.run(shape, n)  # the first one is slow with everybody
        until = begun + number * seconds / len(shapes)  # what one leaves over is the next one's
        done, took = 0, 0.0
        while done < rounds and (done < 1 or time.monotonic() + took < until):
            took = -time.monotonic()
            for side in sides:
                taken[side.name].append(side.run(shape, n))
            done, took = done + 1, took + time.monotonic()
        for side in sides:
            own = "holdfast-postgres" if side.name.endswith("postgres") else "holdfast-sqlite"
            row = {"shape": f"{shape}:{n}" if n else shape, "side": side.name, "rounds": done}
            row |= {"ms": statistics.median(taken[side.name]), "min": min(taken[side.name])}
            row["max"] = max(taken[side.name])
            if shape == "many":
                row["steps_per_second"] = n * 10_000 / row["ms"]
            if own in taken:
                pairs = zip(taken[side.name], taken[own], strict=True)
                row["ratio"] = statistics.median(theirs / ours for theirs, ours in pairs)
            rows.append({key: round(v, 3) if isinstance(v, float) else v for key, v in row.items()})
    return rows


def table(rows: list[dict[str, Any]], sides: list[Side]) -> Table:
    """Shape by side: the median, and how many times Holdfast's."""
    shown = Table(
        title="median ms, and × Holdfast on the same kind of store", box=SIMPLE, padding=(0, 0, 0, 1)
    )
    shown.add_column("shape", no_wrap=True)
    shown.add_column("n", justify="right")
    for side in sides:
        shown.add_column(side.name.replace("-", "\n"), justify="right", no_wrap=True)
    for shape in dict.fromkeys(row["shape"] for row in rows):
        cells = [row for row in rows if row["shape"] == shape]
        own = ("holdfast-sqlite", "holdfast-postgres")
        texts = [
            f"{row['ms']:,.1f}"
            + (f"\n× {row['ratio']:.2f}" if "ratio" in row and row["side"] not in own else "")
            for row in cells
        ]
        shown.add_row(shape, str(cells[0]["rounds"]), *texts)
    return shown


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("shapes", nargs="*", default=SHAPES, metavar="SHAPE[:N]", help="; ".join(SHAPES))
    words.add_argument("--sides", default=",".join(SIDES), help="comma-separated")
    words.add_argument("--rounds", type=int, default=7, help="at most (7)")
    words.add_argument("--minutes", type=float, default=3, help="for the rounds of all shapes, about (3)")
    words.add_argument("--json", action="store_true", help="one object a line instead of the table")
    given = words.parse_args()
    shapes = [(name, int(n or 0)) for name, _, n in (shape.partition(":") for shape in given.shapes)]
    BUILD.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="run-", dir=BUILD) as folder, ExitStack() as stack:
        sides, servers = [], {}
        for name in given.sides.split(","):
            try:
                sides.append(open_side(name, Path(folder).absolute(), stack, servers))
                print(
                    f"{name}: {sides[-1].about['sync']}; records {sides[-1].about['records']}",
                    file=sys.stderr,
                )
            except (Unavailable, StoreError) as error:
                print(f"{name} is left out: {error}", file=sys.stderr)
        rows = measure(sides, shapes, given.rounds, 60 * given.minutes)
    if given.json:
        for row in rows:
            print(json.dumps(row))
    else:
        Console().print(table(rows, sides))


if __name__ == "__main__":
    main()
