"""What git is asked. Where it is not there, or refuses, the answer is None, and nobody's work fails for it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class Commit(NamedTuple):
    """A commit: its whole hash, and what its message says."""

    hash: str
    message: str


def top(at: Path | None = None) -> Path | None:
    """The root of the work tree that a folder is in; found by looking, for git takes its time."""
    here = Path.cwd() if at is None else Path(os.path.abspath(at))
    return next((folder for folder in (here, *here.parents) if (folder / ".git").exists()), None)


def ask(*words: str, at: Path | None = None) -> str | None:
    """What git answers, without its last line feed; `at` is the folder to ask in."""
    if top(at) is None:
        return None
    import subprocess

    try:
        ran = subprocess.run(["git", *words], cwd=at, capture_output=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return os.fsdecode(ran.stdout).removesuffix("\n") if ran.returncode == 0 else None


def commits(*chosen: str, at: Path | None = None) -> list[Commit] | None:
    """The commits that `git log` names for these words: revisions, ranges, options."""
    told = ask("log", "-z", "--format=%H%n%B", *chosen, "--", at=at)
    if told is None:
        return None
    parts = (part.partition("\n") for part in told.split("\0") if part.strip())
    return [Commit(name, message) for name, _, message in parts]


def is_name(text: str) -> bool:
    """Whether git may be handed this as a revision: an option would be one of another kind."""
    return bool(text.strip()) and not text.startswith("-") and "\0" not in text
