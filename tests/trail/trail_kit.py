"""Other processes that write in a folder of trails, and what must be true of a folder at any quiet moment."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from patience import PATIENCE

from holdfast.trail import TrailFolder, journal

WRITERS = Path(__file__).with_name("writers.py")


class Writer:
    """One process; `writers.py` says what it may be told to do."""

    def __init__(self, role: str, folder: object, *args: object, faults: str = "", **options: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(WRITERS), role, str(folder), *map(str, args)],
            env={**os.environ, "HOLDFAST_FAULTS": faults, **options.pop("env", {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    def line(self) -> str:
        """Its next line; "" when it has ended."""
        assert self.process.stdout is not None
        line = b""  # not by readline: what that reads ahead, `communicate` would not find any more
        while not line.endswith(b"\n") and (byte := os.read(self.process.stdout.fileno(), 1)):
            line += byte
        return line.decode().strip()

    def go(self) -> None:
        """Let it begin, or end."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def finish(self, *, silent: bool = True) -> list[str]:
        """Wait until it ends by itself; what it said. It must have had nothing to complain about."""
        out, err = self.process.communicate(timeout=120)
        if silent:
            assert (self.process.returncode, err) == (0, ""), err
        return out.splitlines()

    def kill(self) -> list[str]:
        """kill -9; what it had said until then."""
        self.process.kill()
        return self.finish(silent=False)

    def reap(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.communicate()


def wait_until(look: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """Look at somebody else's traces until there is something; the only way to wait for it."""
    end = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s for {what}")
        time.sleep(0.002)
    return found


def wait_for_a_waiter() -> None:
    """Until a thread of this process waits for a lock."""
    wait_until(
        lambda: any(thread.name == "holdfast-trail-lock" for thread in threading.enumerate()), "a waiter"
    )


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Call them all in threads that leave one barrier together; what each returned or raised."""
    barrier, answers = threading.Barrier(len(calls)), [None] * len(calls)

    def run(number: int, call: Callable[[], Any]) -> None:
        barrier.wait()
        try:
            answers[number] = call()
        except Exception as error:
            answers[number] = error

    threads = [threading.Thread(target=run, args=item) for item in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def index_of(folder: TrailFolder) -> dict[str, Any]:
    """The trails of index.json, as another tool reads it."""
    data = json.loads((folder.root / "index.json").read_bytes())
    assert data["version"] == 1
    return dict(data["trajectories"])


def assert_in_order(folder: TrailFolder) -> None:
    """The index says the truth, each trail has one journal and what is derived from it, nothing else is left."""
    indexed = index_of(folder)
    files = {str(path.relative_to(folder.root)) for path in folder.root.rglob("*") if path.is_file()}
    assert not [name for name in files if name.endswith(".tmp")]
    journals = {Path(name).stem: name for name in files if name.endswith(".jsonl")}
    assert sum(name.endswith(".jsonl") for name in files) == len(journals), "one journal for each trail"
    assert set(indexed) == set(journals)
    for trail_id, name in journals.items():
        trail, entry = folder.load(trail_id), indexed[trail_id]
        assert entry["path"] == name.removesuffix("l")
        assert (entry["title"], entry["status"]) == (trail.task.title, trail.status)
        # A crash between the move of a journal and the line of its end leaves an active trail elsewhere.
        assert trail.status == "active" or name.startswith("completed/")
        record = json.loads((folder.root / entry["path"]).read_bytes())
        assert (record["id"], record["status"]) == (trail_id, trail.status)
        numbers = [entry.seq for entry in journal.read(str(folder.root / name)).entries]
        assert numbers == list(range(1, len(numbers) + 1)), "numbers are dense"
