"""Whose work something in a run was: the chapter that an event of its log belongs to.

A command says in which task it was asked for (its branch; the main one is 0) and which chapter was around it.
Where that chapter was opened by this very task, it is the one. Else the task works beside others that share the
chapter, and has one of its own inside it, one for each agent that speaks there. So what happens side by side is
never told as one story, and nothing is credited to a chapter only because it was the last one opened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

MakeId = Callable[..., str]


class Place(NamedTuple):
    """Where in the code something was asked for: the task, and the key of the `noted` that opened the chapter."""

    branch: int = 0
    chapter: str | None = None


MAIN = Place()


class Chapter(NamedTuple):
    """A chapter of the trail: its id, its agent, the task that opened it, and the chapter around ('' for none)."""

    id: str
    title: str
    agent: str
    branch: int
    parent: str


class Chapters:
    """The chapters of one run. `make_id` derives an id from its parts."""

    def __init__(self, workflow: str, make_id: MakeId, time: int) -> None:
        self._make_id = make_id
        self._opened: dict[str, Chapter] = {}
        self._own: dict[tuple[int, str | None, str], Chapter] = {}
        self._parents: dict[str, str] = {}
        self._last: dict[str, int] = {}
        root = Chapter(make_id("chap", "branch 0", "", workflow), workflow, workflow, 0, "")
        self.root = self._own[0, None, workflow] = root
        self._last[root.id] = time

    def place(self, data: Mapping[str, Any]) -> Place:
        """Where a command was asked for; logs of old runs do not tell, and all is the main task's there."""
        branch, chapter = data.get("branch"), data.get("chapter")
        known = isinstance(chapter, str) and chapter in self._opened
        return Place(branch if isinstance(branch, int) else 0, chapter if known else None)

    def open(self, key: str, title: str, agent: str | None, place: Place, time: int) -> Chapter:
        """The code opens a chapter."""
        around = self._around(place)
        inside = around
        if around is None or around.branch != place.branch:
            inside = next((own for key, own in self._own.items() if key[:2] == place), around)
        who = agent or (around.agent if around is not None else self.root.agent)
        parent = inside if inside is not None else self.root
        chapter = Chapter(self._make_id("chap", key), title, who, place.branch, parent.id)
        self._opened[key] = self._made(chapter, time)
        return chapter

    def opened(self, key: str | None) -> Chapter | None:
        """The chapter that the `noted` of this key opened."""
        return self._opened.get(key or "")

    def of(self, place: Place, agent: str | None, title: str, time: int) -> tuple[Chapter, bool]:
        """The chapter of a place, and whether it is new: then it has this title."""
        around = self._around(place)
        if around is not None and around.branch == place.branch:
            return around, False
        who = agent or (around.agent if around is not None else self.root.agent)
        key = (place.branch, place.chapter, who)
        known = self._own.get(key)
        if known is not None:
            return known, False
        own = Chapter(
            self._make_id("chap", f"branch {place.branch}", place.chapter or "", who),
            who if place == MAIN else title,
            who,
            place.branch,
            around.id if around is not None else self.root.id,
        )
        self._own[key] = self._made(own, time)
        return own, True

    def touch(self, chapter: str, time: int) -> None:
        """Something happens in a chapter, and so in those around it."""
        while chapter:
            self._last[chapter] = time
            chapter = self._parents.get(chapter, "")

    def left(self) -> list[tuple[Chapter, int]]:
        """The tasks' own chapters, and when they were last heard of: nothing says when a task is over."""
        return [(own, self._last[own.id]) for own in self._own.values() if own is not self.root]

    def _around(self, place: Place) -> Chapter | None:
        return self._opened.get(place.chapter or "")

    def _made(self, chapter: Chapter, time: int) -> Chapter:
        self._parents[chapter.id] = chapter.parent
        self.touch(chapter.id, time)
        return chapter
