"""The watch on Python 3.11, and where no tool's id is free: a profile function, which is on during ticks only.

Rests on:
- `sys.setprofile`: the interpreter shows `watch` each builtin that Python code calls. A first look
  compares its name with a set; only a hit costs more.
- An exception from a profile function makes CPython switch the function off, but it asks the audit
  hooks first (event `sys.setprofile`). Ours answers with the same exception: the watch stays on,
  and the exception goes to the caller. So it does when the recursion limit is hit in the watch
  (if two threads are there at once, what the caller sees may be a plain RuntimeError).
- The hook acts only where `watch` is the thread's profile function, so that the hot path keeps no
  state of its own.

Rejected: comparing each called function object (cheaper by 0.1 µs, misses methods).

Cost (bench/guard_cost.py, a slow core): 3 µs for `enter` and `leave` on 3.11, 10 to 14 µs on 3.12
and 3.13, which instrument all running code anew each time; 0.2 to 0.3 µs per event, two events
per call. `pause` and `begin` cost as much as `leave` and `enter`: they pay for more than ten
calls.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any, Final

from .. import impure
from . import judge

_log: Final = logging.getLogger("holdfast.engine")

# Called through `partial`, a C function makes no event: so the watch does not watch itself, and
# `leave` does not pay for what it calls.
switch_off: Final = partial(sys.setprofile, None)
watcher: Final = partial(sys.getprofile)
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


def enter() -> object:
    """Watch this thread from now on; give the token that `leave` takes."""
    if not _hooked:
        _install()
    previous = watcher()
    if previous is not watch:
        take_turn()
        try:
            switch_on()
        except RuntimeError:
            insist(switch_on)
        finally:
            give_turn()
    return previous


begin: Final = enter  # for a loop, which has set the thread's own function aside and needs no token


def leave(token: object) -> None:
    """End the watch that `enter` began: the thread has its former profile function again."""
    if token is watch:
        return  # a tick inside of a tick: the outer one goes on
    stood = watcher() is watch
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
    if watcher() is not watch:
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


def set_aside() -> object:
    """Take the thread's own profile function away for a tick; `put_back` takes what is returned.

    With it, a loop watches by `begin` and `pause` just where workflow code runs, and pays nothing for
    its own calls.
    """
    if not _hooked:
        _install()
    previous = watcher()
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
                judge.called(frame, arg.__module__, arg.__name__, arg.__self__)
        elif event == "call" and frame.f_globals.get("__name__") in _FUNCTION_MODULES:
            judge.begun(frame)  # only there, for to look at a frame's code raises an audit event
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
        if _EVENTS and watcher() is watch and (PENDING or not _has_turn()):
            _keep_watching()
    elif _EVENTS and event in _EVENTS and watcher() is watch:  # None once the interpreter clears its modules
        judge.audited(sys._getframe(1), event, args)


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
