"""The options that commands share, and how the end of their help is written."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from typing import Annotated

import typer

from .problem import Problem

DEFAULT_STORE = "sqlite:///.holdfast/holdfast.db"
"""The same as `holdfast.client.default_url` gives; repeated here because the client takes long to import."""

StoreUrl = Annotated[
    str,
    typer.Option(
        "--store",
        metavar="URL",
        envvar="HOLDFAST_URL",
        help="Where the runs are: sqlite:///relative.db or sqlite:////absolute/path.db. Without it: "
        "$HOLDFAST_URL, else sqlite:///.holdfast/holdfast.db.",
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Write JSON: one object, or one object a line for lists.")
]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run's id, as `holdfast runs` lists it.")]
Attributes = Annotated[
    list[str] | None,
    typer.Option("--attribute", metavar="NAME=TEXT", help="Searchable text; may be given several times."),
]
Limit = Annotated[int, typer.Option("--limit", min=0, metavar="N", help="At most so many (50); 0 for all.")]


def ending(codes: dict[int, str], examples: Sequence[str] = ()) -> str:
    """The end of a command's help: examples and exit codes, line by line."""
    parts = []
    if examples:
        parts.append("\b\n" + "\n".join(["Examples:", *(f"  holdfast {line}" for line in examples)]))
    lines = [
        textwrap.fill(meaning, 76, initial_indent=f"  {code:<3}  ", subsequent_indent=" " * 7)
        for code, meaning in sorted(codes.items())
    ]
    parts.append("\b\n" + "\n".join(["Exit codes:", *lines]))
    return "\n\n".join(parts)


def duration(text: str, option: str) -> float:
    """'30d', '12h', '90min' as seconds; also with a space, as times are shown. Raises Problem."""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d+)?) ?(w|d|h|min|s)", text.strip())
    if found is None:
        raise Problem(f"{option} {text}: expected a number and w, d, h, min or s, such as 30d or 12h")
    return float(found[1]) * _SECONDS[found[2]]


_SECONDS = {"w": 604_800, "d": 86_400, "h": 3_600, "min": 60, "s": 1}


def attributes_of(texts: Sequence[str] | None) -> dict[str, str]:
    """`--attribute` NAME=TEXT as a dict."""
    found = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise Problem(f"--attribute {text}: expected NAME=TEXT")
        found[name] = value
    return found
