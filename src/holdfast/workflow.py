"""What authors import: `@workflow`, `@step`, `sleep`, `hook`, `now` … over an abstract runtime.

Nothing here knows how a workflow is run. While a thread runs workflow code, `here.runtime` is the `Runtime`
behind it, which the engine implements; in a step, `_attempt` holds the attempt that runs. (The first is no
context variable, for code that copies contexts about must not carry a run into places where it does not run.)
"""

from __future__ import annotations

import abc
import random as _random
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Mapping
from contextvars import ContextVar
from datetime import datetime, timedelta
from inspect import signature
from typing import Any, Generic, NoReturn, ParamSpec, Protocol, TypeVar, overload
from uuid import UUID

import msgspec

from .chunks import Chunk
from .definition import Backoff, Definition, Options, Registry, seconds
from .errors import DefinitionError, PayloadError
from .queues import Placement, Queue, placement
from .schedules import Missed, Schedule

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class RunInfo(msgspec.Struct, frozen=True):
    """The run that asks: `hf.run_info()`.

    `parent` is the id of the run that started this one as its child, or None. `root` is the run at the top
    of the tree: the parent's parent and so on, of a run without a parent the run itself. `previous` is the
    run that continued as this one (`hf.continue_as_new`), or None; `first` is the first of that chain.
    `due` is the due time for which a schedule started the run (aware, UTC), or None.
    """

    run_id: str
    workflow: str
    started_at: datetime
    version: str | None
    attributes: dict[str, str]
    parent: str | None
    root: str
    previous: str | None
    first: str
    due: datetime | None = None


class ChildRun(msgspec.Struct, frozen=True):
    """A child run that was started and goes its own way: what `workflow.start(…)` gives. `id` is its run id."""

    id: str


class StepInfo(msgspec.Struct, frozen=True):
    """The attempt that asks: `hf.step_info()`.

    `key` is the same for every attempt and every recovery of this step, and no other step of any run has it:
    give it to other systems as the idempotency key.
    """

    run_id: str
    step: str
    key: str
    attempt: int


class ContinueAsNew(BaseException):
    """Ends this run; its successor begins with these arguments. No `except Exception` stops it."""

    def __init__(self, args: bytes) -> None:
        super().__init__("the run continues as a new one")
        self.arguments = args


class Hook(abc.ABC, Generic[T]):
    """A named place where the run waits for payloads: await it, iterate over it, or use `async with`.

    Example:
        approval = hf.hook(f"approve:{order.id}", type=Approval)
        answer = await approval                   # the next payload
        async for message in hf.hook("chat"): ... # every payload, until the hook is closed
        async with hf.hook("once") as hook: ...   # closed at the end of the block

    Payloads that come before anybody waits are kept, in order. The token is held by one run at a time: where
    another run has it, each await raises HookTaken with that run's id.
    """

    token: str
    url: str = ""
    """Where a webhook is reached; '' of other hooks."""

    def __await__(self) -> Generator[Any, None, T]:
        return self.next().__await__()

    def __aiter__(self) -> AsyncIterator[T]:
        return self._iterate()

    async def __aenter__(self) -> Hook[T]:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not ContinueAsNew:  # then the hook goes on with the run
            self.close()

    @abc.abstractmethod
    def next(self) -> Coroutine[Any, Any, T]:
        """The next payload, as a coroutine (for `asyncio.create_task`)."""

    @abc.abstractmethod
    def close(self) -> None:
        """Take no more payloads; the token is free for others once this tick is committed."""

    @abc.abstractmethod
    def _iterate(self) -> AsyncIterator[T]: ...


class ChildOptions(msgspec.Struct, frozen=True):
    """How a child run is to be started: under which id, with which attributes, and whether it is detached."""

    run_id: str | None = None
    attributes: Mapping[str, str] | None = None
    detached: bool = False


class Runtime(abc.ABC):
    """What workflow code needs of an engine."""

    @abc.abstractmethod
    def step(self, step: Step[..., Any], args: Any, kwargs: Any) -> Coroutine[Any, Any, Any]: ...

    @abc.abstractmethod
    def child(
        self, workflow: Workflow[..., Any], args: Any, kwargs: Any, options: ChildOptions
    ) -> Coroutine[Any, Any, Any]: ...

    @abc.abstractmethod
    def sleep_until(self, when: datetime) -> Coroutine[Any, Any, None]: ...

    @abc.abstractmethod
    def hook(self, token: str, type: Any, metadata: Any) -> Hook[Any]: ...

    @abc.abstractmethod
    def webhook(self, type: Any, schema: Mapping[str, Any], metadata: Any) -> Hook[Any]:
        """A hook with a generated token; its URL goes into the `webhook` of its schema (`webhooks.Terms`)."""

    @abc.abstractmethod
    def continue_as_new(self, args: Any, kwargs: Any) -> NoReturn: ...

    @abc.abstractmethod
    def now(self) -> datetime: ...

    @abc.abstractmethod
    def random(self) -> _random.Random: ...

    @abc.abstractmethod
    def uuid4(self) -> UUID: ...

    @abc.abstractmethod
    def patched(self, id: str) -> bool: ...

    @abc.abstractmethod
    def set_attributes(self, attributes: Mapping[str, str | None]) -> None: ...

    @abc.abstractmethod
    def note(self, data: Mapping[str, Any]) -> str:
        """Ask for a `noted` command; its key. The shape of `data` is `events.Noted`."""

    @abc.abstractmethod
    def info(self) -> RunInfo: ...


class Attempt(abc.ABC):
    """What a running step can ask of its executor."""

    __slots__ = ()

    @property
    @abc.abstractmethod
    def info(self) -> StepInfo: ...

    @abc.abstractmethod
    def heartbeat(self) -> None: ...

    @abc.abstractmethod
    def writer(self, run_id: str, name: str) -> ChunkWriter: ...

    @abc.abstractmethod
    def read(self, run_id: str, name: str, after: int, *, latest: bool) -> AsyncIterator[Chunk]: ...

    @abc.abstractmethod
    def wait(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do async work for a body that runs in a thread, and wait for it there."""


class ChunkWriter(Protocol):
    """An attempt's writer of one stream."""

    async def write(self, data: object, key: str | None) -> None: ...

    async def end(self) -> None: ...

    async def flush(self) -> None: ...


class _Here(threading.local):
    """Whose workflow code this thread is running just now."""

    runtime: Runtime | None = None


here = _Here()


class NotedChapter(Protocol):
    """A chapter of the run's trail: `key` is that of the `noted` command that opened it."""

    key: str


chapter_here: ContextVar[NotedChapter | None] = ContextVar("holdfast_chapter", default=None)
"""The innermost open chapter around workflow code. Each run's code has a context of its own, so it never
reaches into another run; tasks inherit it, which is how parallel branches find theirs."""
_attempt: ContextVar[Attempt | None] = ContextVar("holdfast_attempt", default=None)


def _inside(what: str, remedy: str = "call it in an @hf.workflow function") -> Runtime:
    runtime = here.runtime
    if runtime is None:
        raise DefinitionError(f"{what} works in workflow code only: {remedy}")
    return runtime


# ---- definitions --------------------------------------------------------------------------------------------


class Step(Definition[P, R]):
    """A function whose result is recorded once. Call it in a workflow; elsewhere it is the plain function."""

    kind = "step"

    def __init__(
        self, fn: Callable[P, Any], name: str | None, options: Options, placement: Placement | None = None
    ) -> None:
        super().__init__(fn, name)
        self.options = options
        self.placement = placement
        self.plain = self.is_async and options.timeout is None and options.heartbeat is None
        steps.add(self)

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        runtime = here.runtime
        if runtime is None:
            return self.fn(*args, **kwargs)  # type: ignore[no-any-return]
        return runtime.step(self, args, kwargs)


class Workflow(Definition[P, R]):
    """A durable function: start it with `app.start(fulfil, order)`; outside of runs it is the plain function.

    Called in a workflow it is a *child run*: a run of its own, whose result, or whose exception, comes out of
    the await. To cancel the await cancels the child, as does the end of its parent.

    Example:
        receipt = await pay(order)                                    # a child run
        receipt = await pay.run(order, run_id=f"pay-{order.id}")      # the same, under an id of your choice
        audit = await audit_order.start(order)                        # detached: it outlives this run
    """

    kind = "workflow"

    def __init__(
        self,
        fn: Callable[P, Coroutine[Any, Any, R]],
        name: str | None,
        version: str | None,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(fn, name)
        if not self.is_async:
            raise DefinitionError(
                f"{self.name}: a workflow is an `async def`; "
                f"{fn.__qualname__} is a plain function (make it a step, or add async)"
            )
        self.version = version
        self.schedule = schedule
        if schedule is not None:
            schedule.check(f"workflow {self.name}")
            self._check_needs_nothing()
        workflows.add(self)

    def _check_needs_nothing(self) -> None:
        try:
            signature(self.fn).bind()
        except TypeError as error:
            raise DefinitionError(
                f"workflow {self.name}: {error}, and a schedule starts it without arguments: give its parameters "
                "defaults, and ask hf.run_info().due for the due time"
            ) from None

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        runtime = here.runtime
        if runtime is None:
            return self.fn(*args, **kwargs)  # type: ignore[no-any-return]
        return runtime.child(self, args, kwargs, _PLAIN_CHILD)

    def run(
        self,
        *args: Any,
        run_id: str | None = None,
        attributes: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> Coroutine[Any, Any, R]:
        """In a workflow: a child run, as by calling it, with a run id or attributes of your choice.

        Raises RunExists where another run has this id; otherwise what the child raises, RunCancelled where it
        was cancelled.
        """
        options = ChildOptions(run_id, attributes)
        return _inside(f"{self.name}.run()", _START).child(self, args, kwargs, options)

    def start(
        self,
        *args: Any,
        run_id: str | None = None,
        attributes: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> Coroutine[Any, Any, ChildRun]:
        """In a workflow: start a *detached* child, which outlives its parent; it is there when this returns.

        Raises RunExists where another run has this id.
        """
        options = ChildOptions(run_id, attributes, detached=True)
        return _inside(f"{self.name}.start()", _START).child(self, args, kwargs, options)


_PLAIN_CHILD = ChildOptions()
_START = "elsewhere, start it with app.start(…)"


steps: Registry[Step[..., Any]] = Registry("step")
workflows: Registry[Workflow[..., Any]] = Registry("workflow")


@overload
def step(fn: Callable[P, Coroutine[Any, Any, R]], /) -> Step[P, R]: ...
@overload
def step(fn: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(
    *,
    name: str | None = None,
    retries: int = 3,
    backoff: Backoff | float | timedelta = ...,
    timeout: float | timedelta | None = None,
    heartbeat: float | timedelta | None = None,
    queue: Queue | str | None = None,
    limit_key: str | Callable[..., str] | None = None,
    priority: int | Callable[..., int] = 0,
) -> _StepDecorator: ...
def step(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retries: int = 3,
    backoff: Backoff | float | timedelta = Backoff(),
    timeout: float | timedelta | None = None,
    heartbeat: float | timedelta | None = None,
    queue: Queue | str | None = None,
    limit_key: str | Callable[..., str] | None = None,
    priority: int | Callable[..., int] = 0,
) -> Any:
    """Make a function, async or not, a step: it may do I/O, and its result is recorded once.

    `retries=n` means n + 1 attempts. `backoff` is a `Backoff`, or the first delay. `timeout` bounds each
    attempt. `heartbeat` is how long an attempt may go without calling `hf.heartbeat()`. Times are seconds
    or timedeltas. A sync function runs in a thread, which a time-out cannot stop: its late end is ignored.

    With `queue`, the step runs on a worker that serves this queue, within the queue's limits (`hf.queue`);
    `limit_key` and `priority` are values, or functions of the step's arguments.

    Example:
        @hf.step(retries=5, timeout=30)
        async def charge(order: Order) -> Receipt: ...
    """
    if not isinstance(retries, int) or retries < 0:
        raise DefinitionError(f"@step: expected retries to be an int of 0 or more, got {retries!r}")
    if not isinstance(backoff, Backoff):
        backoff = Backoff(initial=seconds(backoff, "@step backoff"))
    options = Options(
        retries,
        backoff,
        None if timeout is None else seconds(timeout, "@step timeout"),
        None if heartbeat is None else seconds(heartbeat, "@step heartbeat"),
    )
    place = placement(queue, limit_key, priority)
    if fn is not None:
        return Step(fn, name, options, place)
    return lambda function: Step(function, name, options, place)


class _StepDecorator:
    """The type of `@hf.step(...)`: never instantiated."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Step[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Step[P, R]: ...
    def __call__(self, fn: Any, /) -> Any: ...


@overload
def workflow(fn: Callable[P, Coroutine[Any, Any, R]], /) -> Workflow[P, R]: ...
@overload
def workflow(
    *,
    name: str | None = None,
    version: str | None = None,
    schedule: str | None = None,
    timezone: str = "UTC",
    missed: Missed = "latest",
) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], Workflow[P, R]]: ...
def workflow(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    version: str | None = None,
    schedule: str | None = None,
    timezone: str = "UTC",
    missed: Missed = "latest",
) -> Any:
    """Make an `async def` durable: it survives crashes, waits for days and resumes where it was.

    What it does must follow from its arguments and from what it awaits; the rest belongs into steps.
    `version` is recorded with each run, for people and for `hf.run_info().version`.

    With `schedule`, a cron expression that speaks of the clock of `timezone`, a run is started at each due time,
    one whatever the number of workers. Of due times that nobody saw to, `missed` says which are made up for: the
    latest one, all, or none. Such a workflow needs no arguments; `hf.run_info().due` is the due time.

    Example:
        @hf.workflow
        async def fulfil(order: Order) -> Result: ...

        @hf.workflow(schedule="0 9 * * MON-FRI", timezone="Europe/Berlin")
        async def report() -> None: ...
    """
    plan = None if schedule is None else Schedule(schedule, timezone, missed)
    if fn is not None:
        return Workflow(fn, name, version, plan)
    return lambda function: Workflow(function, name, version, plan)


# ---- inside a workflow --------------------------------------------------------------------------------------


async def sleep(duration: float | timedelta | datetime) -> None:
    """Sleep durably: for seconds or a timedelta, or until an aware datetime. Outside a workflow: plainly.

    Example:
        await hf.sleep(timedelta(days=3))
    """
    if isinstance(duration, datetime):
        runtime = here.runtime
        if runtime is not None:
            await runtime.sleep_until(duration)
            return
        duration = duration - datetime.now(duration.tzinfo)
    if isinstance(duration, timedelta):
        duration = duration.total_seconds()
    import asyncio  # a third of `import holdfast`, where it is all that is imported

    await asyncio.sleep(duration)


@overload
def hook(token: str, *, type: type[T], metadata: Any = None) -> Hook[T]: ...
@overload
def hook(token: str, *, type: Any = Any, metadata: Any = None) -> Hook[Any]: ...
def hook(token: str, *, type: Any = Any, metadata: Any = None) -> Hook[Any]:
    """Open a hook: a place where this run waits for payloads sent to `token`.

    It is open from this call on (committed with this tick). `type` is what payloads must be: senders are
    told when theirs does not fit. `metadata` (JSON) describes it to people who list hooks.

    Example:
        answer = await hf.hook("approve:1", type=Approval)
    """
    return _inside("hf.hook()").hook(token, type, metadata)


def continue_as_new(*args: Any, **kwargs: Any) -> NoReturn:
    """End this run and go on as a new one, with these arguments and a fresh log.

    For runs that live on and on: a log has its limit. Hooks that are open stay open for the new run, and payloads
    that were not read go along. `run.result()` waits for the last run of the chain. Open steps, timers and child
    runs do not go along: children are cancelled. Call it where the workflow would return, not in a task.

    Example:
        @hf.workflow
        async def counter(count: int) -> int:
            commands = hf.hook("counter", type=str)
            for _ in range(1000):
                if await commands == "stop":
                    return count
                count += 1
            hf.continue_as_new(count)
    """
    _inside("hf.continue_as_new()").continue_as_new(args, kwargs)


def now() -> datetime:
    """The workflow's clock: when the event that it sees now was recorded (aware, UTC); same on replay."""
    return _inside("hf.now()").now()


def random() -> _random.Random:
    """A random generator seeded by the run: it gives the same numbers on replay.

    Example:
        pick = hf.random().choice(candidates)
    """
    return _inside("hf.random()").random()


def uuid4() -> UUID:
    """A random UUID that is the same on replay."""
    return _inside("hf.uuid4()").uuid4()


def patched(id: str) -> bool:
    """Whether this run takes the new way of a change that was made while runs were in flight.

    True for runs that come here with today's code, False for runs whose log went past here without it. The
    first answer holds for the whole run.

    Example:
        if hf.patched("notify-by-mail"):
            await mail(order)
        else:
            await fax(order)
    """
    return _inside("hf.patched()").patched(id)


def set_attributes(attributes: Mapping[str, str | None] | None = None, /, **more: str | None) -> None:
    """Put searchable text on the run (`holdfast runs --attribute k=v`); None removes a key.

    At most 64 keys of 1–256 characters, values of at most 256 bytes. Raises PayloadError beyond that.

    Example:
        hf.set_attributes(customer="ana", stage="paid")
    """
    _inside("hf.set_attributes()").set_attributes({**(attributes or {}), **more})


def check_run_id(run_id: str) -> str:
    """A run id that somebody chose. Raises PayloadError where it is none."""
    if not isinstance(run_id, str) or not 1 <= len(run_id) <= 512 or not run_id.isprintable():
        raise PayloadError(f"run_id: expected 1–512 printable characters, got {run_id!r:.80}")
    return run_id


MAX_ATTRIBUTES, MAX_KEY, MAX_VALUE = 64, 256, 256


def check_attributes(attributes: Mapping[str, str]) -> None:
    """Refuse attributes beyond the limits, with PayloadError."""
    for name, value in attributes.items():
        if not isinstance(name, str) or not 1 <= len(name) <= MAX_KEY or not name.isprintable():
            raise PayloadError(f"attribute name: expected 1–{MAX_KEY} printable characters, got {name!r:.80}")
        if not isinstance(value, str):
            raise PayloadError(f"attribute {name}: expected str, got {type(value).__name__}")
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            raise PayloadError(f"attribute {name}: expected text, got a lone surrogate") from None
        if size > MAX_VALUE:
            raise PayloadError(f"attribute {name}: expected at most {MAX_VALUE} bytes, got {size}")
    if len(attributes) > MAX_ATTRIBUTES:
        raise PayloadError(f"attributes: expected at most {MAX_ATTRIBUTES}, got {len(attributes)}")


def run_info() -> RunInfo:
    """Id, workflow, start and attributes of the run that asks."""
    return _inside("hf.run_info()").info()


# ---- inside a step ------------------------------------------------------------------------------------------


def step_info() -> StepInfo:
    """Run, key and attempt of the step that asks.

    Example:
        await bank.charge(card, amount, idempotency_key=hf.step_info().key)
    """
    attempt = _attempt.get()
    if attempt is None:
        raise DefinitionError("hf.step_info() works in a running step only")
    return attempt.info


def heartbeat() -> None:
    """Say that this attempt is alive; needed where the step has `heartbeat=`. Safe from threads."""
    attempt = _attempt.get()
    if attempt is None:
        raise DefinitionError("hf.heartbeat() works in a running step only")
    attempt.heartbeat()
