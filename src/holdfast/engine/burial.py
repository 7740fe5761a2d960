"""How the code of a run that has moved on is ended: each coroutine and generator is told, in its own context.

Whatever it does then counts no more, and none of it may run later, when Python would close what it finds.
"""

from __future__ import annotations

import logging
from contextvars import Context
from typing import Any

log = logging.getLogger("holdfast.workflow")
unburied: list[str] = []
"""The names of what did not let itself be closed, the latest last."""


class Evicted(BaseException):
    """This coroutine's run has moved on without it: nothing it does counts any more."""


def close(context: Context, coroutine: Any) -> None:
    """End a suspended coroutine."""
    # Thrown, not closed: up to Python 3.12 a close does not reach into an async generator that it awaits.
    for _ in range(100):  # `finally: await …` goes on waiting and must be told again
        try:
            context.run(coroutine.throw, Evicted())
        except BaseException:  # noqa: BLE001 - whatever buried code raises concerns nobody
            return
    _keep_for_good(coroutine)


def close_generator(context: Context, generator: Any) -> None:
    """End a suspended asynchronous generator."""
    # `aclose().close()` would do nothing: the generator would be left to the finaliser of the loop around us,
    # which would run its `finally` out in the world, step bodies and all.
    closing = generator.aclose()
    try:
        context.run(closing.send, None)
        for _ in range(100):  # it awaits something in its `finally`
            context.run(closing.throw, Evicted())
    except BaseException:  # noqa: BLE001, S110 - whatever buried code raises concerns nobody
        pass
    if generator.ag_frame is not None:
        _keep_for_good(generator)


def _keep_for_good(stubborn: Any) -> None:
    # Where its last reference went, Python would close it once more: now, or when the process ends, and with
    # no run around it, so that a call of a step would run the step's body.
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(stubborn))
    del unburied[:-9]
    unburied.append(stubborn.__qualname__)
    log.warning(
        "%s does not let itself be closed and stays in memory: does it catch BaseException in a loop?",
        stubborn.__qualname__,
    )
