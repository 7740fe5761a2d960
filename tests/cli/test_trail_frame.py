"""The frame of the trail commands: help, the two programs, pipes, start-up."""

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from cli_kit import Command
from hypothesis import given
from hypothesis import strategies as st
from patience import PATIENCE

from holdfast.cli import trail as programs
from holdfast.cli.trail import GROUPS, load
from holdfast.cli.trail.project import normalised, project_id
from holdfast.cli.trail.words import Option, read

COMMANDS = [name for group in GROUPS.values() for name in group]


# ---- help


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_its_exit_codes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out = io.StringIO()
    with redirect_stdout(out):
        assert programs.run([name, "--help"]) == 0
    text = out.getvalue()
    assert text.startswith(f"Usage: holdfast trail {name} [OPTIONS]")
    assert "\n  Exit codes:\n    0    " in text
    assert "--json" in text
    assert "--data-dir DIR" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_no_option_has_two_meanings(name: str) -> None:
    command = load(name)
    names = [word for option in (*command.options, *programs.COMMON) for word in option.names.split()]
    assert len(names) == len(set(names))
    assert all(part.help.endswith((".", ")")) for part in command.takes)


def test_the_help_of_both_programs(ours: Command, npm: Command) -> None:
    assert ours().out == ours("--help").out
    assert ours().out.replace("holdfast trail", "trail") == npm().out
    for name in COMMANDS:
        assert f"\n  {name} " in ours().out


def test_holdfast_lists_the_trail_commands(holdfast: Command) -> None:
    assert "\n  trail  " in holdfast("--help").out


# ---- words


@given(st.lists(st.text(max_size=8), max_size=6))
def test_after_two_dashes_everything_is_text(words: list[str]) -> None:
    assert read([Option("-r --reason", "TEXT", "")], ["--", *words], "") == ({}, words)


@given(st.text(max_size=8))
def test_an_option_takes_whatever_follows(text: str) -> None:
    options = [Option("-r --reason", "TEXT", ""), Option("-q --quiet", "", "")]
    for words in (["-r", text], ["--reason", text], [f"--reason={text}"], ["-qr", text]):
        values, rest = read(options, words, "")
        assert (values["reason"], rest) == (text, [])


# ---- projects


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("git@host:o/r.git", "o/r"),
        ("ssh://git@host/o/r.git", "o/r"),
        ("ssh://git@host:o/r", "o/r"),
        ("git+https://host/o/r.git", "o/r"),
        ("https://host:8443/o/r", "o/r"),
        ("https://user:secret@host/o/r.git", "o/r"),
        ("github:o/r", "o/r"),
        ("o/r", "o/r"),
        ("/home/ana/r.git", None),
        ("../r", None),
        ("file:///home/ana/r", None),
        ("", None),
    ],
)
def test_addresses_of_projects(address: str, wanted: str | None) -> None:
    assert normalised(address) == wanted


def test_where_the_project_is_read(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert project_id() is None
    subprocess.run(["git", "init", "-q"], check=True)
    (desk / "pyproject.toml").write_text('[project]\nname = "cart"\n')
    assert project_id() == "cart"
    subprocess.run(["git", "remote", "add", "origin", "git@host:fork/cart.git"], check=True)
    assert project_id() == "fork/cart"
    subprocess.run(["git", "remote", "add", "upstream", "git@host:shop/cart.git"], check=True)
    assert project_id() == "shop/cart"
    (desk / "web").mkdir()
    repository = {"url": "https://host/shop/web.git", "directory": "packages/web"}
    (desk / "web" / "package.json").write_text(json.dumps({"name": "web", "repository": repository}))
    monkeypatch.chdir(desk / "web")
    assert project_id() == "shop/web//packages/web"


# ---- processes


def process(*words: str, cwd: Path, **options: object) -> subprocess.Popen[str]:
    code = "import sys; from holdfast.cli.trail import main; sys.exit(main())"
    line = [sys.executable, "-c", code, *words]
    return subprocess.Popen(line, cwd=cwd, text=True, **options)  # type: ignore[call-overload, no-any-return]


def test_a_closed_pipe_is_no_error(ours: Command, desk: Path) -> None:
    trail_id = ours("start", "x").out.strip()
    reader, writer = os.pipe()
    os.close(reader)
    child = process("export", trail_id, cwd=desk, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    _, err = child.communicate(timeout=PATIENCE)
    assert (child.returncode, err) == (1, "")


def test_bytes_that_are_no_text(ours: Command, desk: Path) -> None:
    ours("start", "x")
    child = process(
        "note", "-", cwd=desk, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdin is not None
    child.stdin.buffer.write(b"caf\xe9 \xff")
    out, err = child.communicate(timeout=PATIENCE)
    assert (child.returncode, err) == (0, "")
    assert out.endswith("noted\n")
    assert ours("show", ours("list").lines[1].split()[0]).code == 0


@pytest.mark.parametrize(
    ("program", "line"),
    [
        ("trail", "status"),
        ("trail", "note x"),
        ("trail", "decision x"),
        ("trail", "list"),
        ("holdfast", "trail list"),
    ],
)
def test_short_commands_import_little(ours: Command, desk: Path, program: str, line: str) -> None:
    """What start-up takes is what is imported: a few modules of the standard library, msgspec, and the trails."""
    ours("start", "x")
    module = {"trail": "holdfast.cli.trail", "holdfast": "holdfast.cli"}[program]
    code = (
        f"import sys; from {module} import main; main(sys.argv[1:]); sys.stderr.write(' '.join(sys.modules))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, *line.split()], cwd=desk, capture_output=True, text=True, check=True
    )
    loaded = set(ran.stderr.split())
    heavy = {"typer", "click", "rich", "asyncio", "argparse", "apsw", "sqlite3", "jsonschema", "ssl", "http"}
    own = {"holdfast.client", "holdfast.engine", "holdfast.store", "holdfast.worker", "holdfast.events"}
    assert not loaded & (heavy | own)
    assert len(loaded) < 210, f"{len(loaded)} modules"
