"""What the watch over impure calls costs for a piece of work of the size of a tick.

    python bench/guard_cost.py

The work: one send to a coroutine, 10 C calls, 5 Python calls. From Python 3.12 on, a good part of
the price is that the interpreter instruments its code anew when a profile function comes or goes.
"""

from __future__ import annotations

import sys
import timeit
from collections.abc import Callable, Generator

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


def best(call: Callable[[], object], number: int = 1_000, repeat: int = 50) -> float:
    return min(timeit.repeat(call, number=number, repeat=repeat)) / number * 1e6


def main() -> None:
    send = work().send
    send(None)  # type: ignore[arg-type]

    def bare() -> None:
        send(None)  # type: ignore[arg-type]

    def watched() -> None:
        token = guard.enter()
        send(None)  # type: ignore[arg-type]
        guard.leave(token)

    def empty() -> None:
        guard.leave(guard.enter())

    without, within, alone = best(bare), best(watched), best(empty)
    version = ".".join(map(str, sys.version_info[:3]))
    print("python   bare µs  watched µs  added µs  enter + leave µs")
    print(f"{version:7} {without:8.2f} {within:11.2f} {within - without:9.2f} {alone:17.2f}")


if __name__ == "__main__":
    main()
