"""The watch on Python 3.12 and later: `sys.monitoring`, switched on once and for ever.

Nothing is instrumented anew when a tick begins or ends. Rests on:
- Two events that stand from the first tick on, for all code: a frame starts, a frame goes on. The
  first time that a code object does so on a watched thread, it gets local events for its calls, and
  this place is left alone from then on (`DISABLE`). So the calls of all code that ever ran in a tick
  are shown, every time, and those of no other code. Frames that were under way before are met when
  they go on; those that call `enter` are looked up.
- Whether a thread is watched is one look into a set of threads.
- Events without a callback cost next to nothing: 10 ns where a frame starts, 15 to 40 ns at a call
  in code that also runs in ticks. So the callbacks go when they were called `_PATIENCE` times in
  vain since the last tick, and the next tick puts them back, which costs as much. A worker of short
  steps never does either; in long computations the watch is not felt.
- A callback may raise, and stays. The exception goes to the caller.
- Holdfast's own code is left out: its import rules and the tests on Python 3.11 keep it pure.

Rejected: `sys.setprofile`, which is made of such events and instruments all running code at each
change (10 to 14 µs a tick); `DISABLE` at calls (another function may be called there later);
callbacks that come and go with each tick (3 µs, for each change is audited); arming all code when
it first starts anywhere (a step's body would pay at each call, not at each function).
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Callable
from types import BuiltinFunctionType, CodeType, FrameType, MethodDescriptorType
from typing import Any, Final

from .. import impure
from . import judge

_FREE: Final = (3, 4)
"""The tools' ids that Python gives no meaning: others are for debuggers, coverage, profilers and optimisers."""
_NAME: Final = "holdfast"
_PATIENCE: Final = 30


_monitoring: Final[Any] = getattr(sys, "monitoring", None)
_disable: Final[Any] = getattr(_monitoring, "DISABLE", None)
_BUILTIN: Final = frozenset({BuiltinFunctionType, MethodDescriptorType, type(re.compile("").match)})
"""The types of builtins and of their methods: the last is that of methods which know their class."""
_OURS: Final = judge.called.__code__.co_filename.rpartition("engine")[0]
_NOT_OURS: Final = (f"{_OURS}bench", f"{_OURS}testing")
"""Where Holdfast has workflows of its own."""
_NAMES: Final = impure.NAMES
_FUNCTION_NAMES: Final = frozenset(name for _, name in impure.FUNCTIONS)
_EVENTS: Final = impure.EVENTS

_ident: Final = threading.get_ident
_watched: Final[set[int]] = set()
_turn: Final = threading.RLock()
_shown = False
"""Whether the callbacks are in place: they are wherever a thread is watched."""
_vain = 0
"""How often they were called for nothing since a tick began."""
_tool: int | None = None
_hooked = False


def claim() -> bool:
    """Take a tool's id; whether there was one. Nothing is instrumented yet."""
    global _tool
    if _monitoring is None:
        return False
    for tool in _FREE:
        try:
            _monitoring.use_tool_id(tool, _NAME)
        except ValueError:
            continue
        _tool = tool
        os.register_at_fork(after_in_child=_after_fork)
        return True
    return False


# ---- the watch of a thread


def watch() -> None:
    """What `watcher` answers where a thread is watched."""


def watcher() -> object:
    """Who watches this thread: `watch`, or None."""
    return watch if _ident() in _watched else None


def switch_on() -> None:
    """Watch this thread."""
    global _vain
    _watched.add(_ident())  # first: who takes the callbacks away looks here last
    _vain = 0
    if not _shown:
        _show()


def switch_off() -> None:
    """Watch this thread no more."""
    _watched.discard(_ident())


take_turn: Final[Callable[[], object]] = bool
give_turn: Final[Callable[[], object]] = bool
"""Threads do not get into each other's way here, so there are no turns to take."""
PENDING: Final[dict[int, BaseException]] = {}
"""No exception is ever on its way out of the watch."""

begin: Final = switch_on


def insist(change: Callable[[], object]) -> None:
    """Nobody refuses a change here."""
    change()


def enter() -> object:
    """Watch this thread from now on, and those who call; give the token that `leave` takes."""
    previous = watcher()
    if not _hooked:
        _install()
    here: FrameType | None = sys._getframe(1)
    while here is not None:
        _see(here)
        here = here.f_back
    switch_on()
    return previous


def leave(token: object) -> None:
    """End the watch that `enter` began."""
    if token is not watch:  # else a tick inside of a tick: the outer one goes on
        switch_off()


def pause() -> bool:
    """Stop watching while the engine works on workflow code's behalf; tell whether it watched."""
    watched = _ident() in _watched
    switch_off()
    return watched


def set_aside() -> object:
    """Make ready for a tick; `put_back` takes what is returned: a profile function may stay where it is."""
    if not _hooked:
        _install()
    return None


def put_back(previous: object) -> None:
    """The tick is over."""
    switch_off()


def _install() -> None:
    global _hooked
    with _turn:
        if _hooked:
            return
        events = _monitoring.events
        _monitoring.set_events(_tool, events.PY_START | events.PY_RESUME | events.PY_THROW)
        sys.addaudithook(_audit)
        _hooked = True


def _after_fork() -> None:
    """Only the thread that forked is there still, and it was in no tick, where `os.fork` is refused."""
    _watched.clear()
    _turn._at_fork_reinit()  # type: ignore[attr-defined] # as threading itself


# ---- callbacks, and whether they are in place


def _show() -> None:
    global _shown
    with _turn:
        _register(_starts, _throws, _calls)
        _shown = True


def _hide() -> None:
    """Take the callbacks away, unless a thread is watched."""
    global _shown, _vain
    with _turn:
        if not _shown:
            return  # another thread was quicker, and nobody has put them back yet
        # In this order: who begins to be watched now either is seen here, or sees that nothing is shown.
        _shown, _vain = False, 0
        if _watched:
            _shown = True
        else:
            _register(None, None, None)


def _register(
    starts: Callable[..., object] | None,
    throws: Callable[..., object] | None,
    calls: Callable[..., object] | None,
) -> None:
    events, register = _monitoring.events, _monitoring.register_callback
    register(_tool, events.PY_START, starts)
    register(_tool, events.PY_RESUME, starts)
    register(_tool, events.PY_THROW, throws)
    register(_tool, events.CALL, calls)


def _in_vain() -> None:
    global _vain
    _vain += 1
    if _vain > _PATIENCE:
        _hide()


def _starts(code: CodeType, offset: int) -> object:
    """A frame starts or goes on. Its code's calls are shown from now on, and this event no more at this place."""
    if _is_ours(code):
        return _disable
    if _ident() not in _watched:
        if code.co_name not in _FUNCTION_NAMES and _monitoring.get_local_events(_tool, code):
            return _disable  # seen before: what a step wakes goes on unwatched
        _in_vain()
        return None
    frame = sys._getframe(1)
    _see(frame)
    if code.co_name in _FUNCTION_NAMES and str(frame.f_globals.get("__name__")) in impure.FUNCTION_MODULES:
        judge.begun(frame)
        return None
    return _disable


def _throws(code: CodeType, offset: int, error: BaseException) -> None:
    """A frame goes on with an exception; at such a place no event can be disabled."""
    if _ident() in _watched:
        _see(sys._getframe(1))


def _is_ours(code: CodeType) -> bool:
    return code.co_filename.startswith(_OURS) and not code.co_filename.startswith(_NOT_OURS)


def _see(frame: FrameType) -> None:
    if str(frame.f_globals.get("__name__")) not in impure.EXEMPT and not _is_ours(frame.f_code):
        _monitoring.set_local_events(_tool, frame.f_code, _monitoring.events.CALL)


def _calls(code: CodeType, offset: int, called: Any, first: Any) -> None:
    """A call in code that has been seen. `first` is its first argument: of an unbound method, the owner."""
    if _ident() not in _watched:
        _in_vain()
        return
    kind = type(called)  # what is no builtin is asked nothing: it may be workflow code's own object
    if kind in _BUILTIN and called.__name__ in _NAMES:
        if kind is MethodDescriptorType:
            judge.called(sys._getframe(1), None, called.__name__, first)
        else:
            judge.called(sys._getframe(1), called.__module__, called.__name__, called.__self__)


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if _EVENTS and event in _EVENTS and _ident() in _watched:  # None once the interpreter clears its modules
        judge.audited(sys._getframe(1), event, args)
