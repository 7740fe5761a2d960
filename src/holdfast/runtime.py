"""What workflow code stands on: an abstract runtime, and what it and a step's attempt tell about themselves.

Nothing here knows how a workflow is run. While a thread runs workflow code, `here.runtime` is the `Runtime`
behind it, which the engine implements; in a step, `attempt_here` holds the attempt that runs. (The first is no
context variable, for code that copies contexts about must not carry a run into places where it does not run.)
"""

from __future__ import annotations

import abc
import random as _random
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Mapping
from contextvars import ContextVar
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Protocol, TypeVar
from uuid import UUID

import msgspec

from .chunks import Chunk
from .errors import DefinitionError

if TYPE_CHECKING:
    from .workflow import Step, Workflow

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

    __slots__ = ()

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
attempt_here: ContextVar[Attempt | None] = ContextVar("holdfast_attempt", default=None)


def inside(what: str, remedy: str = "call it in an @hf.workflow function") -> Runtime:
    """The runtime of the workflow code that asks for `what`. Raises DefinitionError elsewhere."""
    runtime = here.runtime
    if runtime is None:
        raise DefinitionError(f"{what} works in workflow code only: {remedy}")
    return runtime
