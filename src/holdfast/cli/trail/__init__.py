"""The commands of trails: `holdfast trail …`, and the program `trail` that users of the npm tool know.

Both are the same commands. `trail` answers in the npm tool's words, refuses a second active trail of the same
agent and work tree, and its failures are exit code 1; `holdfast trail` keeps the manners of `holdfast`.

An agent calls these many times a day, so each call imports its own command and what that needs: no Typer, no
Rich, no store, no engine (`words` says how the arguments are read).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module

from .. import output
from ..guard import guarded
from ..problem import CANNOT, NO, Problem, did_you_mean
from .call import COMMON, Call, Program
from .words import Command, Option, found, looks_like_option, placed, read

GROUPS = {
    "Tell": {
        "start": "begin",
        "chapter": "say",
        "note": "say",
        "find": "say",
        "decide": "say",
        "reflect": "say",
        "complete": "end",
        "abandon": "end",
        "resume": "begin",
    },
    "Look": {"status": "look", "list": "look", "show": "look", "search": "look", "export": "exchange"},
    "Take in": {"import": "exchange", "merge": "exchange", "record": "runs"},
    "Keep": {
        "amend": "end",
        "delete": "end",
        "compact": "compact",
        "enable": "hook",
        "disable": "hook",
        "doctor": "tend",
        "reconcile": "tend",
    },
}
"""The sections of the help, their commands, and the modules that hold them."""
ALIASES = {"decision": "decide"}
MODULES = {name: module for group in GROUPS.values() for name, module in group.items()}

ABOUT = "The record of agent work: chapters, decisions with their reasons, and what came of it."
END = (
    "A command writes to the trail of --id or $TRAJECTORIES_ID, else to the only active one of this session, "
    "agent or git work tree, else to the only active one. Every command takes --json, and explains itself with "
    "--help."
)
OURS = Program("holdfast trail", npm=False)
THEIRS = Program("trail", npm=True)
_VERSION = Option("-V --version", "", "Show the version and exit.")
_HELP = ("--help", "-h")


def main(words: Sequence[str] | None = None) -> int:
    """The program `trail`; returns the exit code, which is 1 for all that fails."""
    given = list(sys.argv[1:] if words is None else words)
    with _warnings():
        code = guarded(lambda: _run(THEIRS, given))
    return NO if code == CANNOT else code


def run(words: Sequence[str]) -> int:
    """`holdfast trail WORDS`; returns the exit code."""
    with _warnings():
        return guarded(lambda: _run(OURS, list(words)))


def load(name: str, program: Program = OURS) -> Command:
    """A command by its name, imported. Raises Problem."""
    known = ALIASES.get(name, name)
    if known not in MODULES:
        hint = did_you_mean(name, [*MODULES, *ALIASES]) or f"`{program.name} --help` lists the commands"
        raise Problem(f"no such command {name!r:.80}", hint=hint)
    import_module(f"{__name__}.{MODULES[known]}")
    return found(known)


def _run(program: Program, words: list[str]) -> int:
    page = f"`{program.name} --help`"
    before = _before_command(words)
    values, rest = read((*COMMON, _VERSION, Option("-h --help", "", "")), words[:before], page)
    if values.pop("version", False):
        from importlib.metadata import version

        output.data(f"{program.name.partition(' ')[0]} {version('holdfast')}")
        return 0
    name, *more = words[before:] or ["help"]
    if values.pop("help", False):
        name, more = "help", []
    if name == "help":
        return _help(program, more)
    command = load(name, program)
    page = f"`{program.name} {name} --help`"
    if any(word in _HELP for word in more) and _asks_for_help(command, more, page):
        return _help(program, [name])
    told, rest = read((*command.options, *COMMON), more, page)
    values |= told
    values |= placed(command.arguments, rest, page)
    call = Call(program, command.name, values)
    return command.run(call, **values)


def _before_command(words: list[str]) -> int:
    """How many words stand before the command: the program's own options."""
    count = 0
    while count < len(words) and looks_like_option(words[count]):
        count += 2 if words[count] == "--data-dir" else 1
    return min(count, len(words))


def _asks_for_help(command: Command, words: list[str], page: str) -> bool:
    """Whether --help is an option here, and not the value of one."""
    asked = Option("-h --help", "", "")
    try:
        values, _ = read((*command.options, *COMMON, asked), words, page)
    except Problem:
        return True
    return "help" in values


def _help(program: Program, names: list[str]) -> int:
    from .pages import page_of, page_of_all

    if names:
        output.data(page_of(load(names[0], program), names[0], COMMON, program.name))
        return 0
    groups = {title: [(name, load(name)) for name in commands] for title, commands in GROUPS.items()}
    output.data(page_of_all(program.name, ABOUT, (*COMMON, _VERSION), groups, END))
    return 0


@contextmanager
def _warnings() -> Iterator[None]:
    """What the folder logs (an index that was malformed, a line that is none) is told in one line each."""
    import logging

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            output.note(
                f"{output.paint('warning:', 'yellow', sys.stderr)} {output.clean(record.getMessage())}"
            )

    log, handler = logging.getLogger("holdfast.trail"), Lines(logging.WARNING)
    log.addHandler(handler)
    before, log.propagate = log.propagate, False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = before


__all__ = ["GROUPS", "MODULES", "load", "main", "run"]
