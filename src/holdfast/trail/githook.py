"""The commit hook: every commit says in a trailer, `Trajectory: <id>`, which trail it was made in.

Guarantee: it stops no commit and makes none, and a message gets at most one such trailer. It is plain POSIX
shell (`githook.sh`), so a commit waits for no Python. It rests on git's own words: `git rev-parse --git-path
hooks` says where hooks are, for linked work trees and core.hooksPath too, and `git interpret-trailers` knows
what a trailer is.

It is two files with one text. `prepare-commit-msg` knows how the message came about: those of merges, squashes,
rebases and amended commits are left alone, and those of -m and -F get the trailer. A message that is still to
be edited gets it in `commit-msg`, and only if somebody has edited it: with a trailer in it from the start, a
commit that was given up in the editor would be made all the same, for git takes no message with text for empty.

Which trail: that of $TRAJECTORIES_ID, else of the active ones that of $TRAJECTORIES_SESSION, else that of
$TRAJECTORIES_AGENT, else the one that was last resumed, else the one that was last written to. The folder is
$TRAJECTORIES_DATA_DIR, else that which `enable` was given, else `.trajectories` (or where the npm tool has it),
in the folder of the `git commit` or at the root of the work tree; journals and the npm tool's records count.
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import Literal

from ..errors import TrailError
from . import git, places
from .ids import is_trail_id

KEY = "Trajectory"
HOOKS = ("prepare-commit-msg", "commit-msg")
KEPT = ".before-trail"
"""What the name of somebody else's hook ends with while ours calls it."""
State = Literal["on", "off", "foreign"]

_MARK = "# made by `holdfast trail enable`"
_TRAILER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)[ \t]*:(.*)")
_PICKED = "(cherry picked from commit "


def enable(at: Path | None = None, *, force: bool = False, data_dir: str | None = None) -> bool:
    """Install the hook in the repository of a folder (the current one); False where it was there already.

    `data_dir` is the folder of trails to look in. With `force`, a hook that somebody else has installed is kept
    and called first; `disable` puts it back. Raises TrailError: no repository, another's hook, or a folder that
    cannot be written.

    Example:
        githook.enable()
    """
    folder = _hooks(at)
    there = {name: _state(folder / name) for name in HOOKS}
    for name in HOOKS:
        if there[name] == "foreign" and not force:
            raise TrailError(f"a {name} hook already exists: {folder / name}; --force keeps it and calls it")
        if there[name] == "foreign" and os.path.lexists(_kept(folder, name)):
            raise TrailError(f"{_kept(folder, name)} is in the way: two hooks of others cannot be kept")
    text = Path(__file__).with_name("githook.sh").read_text(encoding="utf-8")
    script = text.replace(
        "@DATA_DIR@", shlex.quote(os.path.abspath(os.path.expanduser(data_dir))) if data_dir else ""
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in HOOKS:
            if there[name] == "foreign":
                os.rename(folder / name, _kept(folder, name))
            places.replace(str(folder / name), os.fsencode(script))
            os.chmod(folder / name, 0o755)  # noqa: S103 - git runs what may be executed
    except OSError as error:
        raise _cannot(folder, error) from None
    return any(state != "on" for state in there.values())


def disable(at: Path | None = None) -> bool:
    """Remove the hook, and put back what was there before; False where there is none. Raises TrailError."""
    folder = _hooks(at)
    removed = False
    try:
        for name in HOOKS:
            path, kept = folder / name, _kept(folder, name)
            if _state(path) == "on":
                path.unlink()
                removed = True
            if os.path.lexists(kept) and not os.path.lexists(path):
                os.rename(kept, path)
                removed = True
    except OSError as error:
        raise _cannot(folder, error) from None
    return removed


def state(at: Path | None = None) -> State:
    """'on', 'off', or 'foreign' where another's hook has its place. Raises TrailError: no repository."""
    folder = _hooks(at)
    states = {_state(folder / name) for name in HOOKS}
    if states == {"on"}:
        return "on"
    return "foreign" if "foreign" in states else "off"


def trailers(message: str) -> list[tuple[str, str]]:
    r"""The trailers of a commit's message, keys and values: lines `Key: value` of its last paragraph.

    A paragraph with other lines has none, nor has the first one, which is the title.

    Example:
        trailers("Fix\n\nTrajectory: traj_abc\n")  # [('Trajectory', 'traj_abc')]
    """
    paragraphs = re.split(r"\n(?:[ \t]*\n)+", message.replace("\r\n", "\n").strip("\n \t"))
    if len(paragraphs) < 2:
        return []
    found: list[tuple[str, str]] = []
    for line in paragraphs[-1].split("\n"):
        match = _TRAILER.fullmatch(line)
        if match is not None:
            found.append((match[1], match[2].strip()))
        elif line[:1] in (" ", "\t") and found:
            found[-1] = (found[-1][0], f"{found[-1][1]} {line.strip()}")
        elif not line.startswith(_PICKED):
            return []
    return found


def trail_in(message: str) -> str | None:
    r"""The trail that a commit's message names; None for none.

    Example:
        trail_in("Fix\n\nTrajectory: traj_abc\n")  # 'traj_abc'
    """
    named = (value for key, value in trailers(message) if key.lower() == KEY.lower())
    return next((value for value in named if is_trail_id(value)), None)


def trail_of_commit(commit: str = "HEAD", at: Path | None = None) -> str | None:
    """The trail that a commit names; None where it names none, or there is no such commit."""
    found = git.commits("--max-count=1", commit, at=at) if git.is_name(commit) else None
    return trail_in(found[0].message) if found else None


def _hooks(at: Path | None) -> Path:
    """Where git looks for hooks: asked at the root, for a relative core.hooksPath is relative to that."""
    root = git.top(at)
    told = git.ask("rev-parse", "--git-path", "hooks", at=root)
    if root is None or not told:
        raise TrailError("not inside a git repository")
    return root / Path(told).expanduser()


def _state(path: Path) -> State:
    if not os.path.lexists(path):
        return "off"
    try:
        return "on" if _MARK.encode() in path.read_bytes()[:200] else "foreign"
    except OSError:
        return "foreign"


def _kept(folder: Path, name: str) -> Path:
    return folder / f"{name}{KEPT}"


def _cannot(folder: Path, error: OSError) -> TrailError:
    return TrailError(f"{error.filename or folder}: {os.strerror(error.errno or 0)}")
