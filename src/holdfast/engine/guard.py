"""The watch over impure calls: what a replay would not give again is refused where it is called.

Guarantees. Between `enter` and `leave`, on that thread and on no other, a call of a clock, of
unseeded randomness, of a file, socket, process or thread function raises `NotDeterministic` at the
call, with the remedy, and before the call has done anything; however the name was imported, and
whoever makes the call: workflow code or a library under it. Each such call is refused, also the
second and third after the first was caught. Imports, logging, warnings and tracebacks always work.

Rests on:
- `sys.setprofile`: the interpreter shows `watch` each builtin that Python code calls. A first look
  compares its name with a set; only a hit costs more. The name, not the function object: `now` of a
  subclass of datetime and `random` of another generator are other objects than the known ones.
- Audit hooks (PEP 578), for what C code opens on its own. One hook, for ever, that acts only where
  `watch` is the thread's profile function, so that the hot path keeps no state of its own.
- An exception from a profile function makes CPython switch the function off, but it asks the audit
  hooks first (event `sys.setprofile`). Ours answers with the same exception: the watch stays on,
  and the exception goes to the caller. So it does when the recursion limit is hit in the watch
  (if two threads are there at once, what the caller sees may be a plain RuntimeError).
- A profile function sees no arguments. Whether `time.localtime(x)` asks the clock is read from the
  calling instruction: it passes if its argument is provably not None, else it is refused.
- `random.Random(42)` made in workflow code is remembered as replayable when it is seeded; any other
  generator is shared with something outside of the run (`permit` admits the engine's own).

Limits. C code that calls C code makes no event: `map(time.time_ns, …)`, `sorted(key=…)`,
`functools.partial(time.time)()`, `iter(time.time, None)`, validators compiled to C that call a
`default_factory` (that of dataclasses is called from Python, and seen). Audit events are raised
there too, so files, sockets and processes are seen; clocks and randomness are left to check mode.
Not seen either: iteration over a file opened elsewhere, `os.environ`, `id()`, the order of a set of
strings, a cached value of an earlier call, ctypes functions at hand already, a generator that one
run seeds and another uses, and C extensions with clocks or generators of their own. A lock may be
waited for. A weakref callback that runs in a tick is taken for workflow code (a `__del__`, a
`weakref.finalize`, a gc callback and a signal handler are not). `NotDeterministic` is an ordinary
exception: a library that swallows it goes on, with the same answer on every replay.

Rejected: `sys.monitoring` (3.12+ only, and its events are those of all threads; a prototype added
9 and 7 µs where this adds 26 and 21, so it is the next step if those versions must be faster);
events switched off per place by `DISABLE` (another function may be called there later); keeping
3.12+ instrumented by a parked thread (calls outside ticks then cost three times as much);
replacing `time.time` and the like (misses names imported before); a sandbox that imports again
(breaks libraries); comparing each called function object (cheaper by 0.1 µs, misses methods).

Cost (bench/guard_cost.py, a slow core): 3 µs for `enter` and `leave` on 3.11, 10 to 14 µs on 3.12
and 3.13, which instrument all running code anew each time; 0.2 to 0.3 µs per event, two events
per call. `pause` and `resume` cost as much as `leave` and `enter`: they pay for more than ten
calls.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import CodeType, FrameType
from typing import Any, Final

from holdfast.errors import NotDeterministic

from . import impure

# CPython's own, for the loop to use outside of workflows; Holdfast replaces the attribute.
ORIGINAL_AS_COMPLETED: Final[Callable[..., Any] | None] = (
    asyncio.tasks.as_completed if asyncio.tasks.as_completed.__module__ == "asyncio.tasks" else None
)

_log: Final = logging.getLogger("holdfast.engine")

# Called through `partial`, a C function makes no event: so the watch does not watch itself, and
# `leave` does not pay for what it calls.
switch_off: Final = partial(sys.setprofile, None)
profiler: Final = partial(sys.getprofile)
_ident: Final = partial(threading.get_ident)
# CPython lets one thread at a time change its profile function, and raises RuntimeError in others
# (its audit event runs our hook, where the thread may be switched): so we take turns.
# Whoever has the turn changes it himself, which is how our hook tells that from an exception's doing.
_turn: Final = threading.RLock()
take_turn: Final = partial(_turn.acquire)
give_turn: Final = partial(_turn.release)
_has_turn: Final = partial(_turn._is_owned)  # type: ignore[attr-defined] # as threading.Condition asks
_wait: Final = partial(time.sleep, 0.0001)
_NAMES: Final = impure.NAMES
_FUNCTION_MODULES: Final = impure.FUNCTION_MODULES
_EVENTS: Final = impure.EVENTS

_hooked = False
_hooking: Final = threading.Lock()
PENDING: Final[dict[int, BaseException]] = {}  # thread -> what is on its way out of `watch`; it holds `_turn`
_roots: Final[dict[int, FrameType]] = {}  # thread -> the frame that holds `watching`
_seeded: Final[weakref.WeakSet[Any]] = weakref.WeakSet()  # generators that a replay makes again


def enter() -> object:
    """Watch this thread from now on; give the token that `leave` takes."""
    if not _hooked:
        _install()
    previous = profiler()
    if previous is not watch:
        take_turn()
        try:
            switch_on()
        except RuntimeError:
            insist(switch_on)
        finally:
            give_turn()
    return previous


def leave(token: object) -> None:
    """End the watch that `enter` began: the thread has its former profile function again."""
    if token is watch:
        return  # a tick inside of a tick: the outer one goes on
    stood = profiler() is watch
    back = switch_off if token is None or not callable(token) else partial(sys.setprofile, token)
    me = _ident()
    if me in PENDING:  # the hook could not run, at the recursion limit
        del PENDING[me]
        give_turn()
    take_turn()
    try:
        back()
    except RuntimeError:
        insist(back)
    finally:
        give_turn()
    if back is switch_off and token is not None:
        # cProfile on 3.11 is installed below Python: what we hold is the profiler, no function.
        token.enable()  # type: ignore[attr-defined]
    if not stood:
        # Workflow code cannot do it (`setprofile` is refused), a profiler that another thread
        # starts can, or an interrupt. The run is not to blame, so nothing is raised.
        _log.error("The watch over impure calls was switched off during a tick, by a profiler?")


def pause() -> bool:
    """Stop watching while the engine works on workflow code's behalf; tell whether it watched."""
    if profiler() is not watch:
        return False
    if PENDING and (me := _ident()) in PENDING:  # as in `leave`
        del PENDING[me]
        give_turn()
    take_turn()
    try:
        switch_off()
    except RuntimeError:
        insist(switch_off)
    finally:
        give_turn()
    return True


def resume(watched: bool) -> None:
    """Watch again, where `pause` stopped it."""
    if watched:
        enter()


def set_aside() -> object:
    """Take the thread's own profile function away for a tick; `put_back` takes what is returned.

    With it, a loop watches by `enter(None)` and `pause` just where workflow code runs, and pays nothing for
    its own calls.
    """
    if not _hooked:
        _install()
    previous = profiler()
    if previous is not None and previous is not watch:
        take_turn()
        try:
            insist(switch_off)
        finally:
            give_turn()
    return previous


def put_back(previous: object) -> None:
    """The tick is over: the thread has its own profile function again."""
    pause()
    if previous is None:
        return
    if not callable(previous):
        previous.enable()  # type: ignore[attr-defined] # cProfile on 3.11, see `leave`
        return
    take_turn()
    try:
        insist(partial(sys.setprofile, previous))
    finally:
        give_turn()


@contextmanager
def watching() -> Iterator[None]:
    """`enter` and `leave` around a block, for tests and rare callers."""
    me = _ident()
    outer = _roots.get(me)
    _roots[me] = sys._getframe(2)  # 0 is this frame, 1 that of contextlib
    token = enter()
    try:
        yield
    finally:
        leave(token)
        if outer is None:
            del _roots[me]
        else:
            _roots[me] = outer


def permit(generator: Any) -> None:
    """Let workflow code draw from a `random.Random` that was seeded from the log."""
    _seeded.add(generator)


def insist(change: Callable[[], object]) -> None:
    """Somebody else, who knows of no turns, is at it: a profiler in another thread."""
    for _ in range(1000):
        with suppress(RuntimeError):
            change()
            return
        _wait()
    change()


def _install() -> None:
    global _hooked
    with _hooking:
        if not _hooked:
            sys.addaudithook(_audit)
            _hooked = True


def watch(frame: FrameType, event: str, arg: Any) -> None:
    try:
        if event == "c_call":
            if arg.__name__ in _NAMES:
                _look_at_builtin(frame, arg)
        elif event == "call" and frame.f_globals.get("__name__") in _FUNCTION_MODULES:
            _look_at_function(frame)  # only there, for to look at a frame's code raises an audit event
    except BaseException as error:
        me = _ident()
        if PENDING.pop(me, None) is None:
            take_turn()  # what CPython does next is a change of the profile function
        try:
            # Go on when no other thread is in such a change any more: one that was refused a moment ago gave
            # its turn in the hook, and may not be quite out of it.
            insist(switch_on)
        finally:
            PENDING[me] = error
        raise


switch_on: Final = partial(sys.setprofile, watch)


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if event == "sys.setprofile":  # first: it is ours, twice a tick
        if _EVENTS and profiler() is watch and (PENDING or not _has_turn()):
            _keep_watching()
    elif _EVENTS and event in _EVENTS and profiler() is watch:  # None once the interpreter clears its modules
        frame = sys._getframe(1)
        if not _exempt(frame) and not _is_time_zone(event, args):
            raise _refusal(frame, event, impure.EFFECT)


def _keep_watching() -> None:
    """Say no to a change of this thread's profile function that follows from an exception in it."""
    error = PENDING.pop(_ident(), None)
    if error is not None:
        give_turn()
        raise error.with_traceback(None)
    if _has_turn():
        return
    if _is_deep(sys._getframe(2)):  # 0 is this frame, 1 the hook's
        # It could not even be called; any other exception at that point is an interrupt: let it go.
        raise RecursionError("maximum recursion depth exceeded")


def _is_deep(frame: FrameType | None) -> bool:
    # The limit counts frames of C as well, in some versions: so a part of it is deep enough.
    for _ in range(sys.getrecursionlimit() // 10):
        if frame is None:
            return False
        frame = frame.f_back
    return True


def _look_at_builtin(frame: FrameType, called: Any) -> None:
    module, name = called.__module__, called.__name__
    kind = impure.BUILTINS.get((module, name))
    found: tuple[str, str] | None
    if kind is not None:
        found = (f"{module}.{name}", kind)
    elif name in impure.METHODS:
        found = _method(frame, called.__self__, name)
    else:
        found = None
    if found is None or _exempt(frame):
        return
    if module == "time" and name in impure.CLOCK_IF_FEWER and impure.is_given_a_time(frame, name):
        return
    raise _refusal(frame, *found)


def _look_at_function(frame: FrameType) -> None:
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
    root = _roots.get(_ident())
    codes = []
    here: FrameType | None = frame
    while here is not None and here is not root:
        name = str(here.f_globals.get("__name__"))
        if name in impure.EXEMPT or here.f_code.co_name == "__del__":
            return True
        if name.startswith("holdfast.engine."):
            break  # the loop that ticks: beyond it is the worker, maybe a script being imported
        codes.append(here.f_code)
        here = here.f_back
    interrupts = _interrupts()
    return any(code in interrupts for code in codes)


def _interrupts() -> set[CodeType]:
    """The functions that the interpreter calls in between, in the middle of anybody's code."""
    functions: list[Any] = list(gc.callbacks)
    if _ident() == threading.main_thread().ident:
        functions += map(signal.getsignal, signal.valid_signals())
    found = (getattr(function, "__code__", None) for function in functions)
    return {code for code in found if isinstance(code, CodeType)}


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
