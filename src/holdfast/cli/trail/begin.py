"""`start`, `resume`: beginning a trail, and going on with one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..problem import NO, Problem
from .call import SESSION, Call, given
from .words import Argument, Option, command

if TYPE_CHECKING:
    from ...trail.model import Summary


@command(
    Argument("TITLE", "What the work is about, in 1 to 500 characters; `-` reads it from stdin."),
    Option("--description", "TEXT", "More about the task."),
    Option("-t --task", "ID", "The task's id in an issue tracker."),
    Option("-s --source", "SYSTEM", "Which tracker: beads, github, linear, jira, plain or another."),
    Option("--url", "URL", "Where the task can be read."),
    Option("-a --agent", "NAME", "Who leads it. Without it: $TRAJECTORIES_AGENT, else 'default'."),
    SESSION,
    Option(
        "-p --project", "ID", "Without it: $TRAJECTORIES_PROJECT, else as git or a project file names it."
    ),
    Option("-w --workflow", "ID", "Joins the trails of one workflow. Without it: $TRAJECTORIES_WORKFLOW_ID."),
    Option("--tag", "TAG", "May be given several times.", many=True),
    Option("-q --quiet", "", "Print the id alone."),
    examples=["start 'Fix the login' --agent ana", "start 'Fix the login' -t ENG-1 -s linear"],
    codes={
        0: "it is started and in index.json",
        1: "as `trail start`: this agent has an active one in this work tree",
        2: "cannot: no title, or a folder that cannot be written",
    },
)
def start(
    call: Call,
    title: str,
    description: str | None = None,
    task: str | None = None,
    source: str | None = None,
    url: str | None = None,
    project: str | None = None,
    workflow: str | None = None,
    tag: list[str] | None = None,
    quiet: bool = False,
) -> int:
    """Start a trail, and print its id.

    Any number may be active. What the same session, agent or git work tree tells goes to it from then on; with
    several, commands say which with --id.
    """
    from .which import forget

    text = given(title)
    if not text.strip():
        raise Problem("a title is required: what is the work about?" if not call.program.npm else _NO_TITLE)
    with _alone(call) if call.program.npm else _anyhow():
        made = call.folder.start(
            text,
            agent=call.caller.agent,
            description=description,
            source=_source(task, source, url),
            tags=tag or (),
            project_id=project or os.environ.get("TRAJECTORIES_PROJECT") or _project(),
            workflow_id=workflow,
            start_ref=_head(),
            session=call.caller.session,
            worktree=call.caller.worktree,
        )
        forget(call)
    trail = call.folder.load(made.id)
    if quiet and not call.json:
        from .. import output

        output.data(trail.id)
        return 0
    return call.answer(_as_json(call, made.id), trail.id)


_NO_TITLE = "trajectory title is required"


def _as_json(call: Call, trail_id: str) -> dict[str, Any]:
    from ...trail.record import to_record

    record = to_record(call.folder.load(trail_id))
    kept = ("id", "task", "status", "startedAt", "projectId", "workflowId", "tags", "session", "worktree")
    return {
        **{key: record[key] for key in kept if key in record},
        "title": record["task"]["title"],
        "agent": record["agents"][0]["name"] if record["agents"] else None,
    }


def _source(task: str | None, system: str | None, url: str | None) -> Mapping[str, str] | None:
    if task is None and url is None:
        if system is not None:
            raise Problem(f"--source {system} says where a task is; which one? --task ID, or --url URL")
        return None
    found = {"system": system or "plain", "id": task or url or "", "url": url or ""}
    return {key: value for key, value in found.items() if value}


def _head() -> str | None:
    from .git import head

    return head()


def _project() -> str | None:
    from .project import project_id

    return project_id()


@contextmanager
def _alone(call: Call) -> Iterator[None]:
    """As the npm tool's users know it: one active trail at a time, but of each agent and work tree."""
    from ...trail.lock import locked
    from .which import in_the_way

    call.folder.files.places.create()
    folder = call.folder.root / ".cache"
    folder.mkdir(exist_ok=True)
    with locked(str(folder / "start.lock"), os.O_RDWR | os.O_CREAT):
        other = in_the_way(call)
        if other is not None:
            raise _already(call, other)
        yield


@contextmanager
def _anyhow() -> Iterator[None]:
    yield


def _already(call: Call, other: Summary) -> Problem:
    return Problem(
        f"trajectory already active: {other.id} ({other.title!r:.60})",
        hint="end it with `trail complete` or `trail abandon`; to have several, give each its agent "
        "(-a NAME or $TRAJECTORIES_AGENT), or use `holdfast trail start`",
        code=NO,
    )


@command(
    Argument("TRAIL", "The trail's id, as `list` shows it."),
    Option("--agent", "NAME", "Who goes on with it. Without it: $TRAJECTORIES_AGENT."),
    SESSION,
    examples=["resume traj_k3j9x0a1b2c3"],
    codes={0: "it is theirs now", 1: "it has ended", 2: "cannot: there is no such trail"},
)
def resume(call: Call, trail: str) -> int:
    """Go on with a trail: the caller writes to it from now on.

    The caller is the session that is named, else the agent, else the git work tree. It is remembered on
    this machine until the trail ends or another is started or resumed.
    """
    from . import which

    call.folder.open(which.known(call.folder, trail))
    level = which.resume(call, trail)
    me = getattr(call.caller, level) if level else None
    words = {"session": "session", "agent": "agent", "worktree": "work tree"}
    whose = f"{words[level]} {me}" if level else "whoever asks here"
    told = {"id": trail, "title": call.folder.load(trail).title, "for": level or None, "name": me}
    return call.answer(told, f"{trail} is what {whose} writes to now")
