"""What tags say of values without parts: times, numbers, bytes and paths as JSON, and the way back."""

from __future__ import annotations

import base64
from collections import OrderedDict, deque
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

import msgspec

from .form import Refused
from .paths import PATH_NAMES, make_path


def _write_datetime(value: datetime) -> str:
    zone = value.tzinfo
    if zone is None or type(zone) is timezone:
        return value.isoformat()
    from zoneinfo import ZoneInfo  # takes 3 ms, and few values have such a time zone

    if type(zone) is ZoneInfo and zone.key:
        return f"{value.isoformat()}[{zone.key}]"
    raise Refused(f"a datetime with the time zone {zone!r}; use datetime.timezone or zoneinfo")


def _read_datetime(text: str) -> datetime:
    text, _, zone = text.rstrip("]").partition("[")
    value = datetime.fromisoformat(text)
    if not zone:
        return value
    from zoneinfo import ZoneInfo  # as above

    local = value.replace(tzinfo=ZoneInfo(zone))
    return local if local.utcoffset() == value.utcoffset() else local.replace(fold=1)


def _write_time(value: time) -> str:
    if value.tzinfo is not None and type(value.tzinfo) is not timezone:
        raise Refused(f"a time with the time zone {value.tzinfo!r}; use datetime.timezone")
    return value.isoformat()


WRITERS: dict[type, Callable[[Any], Any]] = {
    datetime: _write_datetime,
    date: date.isoformat,
    time: _write_time,
    timedelta: msgspec.to_builtins,
    UUID: str,
    Decimal: str,
    bytes: lambda value: base64.b64encode(value).decode(),
    bytearray: lambda value: base64.b64encode(value).decode(),
    complex: lambda value: [repr(value.real), repr(value.imag)],
}
READERS: dict[str, Callable[[Any], Any]] = {
    "int": lambda text: int(text, 16),
    "str": "".join,
    "float": float,
    "datetime": _read_datetime,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "timedelta": lambda text: msgspec.convert(text, timedelta),
    "UUID": UUID,
    "Decimal": Decimal,
    "bytes": base64.b64decode,
    "bytearray": lambda text: bytearray(base64.b64decode(text)),
    "complex": lambda parts: complex(*map(float, parts)),
    "set": set,
    "frozenset": frozenset,
    "tuple": tuple,
    "deque": deque,
    "dict": dict,
    "OrderedDict": OrderedDict,
    **{name: partial(make_path, name) for name in PATH_NAMES},
}
