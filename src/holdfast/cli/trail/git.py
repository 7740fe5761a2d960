"""What git knows of the work: where it is done, which commits it made. Without git, nothing, and no error."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from ...trail.git import ask, top

_COMMIT = "\x01"
"""What stands before a commit's hash, and begins no file's name, in the log that git is asked for."""


class Done(NamedTuple):
    """What was committed since a trail began: short hashes, the oldest first, and the files they changed."""

    commits: list[str]
    files: list[str]


def worktree() -> str | None:
    """A name for the work tree: the same each time on this machine, different in every other one.

    It goes into trails that people commit, so it tells no path: 'shop-3f9a2c41'.
    """
    root = top()
    if root is None:
        return None
    import hashlib

    place = f"{os.uname().nodename}\0{root.resolve()}".encode("utf-8", "surrogateescape")
    name = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in root.name)
    return f"{name[:40] or 'root'}-{hashlib.sha256(place).hexdigest()[:8]}"


def head() -> str | None:
    """The commit that is checked out; None where there is none yet."""
    return ask("rev-parse", "--verify", "--quiet", "HEAD") or None


def done_since(start: str | None, since: str, without: Path) -> Done:
    """What was committed since the commit `start`; where that is not known, since the instant `since`.

    Files below the folder `without` are left out: a trail is no work that it tells of.
    """
    told = _log(f"{start}..HEAD") if start is not None else None
    if told is None:
        told = _log(f"--since={since}", "HEAD") or ""
    commits, files = [], set()
    for part in told.split("\0"):
        word = part.removeprefix("\n")
        if word.startswith(_COMMIT):
            commits.append(word[len(_COMMIT) :])
        elif word:
            files.add(word)
    root, own = top() or Path(), without.resolve()
    return Done(commits, sorted(name for name in files if own not in (root / name).resolve().parents))


def _log(*chosen: str) -> str | None:
    return ask("log", "--reverse", "--name-only", "-z", "--format=%x01%h", *chosen)


def remotes() -> dict[str, str]:
    """The addresses of the remotes by their names."""
    lines = (ask("config", "--get-regexp", r"^remote\..*\.url$") or "").splitlines()
    return {
        key[len("remote.") : -len(".url")]: url for key, _, url in (line.partition(" ") for line in lines)
    }
