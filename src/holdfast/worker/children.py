"""The child runs of one run in this worker: they are started, listened to and cancelled from here.

What it guarantees: a child that its parent's log asks for is started, exactly once, and its end reaches the
log of its parent, whoever dies in between. It rests on three things, and on no transaction over two runs:

- `child_started` is committed first, and puts the child among the parent's open children (`Store.children`):
  so a worker must hold the parent, and whoever takes it over does all of this again;
- each act is idempotent: a run is created once under its id, asked once to cancel, and `child_ended` is
  unique by its key;
- the parent *pulls*: it hears the end of its child by the store's news, and where that was lost it asks
  (`Store.ended_children`). So nobody has to write into another run's log while he ends his own.

A child to be cancelled that was never started is created all the same, with its end at once: else a worker
that was paused in the middle could start it when nobody thinks of it any more.

Rejected: the child's worker appends to the parent's log (one more commit for each child, for the parent's
worker then reads it and appends what follows); one transaction over both runs (they may be on two shards).
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from .. import faults, ids, tracing
from ..engine.children import ChildCall
from ..errors import HoldfastError, KeyMissing, RunEnded, RunNotFound, StaleLog, StoreError
from ..events import Draft, Event, dump_json, new, reader
from ..store.base import Store
from ..store.rows import Child
from ..store.succession import last_of, succeed

if TYPE_CHECKING:
    from .worker import Worker

log = logging.getLogger("holdfast.worker")

_RETRY_FIRST, _RETRY_MOST = 0.05, 2.0
"""Seconds between two tries of what the store could not do."""


class Children:
    """What this worker does about the open children of one run."""

    def __init__(self, worker: Worker, run_id: str, told: Callable[[Draft], None]) -> None:
        self._worker = worker
        self._run_id = run_id
        self._told = told
        self._root = run_id
        self._open: dict[str, ChildCall] = {}
        self._keys: dict[str, set[str]] = {}  # child -> the keys under which its parent waits for it
        self._created: set[str] = set()
        self._unwanted: set[str] = set()
        self._cared_for: dict[str, ChildCall] = {}
        self._again: set[str] = set()
        self.carrier: tracing.Carrier = {}  # the context of the run, where spans are made
        self._last: dict[str, str] = {}  # key -> the run as which the child has continued

    @property
    def open(self) -> list[str]:
        """The ids of the children that the run has not heard the end of."""
        return [child for child, keys in self._keys.items() if keys]

    @property
    def busy(self) -> bool:
        """Whether something is being done about one of them just now."""
        return bool(self._cared_for)

    def started(self, call: ChildCall, root: str) -> None:
        """The command that asks for a child is committed."""
        self._root = root
        self._open[call.key] = call
        self._keys.setdefault(call.run, set()).add(call.key)
        self._worker.runs.listen_for(call.run, self._run_id)
        self._look_after(call.key)

    def cancelled(self, key: str) -> None:
        """Nobody waits for this child any more, and the log says so."""
        if key in self._open:
            self._unwanted.add(key)
            self._look_after(key)

    def take_up(self, calls: Mapping[str, ChildCall], rows: list[Child], root: str) -> None:
        """The log was read anew: all its open children, in whatever state they are."""
        self.close()
        for row in rows:
            call = calls.get(row.key)
            if call is not None:
                if row.status == "cancelling":
                    self._unwanted.add(row.key)
                self.started(call, root)

    def heard(self, child: str) -> None:
        """A run with this id has ended."""
        for key in sorted(self._keys.get(child, ())):
            self._look_after(key)

    def close(self) -> None:
        """Do nothing more; whoever has the run next takes its children up."""
        self._open.clear()
        self._keys.clear()
        self._last.clear()
        self._created.clear()
        self._unwanted.clear()

    # ---- one child

    def _look_after(self, key: str) -> None:
        if self._cared_for.get(key) is self._open[key]:
            self._again.add(key)
        else:
            self._cared_for[key] = self._open[key]
            self._worker.spawn(self._care(self._open[key]))

    async def _care(self, call: ChildCall) -> None:
        retry, key, here = _RETRY_FIRST, call.key, True
        try:
            while self._open.get(key) is call:
                self._again.discard(key)
                try:
                    outcome = await self._step(call, here=here)
                except StoreError as error:
                    if self._worker.stopping:
                        return
                    self._worker.log.warning(
                        "%s: child %s is tried again: %s",
                        self._run_id,
                        key,
                        error,
                        extra={"run": self._run_id},
                    )
                    here = False  # where its first tick is what went wrong, that is its own affair
                    await asyncio.sleep(retry)
                    retry = min(2 * retry, _RETRY_MOST)
                    continue
                if outcome is not None:
                    self._tell(call, outcome)
                    return
                if key not in self._again:
                    return
        finally:
            if self._cared_for.get(key) is call:
                del self._cared_for[key]

    async def _step(self, call: ChildCall, *, here: bool) -> Draft | None:
        """Do what is to be done about a child now; what its parent is to be told, if it is known."""
        worker, key = self._worker, call.key
        if key not in self._created:
            faults.point("child.start.before")
            created = creation(self._run_id, self._root, key, call.data)
            starting = None
            if tracing.active is not None and self.carrier:
                starting = tracing.active.starting(call.workflow.name, call.run, self.carrier)
                created = new("run_created", data={**created.data, **starting.carrier})
            refused = await self._create(call, created, starting, here=here)
            faults.point("child.start.after")
            if refused is not None:
                return refused
            self._created.add(key)
            if call.detached:
                return new("child_ended", key=key, data={"status": "started", "run": call.run})
        try:
            run, end = await last_of(worker.store, self._last.get(key, call.run))
        except RunNotFound:
            message = f"child run {call.run} was removed from the store before its parent heard of its end"
            return new(
                "child_ended", key=key, data={"status": "refused", "run": call.run, "message": message}
            )
        if run != call.run:  # it has continued as another run
            self._last[key] = run
            self._keys.setdefault(run, set()).add(key)
            worker.runs.listen_for(run, self._run_id)
        if end is not None:
            faults.point("child.end.heard")
            return ended(key, end)
        if key in self._unwanted:
            await cancel(worker.store, run, self._run_id)
        return None

    async def _create(
        self, call: ChildCall, created: Draft, starting: tracing.Starting | None, *, here: bool
    ) -> Draft | None:
        """Start the child, `here` if there is room; or find it there. Its refusal, where it is not ours."""
        worker = self._worker
        definition = worker.definition(call.workflow.name)
        await worker.runs.started(call.run)
        try:
            if call.key in self._unwanted and not call.detached:
                await create_ended(worker.store, call.run, created, self._run_id)
            elif here and definition is not None and worker.runs.has_room and not worker.runs.has(call.run):
                await worker.runs.begin(definition, call.run, created)
            else:
                await worker.store.append(call.run, [created], after=0)
            if starting is not None:
                starting.done()
        except StaleLog:
            there = (await worker.store.read(call.run, limit=1))[0]
            refusal = _refusal(self._run_id, call, there)
            if refusal:
                return new(
                    "child_ended",
                    key=call.key,
                    data={"status": "refused", "run": call.run, "message": refusal},
                )
        except StoreError:
            raise
        except HoldfastError as error:  # it cannot be started at all, not here and not later
            return new(
                "child_ended",
                key=call.key,
                data={"status": "refused", "run": call.run, "message": str(error)},
            )
        return None

    def _tell(self, call: ChildCall, outcome: Draft) -> None:
        if self._open.get(call.key) is call:
            del self._open[call.key]
            for run in {call.run, self._last.pop(call.key, call.run)}:
                self._keys[run].discard(call.key)
                if not self._keys[run]:
                    self._worker.runs.listen_no_more(run)
            self._told(outcome)


def _refused(call: ChildCall, message: str) -> Draft:
    return new("child_ended", key=call.key, data={"status": "refused", "run": call.run, "message": message})


def creation(parent: str, root: str, key: str, asked: Mapping[str, Any]) -> Draft:
    """The first event of a child; `asked` is what the `child_started` of its parent holds."""
    data: dict[str, Any] = {
        "workflow": asked["workflow"],
        "args": asked["args"],
        "seed": ids.seed(),
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "parent": {"run": parent, "key": key},
        "root": root,
    }
    data.update({name: asked[name] for name in ("version", "attributes") if name in asked})
    return new("run_created", data=data)


def _refusal(parent: str, call: ChildCall, created: Event) -> str:
    """Why the run that has the child's id is not that child; '' where it is."""
    there = created.data
    if (there.get("parent") or {}).get("run") != parent:
        return f"run {call.run!r} exists already, and is no child of {parent}: choose another run_id"
    if there.get("workflow") != call.data["workflow"]:
        return (
            f"run {call.run!r} exists already, of workflow {there.get('workflow')!r}: choose another run_id"
        )
    args = dump_json(there.get("args"))
    if not call.workflow.arguments.same(args, bytes(call.data["args"])):
        return (
            f"run {call.run!r} exists already, with another input: choose another run_id, or the same input"
        )
    return ""


class _End(msgspec.Struct):
    value: msgspec.Raw = msgspec.Raw(b"null")
    error: msgspec.Raw = msgspec.Raw(b"{}")
    reason: str = ""


_read_end = reader(_End)


def ended(key: str, end: Event) -> Draft:
    """What the parent's log says of a child's end."""
    told = _read_end(end.body)
    status = end.type.removeprefix("run_")
    more: dict[str, Any]
    if status == "completed":
        more = {"value": told.value}
    elif status == "failed":
        more = {"error": told.error}
    else:
        more = {"reason": told.reason}
    return new("child_ended", key=key, data={"status": status, "run": end.run, **more})


# ---- children that nobody waits for --------------------------------------------------------------------------


async def cancel(store: Store, child: str, parent: str) -> None:
    """Ask a child to cancel, durably; one that has ended needs it no more."""
    try:
        await store.append(child, [new("cancel_requested", data={"reason": _unwanted(parent)})])
    except RunEnded:
        pass


async def create_ended(store: Store, child: str, created: Draft, parent: str) -> None:
    """Create a child with its end: it was cancelled before it began. Raises StaleLog where it is there."""
    end = new("run_cancelled", data={"reason": _unwanted(parent), "by": "engine"})
    await store.append(child, [created, end], after=0)


def _unwanted(parent: str) -> str:
    return f"its parent {parent} does not wait for it any more"


async def see_to_orphans(store: Store) -> None:
    """Cancel the children whose parent has ended; start detached ones, and successors, that were not started."""
    seen = -1
    while seen != 0 and (orphans := await store.orphans()):
        seen = 0
        for orphan in orphans:
            try:
                await _see_to(store, orphan)
            except KeyMissing as error:  # a worker with the keys will do it
                log.info("%s, child %s: %s", orphan.run, orphan.key, error, extra={"run": orphan.run})
                continue
            await store.bury_orphan(orphan.run, orphan.key)
            seen += 1


async def _see_to(store: Store, orphan: Child) -> None:
    if orphan.status == "continued":
        await succeed(store, orphan.run)
        return
    there = await store.head(orphan.child)
    if there is None:
        parent = await store.head(orphan.run)
        asked = (await store.read(orphan.run, orphan.position - 1, 1))[0].data
        asked["args"] = msgspec.Raw(dump_json(asked["args"]))
        root = orphan.run if parent is None or parent.root is None else parent.root
        created = creation(orphan.run, root, orphan.key, asked)
        try:
            if orphan.status == "detached":
                await store.append(orphan.child, [created], after=0)
            else:
                await create_ended(store, orphan.child, created, orphan.run)
        except StaleLog:
            there = await store.head(orphan.child)  # somebody was quicker
    if there is not None and there.parent == orphan.run and orphan.status != "detached":
        last, _ = await last_of(store, orphan.child)
        await cancel(store, last, orphan.run)
