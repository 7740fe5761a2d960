"""The watch over impure calls: what a replay would not give again is refused where it is called.

Guarantees. Between `enter` and `leave`, on that thread and on no other, a call of a clock, of
unseeded randomness, of a file, socket, process or thread function raises `NotDeterministic` at the
call, with the remedy, and before the call has done anything; however the name was imported, and
whoever makes the call: workflow code or a library under it. Each such call is refused, also the
second and third after the first was caught. Imports, logging, warnings and tracebacks always work.

Rests on:
- What the interpreter shows of the builtins that Python code calls: to `monitoring` on Python 3.12
  and later, to `profiling` on 3.11. The name decides, not the function object: `now` of a subclass
  of datetime and `random` of another generator are other objects than the known ones (`judge`).
- Audit hooks (PEP 578), for what C code opens on its own. One hook, for ever, that acts only on
  threads that are watched.
- Whether `time.localtime(x)` asks the clock is read from the calling instruction: it passes if its
  argument is provably not None, else it is refused.
- `random.Random(42)` made in workflow code is remembered as replayable when it is seeded; any other
  generator is shared with something outside of the run (`permit` admits the engine's own).

Limits. C code that calls C code is not shown: `map(time.time_ns, …)`, `sorted(key=…)`,
`functools.partial(time.time)()`, `iter(time.time, None)`, validators compiled to C that call a
`default_factory` (that of dataclasses is called from Python, and seen). Audit events are raised
there too, so files, sockets and processes are seen; clocks and randomness are left to check mode.
Not seen either: iteration over a file opened elsewhere, `os.environ`, `id()`, the order of a set of
strings, a cached value of an earlier call, ctypes functions at hand already, a generator that one
run seeds and another uses, and C extensions with clocks or generators of their own. A lock may be
waited for. A weakref callback that runs in a tick is taken for workflow code (a `__del__`, a
`weakref.finalize`, a gc callback and a signal handler are not). `NotDeterministic` is an ordinary
exception: a library that swallows it goes on, with the same answer on every replay.

For a loop there are `set_aside` and `put_back` around its ticks, `begin` and `pause` within; and
what `pause` and `begin` are made of, for the one place that cannot afford the calls (on 3.11 the
watch would see them): `watcher`, `take_turn`, `switch_off`, `switch_on`, `give_turn`, `insist`.

Rejected: replacing `time.time` and the like (misses names imported before); a sandbox that imports
again (breaks libraries).
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from . import monitoring
from .judge import ORIGINAL_AS_COMPLETED, ROOTS, permit

if monitoring.claim():
    way = monitoring
else:
    from . import profiling as way  # type: ignore[no-redef]

PENDING = way.PENDING
begin = way.begin
enter = way.enter
give_turn = way.give_turn
insist = way.insist
leave = way.leave
pause = way.pause
put_back = way.put_back
set_aside = way.set_aside
switch_off = way.switch_off
switch_on = way.switch_on
take_turn = way.take_turn
watch = way.watch
watcher = way.watcher

__all__ = [
    "ORIGINAL_AS_COMPLETED",
    "PENDING",
    "begin",
    "enter",
    "give_turn",
    "insist",
    "leave",
    "pause",
    "permit",
    "put_back",
    "resume",
    "set_aside",
    "switch_off",
    "switch_on",
    "take_turn",
    "watch",
    "watcher",
    "watching",
]


def resume(watched: bool) -> None:
    """Watch again, where `pause` stopped it."""
    if watched:
        begin()


@contextmanager
def watching() -> Iterator[None]:
    """`enter` and `leave` around a block, for tests and rare callers."""
    me = threading.get_ident()
    outer = ROOTS.get(me)
    ROOTS[me] = sys._getframe(2)  # 0 is this frame, 1 that of contextlib
    token = enter()
    try:
        yield
    finally:
        leave(token)
        if outer is None:
            del ROOTS[me]
        else:
            ROOTS[me] = outer
