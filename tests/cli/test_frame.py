"""The frame: help, versions, stores that are none, odd input, pipes, terminals, start-up."""

import importlib.util
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from fcntl import ioctl
from importlib.metadata import version
from pathlib import Path

import pytest
from cli_kit import Command, child, steady
from patience import PATIENCE

from holdfast import client
from holdfast.cli.frame import app
from holdfast.cli.options import DEFAULT_STORE

COMMANDS = {
    *("run", "start", "worker", "serve", "dev", "top", "runs", "show", "events", "why", "hooks", "timers"),
    *(
        "resume",
        "wake",
        "cancel",
        "terminate",
        "rerun",
        "stream",
        "verify",
        "replay",
        "migrate",
        "prune",
        "key",
        "queues",
        "schedules",
        "bench",
    ),
    *("token create", "token list", "token revoke"),
    *("stress hook-sleep", "stress step-storm", "stress hook-storm", "stress chaos"),
}
READING = ("runs", "show x", "events x", "why x", "hooks", "timers", "verify", "verify x", "replay shop")
ACTING = ("resume x 1", "wake x", "cancel x", "terminate x")

PAGES = Path(__file__).parents[2] / "docs" / "reference"
spec = importlib.util.spec_from_file_location("make_cli", PAGES / "make_cli.py")
assert spec is not None
assert spec.loader is not None
make_cli = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_cli)


# ---- help


def test_the_reference_is_what_the_help_says() -> None:
    assert (PAGES / "cli.md").read_text() == make_cli.page(), "run `python docs/reference/make_cli.py`"


def test_every_command_has_help_with_its_exit_codes() -> None:
    assert set(make_cli.commands()) == COMMANDS
    for command in COMMANDS:
        text = make_cli.help_of(*command.split())
        assert "\n  Exit codes:\n    0    " in text
        if command != "key":  # it makes a file, and knows no store
            assert "--store URL" in text
            assert "--json" in text
        assert max(map(len, text.splitlines())) <= 80
        for info in app.registered_commands:
            assert info.callback is not None
            assert info.callback.__doc__


def test_a_command_waits_for_its_own_module_alone() -> None:
    """A third of the start of `holdfast runs` was the others' modules."""
    code = (
        "import sys; from holdfast.cli import GROUPS, main; main(['timers', '--help']); "
        "print(*(group for group in GROUPS if f'holdfast.cli.{group}' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "waiting"


def test_without_arguments_there_is_help(holdfast: Command) -> None:
    assert holdfast().out == holdfast("--help").out
    assert holdfast("-h").code == 0


def test_version(holdfast: Command) -> None:
    assert holdfast("--version").out == f"holdfast {version('holdfast')}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("rnus",), "error: no such command 'rnus'\nhint: did you mean runs?\n"),
        (("show",), "error: missing argument"),
        (("runs", "--limt", "3"), "error: no such option: --limt"),
        (("runs", "--limit", "x"), "error: invalid value for '--limit'"),
        (("runs", "x"), "error: got unexpected extra argument"),
    ],
)
def test_wrong_usage(holdfast: Command, words: tuple[str, ...], message: str) -> None:
    done = holdfast(*words)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(message)
    assert len(done.err.splitlines()) <= 2


# ---- stores


def test_the_default_store_is_the_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOLDFAST_URL", raising=False)
    assert client.default_url() == DEFAULT_STORE


@pytest.mark.parametrize("line", [*READING, *ACTING])
def test_no_store_is_made_by_looking(holdfast: Command, shop: Path, line: str) -> None:
    before = sorted(shop.rglob("*"))
    done = holdfast(*line.split())
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: no store at .holdfast/holdfast.db\nhint: ")
    assert [path for path in sorted(shop.rglob("*")) if "__pycache__" not in str(path)] == before


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite:///.", "error: . is a directory, not a store file\n"),
        ("sqlite:///empty.db", "error: empty.db is an empty file, not a store\n"),
        ("sqlite:///shop.py", "error: shop.py is not an SQLite database"),
        ("sqlite://", "error: 'sqlite://' names no file"),
        ("sqlite:///", "error: 'sqlite:///' names no file"),
        ("memory://", "error: memory:// lives and ends with its process"),
        ("mysql://x", "error: no backend for 'mysql://x'"),
        ("", "error: --store: expected a URL, got nothing\n"),
        ("nonsense\x1b[31m", "error: no backend for "),
        ("sqlite:///no/such/folder/x.db", "error: no store at no/such/folder/x.db\n"),
    ],
)
@pytest.mark.parametrize("line", ["runs", "verify", "show x", "resume x 1"])
def test_what_is_no_store(holdfast: Command, shop: Path, url: str, message: str, line: str) -> None:
    (shop / "empty.db").touch()
    done = holdfast(*line.split(), "--store", url)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(message)
    assert "\x1b" not in done.err


def test_another_programs_database(holdfast: Command, shop: Path) -> None:
    import sqlite3

    with sqlite3.connect("other.db") as db:
        db.execute("CREATE TABLE cats (name TEXT)")
    db.close()
    done = holdfast("runs", "--store", "sqlite:///other.db")
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 1
    assert done.err.startswith("error: other.db")


# ---- odd input


@pytest.mark.parametrize(
    "odd", ["it's", 'say "x"', "a b", "ü-漢字-🎈", "'; DROP TABLE runs; --", "--", "a%b_c", "x" * 500]
)
def test_odd_run_ids_are_kept_whole(holdfast: Command, odd: str) -> None:
    started = holdfast("start", "--run-id", odd, "shop:fulfil", "7")
    assert (started.code, started.out) == (0, f"{odd}\n")
    assert holdfast("runs").lines[1].startswith(odd)
    assert json.loads(holdfast("show", "--json", "--", odd).out)["run"] == odd
    assert holdfast("show", "--", odd).lines[0] == f"{odd}  pending"
    assert holdfast("why", "--", odd).code == 0
    assert holdfast("cancel", "--", odd).code == 0
    assert holdfast("verify", "--", odd).code == 0


@pytest.mark.parametrize("odd", ["", "a\nb", "a\x1b[31mb", "\x00", "x" * 513, "\udcff"])
def test_run_ids_that_may_not_be(holdfast: Command, odd: str) -> None:
    started = holdfast("start", "shop:fulfil", "7", "--run-id", odd)
    assert (started.code, started.out) == (2, "")
    assert started.err.startswith("error: run_id: expected 1–512 printable characters")
    assert len(started.err.splitlines()) == 1


@pytest.mark.parametrize("odd", ["order-8", "order", "it's", "\x1b[31m", "\udcff", ""])
@pytest.mark.parametrize("command", ["show", "events", "why", "wake", "cancel", "terminate", "verify"])
def test_runs_that_there_are_not(holdfast: Command, command: str, odd: str) -> None:
    holdfast("start", "shop:fulfil", "7", "--run-id", "order-7")
    done = holdfast(command, odd)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: no run ")
    assert "\x1b" not in done.err
    if odd.startswith("order"):
        assert done.err.endswith("hint: did you mean order-7?\n")


def test_control_characters_in_data_do_not_reach_the_terminal(holdfast: Command, shop: Path) -> None:
    (shop / "evil.py").write_text(
        "import holdfast as hf\n"
        "@hf.workflow\n"
        "async def evil() -> str:\n"
        "    hf.set_attributes(note='\\x1b[2J\\r\\n', lone='ü')\n"
        "    raise ValueError('\\x1b]0;title\\x07 \\ud800')\n"
    )
    assert holdfast("run", "evil:evil", "--run-id", "e-1").code == 1
    for line in ("runs", "show e-1", "events e-1", "why e-1"):
        done = holdfast(*line.split())
        assert done.code == 0
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", done.out)
    assert json.loads(holdfast("show", "e-1", "--json").out)["error"]["message"].endswith("\ud800")


def test_a_defect_is_one_line_too(holdfast: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_head: object) -> None:
        raise KeyError("oh")

    holdfast("start", "shop:fulfil", "7")
    monkeypatch.setattr("holdfast.cli.look.run_as_json", broken)
    done = holdfast("runs", "--json")
    assert done.code == 2
    assert done.err.startswith("error: holdfast itself failed: KeyError: 'oh' (")


def test_debug_shows_the_traceback(shop: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "holdfast", "runs"],
        cwd=shop,
        env=os.environ | {"HOLDFAST_DEBUG": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2
    assert "Traceback (most recent call last)" in process.stderr
    assert "error: no store at" in process.stderr


# ---- pipes and terminals


def test_a_closed_pipe_is_no_error(holdfast: Command, shop: Path) -> None:
    holdfast("run", "shop:fulfil", "7", "--run-id", "order-7")
    reader, writer = os.pipe()
    os.close(reader)
    process = child("events", "order-7", cwd=shop, stdout=writer)
    os.close(writer)
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (1, "")


def terminal(*words: str, cwd: Path, columns: int = 80, **env: str) -> str:
    """What the command writes to a terminal of so many columns."""
    keeper, end = pty.openpty()
    ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    base = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "LINES", "FORCE_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-m", "holdfast", *words],
        cwd=cwd,
        env=base | {"TERM": "xterm-256color"} | env,
        stdin=end,
        stdout=end,
        stderr=end,
    )
    os.close(end)
    parts = []
    try:
        while part := os.read(keeper, 1 << 16):
            parts.append(part)
    except OSError:  # the other end is closed
        pass
    os.close(keeper)
    process.wait(timeout=PATIENCE)
    return b"".join(parts).decode().replace("\r\n", "\n")


def test_a_narrow_terminal_cuts_words_never_ids(holdfast: Command, shop: Path) -> None:
    run_id = "a-long-id-" + "x" * 60
    holdfast("start", "shop:fulfil", "7", "--run-id", run_id, "--attribute", "note=" + "long " * 40)
    holdfast("start", "shop:fulfil", "7", "--run-id", "short")
    for columns in (80, 140):
        lines = terminal("runs", cwd=shop, columns=columns, NO_COLOR="1").splitlines()
        assert any(line.startswith(run_id) for line in lines)
        listed = terminal("events", run_id, cwd=shop, columns=columns, NO_COLOR="1")
        assert all(len(line) <= columns for line in listed.splitlines())
        assert "…" in listed


def test_colour_is_for_terminals(holdfast: Command, shop: Path) -> None:
    holdfast("start", "shop:fulfil", "7", "--run-id", "order-7")
    plain = terminal("runs", cwd=shop, NO_COLOR="1")
    coloured = terminal("runs", cwd=shop)
    assert "\x1b" not in plain
    assert "\x1b[33mpending\x1b[0m" in coloured
    assert "\x1b" not in terminal("runs", cwd=shop, TERM="dumb")
    assert steady(re.sub(r"\x1b\[\d+m", "", coloured)) == steady(plain)
    assert "\x1b" not in holdfast("runs").out


def test_the_live_view_shows_steps(shop: Path) -> None:
    shown = terminal("run", "shop:fulfil", "7", "--run-id", "order-7", cwd=shop)
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    assert re.search(r"order-7  completed  2 of 2 steps  \d+ ms", plain)
    assert re.search(r"✓ charge#1  .*amount=7", plain)
    assert re.search(r"✓ flaky#1   .*attempt 2", plain)
    assert plain.rstrip().endswith('"ana paid 7 after 2 tries"')


# ---- start-up


@pytest.mark.parametrize(
    ("line", "unwanted"),
    [
        ("--help", ["rich", "apsw", "sqlite3", "holdfast.client", "holdfast.engine.tick", "jsonschema"]),
        ("runs", ["rich", "holdfast.client", "holdfast.engine.tick", "holdfast.worker", "jsonschema"]),
        ("events order-7", ["rich", "holdfast.client", "holdfast.engine.tick", "jsonschema"]),
    ],
)
def test_short_commands_import_little(holdfast: Command, shop: Path, line: str, unwanted: list[str]) -> None:
    holdfast("start", "shop:fulfil", "7", "--run-id", "order-7")
    code = (
        "import sys; from holdfast.cli import main; main(sys.argv[1:]); "
        "sys.stderr.write(' '.join(sys.modules))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, *line.split()], cwd=shop, capture_output=True, text=True, check=True
    )
    assert not set(process.stderr.split()) & set(unwanted)
