"""The events of a step that are made straightly are those that `new` makes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from holdfast.events import Draft, new
from holdfast.events.steps import FirstStarts, scheduled_body, step_completed, step_scheduled

BODIES = [b"null", b'"\\ud800"', b'{"a":"\\"}"}', "✓".join('""').encode(), b'{"args":1}']
"""JSON texts, a lone surrogate and a quote among them."""


def _parts(draft: Draft) -> dict[str, Any]:
    return {name: getattr(draft, name) for name in draft.__struct_fields__}


@pytest.mark.parametrize("raw", BODIES)
@pytest.mark.parametrize("key", ["pack#1", 'it\'s "ours" ✓#12'])
def test_they_are_the_same(raw: bytes, key: str) -> None:
    for more in ({}, {"branch": 2}, {"queue": 'a"b', "priority": 3, "chapter": "note#1"}):
        data = {"args": msgspec.Raw(raw), **more}
        made = step_scheduled(key, raw, more, scheduled_body(raw, more))
        assert _parts(made) == _parts(new("step_scheduled", key=key, data=data))
    data = {"attempt": 3, "value": msgspec.Raw(raw)}
    assert _parts(step_completed(key, 3, raw)) == _parts(new("step_completed", key=key, data=data))


def test_a_first_start_is_the_same() -> None:
    data = {"attempt": 1, "worker": "wrk_1"}
    assert _parts(FirstStarts("wrk_1").of("pack#2")) == _parts(new("step_started", key="pack#2", data=data))
