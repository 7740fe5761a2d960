"""The model of the append protocol holds, and each protection taken out breaks it (proof/append.pml)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

CHECK = Path(__file__).parent.parent.parent / "proof" / "check-spin.sh"
NOT_THERE = 77


def test_the_model_holds_and_its_mutants_do_not():
    """Some seconds; `proof/check-spin.sh` without an argument looks at 20 million states."""
    done = subprocess.run([CHECK, "small"], capture_output=True, text=True, timeout=170)
    if done.returncode == NOT_THERE:
        pytest.skip(done.stdout.strip())
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("  holds") == 3
    assert done.stdout.count("  breaks") == 5
