"""Running step attempts: async ones on the worker's loop, sync ones in threads.

An attempt runs only after its `step_started` is committed, so that a body which kills its process counts as
an attempt. Whatever it comes to (a result, an error, a time-out, a cancellation) goes back to its run as one
draft: a fact where the step is over, a record where it will be retried.

Each body has a context of its own, and from its first suspension on a task of its own. Those that never
suspend are run one after the other by one task, the *runner*: a task and a turn of the loop for each would
cost as much as the rest of a short step. A body that suspends keeps the task, and another becomes the runner.
The runner lets the loop have a turn when it has done what was there at first, or a few more (`_CHAIN`), but never
more than `_TURN`: the loop is somebody's web server, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import types
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from .. import failures, faults, ids, tracing
from ..chunks import Chunk
from ..clock import Clock
from ..codec import check_bounds, small
from ..engine.context import StepCall
from ..errors import FatalError, PayloadError, RetryAfter, StepEnded, StreamEnded
from ..events import Draft, new
from ..events.steps import step_completed
from ..runtime import Attempt, StepInfo, attempt_here
from ..store.streams import Author
from ..streams import Streams, Writer

T = TypeVar("T")
Outcome = Callable[["RunningStep", Draft], None]


_CHAIN = 8
"""Bodies that the runner does in one turn of the loop although each came of the one before."""
_TURN = 50
"""Bodies that the runner does in one turn of the loop at most: some milliseconds with all that follows of them."""
_THREADS = 10_000
"""Threads at most: attempts bound how many work; those that a time-out gave up on come on top."""


class RunningStep(Attempt):
    """One attempt of a step, from its start to its outcome."""

    carrier: tracing.Carrier = types.MappingProxyType({})  # the context of the run, where spans are made
    task: asyncio.Task[None] | None = None  # while its body runs
    cancelled = False
    beaten = 0
    writers: dict[tuple[str, str], Writer] | None = None

    def __init__(self, run_id: str, call: StepCall, attempt: int, outcome: Outcome, streams: Streams) -> None:
        self.run_id = run_id
        self.call = call
        self.attempt = attempt
        self.outcome = outcome
        self.streams = streams

    @property
    def info(self) -> StepInfo:
        """What `hf.step_info()` gives."""
        call = self.call
        return StepInfo(self.run_id, call.step.name, f"{self.run_id}/{call.key}", self.attempt)

    def heartbeat(self) -> None:
        """The body says that it is alive."""
        self.beaten += 1

    def writer(self, run_id: str, name: str) -> Writer:
        """The one writer of this attempt for a stream, so that its chunks stay in order."""
        if self.writers is None:
            self.writers = {}
        writer = self.writers.get((run_id, name))
        if writer is None:
            author = Author(self.run_id, self.call.key, self.attempt)
            writer = self.writers[run_id, name] = Writer(self.streams, run_id, name, author)
        return writer

    def read(self, run_id: str, name: str, after: int, *, latest: bool) -> AsyncIterator[Chunk]:
        """A stream, as it grows."""
        return self.streams.read(run_id, name, after, latest=latest)

    def wait(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do async work on the worker's loop, for a body that runs in a thread."""
        task = self.task
        if task is None:  # a time-out gave the attempt up, which does not stop its thread
            raise StepEnded(f"{self.run_id}: attempt {self.attempt} of {self.call.key} is over")
        return asyncio.run_coroutine_threadsafe(_awaited(work), task.get_loop()).result()

    async def drain(self) -> None:
        """Wait until every chunk is durable: a step's outcome says that they are. Raises what went wrong."""
        for writer in (self.writers or {}).values():
            await writer.flush()

    def cancel(self) -> None:
        """Nobody waits for it any more: interrupt the body."""
        self.cancelled = True
        if self.task is not None:
            self.task.cancel()


def _trace(attempt: RunningStep) -> Callable[[Draft], None] | None:
    """Begin the span of an attempt, which is the current one of its body."""
    if tracing.active is None or not attempt.carrier:
        return None
    return tracing.active.attempt(attempt.run_id, attempt.call.key, attempt.attempt, attempt.carrier)


async def _awaited(work: Callable[[], Awaitable[T]]) -> T:
    return await work()


def _run_sync(fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    try:
        return fn(*args, **kwargs)
    except StopIteration as error:  # no future takes it: its waiter would wait for ever
        raise RuntimeError("a step raised StopIteration") from error


class StepTimeout(TimeoutError):
    """An attempt took longer than the step's `timeout`, or went without a heartbeat for too long."""


class Executor:
    """Runs attempts, at most `concurrency` at a time; the others wait in order."""

    def __init__(self, clock: Clock, concurrency: int, payload_limit: int) -> None:
        self._clock = clock
        self._concurrency = concurrency
        self._payload_limit, self._small = payload_limit, small(payload_limit)
        self._loop = asyncio.get_running_loop()
        self._base = contextvars.copy_context()
        self._running: set[RunningStep] = set()
        self._waiting: deque[RunningStep] = deque()
        self._threads: ThreadPoolExecutor | None = None
        self._runner: asyncio.Task[None] | None = None
        self._idle: asyncio.Event | None = None

    @property
    def busy(self) -> int:
        """How many attempts run or wait."""
        return len(self._running) + len(self._waiting)

    @property
    def running(self) -> list[str]:
        """The keys of the steps whose attempts run."""
        return sorted(attempt.info.key for attempt in self._running)

    def start(self, attempt: RunningStep) -> None:
        """Run an attempt whose start is committed, now or when there is room."""
        self._waiting.append(attempt)
        if self._runner is None:
            self._continue()

    async def drain(self) -> None:
        """Wait until every attempt has its outcome."""
        self._idle = asyncio.Event()
        if self._running or self._waiting:
            await self._idle.wait()

    def close(self) -> None:
        """Let go of the threads; what runs in one still ends by itself."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _continue(self) -> None:
        """See to it that somebody takes what waits."""
        if self._runner is None and self._waiting and len(self._running) < self._concurrency:
            self._runner = asyncio.Task(self._take(), loop=self._loop, context=self._base.copy())

    async def _take(self) -> None:
        """Be the runner, until a body suspends."""
        me = asyncio.current_task()
        assert me is not None
        waiting, running = self._waiting, self._running
        left = min(max(len(waiting), _CHAIN), _TURN)
        try:
            while waiting and len(running) < self._concurrency:
                if not left:
                    await asyncio.sleep(0)
                    left = min(max(len(waiting), _CHAIN), _TURN)
                left -= 1
                attempt = waiting.popleft()
                attempt.task = me
                context = self._base.copy()
                done = None if tracing.active is None else context.run(_trace, attempt)
                body = self._perform(attempt)
                try:
                    awaited = context.run(body.send, None)
                except StopIteration as end:
                    draft = end.value  # it never suspended
                else:
                    running.add(attempt)
                    try:
                        draft = await self._go_on(context, body, awaited)
                    except GeneratorExit as error:  # Python closes what is inside, and raises it out here
                        draft = self._failed(attempt, error)
                    finally:
                        running.discard(attempt)
                attempt.task = None
                if done is not None:
                    done(draft)
                attempt.outcome(attempt, draft)
                if self._runner is not me or me.cancelling():
                    break
        finally:
            if self._runner is me:
                self._runner = None
            self._continue()
            if self._idle is not None and not running and not waiting:
                self._idle.set()

    @types.coroutine
    def _go_on(
        self, context: contextvars.Context, body: Coroutine[Any, Any, Draft], awaited: Any
    ) -> Generator[Any, Any, Draft]:
        """Await the rest of a body that has suspended, each part in its context; another task is the runner."""
        try:
            self._runner = None
            self._continue()
            while True:
                try:
                    sent = yield awaited
                except BaseException as error:  # noqa: BLE001 - it is the body's
                    awaited = context.run(body.throw, error)
                else:
                    awaited = context.run(body.send, sent)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    async def _perform(self, attempt: RunningStep) -> Draft:
        """Run the body; what it comes to."""
        attempt_here.set(attempt)
        faults.point("worker.step.before")
        call = attempt.call
        step = call.step
        try:
            if attempt.cancelled:
                raise asyncio.CancelledError
            args, kwargs = step.arguments.decode(call.args)
            if step.plain:
                result = await step.fn(*args, **kwargs)
            else:
                result = await self._guarded(attempt, args, kwargs)
            if attempt.writers:
                await attempt.drain()
            draft = self._completed(attempt, result)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it is, the step has failed of it
            if attempt.writers:
                with contextlib.suppress(Exception, asyncio.CancelledError):
                    await attempt.drain()  # what was written before the failure is readable too
            draft = self._failed(attempt, error)
        faults.point("worker.step.after")
        return draft

    def _completed(self, attempt: RunningStep, result: Any) -> Draft:
        key, returns = attempt.call.key, attempt.call.step.arguments.returns
        where = f"{key} result"
        raw = returns.encode(result, where)
        if len(raw) > self._small:
            check_bounds(raw, self._payload_limit, where)
        draft = step_completed(key, attempt.attempt, raw)
        draft.value = returns.decode(raw, where)  # refuse here what its reader could not read
        return draft

    async def _call(self, fn: Any, is_async: bool, args: Any, kwargs: Any) -> Any:
        if is_async:
            return await fn(*args, **kwargs)
        if self._threads is None:
            self._threads = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="holdfast-step")
        context = contextvars.copy_context()
        return await self._loop.run_in_executor(
            self._threads, lambda: context.run(_run_sync, fn, args, kwargs)
        )

    async def _guarded(self, attempt: RunningStep, args: Any, kwargs: Any) -> Any:
        """A call with a time-out, a heartbeat, or both."""
        step = attempt.call.step
        timeout, heartbeat = step.options.timeout, step.options.heartbeat
        what = f"{attempt.call.key} attempt {attempt.attempt}"
        watch: asyncio.Task[None] | None = None
        missed = False

        async def watch_heart(body: asyncio.Task[Any], every: float) -> None:
            nonlocal missed
            seen = -1
            while seen != attempt.beaten:
                seen = attempt.beaten
                await asyncio.sleep(every)
            missed = True
            body.cancel()

        body = asyncio.current_task()
        assert body is not None
        if heartbeat is not None:
            watch = self._loop.create_task(watch_heart(body, heartbeat))
        try:
            async with asyncio.timeout(timeout) as limit:
                return await self._call(step.fn, step.is_async, args, kwargs)
        except TimeoutError as error:
            if limit.expired():
                raise StepTimeout(f"{what} took longer than {timeout:g} s") from error
            raise
        except asyncio.CancelledError as error:
            if missed and not attempt.cancelled:
                body.uncancel()
                raise StepTimeout(f"{what} sent no heartbeat for {heartbeat:g} s") from error
            raise
        finally:
            if watch is not None:
                watch.cancel()

    def _failed(self, attempt: RunningStep, error: BaseException) -> Draft:
        """The fact that the step has failed, or the record that it will be tried again."""
        options, number = attempt.call.step.options, attempt.attempt
        data: dict[str, Any] = {"attempt": number, "error": failures.describe(error)}
        final = attempt.cancelled or isinstance(error, FatalError | PayloadError | StreamEnded)
        if final or number > options.retries:
            return new("step_failed", key=attempt.call.key, data=data)
        if isinstance(error, RetryAfter):
            delay = error.delay
        else:
            delay = options.backoff.delay(number, ids.fraction())
        data["delay"] = delay
        data["due"] = self._clock.now() + round(delay * 1e6)
        return new("step_retried", key=attempt.call.key, data=data)
