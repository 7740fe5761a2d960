"""Events: what a run's log is made of.

Every type of event has one *class* (DESIGN: the laws of the log):

- a **fact** reports what happened outside the workflow code; it is delivered to the code;
- a **command** is what the workflow code asked for; on replay it is matched with what the code asks again;
- a **record** is neither: it is there for people, for workers and for proofs.

A *draft* is an event on its way to a store: it has no position, for the store gives that inside the commit.
Its `unique` key is what makes facts and commands idempotent: two drafts with one key are the same thing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Literal, TypeVar

import msgspec

from ..clock import to_datetime, to_text
from ..errors import PayloadError

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
    "child_cancelled": _Spec("command", _of("child", " cancelled")),
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
ASKED = frozenset(type for type, spec in _SPECS.items() if spec.cls == "command") - ENDS
"""The types that are always commands. (An end may be a record instead, see `new`.)"""
RECORDS = frozenset(type for type, spec in _SPECS.items() if spec.cls == "record") - {"run_created"}
"""The types that are always records, and never delivered."""


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


# ---- keys ---------------------------------------------------------------------------------------------------


def numbered(name: str, ordinal: int) -> str:
    """The key of the nth command of one kind and name: 'charge#2'."""
    return f"{name}#{ordinal}"


def name_of(key: str) -> str:
    """The name in a key: 'charge' of 'charge#2'."""
    return key.rpartition("#")[0]


token_of = name_of
"""A hook's name is its token."""
