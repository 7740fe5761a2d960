"""Handles to write with: an open trail and its open chapters. `around` tells which chapter the code is in.

Who tells an event: the agent of the call, else that of the chapter, else that of the handle. A handle that was
opened for an agent by name speaks for that agent in the chapters of others too.

A chapter that was opened without `with` is nobody's surroundings: `chapter.note(…)` writes in it, and so does
`trail.note(…)` outside of every `with` if its agent opened it last. Nothing is ever credited to a chapter
only because it was the last one opened by anybody.
"""

from __future__ import annotations

import os
import threading
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakSet

from ..clock import from_datetime
from ..errors import HoldfastError, PayloadError, TrailEnded
from . import around, ids
from . import entry as line
from .journal import Tail, log
from .telling import Telling, TrailTelling, cause_of, one_line

if TYPE_CHECKING:
    from .folder import TrailFolder

_TOLD = "_holdfast_told"
"""The attribute by which an exception knows the trails in which a chapter has recorded it."""


_handles: WeakSet[OpenTrail] = WeakSet()


def _renew_in_child() -> None:
    # A thread that was writing at a fork is not there to go on: its lock would never be given back.
    for handle in _handles:
        handle._turn, handle._tail = threading.Lock(), Tail()


os.register_at_fork(after_in_child=_renew_in_child)


def current() -> OpenTrail | OpenChapter | None:
    """The innermost `with` block of a trail or chapter around the code that asks."""
    return cast("OpenTrail | OpenChapter | None", around.current())


class Writer(Telling[str]):
    """What can be told to a trail and to a chapter. Each call is on the disk when it returns."""


class OpenTrail(around.Block, TrailTelling[str, None], Writer):
    """A trail to write in. Several handles, in any number of processes, may write in one trail.

    `named` says that the handle was opened for this agent by name. May be shared between threads.
    """

    def __init__(self, folder: TrailFolder, trail_id: str, agent: str, *, named: bool = False) -> None:
        super().__init__((os.path.realpath(folder.root), trail_id), None)
        self.folder = folder
        self.id = trail_id
        self.agent = agent
        self.named = named
        self._tail = Tail()
        self._turn = threading.Lock()
        self._by_hand: dict[OpenChapter, None] = {}
        _handles.add(self)

    def __repr__(self) -> str:
        return f"<trail {self.id} in {self.folder.root}>"

    def chapter(self, title: str, *, agent: str | None = None) -> OpenChapter:
        """Open a chapter, in the one around the code if there is one; `with` makes it current, and closes it.

        Example:
            with trail.chapter("Investigate", agent="ben"):
                trail.note("…")
        """
        return self.open_chapter(self.new_chapter(title, agent, self.surrounding()))

    # ---- in two steps, for `aio`: what needs the caller's context, and what may wait for the disk -----------

    def surrounding(self) -> OpenChapter | None:
        """The chapter of this trail whose block is around the code that asks."""
        block = around.within(self)
        return block if isinstance(block, OpenChapter) else None

    def entry(
        self,
        type: str,
        data: dict[str, Any],
        agent: str | None = None,
        chapter: str | None = None,
        occurred_at: datetime | None = None,
    ) -> line.Entry:
        """An entry of this trail, told now by `agent` (by default, the handle's). Raises PayloadError."""
        who = self.agent if agent is None else agent
        if not isinstance(who, str) or not who:
            raise PayloadError(f"{type}: expected an agent's name, got {who!r:.80}")
        now = self.folder.now()
        try:
            when = from_datetime(occurred_at) if occurred_at is not None else now
        except (AttributeError, TypeError, ValueError) as error:
            raise PayloadError(f"occurred_at: {error}") from None
        return line.new(
            ids.event_id(), type, data, occurred_at=when, recorded_at=now, agent=who, chapter=chapter
        )

    def event_entry(
        self, type: str, data: dict[str, Any], agent: str | None, occurred_at: datetime | None
    ) -> line.Entry:
        """The entry of an event, in the chapter that is the current one of the code that asks."""
        chapter = self.surrounding()
        if chapter is None:
            who = agent or self.agent
            chapter = next((own for own in reversed(list(self._by_hand)) if own.agent == who), None)
        elif chapter.trail is self or not self.named:
            agent = agent or chapter.agent
        return self.entry(type, data, agent, chapter.id if chapter is not None else None, occurred_at)

    def write(self, entry: line.Entry) -> str:
        """Put an entry on the disk; its id."""
        files = self.folder.files
        ready = files.ready(entry, self.id)
        with self._turn:
            files.append(self.id, self._tail, ready)
        return entry.id

    def amend_with(self, entry: line.Entry) -> None:
        """Put an amendment on the disk, and what is derived from it."""
        self.write(entry)
        self.folder.settle(self.id)

    def end_with(self, entry: line.Entry) -> None:
        """End the trail. Raises TrailEnded."""
        files = self.folder.files
        ready = files.ready(entry, self.id)
        with self._turn:
            files.end(self.id, self._tail, ready)

    def settle(self, error: BaseException | None) -> None:
        """Abandon the trail where an exception left its block; else bring what is derived up to date."""
        if error is None:
            self.folder.files.refresh([self.id])
            return
        try:
            try:
                self.abandon(cause=error)
            except TrailEnded:
                self.folder.files.refresh([self.id])  # it ended before the exception came: that end stands
        except HoldfastError as failed:
            log.error("%s could not be abandoned: %s", self.id, failed)

    def new_chapter(self, title: str, agent: str | None, parent: OpenChapter | None) -> OpenChapter:
        """A chapter that is not written yet. Raises PayloadError."""
        if not isinstance(title, str) or not title.strip():
            raise PayloadError(f"chapter: expected a title, got {title!r:.80}")
        whose = parent.agent if parent and (parent.trail is self or not self.named) else self.agent
        return OpenChapter(self, title, agent or whose, parent)

    def open_chapter(self, chapter: OpenChapter) -> OpenChapter:
        """Put the beginning of a chapter on the disk."""
        self.write(chapter.beginning)
        self._by_hand[chapter] = None
        return chapter

    def _record(
        self, type: str, data: dict[str, Any], agent: str | None, occurred_at: datetime | None
    ) -> str:
        return self.write(self.event_entry(type, data, agent, occurred_at))

    def _tell(self, type: str, data: dict[str, Any], agent: str | None = None) -> None:
        self.write(self.entry(type, data, agent))

    def _amend(self, data: dict[str, Any]) -> None:
        self.amend_with(self.entry("trail_amended", data))

    def _end(self, type: str, data: dict[str, Any]) -> None:
        self.end_with(self.entry(type, data))


class OpenChapter(around.Block, Writer):
    """A chapter to write in; `with` makes it the current one and closes it."""

    def __init__(self, trail: OpenTrail, title: str, agent: str, parent: OpenChapter | None) -> None:
        super().__init__(trail.key, parent or trail)
        self.trail = trail
        self.trail_id = trail.id
        self.id = ids.chapter_id()
        self.title = title
        self.agent = agent
        self.parent = parent
        data = {"title": title} | ({"parent": parent.id} if parent is not None else {})
        self.beginning = trail.entry("chapter_opened", data, agent, self.id)
        self._closed = False

    def __repr__(self) -> str:
        return f"<chapter {self.title!r} of {self.trail_id}>"

    def chapter(self, title: str, *, agent: str | None = None) -> OpenChapter:
        """Open a chapter inside this one."""
        return self.trail.open_chapter(self.trail.new_chapter(title, agent, self))

    def close(self) -> None:
        """Say that the chapter is done. Further events of it are kept all the same."""
        if not self._closed:
            self._closed = True
            self.trail._by_hand.pop(self, None)
            self.trail.write(self.trail.entry("chapter_closed", {}, self.agent, self.id))

    # ---- in two steps, for `aio` ----------------------------------------------------------------------------

    def enter(self) -> None:
        """From here on, this code is in the chapter."""
        self.trail._by_hand.pop(self, None)
        super().enter()

    def event_entry(
        self, type: str, data: dict[str, Any], agent: str | None, occurred_at: datetime | None
    ) -> line.Entry:
        """The entry of an event in this chapter."""
        return self.trail.entry(type, data, agent or self.agent, self.id, occurred_at)

    def settle(self, error: BaseException | None) -> None:
        """Record the exception that left the block, if one did, and close the chapter."""
        if error is None or isinstance(
            error, GeneratorExit
        ):  # a generator that was not used up has not failed
            self.close()
            return
        try:
            if self._is_new(error):
                self.error(one_line(error), raw=cause_of(error))
            self.close()
        except HoldfastError as failed:
            log.error("the end of chapter %r of %s was not recorded: %s", self.title, self.trail_id, failed)

    def _is_new(self, error: BaseException) -> bool:
        """Whether no chapter inside this one has recorded the exception."""
        told: tuple[object, ...] = getattr(error, _TOLD, ())
        if self.key in told:
            return False
        try:
            setattr(error, _TOLD, (*told, self.key))
        except AttributeError:
            pass  # it takes no attributes: then the chapter around tells it as well
        return True

    def _record(
        self, type: str, data: dict[str, Any], agent: str | None, occurred_at: datetime | None
    ) -> str:
        return self.trail.write(self.event_entry(type, data, agent, occurred_at))
