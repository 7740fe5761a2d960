"""`TrailFolder`: the trails of one folder, for any number of writers at once.

Guarantee: what `start`, an event or an end has returned is on the disk and in its journal, and when `start`,
`complete`, `abandon` or `delete` return, index.json says so. `files` tells what that rests on.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..clock import Clock, SystemClock
from ..errors import PayloadError, TrailEnded
from . import entry as line
from . import ids, index, record, retell
from .entry import Entry
from .files import Files, Redact
from .model import Status, Summary, Trail
from .places import Places

if TYPE_CHECKING:
    from .doctor import Reconciled
    from .handle import OpenTrail

Summaries = list[Summary]
"""A list of summaries, for a class that has a method of that name."""


class TrailFolder:
    """A folder of trails: `.trajectories` beside the code, or `$TRAJECTORIES_DATA_DIR`.

    Nothing is created before the first trail. `redact` is applied to all that is written (None: nothing is;
    see `holdfast.trail.redact`). `lock_timeout` is in seconds, `event_limit` in bytes of a journal's line.
    Objects may be shared between threads, and any number of processes may use the folder.

    Example:
        folder = TrailFolder(".trajectories")
        with folder.start("Fix the login", agent="ana") as trail:
            trail.note("It fails for names with a quote")
            trail.complete(summary="Quoted")
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        clock: Clock | None = None,
        redact: Redact | Literal["default"] | None = "default",
        lock_timeout: float = 30.0,
        event_limit: int = 1 << 20,
    ) -> None:
        self.files = Files(
            Places(path),
            clock=clock or SystemClock(),
            redact=_default_redact if redact == "default" else redact,
            lock_timeout=lock_timeout,
            event_limit=event_limit,
        )

    @property
    def root(self) -> Path:
        """Where the folder is."""
        return Path(self.files.places.root)

    def __repr__(self) -> str:
        return f"TrailFolder({str(self.root)!r})"

    def start(
        self,
        title: str,
        *,
        agent: str | None = None,
        description: str | None = None,
        source: Mapping[str, str] | None = None,
        tags: Sequence[str] = (),
        project_id: str | None = None,
        workflow_id: str | None = None,
        start_ref: str | None = None,
        session: str | None = None,
        worktree: str | None = None,
    ) -> OpenTrail:
        """Start a trail; as a context manager, it is abandoned by an exception that leaves the block.

        `title` has 1 to 500 characters. `source` is where the task comes from: {"system": "linear",
        "id": "ENG-1", "url": …}. `agent` defaults to $TRAJECTORIES_AGENT; `session` and `worktree` help to
        find the trail again. Raises PayloadError for values of a wrong shape, TrailError where the folder
        cannot be written.
        """
        from .handle import OpenTrail

        trail_id = ids.trail_id()
        given: dict[str, Any] = {
            "title": title,
            "description": description,
            "source": dict(source) if source is not None else None,
            "tags": list(tags) or None,
            "projectId": project_id or os.environ.get("TRAJECTORIES_PROJECT") or None,
            "workflowId": workflow_id or os.environ.get("TRAJECTORIES_WORKFLOW_ID") or None,
            "session": session,
            "worktree": worktree,
            "_trace": {"startRef": start_ref} if start_ref else None,
        }
        data = {key: value for key, value in given.items() if value is not None}
        who = agent or os.environ.get("TRAJECTORIES_AGENT") or "default"
        first = line.new(ids.event_id(), "trail_started", data, occurred_at=self.now(), agent=who)
        self.files.start(trail_id, self.files.ready(first, trail_id))
        return OpenTrail(self, trail_id, who)

    def open(self, trail_id: str, *, late: bool = False, agent: str | None = None) -> OpenTrail:
        """A handle to go on writing. `late` opens an ended trail too: what it is told then is marked `late`.

        Raises TrailIdError, TrailNotFound, TrailEnded.

        Example:
            folder.open("traj_abc").note("Found again")
        """
        from .handle import OpenTrail

        if self.files.found(trail_id).records:
            self.files.adopt(trail_id)
        trail = self.load(trail_id)
        if trail.status != "active" and not late:
            raise TrailEnded(
                f"{trail_id} is {trail.status}: an end stands; open(…, late=True) adds to it as a late event"
            )
        lead = trail.agents[0].name if trail.agents else "default"
        who = agent or os.environ.get("TRAJECTORIES_AGENT") or lead
        return OpenTrail(self, trail_id, who, named=agent is not None)

    def delete(self, trail_id: str) -> None:
        """Remove a trail and all its files, for good. Raises TrailIdError, TrailNotFound."""
        self.files.remove(trail_id)

    def absorb(self, trail_id: str, entries: Iterable[Entry], *, derive: bool = True) -> int:
        """Take entries that were made elsewhere into a trail: the union of both, by the entries' ids.

        The trail is created where there is none, and moved where the entries end it; how many were new is the
        answer. With `derive=False` the record and the page of a trail that goes on are left for later.
        """
        added, moved = self.files.absorb(trail_id, entries)
        if moved or (added and derive):
            self.files.refresh([trail_id])
        return added

    def settle(self, trail_id: str) -> None:
        """Write a trail's record and page anew. Raises TrailIdError, TrailNotFound."""
        self.files.found(trail_id)
        self.files.refresh([trail_id])

    def load(self, trail_id: str) -> Trail:
        """The whole record of a trail. Raises TrailIdError, TrailNotFound, TrailBroken."""
        return retell.tell(trail_id, self.entries(trail_id))

    def entries(self, trail_id: str) -> list[Entry]:
        """The lines of a trail's journal, in order; another tool's record is told as such lines."""
        return self.files.lines(trail_id)

    def list(
        self,
        status: Status | None = None,
        limit: int | None = None,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Summaries:
        """What trails there are, the newest first; `since` and `until` bound when they started.

        Example:
            for trail in folder.list(status="active", limit=20):
                print(trail.id, trail.title)
        """
        if status not in (None, "active", "completed", "abandoned"):
            raise PayloadError(f"status: expected active, completed or abandoned, got {status!r}")
        entries = self.files.indexed()
        chosen = [(e.started_at, trail_id) for trail_id, e in entries.items() if status in (None, e.status)]
        if since is not None or until is not None:
            chosen = [item for item in chosen if _within(record.moment(item[0]), since, until)]
        chosen.sort(reverse=True)
        return [index.summary(trail_id, entries[trail_id]) for _, trail_id in chosen[:limit]]

    def search(self, text: str, limit: int | None = None) -> Summaries:
        """The trails that hold all these whole words, in whatever place; the best match first.

        Example:
            folder.search("login token")
        """
        from .search import search

        return search(self, text, limit)

    def reconcile(self) -> Reconciled:
        """Read every file again, put the index right, and count what was there."""
        from .doctor import reconcile

        return reconcile(self)

    def now(self) -> int:
        """The folder's clock: microseconds since 1970."""
        return self.files.clock.now()


def _within(when: datetime, since: datetime | None, until: datetime | None) -> bool:
    return (since is None or when >= since) and (until is None or when <= until)


def _default_redact(data: Any) -> Any:
    from .redact import redact

    return redact(data)
