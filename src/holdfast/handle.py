"""A handle on one run: its result, its log, and what may be asked of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Generic, TypeVar, cast

import msgspec

from . import failures, ids
from .chunks import check_name
from .clock import to_datetime
from .codec import UNTYPED, PayloadType
from .ends import Ends
from .errors import RunCancelled, RunEnded, RunFailed, RunNotFound
from .events import ENDS, Event, fold, new, reader
from .store.base import Store
from .store.rows import Head, Status
from .store.succession import continued_as, last_of, succeed
from .streams import StreamReader, Streams
from .workflow import Workflow, workflows

R = TypeVar("R")

PAGE = 200
"""Rows that are read at once where people iterate over many."""


class RunSummary(msgspec.Struct, frozen=True):
    """A run as it stands: `await run.info()`, `app.runs()`.

    `parked` is why it was set aside ({"kind", "message"}), or None. `unread` counts the payloads that came and
    were not read; it is known once the run has ended. `parent` and `root` are as in `hf.run_info()`.
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
    parent: str | None
    root: str


class Run(Generic[R]):
    """A handle on one run. `existed`: the start that gave this handle found the run there already."""

    existed = False

    def __init__(
        self,
        store: Store,
        ends: Ends,
        streams: Streams,
        run_id: str,
        workflow: Workflow[..., R] | None = None,
    ) -> None:
        self.id = run_id
        self._store = store
        self._ends = ends
        self._streams = streams
        self._workflow = workflow

    def __repr__(self) -> str:
        return f"<run {self.id}>"

    async def result(self, timeout: float | None = None) -> R:
        """What the workflow returned, as soon as it has; of a run that continued as new ones, what the last did.

        Raises TimeoutError after `timeout` seconds (the run goes on), RunFailed (the original exception is its
        `__cause__`), RunCancelled, RunNotFound.
        """
        try:
            async with asyncio.timeout(timeout):
                end = await self.end()
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

    async def end(self) -> Event:
        """The event that ended it, as soon as it has; of a run that continued as others, the end of the last.

        Raises RunNotFound.
        """
        run_id, end = self.id, await self._ends.of(self.id)
        while (successor := continued_as(end)) is not None:
            try:
                end = await self._ends.of(successor)
            except RunNotFound:
                await succeed(self._store, run_id)
                continue
            run_id = successor
        return end

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
        head = await self._store.head(self.id)
        if head is None:
            raise RunNotFound(f"no run {self.id!r} in {self._store.url}")
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
            size = PAGE if left is None else min(PAGE, left)
            page = await self._store.read(self.id, after, size)
            for event in page:
                yield event if data else msgspec.structs.replace(event, body=b"{}")
            if len(page) < size:
                return
            after = page[-1].position
            left = None if left is None else left - size

    def stream(self, name: str, after: int = 0, *, latest: bool = False) -> StreamReader:
        """A stream of the run, beyond the position `after`: what is there, and then what comes.

        It ends with the stream's end mark, or with the run. A reader that was cut off goes on with `after` =
        the last position it has seen. With `latest`, chunks of an attempt that a later attempt of the same step
        has superseded are left out; what was handed out before that attempt wrote is not taken back.

        Example:
            async for chunk in run.stream("answer"):
                print(chunk.data, end="", flush=True)
        """
        check_name(name, "stream name")
        return StreamReader(self._streams, self.id, name, after, latest=latest)

    async def streams(self) -> list[str]:
        """The names of the streams that the run has written to, in the order of their first chunks."""
        return [head.name for head in await self._store.streams(self.id)]

    async def cancel(self, reason: str = "") -> bool:
        """Ask the run to cancel: CancelledError at its await, `finally` blocks may run steps.

        False where the run has ended, or ends otherwise than by this request; True where it is cancelled or has
        still to take notice (no worker serves it just now).
        """
        try:
            answer = await self._store.append(self.id, [new("cancel_requested", data={"reason": reason})])
        except RunEnded:
            last = await self._continuation()
            return (await self._head()).status == "cancelled" if last is None else await last.cancel(reason)
        return await self._was_noticed(answer.first, reason)

    async def _was_noticed(self, position: int, reason: str) -> bool:
        head = await self._head()
        if head.ended is None and head.owner is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ends.of(self.id), 0.5)
            head = await self._head()
        if head.ended is None or head.status == "cancelled":
            return True
        last = await self._continuation()
        if last is not None:
            return await last.cancel(reason)
        # It ended by itself. Where commands stand between the request and the end, the code has seen it.
        events = await self._store.read(self.id, position)
        return any(event.cls == "command" and event.type not in ENDS for event in events)

    async def terminate(self, reason: str = "") -> bool:
        """End the run without asking its code; no `finally` block runs. False where it had ended."""
        end = new("run_cancelled", data={"reason": reason, "by": "terminate"})
        try:
            answer = await self._store.append(self.id, [end])
        except RunEnded:
            last = await self._continuation()
            return False if last is None else await last.terminate(reason)
        return not answer.duplicates  # it had been cancelled before

    async def wake(self) -> bool:
        """End its pending sleeps early, and let it try again where it is parked. False where it has ended."""
        head = await self._head()
        if head.parked is not None:
            await self._store.park(self.id, None)
        try:
            await self._store.append(self.id, [new("woken", data={"id": ids.delivery_id()})])
        except RunEnded:
            last = await self._continuation()
            return False if last is None else await last.wake()
        return True

    async def _continuation(self) -> Run[R] | None:
        """The run as which this one goes on, or None."""
        last, _ = await last_of(self._store, self.id)
        return None if last == self.id else Run(self._store, self._ends, self._streams, last, self._workflow)

    async def unread(self) -> int:
        """How many payloads were accepted for the run and not read by it (known once it has ended)."""
        return fold([event async for event in self.events()]).unread or 0


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
        head.parent,
        head.root or head.run,
    )
