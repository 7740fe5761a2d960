"""The command `holdfast` itself: its sections, its version, and how wrong usage ends it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from . import GROUPS, output
from .guard import guarded
from .problem import CANNOT, Problem, did_you_mean

WORK, LOOK, ACT, CHECK = "Run workflows", "Look at runs", "Act on runs", "Check"
"""The sections of `holdfast --help`."""

_ORDER = [command for commands in GROUPS.values() for command in commands]
_Function = TypeVar("_Function", bound=Callable[..., int])
_USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[2]
"""Typer brings its own copy of Click in newer versions: this is the `ClickException` of either."""


class Sections(TyperGroup):
    """`holdfast --help` with its commands in sections."""

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order of the story, not of the alphabet, nor in that in which their modules were asked for."""
        return sorted(self.commands, key=lambda name: _ORDER.index(name) if name in _ORDER else 0)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """One block a section."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command: Any = self.commands[name]
            sections.setdefault(command.rich_help_panel, []).append((name, command.get_short_help_str(200)))
        for section, rows in sections.items():
            with formatter.section(section):
                formatter.write_dl(rows, col_max=12)


class Described(TyperCommand):
    """A command whose help reads the same with every version of Typer: the reference is made from it."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """'[OPTIONS] RUN': the arguments as their metavar says."""
        arguments = [p.metavar for p in self.get_params(ctx) if p.param_type_name == "argument"]
        return ["[OPTIONS]", *(str(metavar) for metavar in arguments)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments and options, with what their help says and nothing added."""
        arguments, options = [], []
        for parameter in self.get_params(ctx):
            text = getattr(parameter, "help", None) or ""
            if parameter.param_type_name == "argument":
                arguments.append((str(parameter.metavar), text))
            else:
                names = ", ".join(sorted(parameter.opts, key=len))
                metavar = "" if getattr(parameter, "is_flag", False) else parameter.metavar
                options.append((f"{names} {metavar or ''}".rstrip(), text))
        for title, rows in (("Arguments", arguments), ("Options", options)):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


app = typer.Typer(
    cls=Sections,
    name="holdfast",
    rich_markup_mode=None,  # plain help: quick, readable without colour, and the reference is made from it
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 100},
)


def command(
    section: str, ending: str, *, name: str | None = None, of: typer.Typer = app, any_words: bool = False
) -> Callable[[_Function], _Function]:
    """Make a function that returns an exit code a command, in a section of the help, or of a group.

    With `any_words`, words like -5 are arguments, not options that nobody knows.
    """
    settings = {"ignore_unknown_options": True} if any_words else None
    return of.command(name, cls=Described, rich_help_panel=section, epilog=ending, context_settings=settings)


def group(section: str, name: str, help: str) -> typer.Typer:
    """A command that is followed by the name of one of its own: `holdfast stress hook-sleep`."""
    made = typer.Typer(
        cls=Sections,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        add_completion=False,
        no_args_is_help=True,
        help=help,
    )
    app.add_typer(made, name=name, rich_help_panel=section)
    return made


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        output.data(f"holdfast {version('holdfast')}")
        raise typer.Exit


@app.callback(
    epilog="Every command takes --store URL and --json, and explains itself with --help. "
    "HOLDFAST_DEBUG=1 shows where an error came from."
)
def _holdfast(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Durable workflows, and a log of what they did that can be trusted."""


@cache
def _whole(_commands: int) -> Any:
    """All commands that were imported, made once: Typer takes longer for it than most commands take."""
    return typer.main.get_command(app)


def run(args: Sequence[str]) -> int:
    """Parse the arguments, do the command, and say in one line what went wrong."""
    whole = _whole(len(app.registered_commands) + len(app.registered_groups))
    given = list(args) or ["--help"]

    def command() -> object:
        try:
            return whole.main(given, prog_name="holdfast", standalone_mode=False)
        except typer.Abort:
            raise KeyboardInterrupt from None

    return guarded(command, lambda error: _usage(error) if isinstance(error, _USAGE_ERROR) else None)


def _usage(error: Any) -> Problem:
    message = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    if context is None:
        return Problem(message[:1].lower() + message[1:], code=CANNOT)
    hint = f"`{context.command_path} --help` says what it takes"
    if message.startswith("No such command"):
        wanted = message.split("'")[1]
        message = f"no such command {wanted!r}"
        hint = did_you_mean(wanted, context.command.list_commands(context)) or hint
    return Problem(message[:1].lower() + message[1:], hint=hint, code=CANNOT)
