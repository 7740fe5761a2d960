"""The words of a command line: what a command takes, and how it is read.

Guarantee: text is taken as it is typed. An option takes the word that follows, whatever it begins with, and a
word with a blank in it is text even where it begins with `-`; after `--`, all words are. It rests on each
command saying what it takes, in `command(…)` above its function; the help and the reference are made from that.

Rejected: Typer, which the other commands use, because it takes half of the 150 ms in which a short command has
to be done, and an agent calls these all day; argparse, which refuses text that begins with `-` as the value of
an option, and words its errors anew with each version of Python.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from ..problem import CANNOT, Problem, did_you_mean

Read = Callable[[str], Any]


class Argument(NamedTuple):
    """A word by its place. `many` takes all words that are left."""

    metavar: str
    help: str
    needed: bool = True
    many: bool = False

    @property
    def name(self) -> str:
        """The function's parameter."""
        return self.metavar.lower().replace("-", "_")


class Option(NamedTuple):
    """A word by its name: `--reason TEXT`, `--reason=TEXT`, `-r TEXT`. Without a metavar it is a flag.

    `many` may be given several times; `read` makes a value of the text, and raises ValueError with what it
    expects.
    """

    names: str
    metavar: str
    help: str
    many: bool = False
    read: Read | None = None

    @property
    def name(self) -> str:
        """The function's parameter: of '-r --reason' it is `reason`."""
        return self.long.removeprefix("--").replace("-", "_")

    @property
    def long(self) -> str:
        """The name that messages use."""
        return next(name for name in self.names.split() if name.startswith("--"))


class Command(NamedTuple):
    """A command: its function and what it takes."""

    name: str
    run: Callable[..., int]
    takes: tuple[Argument | Option, ...]
    examples: tuple[str, ...]
    codes: dict[int, str]

    @property
    def arguments(self) -> list[Argument]:
        """What it takes by place."""
        return [part for part in self.takes if isinstance(part, Argument)]

    @property
    def options(self) -> list[Option]:
        """What it takes by name."""
        return [part for part in self.takes if isinstance(part, Option)]


HELP = Option("-h --help", "", "Show this message and exit.")

_known: dict[str, Command] = {}


def command(
    *takes: Argument | Option, examples: Sequence[str] = (), codes: dict[int, str] | None = None
) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Make a function a command of its name; its docstring is the help, its parameters are what it takes."""

    def add(function: Callable[..., int]) -> Callable[..., int]:
        name = function.__name__.strip("_")
        _known[name] = Command(name, function, takes, tuple(examples), codes or {})
        return function

    return add


def found(name: str) -> Command:
    """The command of a module that has been imported."""
    return _known[name]


# ---- reading ------------------------------------------------------------------------------------------------


def read(options: Sequence[Option], words: Sequence[str], page: str) -> tuple[dict[str, Any], list[str]]:
    """The values of options, and the words that are left. Raises Problem; `page` is the help to point to."""
    values: dict[str, Any] = {}
    rest: list[str] = []
    coming = iter(words)
    for word in coming:
        if word == "--":
            rest += coming
        elif not looks_like_option(word):
            rest.append(word)
        elif word.startswith("--"):
            name, equals, text = word.partition("=")
            option = _find(options, name, page)
            _take(values, option, text if equals else None, coming, page)
        else:
            _take_short(values, options, word, coming, page)
    return values, rest


def looks_like_option(word: str) -> bool:
    """'-r' and '--reason=too slow' do; '-', '-5', '- first' and '--no blanks' are text."""
    return (
        word[:1] == "-" and word.lstrip("-")[:1].isalpha() and not any(map(str.isspace, word.split("=")[0]))
    )


def _take_short(
    values: dict[str, Any], options: Sequence[Option], word: str, coming: Iterable[str], page: str
) -> None:
    """'-q', '-r TEXT', '-rTEXT', '-qr TEXT'."""
    for place in range(1, len(word)):
        option = _find(options, f"-{word[place]}", page, word)
        after = word[place + 1 :]
        if option.metavar:
            _take(values, option, after.removeprefix("=") or None, coming, page)
            return
        _take(values, option, None, coming, page)


def _find(options: Sequence[Option], name: str, page: str, word: str = "") -> Option:
    for option in options:
        if name in option.names.split():
            return option
    known = [name for option in options for name in option.names.split() if name.startswith("--")]
    hint = did_you_mean(name, known) or f"{page} says what it takes; text that begins with - goes after --"
    raise Problem(f"no such option: {word or name}", hint=hint)


def _take(values: dict[str, Any], option: Option, text: str | None, coming: Iterable[str], page: str) -> None:
    if not option.metavar:
        if text is not None:
            raise Problem(f"{option.long} is a flag: it takes no value, got {text!r:.80}")
        values[option.name] = True
        return
    if text is None:
        text = next(iter(coming), None)
        if text is None:
            raise Problem(f"{option.long} needs a value: {option.metavar}", hint=f"{page} says what it takes")
    try:
        value = option.read(text) if option.read is not None else text
    except ValueError as error:
        raise Problem(f"{option.long}: expected {error}, got {text!r:.80}", code=CANNOT) from None
    if option.many:
        values.setdefault(option.name, []).append(value)
    else:
        values[option.name] = value


def placed(arguments: Sequence[Argument], words: Sequence[str], page: str) -> dict[str, Any]:
    """The words by their places. Raises Problem for too few or too many."""
    values: dict[str, Any] = {}
    left = list(words)
    for argument in arguments:
        if argument.many:
            values[argument.name], left = left, []
        elif left:
            values[argument.name] = left.pop(0)
            continue
        if argument.needed and not values.get(argument.name):
            raise Problem(f"missing argument {argument.metavar}", hint=f"{page} says what it takes")
    if left:
        hint = f"quotes make one text of several words; {page} says what it takes"
        raise Problem(f"one argument too many: {left[0]!r:.80}", hint=hint)
    return values


# ---- values -------------------------------------------------------------------------------------------------


def number(text: str) -> int:
    """A count from 0 on."""
    if not text.isascii() or not text.isdigit():
        raise ValueError("a number from 0 on")
    return int(text)


def confidence(text: str) -> float:
    """How sure, from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ValueError("a number from 0 to 1")
    return value


def one_of(*choices: str) -> Read:
    """One of these words."""

    def choice(text: str) -> str:
        if text not in choices:
            raise ValueError(" or ".join([", ".join(choices[:-1]), choices[-1]]))
        return text

    return choice


def comma_list(text: str) -> list[str]:
    """'a, b' as two texts."""
    return [part.strip() for part in text.split(",") if part.strip()]


def instant(text: str) -> Any:
    """'7d', '2w', '1m' or '3h' ago, or an ISO date, UTC where it names no zone; an aware datetime."""
    from datetime import UTC, datetime, timedelta

    days = {"d": 1.0, "w": 7.0, "m": 30.0, "h": 1 / 24}
    if text[-1:] in days and text[:-1].isascii() and text[:-1].isdigit() and len(text) < 8:
        return datetime.now(UTC) - timedelta(days=int(text[:-1]) * days[text[-1]])
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("3h, 7d, 2w, 1m or a date like 2026-01-31") from None
    return when if when.tzinfo is not None else when.replace(tzinfo=UTC)
