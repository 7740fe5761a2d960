"""Deciders under a test's control: steps that wait at gates, commits by hand, a decider without a worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from patience import PATIENCE

import holdfast as hf
from holdfast import faults
from holdfast.client import App
from holdfast.engine.tick import Execution
from holdfast.errors import StaleLog, StoreError
from holdfast.events import Draft, Event, new
from holdfast.store.base import Store
from holdfast.store.messages import Append, Appended
from holdfast.worker.advance import Advance
from holdfast.worker.worker import Worker
from holdfast.workflow import Workflow

gates: dict[str, asyncio.Event] = {}
bodies: list[str] = []
"""The step bodies that have run, in order."""


def gate(name: str) -> asyncio.Event:
    return gates.setdefault(name, asyncio.Event())


@hf.step(retries=0)
async def gated(name: str) -> str:
    """A step whose body waits until the test opens its gate."""
    bodies.append(name)
    await gate(name).wait()
    return name


@hf.step(retries=0)
async def free(name: Any = None) -> Any:
    """A step that is over at once."""
    bodies.append(name)
    return name


@asynccontextmanager
async def serving(app: App, **options: Any) -> Any:
    """A worker; at its end the gates are opened, for it lets running steps finish."""
    async with app.worker(**options) as worker:
        try:
            yield worker
        finally:
            for one in gates.values():
                one.set()


# ---- commits by hand


def commit(store: Store, run: str, *drafts: Draft, after: int | None = None, token: str | None = None) -> Any:
    """Append here and now, between two statements of somebody else; the answer, or the error as a value."""
    armed = dict(faults._armed)
    faults.disarm()
    request = Append(run, drafts, after, store.next_batch(), lambda _: None, token=token)
    answers, news = store.commit_group([request])  # type: ignore[attr-defined]
    faults._armed.update(armed)
    store.tell(news)
    store.tell_others(news)  # type: ignore[attr-defined]
    return answers[0]


def land(app: App, token: str, payload: Any, delivery: str = "by hand") -> Appended:
    """A payload is committed here and now."""
    data = {"delivery": delivery, "payload": payload, "digest": repr(payload)}
    answer = commit(app.store, "", new("hook_received", key=f"{token}#0", data=data), token=token)
    assert isinstance(answer, Appended), answer
    return answer


def completed(key: str, value: Any, attempt: int = 1) -> Draft:
    return new("step_completed", key=key, data={"attempt": attempt, "value": value})


def interleave(point: str, action: Callable[[], object], *, when: Callable[[], bool] = bool) -> None:
    """The first time that the point is passed (and `when` says so), do something there."""

    def act() -> None:
        if when is bool or when():
            del faults._armed[point]
            action()

    faults.arm(point, act)


def lose_answer() -> None:
    """The next commit goes through, and its answer is lost."""

    def lost() -> None:
        raise StoreError("the connection broke")

    interleave("store.commit.after", lost)


# ---- looking


async def log_of(app: App, run_id: str) -> list[Event]:
    return await app.store.read(run_id)


async def until(app: App, run_id: str, enough: Callable[[list[Event]], bool]) -> list[Event]:
    """Wait until the log is as wanted; woken by the store's news."""
    changed = asyncio.Event()
    stop = app.store.listen(lambda _news: changed.set())
    try:
        async with asyncio.timeout(PATIENCE):
            while not enough(events := await app.store.read(run_id)):
                await changed.wait()
                changed.clear()
            return events
    finally:
        stop()


async def until_logged(app: App, run_id: str, type_: str, key: str = "", count: int = 1) -> list[Event]:
    return await until(
        app,
        run_id,
        lambda log: sum(e.type == type_ and (not key or e.key == key) for e in log) >= count,
    )


async def ended(run: Any) -> str:
    """The status of a run at its end, also where the news of it were lost with an answer; none may be parked."""
    async with asyncio.timeout(PATIENCE):
        while (status := await run.status()) in ("pending", "running"):
            assert (parked := (await run.info()).parked) is None, parked
            await asyncio.sleep(0)
        return status  # type: ignore[no-any-return]


def keys(events: Sequence[Event], *types: str) -> list[str]:
    return [event.key for event in events if event.type in types]


def position(events: Sequence[Event], type_: str, key: str = "") -> int:
    return next(e.position for e in events if e.type == type_ and (not key or e.key == key))


def live(worker: Worker, run_id: str) -> Advance:
    return worker.runs.live[run_id]


def join(worker: Worker, run_id: str, workflow: Workflow[..., Any]) -> Advance:
    """Let a second worker decide on a run that another one has: leases play no part in correctness."""
    advance = Advance(worker, run_id, workflow)
    worker.runs.live[run_id] = advance
    advance.load()
    return advance


# ---- a decider without a worker


class HandDecider:
    """A decider that does one thing at a time, when the test says so, through the store's own interface."""

    def __init__(self, app: App, run_id: str, workflow: Workflow[..., Any]) -> None:
        self.store = app.store
        self.run_id = run_id
        self.after = 0
        self.execution = Execution(run_id, workflow)

    async def read(self) -> None:
        """Read and deliver what is there."""
        events = await self.store.read(self.run_id, self.after)
        self.execution.feed_all(events)
        if events:
            self.after = events[-1].position

    async def append(self, *early: Draft) -> Appended | StaleLog:
        """Send the early facts and what the code asks for; deliver what comes back."""
        asked = list(self.execution.asked)
        try:
            answer = await self.store.append(self.run_id, [*early, *asked], after=self.after)
        except StaleLog as error:
            return error
        self.execution.accepted(len(asked))
        return answer

    def deliver(self, answer: Appended) -> None:
        self.after = answer.last
        for event in answer.missed:
            self.execution.feed(event)

    async def tick(self) -> None:
        await self.read()
        while self.execution.asked:
            answer = await self.append()
            assert isinstance(answer, Appended), answer
            self.deliver(answer)


async def create(app: App, run_id: str, workflow: Workflow[..., Any], *args: Any) -> None:
    """A run that no worker knows of yet."""
    await app.start(workflow, *args, run_id=run_id)


def raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
