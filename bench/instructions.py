"""How many instructions a step takes, under callgrind, and whether that is what was recorded.

    make instructions            # compare with bench/instructions.json; exit 1 where a step has become dearer
    make instructions RECORD=1   # record what is counted now, for this build

Instructions do not depend on who else is busy, so they can be asserted where times cannot. One process runs a
sequence of empty steps in two lengths, on memory and on SQLite (a file in memory); what the longer one takes
beyond the shorter one is the steps' own: no import, no beginning, no end. What would make two counts differ is
left out: the hash seed is fixed, the garbage collector waits, no timer comes, every commit is made on the loop's
thread. So two counts of one code lie within a per cent.

Another build takes other numbers for the same code. Beside the steps a loop of plain Python is counted, of which
nothing is Holdfast's. Where the versions and that loop are the recorded ones, a step may be 5 % dearer (`CLOSE`).
On other builds of a minor version its price is taken in turns of that loop, and may be 20 % dearer (`FAR`):
Debian's 3.11.2 lay 7 and 9 % above pyenv's 3.11.7. Another minor version is another interpreter (3.12 takes a
fifth more, for the loop too): there, nothing is judged until somebody has recorded it. What became cheaper is no
failure, but is to be recorded: it may be lost unseen.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

RECORDED = Path(__file__).with_name("instructions.json")
CLOSE, FAR = 0.05, 0.20
"""How much dearer a step may be: on the recorded build, on another one."""
SAME_LOOP = 0.01
"""How near the loop's figure is to the recorded one, where the build is the recorded one."""
SHORT, LONG, TURNS = 40, 140, 2000
STORES = ("memory", "sqlite")
MARK = "ctermid"
"""A function of the C library that nobody else calls (`os.ctermid`): when it is entered, callgrind writes down
what it has counted since the last time. One that is called by ctypes is not seen by it."""


# ---- what is counted (this part runs under callgrind)


def program(folder: str) -> None:
    """A mark before and behind each part: the loop, then for each store the short and the long sequence."""
    import holdfast as hf
    from holdfast.store.sqlite import store as sqlite

    sqlite.SLOW = 3600.0  # under callgrind each disk is slow; commits stay on the loop's thread all the same
    mark = os.ctermid
    slower = int(
        os.environ.get("SLOWER", "0")
    )  # turns of the loop in each step: to see that this guard notices

    @hf.step
    async def empty(number: int) -> int:
        if slower:
            loop(slower)
        return number

    @hf.workflow
    async def sequence(count: int) -> int:
        for number in range(count):
            await empty(number)
        return count

    async def run(app: hf.App, steps: int) -> None:
        assert await (await app.start(sequence, steps)).result() == steps

    async def on(url: str) -> None:
        async with hf.connect(url) as app, app.worker(poll=3600, probe=3600, lease=36_000):
            await run(app, 30)  # what happens once has happened
            await run(app, 30)
            for steps in (SHORT, LONG):
                mark()
                await run(app, steps)
            mark()

    gc.disable()
    loop(10)
    mark()
    loop(TURNS)
    mark()
    for store in STORES:
        asyncio.run(on("memory://" if store == "memory" else f"sqlite:///{folder}/cost.db"))


def loop(turns: int) -> int:
    """Plain Python of several kinds: calls, attributes, dicts, strings, lists."""
    table: dict[str, list[int]] = {}
    for turn in range(turns):
        thing = Thing(turn)
        table[f"{turn % 50}"] = [thing.number, *(n + 1 for n in (1, 2, 3)), len(str(turn))]
        thing.add(sum(table[f"{turn % 50}"]))
    return len(table)


class Thing:
    """An object with an attribute and a method."""

    def __init__(self, number: int) -> None:
        self.number = number

    def add(self, more: int) -> None:
        """Add to it."""
        self.number += more


# ---- counting


def counted() -> dict[str, float]:
    """Instructions of a turn of the loop, and of a step on each store."""
    parent = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        subprocess.run(
            [
                "valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={folder}/part",
                f"--dump-before={MARK}", sys.executable, __file__, "--program", folder,
            ],
            env={**os.environ, "PYTHONHASHSEED": "0"}, check=True,
        )  # fmt: skip

        def part(number: int) -> int:
            found = re.search(r"^totals: (\d+)", Path(f"{folder}/part.{number}").read_text(), re.MULTILINE)
            assert found is not None, f"part {number} has no sum"
            return int(found[1])

        figures = {"loop": part(2) / TURNS}
        for number, store in enumerate(
            STORES
        ):  # its parts: up to its first mark, the short run, the long one
            short, long = part(4 + 3 * number), part(5 + 3 * number)
            figures[store] = (long - short) / (LONG - SHORT)
        return {name: round(figure) for name, figure in figures.items()}


def build() -> str:
    """What the numbers depend on, but for the code."""
    version = subprocess.run(["valgrind", "--version"], capture_output=True, text=True, check=True).stdout
    python = f"{platform.python_implementation()} {platform.python_version()} {platform.machine()}"
    libraries = (f"{name} {metadata.version(name)}" for name in ("apsw", "msgspec"))
    return ", ".join((python, version.strip(), *libraries))


# ---- comparing


def compare(name: str, now: dict[str, float], recorded: dict[str, dict[str, float]]) -> bool:
    """Print a table, and say whether no step has become dearer."""
    alike = [then for other, then in recorded.items() if _minor(other) == _minor(name)]
    if not alike:
        print(f"Nothing is recorded for {_minor(name)}, so nothing is judged: make instructions RECORD=1")
        print(*(f"{what}: {figure:,.0f}" for what, figure in now.items()), sep=", ")
        return True
    then = recorded.get(name, alike[-1])
    close = name in recorded and abs(now["loop"] / then["loop"] - 1) <= SAME_LOOP
    allowed = CLOSE if close else FAR
    if not close:
        print(f"This is no recorded build ({name}): steps are compared in turns of the loop.")
    print(f"{'':8}{'recorded':>12}{'now':>12}{'change':>9}   allowed +{allowed:.0%}")
    print(
        f"{'loop':8}{then['loop']:12,.0f}{now['loop']:12,.0f}{now['loop'] / then['loop'] - 1:+9.1%}   a turn of it"
    )
    good = True
    for store in STORES:
        before = then[store] if close else then[store] / then["loop"] * now["loop"]
        change = now[store] / before - 1
        verdict = (
            "dearer" if change > allowed else "cheaper: record it" if change < -allowed else "as recorded"
        )
        print(f"{store:8}{before:12,.0f}{now[store]:12,.0f}{change:+9.1%}   {verdict}")
        good &= change <= allowed
    return good


def _minor(name: str) -> str:
    """'CPython 3.11' of a build's name."""
    return ".".join(name.split(".")[:2])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help="record what is counted")
    parser.add_argument("--program", metavar="FOLDER", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.program:
        program(asked.program)
        return 0
    if shutil.which("valgrind") is None:
        print("valgrind is missing: apt-get install valgrind", file=sys.stderr)
        return 2
    name, now = build(), counted()
    recorded: dict[str, dict[str, float]] = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    if asked.record:
        RECORDED.write_text(json.dumps({**recorded, name: now}, indent=2) + "\n")
        print(f"recorded for {name}: {now}")
        return 0
    if compare(name, now, recorded):
        return 0
    print("A step has become dearer: find out why. Must it be so, record it: make instructions RECORD=1")
    return 1


if __name__ == "__main__":
    sys.exit(main())
