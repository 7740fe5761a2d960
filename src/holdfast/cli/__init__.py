"""The command `holdfast`: one module for each group of commands.

`frame` holds the command itself and how errors reach people; a module of commands imports `frame.app` and
adds its commands when it is imported here. Start-up counts: such a module imports nothing heavy at its top,
and each command imports what it needs when it runs.

Rules for all commands: data go to stdout, everything else to stderr; an error is one line `error: …` and,
where it helps, a line `hint: …`; long ids are never cut; colour only says what the words say too.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

GROUPS = (
    "work",
    "serve",
    "dev",
    "token",
    "look",
    "stream",
    "show",
    "why",
    "waiting",
    "schedules",
    "top",
    "act",
    "check",
    "tend",
    "stress",
    "bench",
    "key",
    "trail.listed",
)
"""The modules that add commands, in the order in which the help shows them."""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    given = list(sys.argv[1:] if args is None else args)
    if given and given[0] == "trail":
        # It reads its words itself, in a third of the time that the rest takes to import.
        from . import trail

        return trail.run(given[1:])
    for group in GROUPS:
        import_module(f"{__name__}.{group}")
    from . import frame

    return frame.run(given)
