"""Logs as list-append histories (`proof/history.py`): a small share, and that each kind of lie is found."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "proof"))

from history import Op, judge, record


@pytest.mark.parametrize("backend", ["memory", "sqlite", "postgres"])
def test_what_processes_saw_of_the_logs_has_one_order(backend, tmp_path, request, record_property):
    """L-07, L-08, L-09: reads are prefixes, acknowledged appends are there in real-time order, no cycles."""
    url = {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path}/history.db"}.get(backend)
    url = url or request.getfixturevalue("postgres_url")
    history = record(url, writers=2, deciders=2, readers=2, logs=3, seconds=0.6)
    assert judge(history) == []
    appends = sum(op.kind == "append" for op in history)
    assert appends > 10
    assert len(history) > appends
    record_property(f"operations on {backend}", len(history))


def append(log, asked, answered, first, *elements, refused=False):
    return Op("append", log, asked, answered, elements, first, refused)


def read(log, asked, answered, *elements):
    return Op("read", log, asked, answered, elements)


NEVER = float("inf")
LIES = {
    "a lost append": [append("x", 0, 1, 1, "a"), read("x", 2, 3)],
    "a read that is no prefix": [
        append("x", 0, 1, 1, "a"),
        append("x", 0, 1, 2, "b"),
        read("x", 2, 3, "b"),
        read("x", 4, 5, "a", "b"),
    ],
    "a refused append that is there": [append("x", 0, 1, 0, "a", refused=True), read("x", 2, 3, "a")],
    "half of an append": [append("x", 0, NEVER, 0, "a", "b"), read("x", 2, 3, "a")],
    "an element twice": [append("x", 0, NEVER, 0, "a"), read("x", 2, 3, "a", "a")],
    "a stale read": [append("x", 0, 1, 1, "a"), read("x", 2, 3), read("x", 4, 5, "a")],
    "a read that goes back": [append("x", 0, NEVER, 0, "a"), read("x", 1, 2, "a"), read("x", 3, 4)],
    "an append before one that was answered earlier": [
        append("x", 0, 1, 2, "a"),
        append("x", 2, 3, 1, "b"),
        read("x", 4, 5, "b", "a"),
    ],
    "two readers who saw two logs grow in different orders": [
        append("x", 0, 9, 1, "a"),
        append("y", 0, 9, 1, "b"),
        read("x", 1, 2, "a"),
        read("y", 3, 4),
        read("y", 1, 2, "b"),
        read("x", 3, 4),
        read("x", 10, 11, "a"),
        read("y", 10, 11, "b"),
    ],
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_found(lie):
    assert judge(LIES[lie]) != []


def test_what_is_unknown_may_have_happened_or_not():
    unknown = append("x", 0, NEVER, 0, "a")
    assert judge([unknown, read("x", 1, 2)]) == []
    assert judge([unknown, read("x", 1, 2), read("x", 3, 4, "a")]) == []


def test_what_is_asked_before_the_other_is_answered_has_no_order_of_its_own():
    together = [
        append("x", 0, 5, 2, "a"),
        append("x", 1, 4, 1, "b"),
        read("x", 2, 6),
        read("x", 6, 7, "b", "a"),
    ]
    assert judge(together) == []
