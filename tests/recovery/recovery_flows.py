"""The workflows of the recovery tests, and the program of their child processes.

    python recovery_flows.py URL work [OPTION=VALUE …]     a worker, until its standard input is closed
    python recovery_flows.py URL press                     a worker of the queue of printed pages alone
    python recovery_flows.py URL start COUNT               a worker that starts `COUNT` errands itself
    python recovery_flows.py URL parents COUNT             the same with runs that have children
    python recovery_flows.py URL chain                     a run that continues as new ones, and its payloads
    python recovery_flows.py URL wait RUN                  waits for a run's end, and says when it heard of it

A step's effect is a line in the file $EFFECTS: key, attempt, process. The tests compare those with the log.
"""

import asyncio
import functools
import logging
import os
import sys
import time
from pathlib import Path

import holdfast as hf

QUICK = hf.Backoff(initial=0.01, jitter=0)


def effect(path: str) -> None:
    """What a step does to the world: one whole line, appended at once."""
    info = hf.step_info()
    line = f"{info.key} {info.attempt} {os.getpid()}\n"
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, line.encode())
    finally:
        os.close(fd)


@hf.step(name="recovery.do", retries=20, backoff=QUICK)
async def do(path: str, value: int) -> int:
    effect(path)
    return value


@hf.step(name="recovery.do-sync", retries=20, backoff=QUICK)
def do_sync(path: str, value: int) -> int:
    effect(path)
    return value


@hf.step(name="recovery.flaky", retries=20, backoff=QUICK)
async def flaky(path: str, value: int) -> int:
    effect(path)
    if hf.step_info().attempt == 1:
        raise ConnectionError("the first attempt always fails")
    return value


@hf.workflow(name="recovery.errand")
async def errand(path: str) -> int:
    """A step, four at once, a timer against a step, a retry, and an end: 10 + 100 + 1000 + 10000."""
    total = await do(path, 10)
    total += sum(await asyncio.gather(do(path, 1), do(path, 2), do_sync(path, 3), do(path, 94)))
    await hf.sleep(0.01)
    total += await flaky(path, 1000)
    async with asyncio.timeout(600):
        total += await do_sync(path, 10000)
    return total


ERRAND = 11110
STEPS = 7


hf.queue("recovery.press", concurrency=2)


@hf.step(name="recovery.print", queue="recovery.press", retries=20, backoff=QUICK)
async def print_page(path: str, number: int) -> int:
    effect(path)
    if number == 1 and hf.step_info().attempt == 1:
        raise ConnectionError("the first attempt always fails")
    return number


@hf.workflow(name="recovery.book")
async def book(path: str, pages: int) -> int:
    return sum(await asyncio.gather(*(print_page(path, number) for number in range(pages))))


@hf.workflow(name="recovery.part")
async def part(path: str, value: int) -> int:
    return await do(path, value)


@hf.workflow(name="recovery.waits-for-ever")
async def waits_for_ever(path: str) -> None:
    try:
        await hf.hook(f"never-{hf.run_info().run_id}")
    finally:
        await do(path, 0)


@hf.workflow(name="recovery.parent")
async def parent(path: str) -> int:
    """Three children at once, one that is cancelled, and a detached one: 1 + 2 + 3."""
    total = sum(await asyncio.gather(*(part(path, n) for n in (1, 2, 3))))
    try:
        async with asyncio.timeout(0.05):
            await waits_for_ever(path)
    except TimeoutError:
        pass
    await part.start(path, 4, run_id=f"{hf.run_info().run_id}-detached")
    return total


@hf.workflow(name="recovery.chain")
async def chain(path: str, left: int, total: int = 0) -> int:
    """Five runs, one after the other, each with a step and two of ten payloads."""
    async with hf.hook(f"chain-{hf.run_info().first}", type=int) as hook:
        total += await do(path, await hook) + await hook
        if left > 1:
            hf.continue_as_new(path, left - 1, total)
        return total


def wait_for(path: Path | str, seconds: float = 100) -> None:
    """Until a file is there: for processes that cannot be told otherwise."""
    end = time.monotonic() + seconds
    while not Path(path).exists():
        if time.monotonic() > end:
            raise TimeoutError(f"{path} did not come")
        time.sleep(0.002)


@hf.step(name="recovery.held", retries=20, backoff=QUICK, timeout=120)
async def held(path: str, gate: str) -> int:
    """Leaves its effect, then waits until the file `gate` is there."""
    effect(path)
    while not Path(gate).exists():
        await asyncio.sleep(0.005)
    return hf.step_info().attempt


@hf.step(name="recovery.held-twice", retries=1)
async def held_twice(path: str) -> None:
    """Leaves its effect, then waits for its end."""
    effect(path)
    await asyncio.Event().wait()


@hf.workflow(name="recovery.holds-twice")
async def holds_twice(path: str) -> None:
    await held_twice(path)


@hf.workflow(name="recovery.holds")
async def holds(path: str, gate: str, token: str = "") -> int:
    attempt = await held(path, gate)
    if token:
        await hf.hook(token)
    await do(path, 1)
    return attempt


@hf.workflow(name="recovery.interrupts-its-process")
async def interrupts_its_process(token: str) -> None:
    await hf.hook(token)
    raise KeyboardInterrupt


@hf.workflow(name="recovery.kills-its-process")
async def kills_its_process(marker: str) -> None:
    await hf.hook(marker)
    functools.partial(os._exit, 9)()  # called plainly it is refused; a crash in a C library is not asked


@hf.workflow(name="recovery.answers")
async def answers(token: str) -> int:
    return await hf.hook(token, type=int)


@hf.step(name="recovery.never-again", retries=0)
async def never_again(path: str, gate: str, number: int) -> int:
    effect(path)
    while not os.path.exists(gate):
        await asyncio.sleep(0.01)
    return number


@hf.workflow(name="recovery.wide")
async def wide(path: str, gate: str, width: int) -> list[str]:
    """What became of the steps that did not succeed."""
    steps = (never_again(path, gate, number) for number in range(width))
    done = await asyncio.gather(*steps, return_exceptions=True)
    return [type(one).__name__ for one in done if isinstance(one, BaseException)]


async def until_closed() -> None:
    """Until the parent closes our standard input."""
    loop = asyncio.get_running_loop()
    closed = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), lambda: closed.set() if not os.read(0, 1) else None)
    await closed.wait()
    loop.remove_reader(sys.stdin.fileno())


async def main(url: str, mode: str, *options: str) -> None:
    settings = dict(option.split("=") for option in options if "=" in option)
    async with hf.connect(url) as app:
        if mode == "work":
            async with app.worker(**{name: float(value) for name, value in settings.items()}):
                print("ready", flush=True)
                await until_closed()
        elif mode == "press":
            async with app.worker(queues=["recovery.press"], runs=False):
                print("ready", flush=True)
                await until_closed()
        elif mode == "start":
            async with app.worker():
                path = os.environ["EFFECTS"]
                runs = [await app.start(errand, path, run_id=f"errand-{n}") for n in range(int(options[0]))]
                print([await run.result() for run in runs], flush=True)
        elif mode == "parents":
            async with app.worker():
                path = os.environ["EFFECTS"]
                runs = [await app.start(parent, path, run_id=f"parent-{n}") for n in range(int(options[0]))]
                print([await run.result() for run in runs], flush=True)
        elif mode == "chain":
            async with app.worker():
                run = await app.start(chain, os.environ["EFFECTS"], 5, run_id="chain")
                for n in range(10):
                    await app.resume("chain-chain", n, delivery_id=str(n))
                print(await run.result(), flush=True)
        elif mode == "wait":
            print("ready", flush=True)
            await app.run(options[0]).result()
            print(time.time(), flush=True)


if __name__ == "__main__":
    sys.modules["recovery_flows"] = sys.modules["__main__"]
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    asyncio.run(main(*sys.argv[1:]))
