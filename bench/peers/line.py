"""The side of a system under test: orders come in as lines of JSON, times go out as lines of JSON.

Each system lives in a process (and a virtual environment) of its own, and stays alive while `bench/peers.py`
asks all of them for the same shape in turns. An order is {"shape": …, "n": …}; the answer is {"seconds": …},
measured by the side itself: starting processes and talking over the pipe is nobody's time.

The shapes (what a side offers is in its `SHAPES`):

    no_steps      a workflow that returns at once: from the call to its result
    sequential    n empty steps, one after another
    gather        n empty steps at once
    many          n runs of ten empty steps at once: until the last result is there
    hook          n payloads, each sent when the step after the last one has run: the median time from the
                  sending to the start of the next step
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Mapping

Shape = Callable[[int], Awaitable[float | None]]
"""Runs a shape of size n; gives the seconds that it took where it measured them itself."""


class Steps:
    """When the step after each payload began: what `hook` measures by."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self._begun = asyncio.Event()

    def began(self) -> None:
        """Called by the step."""
        self.times.append(time.time())
        self._begun.set()

    async def latencies(self, count: int, send: Callable[[int], Awaitable[object]]) -> float:
        """Send `count` payloads, one after another; the median seconds from a sending to the step."""
        self.times.clear()
        taken = []
        for number in range(count):
            self._begun.clear()
            sent = time.time()
            await send(number)
            await self._begun.wait()
            taken.append(self.times[-1] - sent)
        return statistics.median(taken)


async def serve(about: Mapping[str, str], shapes: Mapping[str, Shape]) -> None:
    """Answer orders until the input ends. `about` says what is synced and what is recorded."""
    loop = asyncio.get_running_loop()
    print(json.dumps({"about": about, "shapes": sorted(shapes)}), flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        begun = time.perf_counter()
        measured = await shapes[order["shape"]](order["n"])
        seconds = time.perf_counter() - begun if measured is None else measured
        print(json.dumps({"seconds": seconds}), flush=True)
