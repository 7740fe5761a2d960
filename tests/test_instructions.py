"""When the count of instructions refuses a change (`bench/instructions.py`; `make instructions` counts)."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).parents[1] / "bench" / "instructions.py"
spec = importlib.util.spec_from_file_location("instructions", FILE)
assert spec is not None
assert spec.loader is not None
instructions = importlib.util.module_from_spec(spec)
spec.loader.exec_module(instructions)

HERE, OTHER, NEWER = "CPython 3.11.7 x86_64, v", "CPython 3.11.2 x86_64, v", "CPython 3.12.1 x86_64, v"
RECORDED = {HERE: {"loop": 10_000, "memory": 300_000, "sqlite": 400_000}}


def counted(loop: float, memory: float, sqlite: float) -> dict[str, float]:
    return {"loop": 10_000 * loop, "memory": 300_000 * memory, "sqlite": 400_000 * sqlite}


@pytest.mark.parametrize(
    ("build", "now", "good", "said"),
    [
        (HERE, counted(1, 1.02, 0.99), True, "as recorded"),
        (HERE, counted(1, 1.1, 1), False, "dearer"),
        (HERE, counted(1, 1, 1.1), False, "dearer"),
        (HERE, counted(1, 0.9, 1), True, "cheaper: record it"),
        # The same versions, compiled otherwise: in turns of the loop.
        (HERE, counted(0.8, 0.8, 0.8), True, "no recorded build"),
        (HERE, counted(0.8, 1, 1), False, "no recorded build"),
        (OTHER, counted(1.2, 1.3, 1.3), True, "no recorded build"),
        (OTHER, counted(1.2, 1.2, 1.5), False, "no recorded build"),
        (NEWER, counted(1, 2, 2), True, "nothing is judged"),
    ],
)
def test_a_step_that_has_become_dearer_is_refused(
    build: str, now: dict[str, float], good: bool, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """5 % where the build is the recorded one, 20 % in turns of plain Python on another build of that version."""
    assert instructions.compare(build, now, RECORDED) is good
    assert said in capsys.readouterr().out
