"""What applications hold: `connect`, the app, and handles on runs.

async with hf.connect("sqlite:///app.db") as app:
    async with app.worker():
        run = await app.start(fulfil, order, run_id="order-1")
        result = await run.result(timeout=60)
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

import msgspec

from . import ids, sending, tracing
from .clock import Clock
from .codec import DEFAULT_LIMIT, check_bounds
from .definition import seconds
from .ends import Ends
from .errors import (
    DefinitionError,
    RunExists,
    RunNotFound,
    StaleLog,
)
from .events import dump_json, load_json, new, reader
from .handle import PAGE, Run, RunSummary, summary
from .keys import Keys
from .labels import check_attributes, check_run_id
from .prune import BATCH, Pruned, prune
from .sending import Resumed
from .store.base import Store
from .store.rows import Hook, RunFilter, Status, Timer
from .store.url import open_store
from .streams import Streams
from .worker import Worker
from .workflow import Workflow, workflows

if TYPE_CHECKING:
    from .trail.folder import TrailFolder

P = ParamSpec("P")
R = TypeVar("R")


class _Created(msgspec.Struct):
    workflow: str
    args: msgspec.Raw = msgspec.Raw(b"{}")
    attributes: dict[str, str] = {}


_read_created = reader(_Created)


def default_url() -> str:
    """The store where none is named: $HOLDFAST_URL, else a file in the current folder."""
    return os.environ.get("HOLDFAST_URL") or "sqlite:///.holdfast/holdfast.db"


def connect(
    url: str | None = None,
    *,
    payload_limit: int = DEFAULT_LIMIT,
    clock: Clock | None = None,
    keys: Keys | None = None,
) -> App:
    """An app on a store: `memory://`, `memory://name`, `sqlite:///rel.db`, `sqlite:////abs/x.db`.

    Use it with `async with`. Without `url`: $HOLDFAST_URL, else sqlite:///.holdfast/holdfast.db.
    `payload_limit` bounds one argument list, result or payload, in bytes. `keys` seals payloads at rest
    (default: the key file that $HOLDFAST_KEYS names, if any).

    Example:
        async with hf.connect("sqlite:///app.db") as app:
            run = await app.start(fulfil, order)
    """
    return App(open_store(url or default_url(), clock=clock, keys=keys), payload_limit=payload_limit)


class App:
    """A store and, perhaps, a worker in this process."""

    def __init__(self, store: Store, *, payload_limit: int = DEFAULT_LIMIT) -> None:
        self.store = store
        self.payload_limit = payload_limit
        self._worker: Worker | None = None
        self._ends = Ends(store, self._drives)
        self._streams = Streams(store)

    async def __aenter__(self) -> Self:
        await self.store.open()
        self._ends.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ends.close()
        await self.store.close()

    @contextlib.asynccontextmanager
    async def worker(
        self,
        *,
        concurrency: int = 100,
        trails: TrailFolder | str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> AsyncIterator[Worker]:
        """Serve every workflow of this process until the block is left; see `Worker` for the options.

        Leaving the block lets running steps finish, then hands the rest back. With `trails`, a folder or its
        path, each run of these workflows has its trail there, kept current while the run goes on.

        Example:
            async with app.worker(concurrency=20):
                await asyncio.Event().wait()
        """
        options.setdefault("payload_limit", self.payload_limit)
        worker = Worker(self.store, concurrency=concurrency, **options)
        async with contextlib.AsyncExitStack() as stack:
            if trails is not None:
                from .trail.recorder import keeping

                await stack.enter_async_context(keeping(self.store, trails, workflows.names))
            await stack.enter_async_context(worker)
            self._worker = worker
            try:
                yield worker
            finally:
                self._worker = None

    def _drives(self, run_id: str) -> bool:
        return self._worker is not None and self._worker.runs.drives(run_id)

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
        raw = written(workflow, args, kwargs)
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
        origin: str | None = None,
    ) -> Run[Any]:
        """Start a run by the workflow's name, with arguments as a JSON object: for those without its code.

        `origin` is the run that this one repeats; it stands in the log and nothing rests on it.
        """
        worker = self._worker
        if worker is not None:
            await worker.runs.starts.join()
        check_bounds(args, self.payload_limit, f"{name} arguments")
        check_attributes(attributes or {})
        run_id = ids.run_id() if run_id is None else check_run_id(run_id)
        data: dict[str, Any] = {
            "workflow": name,
            "args": msgspec.Raw(args),
            "seed": ids.seed(),
            "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        }
        if definition is not None and definition.version is not None:
            data["version"] = definition.version
        if attributes:
            data["attributes"] = dict(attributes)
        if origin is not None:
            data["origin"] = origin
        starting = None if tracing.active is None else tracing.active.starting(name, run_id)
        if starting is not None:
            data.update(starting.carrier)
        created = new("run_created", data=data)
        run: Run[Any] = Run(self.store, self._ends, self._streams, run_id, definition)
        try:
            if worker is not None and definition is not None and worker.advances and not worker.stopping:
                await worker.runs.started(run_id)
                if worker.runs.has(run_id) and await self.store.head(run_id) is None:
                    worker.runs.let_go(run_id)
                if worker.runs.has(run_id):
                    await self._same_run(run_id, name, args, definition)
                    run.existed = True
                else:
                    await worker.runs.begin(definition, run_id, created)
            else:
                await self.store.append(run_id, [created], after=0)
        except StaleLog:
            await self._same_run(run_id, name, args, definition)
            run.existed = True
        if starting is not None and not run.existed:
            starting.done()
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

    async def rerun(self, run_id: str, *, new_id: str | None = None) -> Run[Any]:
        """Start a new run of the same workflow, with the same input and first attributes; it names its origin.

        The old run stays as it is, whether it has ended or not. Raises RunNotFound, and RunExists where `new_id`
        is the id of a run with another input.

        Example:
            again = await app.rerun("order-1")
        """
        log = await self.store.read(run_id, limit=1)
        if not log:
            raise RunNotFound(f"no run {run_id!r} in {self.store.url}")
        created = _read_created(log[0].body)
        return await self.start_raw(
            created.workflow,
            bytes(created.args),
            run_id=new_id,
            attributes=created.attributes,
            definition=workflows.get(created.workflow),
            origin=run_id,
        )

    def run(self, run_id: str) -> Run[Any]:
        """A handle on a run; nothing is asked of the store until you use it."""
        return Run(self.store, self._ends, self._streams, run_id, None)

    async def runs(
        self,
        *,
        status: Status | None = None,
        workflow: str | None = None,
        attributes: Mapping[str, str] | None = None,
        parked: bool | None = None,
        parent: str | None = None,
        root: str | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[RunSummary]:
        """Runs, newest first. The cursor is stable: runs that start meanwhile do not shift it.

        `parent`: the child runs of one run; `root`: a run and all that is below it.

        Example:
            async for run in app.runs(status="running", workflow="fulfil"): ...
        """
        which = RunFilter(status, workflow, attributes, parked, parent, root)
        async for head in self.store.all_runs(which, limit=limit, page=PAGE):
            yield summary(head)

    async def hooks(
        self, *, run: str | None = None, token: str | None = None, open_only: bool = True
    ) -> AsyncIterator[Hook]:
        """Hooks by token, with schema and metadata."""
        after: tuple[str, str] | None = None
        while True:
            page = await self.store.hooks(run=run, token=token, open_only=open_only, after=after, limit=PAGE)
            for hook in page:
                yield hook
            if len(page) < PAGE:
                return
            after = (page[-1].token, page[-1].run)

    async def timers(self, *, run: str | None = None, limit: int = 100) -> list[Timer]:
        """Pending timers, the earliest first."""
        return await self.store.timers(run=run, limit=limit)

    async def prune(
        self,
        older_than: float | timedelta,
        *,
        status: Status | None = None,
        workflow: str | None = None,
        dry_run: bool = False,
        batch: int = BATCH,
        progress: Callable[[Pruned], None] | None = None,
    ) -> Pruned:
        """Remove runs that ended longer ago than this (seconds or a timedelta), and all that belongs to them.

        It goes in portions of `batch` runs, each a short transaction, and leaves writers the store in between.
        What somebody still needs stays, see `Pruned`; the rest is forgotten: its id may be taken again, and a
        payload that is sent to it again is unknown. With `dry_run` nothing is removed, only counted.
        Raises DefinitionError for a negative time, StoreError.

        Example:
            pruned = await app.prune(timedelta(days=30), status="completed")
        """
        now = self.store.clock.now()
        age = min(seconds(older_than, "older_than"), now / 1e6)
        return await prune(
            self.store,
            now - round(age * 1e6),
            status=status,
            workflow=workflow,
            dry_run=dry_run,
            batch=batch,
            progress=progress,
        )

    async def resume(self, token: str, payload: Any = None, *, delivery_id: str | None = None) -> Resumed:
        """Send a payload to the run that has a hook open under `token`; it is durable when this returns.

        The payload is checked against the hook's type first: PayloadError, and the run is untouched. Sending
        again under the same `delivery_id` is answered with the first one's position. Raises HookNotFound
        (`.reason`: unknown, closed, run_ended) and DeliveryConflict.

        Example:
            await app.resume("approve:1", Approval(ok=True), delivery_id=request.id)
        """
        return await sending.send(self.store, self.payload_limit, token, payload, delivery_id)

    async def resume_raw(
        self, token: str, payload: bytes, *, delivery_id: str | None = None, digest: str | None = None
    ) -> Resumed:
        """`resume` with JSON text that has been checked.

        By `digest`, two payloads under one delivery id are told apart; it is computed where it is not given.
        """
        return await sending.send_raw(self.store, self.payload_limit, token, payload, delivery_id, digest)


def written(workflow: Workflow[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
    """The arguments of a start as JSON. Raises DefinitionError, and PayloadError where they do not fit."""
    if not isinstance(workflow, Workflow):
        raise DefinitionError(f"expected a function decorated with @hf.workflow, got {workflow!r}")
    workflows.check(workflow)
    raw = workflow.arguments.encode(args, kwargs)
    workflow.arguments.decode(raw)
    return raw


__all__ = ["App", "Run", "RunSummary", "connect", "default_url"]
