"""The events of a step, made straightly: nearly every event of a busy log is one of these.

Each is what `new` makes of the same type, key and data, at a third of the price: the JSON of what is known is
put together instead of written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from .event import Draft, dump_json


def scheduled_body(args: bytes, more: Mapping[str, Any]) -> bytes:
    """The body of a `step_scheduled`: the arguments, and what else its data hold."""
    return dump_json({"args": msgspec.Raw(args), **more}) if more else b'{"args":' + args + b"}"


def step_scheduled(key: str, args: bytes, more: Mapping[str, Any], body: bytes) -> Draft:
    """A step that the code asks for; `body` is `scheduled_body` of the same."""
    return Draft("step_scheduled", key, {"args": msgspec.Raw(args), **more}, body, "command", f"step {key}")


def step_completed(key: str, attempt: int, value: bytes) -> Draft:
    """What an attempt gave."""
    data = {"attempt": attempt, "value": msgspec.Raw(value)}
    body = b'{"attempt":%d,"value":%b}' % (attempt, value)
    return Draft("step_completed", key, data, body, "fact", f"step {key} attempt {attempt} ended")


class FirstStarts:
    """The starts of first attempts by one worker: they differ by their step alone."""

    def __init__(self, worker: str) -> None:
        self._data = {"attempt": 1, "worker": worker}
        self._body = dump_json(self._data)

    def of(self, key: str) -> Draft:
        """The first attempt of this step starts."""
        return Draft("step_started", key, self._data, self._body, "record", f"step {key} attempt 1 started")
