"""What applications hold: `connect`, the app, and handles on runs.

async with hf.connect("sqlite:///app.db") as app:
    async with app.worker():
        run = await app.start(fulfil, order, run_id="order-1")
        result = await run.result(timeout=60)
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, ParamSpec, TypeVar, cast

import msgspec

from . import failures, ids
from .clock import Clock, to_datetime
from .codec import DEFAULT_LIMIT, UNTYPED, PayloadType, check_size, payload_type
from .errors import (
    DefinitionError,
    DeliveryConflict,
    HookNotFound,
    PayloadError,
    RunCancelled,
    RunEnded,
    RunExists,
    RunFailed,
    RunNotFound,
    StaleLog,
    StoreBroken,
)
from .events import ENDS, Event, dump_json, fold, load_json, new, reader
from .schema import validate
from .store.base import Head, Hook, News, Status, Store, Timer
from .store.url import open_store
from .worker import Worker
from .workflow import Workflow, check_attributes, workflows

P = ParamSpec("P")
R = TypeVar("R")

_PAGE = 200


class RunSummary(msgspec.Struct, frozen=True):
    """A run as it stands: `await run.info()`, `app.runs()`.

    `parked` is why it was set aside ({"kind", "message"}), or None. `unread` counts the payloads that came and
    were not read; it is known once the run has ended.
    """

    id: str
    workflow: str
    status: Status
    created_at: datetime
    ended_at: datetime | None
    position: int
    attributes: dict[str, str]
    worker: str | None
    parked: dict[str, str] | None
    crashes: int


class Resumed(msgspec.Struct, frozen=True):
    """Where a payload went: the run, its position in the log, and whether it was there already."""

    run_id: str
    position: int
    duplicate: bool


def default_url() -> str:
    """The store where none is named: $HOLDFAST_URL, else a file in the current folder."""
    return os.environ.get("HOLDFAST_URL") or "sqlite:///.holdfast/holdfast.db"


def connect(url: str | None = None, *, payload_limit: int = DEFAULT_LIMIT, clock: Clock | None = None) -> App:
    """An app on a store: `memory://`, `memory://name`, `sqlite:///rel.db`, `sqlite:////abs/x.db`.

    Use it with `async with`. Without `url`: $HOLDFAST_URL, else sqlite:///.holdfast/holdfast.db.
    `payload_limit` bounds one argument list, result or payload, in bytes.

    Example:
        async with hf.connect("sqlite:///app.db") as app:
            run = await app.start(fulfil, order)
    """
    return App(open_store(url or default_url(), clock=clock), payload_limit=payload_limit)


class App:
    """A store and, perhaps, a worker in this process."""

    def __init__(self, store: Store, *, payload_limit: int = DEFAULT_LIMIT) -> None:
        self.store = store
        self.payload_limit = payload_limit
        self._worker: Worker | None = None
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self._unlisten: Callable[[], None] = lambda: None

    async def __aenter__(self) -> App:
        await self.store.open()
        self._unlisten = self.store.listen(self._hear)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._unlisten()
        await self.store.close()

    @contextlib.asynccontextmanager
    async def worker(self, *, concurrency: int = 100, **options: Any) -> AsyncIterator[Worker]:
        """Serve every workflow of this process until the block is left; see `Worker` for the options.

        Leaving the block lets running steps finish, then hands the rest back.

        Example:
            async with app.worker(concurrency=20):
                await asyncio.Event().wait()
        """
        options.setdefault("payload_limit", self.payload_limit)
        worker = Worker(self.store, concurrency=concurrency, **options)
        async with worker:
            self._worker = worker
            try:
                yield worker
            finally:
                self._worker = None

    # ---- runs

    async def start(
        self,
        workflow: Workflow[P, R],
        /,
        *args: Any,
        run_id: str | None = None,
        attributes: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> Run[R]:
        """Start a run; it is durable when this returns.

        With `run_id`, starting again with the same input gives the same run. Raises RunExists where that id has
        another workflow or input, PayloadError where the arguments do not fit (nothing is created then).

        Example:
            run = await app.start(fulfil, order, run_id=f"order-{order.id}")
        """
        raw = _written(workflow, args, kwargs)
        return await self.start_raw(
            workflow.name, raw, run_id=run_id, attributes=attributes, definition=workflow
        )

    async def start_raw(
        self,
        name: str,
        args: bytes,
        *,
        run_id: str | None = None,
        attributes: Mapping[str, str] | None = None,
        definition: Workflow[..., Any] | None = None,
    ) -> Run[Any]:
        """Start a run by the workflow's name, with arguments as a JSON object: for those without its code."""
        check_size(args, self.payload_limit, f"{name} arguments")
        check_attributes(attributes or {})
        run_id = ids.run_id() if run_id is None else _checked_id(run_id)
        data: dict[str, Any] = {
            "workflow": name,
            "args": msgspec.Raw(args),
            "seed": os.urandom(8).hex(),
            "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        }
        if definition is not None and definition.version is not None:
            data["version"] = definition.version
        if attributes:
            data["attributes"] = dict(attributes)
        created = new("run_created", data=data)
        run: Run[Any] = Run(self, run_id, definition)
        worker = self._worker
        try:
            if worker is not None and definition is not None and not worker.stopping:
                await worker.started(run_id)
                if worker.has(run_id):
                    await self._same_run(run_id, name, args, definition)
                else:
                    await worker.begin(definition, run_id, created)
            else:
                await self.store.append(run_id, [created], after=0)
        except StaleLog:
            await self._same_run(run_id, name, args, definition)
        return run

    async def _same_run(
        self, run_id: str, name: str, args: bytes, definition: Workflow[..., Any] | None
    ) -> None:
        """Whether the run that has this id already is the one that was asked for. Raises RunExists."""
        there = (await self.store.read(run_id, limit=1))[0].data
        if there.get("workflow") != name:
            raise RunExists(
                f"run {run_id!r} exists already, of workflow {there.get('workflow')!r}: choose another run_id"
            )
        other = dump_json(there.get("args"))
        same = (
            definition.arguments.same(other, args)
            if definition is not None
            else load_json(args) == there.get("args")
        )
        if not same:
            raise RunExists(
                f"run {run_id!r} exists already, with another input: choose another run_id, or the same input"
            )

    def run(self, run_id: str) -> Run[Any]:
        """A handle on a run; nothing is asked of the store until you use it."""
        return Run(self, run_id, None)

    async def runs(
        self,
        *,
        status: Status | None = None,
        workflow: str | None = None,
        attributes: Mapping[str, str] | None = None,
        parked: bool | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[RunSummary]:
        """Runs, newest first. The cursor is stable: runs that start meanwhile do not shift it.

        Example:
            async for run in app.runs(status="running", workflow="fulfil"): ...
        """
        before: tuple[int, str] | None = None
        left = limit
        while left is None or left > 0:
            size = _PAGE if left is None else min(_PAGE, left)
            page = await self.store.runs(
                status=status,
                workflow=workflow,
                attributes=attributes,
                parked=parked,
                before=before,
                limit=size,
            )
            for head in page:
                yield summary(head)
            if len(page) < size:
                return
            before = (page[-1].created, page[-1].run)
            left = None if left is None else left - size

    async def hooks(
        self, *, run: str | None = None, token: str | None = None, open_only: bool = True
    ) -> AsyncIterator[Hook]:
        """Hooks by token, with schema and metadata."""
        after: tuple[str, str] | None = None
        while True:
            page = await self.store.hooks(run=run, token=token, open_only=open_only, after=after, limit=_PAGE)
            for hook in page:
                yield hook
            if len(page) < _PAGE:
                return
            after = (page[-1].token, page[-1].run)

    async def timers(self, *, run: str | None = None, limit: int = 100) -> list[Timer]:
        """Pending timers, the earliest first."""
        return await self.store.timers(run=run, limit=limit)

    async def resume(self, token: str, payload: Any = None, *, delivery_id: str | None = None) -> Resumed:
        """Send a payload to the run that has a hook open under `token`; it is durable when this returns.

        The payload is checked against the hook's type first: PayloadError, and the run is untouched. Sending
        again under the same `delivery_id` is answered with the first one's position. Raises HookNotFound
        (`.reason`: unknown, closed, run_ended) and DeliveryConflict.

        Example:
            await app.resume("approve:1", Approval(ok=True), delivery_id=request.id)
        """
        _check_text(token, "token")
        tagged = UNTYPED.encode(payload, f"{token} payload")
        plain = _plain(payload, tagged, token)
        raw, other = tagged, plain
        schema = await self._schema(token)
        if schema is not None:
            raw, other = plain, tagged
            validate(schema, json.loads(raw), f"{token} payload")
        try:
            return await self.resume_raw(token, raw, delivery_id=delivery_id)
        except DeliveryConflict:
            # The hook that took it the first time may have had a type, and this one none, or the reverse.
            return await self.resume_raw(token, other, delivery_id=delivery_id)

    async def resume_raw(self, token: str, payload: bytes, *, delivery_id: str | None = None) -> Resumed:
        """`resume` with JSON text that has been checked."""
        check_size(payload, self.payload_limit, f"{token} payload")
        _check_text(token, "token")
        if delivery_id is not None:
            _check_text(delivery_id, "delivery_id")
        answer = await self.store.deliver(token, payload, delivery_id or ids.delivery_id())
        return Resumed(answer.run, answer.first, bool(answer.duplicates))

    async def _schema(self, token: str) -> dict[str, Any] | None:
        hooks = await self.store.hooks(token=token, limit=1)
        return hooks[0].schema if hooks else None

    # ---- waiting

    async def wait_for_end(self, run_id: str) -> Event:
        """The event that ended the run, as soon as there is one. Raises RunNotFound."""
        while True:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            waiting = self._waiting.setdefault(run_id, set())
            waiting.add(future)
            try:
                end = await self._end(run_id)
                if end is not None:
                    return end
                with contextlib.suppress(TimeoutError):
                    # Pushed by whoever commits the end; the time-out is for a notice that was lost.
                    await asyncio.wait_for(future, 5.0)
            finally:
                waiting.discard(future)
                if not waiting:
                    self._waiting.pop(run_id, None)

    async def _end(self, run_id: str) -> Event | None:
        head = await self.store.head(run_id)
        if head is None:
            raise RunNotFound(f"no run {run_id!r} in {self.store.url}")
        if head.ended is None:
            return None
        # The end is last but for late outcomes: look at the tail first, at the whole log if need be.
        for after in (max(0, head.position - 4), 0):
            for event in await self.store.read(run_id, after):
                if event.type in ENDS:
                    return event
        raise StoreBroken(f"run {run_id!r} has ended, but its log holds no end: see `holdfast verify`")

    def _hear(self, news: Sequence[News]) -> None:
        for item in news:
            if item.ended:
                for future in self._waiting.get(item.run, ()):
                    if not future.done():
                        future.set_result(None)


class Run(Generic[R]):
    """A handle on one run."""

    def __init__(self, app: App, run_id: str, workflow: Workflow[..., R] | None) -> None:
        self.id = run_id
        self._app = app
        self._workflow = workflow

    def __repr__(self) -> str:
        return f"<run {self.id}>"

    async def result(self, timeout: float | None = None) -> R:
        """What the workflow returned, as soon as it has.

        Raises TimeoutError after `timeout` seconds (the run goes on), RunFailed (the original exception is its
        `__cause__`), RunCancelled, RunNotFound.
        """
        try:
            async with asyncio.timeout(timeout):
                end = await self._app.wait_for_end(self.id)
        except TimeoutError:
            raise TimeoutError(f"run {self.id} has not ended within {timeout:g} s; it goes on") from None
        if end.type == "run_completed":
            raw = _read_value(end.body).value
            return cast(R, (await self._returns()).decode(raw, f"{self.id} result"))
        data = end.data
        if end.type == "run_cancelled":
            reason = data.get("reason") or ""
            message = f"run {self.id} was cancelled" + (f": {reason}" if reason else "")
            raise RunCancelled(message, run_id=self.id, reason=reason)
        error = failures.rebuild(data["error"])
        kind = type(error).__name__
        raise RunFailed(f"run {self.id} failed: {kind}: {error}", run_id=self.id, type=kind) from error

    async def _returns(self) -> PayloadType:
        workflow = self._workflow
        if workflow is None:
            head = await self._head()
            workflow = workflows.get(head.workflow)
        return UNTYPED if workflow is None else workflow.arguments.returns

    async def status(self) -> Status:
        """pending, running, completed, failed or cancelled."""
        return (await self._head()).status

    async def info(self) -> RunSummary:
        """The run as it stands."""
        return summary(await self._head())

    async def _head(self) -> Head:
        head = await self._app.store.head(self.id)
        if head is None:
            raise RunNotFound(f"no run {self.id!r} in {self._app.store.url}")
        return head

    async def events(
        self, after: int = 0, *, limit: int | None = None, data: bool = True
    ) -> AsyncIterator[Event]:
        """The run's log beyond `after`, in order. Without `data`, what the events hold is left out.

        Example:
            log = [event async for event in run.events()]
        """
        left = limit
        while left is None or left > 0:
            size = _PAGE if left is None else min(_PAGE, left)
            page = await self._app.store.read(self.id, after, size)
            for event in page:
                yield event if data else msgspec.structs.replace(event, body=b"{}")
            if len(page) < size:
                return
            after = page[-1].position
            left = None if left is None else left - size

    async def cancel(self, reason: str = "") -> bool:
        """Ask the run to cancel: CancelledError at its await, `finally` blocks may run steps.

        False where the run has ended, or ends otherwise than by this request; True where it is cancelled or has
        still to take notice (no worker serves it just now).
        """
        try:
            answer = await self._app.store.append(self.id, [new("cancel_requested", data={"reason": reason})])
        except RunEnded:
            return (await self._head()).status == "cancelled"
        return await self._was_noticed(answer.first)

    async def _was_noticed(self, position: int) -> bool:
        head = await self._head()
        if head.ended is None and head.owner is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._app.wait_for_end(self.id), 0.5)
            head = await self._head()
        if head.ended is None or head.status == "cancelled":
            return True
        # It ended by itself. Where commands stand between the request and the end, the code has seen it.
        events = await self._app.store.read(self.id, position)
        return any(event.cls == "command" and event.type not in ENDS for event in events)

    async def terminate(self, reason: str = "") -> bool:
        """End the run without asking its code; no `finally` block runs. False where it had ended."""
        end = new("run_cancelled", data={"reason": reason, "by": "terminate"})
        try:
            answer = await self._app.store.append(self.id, [end])
        except RunEnded:
            return False
        return not answer.duplicates  # it had been cancelled before

    async def wake(self) -> bool:
        """End its pending sleeps early, and let it try again where it is parked. False where it has ended."""
        head = await self._head()
        if head.parked is not None:
            await self._app.store.park(self.id, None)
        try:
            await self._app.store.append(self.id, [new("woken", data={"id": ids.delivery_id()})])
        except RunEnded:
            return False
        return True

    async def unread(self) -> int:
        """How many payloads were accepted for the run and not read by it (known once it has ended)."""
        state = fold([event async for event in self.events()])
        return state.received - state.read if state.ended is not None else 0


class _Value(msgspec.Struct):
    value: msgspec.Raw = msgspec.Raw(b"null")


_read_value = reader(_Value)


def summary(head: Head) -> RunSummary:
    """A run's row as people see it."""
    return RunSummary(
        head.run,
        head.workflow,
        head.status,
        to_datetime(head.created),
        None if head.ended is None else to_datetime(head.ended),
        head.position,
        head.attributes,
        head.owner,
        None if head.parked is None else json.loads(head.parked),
        head.crashes,
    )


def _written(workflow: Workflow[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
    """The arguments of a start as JSON. Raises DefinitionError, and PayloadError where they do not fit."""
    if not isinstance(workflow, Workflow):
        raise DefinitionError(f"expected a function decorated with @hf.workflow, got {workflow!r}")
    workflows.check(workflow)
    raw = workflow.arguments.encode(args, kwargs)
    workflow.arguments.decode(raw)
    return raw


def _plain(payload: Any, tagged: bytes, token: str) -> bytes:
    """The payload as its own class writes it: what a typed hook reads, and what a schema can check."""
    if payload is None or isinstance(payload, str | int | float | bool | list | dict):
        return tagged
    return payload_type(type(payload)).encode(payload, f"{token} payload")


def _check_text(text: str, what: str) -> None:
    try:
        text.encode()
    except (AttributeError, UnicodeEncodeError):
        raise PayloadError(f"{what}: expected text, got {text!r:.80}") from None


def _checked_id(run_id: str) -> str:
    if not isinstance(run_id, str) or not 1 <= len(run_id) <= 512 or not run_id.isprintable():
        raise PayloadError(f"run_id: expected 1–512 printable characters, got {run_id!r:.80}")
    return run_id


def execute(workflow: Workflow[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a workflow to its end and give its result: one call for scripts and notebooks.

    The store is $HOLDFAST_URL, else sqlite:///.holdfast/holdfast.db. Works inside a running loop too (in a
    notebook), on a thread of its own. Raises what `run.result()` raises.

    Example:
        result = hf.execute(fulfil, order)
    """

    async def main() -> R:
        async with connect() as app, app.worker():
            raw = _written(workflow, args, kwargs)
            run: Run[R] = await app.start_raw(workflow.name, raw, definition=workflow)
            return await run.result()

    return _run_sync(main())


def _run_sync(work: Coroutine[Any, Any, R]) -> R:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    outcome: list[R] = []
    failure: list[BaseException] = []

    def target() -> None:
        try:
            outcome.append(asyncio.run(work))
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            failure.append(error)

    thread = threading.Thread(target=target, name="holdfast-execute")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


__all__ = ["App", "HookNotFound", "Resumed", "Run", "RunSummary", "connect", "default_url", "execute"]
