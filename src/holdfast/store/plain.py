"""The plain append, judged in one pass: a decider that has read everything begins a run, carries it on, ends it.

Nearly every append of a busy worker is of this kind: a run's first, with its first steps; outcomes of steps that
ran here, the next steps, and their starts; the run's end. `judge_plainly` says of it what `rules.judge_in_full`
would say, at a fifth of the price, and None of anything else, down to the least doubt (an event of another type, a
time that does not fit, a key that is there already). It knows no other outcome than "accepted", and the tests hold
the two against each other.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TypeAlias

from holdfast.events import ENDS

from .effects import begin_run, end_run
from .messages import Append, Appended
from .outcomes import AHEAD
from .rows import Head
from .verdict import Changes, Found, Row, Verdict, copy_of

_Step: TypeAlias = tuple[int, int | None] | None
_SCHEDULED = (0, None)


def judge_plainly(request: Append, found: Found, now: int) -> Verdict | None:  # noqa: C901 - one pass is its point
    """The verdict on a plain append, or None where the rules must be asked in full."""
    after, drafts = request.after, request.drafts
    if not drafts:
        return None
    begins = found.head is None
    before = found.head or Head(request.run)  # of the latter nothing is plain but its creation
    if before.position != after or before.ended is not None:
        return None
    if begins and drafts[0].type != "run_created":
        return None
    if found.batch is not None or found.beyond or found.holders:
        return None
    last = len(drafts) - 1
    while last >= 0 and drafts[last].at is None:
        last -= 1  # behind it the store gives the time; what stands in front has its predecessor's
    last += after + 1
    steps, uniques = found.steps, found.uniques  # of which a store that judges from memory has none
    position, time, count = after, before.time, before.steps
    command = fact = 0
    started = False
    changed: dict[str, _Step] = {}
    rows: list[Row] = []
    parts = [before.chain]
    for draft in drafts:
        type_, key, body = draft.type, draft.key, draft.body
        position += 1
        if type_ == "step_started":
            step = changed[key] if key in changed else steps.get(key)
            data = draft.data
            attempt = data.get("attempt", 1)
            if step is None or attempt <= step[0] or (step[1] is not None and now < step[1]):
                return None
            changed[key] = (attempt, data.get("due"))
        elif type_ == "step_scheduled":
            if key in changed or "queue" in draft.data:
                return None
            count += 1
            command = position
            changed[key] = _SCHEDULED
        elif type_ == "step_completed" or type_ == "step_failed":
            at = draft.at
            if at is None or at < time or at > now + AHEAD:
                return None
            if (changed[key] if key in changed else steps.get(key)) is None:
                return None
            fact = position
            count -= 1
            changed[key] = None
            time = at
        elif type_ == "run_created":
            at = draft.at
            if not begins or position != 1 or draft.data.get("hooks"):
                return None
            if at is not None and at > now + AHEAD:
                return None
            time = now if at is None else at
        elif type_ == "run_started":
            if position != 2 or not begins:
                return None
            started = True
        elif type_ == "run_completed" or type_ == "run_failed":
            if draft is not drafts[-1] or draft.cls != "command" or draft.data.get("continued"):
                return None
            command = position
        else:
            return None
        if position > last and now > time:
            time = now
        rows.append(Row(position, draft, time))
        parts += f"{position}\0{type_}\0{key}\0{time}\0{len(body)}\0".encode(), body
    if uniques and any(draft.unique in uniques for draft in drafts):
        return None
    head = copy_of(before)
    head.position, head.time, head.steps = position, time, count
    head.chain = blake2b(b"".join(parts), digest_size=16).digest()
    if fact:
        head.fact = fact
    if command:
        head.command = command
    if head.command > after:
        head.crashes = 0
        if after > head.delivered:
            head.delivered = after
    changes = Changes(changed)
    if begins:
        begin_run(head, drafts[0].data, request.owner, rows[0].time)
        if started:
            head.status = "running"
    if drafts[-1].type in ENDS:
        end_run(head, drafts[-1].type)
        changes.ended, changes.only_steps = True, False
    return Verdict(Appended(after + 1, position, [], [], request.run, []), rows, head, changes)
