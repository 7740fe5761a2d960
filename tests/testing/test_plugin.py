"""The plug-in, as pytest finds it: in a process of its own, with nothing but its entry point."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SUITE = """
import pytest
import holdfast as hf

@hf.step
async def price(item: str) -> int:
    return len(item)

@hf.workflow
async def total(items: list[str]) -> int:
    prices = [await price(item) for item in items]
    await hf.sleep(86400)
    return sum(prices) + await hf.hook("tip", type=int)

@hf.workflow
async def hashed(items: list[str]) -> int:
    return len([await price(item) for item in set(items)])

def test_passes(durable):
    run = durable.start(total, ["lamp"]).until_hook()
    assert run.send("tip", 1).result() == 5

def test_fails(durable):
    assert durable.start(total, ["lamp"], run_id="order-1").play([("tip", 1)]).result() == 4

def test_depends_on_hashes(durable):
    durable.execute(hashed, [str(n) for n in range(20)])

def test_without_workflows():
    pass
"""


def run(folder: Path, *words: str) -> str:
    (folder / "test_shop.py").write_text(SUITE)
    (folder / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-W",
        "error",
        *words,
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    return done.stdout + done.stderr


def test_the_fixture_is_there_and_a_failure_shows_the_log(tmp_path: Path) -> None:
    out = run(tmp_path)
    assert "2 failed, 2 passed" in out, out
    report = out[out.index("the log of order-1") :]
    assert "2 run_started" in report
    assert "run_completed" in report
    assert "the run does not replay to itself" in out
    assert "durable" in run(tmp_path, "--fixtures", "-q")


def test_it_costs_little_where_nobody_uses_it() -> None:
    heavy = (
        "'holdfast.client', 'holdfast.engine', 'holdfast.store', 'holdfast.worker', 'apsw', 'rich', 'pytest'"
    )
    code = f"""
import sys, holdfast.testing
assert not {{{heavy}}} & sys.modules.keys()
import pytest, holdfast.testing.plugin
assert not {{{heavy}}} - {{'pytest'}} & sys.modules.keys()
for name in holdfast.testing.__all__:
    assert getattr(holdfast.testing, name).__name__ == name
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
