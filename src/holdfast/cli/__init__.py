"""The command `holdfast`: one module for each group of commands.

`frame` holds the command itself and how errors reach people; a group's module imports `frame.app` and adds its
commands when it is imported here. Start-up counts: a module of commands imports nothing heavy at its top, and
each command imports what it needs when it runs.

Rules for all commands: data go to stdout, everything else to stderr; an error is one line `error: …` and,
where it helps, a line `hint: …`; long ids are never cut; colour only says what the words say too.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    from . import act, check, frame, look, show, why, work  # noqa: F401 - each adds its commands

    return frame.run(args)
