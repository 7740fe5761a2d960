"""Processes of a storm: started here, watched, and reaped by their own process ids, whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from ...errors import HoldfastError

READY = 30.0
"""Seconds that a process may take until it says `ready`."""
LEAVE = 30.0
"""Seconds that a process may take until it has handed back what it held."""


class ChildFailed(HoldfastError):
    """A process of a storm ended by itself."""

    code = "child_failed"


class Child:
    """One process: `python -m MODULE JSON`."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, errors: Path) -> None:
        self.name = name
        self.process = process
        self._errors = errors

    @classmethod
    async def start(cls, name: str, module: str, given: msgspec.Struct, folder: Path) -> Self:
        """Start it, and wait until it is ready."""
        errors = folder / f"{name}.log"
        with errors.open("ab") as stderr:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", module, msgspec.json.encode(given).decode()),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
            )
        child = cls(name, process, errors)
        line = await child.line(READY)
        if line != "ready":
            await child.reap()
            raise ChildFailed(f"{name} did not come up: {child.said()[-500:] or 'it said nothing'}")
        return child

    @property
    def alive(self) -> bool:
        """Whether it runs (or is paused)."""
        return self.process.returncode is None

    async def line(self, seconds: float) -> str:
        """Its next line of output; '' where none comes in time."""
        assert self.process.stdout is not None
        try:
            async with asyncio.timeout(seconds):
                return (await self.process.stdout.readline()).decode().strip()
        except TimeoutError:
            return ""

    def said(self) -> str:
        """What it wrote to its standard error."""
        return self._errors.read_text(errors="replace")

    def signal(self, number: int) -> None:
        """Send it a signal, if it is there."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    async def leave(self) -> str:
        """Let it end by itself; gives its last line, or '' where it did not leave in time."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        last = await self.line(LEAVE)
        await self.reap()
        return last

    async def kill(self) -> None:
        """As `kill -9` does, or a machine that goes off."""
        self.signal(signal.SIGKILL)
        await self.process.wait()

    async def reap(self) -> None:
        """Make sure that it is gone."""
        try:
            async with asyncio.timeout(5):
                await self.process.wait()
        except TimeoutError:
            self.signal(signal.SIGCONT)
            await self.kill()


class Workers:
    """The worker processes of a storm: `async with Workers(…) as workers`. `stale` is known when they left."""

    def __init__(self, given: msgspec.Struct, count: int, folder: Path) -> None:
        self.stale: Counter[str] = Counter()
        self.lost: list[str] = []
        self._given, self._count, self._folder = given, count, folder
        self._children: list[Child] = []

    async def __aenter__(self) -> Self:
        module = f"{__package__}.serve"
        starting = [
            Child.start(f"worker-{n}", module, self._given, self._folder) for n in range(1, self._count + 1)
        ]
        begun = await asyncio.gather(*starting, return_exceptions=True)
        self._children = [child for child in begun if isinstance(child, Child)]
        for problem in begun:
            if isinstance(problem, BaseException):
                await self._kill_all()
                raise problem
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if kind is not None:
            await self._kill_all()
            return
        for child in self._children:
            if not child.alive:
                self.lost.append(f"{child.name} ended with exit code {child.process.returncode}")
        for last in await asyncio.gather(*(child.leave() for child in self._children if child.alive)):
            if last:
                self.stale.update(msgspec.json.decode(last)["stale"])

    async def _kill_all(self) -> None:
        await asyncio.gather(*(child.kill() for child in self._children if child.alive))
