"""Many agents that register and save at the same instant: nobody is lost (T-01, T-02, T-08), on a quiet stderr."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def fan_out(folder: Path, rounds: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "examples.fan_out"]
    return subprocess.run(
        [*command, "--rounds", str(rounds), "--folder", str(folder)], cwd=ROOT, capture_output=True, text=True
    )


def check(folder: Path, rounds: dict[int, int]) -> None:
    """Read what is there as plain files: the test's own count, not the example's."""
    for agents, count in rounds.items():
        folders = sorted((folder / f"{agents}-agents").iterdir())
        assert len(folders) == count
        for place in folders:
            trails = json.loads((place / ".trajectories" / "index.json").read_text())["trajectories"]
            own = {e["title"] for e in trails.values() if e["status"] == "completed"}
            assert own == {f"What agent-{number} found" for number in range(agents)}
            (team,) = [trail_id for trail_id, entry in trails.items() if entry["status"] == "active"]
            journal = (place / ".trajectories" / "active" / f"{team}.jsonl").read_text().splitlines()
            lines = [json.loads(line) for line in journal]
            for type in ("agent_joined", "chapter_opened", "note", "chapter_closed"):
                told = sorted(entry["agent"] for entry in lines if entry["type"] == type)
                assert told == sorted(f"agent-{number}" for number in range(agents)), type
            assert not list(place.rglob("*.tmp"))


def test_a_few_rounds(tmp_path: Path) -> None:
    done = fan_out(tmp_path, 5)
    assert done.stderr == ""
    assert done.returncode == 0, done.stdout
    assert "PASS" in done.stdout
    check(tmp_path, {3: 2, 10: 2, 50: 1})


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_thirty_rounds(tmp_path: Path) -> None:
    """`python -m examples.fan_out` plays a hundred."""
    done = fan_out(tmp_path, 30)
    assert done.stderr == ""
    assert done.returncode == 0, done.stdout
    check(tmp_path, {3: 12, 10: 12, 50: 6})
