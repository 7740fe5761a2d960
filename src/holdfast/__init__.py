"""Holdfast: durable workflows for Python, with a record of what they did that can be trusted.

A step, a workflow and the call that runs it:

    import holdfast as hf

    @hf.step
    async def charge(order: Order) -> Receipt: ...

    @hf.workflow
    async def fulfil(order: Order) -> Receipt:
        return await charge(order)

    result = hf.execute(fulfil, order)
"""

from typing import TYPE_CHECKING, Any

from .chunks import Chunk
from .definition import Backoff
from .errors import (
    DefinitionError,
    DeliveryConflict,
    FatalError,
    HoldfastError,
    HookNotFound,
    HookTaken,
    NotDeterministic,
    PayloadError,
    ReplayDivergence,
    RetryAfter,
    RunCancelled,
    RunEnded,
    RunExists,
    RunFailed,
    RunNotFound,
    StaleLog,
    StepLost,
    StoreError,
    StreamEnded,
    TooManyEvents,
)
from .inside import (
    continue_as_new,
    heartbeat,
    hook,
    now,
    patched,
    random,
    run_info,
    set_attributes,
    sleep,
    step_info,
    uuid4,
)
from .publish import Stream, stream
from .queues import Queue, queue
from .runtime import ChildRun, Hook, RunInfo, StepInfo
from .webhooks import Request, Response, Signature, webhook
from .workflow import step, workflow

if TYPE_CHECKING:
    from . import trail
    from .client import App, Run, RunSummary, connect
    from .sending import Resumed
    from .sync import execute

_LATER = {
    **dict.fromkeys(("App", "Run", "RunSummary", "connect"), ".client"),
    "Resumed": ".sending",
    "execute": ".sync",
    "trail": ".trail",
}
"""Names that bring the engine along: imported when first used, so that `import holdfast` stays quick."""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'holdfast' has no attribute {name!r}")
    from importlib import import_module

    module = import_module(_LATER[name], __name__)
    return module if name == "trail" else getattr(module, name)


__all__ = [
    "App",
    "Backoff",
    "ChildRun",
    "Chunk",
    "DefinitionError",
    "DeliveryConflict",
    "FatalError",
    "HoldfastError",
    "Hook",
    "HookNotFound",
    "HookTaken",
    "NotDeterministic",
    "PayloadError",
    "Queue",
    "ReplayDivergence",
    "Request",
    "Response",
    "Resumed",
    "RetryAfter",
    "Run",
    "RunCancelled",
    "RunEnded",
    "RunExists",
    "RunFailed",
    "RunInfo",
    "RunNotFound",
    "RunSummary",
    "Signature",
    "StaleLog",
    "StepInfo",
    "StepLost",
    "StoreError",
    "Stream",
    "StreamEnded",
    "TooManyEvents",
    "connect",
    "continue_as_new",
    "execute",
    "heartbeat",
    "hook",
    "now",
    "patched",
    "queue",
    "random",
    "run_info",
    "set_attributes",
    "sleep",
    "step",
    "step_info",
    "stream",
    "trail",
    "uuid4",
    "webhook",
    "workflow",
]
