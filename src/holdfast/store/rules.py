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

from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from ..errors import (
    CommandMissing,
    DeliveryConflict,
    FenceMissing,
    HoldfastError,
    HookNotFound,
    RunEnded,
    RunNotFound,
    StaleLog,
    StepEnded,
    StoreError,
    TooEarly,
)
from ..events import ENDS, Draft, Event, new, token_of
from .base import Append, Appended, Head

AHEAD = 1_000_000
"""How far (µs) an early fact's time may lie ahead of the store's clock before the append is partial (L8)."""


class Found(msgspec.Struct):
    """What the backend looked up for one append, in the transaction that will write the verdict."""

    head: Head | None
    batch: tuple[int, int] | None = None
    """First and last position of this batch, where it is in the log already."""
    uniques: Mapping[str, int] = {}
    """Which of `wanted(drafts)` are in the log, and where."""
    steps: Mapping[str, tuple[int, int | None]] = {}
    """Of the steps that the drafts name, those that owe an outcome: key -> (attempt, due)."""
    timers: Mapping[str, int] = {}
    """Of the timers that the drafts name, those that are pending: key -> due."""
    holders: Mapping[str, tuple[str, str]] = {}
    """Of the tokens that the drafts name, those that are open: token -> (run, key)."""
    former: Mapping[str, str] = {}
    """Of those tokens, the ones that are not open but once were: token -> closed or run_ended."""
    deliveries: Mapping[str, tuple[str, int, str]] = {}
    """Of the deliveries that the drafts carry, those known: unique key -> (run, position, digest)."""
    beyond: Sequence[Event] = ()
    """All events beyond `after`, where there are any."""


class Row(msgspec.Struct, frozen=True):
    """An event with its place in the log."""

    position: int
    draft: Draft
    time: int


class Changes(msgspec.Struct):
    """What an append changes in the projections; None in `steps` and `timers` means: no longer there."""

    steps: dict[str, tuple[int, int | None] | None] = {}
    timers: dict[str, int | None] = {}
    hooks: list[HookChange] = []
    deliveries: list[tuple[str, int, str]] = []
    """(unique key, position, digest) of each payload."""
    ended: bool = False
    """The run's steps and timers go, its open hooks become run_ended."""


class HookChange(msgspec.Struct, frozen=True):
    """A hook that opens (with its event's data) or, without data, closes; in the order of the code."""

    key: str
    data: Mapping[str, Any] | None = None


class Verdict(msgspec.Struct):
    """What to write (nothing, where `rows` is empty), and the answer."""

    answer: Appended | HoldfastError
    rows: list[Row] = []
    head: Head | None = None
    changes: Changes | None = None


def wanted(drafts: Iterable[Draft]) -> set[str]:
    """The unique keys that must be looked up: the drafts' own, and those of the commands they report on."""
    keys: set[str] = set()
    for draft in drafts:
        if draft.unique is not None:
            keys.add(draft.unique)
        reports_on = command_of(draft)
        if reports_on is not None:
            keys.add(reports_on)
        if draft.type in _OUTCOMES:
            keys.add(_start_of(draft))
    return keys


def command_of(draft: Draft) -> str | None:
    """The unique key of the command that a fact or record reports on, or None."""
    kind = _REPORTS.get(draft.type)
    return None if kind is None else f"{kind} {draft.key}"


def _start_of(outcome: Draft) -> str:
    """The unique key of the start of the attempt whose outcome this is."""
    return f"step {outcome.key} attempt {outcome.data.get('attempt', 1)} started"


_REPORTS = {
    "step_started": "step",
    "step_retried": "step",
    "step_completed": "step",
    "step_failed": "step",
    "timer_fired": "timer",
    "hook_received": "hook",
    "child_ended": "child",
}
_OUTCOMES = frozenset({"step_completed", "step_failed"})


def extend_chain(chain: bytes, rows: Iterable[tuple[int, str, str, int, bytes]]) -> bytes:
    """The hash over the previous hash and these events (position, type, key, time, body): law L13."""
    parts = [chain]
    for position, type_, key, time, body in rows:
        parts += f"{position}\0{type_}\0{key}\0{time}\0{len(body)}\0".encode(), body
    return blake2b(b"".join(parts), digest_size=16).digest()


copy_of: Callable[[Head], Head] = Head.__copy__  # type: ignore[attr-defined]
"""A shallow copy of a head (`copy.copy` costs three times as much)."""


# ---- the judgement ----------------------------------------------------------------------------------------


def judge(request: Append, found: Found, now: int) -> Verdict:
    """Say what an append comes to. `now` is the store's clock in microseconds."""
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
        writing = _Writing(request, found, Head(request.run), now)
        return writing.whole() if writing.fits_exactly() else writing.created_only()
    writing = _Writing(request, found, head, now)
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
        return StoreError(f"an append to {run} without events says nothing")
    if after is None:
        if not commands:
            return None
        return FenceMissing(
            f"{run}: {_kinds(request.drafts, 'command')} came without `after`: a command is accepted only "
            "with the position up to which its decider has read and delivered every fact"
        )
    if after < 0:
        return StoreError(f"{run}: after={after}: a position is 0 or more")
    if head is not None and after > head.position:
        return StoreError(
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
        reason = found.former.get(request.token, "unknown")
        return HookNotFound(no_hook(request.token, reason), reason=reason)  # type: ignore[arg-type]
    request.run, key = holder
    request.drafts = [new("hook_received", key=key, data=request.drafts[0].data)]
    return None


def no_hook(token: str, reason: str) -> str:
    """The sentence of HookNotFound."""
    why = {
        "unknown": "no run has opened it: check the token, or start the run first",
        "closed": "the run closed it",
        "run_ended": "its run has ended",
    }[reason]
    return f"no open hook {token!r}: {why}"


def _no_run(run: str) -> str:
    return f"no run {run!r} in this store"


def _kinds(drafts: Sequence[Draft], cls: str) -> str:
    return ", ".join(sorted({draft.type for draft in drafts if draft.cls == cls}))


def _facts(events: Iterable[Event]) -> list[Event]:
    return [event for event in events if event.cls == "fact"]


def _same_answer(request: Append, found: Found) -> Appended:
    """The answer that a lost one held: same positions, same missed facts (law L12)."""
    assert found.batch is not None
    first, last = found.batch
    missed: list[Event] = []
    if request.after is not None:
        there = (e for e in found.beyond if e.position < first or e.type == "hook_refused")
        missed = _facts(e for e in there if e.position <= last)
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


class _Writing:
    """The verdict on one append while it is being made; each public method is one outcome."""

    __slots__ = (
        "before",
        "changes",
        "doubles",
        "duplicates",
        "found",
        "head",
        "here",
        "now",
        "request",
        "rows",
        "run",
    )

    def __init__(self, request: Append, found: Found, head: Head, now: int) -> None:
        self.request = request
        self.found = found
        self.before = head
        self.head = copy_of(head)  # shallow: `attributes` is replaced, never changed in place
        self.now = now
        self.rows: list[Row] = []
        self.duplicates: list[int] = []
        self.doubles: list[str] = []
        self.here: dict[str, int] = {}
        self.run = request.run
        self.changes = Changes()

    # ---- outcomes

    def whole(self) -> Verdict:
        """Accepted: all of it, in order. The facts that the writer had not read go back with the answer."""
        for draft in self.request.drafts:
            if draft.cls == "command":
                if self._there(draft) is not None:
                    # The last net: the fence should have refused this. The decider replays and finds out.
                    return self.stale(f"{self.request.run}: {draft.unique} is in the log already")
                if self.changes.ended:
                    return Verdict(RunEnded(f"{self.request.run}: {draft.type} follows its own end"))
                self._add(draft, None)
                continue
            # A fact keeps the time at which its decider delivered it; so does the creation (law L8).
            early = draft.cls == "fact" or draft.type == "run_created"
            refused = self._admit(draft, draft.at if early else None)
            if refused is not None:
                return Verdict(refused)
        head, after = self.head, self.request.after or 0
        if head.command > after:
            # Never the append's own position: facts in between are not delivered yet (law L14).
            head.delivered = max(head.delivered, after)
            head.crashes = 0
        missed = _facts(self.found.beyond)
        if self.found.holders:
            missed += self._refuse_taken_tokens()
        return self._accept(missed)

    def facts(self) -> Verdict:
        """Facts and records from outside: never refused for staleness (law L3), whole or not at all."""
        for draft in self.request.drafts:
            refused = self._admit(draft, None)
            if refused is not None:
                return Verdict(refused)
        return self._accept([])

    def stale(self, why: str) -> Verdict:
        """Commands refused; the facts that came with them are recorded: a partial answer (law L5)."""
        if self.rows:
            return _Writing(self.request, self.found, self.before, self.now).stale(why)
        recorded = self._record_facts()
        error = StaleLog(
            f"{why}: read the {len(self.found.beyond)} events that were missed, then decide again",
            missed=self.found.beyond,
            recorded=recorded,
            position=self.head.position,
        )
        return self._refuse(error)

    def taken(self) -> Verdict:
        """The run is there already. Nothing is kept: what this creator's steps gave is not that run's."""
        return Verdict(
            StaleLog(
                f"{self.request.run} exists already: read it, and see whether it is the one that was meant",
                missed=self.found.beyond,
                position=self.before.position,
            )
        )

    def created_only(self) -> Verdict:
        """An eager start whose times do not fit (law L8): the run is there, its commands are refused."""
        self._add(self.request.drafts[0], None)
        error = StaleLog(
            f"{self.request.run} was created, but the clock of its creator is more than a second ahead "
            "or its facts are out of order: read the log, then decide again",
            recorded=[1],
            position=1,
        )
        return self._refuse(error)

    def late(self, commands: bool) -> Verdict:
        """The run has ended (law L11): only outcomes of steps that were running are still recorded."""
        ended = f"{self.request.run} has ended ({self.before.status})"
        if not commands and self.request.after is None:
            for draft in self.request.drafts:
                refused = self._admit(draft, None)
                if refused is not None:
                    return Verdict(refused)
            return self._accept([])
        recorded = self._record_facts()
        return self._refuse(RunEnded(ended, recorded=recorded))

    def fits_exactly(self) -> bool:
        """Whether early facts may be stored just as they were delivered (laws L5 and L8)."""
        if self.before.position > (self.request.after or 0):
            return False
        time = self.before.time
        for draft in self.request.drafts:
            if draft.cls != "fact" and draft.type != "run_created":
                continue
            if self._there(draft) is not None:
                return False
            if draft.at is None:
                time = max(time, self.now)  # not delivered early, or by a decider that needs no clock
                continue
            if draft.at < time or draft.at > self.now + AHEAD:
                return False
            if draft.type == "timer_fired" and draft.at < self.found.timers.get(draft.key, 0):
                return False
            time = draft.at
        return True

    # ---- parts

    def _record_facts(self) -> list[int]:
        """Keep what happened; what was only meant to happen (commands, starts) is refused with them."""
        refused = {draft.unique for draft in self.request.drafts if draft.cls == "command"}
        for draft in self.request.drafts:
            if draft.cls != "fact" and draft.type != "step_retried":
                continue
            # A fact about a command of this very append reports on nothing that is in the log, even where
            # another decider's command has its name.
            if command_of(draft) not in refused:
                self._admit(draft, None)
        return [row.position for row in self.rows if row.draft.cls == "fact"]

    def _there(self, draft: Draft) -> int | None:
        if draft.unique is None:
            return None
        here = self.here.get(draft.unique)
        return self.found.uniques.get(draft.unique) if here is None else here

    def _admit(self, draft: Draft, at: int | None) -> HoldfastError | None:
        """Add a fact or record, or note that it is there already; the error where it may not be."""
        there = self._there(draft)
        if draft.type == "hook_received":
            known = self.found.deliveries.get(str(draft.unique))
            if known is not None:
                if known[2] != draft.data.get("digest", ""):
                    return DeliveryConflict(
                        f"delivery {draft.data['delivery']!r} to {token_of(draft.key)!r} was made before "
                        "with another payload: use a new delivery id for a new payload"
                    )
                self.run, there = known[0], known[1]
        if there is not None and draft.type in ENDS and self._ended_otherwise(draft):
            return RunEnded(f"{self.request.run} has ended ({self.before.status})")
        if there is not None:
            self.duplicates.append(there)
            self.doubles.append(str(draft.unique))
            return None
        refused = self._refusal(draft)
        if refused is None:
            self._add(draft, at)
        return refused

    def _ended_otherwise(self, end: Draft) -> bool:
        return self.before.ended is not None and end.type != f"run_{self.before.status}"

    def _refusal(self, draft: Draft) -> HoldfastError | None:
        run, ended = self.request.run, self.before.ended is not None
        if not self._asked_for(draft):
            return CommandMissing(
                f"{run}: {draft.type} {draft.key} reports on a command that is not in the log"
            )
        if draft.type == "hook_received":
            if ended:
                return HookNotFound(no_hook(token_of(draft.key), "run_ended"), reason="run_ended")
            if self.found.holders.get(token_of(draft.key)) != (run, draft.key):
                return HookNotFound(no_hook(token_of(draft.key), "closed"), reason="closed")
        elif draft.type == "step_started":
            return self._refuse_start(draft)
        elif ended and not self._was_running(draft):
            return RunEnded(f"{run} has ended ({self.before.status}): {draft.type} comes too late")
        return None

    def _asked_for(self, draft: Draft) -> bool:
        """Whether the command that a fact or record reports on is in the log."""
        kind = _REPORTS.get(draft.type)
        if kind is None:
            return True
        if kind == "step" and (draft.key in self.found.steps or draft.key in self.changes.steps):
            return True
        if kind == "timer" and (draft.key in self.found.timers or draft.key in self.changes.timers):
            return True
        command = f"{kind} {draft.key}"
        return command in self.found.uniques or command in self.here

    def _was_running(self, draft: Draft) -> bool:
        return draft.type in _OUTCOMES and _start_of(draft) in self.found.uniques

    def _refuse_start(self, draft: Draft) -> HoldfastError | None:
        run = self.request.run
        if self.before.ended is not None:
            return RunEnded(f"{run} has ended ({self.before.status}): no attempt may start")
        step = self._open_step(draft.key)
        if step is None:
            return StepEnded(f"{run}: {draft.key} has its outcome, no attempt may start")
        if step[1] is not None and self.now < step[1]:
            return TooEarly(f"{run}: {draft.key} may start again in {(step[1] - self.now) / 1e6:.3f} s")
        return None

    def _add(self, draft: Draft, at: int | None) -> None:
        head = self.head
        if at is None:
            at = self.now
            if draft.type == "timer_fired":
                at = max(at, self.found.timers.get(draft.key, 0))
        head.position = position = head.position + 1
        if at > head.time:
            head.time = at
        if draft.cls == "command":
            head.command = position
        elif draft.cls == "fact":
            head.fact = position
        if draft.unique is not None:
            self.here[draft.unique] = position
        self.rows.append(Row(position, draft, head.time))
        change = _CHANGES.get(draft.type)
        if change is not None:
            change(self, draft.data, draft.key)

    def _refuse_taken_tokens(self) -> list[Event]:
        """A token that another run holds: the append itself causes `hook_refused`, right behind it (L5)."""
        refusals: list[Event] = []
        for draft in self.request.drafts:
            if draft.type != "hook_opened":
                continue
            holder = self.found.holders.get(token_of(draft.key))
            if holder is not None and holder[0] != self.request.run:
                refusal = new("hook_refused", key=draft.key, data={"owner": holder[0]})
                self._add(refusal, None)
                row = self.rows[-1]
                refusals.append(
                    Event(self.request.run, row.position, refusal.type, refusal.key, row.time, refusal.body)
                )
        return refusals

    def _accept(self, missed: list[Event]) -> Verdict:
        if not self.rows:
            return Verdict(
                Appended(
                    self.duplicates[0], self.duplicates[-1], missed, self.duplicates, self.run, self.doubles
                )
            )
        answer = Appended(
            self.rows[0].position, self.rows[-1].position, missed, self.duplicates, self.run, self.doubles
        )
        return self._write(answer)

    def _refuse(self, error: HoldfastError) -> Verdict:
        return self._write(error) if self.rows else Verdict(error)

    def _write(self, answer: Appended | HoldfastError) -> Verdict:
        self.head.chain = extend_chain(
            self.before.chain,
            [(r.position, r.draft.type, r.draft.key, r.time, r.draft.body) for r in self.rows],
        )
        return Verdict(answer, self.rows, self.head, self.changes)

    # ---- what head and projections take from each type

    def created(self, data: Mapping[str, Any], _key: str) -> None:
        self.head.workflow = data.get("workflow", "")
        self.head.created = self.head.time
        self.head.attributes = dict(data.get("attributes") or {})
        self.head.owner = self.request.owner

    def started(self, _data: Mapping[str, Any], _key: str) -> None:
        self.head.status = "running"

    def step_scheduled(self, _data: Mapping[str, Any], key: str) -> None:
        self.head.steps += 1
        self.changes.steps[key] = (0, None)

    def step_attempted(self, data: Mapping[str, Any], key: str) -> None:
        step = self._open_step(key)
        attempt = data.get("attempt", 1)
        if step is not None and attempt >= step[0]:  # what an attempt given up long ago says changes nothing
            self.changes.steps[key] = (attempt, data.get("due"))

    def step_ended(self, _data: Mapping[str, Any], key: str) -> None:
        if self._open_step(key) is not None:
            self.head.steps -= 1
            self.changes.steps[key] = None

    def _open_step(self, key: str) -> tuple[int, int | None] | None:
        steps = self.changes.steps
        return steps[key] if key in steps else self.found.steps.get(key)

    def timer_started(self, data: Mapping[str, Any], key: str) -> None:
        self.head.timers += 1
        self.changes.timers[key] = data.get("due", 0)

    def timer_ended(self, _data: Mapping[str, Any], key: str) -> None:
        if self.changes.timers.get(key, self.found.timers.get(key)) is not None:
            self.head.timers -= 1
            self.changes.timers[key] = None

    def hook_opened(self, data: Mapping[str, Any], key: str) -> None:
        self.changes.hooks.append(HookChange(key, data))

    def hook_closed(self, _data: Mapping[str, Any], key: str) -> None:
        self.changes.hooks.append(HookChange(key))

    def hook_refused(self, _data: Mapping[str, Any], key: str) -> None:
        self.changes.hooks = [change for change in self.changes.hooks if change.key != key]

    def hook_received(self, data: Mapping[str, Any], _key: str) -> None:
        row = self.rows[-1]
        if row.draft.unique is not None:
            self.changes.deliveries.append((row.draft.unique, row.position, data.get("digest", "")))

    def attributes_set(self, data: Mapping[str, Any], _key: str) -> None:
        merged = {**self.head.attributes, **data["attributes"]}
        self.head.attributes = {name: value for name, value in merged.items() if value is not None}

    def ended(self, _data: Mapping[str, Any], _key: str) -> None:
        type_ = self.rows[-1].draft.type
        self.head.status = type_.removeprefix("run_")  # type: ignore[assignment]
        self.head.ended = self.head.time
        self.head.steps = self.head.timers = 0
        self.head.owner = self.head.parked = None
        self.changes.ended = True


_CHANGES = {
    "run_created": _Writing.created,
    "run_started": _Writing.started,
    "step_scheduled": _Writing.step_scheduled,
    "step_started": _Writing.step_attempted,
    "step_retried": _Writing.step_attempted,
    "step_completed": _Writing.step_ended,
    "step_failed": _Writing.step_ended,
    "timer_started": _Writing.timer_started,
    "timer_fired": _Writing.timer_ended,
    "timer_cancelled": _Writing.timer_ended,
    "hook_opened": _Writing.hook_opened,
    "hook_closed": _Writing.hook_closed,
    "hook_refused": _Writing.hook_refused,
    "hook_received": _Writing.hook_received,
    "attributes_set": _Writing.attributes_set,
    **dict.fromkeys(ENDS, _Writing.ended),
}
