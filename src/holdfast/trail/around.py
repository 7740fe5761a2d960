"""Which trail and chapter the running code is in.

Guarantee: inside `with trail.chapter(…)`, and in whatever that block starts with a copy of its context (asyncio
tasks, `asyncio.to_thread`), the answer is that chapter, however many tasks, threads, trails and folders are
interleaved. It rests on one context variable, which holds the blocks around the code, innermost last, and on
asking it by folder and trail, for copies of one trail may stand in two folders.

A plain thread (`threading.Thread`, a pool, `loop.run_in_executor`) has no copy, so where it was started is not
known; only which blocks are open, and in which thread or task each was entered. There, the answer is the
innermost chapter that all of them share: what the thread was started from cannot lie outside of it. So two
threads of one chapter never get each other's chapters, however they are timed.

Known limit, of Python: a generator runs in the context of whoever advances it. Between two steps of a
generator that has a chapter open, its caller is in that chapter too. Use `chapter.note(…)` there: it is exact
everywhere.
"""

from __future__ import annotations

import itertools
import sys
import threading
from abc import ABC, abstractmethod
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Self
from weakref import WeakKeyDictionary

_blocks: ContextVar[tuple[Block, ...]] = ContextVar("holdfast_trail", default=())
_entered: dict[Block, None] = {}
"""Blocks in which some code is, in the order in which they were entered. One operation at a time: no lock."""
_strands: WeakKeyDictionary[object, int] = WeakKeyDictionary()
_numbers = itertools.count(1)


class Block(ABC):
    """What a `with` surrounds: a trail (it has no `outer`), or a chapter in a trail or in another chapter."""

    def __init__(self, key: tuple[str, str], outer: Block | None) -> None:
        self.key = key  # the folder's real path, and the trail's id
        self.outer = outer
        self.strand = strand()
        self._inside: list[tuple[int, Token[tuple[Block, ...]]]] = []
        self._lost = False

    def enter(self) -> None:
        """From here on, this code is in the block."""
        _entered.pop(self, None)  # to the end
        _entered[self] = None
        self._lost = False
        self._inside.append((strand(), _blocks.set((*_blocks.get(), self))))

    def leave(self) -> None:
        """This code is in the block no more; what it has started still is."""
        now, mine = _blocks.get(), strand()
        inside = list(self._inside)
        entry = next((one for one in reversed(inside) if one[0] == mine), inside[-1])
        self._inside.remove(entry)
        if not self._inside:
            _entered.pop(self, None)
        try:
            _blocks.reset(entry[1])
        except ValueError:  # a generator was closed in another context: it stays in the one it was opened in
            self._lost = True
        _blocks.set(tuple(other for other in now if other is not self))

    @abstractmethod
    def settle(self, error: BaseException | None) -> None:
        """What the end of the block does, with the exception that left it; never hides that exception."""

    def __enter__(self) -> Self:
        self.enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.leave()
        self.settle(error)

    def strands(self) -> list[int]:
        """Which tasks and threads have entered and not left it."""
        return [who for who, _ in self._inside]

    def lost(self) -> bool:
        """Whether it was left where it was not entered: code may still seem to be in it."""
        return self._lost and not self._inside

    def line(self) -> list[Block]:
        """The chapters from the outermost one down to this block."""
        return [] if self.outer is None else [*self.outer.line(), self]


def current() -> Block | None:
    """The innermost block around the code that asks, of whatever trail."""
    here = [block for block in _blocks.get() if not block.lost()]
    return here[-1] if here else None


def within(trail: Block) -> Block:
    """The innermost block of this trail around the code that asks; the trail itself outside of its chapters."""
    here = [block for block in _blocks.get() if block.key == trail.key and not block.lost()]
    if here:
        return here[-1]
    if _task() is not None:
        return trail  # a task has a copy of the context: what is not there is not around it
    tips: dict[int, Block] = {trail.strand: trail}
    for block in list(_entered):
        if block.key == trail.key:
            tips |= dict.fromkeys(block.strands(), block)
    mine = tips.get(strand())
    return mine if mine is not None else _shared([tip.line() for tip in tips.values()], trail)


def strand() -> int:
    """The task or thread that asks, as a number that no other one has had."""
    runs = _task() or threading.current_thread()
    number = _strands.get(runs)
    return number if number is not None else _strands.setdefault(runs, next(_numbers))


def _task() -> object | None:
    current_task = getattr(sys.modules.get("asyncio"), "current_task", None)
    if current_task is None:
        return None  # nobody has imported it: there are no tasks
    try:
        found: object | None = current_task()
    except RuntimeError:
        return None
    return found


def _shared(lines: list[list[Block]], trail: Block) -> Block:
    """The innermost block that stands in all of these lines."""
    shared = trail
    for level in zip(*lines, strict=False):
        if any(block is not level[0] for block in level):
            break
        shared = level[0]
    return shared
