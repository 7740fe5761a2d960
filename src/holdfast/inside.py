"""What workflow code and steps call: `hf.sleep`, `hf.hook`, `hf.now`, `hf.step_info` and the rest."""

from __future__ import annotations

import random as _random
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NoReturn, TypeVar, overload
from uuid import UUID

from .errors import DefinitionError
from .runtime import Hook, RunInfo, StepInfo, attempt_here, here, inside

T = TypeVar("T")

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
    return inside("hf.hook()").hook(token, type, metadata)


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
    inside("hf.continue_as_new()").continue_as_new(args, kwargs)


def now() -> datetime:
    """The workflow's clock: when the event that it sees now was recorded (aware, UTC); same on replay."""
    return inside("hf.now()").now()


def random() -> _random.Random:
    """A random generator seeded by the run: it gives the same numbers on replay.

    Example:
        pick = hf.random().choice(candidates)
    """
    return inside("hf.random()").random()


def uuid4() -> UUID:
    """A random UUID that is the same on replay."""
    return inside("hf.uuid4()").uuid4()


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
    return inside("hf.patched()").patched(id)


def set_attributes(attributes: Mapping[str, str | None] | None = None, /, **more: str | None) -> None:
    """Put searchable text on the run (`holdfast runs --attribute k=v`); None removes a key.

    At most 64 keys of 1–256 characters, values of at most 256 bytes. Raises PayloadError beyond that.

    Example:
        hf.set_attributes(customer="ana", stage="paid")
    """
    inside("hf.set_attributes()").set_attributes({**(attributes or {}), **more})


def run_info() -> RunInfo:
    """Id, workflow, start and attributes of the run that asks."""
    return inside("hf.run_info()").info()


# ---- inside a step ------------------------------------------------------------------------------------------


def step_info() -> StepInfo:
    """Run, key and attempt of the step that asks.

    Example:
        await bank.charge(card, amount, idempotency_key=hf.step_info().key)
    """
    attempt = attempt_here.get()
    if attempt is None:
        raise DefinitionError("hf.step_info() works in a running step only")
    return attempt.info


def heartbeat() -> None:
    """Say that this attempt is alive; needed where the step has `heartbeat=`. Safe from threads."""
    attempt = attempt_here.get()
    if attempt is None:
        raise DefinitionError("hf.heartbeat() works in a running step only")
    attempt.heartbeat()
