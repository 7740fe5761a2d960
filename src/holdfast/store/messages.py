"""What is asked of a store and what it tells: appends, their answers, news."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter

import msgspec

from ..events import Draft, Event
from .queued import Queued


class Append(msgspec.Struct):
    """One append on its way: `answer` is called once, on the loop, with the result or the error.

    `after` is the fence (law L4), None for facts and records from outside. `batch` is made before the first
    send and stays the same when it is sent again (law L12). `owner` becomes the run's owner where the append
    creates the run. With `token`, run and key are looked up in the transaction (a payload for a hook).
    """

    run: str
    drafts: Sequence[Draft]
    after: int | None
    batch: str
    answer: Callable[[Appended | BaseException], None]
    owner: str | None = None
    token: str | None = None


class Appended(msgspec.Struct, frozen=True, gc=False):
    """The answer to an append.

    `first` and `last` are the positions it was given. `missed` are the facts that its writer has not read:
    those between `after` and `first`, and those that the append itself caused (`hook_refused`, right behind
    it); law L5 says they are delivered next. `duplicates` are the positions of facts that were there already;
    where all were, `first` and `last` point at those. `doubles` are the unique keys of those duplicates, so
    that a worker sees which attempt another one has claimed.
    """

    first: int
    last: int
    missed: list[Event] = []
    duplicates: list[int] = []
    run: str = ""
    doubles: list[str] = []


class News(msgspec.Struct, frozen=True):
    """What a commit changed, for those who wait: told in process at once, to other processes after it.

    `stream` names the stream that has grown, `queue` the queue in which there may be steps to take ("": any);
    such news say nothing about the run's log. `end` is the event that ended the run, where its writer is in this
    process: it does not travel.
    """

    run: str
    owner: str | None
    fact: bool
    ended: bool
    ready: bool
    stream: str | None = None
    queue: str | None = None
    end: Event | None = None


NewsRow = tuple[str, str | None, bool, bool, bool, str | None, str | None]
"""run, owner, fact, ended, ready, stream, queue: what a commit changed, as it travels."""
news_row: Callable[[News], NewsRow] = attrgetter("run", "owner", "fact", "ended", "ready", "stream", "queue")
"""News as they travel."""
SOME_QUEUE = News("", None, False, False, False, queue="")
"""There may be steps to take, in whatever queue: places have come free."""


def news_of_queues(run: str, queued: Mapping[str, Queued]) -> list[News]:
    """That steps wait in queues."""
    names = sorted({step.queue for step in queued.values()})
    return [News(run, None, False, False, False, queue=name) for name in names]


Listener = Callable[[Sequence[News]], None]
"""Who is told the news of each commit."""
