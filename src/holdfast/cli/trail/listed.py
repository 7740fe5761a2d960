"""The line of `trail` in `holdfast --help`; the command itself never comes here, but goes to this package."""

from __future__ import annotations

from ..frame import command
from ..options import ending

TRAILS = "Keep trails"


@command(TRAILS, ending({0: "see `holdfast trail --help`"}))
def trail() -> int:
    """Keep the record of agent work: notes, decisions, what came of it."""
    raise AssertionError("`holdfast trail` is dispatched before this command line is made")
