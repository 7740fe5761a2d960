"""What `import holdfast` costs: the time of fresh interpreters, from start to exit.

    python bench/import_time.py [--repeat N]

The cases take turns, so that a slow phase of the machine hits them all. Byte code is kept in a folder of
its own and written before the first measured run: an installed package has it as well. The figure to reach
is 100 ms; `asyncio` and `msgspec`, which every program of ours uses, are the part that is not ours.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

FIGURE = 100.0
CASES = ("pass", "import asyncio, msgspec", "import holdfast")


def measure(code: str, environment: dict[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    return (time.perf_counter() - start) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description="What `import holdfast` costs.")
    parser.add_argument("--repeat", type=int, default=40)
    repeat = parser.parse_args().repeat
    times: dict[str, list[float]] = {code: [] for code in CASES}
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for code in CASES:
            measure(code, environment)
        for _ in range(repeat):
            for code in CASES:
                times[code].append(measure(code, environment))
    print(f"{'python -c …':24} min ms  median ms")
    for code, taken in times.items():
        print(f"{code:24} {min(taken):6.1f} {statistics.median(taken):10.1f}")
    verdict = "within" if min(times["import holdfast"]) <= FIGURE else "OVER"
    print(f"minimum of {repeat}: {verdict} the figure of {FIGURE:.0f} ms")


if __name__ == "__main__":
    main()
