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

GROUPS = {
    "work": ("run", "start", "worker"),
    "serve": ("serve",),
    "dev": ("dev",),
    "token": ("token",),
    "look": ("runs", "events"),
    "stream": ("stream",),
    "show": ("show",),
    "why": ("why",),
    "waiting": ("hooks", "timers", "queues"),
    "schedules": ("schedules",),
    "top": ("top",),
    "act": ("resume", "wake", "cancel", "terminate", "rerun"),
    "check": ("verify", "replay"),
    "tend": ("migrate", "prune"),
    "stress": ("stress",),
    "bench": ("bench",),
    "key": ("key",),
    "trail.listed": ("trail",),
}
"""The modules that add commands, and which, in the order in which the help shows them. Who asks for one of these
commands waits for its module alone; for help, or for a word that is none, all are imported."""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    given = list(sys.argv[1:] if args is None else args)
    if given and given[0] == "trail":
        # It reads its words itself, in a third of the time that the rest takes to import.
        from . import trail

        return trail.run(given[1:])
    wanted = [group for group, commands in GROUPS.items() if given and given[0] in commands]
    for group in wanted or GROUPS:
        import_module(f"{__name__}.{group}")
    from . import frame

    return frame.run(given)
