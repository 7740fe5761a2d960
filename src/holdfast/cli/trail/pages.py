"""The help of the trail commands: the same form as that of the other commands, made from what each one takes."""

from __future__ import annotations

import inspect
import shutil
import textwrap
from collections.abc import Sequence

from .words import HELP, Command, Option


def page_of(command: Command, shown: str, common: Sequence[Option], program: str) -> str:
    """What `--help` says of a command; `shown` is the name under which it was asked for."""
    usage = ["[OPTIONS]"]
    for argument in command.arguments:
        word = argument.metavar + ("..." if argument.many else "")
        usage.append(word if argument.needed else f"[{word}]")
    parts = [_filled(f"Usage: {program} {shown} {' '.join(usage)}", " " * 7)]
    paragraphs = (inspect.getdoc(command.run) or "").split("\n\n")
    parts += [_filled(" ".join(paragraph.split()), "  ", "  ") for paragraph in paragraphs]
    taken = list(zip(usage[1:], [argument.help for argument in command.arguments], strict=True))
    parts.append(_section("Arguments", taken))
    parts.append(_section("Options", [_row(option) for option in (*command.options, *common, HELP)]))
    if command.examples:
        parts.append("\n".join(["  Examples:", *(f"    {program} {line}" for line in command.examples)]))
    codes = [_filled(text, " " * 9, f"    {code:<5}") for code, text in sorted(command.codes.items())]
    parts.append("\n".join(["  Exit codes:", *codes]))
    return "\n\n".join(part for part in parts if part)


def page_of_all(
    program: str,
    about: str,
    options: Sequence[Option],
    groups: dict[str, list[tuple[str, Command]]],
    end: str,
) -> str:
    """What `--help` says of the program: its commands in groups, each with the first line of its help."""
    parts = [f"Usage: {program} [OPTIONS] COMMAND [ARGS]...", _filled(about, "  ", "  ")]
    parts.append(_section("Options", [_row(option) for option in (*options, HELP)]))
    for title, commands in groups.items():
        parts.append(_section(title, [(name, first_line(command)) for name, command in commands]))
    parts += [_filled(paragraph, "  ", "  ") for paragraph in end.split("\n\n")]
    return "\n\n".join(parts)


def first_line(command: Command) -> str:
    """What a command does, in a line."""
    return (inspect.getdoc(command.run) or "").partition("\n")[0]


def _row(option: Option) -> tuple[str, str]:
    names = sorted(option.names.split(), key=len)
    return f"{', '.join(names)} {option.metavar}".rstrip(), option.help


def _section(title: str, rows: Sequence[tuple[str, str]]) -> str:
    """Names on the left, what they mean on the right."""
    if not rows:
        return ""
    widest = max((len(name) for name, _ in rows if len(name) <= 26), default=0)
    lines = [f"{title}:"]
    for name, text in rows:
        head = f"  {name:<{widest}}  "
        if len(name) > widest:
            lines.append(f"  {name}")
            head = " " * (widest + 4)
        lines.append(_filled(text, " " * (widest + 4), head))
    return "\n".join(lines)


def _filled(text: str, indent: str, first: str = "") -> str:
    """The text in lines that fit the terminal, where it has 60 to 100 columns."""
    return textwrap.fill(
        text,
        max(60, min(100, shutil.get_terminal_size().columns)) - 2,
        initial_indent=first,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )
