"""The judgement over a call: whether it is impure, by whom it is made, and what its author is told.

Both ways to watch (`monitoring`, `profiling`) show calls to these functions and raise what they raise; both get
audit events through `audited`. What is impure is data, in `engine/impure.py`.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
import threading
import weakref
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, Final

from holdfast.errors import NotDeterministic

from .. import impure

# CPython's own, for the loop to use outside of workflows; Holdfast replaces the attribute.
ORIGINAL_AS_COMPLETED: Final[Callable[..., Any] | None] = (
    asyncio.tasks.as_completed if asyncio.tasks.as_completed.__module__ == "asyncio.tasks" else None
)
ROOTS: Final[dict[int, FrameType]] = {}
"""Thread -> the frame that holds `watching`: whoever called that has nothing to do with the run."""

_seeded: Final[weakref.WeakSet[Any]] = weakref.WeakSet()  # generators that a replay makes again


def permit(generator: Any) -> None:
    """Let workflow code draw from a `random.Random` that was seeded from the log."""
    _seeded.add(generator)


def audited(frame: FrameType, event: str, args: tuple[Any, ...]) -> None:
    """Refuse an audit event of `impure.EVENTS` that is raised under `frame`."""
    if not _exempt(frame) and not _is_time_zone(event, args):
        raise _refusal(frame, event, impure.EFFECT)


def called(frame: FrameType, module: str | None, name: str, owner: Any) -> None:
    """Refuse a call of a builtin if it is impure; `owner` is what it is bound to."""
    kind = impure.BUILTINS.get((module or "", name))
    found: tuple[str, str] | None
    if kind is not None:
        found = (f"{module}.{name}", kind)
    elif name in impure.METHODS:
        found = _method(frame, owner, name)
    else:
        found = None
    if found is None or _exempt(frame):
        return
    if module == "time" and name in impure.CLOCK_IF_FEWER and impure.is_given_a_time(frame, name):
        return
    raise _refusal(frame, *found)


def begun(frame: FrameType) -> None:
    """Refuse a Python function of `impure.FUNCTIONS` that begins in `frame`."""
    module, name = str(frame.f_globals.get("__name__")), frame.f_code.co_name
    kind = impure.FUNCTIONS.get((module, name))
    if kind is not None and not _exempt(frame):
        raise _refusal(frame, f"{module}.{name}", kind)


def _method(frame: FrameType, owner: Any, name: str) -> tuple[str, str] | None:
    """The label and kind of a watched method of a C class, found by the names of its bases."""
    on_class = isinstance(owner, type)
    for base in (owner if on_class else type(owner)).__mro__:
        place = (base.__module__, base.__name__)
        if place in impure.METHODS[name]:
            break
    else:
        return None
    label = f"{place[0]}.{place[1]}.{name}"
    if place[0] == "datetime":
        return label, impure.CLOCK
    if on_class:  # an alternative constructor of that name: no resource behind it
        return None
    if place[0] == "_random":
        return _generator(frame, owner, name)
    if place[0] == "_io":
        return (f"io.{type(owner).__name__}.{name}", impure.EFFECT) if _is_open(owner) else None
    return label, impure.EFFECT


def _generator(frame: FrameType, owner: Any, name: str) -> tuple[str, str] | None:
    """A method of a `random.Random`: the module's hidden one, a seeded one, or a foreign one."""
    if owner is getattr(sys.modules.get("random"), "_inst", None):
        return f"random.{name}", impure.RANDOM
    # CPython's Python-level `seed(a)` calls the C one: its frame shows what the seed was.
    seeds = name == "seed" and frame.f_code.co_name == "seed" and frame.f_locals.get("a") is not None
    if seeds or name == "setstate":
        if not _exempt(frame):  # a module that is imported lazily keeps its generator for all runs
            permit(owner)
        return None
    if name == "seed":
        return "random.Random", impure.SEED
    return None if owner in _seeded else (f"random.Random.{name}", impure.RANDOM)


def _is_open(file: Any) -> bool:
    try:
        file.fileno()
    except (OSError, ValueError):  # in memory, or closed
        return False
    return True


def _is_time_zone(event: str, args: tuple[Any, ...]) -> bool:
    """Whether the C half of zoneinfo loads a zone: it opens the file in its caller's frame."""
    zoneinfo = sys.modules.get("zoneinfo")
    if event != "open" or zoneinfo is None or not isinstance(args[0], str):
        return False
    return args[1] in {"r", "rb"} and args[0].startswith(tuple(f"{path}/" for path in zoneinfo.TZPATH))


def _exempt(frame: FrameType) -> bool:
    """Whether the call is made by something whose values do not flow back into the workflow."""
    root = ROOTS.get(threading.get_ident())
    codes = []
    here: FrameType | None = frame
    while here is not None and here is not root:
        name = str(here.f_globals.get("__name__"))
        if name in impure.EXEMPT or here.f_code.co_name == "__del__":
            return True
        if name.startswith("holdfast.engine."):
            break  # the loop that ticks: beyond it is the worker, maybe a script being imported
        codes.append(id(here.f_code))  # to hash a code object is to read all of it
        here = here.f_back
    interrupts = _interrupts()
    return any(code in interrupts for code in codes)


def _interrupts() -> set[int]:
    """The code (by its id) that the interpreter calls in between, in the middle of anybody's code."""
    functions: list[Any] = list(gc.callbacks)
    if threading.get_ident() == threading.main_thread().ident:
        functions += map(signal.getsignal, signal.valid_signals())
    found = (getattr(function, "__code__", None) for function in functions)
    return {id(code) for code in found if isinstance(code, CodeType)}


def _refusal(frame: FrameType, label: str, kind: str) -> NotDeterministic:
    """Name what the author wrote: `uuid.uuid4()`, not the `posix.urandom()` somewhere in it."""
    module, _, rest = label.partition(".")
    if rest:
        label = f"{impure.PUBLIC_NAMES.get(module, module)}.{rest}"
    here: FrameType | None = frame
    while here is not None and (name := str(here.f_globals.get("__name__"))) in impure.NAMED:
        function = here.f_code.co_qualname
        if label.startswith("random.") and not label.startswith("random.Random"):
            function = function.removeprefix("Random.")  # the hidden generator's methods
        function = function.removesuffix(".__init__").replace("PathBase.", "Path.")
        label = f"{impure.PUBLIC_NAMES.get(name, name)}.{function}"
        kind = impure.NAMED[name] if kind not in _FINAL else kind
        here = here.f_back
    return NotDeterministic(f"{label}() in workflow code {impure.ADVICE[kind]}")


# Kinds whose advice stands, whatever function they are reached by.
_FINAL: Final = frozenset({impure.SEED, impure.SLEEP, impure.NODE})
