"""What a store answers to an append: the laws L1–L5, L8, L11, L12 and L14 as one pure function.

`judge(request, found, now)` takes what a backend looked up (`Found`) and says what to write and what to
answer (`Verdict`). It does no I/O, so that every backend gives the same answers and the rules are written
once. What it guarantees rests on one thing: that what was found is still true when the verdict is written,
so a backend looks up, judges and writes in one transaction that holds the run's row.

Rejected: a fence on the log's tail for everything (safe, but starves under a flood of payloads), unique keys
alone (two code versions merge into one log), the position as the caller counted it (readers with a cursor
skip events that commit late).
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.errors import (
    FenceMissing,
    HoldfastError,
    HookNotFound,
    InvalidAppend,
    RunContinued,
    RunNotFound,
    StoreError,
)
from holdfast.events import Draft, Event, new

from .messages import Append, Appended
from .outcomes import AHEAD, Writing, facts_of, no_hook
from .plain import judge_plainly
from .rows import Head
from .verdict import (
    FROM_MEMORY,
    Changes,
    Found,
    HookChange,
    Row,
    Verdict,
    change_rows,
    command_of,
    copy_of,
    extend_chain,
    wanted,
)

__all__ = [
    "AHEAD",
    "FROM_MEMORY",
    "Changes",
    "Found",
    "HookChange",
    "Row",
    "Verdict",
    "change_rows",
    "command_of",
    "copy_of",
    "extend_chain",
    "judge",
    "judge_in_full",
    "judge_plainly",
    "resolve",
    "wanted",
]


def judge(request: Append, found: Found, now: int) -> Verdict:
    """Say what an append comes to. `now` is the store's clock in microseconds."""
    try:
        return judge_plainly(request, found, now) or judge_in_full(request, found, now)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # The data of an event are not what its type needs; a caller from elsewhere may send anything.
        told = f"{type(error).__name__}: {error}"
        return Verdict(InvalidAppend(f"an append to {request.run} has data that cannot be read ({told})"))


def judge_in_full(request: Append, found: Found, now: int) -> Verdict:
    """`judge` by all the rules."""
    drafts, after, head = request.drafts, request.after, found.head
    if found.batch is not None:
        return Verdict(_same_answer(request, found))
    classes = {draft.cls for draft in drafts}
    commands = "command" in classes
    malformed = _malformed(request, head, commands)
    if malformed is not None:
        return Verdict(malformed)
    creates = drafts[0].type == "run_created"
    if head is None:
        if not (creates and after == 0):
            return Verdict(RunNotFound(_no_run(request.run)))
        writing = Writing(request, found, Head(request.run), now)
        return writing.whole() if writing.fits_exactly() else writing.created_only()
    writing = Writing(request, found, head, now)
    if creates:
        return writing.taken()
    if head.ended is not None:
        return writing.late(commands)
    if after is None:
        return writing.facts()
    if commands and head.command > after:
        return writing.stale(f"{request.run}: a command lies beyond {after}")
    if "fact" in classes and not writing.fits_exactly():
        return writing.stale(f"{request.run}: early facts no longer follow right after {after}")
    return writing.whole()


def _malformed(request: Append, head: Head | None, commands: bool) -> StoreError | None:
    """What no state of the log could make right: an error of the program that sent it."""
    run, after = request.run, request.after
    if not request.drafts:
        return InvalidAppend(f"an append to {run} without events says nothing")
    if after is None:
        if not commands:
            return None
        return FenceMissing(
            f"{run}: {_kinds(request.drafts, 'command')} came without `after`: a command is accepted only "
            "with the position up to which its decider has read and delivered every fact"
        )
    if after < 0:
        return InvalidAppend(f"{run}: after={after}: a position is 0 or more")
    if head is not None and after > head.position:
        return InvalidAppend(
            f"{run}: after={after} lies beyond the log, which ends at {head.position}: "
            "was an older copy of the store put back?"
        )
    return None


def resolve(request: Append, found: Found) -> HoldfastError | None:
    """Point a payload at the run that holds its token; the answer where no run can take it.

    *Already there* comes first (law L3): a payload that was accepted once stays accepted, also when the
    hook has closed or the run has ended since.
    """
    assert request.token is not None
    known = found.deliveries.get(str(request.drafts[0].unique))
    if known is not None:
        request.run = known[0]
        return None
    holder = found.holders.get(request.token)
    if holder is None:
        if request.token in found.continued:
            run = found.continued[request.token]
            return RunContinued(
                f"run {run}, which holds {request.token!r}, goes on under another id that is not there yet: "
                "send it again",
                run=run,
            )
        reason = found.former.get(request.token, "unknown")
        return HookNotFound(no_hook(request.token, reason), reason=reason)  # type: ignore[arg-type]
    request.run, key = holder
    request.drafts = [new("hook_received", key=key, data=request.drafts[0].data)]
    return None


def _no_run(run: str) -> str:
    return f"no run {run!r} in this store"


def _kinds(drafts: Sequence[Draft], cls: str) -> str:
    return ", ".join(sorted({draft.type for draft in drafts if draft.cls == cls}))


def _same_answer(request: Append, found: Found) -> Appended:
    """The answer that a lost one held: same positions, same missed facts (law L12)."""
    assert found.batch is not None
    first, last = found.batch
    missed: list[Event] = []
    if request.after is not None:
        there = (e for e in found.beyond if e.position < first or e.type == "hook_refused")
        missed = facts_of(e for e in there if e.position <= last)
    duplicates, doubles = [], []
    for draft in request.drafts:
        position = _known_position(draft, found)
        if position is not None and not first <= position <= last:
            duplicates.append(position)
            doubles.append(str(draft.unique))
    return Appended(first, last, missed, duplicates, request.run, doubles)


def _known_position(draft: Draft, found: Found) -> int | None:
    unique = str(draft.unique)
    delivered = found.deliveries.get(unique)
    return found.uniques.get(unique) if delivered is None else delivered[1]
