"""Builders of drafts, looks at a log, and child processes, for the tests of the stores."""

import os
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from patience import PATIENCE

from holdfast.events import Draft, Event, fold, new
from holdfast.store import Store
from holdfast.store.rows import WorkerRow
from holdfast.store.rules import extend_chain

SECOND = 1_000_000


class TestClock:
    """A clock that stands still until it is moved."""

    __test__ = False

    def __init__(self) -> None:
        self.time = 1_767_225_600 * SECOND

    def now(self) -> int:
        return self.time

    def advance(self, seconds: float) -> int:
        self.time += int(seconds * SECOND)
        return self.time


def created(workflow: str = "w", **data: Any) -> Draft:
    at = data.pop("at", None)
    return new("run_created", data={"workflow": workflow, "input": {"args": []}, **data}, at=at)


def running() -> Draft:
    return new("run_started")


def scheduled(key: str) -> Draft:
    return new("step_scheduled", key=key, data={"args": {}})


def started(key: str, attempt: int = 1, worker: str = "wrk") -> Draft:
    return new("step_started", key=key, data={"attempt": attempt, "worker": worker})


def completed(key: str, attempt: int = 1, at: int | None = None, result: Any = None) -> Draft:
    return new("step_completed", key=key, data={"attempt": attempt, "result": result}, at=at)


def failed(key: str, attempt: int = 1) -> Draft:
    return new("step_failed", key=key, data={"attempt": attempt, "error": {"type": "ValueError"}})


def retried(key: str, attempt: int = 1, due: int | None = None) -> Draft:
    return new("step_retried", key=key, data={"attempt": attempt, "due": due, "error": {}})


def timer(key: str, due: int) -> Draft:
    return new("timer_started", key=key, data={"due": due})


def fired(key: str, at: int | None = None) -> Draft:
    return new("timer_fired", key=key, at=at)


def opened(key: str, **data: Any) -> Draft:
    return new("hook_opened", key=key, data=data)


def closed(key: str) -> Draft:
    return new("hook_closed", key=key)


def noted(key: str) -> Draft:
    return new("noted", key=key, data={"text": key})


def woken(id: str | None = None) -> Draft:
    return new("woken", data={} if id is None else {"id": id})


def ended(how: str = "completed", **data: Any) -> Draft:
    return new(f"run_{how}", data=data or {"result": None})


def terminated() -> Draft:
    return ended("cancelled", by="terminate", reason="enough")


async def begin(store: Store, run: str = "r", *steps: str, owner: str | None = None) -> int:
    """A running run whose steps have each started their first attempt; its last position."""
    drafts = [created(), running()]
    for key in steps:
        drafts += [scheduled(key), started(key)]
    return (await store.append(run, drafts, after=0, owner=owner)).last


def worker(name: str = "wrk") -> WorkerRow:
    return WorkerRow(name, 1, "host", 1)


def types(events: Sequence[Event]) -> list[str]:
    return [event.type for event in events]


def brief(events: Sequence[Event]) -> list[tuple[int, str, str]]:
    return [(event.position, event.type, event.key) for event in events]


async def assert_sound(store: Store, run: str) -> list[Event]:
    """The log is dense and in order of time, its chain recomputes, its projections are what it folds to."""
    stored_log = await store.at_rest.read(run)
    log = await store.read(run)
    assert [event.position for event in log] == list(range(1, len(log) + 1))
    assert all(a.time <= b.time for a, b in pairwise(log))

    head = await store.head(run)
    assert head is not None
    chain, begin = b"", 0
    for last, stored, _ in await store.chain(run):
        part = [(e.position, e.type, e.key, e.time, e.body) for e in stored_log[begin:last]]
        chain, begin = extend_chain(chain, part), last
        assert stored == chain
    assert (begin, chain) == (len(log), head.chain)

    state = fold(log)
    assert (head.run, head.workflow, head.status) == (run, state.workflow, state.status)
    assert (head.position, head.command, head.fact) == (state.head, state.command, state.fact)
    assert (head.created, head.ended, head.time) == (state.created, state.ended, log[-1].time)
    assert (head.steps, head.timers) == (state.open_steps, state.pending_timers)
    assert head.attributes == state.attributes

    live = not state.ended
    steps = {k: (s.attempt, s.due) for k, s in state.steps.items() if live and s.open}
    assert {s.key: (s.attempt, s.due) for s in await store.open_steps(run)} == steps
    timers = {k: t.due for k, t in state.timers.items() if live and t.status == "pending"}
    assert {t.key: t.due for t in await store.timers(run=run, limit=10_000)} == timers
    hooks = {k: (h.token, h.status, h.opened) for k, h in state.hooks.items() if h.status != "refused"}
    rows = await store.hooks(run=run, open_only=False, limit=10_000)
    assert {h.key: (h.token, h.status, h.opened) for h in rows} == hooks
    return log


def child(source, *arguments, **options):
    """A Python process with the builders at hand."""
    kits = (Path(__file__).parent, Path(__file__).parents[2] / "kit")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, kits))}
    command = [*options.pop("prefix", ()), sys.executable, "-c", source, *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stdin=subprocess.PIPE, **options
    )


def finished(process):
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, out
    return out
