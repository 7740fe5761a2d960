"""Small scopes, whole."""
from __future__ import annotations

import asyncio
import logging
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from scheduler import RUN, Client, Handle, Tried, World, explore

import holdfast as hf
from holdfast.events import fold
from holdfast.store.memory import MemoryStore, _Data
from holdfast.verify import Verification


class MemoryHandle(Handle, MemoryStore):
    def __init__(self, data, clock):
        MemoryStore.__init__(self, "memory://small", clock, data)
        self._closed = False
    tell_others = Handle.tell_others


class Memory:
    def __init__(self):
        self.data = _Data()
    def handle(self, clock):
        return MemoryHandle(self.data, clock)
    def log(self, run):
        return self.data.runs[run].log
    def batch(self, run, batch):
        return self.data.runs[run].batches.get(batch)
    def plain(self):
        return MemoryStore("memory://small", None, self.data)


@hf.step(retries=9)
async def work(what: Any = None) -> Any:
    return what


@hf.workflow
async def hook_against_timer() -> list[Any]:
    got: list[Any] = []
    async with hf.hook("go", type=int) as hook:
        try:
            async with asyncio.timeout(5):
                got.append(await hook.next())
        except TimeoutError:
            pass
    await work(len(got))
    return got


async def check(world):
    store = world.backend.plain()
    async for d in Verification(store, workflows={hook_against_timer.name}).run():
        world.problems.append(f"verify {d}")
    head = await store.head(RUN)
    if head.ended is None: world.problems.append("not ended")
    if head.parked: world.problems.append(f"parked {head.parked}")
    state = fold(world.backend.log(RUN))


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    script = sys.argv[1].split(",") if sys.argv[1] else []
    workers = int(sys.argv[2]); merge = sys.argv[3] == "1"; secs = float(sys.argv[4])
    t0 = time.time()
    last = [0]
    class Stop(Exception): pass
    def seen(tried, share):
        if time.time() - last[0] > 5:
            last[0] = time.time()
            print(f"{share:.4f} {tried.histories} {tried.cut} states {tried.states} calls {tried.calls} longest {tried.longest} {time.time()-t0:.0f}s", flush=True)
        if time.time() - t0 > secs: raise Stop
    def make(): return World(Memory(), hook_against_timer, Client(script), workers=workers)
    t = explore(make, check, merge=merge, seen=seen)
    print(t, time.time() - t0)
    if t.problems:
        w = make()
        for n in t.problems[0][1]: w.choose(w.choices()[n])
        print("\n".join(w.chosen))
        for e in w.backend.log(RUN): print(e.position, e.type, e.key, e.body)
