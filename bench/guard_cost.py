"""What the watch over impure calls costs: in a tick, and in the code that runs between ticks.

    python bench/guard_cost.py [--rounds 15]

A tick's work: one send to a coroutine, 10 C calls, 5 Python calls; watched as the loop watches it. Between ticks:
computations as steps do them, by two processes in turns: one has never watched anything, in the other there was a
tick. `shared` is the same code where the tick has called it too. Each figure is the least of many.
"""

from __future__ import annotations

import argparse
import gc
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from typing import Any

from holdfast.engine import guard


def plain(value: int) -> int:
    return value


def work() -> Generator[None, None, None]:
    numbers = [1, 2, 3]
    while True:
        for _ in range(5):
            plain(numbers.count(1))
            numbers.index(3)
        yield


def best(call: Callable[[], object], number: int, repeat: int) -> float:
    """Microseconds."""
    least = float("inf")
    gc.collect()
    for _ in range(repeat):
        begun = time.perf_counter()
        for _ in range(number):
            call()
        least = min(least, (time.perf_counter() - begun) / number)
    return least * 1e6


def in_ticks() -> None:
    send = work().send
    send(None)  # type: ignore[arg-type]

    def bare() -> None:
        send(None)  # type: ignore[arg-type]

    def watched() -> None:
        guard.begin()
        send(None)  # type: ignore[arg-type]
        guard.pause()

    def empty() -> None:
        guard.begin()
        guard.pause()

    without = best(bare, 1000, 200)
    aside = guard.set_aside()
    within, nothing = best(watched, 1000, 200), best(empty, 1000, 200)
    guard.put_back(aside)
    print("a tick's work   bare µs  watched µs  added µs  begin + pause µs")
    print(f"                {without:7.2f} {within:11.2f} {within - without:9.2f} {nothing:17.2f}")


# ---- between ticks

BODIES = """
def calls_python(times):
    def call(number):
        return number
    for number in range(times):
        call(number)

def calls_builtins(times):
    numbers = [1, 2, 3]
    for number in range(times):
        len(numbers)
        isinstance(number, int)

def calculates(times):
    total = 0
    for number in range(times):
        total += number * number % 7
    return total

class Line:
    def __init__(self, text):
        self.name, _, self.value = text.partition("=")

    def number(self):
        return int(self.value)

def parses(times):
    return sum(Line(line).number() for line in ["name=17"] * times)
"""
NAMES = ("calls_python", "calls_builtins", "calculates", "parses")


def bodies() -> list[Callable[[int], object]]:
    """Made anew for each use: what is watched is kept by code object."""
    scope: dict[str, Any] = {"__name__": "bodies"}
    exec(BODIES, scope)
    return [scope[name] for name in NAMES]


def side(ticked: bool) -> None:
    """For each line that comes: what each body takes, and then each that was called in a tick."""
    alone, shared = bodies(), bodies()
    if ticked:
        aside = guard.set_aside()
        guard.begin()
        for body in shared:
            body(10)
        guard.pause()
        guard.put_back(aside)
    for _ in sys.stdin:
        print(*(best(lambda body=body: body(500), 1, 30) for body in alone + shared), flush=True)


def between_ticks(rounds: int) -> None:
    children = [
        subprocess.Popen(
            [sys.executable, __file__, "--side", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("never", "ticked")
    ]
    taken: list[list[list[float]]] = [[], []]
    for _ in range(rounds):
        for child, rows in zip(children, taken, strict=True):
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write("\n")
            child.stdin.flush()
            rows.append([float(figure) for figure in child.stdout.readline().split()])
    for child in children:
        child.communicate(timeout=60)
    never, ticked = ([min(column) for column in zip(*rows, strict=True)] for rows in taken)
    print("between ticks   bare µs  after a tick  shared")
    for number, name in enumerate(NAMES):
        bare = never[number]
        alone, shared = ticked[number] / bare, ticked[number + len(NAMES)] / bare
        print(f"{name:<15} {bare:7.1f} {alone:11.2f} × {shared:5.2f} ×")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--side", choices=("never", "ticked"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        side(options.side == "ticked")
        return
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"Python {version}, watched by {guard.watch.__module__.rpartition('.')[2]}")
    in_ticks()
    between_ticks(options.rounds)


if __name__ == "__main__":
    main()
