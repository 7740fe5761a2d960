"""Evidence that does not come from Holdfast: a plain file to which each step body appends one line.

The demo compares that file with the log. `gate=True` lets the demo hold a step while it runs: where the
environment names a file in SURVEY_GATE and that file exists, the step waits until it is gone.
"""

import os
import time
from datetime import datetime
from pathlib import Path

import holdfast as hf

FOLDER = Path(".holdfast/demo")


def announce(*, gate: bool = False) -> None:
    """Leave a line that this step's body begins, before it does anything else."""
    info = hf.step_info()
    path = effects_file(info.run_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    line = f"{datetime.now():%H:%M:%S.%f} {info.step} attempt={info.attempt} pid={os.getpid()}\n"
    with path.open("a") as file:
        file.write(line)
    if gate:
        wait_at_gate()


def effects_file(run_id: str) -> Path:
    """Where the lines of a run stand."""
    return FOLDER / run_id / "effects.txt"


def wait_at_gate() -> None:
    """Wait while the gate is shut. Outside the demo there is none."""
    gate = os.environ.get("SURVEY_GATE")
    while gate and Path(gate).exists():
        time.sleep(0.01)
