"""`key`: keys that make payloads unreadable at rest."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from . import output
from .frame import CHECK, command
from .options import AsJson, ending
from .problem import Problem


@command(
    CHECK,
    ending(
        {0: "the file has a new key on top", 2: "cannot: the file is no key file, or cannot be written"},
        ["key keys.txt", "key keys.txt --name 2026-11"],
    ),
)
def key(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The key file; it is made where it is missing.")
    ],
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="The key's name (today's date).")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Put a new key on top of a key file: from now on it seals, the others still open.

    Point HOLDFAST_KEYS to the file in every process that reads or writes payloads. Keep a copy elsewhere: what
    was sealed with a lost key is lost.
    """
    from ..keys import Keys

    # Two keys on one day need two names; the second has the time in it as well.
    now = datetime.now(UTC)
    old = Keys.load(file).names if file.exists() else []
    name = name or next(
        n for n in (now.strftime("%Y-%m-%d"), now.strftime("%Y-%m-%dT%H%M%S.%f")) if n not in old
    )
    if name in old:
        raise Problem(f"{file} has a key {name!r} already", hint="give the new one another --name")
    line = Keys.line(name)
    before = file.read_text(encoding="utf-8") if old else ""
    _write(file, line + before)
    Keys.load(file)
    output.note(f"{file}: {name} seals from now on" + (f", {len(old)} older keys still open" if old else ""))
    output.note(f"export HOLDFAST_KEYS={file.absolute()}")
    if as_json:
        output.data_json({"file": str(file), "name": name, "older": old})
    return 0


def _write(file: Path, text: str) -> None:
    """Whole or not at all, and for its owner alone: a torn key file would lock everybody out."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        draft.replace(file)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise Problem(f"{file} cannot be written: {error.strerror or error}") from None
