"""One call of a trail command: which program it came by, who calls, in which folder, and how it is answered."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import output
from ..problem import NO, Problem
from .words import Option

if TYPE_CHECKING:
    from ...trail.folder import TrailFolder
    from ...trail.handle import OpenTrail

COMMON = (
    Option(
        "--data-dir",
        "DIR",
        "The folder of trails. Without it: $TRAJECTORIES_DATA_DIR, else .trajectories.",
    ),
    Option("--json", "", "Write JSON: one object, or one object a line for lists."),
)
"""What every command takes."""

AGENT = Option("--agent", "NAME", "Who does it. Without it: $TRAJECTORIES_AGENT.")
SESSION = Option("--session", "NAME", "The session it is done in. Without it: $TRAJECTORIES_SESSION.")
WHICH = (
    Option(
        "--id",
        "ID",
        "The trail. Without it: $TRAJECTORIES_ID, else the only active one of this session, agent or work "
        "tree, else the only active one.",
    ),
    AGENT,
    SESSION,
)
"""What commands take that write to a trail."""


_ENDED = {
    False: "--late adds to it all the same, and marks what it adds",
    True: "`amend` corrects or completes what it says",
}


class Program(NamedTuple):
    """The program that people typed. `npm`: it answers in the words of the npm tool."""

    name: str
    npm: bool


class Caller(NamedTuple):
    """Who calls, as far as it is known."""

    agent: str | None
    session: str | None
    worktree: str | None


class Call:
    """What the commands share; their own values come as parameters."""

    def __init__(self, program: Program, name: str, values: dict[str, Any]) -> None:
        self.program = program
        self.name = name
        self.json: bool = values.pop("json", False)
        self.data_dir: str | None = values.pop("data_dir", None)
        self.id: str | None = values.pop("id", os.environ.get("TRAJECTORIES_ID") or None)
        self.named_agent: str | None = values.pop("agent", None)
        self._session: str | None = values.pop("session", None)

    @cached_property
    def folder(self) -> TrailFolder:
        """The folder that the command writes to; nothing is created by asking."""
        from ...trail.folder import TrailFolder

        if self.data_dir == "":
            raise Problem("--data-dir: expected a folder, got nothing")
        return TrailFolder(self.data_dir)

    @cached_property
    def folders(self) -> list[TrailFolder]:
        """Where trails are looked for: $TRAJECTORIES_SEARCH_PATHS, else the folder alone."""
        from ...trail.folder import TrailFolder

        paths = [path for path in os.environ.get("TRAJECTORIES_SEARCH_PATHS", "").split(":") if path]
        if self.data_dir is not None or not paths:
            return [self.folder]
        return [TrailFolder(path) for path in paths]

    def holds(self, trail_id: str) -> TrailFolder:
        """The first folder that has this trail; where none has, the first, which will say so."""
        from ...trail.ids import checked

        checked(trail_id)
        having = (
            folder
            for folder in self.folders
            if any((found := folder.files.places.find(trail_id)).journals + found.records)
        )
        return next(having, self.folders[0])

    @cached_property
    def caller(self) -> Caller:
        """Who calls: the session and agent that are named or in the environment, and git's work tree."""
        from .git import worktree

        return Caller(
            self.named_agent or os.environ.get("TRAJECTORIES_AGENT") or None,
            self._session or os.environ.get("TRAJECTORIES_SESSION") or None,
            worktree(),
        )

    def writer(self, *, ends: bool = False, late: bool = False) -> OpenTrail:
        """The trail to write to; see `which`. Raises Problem where it has ended, unless `late`."""
        from ...errors import TrailEnded
        from .which import which

        trail_id = which(self, ends=ends)
        try:
            return self.folder.open(trail_id, agent=self.caller.agent, late=late)
        except TrailEnded as error:
            raise Problem(str(error).partition("; open(")[0], hint=_ENDED[ends], code=NO) from None

    # ---- answers --------------------------------------------------------------------------------------------

    def answer(self, result: Mapping[str, Any], lines: Iterable[str] | str) -> int:
        """Say what was done: one JSON object, or the lines; the npm tool's users read its own."""
        if self.json:
            put_json(result)
            return 0
        if self.program.npm:
            from .theirs import LINES

            if self.name in LINES:
                lines = LINES[self.name](result)
        for line in [lines] if isinstance(lines, str) else lines:
            output.data(line)
        return 0

    def answer_many(self, results: Sequence[Mapping[str, Any]]) -> int:
        """A list for programs: one JSON object a line."""
        for result in results:
            put_json(result)
        return 0


def put_json(value: Mapping[str, Any]) -> None:
    """One JSON object on a line of stdout; lone surrogates as escapes."""
    from ...trail.record import dump

    output.data(dump(dict(value)).decode())


def given(text: str) -> str:
    """Text of the command line; `-` reads it from stdin."""
    if text != "-":
        return text
    if sys.stdin.isatty():
        output.note("reading from the terminal; Ctrl-D ends the text")
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
    return sys.stdin.read().removesuffix("\n")
