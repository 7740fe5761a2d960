"""`holdfast top`: one look printed, one look as JSON, and the live view on a terminal."""

import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path
from select import select

import pytest
from cli_kit import Command
from patience import PATIENCE

import holdfast as hf
from holdfast.store import open_store
from holdfast.store.rows import WorkerRow

URL = "sqlite:///.holdfast/holdfast.db"


@pytest.fixture
async def busy(shop: Path) -> None:
    """A store with a run of each kind, a worker that says what it did, and a queue."""
    async with open_store(URL) as store:
        lease = store.clock.now() + 600_000_000
        await store.enlist(WorkerRow("wrk_'one\x1b[31m", 4711, "host", lease, {"refusals": 2, "running": 1}))
        created = hf.events.new("run_created", data={"workflow": "w", "input": {"args": []}})
        step = hf.events.new("step_scheduled", key="draw#1", data={"args": {}, "queue": "gpu"})
        await store.append(
            "owned", [created, hf.events.new("run_started"), step], after=0, owner="wrk_'one\x1b[31m"
        )
        await store.append("nobody's", [created], after=0)


def test_one_look(holdfast: Command, busy: None) -> None:
    done = holdfast("top", "--interval", "0.1")
    assert done.code == 0
    assert re.search(r"pending +running +completed +failed +cancelled +parked *\n1 +1 +0 +0 +0 +0", done.out)
    assert re.search(r"no worker has +[\d.]+ m?s +nobody's", done.out)
    assert re.search(r"wrk_'one\\x1b\[31m +host +4711 +1 +1 +0 +2 +9 min \d+ s", done.out)
    assert re.search(r"gpu +1 +0 +[\d.]+ m?s", done.out)
    assert "\x1b" not in done.out
    assert max(map(len, done.out.splitlines())) <= 120


def test_as_json(holdfast: Command, busy: None) -> None:
    done = holdfast("top", "--json", "--interval", "0.1")
    [line] = done.out.splitlines()
    look = json.loads(line)
    assert look["runs"]["running"] == look["runs"]["pending"] == 1
    assert look["rates"] == {"events": 0, "steps": 0, "started": 0, "ended": 0}
    assert look["free"]["run"] == "nobody's"
    assert 0 < look["free"]["seconds"] < 60
    assert look["refusals"] == 2
    [worker] = look["workers"]
    assert (worker["pid"], worker["runs"], worker["refusals"], worker["running"]) == (4711, 1, 2, 1)
    assert look["queues"] == [
        {"queue": "gpu", "waiting": 1, "running": 0, "oldest_at": look["queues"][0]["oldest_at"]}
    ]


def test_without_a_store(holdfast: Command) -> None:
    done = holdfast("top")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: no store at ")
    assert holdfast("top", "--interval", "0").code == 2


class Terminal:
    """A command on a terminal of so many columns."""

    def __init__(self, cwd: Path, columns: int, *words: str) -> None:
        self.keeper, end = pty.openpty()
        self.before = termios.tcgetattr(end)
        ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        env = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "FORCE_COLOR")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "holdfast", *words],
            cwd=cwd,
            env=env | {"TERM": "xterm-256color", "NO_COLOR": "1"},
            stdin=end,
            stdout=end,
            stderr=end,
        )
        self.end = end

    def until(self, words: str) -> str:
        """What it has written, when it has written this."""
        seen = ""
        while words not in seen:
            assert select([self.keeper], [], [], 30)[0], f"{words!r} did not come, but {seen!r}"
            seen += os.read(self.keeper, 1 << 16).decode()
        return seen

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.keeper)
        os.close(self.end)


@pytest.fixture(params=[80, 140])
def terminal(shop: Path, busy: None, request: pytest.FixtureRequest) -> Iterator[Terminal]:
    terminal = Terminal(shop, request.param, "top", "--interval", "0.1")
    yield terminal
    terminal.close()


def test_live_until_q(terminal: Terminal) -> None:
    shown = terminal.until("q ends")
    shown += terminal.until("q ends")  # it looked again
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    assert "4711" in plain
    assert "wrk_'one\\x1b[31m" in plain
    os.write(terminal.keeper, b"xq")
    assert "\x1b[?1049l" in terminal.until("\x1b[?1049l")  # the screen is as it was
    assert terminal.process.wait(timeout=PATIENCE) == 0
    assert termios.tcgetattr(terminal.end) == terminal.before
