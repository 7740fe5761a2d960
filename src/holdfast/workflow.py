"""`@workflow` and `@step`: what a program defines. Outside of runs each is the plain function that it was."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from datetime import timedelta
from inspect import signature
from typing import Any, ParamSpec, TypeVar, overload

from .definition import Backoff, Definition, Options, Registry, seconds
from .errors import DefinitionError
from .queues import Placement, Queue, placement
from .runtime import ChildOptions, ChildRun, here, inside
from .schedules import Missed, Schedule

P = ParamSpec("P")
R = TypeVar("R")


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
        return inside(f"{self.name}.run()", _START).child(self, args, kwargs, options)

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
        return inside(f"{self.name}.start()", _START).child(self, args, kwargs, options)


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
