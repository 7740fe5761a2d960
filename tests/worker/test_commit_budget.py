"""The commit budget (DESIGN: the store): how often the disk is asked to make something durable, by shape.

Counted from outside: a child process plays the shapes under strace, and each `fdatasync` on the store's
write-ahead log is a commit. No counter of ours is asked.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PLAY = """
import asyncio, os, sys
import holdfast as hf

@hf.step
async def empty(number: int) -> int:
    return number

@hf.workflow
async def without_steps() -> int:
    return 1

@hf.workflow
async def sequence(count: int) -> int:
    for number in range(count):
        await empty(number)
    return count

@hf.workflow
async def gather(count: int) -> int:
    await asyncio.gather(*(empty(number) for number in range(count)))
    return count

@hf.workflow
async def one_payload(token: str) -> int:
    return await hf.hook(token, type=int)

@hf.workflow
async def one_sleep() -> None:
    await hf.sleep(0.05)

def mark(name):
    os.write(2, f"MARK {name}".encode())

async def play(app, name, workflow, *args):
    mark(name)
    run = await app.start(workflow, *args)
    return await run.result()

async def main():
    async with hf.connect(sys.argv[1]) as app, app.worker(lease=600):
        await play(app, "warm-up", sequence, 2)
        await play(app, "without steps", without_steps)
        for count in (1, 10, 50):
            await play(app, f"sequence {count}", sequence, count)
        for count in (10, 50):
            await play(app, f"gather {count}", gather, count)
        mark("timer")
        await (await app.start(one_sleep)).result()
        mark("open a hook")
        run = await app.start(one_payload, "budget")
        mark("payload that ends the run")
        await app.resume("budget", 7)
        await run.result()
        mark("end")

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def commits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed: commits cannot be counted from outside")
    folder = tmp_path_factory.mktemp("budget")
    (folder / "play.py").write_text(PLAY)
    trace = folder / "trace"
    arguments = [strace, "-f", "-y", "-e", "trace=fdatasync,fsync,write", "-s", "80", "-o", str(trace)]
    played = subprocess.run(
        [*arguments, sys.executable, str(folder / "play.py"), f"sqlite:///{folder}/budget.db"],
        capture_output=True,
        text=True,
        timeout=50,
    )
    if played.returncode != 0 and "ptrace" in played.stderr:
        pytest.skip("strace may not trace here: commits cannot be counted from outside")
    assert played.returncode == 0, played.stderr
    return count_commits(trace)


def count_commits(trace: Path) -> dict[str, int]:
    counts: dict[str, int] = {}
    shape = ""
    for line in trace.read_text(errors="replace").splitlines():
        marked = re.search(r'write\(2<[^>]*>, "MARK ([^"]*)"', line)
        if marked is not None:
            shape = marked.group(1)
            counts[shape] = 0
        elif shape and re.search(r"f(data)?sync\(\d+<[^>]*-wal>", line):
            counts[shape] += 1
    return counts


@pytest.mark.parametrize(
    ("shape", "budget"),
    [
        ("without steps", 1),
        ("sequence 1", 2),
        ("sequence 10", 11),
        ("sequence 50", 51),
        ("timer", 2),
        ("payload that ends the run", 2),
    ],
)
def test_a_shape_costs_just_its_commits(commits: dict[str, int], shape: str, budget: int) -> None:
    assert commits[shape] == budget


@pytest.mark.parametrize("shape", ["gather 10", "gather 50"])
def test_a_gather_of_immediate_steps_costs_at_most_four_commits(commits: dict[str, int], shape: str) -> None:
    assert 2 <= commits[shape] <= 4
