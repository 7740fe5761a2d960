"""The outcomes of an append, one method each: accepted, partial, too late, taken.

`rules.judge` decides which it is. A `Writing` gathers rows, the new head and the changes of the projections
while it goes through the drafts, in memory only: nothing is written before the verdict is complete.
"""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.errors import (
    CommandMissing,
    DeliveryConflict,
    HoldfastError,
    HookNotFound,
    RunEnded,
    StaleLog,
    StepEnded,
    TooEarly,
)
from holdfast.events import ENDS, Draft, Event, new, numbered, token_of

from .effects import EFFECTS, Effects
from .messages import Append, Appended
from .rows import Head
from .verdict import (
    OUTCOMES,
    RESTS_ON,
    Found,
    Row,
    Verdict,
    command_of,
    copy_of,
    extend_chain,
    start_of,
)

AHEAD = 1_000_000
"""How far (µs) an early fact's time may lie ahead of the store's clock before the append is partial (L8)."""


def no_hook(token: str, reason: str) -> str:
    """The sentence of HookNotFound."""
    why = {
        "unknown": "no run has opened it: check the token, or start the run first",
        "closed": "the run closed it",
        "run_ended": "its run has ended",
    }[reason]
    return f"no open hook {token!r}: {why}"


def facts_of(events: Iterable[Event]) -> list[Event]:
    """What a decider has to deliver of these events."""
    return [event for event in events if event.cls == "fact"]


class Writing(Effects):
    """The verdict on one append while it is being made; each public method is one outcome."""

    __slots__ = ("before", "doubles", "duplicates", "here", "now")

    def __init__(self, request: Append, found: Found, head: Head, now: int) -> None:
        super().__init__(
            request, found, copy_of(head)
        )  # shallow: `attributes` is replaced, never changed in place
        self.before = head
        self.now = now
        self.duplicates: list[int] = []
        self.doubles: list[str] = []
        self.here: dict[str, int] = {}

    # ---- outcomes

    def whole(self) -> Verdict:
        """Accepted: all of it, in order. The facts that the writer had not read go back with the answer."""
        last = max((n for n, d in enumerate(self.request.drafts) if d.at is not None), default=0)
        for number, draft in enumerate(self.request.drafts):
            # What stands in front of an early fact cannot be later than it: it has its predecessor's time.
            time = self.head.time if number < last else None
            if draft.cls == "command":
                if self._there(draft) is not None:
                    # The last net: the fence should have refused this. The decider replays and finds out.
                    return self.stale(f"{self.request.run}: {draft.unique} is in the log already")
                if self.changes.ended:
                    return Verdict(RunEnded(f"{self.request.run}: {draft.type} follows its own end"))
                if draft.type in RESTS_ON and not self._asked_for(draft):
                    return Verdict(self._missing(draft))
                self._add(draft, time)
                continue
            # A fact keeps the time at which its decider delivered it; so does the creation (law L8).
            early = draft.cls == "fact" or draft.type == "run_created"
            refused = self._admit(draft, draft.at if early else time)
            if refused is not None:
                return Verdict(refused)
        head, after = self.head, self.request.after or 0
        if head.command > after:
            # Never the append's own position: facts in between are not delivered yet (law L14).
            head.delivered = max(head.delivered, after)
            head.crashes = 0
        missed = facts_of(self.found.beyond)
        if self.found.holders or self.found.continued:
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
            return Writing(self.request, self.found, self.before, self.now).stale(why)
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
        if draft.type in RESTS_ON and not self._asked_for(draft):
            return self._missing(draft)
        if draft.type == "step_started":
            return self._refuse_start(draft)
        if draft.type == "hook_received":
            return self._refuse_payload(draft)
        if self.before.ended is not None and not self._was_running(draft):
            return RunEnded(
                f"{self.request.run} has ended ({self.before.status}): {draft.type} comes too late"
            )
        return None

    def _refuse_payload(self, draft: Draft) -> HookNotFound | None:
        token = token_of(draft.key)
        if self.before.ended is not None:
            return HookNotFound(no_hook(token, "run_ended"), reason="run_ended")
        if self._opened_here(draft.key):
            return None
        if self.found.holders.get(token) != (self.request.run, draft.key):
            return HookNotFound(no_hook(token, "closed"), reason="closed")
        return None

    def _opened_here(self, key: str) -> bool:
        """Whether the creation of this run, in this append, takes the hook over from the run before."""
        return any(change.key == key and change.data is not None for change in self.changes.hooks)

    def _missing(self, draft: Draft) -> CommandMissing:
        return CommandMissing(
            f"{self.request.run}: {draft.type} {draft.key} rests on a command that is not in the log"
        )

    def _asked_for(self, draft: Draft) -> bool:
        """Whether the command that an event rests on is in the log; that of an open step surely is."""
        kind, key = RESTS_ON[draft.type], draft.key
        if kind == "step":
            if key in self.found.steps or key in self.changes.steps:
                return True
        elif kind == "timer":
            if key in self.found.timers or key in self.changes.timers:
                return True
        elif kind == "hook" and key == numbered(token_of(key), 0):
            return self._opened_here(key) or self.found.holders.get(token_of(key)) == (self.run, key)
        elif kind == "child" and (key in self.found.children or key in self.changes.children):
            return True
        command = f"{kind} {key}"
        return command in self.found.uniques or command in self.here

    def _was_running(self, draft: Draft) -> bool:
        return draft.type in OUTCOMES and start_of(draft) in self.found.uniques

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
        effect = EFFECTS.get(draft.type)
        if effect is not None:
            effect(self, draft.data, draft.key)

    def _refuse_taken_tokens(self) -> list[Event]:
        """A token that another run holds: the append itself causes `hook_refused`, right behind it (L5)."""
        refusals: list[Event] = []
        for draft in self.request.drafts:
            if draft.type != "hook_opened":
                continue
            token = token_of(draft.key)
            holder, _ = self.found.holders.get(token, (self.found.continued.get(token), ""))
            if holder is not None and holder != self.request.run:
                refusal = new("hook_refused", key=draft.key, data={"owner": holder})
                self._add(refusal, None)
                refusals.append(self.rows[-1].event(self.request.run))
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
        self.changes.see_what_is_there()
        return Verdict(answer, self.rows, self.head, self.changes)
