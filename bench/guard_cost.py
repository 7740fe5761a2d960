"""What the watch over impure calls costs: in a tick, and in the code that runs between ticks.

    python bench/guard_cost.py

A tick's work: one send to a coroutine, 10 C calls, 5 Python calls; watched as the loop watches it. Between ticks:
computations as a step's body does them, before anything was watched in the process, after, and where workflows
call the same functions in their ticks. Each figure is the least of many, in turns.
"""

from __future__ import annotations

import gc
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


# ---- bodies: each is made anew for what runs in ticks, for that is kept by code object


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


def bodies() -> dict[str, Callable[[int], object]]:
    scope: dict[str, Any] = {"__name__": "bodies"}
    exec(BODIES, scope)
    return {name: scope[name] for name in ("calls_python", "calls_builtins", "calculates", "parses")}


def best(call: Callable[[], object], number: int, repeat: int = 200) -> float:
    """Microseconds."""
    least = float("inf")
    gc.collect()
    for _ in range(repeat):
        begun = time.perf_counter()
        for _ in range(number):
            call()
        least = min(least, (time.perf_counter() - begun) / number)
    return least * 1e6


def tick(call: Callable[[], object]) -> None:
    guard.begin()
    try:
        call()
    finally:
        guard.pause()


def main() -> None:
    alone, shared = bodies(), bodies()
    before = {name: best(lambda body=body: body(200), 5) for name, body in alone.items()}

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

    without = best(bare, 1000)
    aside = guard.set_aside()
    within, nothing = best(watched, 1000), best(empty, 1000)
    for body in shared.values():
        tick(lambda body=body: body(10))
    guard.put_back(aside)

    version = ".".join(map(str, sys.version_info[:3]))
    print(f"Python {version}, watched by {guard.watch.__module__.rpartition('.')[2]}")
    print("a tick's work   bare µs  watched µs  added µs  begin + pause µs")
    print(f"                {without:7.2f} {within:11.2f} {within - without:9.2f} {nothing:17.2f}")
    print("between ticks   µs before  after a tick  in code that ticks run too")
    for name, first in before.items():
        after, both = (best(lambda body=side[name]: body(200), 5) for side in (alone, shared))
        print(f"{name:<15} {first:9.0f} {after / first:11.2f} × {both / first:25.2f} ×")


if __name__ == "__main__":
    main()
