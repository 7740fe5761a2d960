"""Which files to look at: those that git knows or would add, else those that a walk finds."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .findings import Listing

MOST = 500
"""Files of each kind that are read; a survey should take seconds, not minutes."""
DOCUMENTS = {".md", ".rst", ".txt", ".adoc"}
IGNORED = {"node_modules", "site-packages", "__pycache__", "build", "dist", "venv", "env", "vendor"}


@dataclass
class Names:
    """Files relative to the folder, those nearest to its top first; `left_out` is how many were too many."""

    total: int
    python: list[str]
    documents: list[str]
    left_out: int


def count(folder: str) -> Listing:
    """How many files there are to look at."""
    names = list_files(folder)
    return Listing(names.total, len(names.python), len(names.documents), names.left_out)


def list_files(folder: str) -> Names:
    """The folder's Python files and documents."""
    root = Path(folder)
    if not root.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder")
    names = [name for name in _from_git(root) or _from_walk(root) if (root / name).is_file()]
    # The files nearest to the top say most about a folder that is too large to read whole.
    names.sort(key=lambda name: (name.count("/"), name))
    python = [name for name in names if name.endswith(".py")]
    documents = [name for name in names if Path(name).suffix.lower() in DOCUMENTS]
    left_out = max(0, len(python) - MOST) + max(0, len(documents) - MOST)
    return Names(len(names), python[:MOST], documents[:MOST], left_out)


def git(root: Path, *arguments: str) -> str:
    """What git answers. Raises OSError where there is no git, CalledProcessError where it refuses."""
    command = ["git", "-C", str(root), "-c", "core.quotePath=false", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, errors="replace")
    return done.stdout


def _from_git(root: Path) -> list[str]:
    try:
        out = git(root, "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    except (OSError, subprocess.SubprocessError):
        return []
    return [name for name in out.split("\0") if name]


def _from_walk(root: Path) -> list[str]:
    found: list[str] = []
    for place, folders, names in os.walk(root):
        folders[:] = sorted(f for f in folders if f not in IGNORED and not f.startswith("."))
        found += [os.path.relpath(os.path.join(place, name), root) for name in names]
        if len(found) > 50_000:
            break
    return found
