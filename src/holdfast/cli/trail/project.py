"""Which project a work tree is: 'owner/name', as its files or its git remotes say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...trail.git import top
from .git import remotes

_HOSTED = re.compile(
    r"(?:git\+)?(?:(?:https?|ssh|git)://(?:[^@/]*@)?[^/:]+(?::\d+)?[/:]|[^@/\s]+@[^:/\s]+:|github:)?"
    r"(?P<owner>[\w.-]+(?:/[\w.-]+)*)/(?P<name>[\w.-]+?)(?:\.git)?/?"
)


def project_id() -> str | None:
    """The repository of the nearest package.json, else of git's remotes, else a project file's name."""
    files = list(_files())
    for data in files:
        found = _repository(data.get("repository"))
        if found:
            return found
    addresses = remotes()
    for remote in ("upstream", "origin"):
        found = normalised(addresses.get(remote, ""))
        if found:
            return found
    return next((name for data in files if isinstance(name := data.get("name"), str) and name), None)


def normalised(url: str) -> str | None:
    """'owner/name' of a git address; None for what is none, such as a path of this machine.

    Example:
        normalised("git@github.com:shop/cart.git")  # 'shop/cart'
    """
    match = _HOSTED.fullmatch(url.strip())
    if match is None or url.startswith(("/", ".", "~")) or ".." in url.split("/"):
        return None
    return f"{match['owner']}/{match['name']}"


def _repository(told: Any) -> str | None:
    url = told.get("url") if isinstance(told, dict) else told
    found = normalised(url) if isinstance(url, str) else None
    inside = told.get("directory") if isinstance(told, dict) else None
    if not found or not isinstance(inside, str) or not inside:
        return found
    if inside.startswith("/") or ".." in inside.split("/"):
        return found
    return f"{found}//{inside.strip('/')}"


def _files() -> Iterator[dict[str, Any]]:
    """What the nearest package.json and pyproject.toml say, from here up to the root of the work tree."""
    here = Path.cwd()
    last = top() or here
    folders = [folder for folder in (here, *here.parents) if folder == last or last in folder.parents]
    for name, read in (("package.json", _json), ("pyproject.toml", _toml)):
        path = next((folder / name for folder in folders if (folder / name).is_file()), None)
        if path is not None:
            yield read(path)


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _toml(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        project = tomllib.loads(path.read_text(encoding="utf-8")).get("project", {})
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(project, dict):
        return {}
    urls = project.get("urls")
    known = {key.lower(): value for key, value in urls.items()} if isinstance(urls, dict) else {}
    return {"name": project.get("name"), "repository": known.get("repository") or known.get("source")}
