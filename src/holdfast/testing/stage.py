"""Runs on a real store and a real worker, in milliseconds: the fixture `durable` of the pytest plug-in.

Guarantee: time moves only when the test asks for something that lies in the future, and then only as far as the
next thing that is due, and only while no step runs. So a run that sleeps for a month ends in a moment, and a
time-out of three days never beats the payload that the test is about to send, however slow the machine is.

It rests on a clock that stands still, and on seeing that a worker is quiet: no step runs, nothing is being written
and nothing is on its way, for some turns of its loop. The loop has a thread of its own, so that tests may be plain
functions and async ones. Each run that has been played to its end is replayed in a process with another hash seed.

Rejected: `ManualClock(autojump=…)`, for a clock that jumps when nothing was asked of it for some milliseconds
jumps too early on a machine that is slow just then.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from typing import Any, Generic, ParamSpec, Self, TypeVar

from ..client import App
from ..events import Event, name_of
from ..handle import Run
from ..store.memory import MemoryStore
from ..store.url import open_store
from ..worker import Worker
from ..workflow import Workflow
from .check import differences
from .clock import ManualClock

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_TURNS = 5
"""Turns of the loop without anything under way, after which the worker is quiet."""


class Stage:
    """A store in memory and a worker on it, with a clock that stands still until a test waits for something.

    `patience` is how many real seconds steps may take until the test gives up; other options are the worker's.
    Use it as `with Stage() as durable: …`, or take the fixture `durable`.

    Example:
        def test_an_order(durable):
            assert durable.execute(fulfil, order) == Result("r-1")
    """

    def __init__(self, *, patience: float = 30.0, **options: Any) -> None:
        self.clock = ManualClock()
        self.patience = patience
        self.runs: list[StagedRun[Any]] = []
        self.app: App
        self.worker: Worker
        self._options = options
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="holdfast-stage", daemon=True)
        self._open = AsyncExitStack()

    def __enter__(self) -> Self:
        self._thread.start()
        self.call(self._raise_curtain())
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.call(self._open.aclose())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()

    async def _raise_curtain(self) -> None:
        self.app = await self._open.enter_async_context(App(open_store("memory://", clock=self.clock)))
        self.worker = await self._open.enter_async_context(self.app.worker(**self._options))

    # ---- what tests do

    def start(
        self, workflow: Workflow[P, R], /, *args: Any, run_id: str | None = None, **kwargs: Any
    ) -> StagedRun[R]:
        """Start a run, and let it do what it can without time passing.

        Example:
            run = durable.start(fulfil, order, run_id="order-1")
        """

        async def begin() -> Run[R]:
            run = await self.app.start(workflow, *args, run_id=run_id, **kwargs)
            await self.quiet()
            return run

        run = StagedRun(self, self.call(begin()))
        self.runs.append(run)
        return run

    def execute(self, workflow: Workflow[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a workflow to its end and give its result; raises what `StagedRun.result` raises."""
        run: StagedRun[R] = self.start(workflow, *args, **kwargs)  # type: ignore[arg-type] # `run_id` may be one
        return run.result()

    @property
    def now(self) -> datetime:
        """What time it is on the stage."""
        return self.clock.time

    def advance(self, duration: float | timedelta) -> None:
        """Let time pass: what is due by then happens, each at its time."""
        seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
        until = self.now + timedelta(seconds=seconds)

        async def pass_time() -> None:
            await self.quiet()
            while (due := self.clock.next_alarm) is not None and due <= until:
                self.clock.jump()
                await self.quiet()
            self.clock.advance(until - self.now)

        self.call(pass_time())

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Await something of `app` where the stage runs: `durable.call(durable.app.run("order-1").wake())`."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    # ---- for its runs, on the loop

    async def quiet(self) -> None:
        """Wait until nothing is under way. Raises TimeoutError where steps take longer than `patience`."""
        store, worker = self.app.store, self.worker
        assert isinstance(store, MemoryStore)
        still = 0
        try:
            async with asyncio.timeout(self.patience):
                while still < _TURNS:
                    still = 0 if worker.working or store.pending else still + 1
                    await asyncio.sleep(0.0005 if worker.executor.busy else 0)
        except TimeoutError:
            what = ", ".join(worker.executor.running) or "the store"
            raise TimeoutError(f"after {self.patience:g} s (`patience`) it still waits for {what}") from None


class StagedRun(Generic[R]):
    """A run on a stage. What it is asked for, it is played on until then; time jumps over what it waits for."""

    def __init__(self, stage: Stage, run: Run[R]) -> None:
        self.id = run.id
        self._stage = stage
        self._run = run
        self._checked = False

    def __repr__(self) -> str:
        return f"<run {self.id} on a stage: {self.status}>"

    # ---- how it stands

    @property
    def log(self) -> list[Event]:
        """Its events so far."""
        return self._stage.call(self._stage.app.store.read(self.id))

    @property
    def status(self) -> str:
        """pending, running, completed, failed or cancelled."""
        return self._stage.call(self._run.status())

    @property
    def hooks(self) -> list[str]:
        """Tokens of its open hooks."""
        return self._stage.call(self._hooks())

    def calls(self, step: str) -> list[Any]:
        """The arguments of each call of a step so far, by parameter name, as plain JSON values."""
        return [
            event.data["args"]
            for event in self.log
            if event.type == "step_scheduled" and name_of(event.key) == step
        ]

    # ---- what happens to it

    def until_hook(self, token: str | None = None) -> Self:
        """Play it until its code waits for a payload: of this token, or of any.

        Example:
            durable.start(fulfil, order).until_hook("approve:1").send("approve:1", Approval(ok=True))

        Raises RuntimeError where it ends, or waits for ever, without waiting for such a payload.
        """

        async def waits() -> bool:
            awaited = self._awaited()
            return bool(awaited) if token is None else token in awaited

        self._stage.call(self._play(waits, "a payload" if token is None else f"a payload at hook {token!r}"))
        return self

    def send(self, token: str, payload: Any = None, *, delivery_id: str | None = None) -> Self:
        """Send a payload, and let the run do what it can without time passing. Raises what `app.resume` does."""

        async def deliver() -> None:
            await self._stage.app.resume(token, payload, delivery_id=delivery_id)
            await self._stage.quiet()

        self._stage.call(deliver())
        return self

    def cancel(self, reason: str = "") -> Self:
        """Ask the run to cancel, and let it do what it can without time passing."""

        async def ask() -> None:
            await self._run.cancel(reason)
            await self._stage.quiet()

        self._stage.call(ask())
        return self

    def play(self, payloads: Iterable[tuple[str, Any]] = ()) -> Self:
        """Play it to its end. `payloads` are (token, payload), sent in this order when the code waits for them.

        Raises RuntimeError where it waits for ever, AssertionError where another process replays it differently.
        """
        left = list(payloads)

        async def sends() -> bool:
            while left and left[0][0] in self._awaited():
                await self._stage.app.resume(*left.pop(0))
                await self._stage.quiet()
            return False

        self._stage.call(self._play(sends, ""))
        if not self._checked:
            self._checked = True
            problems = differences([self.log])
            assert not problems, "the run does not replay to itself:\n" + "\n".join(problems)
        return self

    def result(self) -> R:
        """Play it to its end and give what the workflow returned.

        Raises RunFailed (the workflow's exception is its `__cause__`), RunCancelled, and what `play` raises.
        """
        self.play()
        return self._stage.call(self._run.result())

    # ---- on the loop

    async def _play(self, there: Callable[[], Coroutine[Any, Any, bool]], what: str) -> None:
        """Let things happen until it is `there` (named `what`), or at its end where nothing is named."""
        stage = self._stage
        while True:
            await stage.quiet()
            if await there():
                return
            info = await self._run.info()
            if info.parked is not None:
                raise RuntimeError(f"{self.id} is parked, which is for people to look into: {info.parked}")
            if info.ended_at is not None:
                if what:
                    raise RuntimeError(f"{self.id} {info.status} without waiting for {what}")
                return
            if not stage.clock.jump():
                raise RuntimeError(f"{self.id} does not go on: it waits for {await self._waiting()}")

    def _awaited(self) -> list[str]:
        execution = self._stage.worker.runs.execution(self.id)
        return (
            [] if execution is None else [h.token for h in execution.hooks.values() if h.open and h.awaited]
        )

    async def _hooks(self) -> list[str]:
        return [hook.token async for hook in self._stage.app.hooks(run=self.id)]

    async def _waiting(self) -> str:
        """What the run waits for, in words."""
        store = self._stage.app.store
        parts = [f"step {step.key}" for step in await store.open_steps(self.id)]
        parts += [f"timer {timer.key}" for timer in await store.timers(run=self.id)]
        parts += [f"hook {token}" for token in await self._hooks()]
        return ", ".join(parts) or "nothing that anybody could give it"
