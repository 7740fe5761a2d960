"""Another process, with another hash seed, that replays logs: started when first needed, and kept.

To start Python and import a test's module takes a good part of a second, to replay a log a millisecond. So the
process stays for the next log. It is started anew where what it has imported may be out of date: another search
path, or a file of workflows that has changed. It ends with its standard input, so also when its owner is killed.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple


class Task(NamedTuple):
    """A log to replay, and the file that defines its workflow, under its module's name."""

    module: str
    file: str
    log: list[str]


class Elsewhere:
    """The other process. Threads may ask at once; after a fork, a process has its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0
        self._path: list[str] = []
        self._files: dict[str, tuple[str, int]] = {}

    def ask(self, task: Task) -> list[str] | None:
        """What it says of a log: a line for each difference; None where it cannot import the workflow."""
        with self._lock:
            process = self._current(task)
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(json.dumps(task) + "\n")
                process.stdin.flush()
                answer = process.stdout.readline()
            except BrokenPipeError:
                answer = ""
            if not answer:
                code = process.wait()
                self._close()
                return [f"{task.file}: the process that replays it ended with exit code {code}"]
        problems: list[str] | None = json.loads(answer)
        return problems

    def _current(self, task: Task) -> subprocess.Popen[str]:
        here = [place or str(Path.cwd()) for place in sys.path]
        version = task.file, Path(task.file).stat().st_mtime_ns
        fresh = self._path == here and self._files.get(task.module, version) == version
        if self._process is None or self._owner != os.getpid() or not fresh:
            self._close()
            self._files.clear()
            self._path, self._owner = here, os.getpid()
            self._process = _start(here)
        self._files[task.module] = version
        return self._process

    def close(self) -> None:
        """End it."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()
        if self._owner == os.getpid():
            process.wait()


def _start(path: list[str]) -> subprocess.Popen[str]:
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    environment = {k: v for k, v in os.environ.items() if k != "HOLDFAST_FAULTS"}
    return subprocess.Popen(
        [sys.executable, "-c", "from holdfast.testing.elsewhere import main; main()"],
        env={**environment, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


elsewhere = Elsewhere()
atexit.register(elsewhere.close)


# ---- what runs there


def main() -> None:
    """Logs on standard input, answers on standard output, a line for each."""
    from ..replay import read_history
    from .check import _replay

    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the code of tests prints is no answer
    for line in sys.stdin:
        task = Task(*json.loads(line))
        answer: Any = None
        try:
            _load(task.module, task.file)
        except BaseException as error:  # noqa: BLE001 - a module that skips itself, or wants another importer
            print(f"{task.file} cannot be imported elsewhere: {error!r}", file=sys.stderr)  # noqa: T201
        else:
            answer = _replay(read_history(task.log, task.module))
        print(json.dumps(answer), file=out, flush=True)


def _load(module: str, file: str) -> None:
    """Import a file under its module's name (a script's `__main__` is only another name for it)."""
    name = module if module != "__main__" else Path(file).stem
    if name in sys.modules:
        return
    with contextlib.suppress(ImportError):
        if getattr(importlib.import_module(name), "__file__", None) == file:
            return
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded
    spec.loader.exec_module(loaded)
