"""Agent Trace: which lines of a repository are from a trail's work. Written against version 0.1.0.

Ranges are what `git diff -U0` says between the commit at which the trail began and the one at which it ended,
so they are exact at the revision that `vcs` names. Lines that were only removed have no range: nothing of them is
there. Where nothing was committed after the trail's end, what is not committed counts too. It stands in a
conversation of its own with its places in the work tree, and again under `uncommitted` in the metadata, so that
nobody looks for it at the revision.

git tells what changed, not who did it: what others did in the same commits and the same work tree counts, too.
The id follows from the trail, so a trace that is made anew replaces the old one.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import uuid
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ...errors import PayloadError
from .. import record
from ..model import Trail

VERSION = "0.1.0"
VENDOR = "dev.holdfast"
"""Our key in the metadata, which the specification wants to be a domain read backwards."""

Ranges = dict[str, list[dict[str, Any]]]
"""The ranges of lines that are new, by the file's path from the root of the work tree."""

_DIFF = (
    *("-c", "core.quotePath=false", "diff", "-U0", "-M", "--no-color", "--no-ext-diff", "--no-textconv"),
    *("--no-relative", "--src-prefix=a/", "--dst-prefix=b/", "--inter-hunk-context=0"),
    *("--diff-algorithm=myers", "--indent-heuristic", "--ignore-submodules=all"),
)
"""The same ranges whatever the user's configuration says."""
_HUNK = re.compile(rb"@@ -\d+(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
_ESCAPED = re.compile(rb"\\([0-7]{3}|.)")
_LETTERS = {b"a": b"\a", b"b": b"\b", b"t": b"\t", b"n": b"\n", b"v": b"\v", b"f": b"\f", b"r": b"\r"}
_URL = re.compile(r"https?://[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")


def of_trail(trail: Trail, repository: Path | None, *, without: Path | None = None) -> dict[str, Any]:
    """The code attribution of a trail, by the git repository that its work was done in.

    Files below the folder `without` are left out: that of the trails. Raises PayloadError where the trail tells
    no commit, or git does not know it.
    """
    if trail.trace is None:
        raise PayloadError(
            f"{trail.id}: expected the commit at which the work began, got a trail that tells none"
        )
    top = Path(_git(repository or Path.cwd(), "rev-parse", "--show-toplevel")[:-1])
    start, head = _commit(top, trail.trace.start_ref), _commit(top, "HEAD")
    end = _commit(top, trail.trace.end_ref) if trail.trace.end_ref else head
    committed = ranges(os.fsencode(_git(top, *_DIFF, start, end, "--")))
    loose = _uncommitted(top) if end == head else {}
    if without is not None:
        own = without.resolve()
        committed, loose = (_outside(found, top.resolve(), own) for found in (committed, loose))
    return attribution(trail, end, committed, loose) | {"metadata": {VENDOR: _metadata(trail, start, loose)}}


def attribution(trail: Trail, revision: str, committed: Ranges, loose: Ranges) -> dict[str, Any]:
    """The trace of ranges that are known: those at the revision, and those in the work tree."""
    files = [
        {
            "path": path,
            "conversations": [
                _conversation(trail, found[path]) for found in (committed, loose) if path in found
            ],
        }
        for path in sorted({*committed, *loose})
    ]
    last = max([trail.started_at, *(event.occurred_at for event in trail.events if event.occurred_at)])
    return {
        "version": VERSION,
        "id": _id(trail),
        "timestamp": record.instant(trail.completed_at or last),
        "vcs": {"type": "git", "revision": revision},
        "tool": {"name": "holdfast", "version": version("holdfast")},
        "files": files,
    }


def ranges(diff: bytes) -> Ranges:
    """The new lines that a diff without context tells, with a hash of what they say."""
    found: Ranges = {}
    path = ""
    lines = iter(diff.split(b"\n"))
    for line in lines:
        if line.startswith(b"diff --git "):
            path = ""
        elif line.startswith(b"+++ "):
            path = _path(line[4:])
        elif (hunk := _HUNK.match(line)) is not None:
            old, start, new = (int(number) if number is not None else 1 for number in hunk.groups())
            added: list[bytes] = []
            while old or len(added) < new:  # counted, for a line may look like the head of a file
                line = next(lines, b"")
                if line.startswith(b"+"):
                    added.append(line[1:])
                elif line.startswith(b"-"):
                    old -= 1
                elif not line.startswith(b"\\"):
                    break
            if path and added:
                found.setdefault(path, []).append(_range(start, added))
    return found


def _range(start: int, lines: list[bytes]) -> dict[str, Any]:
    digest = hashlib.sha256(b"\n".join(lines)).hexdigest()
    return {"start_line": start, "end_line": start + len(lines) - 1, "content_hash": f"sha256:{digest}"}


def _path(word: bytes) -> str:
    """The path in the head of a file; git quotes one with odd letters, and ends one with spaces with a tab."""
    if word.startswith(b'"'):
        word = _ESCAPED.sub(_unescaped, word.strip()[1:-1])
    else:
        word = word.removesuffix(b"\t")
    return os.fsdecode(word[2:]) if word.startswith(b"b/") else ""


def _unescaped(match: re.Match[bytes]) -> bytes:
    said = match[1]
    return bytes([int(said, 8)]) if said.isdigit() else _LETTERS.get(said, said)


def _uncommitted(top: Path) -> Ranges:
    """What the work tree has and the commit that is checked out has not, new files included."""
    found = ranges(os.fsencode(_git(top, *_DIFF, "HEAD", "--")))
    for name in _git(top, "ls-files", "--others", "--exclude-standard", "-z").split("\0"):
        path = top / name
        if not name or path.is_symlink() or not path.is_file():
            continue
        text = path.read_bytes()
        lines = text.removesuffix(b"\n").split(b"\n")
        if text and b"\0" not in text[:8000]:  # as git knows binary files
            found[name] = [_range(1, lines)]
    return found


def _outside(found: Ranges, top: Path, folder: Path) -> Ranges:
    return {path: told for path, told in found.items() if folder not in (top / path).parents}


def _conversation(trail: Trail, told: list[dict[str, Any]]) -> dict[str, Any]:
    related = [{"type": "trail", "url": f"urn:holdfast:trail:{trail.id}"}]
    source = trail.task.source
    if source is not None and source.url is not None and _URL.fullmatch(source.url):
        related.append({"type": "task", "url": source.url})
    return {"contributor": {"type": "ai"}, "ranges": told, "related": related}


def _metadata(trail: Trail, start: str, loose: Ranges) -> dict[str, Any]:
    places = {
        path: [[one["start_line"], one["end_line"]] for one in told] for path, told in sorted(loose.items())
    }
    return {"trail": trail.id, "start": start} | ({"uncommitted": places} if places else {})


def _id(trail: Trail) -> str:
    """The id that the trail names for its trace, or one that follows from the trail's."""
    try:
        return str(uuid.UUID((trail.trace.trace_id if trail.trace is not None else None) or ""))
    except ValueError:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"urn:holdfast:trail:{trail.id}"))


def _commit(top: Path, name: str) -> str:
    return _git(top, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}").strip()


def _git(top: Path, *words: str) -> str:
    """What git answers. Raises PayloadError where it refuses, or is not there."""
    calm = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}  # an export changes nothing, not even git's index
    try:
        ran = subprocess.run(
            ["git", "-C", os.fspath(top), *words], env=calm, capture_output=True, check=False
        )
    except (OSError, ValueError) as error:
        raise PayloadError(f"git: expected an answer, got: {error}") from None
    if ran.returncode != 0:
        said = os.fsdecode(ran.stderr).strip().splitlines()
        told = said[0] if said else "it knows no such commit"
        raise PayloadError(f"git {words[0]} {words[-1]}: expected an answer, got: {told}")
    return os.fsdecode(ran.stdout)
