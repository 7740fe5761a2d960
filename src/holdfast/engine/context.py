"""What a workflow's code can ask for, and the commands that come of it.

A `RunContext` is the `Runtime` behind `hf.sleep`, `hf.hook`, step calls and durable timers. Each ask becomes
a command, named by kind, name and the ordinal of that name within its kind (`charge#2`), never by one ordinal
over the whole run: so an extra sleep renames no step.
"""

from __future__ import annotations

import asyncio
import random
import sys
from asyncio import futures
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime
from hashlib import blake2b
from typing import Any

import msgspec

from ..clock import from_datetime
from ..codec import UNTYPED, PayloadType, check_bounds, is_within, payload_type, small
from ..errors import DefinitionError, PayloadError
from ..events import Draft, Event, new, numbered
from ..events.steps import scheduled_body, step_scheduled
from ..ids import child_id, is_webhook_token, webhook_token
from ..labels import check_attributes, check_run_id
from ..runtime import ChildOptions, Hook, chapter_here, here
from ..schema import json_schema
from ..workflow import Step, Workflow, steps, workflows
from . import guard
from . import ordered as _ordered  # noqa: F401 - puts the deterministic as_completed in place
from .burial import Evicted
from .children import ChildCall
from .guard import PENDING, give_turn, switch_off, switch_on, take_turn, watch, watcher
from .history import payload_of
from .hooks import OpenHook
from .loop import DurableTimer, Loop, Timers
from .places import place_of_asking

_WEBHOOKS = ("webhook", "")
"""Under which webhooks are counted; each is named by its token."""
_SLEEPS = futures._set_result_unless_cancelled  # type: ignore[attr-defined]
"""What `asyncio.sleep` gives to its timer: how a sleep is told from a time-out when a run is woken."""
_current_task: Callable[[asyncio.AbstractEventLoop], Any] = (
    asyncio.current_task if sys.version_info >= (3, 12) else asyncio.tasks._current_tasks.get  # type: ignore[attr-defined,unused-ignore] # its own is slow
)


class StepCall(msgspec.Struct, eq=False):
    """A step that workflow code asked for and that owes it an outcome."""

    key: str
    step: Step[..., Any]
    args: bytes
    future: asyncio.Future[Any]
    queued: bool
    """Whether it waits in a queue; what the log says, where it says otherwise than the code."""


class RunContext(Timers):
    """The side of an execution that workflow code sees."""

    # With so many attributes, Python would give each instance a dictionary of 1.6 KB, and look them up there.
    __slots__ = (
        *("_main", "_ordinals", "_patches", "_random", "_tokens", "_uuids", "abandoned", "ahead", "asked"),
        *(
            "attributes",
            "calls",
            "children",
            "created",
            "due",
            "first",
            "hooks",
            "inherited",
            "loop",
        ),
        *("number", "parent", "payload_limit", "places", "previous", "public_url", "read", "root", "run_id"),
        *("__weakref__", "seed", "seen", "sleepers", "small", "version", "workflow"),
    )
    loop: Loop
    _main: asyncio.Task[Any] | None

    def __init__(
        self,
        run_id: str,
        workflow: Workflow[..., Any],
        *,
        payload_limit: int,
        public_url: str,
        locate: bool,
    ) -> None:
        self.run_id = run_id
        self.payload_limit, self.small = payload_limit, small(payload_limit)
        self.public_url = public_url
        self.workflow = workflow
        self.clock = 0
        self.created = 0
        self.seed = ""
        self.version: str | None = None
        self.parent: str | None = None
        self.root = run_id
        self.previous: str | None = None
        self.first = run_id
        self.due: int | None = None
        self.number = 1
        self.inherited: dict[str, list[Event]] = {}
        self.seen = 0
        self.attributes: dict[str, str] = {}
        self.asked: deque[Draft] = deque()
        self.places: list[str] | None = [] if locate else None
        self.calls: dict[str, StepCall] = {}
        self.abandoned: list[str] = []
        self.children: dict[str, ChildCall] = {}
        self.sleepers: dict[str, DurableTimer] = {}
        self.hooks: dict[str, OpenHook] = {}
        self.read = 0
        self.ahead: deque[Event] = deque()
        self._ordinals: dict[str | tuple[str, str], int] = {}  # of a step by its name, else with its kind
        self._tokens: dict[str, OpenHook] = {}
        self._patches: dict[str, bool] = {}
        self._random: random.Random | None = None
        self._uuids: random.Random | None = None

    def begin(self, created: Mapping[str, Any], time: int) -> None:
        """Take what `run_created` holds."""
        self.clock = self.created = time
        self.seed = created.get("seed") or self.run_id
        self.version = created.get("version")
        self.parent = (created.get("parent") or {}).get("run")
        self.root = created.get("root") or self.run_id
        self.previous = created.get("previous")
        self.first = created.get("first") or self.run_id
        self.number = created.get("number") or 1
        self.due = created.get("due")
        self.inherited = {token: [] for token in created.get("hooks") or ()}
        self.attributes.update(created.get("attributes") or {})
        salt = int.from_bytes(blake2b(self.seed.encode(), digest_size=7).digest(), "big")
        self.loop = Loop(self, salt)  # type: ignore[abstract] # what it lacks is refused at the call

    # ---- commands

    def alive(self) -> None:
        """Raise Evicted where this execution no longer counts."""
        if self.loop.dead:
            raise Evicted

    def check_limit(self, raw: bytes, type_: str, key: str, what: str) -> None:
        """Refuse a payload out of bounds, but not one that the log holds: it was accepted then."""
        limit = self.payload_limit
        if len(raw) <= self.small or is_within(raw, limit):
            return
        logged = self._upcoming()
        if logged is None or (logged.type, logged.key) != (type_, key):
            check_bounds(raw, limit, what)
        elif is_within(payload_of(logged), limit):
            # It was refused, and the next of its name is in the log.
            check_bounds(raw, limit, what)

    def _upcoming(self) -> Event | None:
        """The log's next command, where the log is ahead of the code."""
        return self.ahead[0] if self.ahead else None

    def _key(self, kind: str, name: str) -> str:
        ordinal = self._ordinals.get((kind, name), 0) + 1
        self._ordinals[kind, name] = ordinal
        return f"{name}#{ordinal}"

    def ask(self, type_: str, key: str, data: Mapping[str, Any]) -> None:
        """The code asks for something: one more command."""
        self._ask(new(type_, key=key, data=data))

    def _ask(self, command: Draft) -> None:
        if self.places is not None:
            self.places.append(place_of_asking(self._main))
        if self.ahead:
            self.ahead.popleft()
        self.asked.append(command)

    def _credited(self, data: dict[str, Any]) -> dict[str, Any]:
        """Say in which chapter, and in which task if not the main one, something is asked for.

        It is for people, who want to know whose work a step was. It takes no part in the match on replay:
        logs from before do not hold it, it decides nothing, and a `gather` that becomes a `TaskGroup` asks
        for the same commands.
        """
        chapter, task = chapter_here.get(), _current_task(self.loop)
        if chapter is not None:
            data["chapter"] = chapter.key
        if task is not self._main and task is not None:
            data["branch"] = task.branch
        return data

    # ---- steps

    async def step(self, step: Step[..., Any], args: Any, kwargs: Any) -> Any:
        """Schedule a step, and wait for its outcome."""
        if self.loop.dead:
            self.loop.tell()
            await self.loop.create_future()
        # Until control goes back to workflow code, all is ours. What follows is `guard.pause`, and at the end
        # `guard.begin`, written out: the watch would see that the one is called and that the other returns.
        if PENDING or watcher() is not watch:
            guard.pause()
        else:
            take_turn()
            try:
                switch_off()
            except RuntimeError:
                guard.insist(switch_off)
            finally:
                give_turn()
        try:
            call = self._schedule(step, args, kwargs)
            try:
                return await call.future
            except asyncio.CancelledError:
                if call.future.cancelled():
                    self.abandoned.append(call.key)
                raise
        finally:
            if here.runtime is self and not self.loop.dead:
                take_turn()
                try:
                    switch_on()
                except RuntimeError:
                    guard.insist(switch_on)
                finally:
                    give_turn()

    def _schedule(self, step: Step[..., Any], args: Any, kwargs: Any) -> StepCall:
        loop, name = self.loop, step.name
        if name in steps.shared:
            steps.check(step)
        raw = step.arguments.encode(args, kwargs)
        ordinal = self._ordinals.get(name, 0) + 1
        key = f"{name}#{ordinal}"
        if len(raw) > self.small:
            self.check_limit(raw, "step_scheduled", key, f"{name} arguments")
        more = {} if step.placement is None else step.placement.of(args, kwargs)
        if chapter_here.get() is not None or _current_task(loop) is not self._main:
            more = self._credited(more)
        self._ordinals[name] = ordinal
        self.calls[key] = call = StepCall(
            key, step, raw, loop.create_inner_future(), step.placement is not None
        )
        body = scheduled_body(raw, more)
        ahead = self.ahead
        if (
            ahead
            and ahead[0].body == body
            and ahead[0].key == key
            and ahead[0].type == "step_scheduled"
            and self.places is None
        ):
            self.asked.append(ahead.popleft())  # type: ignore[arg-type] # it is just this: no need to make another
        else:
            self._ask(step_scheduled(key, raw, more, body))
        return call

    # ---- child runs

    async def child(self, workflow: Workflow[..., Any], args: Any, kwargs: Any, options: ChildOptions) -> Any:
        """Start a child run and wait for its end; of a detached one, until it is there."""
        if self.loop.dead:
            self.loop.tell()
            await self.loop.create_future()
        watching = guard.pause()
        try:
            call = self._start_child(workflow, args, kwargs, options)
            try:
                return await call.future
            except asyncio.CancelledError:
                if call.future.cancelled() and not call.detached:
                    # A command, as for a timer: whoever has this log knows that the child is to be cancelled.
                    self.ask("child_cancelled", call.key, {})
                raise
        finally:
            if watching and here.runtime is self and not self.loop.dead:
                guard.begin()

    def _start_child(
        self, workflow: Workflow[..., Any], args: Any, kwargs: Any, options: ChildOptions
    ) -> ChildCall:
        self.alive()
        workflows.check(workflow)
        raw = workflow.arguments.encode(args, kwargs)
        workflow.arguments.decode(raw)  # what it could not read, its caller is told here
        ordinal = self._ordinals.get(("child", workflow.name), 0) + 1
        what = f"{workflow.name} arguments"
        self.check_limit(raw, "child_started", numbered(workflow.name, ordinal), what)
        data: dict[str, Any] = {
            "run": child_id(self.run_id, workflow.name, ordinal),
            "workflow": workflow.name,
            "args": msgspec.Raw(raw),
        }
        if options.run_id is not None:
            data["run"], data["chosen"] = check_run_id(options.run_id), True
        if workflow.version is not None:
            data["version"] = workflow.version
        if options.attributes:
            check_attributes(options.attributes)
            data["attributes"] = dict(options.attributes)
        if options.detached:
            data["detached"] = True
        key = self._key("child", workflow.name)
        call = ChildCall(key, workflow, data, self.loop.create_inner_future())
        self.children[key] = call
        self.ask("child_started", key, self._credited(dict(data)))
        return call

    # ---- timers

    def start_timer(self, timer: DurableTimer) -> str:
        """A timer that asyncio, or the code, asked for."""
        if self.loop.dead:
            self.loop.tell()
            return ""
        key = self._key("timer", "sleep")
        self.sleepers[key] = timer
        self.ask("timer_started", key, self._credited({"due": timer.due}))
        return key

    def cancel_timer(self, timer: DurableTimer) -> None:
        """The timer is not needed any more."""
        self.alive()
        del self.sleepers[timer.key]
        self.ask("timer_cancelled", timer.key, {})

    def wake(self) -> None:
        """End pending sleeps early, not time-outs."""
        for timer in list(self.sleepers.values()):
            if timer.callback is _SLEEPS:
                del self.sleepers[timer.key]
                self.ask("timer_cancelled", timer.key, {})
                timer.fire()

    async def sleep_until(self, when: datetime) -> None:
        """Sleep until an instant; one that has passed costs nothing."""
        try:
            left = from_datetime(when) - self.clock
        except ValueError as error:
            raise DefinitionError(f"hf.sleep: {error}") from None
        await asyncio.sleep(left / 1e6)

    # ---- hooks

    def hook(self, token: str, type: Any, metadata: Any) -> Hook[Any]:
        """Open a hook, or give back the one that this run has open under the token."""
        self.alive()
        _check_token(token)
        known = self._tokens.get(token)
        if known is not None and known.open:
            return known
        payload = payload_type(type)
        return self._open_hook(token, payload, None if payload is UNTYPED else json_schema(type), metadata)

    def webhook(self, type: Any, schema: Mapping[str, Any], metadata: Any) -> Hook[Any]:
        """Open a hook under a generated token; on replay its URL is the one that the log holds."""
        self.alive()
        token = next(filter(is_webhook_token, self.inherited), None)
        if token is None:
            ordinal = self._ordinals[_WEBHOOKS] = self._ordinals.get(_WEBHOOKS, 0) + 1
            token = webhook_token(self.seed, ordinal)
        url = f"{self.public_url.rstrip('/')}/webhooks/{token}"
        logged = self._upcoming()
        if logged is not None and (logged.type, logged.key) == ("hook_opened", numbered(token, 1)):
            url = ((logged.data.get("schema") or {}).get("webhook") or {}).get("url") or url
        told = {**schema, "webhook": {**schema["webhook"], "url": url}}
        opened = self._open_hook(token, payload_type(type), told, metadata)
        opened.url = url
        return opened

    def _open_hook(
        self, token: str, payload: PayloadType, schema: dict[str, Any] | None, metadata: Any
    ) -> OpenHook:
        data: dict[str, Any] = {}
        if schema is not None:
            data["schema"] = schema
        if metadata is not None:
            what = f"hook {token} metadata"
            raw = UNTYPED.encode(metadata, what)
            upcoming = self._ordinals.get(("hook", token), 0) + 1
            self.check_limit(raw, "hook_opened", numbered(token, upcoming), what)
            data["metadata"] = msgspec.Raw(raw)
        key = self._key("hook", token)
        opened = OpenHook(self, key, token, payload)
        self.hooks[key] = self._tokens[token] = opened
        self.ask("hook_opened", key, self._credited(data))
        for event in self.inherited.pop(token, ()):
            opened.take(event)
        return opened

    def close_hook(self, hook: OpenHook) -> None:
        """The code closes a hook."""
        self.alive()
        self.ask("hook_closed", hook.key, {})


def _check_token(token: str) -> None:
    if not isinstance(token, str) or not 1 <= len(token) <= 512:
        raise PayloadError(f"hook token: expected a str of 1–512 characters, got {token!r:.80}")
    if not token.isprintable():
        raise PayloadError(f"hook token: expected printable characters, got {token!r:.80}")
