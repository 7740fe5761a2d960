"""Children of the recovery tests: started, watched, stopped and reaped here, each by its own process id."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from patience import PATIENCE
from recovery_flows import STEPS

from holdfast.events import Event

FLOWS = Path(__file__).with_name("recovery_flows.py")


class Child:
    """One child process."""

    def __init__(
        self,
        folder: Path,
        url: str,
        *args: str,
        faults: str = "",
        machine: str = "",
        inside: Sequence[str] = (),
    ) -> None:
        environment = {**os.environ, "HOLDFAST_FAULTS": faults, "EFFECTS": str(folder / "effects")}
        if machine:  # it sees no files of workers elsewhere
            environment["TMPDIR"] = str(folder / machine)
            (folder / machine).mkdir(exist_ok=True)
        self.errors = folder / f"stderr-{time.monotonic_ns()}"
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [*inside, sys.executable, str(FLOWS), url, *args],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )

    def line(self) -> str:
        """Its next line; '' when it has ended."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().strip()

    def said(self) -> str:
        return self.errors.read_text()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def leave(self) -> int:
        """Let it end by itself."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(PATIENCE)

    def reap(self) -> None:
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGCONT)
                self.process.kill()
        self.process.wait(PATIENCE)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


class Children:
    """Starts children in a test's folder, and reaps them at its end."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.effects = folder / "effects"
        self._all: list[Child] = []

    def start(self, *args: str, **how: Any) -> Child:
        child = Child(self.folder, how.pop("url", self.url), *args, **how)
        self._all.append(child)
        return child

    def worker(self, *options: str, **how: Any) -> Child:
        """`machine`: by the name of one, as if it were on another than the others; `faults`: that are armed."""
        return self.start("work", *options, **how)

    def reap(self) -> None:
        for child in self._all:
            child.reap()


def effects(path: Path) -> dict[str, list[int]]:
    """The attempts that left an effect, by step."""
    found: dict[str, list[int]] = defaultdict(list)
    if path.exists():
        for line in path.read_text().splitlines():
            key, attempt, _pid = line.rsplit(" ", 2)
            found[key].append(int(attempt))
    return found


def wait_until(look, what: str, seconds: float = PATIENCE):
    """Look at another process's traces until there is something; the only way to wait for it."""
    end = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s for {what}")
        time.sleep(0.002)
    return found


def assert_as_if_nothing_had_happened(
    run_id: str, events: list[Event], path: Path, steps: int = STEPS
) -> None:
    """Each step finished once in the log; each attempt had at most one body, and none began after the outcome."""
    done = {e.key: e.data["attempt"] for e in events if e.type == "step_completed"}
    assert len(done) == steps, sorted(done)
    assert sum(e.type == "step_completed" for e in events) == steps, "a step is recorded as finished once"
    started = {(e.key, e.data["attempt"]) for e in events if e.type == "step_started"}
    bodies = {key: attempts for key, attempts in effects(path).items() if key.startswith(f"{run_id}/")}
    assert len(bodies) == steps, "each step had its effect at least once"
    for key, attempts in bodies.items():
        step = key.partition("/")[2]
        assert len(set(attempts)) == len(attempts), f"{key}: one attempt, two bodies: {attempts}"
        assert attempts[-1] == done[step], (
            f"{key}: a body ran after attempt {done[step]} was recorded: {attempts}"
        )
        assert all((step, attempt) in started for attempt in attempts), f"{key}: a body before its record"


@contextlib.contextmanager
def timed() -> Iterator[list[float]]:
    """Seconds that a block took, as the list's only element."""
    begun, out = time.perf_counter(), []
    yield out
    out.append(time.perf_counter() - begun)
