"""What goes over the wire between `holdfast serve` and the store of `holdfast.connect("http://…")`.

Both sides use these types, and the OpenAPI document is made from them. Events and drafts are arrays, for they
come by the thousand; their bodies are JSON *text*, not JSON, so that each byte arrives as it was written: the
hash of a log is over those bytes (law L13), and not every JSON text that Python writes is one that others read
(lone surrogates).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec

from holdfast.chunks import Chunk, Kind, Part
from holdfast.errors import HoldfastError, InvalidAppend, PayloadError, StoreError
from holdfast.events import Draft, Event, load_json, new
from holdfast.queues import Queue
from holdfast.store.gauge import Gauge
from holdfast.store.messages import Append, Appended, News
from holdfast.store.queued import QueueRow, Waiting
from holdfast.store.rows import (
    ALL,
    Child,
    Claim,
    Head,
    Hook,
    Link,
    OpenStep,
    RunFilter,
    ScheduleRow,
    Timer,
    WorkerRow,
)
from holdfast.store.streams import PAGE_CHUNKS, Author, StreamHead, Write, Written

T = TypeVar("T")

_encode = msgspec.json.Encoder().encode


def encode(value: object) -> bytes:
    """JSON of a struct or of plain values, lone surrogates and all."""
    try:
        return _encode(value)
    except (UnicodeEncodeError, OverflowError):
        return json.dumps(msgspec.to_builtins(value), separators=(",", ":")).encode()


def decoder(type: type[T]) -> Callable[[bytes], T]:
    """The reverse, checked against a type. Raises PayloadError: expected, got and path."""
    decode = msgspec.json.Decoder(type).decode

    def read(raw: bytes) -> T:
        try:
            return decode(raw)
        except msgspec.ValidationError as error:
            raise PayloadError(str(error)) from None
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
        try:
            return msgspec.convert(json.loads(raw), type)
        except (ValueError, RecursionError) as error:
            raise PayloadError(f"expected JSON: {error}") from None

    return read


# ---- events and drafts --------------------------------------------------------------------------------------


class EventRow(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An event of the log that the message is about: position, type, key, time (µs since 1970), body."""

    position: int
    type: str
    key: str
    time: int
    body: str


class DraftRow(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An event on its way: type, key, body (the JSON text of its data), and `at` of an early fact."""

    type: str
    key: str
    body: str
    at: int | None = None


def event_rows(events: Iterable[Event]) -> list[EventRow]:
    """Events as they travel."""
    return [EventRow(e.position, e.type, e.key, e.time, e.body.decode()) for e in events]


def events_of(run: str, rows: Iterable[EventRow]) -> list[Event]:
    """The reverse."""
    return [Event(run, row.position, row.type, row.key, row.time, row.body.encode()) for row in rows]


def _draft(row: DraftRow) -> Draft:
    """The draft that was sent, with the very body. Raises PayloadError."""
    try:
        body = row.body.encode()
        data = load_json(body)
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"{row.type} {row.key}: its body is no JSON: {error}") from None
    if not isinstance(data, dict) or b"\n" in body:
        raise PayloadError(f"{row.type} {row.key}: expected a JSON object on one line as its body")
    draft = new(row.type, key=row.key, data=data, at=row.at)
    draft.body = body
    return draft


# ---- appending ----------------------------------------------------------------------------------------------


class AppendRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """One append: see `Store.append`. With `token`, a payload for the run that has this hook open."""

    run: str
    drafts: list[DraftRow]
    batch: str
    after: int | None = None
    owner: str | None = None
    token: str | None = None


def append_row(request: Append) -> AppendRow:
    """An append as it travels."""
    drafts = [DraftRow(d.type, d.key, d.body.decode(), d.at) for d in request.drafts]
    return AppendRow(request.run, drafts, request.batch, request.after, request.owner, request.token)


def append_of(row: AppendRow, answer: Callable[[Appended | BaseException], None]) -> Append:
    """The reverse. Raises PayloadError and InvalidAppend."""
    if not row.drafts:
        raise InvalidAppend(f"an append to {row.run} without events says nothing")
    if row.token is not None and [draft.type for draft in row.drafts] != ["hook_received"]:
        raise InvalidAppend("an append to a token is one hook_received")
    drafts = [_draft(draft) for draft in row.drafts]
    return Append(row.run, drafts, row.after, row.batch, answer, owner=row.owner, token=row.token)


class Problem(msgspec.Struct, omit_defaults=True):
    """Every error: its stable code, a sentence for people, and what else belongs to it.

    `missed` are the events that a stale decider has not read, `recorded` the positions of what was kept all the
    same, `reason` why there is no such hook, `owner` the run that holds a token, `retry_after` seconds,
    `run` whose events those are, or which run goes on as another.
    """

    code: str
    message: str
    run: str | None = None
    missed: list[EventRow] = []
    recorded: list[int] = []
    position: int | None = None
    reason: str | None = None
    owner: str | None = None
    retry_after: float | None = None


class Taken(msgspec.Struct, omit_defaults=True):
    """An accepted append: see `holdfast.store.Appended`. `duplicate`: all of it was there already."""

    run: str
    first: int
    last: int
    missed: list[EventRow] = []
    duplicates: list[int] = []
    doubles: list[str] = []
    duplicate: bool = False


def taken_row(answer: Appended, run: str) -> Taken:
    """An answer as it travels."""
    return Taken(
        answer.run or run,
        answer.first,
        answer.last,
        event_rows(answer.missed),
        answer.duplicates,
        answer.doubles,
        duplicate=bool(answer.duplicates) and answer.first in answer.duplicates,
    )


class PartRow(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A chunk on its way: kind, body (base64), key."""

    kind: Kind
    body: bytes = b""
    key: str | None = None


class WriteStream(msgspec.Struct, frozen=True, omit_defaults=True):
    """Chunks for one stream, all or nothing: see `Store.write_stream`."""

    run: str
    name: str
    parts: list[PartRow]
    batch: str
    author: Author | None = None
    limit: int | None = None


def write_row(write: Write) -> WriteStream:
    """Chunks as they travel."""
    parts = [PartRow(part.kind, part.body, part.key) for part in write.parts]
    return WriteStream(write.run, write.name, parts, write.batch, write.author, write.limit)


def parts_of(row: WriteStream) -> list[Part]:
    """The chunks that were sent."""
    return [Part(part.kind, part.body, part.key) for part in row.parts]


class Outcome(msgspec.Struct, omit_defaults=True):
    """What one item of a group came to: the status that it would have alone, and what it was answered."""

    status: int
    taken: Taken | None = None
    written: Written | None = None
    problem: Problem | None = None


class WriteGroup(msgspec.Struct, omit_defaults=True):
    """Appends to logs and to streams that are committed together; each has its own outcome."""

    appends: list[AppendRow] = []
    chunks: list[WriteStream] = []


class Outcomes(msgspec.Struct):
    """One outcome for each append, then one for each write of chunks, in order."""

    outcomes: list[Outcome]


def answer_of(outcome: Outcome) -> Appended | Written | BaseException:
    """What the store would have answered."""
    if outcome.written is not None:
        return outcome.written
    taken = outcome.taken
    if taken is not None:
        missed = events_of(taken.run, taken.missed)
        return Appended(taken.first, taken.last, missed, taken.duplicates, taken.run, taken.doubles)
    if outcome.problem is not None:
        return error_of(outcome.problem)
    return StoreError("the server answered with neither an outcome nor a problem")


# ---- errors -------------------------------------------------------------------------------------------------


def problem_of(error: HoldfastError) -> Problem:
    """An error as it travels: by its code and its fields, never by its text."""
    problem = Problem(error.code, str(error))
    for name, value in vars(error).items():
        if name == "missed":
            problem.missed = event_rows(value)
            problem.run = value[0].run if value else None
        elif name in Problem.__struct_fields__ and name not in ("code", "message"):
            setattr(problem, name, value)
    return problem


def error_of(problem: Problem) -> HoldfastError:
    """The error that the server met, of the same class; StoreError for a code that is not known here."""
    kind = _classes().get(problem.code, StoreError)
    error = kind.__new__(kind)
    HoldfastError.__init__(error, problem.message)
    fields = _FIELDS.get(problem.code, ())
    for name in fields:
        value: Any = getattr(problem, name)
        setattr(error, name, events_of(problem.run or "", value) if name == "missed" else value)
    return error


_FIELDS = {
    "stale_log": ("missed", "recorded", "position"),
    "run_ended": ("recorded",),
    "hook_not_found": ("reason",),
    "hook_taken": ("owner",),
    "run_continued": ("run",),
}


def _classes() -> dict[str, type[HoldfastError]]:
    if not _known:
        waiting: list[type[HoldfastError]] = [HoldfastError]
        while waiting:
            kind = waiting.pop()
            _known.setdefault(kind.code, kind)
            waiting += kind.__subclasses__()
    return _known


_known: dict[str, type[HoldfastError]] = {}


# ---- streams ------------------------------------------------------------------------------------------------


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


# ---- the other operations of the contract -------------------------------------------------------------------


class OfRun(msgspec.Struct, frozen=True):
    """A run by its id."""

    run: str


class OfWorker(msgspec.Struct, frozen=True):
    """A worker by its id."""

    worker: str


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


class ListOrphans(msgspec.Struct, frozen=True, omit_defaults=True):
    """How many orphans at most."""

    limit: int = 100


class OfChild(msgspec.Struct, frozen=True):
    """A child by its parent and its key there."""

    run: str
    key: str


class Chain(msgspec.Struct):
    """The appends of a run, in order."""

    links: list[Link]


class Strays(msgspec.Struct):
    """Rows that belong to no run, in words."""

    strays: list[str]


class Enlist(msgspec.Struct, frozen=True):
    """A worker's sign of life. `known`: it has enlisted before. Its `session` is that of its news stream."""

    worker: WorkerRow
    session: str
    known: bool = False


class Workers(msgspec.Struct):
    """Workers that have not left."""

    workers: list[WorkerRow]


class Discharge(msgspec.Struct, frozen=True):
    """A worker is gone."""

    worker: str


class ClaimRuns(msgspec.Struct, frozen=True, omit_defaults=True):
    """Free runs of these workflows, for a worker."""

    worker: str
    workflows: list[str]
    limit: int = 100
    parked: bool = False


class Claims(msgspec.Struct):
    """Runs that a worker has been given."""

    claims: list[Claim]


class Release(msgspec.Struct, frozen=True):
    """Runs that a worker gives back, each with the position up to which it delivered every fact."""

    worker: str
    marks: dict[str, int]


class Park(msgspec.Struct, frozen=True):
    """Set a run aside with a reason (JSON text), or take it up again with none."""

    run: str
    reason: str | None = None


class Crashes(msgspec.Struct):
    """How often the ticks of a run have crashed in a row."""

    count: int


class LastFact(msgspec.Struct, frozen=True, array_like=True):
    """A run, and the position of its last fact."""

    run: str
    fact: int


class Behind(msgspec.Struct):
    """Runs with facts beyond their delivered mark."""

    runs: list[LastFact]


class TakeSteps(msgspec.Struct, frozen=True):
    """Steps that wait in these queues, for a worker that knows these steps and has room for so many."""

    worker: str
    queues: list[Queue]
    steps: list[str]
    room: int


class StepsTaken(msgspec.Struct, omit_defaults=True):
    """Queued steps that a worker has; `again` is when to ask again (µs), where time alone forbids more."""

    steps: list[Waiting]
    again: int | None = None


class PutBack(msgspec.Struct, frozen=True):
    """Steps (run, key) that a worker has taken and not begun."""

    worker: str
    steps: list[tuple[str, str]]


class QueueRows(msgspec.Struct):
    """Queues in which steps wait or run."""

    queues: list[QueueRow]


class ScheduleRows(msgspec.Struct):
    """Schedules, by workflow."""

    schedules: list[ScheduleRow]


class SwapSchedule(msgspec.Struct, frozen=True):
    """One schedule in the place of another, of the same workflow; null is none."""

    was: ScheduleRow | None
    now: ScheduleRow | None


class Swapped(msgspec.Struct):
    """Whether it was done: another row may stand there."""

    done: bool


class RemoveRuns(msgspec.Struct, frozen=True, omit_defaults=True):
    """Runs to be removed if they ended before a time (µs since 1970); with `dry`, only what would be."""

    runs: list[str]
    ended_before: int
    dry: bool = False


class Done(msgspec.Struct):
    """It is done, and there is nothing to say."""


NewsRow = tuple[str, str | None, bool, bool, bool, str | None, str | None]
"""run, owner, fact, ended, ready, stream, queue: what a commit changed."""


def news_row(item: News) -> NewsRow:
    """News as they travel."""
    return (item.run, item.owner, item.fact, item.ended, item.ready, item.stream, item.queue)


class Since(msgspec.Struct, frozen=True):
    """A time, in microseconds since 1970."""

    since: int


class GaugeOf(msgspec.Struct):
    """What a store's rows come to at one moment."""

    gauge: Gauge
