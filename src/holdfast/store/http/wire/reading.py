"""What is asked of a store, and what it holds: logs, runs, hooks, timers, children, streams."""

from __future__ import annotations

import msgspec

from holdfast.chunks import Chunk
from holdfast.store.gauge import Gauge
from holdfast.store.rows import (
    ALL,
    Child,
    Head,
    Hook,
    Link,
    OpenStep,
    RunFilter,
    Timer,
)
from holdfast.store.streams import PAGE_CHUNKS, StreamHead

from .events import EventRow


class OfRun(msgspec.Struct, frozen=True):
    """A run by its id."""

    run: str


class ReadLog(msgspec.Struct, frozen=True, omit_defaults=True):
    """The events of a run beyond `after`."""

    run: str
    after: int = 0
    limit: int | None = None


class LogPage(msgspec.Struct):
    """Events; `more` says that the page was cut before what was asked for: read on behind its last one."""

    events: list[EventRow]
    more: bool = False


class HeadOf(msgspec.Struct):
    """A run's row, or none."""

    head: Head | None


class RunPlace(msgspec.Struct, frozen=True, array_like=True):
    """Where a run stands in the list: when it was created (µs since 1970), and its id."""

    created: int
    run: str


class ListRuns(msgspec.Struct, frozen=True, omit_defaults=True):
    """A page of runs, newest first; `before` is (created, run) of the last one of the page before."""

    which: RunFilter = ALL
    before: RunPlace | None = None
    limit: int = 100


class Heads(msgspec.Struct):
    """Rows of runs."""

    heads: list[Head]


class HookPlace(msgspec.Struct, frozen=True, array_like=True):
    """Where a hook stands in the list: its token, and its run."""

    token: str
    run: str


class ListHooks(msgspec.Struct, frozen=True, omit_defaults=True):
    """A page of hooks by (token, run); `after` is that pair of the last one of the page before."""

    run: str | None = None
    token: str | None = None
    open_only: bool = True
    after: HookPlace | None = None
    limit: int = 100


class Hooks(msgspec.Struct):
    """Hooks."""

    hooks: list[Hook]


class ListTimers(msgspec.Struct, frozen=True, omit_defaults=True):
    """Pending timers, the earliest first."""

    run: str | None = None
    limit: int = 100


class Timers(msgspec.Struct):
    """Timers."""

    timers: list[Timer]


class OpenSteps(msgspec.Struct):
    """Steps that owe an outcome."""

    steps: list[OpenStep]


class Children(msgspec.Struct):
    """Child runs whose parent has not heard their end, or has ended itself."""

    children: list[Child]


class Chain(msgspec.Struct):
    """The appends of a run, in order."""

    links: list[Link]


class Strays(msgspec.Struct):
    """Rows that belong to no run, in words."""

    strays: list[str]


class Since(msgspec.Struct, frozen=True):
    """A time, in microseconds since 1970."""

    since: int


class GaugeOf(msgspec.Struct):
    """What a store's rows come to at one moment."""

    gauge: Gauge


class ReadStream(msgspec.Struct, frozen=True, omit_defaults=True):
    """A page of a stream beyond `after`."""

    run: str
    name: str
    after: int = 0
    limit: int = PAGE_CHUNKS


class Chunks(msgspec.Struct):
    """Chunks of a stream."""

    chunks: list[Chunk]


class OfStream(msgspec.Struct, frozen=True):
    """A stream by its run and its name."""

    run: str
    name: str


class StreamOf(msgspec.Struct):
    """A stream's row, or none."""

    stream: StreamHead | None


class Streams(msgspec.Struct):
    """The streams of a run."""

    streams: list[StreamHead]
