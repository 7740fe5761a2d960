"""Events: what a run's log is made of, and `fold`, which turns a log into the state it means.

Every type of event has one *class* (DESIGN: the laws of the log):

- a **fact** reports what happened outside the workflow code; it is delivered to the code;
- a **command** is what the workflow code asked for; on replay it is matched with what the code asks again;
- a **record** is neither: it is there for people, for workers and for proofs.

A *draft* is an event on its way to a store: it has no position, for the store gives that inside the commit.
Its `unique` key is what makes facts and commands idempotent: two drafts with one key are the same thing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from .clock import to_datetime, to_text
from .errors import PayloadError

Class = Literal["fact", "command", "record"]
S = TypeVar("S", bound=msgspec.Struct)
ENDS = frozenset({"run_completed", "run_failed", "run_cancelled"})
"""The types that end a run: after one of them no command is accepted (law L11)."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def load_json(raw: bytes) -> Any:
    """Plain JSON values of a body; lone surrogates, which msgspec refuses, are read as Python wrote them."""
    try:
        return _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return json.loads(raw)


def dump_json(data: object) -> bytes:
    """JSON of plain values, with `msgspec.Raw` parts put in as they are."""
    try:
        return _encode(data)
    except (UnicodeEncodeError, OverflowError):
        return json.dumps(data, default=_raw_to_plain, separators=(",", ":")).encode()


def reader(struct: type[S]) -> Callable[[bytes], S]:
    """A decoder of bodies whose payloads stay JSON text (`msgspec.Raw`), lone surrogates and all."""
    decode = msgspec.json.Decoder(struct).decode
    raw = {field.name for field in msgspec.structs.fields(struct) if field.type is msgspec.Raw}

    def read(body: bytes) -> S:
        try:
            return decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            data = json.loads(body)
            kept = {name: data[name] for name in struct.__struct_fields__ if name in data}
            return struct(**{n: msgspec.Raw(dump_json(v)) if n in raw else v for n, v in kept.items()})

    return read


def _raw_to_plain(value: object) -> object:
    if isinstance(value, msgspec.Raw):
        return json.loads(bytes(value))
    raise TypeError(f"{type(value).__name__} is not a JSON value")


class Event(msgspec.Struct, frozen=True, gc=False):
    """One entry of a log. `body` is the JSON text of `data`; `time` is in microseconds since 1970."""

    run: str
    position: int
    type: str
    key: str
    time: int
    body: bytes

    @property
    def data(self) -> dict[str, Any]:
        """The event's content as plain JSON values."""
        return load_json(self.body)  # type: ignore[no-any-return]

    @property
    def at(self) -> datetime:
        """When the store recorded it (aware, UTC)."""
        return to_datetime(self.time)

    @property
    def cls(self) -> Class:
        """'fact', 'command' or 'record'."""
        if self.type in ENDS and b'"by":' in self.body and "by" in self.data:
            return "record"
        return _SPECS[self.type].cls

    def to_json(self, *, data: bool = True) -> bytes:
        """The exported form: one JSON line without its newline. Without `data`, payloads stay out."""
        line: dict[str, Any] = {
            "run": self.run,
            "position": self.position,
            "type": self.type,
            "at": to_text(self.time),
            "key": self.key,
        }
        if data:
            line["data"] = msgspec.Raw(self.body)
        return dump_json(line)


class Draft(msgspec.Struct, gc=False):
    """An event that is to be appended. `at` is set for facts that were delivered before their commit.

    `value` is what the body decodes to, where whoever made the draft has decoded it already (the result of a
    step that ran in this process); it never leaves the process.
    """

    type: str
    key: str
    data: Mapping[str, Any]
    body: bytes
    cls: Class
    unique: str | None
    at: int | None = None
    value: Any = msgspec.UNSET


class _Spec(msgspec.Struct, frozen=True):
    cls: Class
    unique: Callable[[str, Mapping[str, Any]], str | None]


def _none(_key: str, _data: Mapping[str, Any]) -> None:
    return None


def _fixed(text: str) -> Callable[[str, Mapping[str, Any]], str]:
    return lambda _key, _data: text


def _of(kind: str, suffix: str = "") -> Callable[[str, Mapping[str, Any]], str]:
    return lambda key, _data: f"{kind} {key}{suffix}"


def _attempt(suffix: str) -> Callable[[str, Mapping[str, Any]], str]:
    return lambda key, data: f"step {key} attempt {data.get('attempt', 1)} {suffix}"


def _delivery(key: str, data: Mapping[str, Any]) -> str | None:
    # By token, not by hook: a payload that is sent again after the hook was reopened is still the same one.
    return f"payload {token_of(key)} {data['delivery']}" if "delivery" in data else None


def _woken(_key: str, data: Mapping[str, Any]) -> str | None:
    return f"woken {data['id']}" if "id" in data else None


_SPECS: dict[str, _Spec] = {
    # facts: they report
    "step_completed": _Spec("fact", _attempt("ended")),
    "step_failed": _Spec("fact", _attempt("ended")),
    "timer_fired": _Spec("fact", _of("timer", " fired")),
    "hook_received": _Spec("fact", _delivery),
    "hook_refused": _Spec("fact", _of("hook", " refused")),
    "cancel_requested": _Spec("fact", _fixed("cancel")),
    "woken": _Spec("fact", _woken),
    "child_ended": _Spec("fact", _of("child", " ended")),
    # commands: they ask
    "step_scheduled": _Spec("command", _of("step")),
    "timer_started": _Spec("command", _of("timer")),
    "timer_cancelled": _Spec("command", _of("timer", " cancelled")),
    "hook_opened": _Spec("command", _of("hook")),
    "hook_closed": _Spec("command", _of("hook", " closed")),
    "child_started": _Spec("command", _of("child")),
    "attributes_set": _Spec("command", _of("attributes")),
    "noted": _Spec("command", _of("note")),
    "patched": _Spec("command", _of("patch")),
    "run_completed": _Spec("command", _fixed("end")),
    "run_failed": _Spec("command", _fixed("end")),
    "run_cancelled": _Spec("command", _fixed("end")),
    # records: they document
    "run_created": _Spec("record", _fixed("created")),
    "run_started": _Spec("record", _fixed("started")),
    "step_started": _Spec("record", _attempt("started")),
    "step_retried": _Spec("record", _attempt("ended")),
}
TYPES = frozenset(_SPECS)


def new(type: str, *, key: str = "", data: Mapping[str, Any] | None = None, at: int | None = None) -> Draft:
    """A draft of an event, to be appended to a run's log.

    `data` holds plain JSON values, or `msgspec.Raw` where JSON text is at hand. An end with `by` in its data
    is one that `terminate` or the engine wrote, not the code: it is a record.

    Example:
        await store.append("order-1", [new("step_scheduled", key="charge#1", data={"args": {}})], after=1)

    Raises PayloadError for a type that does not exist.
    """
    spec = _SPECS.get(type)
    if spec is None:
        raise PayloadError(f"event type: expected one of {', '.join(sorted(TYPES))}, got {type!r}")
    if data is None:
        data = {}
    cls = "record" if type in ENDS and "by" in data else spec.cls
    return Draft(type, key, data, dump_json(data), cls, spec.unique(key, data), at)


# ---- what notes hold ----------------------------------------------------------------------------------------

_Words = Annotated[str, Meta(min_length=1)]


class Noted(msgspec.Struct, kw_only=True):
    """The data of a `noted` command: a part of the run's trail (`hf.trail`).

    `kind` is chapter_opened (with `title`), chapter_closed (with `chapter`, and `error` where an exception
    left it), or the type of an event of the trail: note, decision, finding, reflection … (with `content`).
    `chapter` is the key of the `noted` that opened the chapter it belongs to (of a chapter_opened: the one
    around it), `branch` the number of the task that said it, where it is not the main one.
    """

    kind: _Words
    chapter: Annotated[str, Meta(pattern="^note#[0-9]+$")] | None = None
    branch: int | None = None
    agent: _Words | None = None
    title: _Words | None = None
    content: _Words | None = None
    significance: Literal["low", "medium", "high", "critical"] | None = None
    tags: list[str] = []
    confidence: Annotated[float, Meta(ge=0, le=1)] | None = None
    occurred_at: str | None = None
    raw: Any = None
    error: dict[str, Any] | None = None


_NEEDS = {"chapter_opened": "title", "chapter_closed": "chapter"}


def check_noted(data: Mapping[str, Any]) -> Noted:
    """The data of a `noted` command, typed. Raises PayloadError: expected, got and path."""
    try:
        noted = msgspec.convert(data, Noted)
    except msgspec.ValidationError as error:
        raise PayloadError(f"note: {str(error)[:1].lower()}{str(error)[1:]}") from None
    needed = _NEEDS.get(noted.kind, "content")
    if getattr(noted, needed) is None:
        raise PayloadError(f"note: expected {needed} for a {noted.kind}, got none")
    return noted


# ---- keys ---------------------------------------------------------------------------------------------------


def numbered(name: str, ordinal: int) -> str:
    """The key of the nth command of one kind and name: 'charge#2'."""
    return f"{name}#{ordinal}"


def name_of(key: str) -> str:
    """The name in a key: 'charge' of 'charge#2'."""
    return key.rpartition("#")[0]


token_of = name_of
"""A hook's name is its token."""


# ---- what a log means ---------------------------------------------------------------------------------------


class StepState(msgspec.Struct):
    """A step as the log tells it. `status`: scheduled, running, waiting (for a retry), completed, failed."""

    key: str
    scheduled: int
    status: str = "scheduled"
    attempt: int = 0
    due: int | None = None
    started: int | None = None
    ended: int | None = None
    worker: str | None = None
    error: dict[str, Any] | None = None
    late: int = 0

    @property
    def open(self) -> bool:
        """Whether its outcome is still to come."""
        return self.ended is None


class TimerState(msgspec.Struct):
    """A durable sleep. `status`: pending, fired, cancelled."""

    key: str
    due: int
    started: int
    status: str = "pending"


class HookState(msgspec.Struct):
    """A hook. `status`: open, closed, refused, run_ended."""

    key: str
    token: str
    opened: int
    status: str = "open"
    received: int = 0
    metadata: Any = None
    owner: str | None = None


class RunState(msgspec.Struct):
    """What a log means: made by `fold`, compared with the projections by `verify`."""

    run: str
    workflow: str = ""
    status: str = "pending"
    created: int = 0
    started: int | None = None
    ended: int | None = None
    version: str | None = None
    origin: str | None = None
    cancel: str | None = None
    error: dict[str, Any] | None = None
    attributes: dict[str, str] = {}
    steps: dict[str, StepState] = {}
    timers: dict[str, TimerState] = {}
    hooks: dict[str, HookState] = {}
    left_open: list[str] = []
    received: int = 0
    read: int = 0
    head: int = 0
    command: int = 0
    fact: int = 0

    @property
    def open_steps(self) -> int:
        """How many steps still owe an outcome."""
        return 0 if self.ended else sum(step.open for step in self.steps.values())

    @property
    def unread(self) -> int | None:
        """How many payloads came and were not read; None while the run goes on."""
        return None if self.ended is None else self.received - self.read

    @property
    def pending_timers(self) -> int:
        """How many timers are still to fire."""
        return 0 if self.ended else sum(t.status == "pending" for t in self.timers.values())


def fold(events: Iterable[Event], state: RunState | None = None) -> RunState:
    """The state that a log means. Linear; knows nothing of code, store or clock.

    With `state`, which the events before these came to, it goes on from there (and changes it).

    Example:
        state = fold(await store.read("order-1"))
        state.status, state.steps["charge#1"].attempt
    """
    if state is None:
        state = RunState("")
    for event in events:
        state.run = event.run
        state.head = event.position
        cls = event.cls
        if cls == "command":
            state.command = event.position
        elif cls == "fact":
            state.fact = event.position
        _FOLDS[event.type](state, event)
    return state


def _fold_created(state: RunState, event: Event) -> None:
    data = event.data
    state.workflow = data.get("workflow", "")
    state.version = data.get("version")
    state.origin = data.get("origin")
    state.created = event.time
    state.attributes.update(data.get("attributes") or {})


def _fold_run_started(state: RunState, event: Event) -> None:
    state.status, state.started = "running", event.time


def _fold_end(state: RunState, event: Event) -> None:
    data = event.data
    state.status = event.type.removeprefix("run_")
    state.ended = event.time
    state.error = data.get("error")
    state.left_open = list(data.get("open") or ())
    state.read = data.get("read", 0)
    for hook in state.hooks.values():
        if hook.status == "open":
            hook.status = "run_ended"


def _fold_cancel(state: RunState, event: Event) -> None:
    state.cancel = event.data.get("reason") or ""


def _fold_scheduled(state: RunState, event: Event) -> None:
    state.steps[event.key] = StepState(event.key, event.time)


def _fold_step_started(state: RunState, event: Event) -> None:
    data, step = event.data, state.steps[event.key]
    attempt = data.get("attempt", 1)
    if step.open and attempt >= step.attempt:
        step.status, step.attempt, step.due = "running", attempt, None
    step.worker = data.get("worker")
    step.started = step.started or event.time


def _fold_step_retried(state: RunState, event: Event) -> None:
    data, step = event.data, state.steps[event.key]
    attempt = data.get("attempt", 1)
    if step.open and attempt >= step.attempt:  # an attempt given up long ago changes nothing
        step.status, step.due, step.attempt = "waiting", data.get("due"), attempt
    step.error = data.get("error")


def _fold_step_ended(state: RunState, event: Event) -> None:
    data, step = event.data, state.steps[event.key]
    if not step.open:
        step.late += 1
        return
    step.status = event.type.removeprefix("step_")
    step.ended, step.due, step.attempt = event.time, None, data.get("attempt", 1)
    step.error = data.get("error")


def _fold_timer_started(state: RunState, event: Event) -> None:
    state.timers[event.key] = TimerState(event.key, event.data.get("due", 0), event.time)


def _fold_timer_ended(state: RunState, event: Event) -> None:
    timer = state.timers[event.key]
    if timer.status == "pending":
        timer.status = event.type.removeprefix("timer_")


def _fold_hook_opened(state: RunState, event: Event) -> None:
    token, metadata = token_of(event.key), event.data.get("metadata")
    state.hooks[event.key] = HookState(event.key, token, event.time, metadata=metadata)


def _fold_hook_closed(state: RunState, event: Event) -> None:
    hook = state.hooks[event.key]
    if hook.status == "open":
        hook.status = "closed"


def _fold_hook_refused(state: RunState, event: Event) -> None:
    hook = state.hooks[event.key]
    hook.status, hook.owner = "refused", event.data.get("owner")


def _fold_hook_received(state: RunState, event: Event) -> None:
    state.hooks[event.key].received += 1
    state.received += 1


def _fold_attributes(state: RunState, event: Event) -> None:
    for name, value in event.data["attributes"].items():
        if value is None:
            state.attributes.pop(name, None)
        else:
            state.attributes[name] = value


def _fold_nothing(_state: RunState, _event: Event) -> None:
    """Nothing that a projection holds."""


_FOLDS: dict[str, Callable[[RunState, Event], None]] = {
    "run_created": _fold_created,
    "run_started": _fold_run_started,
    "run_completed": _fold_end,
    "run_failed": _fold_end,
    "run_cancelled": _fold_end,
    "cancel_requested": _fold_cancel,
    "step_scheduled": _fold_scheduled,
    "step_started": _fold_step_started,
    "step_retried": _fold_step_retried,
    "step_completed": _fold_step_ended,
    "step_failed": _fold_step_ended,
    "timer_started": _fold_timer_started,
    "timer_fired": _fold_timer_ended,
    "timer_cancelled": _fold_timer_ended,
    "hook_opened": _fold_hook_opened,
    "hook_closed": _fold_hook_closed,
    "hook_refused": _fold_hook_refused,
    "hook_received": _fold_hook_received,
    "attributes_set": _fold_attributes,
    "child_started": _fold_nothing,
    "child_ended": _fold_nothing,
    "woken": _fold_nothing,
    "noted": _fold_nothing,
    "patched": _fold_nothing,
}
