"""The plain append is judged in one pass; these tests hold that pass against the rules (laws L1–L5, L8, L13)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from holdfast.events import Draft, new
from holdfast.store.messages import Append
from holdfast.store.rows import Head
from holdfast.store.rules import AHEAD, Found, judge_in_full, judge_plainly

NOW = 1_000
STEPS = [f"pack#{n}" for n in range(1, 5)]


def _draft(kind: str, key: str, attempt: int, at: int | None) -> Draft:
    data: dict[str, Any] = {"attempt": attempt}
    if kind == "step_scheduled":
        data = {"args": {}}
    elif kind == "step_retried":
        data["due"] = NOW + 5
    elif kind == "timer_started":
        key, data = "sleep#1", {"due": NOW + 7}
    elif kind in ("run_completed", "run_failed", "noted"):
        key, data = "", _ENDS[attempt]
    elif kind in ("run_created", "run_started"):
        key, data = "", _STARTS[attempt] if kind == "run_created" else {}
    early = kind in ("step_completed", "step_failed", "run_created")
    return new(kind, key=key, data=data, at=at if early else None)


_ENDS: dict[int, dict[str, Any]] = {1: {"value": None}, 2: {"continued": "r-2"}, 3: {"by": "operator"}}
_STARTS: dict[int, dict[str, Any]] = {
    1: {"workflow": "pack"},
    2: {"workflow": "pack", "attributes": {"for": "ann"}, "parent": {"run": "p"}, "root": "p"},
    3: {"workflow": "pack", "hooks": {"approval": None}},
}


KINDS = ["step_completed", "step_scheduled", "step_started"] * 3 + [
    "step_failed", "step_retried", "timer_started", "noted", "run_completed", "run_failed", "run_started",
]  # fmt: skip
TIMES = some.sampled_from([None, 880, 900, 950, NOW, NOW + 10, NOW + 2_000_000])
DRAFTS = some.lists(
    some.builds(_draft, some.sampled_from(KINDS), some.sampled_from(STEPS), some.integers(1, 3), TIMES),
    min_size=1,
    max_size=6,
)
OPEN = some.dictionaries(
    some.sampled_from(STEPS),
    some.tuples(some.integers(0, 2), some.sampled_from([None, NOW - 5, NOW + 5])),
    max_size=4,
)


def _head(position: int, steps: int, ended: int | None) -> Head:
    return Head(
        "r", "pack", "running", position, 900, b"h" * 16, position - 1, 2, 1, steps, ended=ended, crashes=1
    )


@settings(max_examples=600, deadline=None)
@given(drafts=DRAFTS, steps=OPEN, after=some.integers(6, 8), ended=some.sampled_from([None] * 9 + [950]),
       there=some.sets(some.sampled_from(["step pack#1", "step pack#2 attempt 1 ended"]), max_size=1))  # fmt: skip
def test_it_says_what_the_rules_say_or_nothing(drafts, steps, after, ended, there):
    head = _head(7, len(steps), ended)
    found = Found(head, steps=steps, uniques=dict.fromkeys(there, 3))
    before = msgspec.structs.asdict(head)
    request = Append("r", drafts, after, "batch", print)
    plain = judge_plainly(request, found, NOW)
    assert msgspec.structs.asdict(head) == before  # a verdict changes nothing that it was made from
    if plain is not None:
        assert plain == judge_in_full(request, found, NOW)


@settings(max_examples=600, deadline=None)
@given(number=some.integers(1, 3), at=TIMES, started=some.booleans(), drafts=DRAFTS,
       after=some.sampled_from([0, 0, 0, 1]), owner=some.sampled_from([None, "wrk_1"]),
       there=some.booleans())  # fmt: skip
def test_of_a_beginning_too(number, at, started, drafts, after, owner, there):
    drafts = [
        _draft("run_created", "", number, at),
        *([_draft("run_started", "", 1, None)] if started else []),
        *drafts,
    ]
    found = Found(_head(7, 1, None) if there else None)
    request = Append("r", drafts, after, "batch", print, owner=owner)
    plain = judge_plainly(request, found, NOW)
    if plain is not None:
        assert plain == judge_in_full(request, found, NOW)


def test_the_first_and_the_last_append_of_a_run_are_plain():
    """Else the pass would be right, and of no use."""
    first = [
        _draft("run_created", "", 2, 900),
        _draft("run_started", "", 1, None),
        _draft("step_scheduled", "pack#1", 1, None),
        _draft("step_started", "pack#1", 1, None),
    ]
    request = Append("r", first, 0, "batch", print, owner="wrk_1")
    plain = judge_plainly(request, Found(None), NOW)
    assert plain == judge_in_full(request, Found(None), NOW) != None  # noqa: E711
    for kind in ("run_completed", "run_failed"):
        last = [_draft("step_completed", "pack#1", 1, 950), _draft(kind, "", 1, None)]
        request = Append("r", last, 7, "batch", print)
        found = Found(_head(7, 4, None), steps={"pack#1": (1, None), "pack#2": (1, None)})
        plain = judge_plainly(request, found, NOW)
        assert plain == judge_in_full(request, found, NOW) != None  # noqa: E711


def test_the_append_of_a_sequence_and_of_a_gather_are_plain():
    """Else the pass would be right, and of no use."""
    step, following = STEPS[0], STEPS[1]
    sequence = [
        _draft("step_completed", step, 1, 950),
        _draft("step_scheduled", following, 1, None),
        _draft("step_started", following, 1, None),
    ]
    gather = [_draft("step_completed", key, 1, 950 + n) for n, key in enumerate(STEPS)]
    for drafts in (sequence, gather, [*gather[:1], *sequence[1:], *gather[2:]]):
        request = Append("r", drafts, 7, "batch", print)
        found = Found(_head(7, 4, None), steps=dict.fromkeys(STEPS, (1, None)))
        assert judge_plainly(request, found, NOW) == judge_in_full(request, found, NOW) != None  # noqa: E711


def test_after_the_end_nothing_is_plain():
    """L11: not even from a decider that has read the end."""
    drafts = [_draft("step_scheduled", "pack#1", 1, None), _draft("step_started", "pack#1", 1, None)]
    request = Append("r", drafts, 7, "batch", print)
    assert judge_plainly(request, Found(_head(7, 0, None)), NOW) is not None
    assert judge_plainly(request, Found(_head(7, 0, 950)), NOW) is None


@pytest.mark.parametrize("at", [None, 899, 900, NOW, NOW + AHEAD, NOW + AHEAD + 1])
@pytest.mark.parametrize("due", [None, NOW, NOW + 1])
@pytest.mark.parametrize("attempt", [0, 1, 2])
@pytest.mark.parametrize("after", [6, 7])
def test_at_the_edges_it_says_what_the_rules_say_or_nothing(at, due, attempt, after):
    """L5, L8: a time too early or too far ahead, an attempt before its time, a tail that is not exact."""
    drafts = [
        _draft("step_completed", "pack#1", 1, at),
        _draft("step_scheduled", "pack#3", 1, None),
        _draft("step_started", "pack#2", 1, None),
    ]
    found = Found(_head(7, 2, None), steps={"pack#1": (1, None), "pack#2": (attempt, due)})
    request = Append("r", drafts, after, "batch", print)
    plain, full = judge_plainly(request, found, NOW), judge_in_full(request, found, NOW)
    assert plain is None or plain == full
