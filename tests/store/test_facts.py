"""Laws L3, L5, L8 and L11: facts are never stale, never doubled, never early in time; ends are final."""

import asyncio

import pytest
from store_kit import (
    SECOND,
    assert_sound,
    begin,
    brief,
    completed,
    created,
    ended,
    failed,
    fired,
    noted,
    retried,
    running,
    scheduled,
    started,
    terminated,
    timer,
    types,
    woken,
)

from holdfast.errors import (
    CommandMissing,
    RunEnded,
    RunNotFound,
    StaleLog,
    StepEnded,
    StoreError,
    TooEarly,
)
from holdfast.events import new
from holdfast.store.rules import AHEAD

# ---- L3: facts


async def test_facts_need_no_fence_and_are_never_stale(store):
    """L3, L-06: whatever commands and facts came meanwhile, a fact is taken."""
    last = await begin(store, "r", "a#1", "b#1")
    for n in range(20):
        last = (await store.append("r", [noted(f"n#{n + 1}")], after=last)).last
        assert (await store.append("r", [woken(f"{n}")])).first == last + 1
        last += 1
    assert (await store.append("r", [completed("a#1"), completed("b#1")])).last == last + 2
    await assert_sound(store, "r")


async def test_a_fact_that_is_there_is_answered_with_its_position(store):
    """L3, H-11: one end of a timer, one outcome of an attempt, one cancel: the second finds the first."""
    last = await begin(store, "r", "a#1")
    await store.append("r", [timer("s#1", 1)], after=last)
    facts = [fired("s#1"), completed("a#1"), new("cancel_requested"), woken("w")]
    first = [await store.append("r", [fact]) for fact in facts]
    again = [await store.append("r", [fact]) for fact in facts]
    assert [a.duplicates for a in again] == [[f.first] for f in first]
    assert [(a.first, a.last) for a in again] == [(f.first, f.last) for f in first]
    both = await store.append("r", [failed("a#1"), woken("v"), fired("s#1")])
    assert (both.first, both.last, both.duplicates) == (last + 6, last + 6, [last + 3, last + 2])
    assert both.doubles == ["step a#1 attempt 1 ended", "timer s#1 fired"]
    await assert_sound(store, "r")


async def test_there_already_comes_before_every_other_check(store):
    """L3, L-02, B10: ended run and finished step included; one answer never means two things."""
    last = await begin(store, "r", "a#1", "b#1")
    await store.append("r", [timer("s#1", 1)], after=last)
    facts = [completed("a#1"), fired("s#1"), new("cancel_requested"), started("a#1")]
    first = [await store.append("r", [fact]) for fact in facts]
    await store.append("r", [ended()], after=last + 4)
    again = [await store.append("r", [fact]) for fact in facts]
    assert [a.first for a in again] == [f.first for f in first]
    assert all(a.duplicates for a in again)
    with pytest.raises(RunEnded):
        await store.append("r", [woken("new")])


@pytest.mark.parametrize(
    "fact",
    [
        completed("x#1"),
        failed("x#1"),
        started("x#1"),
        retried("x#1"),
        fired("x#1"),
        new("child_ended", key="x#1"),
        new("hook_received", key="x#1", data={"delivery": "d", "payload": 1}),
    ],
    ids=lambda draft: draft.type,
)
async def test_a_fact_whose_command_is_missing_is_refused(store, fact):
    """L3: what nobody asked for is reported by nobody."""
    last = await begin(store, "r", "a#1")
    with pytest.raises(CommandMissing):
        await store.append("r", [woken("w"), fact])
    assert (await store.head("r")).position == last
    with pytest.raises(RunNotFound):
        await store.append("nobody", [fact])


async def test_the_second_claimer_of_an_attempt_is_told(store):
    """L3, L-13: exactly one of ten may run the body; the others find their key among the doubles."""
    last = await begin(store)
    await store.append("r", [scheduled("a#1")], after=last)
    answers = await asyncio.gather(
        *(store.append("r", [started("a#1", worker=f"wrk{n}")]) for n in range(10))
    )
    assert sorted(len(a.duplicates) for a in answers) == [0] + [1] * 9
    assert {tuple(a.doubles) for a in answers} == {(), ("step a#1 attempt 1 started",)}
    assert len(await assert_sound(store, "r")) == last + 2


async def test_the_first_outcome_of_a_step_counts_and_later_ones_are_kept(store):
    """L3, L-15: two attempts may both end; the projection goes by the first in the log."""
    last = await begin(store, "r", "a#1")
    await store.append("r", [started("a#1", 2)])
    await store.append("r", [completed("a#1", 2)])
    assert await store.open_steps("r") == []
    assert (await store.append("r", [failed("a#1", 1)])).first == last + 3
    assert (await store.head("r")).steps == 0
    await assert_sound(store, "r")


async def test_an_attempt_given_up_changes_nothing_of_a_newer_one(store, clock):
    """L-15: a paused worker comes back and says that its attempt is to be retried; the newer one goes on."""
    await begin(store, "r", "a#1")
    await store.append("r", [started("a#1", 2)])
    await store.append("r", [retried("a#1", 1, clock.now() + 9 * SECOND)])
    (step,) = await store.open_steps("r")
    assert (step.attempt, step.due) == (2, None)
    await assert_sound(store, "r")


async def test_attempts_start_when_their_back_off_is_over_and_not_after_the_outcome(store, clock):
    """Reference §2.7: a start before the retry is due, of a finished step, on an ended run."""
    last = await begin(store, "r", "a#1")
    due = clock.now() + 2 * SECOND
    await store.append("r", [retried("a#1", 1, due)])
    (step,) = await store.open_steps("r")
    assert (step.attempt, step.due) == (1, due)
    with pytest.raises(TooEarly):
        await store.append("r", [started("a#1", 2)])
    clock.advance(2)
    await store.append("r", [started("a#1", 2)])
    assert (await store.open_steps("r"))[0].due is None
    await store.append("r", [completed("a#1", 2)])
    with pytest.raises(StepEnded):
        await store.append("r", [started("a#1", 3)])
    await store.append("r", [scheduled("b#1"), ended()], after=last + 3)
    with pytest.raises(RunEnded):
        await store.append("r", [started("b#1")])
    await assert_sound(store, "r")


# ---- L5: nothing slips by


async def test_an_accepted_append_hands_back_the_facts_it_had_not_read(store):
    """L5: facts and records between `after` and the append do not trip it; the facts are delivered next."""
    last = await begin(store, "r", "a#1", "b#1")
    await store.append("r", [completed("b#1")])
    await store.append("r", [started("a#1", 2)])
    await store.append("r", [woken("w")])
    answer = await store.append("r", [scheduled("c#1"), started("c#1")], after=last)
    assert brief(answer.missed) == [(last + 1, "step_completed", "b#1"), (last + 3, "woken", "")]
    assert (answer.first, answer.last) == (last + 4, last + 5)
    assert (await store.append("r", [noted("n#1")], after=answer.last)).missed == []


async def test_early_facts_are_whole_at_the_exact_tail(store, clock):
    """L5: nothing at all beyond `after`: facts and commands go in, in the order of delivery."""
    last = await begin(store, "r", "a#1", "b#1")
    drafts = [completed("b#1", at=clock.now()), completed("a#1", at=clock.now()), scheduled("c#1")]
    answer = await store.append("r", drafts, after=last)
    assert (answer.first, answer.missed) == (last + 1, [])
    assert [e.key for e in (await assert_sound(store, "r"))[last:]] == ["b#1", "a#1", "c#1"]


@pytest.mark.parametrize("between", ["fact", "record"])
async def test_early_facts_with_commands_are_partial_behind_the_tail(store, clock, between):
    """L5, B2, B5: the facts are recorded, the commands refused; the answer says both."""
    last = await begin(store, "r", "a#1", "b#1")
    await store.append("r", [completed("b#1") if between == "fact" else started("b#1", 2)])
    with pytest.raises(StaleLog) as caught:
        await store.append("r", [completed("a#1", at=clock.now()), noted("n#1")], after=last)
    error = caught.value
    assert (error.recorded, error.position) == ([last + 2], last + 2)
    assert [e.position for e in error.missed] == [last + 1]
    log = await assert_sound(store, "r")
    assert brief(log[last:])[1:] == [(last + 2, "step_completed", "a#1")]
    assert (await store.head("r")).ready


async def test_early_facts_alone_are_fenced_by_the_tail_as_well(store, clock):
    """L5, B3: 'whether or not commands follow': the order in which one decider saw its facts is the log's."""
    last = await begin(store, "r", "a#1", "b#1")
    await store.append("r", [completed("b#1")])
    with pytest.raises(StaleLog) as caught:
        await store.append("r", [completed("a#1", at=clock.now())], after=last)
    assert caught.value.recorded == [last + 2]
    answer = await store.append("r", [woken("w")], after=last + 2)
    assert answer.first == last + 3


async def test_an_early_fact_that_is_there_already_is_partial(store, clock):
    """L5: another executor was first, so what the decider delivered is not what the log will tell."""
    last = await begin(store, "r", "a#1")
    await store.append("r", [failed("a#1")])
    with pytest.raises(StaleLog) as caught:
        await store.append("r", [completed("a#1", at=clock.now()), noted("n#1")], after=last)
    assert (caught.value.recorded, types(caught.value.missed)) == ([], ["step_failed"])
    with pytest.raises(StaleLog):
        await store.append("r", [completed("a#1", at=clock.now()), noted("n#1")], after=last + 1)
    assert len(await assert_sound(store, "r")) == last + 1


async def test_a_fact_about_a_refused_command_is_not_recorded_under_its_name(store, clock):
    """L5, B5: the other decider's `s#1` is another sleep; 'fired' must not end it."""
    last = await begin(store, "r", "a#1")
    await store.append("r", [timer("s#1", clock.now() + 3600 * SECOND)], after=last)
    drafts = [completed("a#1", at=clock.now()), timer("s#1", 1), fired("s#1", at=clock.now())]
    with pytest.raises(StaleLog) as caught:
        await store.append("r", drafts, after=last)
    assert caught.value.recorded == [last + 2]
    assert (await store.head("r")).timers == 1
    await assert_sound(store, "r")


# ---- L8: time


async def test_an_early_fact_is_stored_at_the_time_of_its_delivery(store, clock):
    """L8, B6: exactly that number; other events get the store's time, never before their predecessor's."""
    last = await begin(store, "r", "a#1", "b#1", "c#1")
    now = clock.advance(10)
    early = [now - 5 * SECOND, now - 5 * SECOND + 1, now + AHEAD]
    drafts = [completed(k, at=at) for k, at in zip(("a#1", "b#1", "c#1"), early, strict=True)]
    await store.append("r", [*drafts, noted("n#1")], after=last)
    log = await assert_sound(store, "r")
    assert [e.time for e in log[last:]] == [*early, now + AHEAD]
    await store.append("r", [woken("w")])
    assert (await store.read("r"))[-1].time == now + AHEAD
    clock.advance(10)
    await store.append("r", [woken("x")])
    assert (await store.read("r"))[-1].time == clock.now()


@pytest.mark.parametrize("offset", [AHEAD + 1, -1])
async def test_a_time_that_does_not_fit_makes_the_append_partial(store, clock, offset):
    """L8: more than a second ahead of the store's clock, or before the predecessor's."""
    last = await begin(store, "r", "a#1")
    at = clock.now() + offset
    with pytest.raises(StaleLog) as caught:
        await store.append("r", [completed("a#1", at=at), noted("n#1")], after=last)
    assert caught.value.recorded == [last + 1]
    assert (await assert_sound(store, "r"))[-1].time == clock.now()


async def test_early_facts_out_of_their_own_order_are_partial(store, clock):
    """L8: not before the previous `at`, within one append too."""
    last = await begin(store, "r", "a#1", "b#1")
    clock.advance(5)
    drafts = [completed("a#1", at=clock.now()), completed("b#1", at=clock.now() - 1)]
    with pytest.raises(StaleLog) as caught:
        await store.append("r", drafts, after=last)
    assert caught.value.recorded == [last + 1, last + 2]


async def test_facts_that_bring_no_time_get_the_stores(store, clock):
    """L8: a decider that did not deliver them early (or needs no clock) leaves the time to the store."""
    last = await begin(store, "r", "a#1", "b#1")
    clock.advance(5)
    await store.append("r", [completed("a#1"), completed("b#1", at=clock.now()), noted("n#1")], after=last)
    assert {e.time for e in (await assert_sound(store, "r"))[last:]} == {clock.now()}


async def test_a_timer_fires_not_before_its_deadline(store, clock):
    """L8: whoever's clock runs fast, `timer_fired` stands at its deadline or later."""
    last = await begin(store)
    due = clock.now() + 10 * SECOND
    await store.append("r", [timer("s#1", due), timer("s#2", due + 1), timer("s#3", due)], after=last)
    await store.append("r", [fired("s#1")])
    assert (await store.read("r"))[-1].time == due
    with pytest.raises(StaleLog):
        await store.append("r", [fired("s#2", at=due), noted("n#1")], after=last + 4)
    assert (await store.read("r"))[-1].time == due + 1
    clock.advance(60)
    await store.append("r", [fired("s#3")])
    assert (await assert_sound(store, "r"))[-1].time == clock.now()
    assert await store.timers() == []


async def test_a_creation_keeps_the_time_at_which_it_was_delivered(store, clock):
    """L8, B6: an eager start ticks before the first commit, with the time that the log will have."""
    at = clock.now() - 3
    await store.append("r", [created(at=at), running(), noted("n#1")], after=0)
    log = await assert_sound(store, "r")
    assert [e.time for e in log] == [at, clock.now(), clock.now()]
    assert (await store.head("r")).created == at


async def test_a_creator_with_a_fast_clock_creates_and_decides_nothing(store, clock):
    """L8: partial: the run is there with the store's time, its commands are refused."""
    at = clock.now() + AHEAD + 1
    with pytest.raises(StaleLog) as caught:
        await store.append("r", [created(at=at), running(), noted("n#1")], after=0)
    assert (caught.value.recorded, caught.value.position) == ([1], 1)
    assert types(await assert_sound(store, "r")) == ["run_created"]
    assert (await store.head("r")).ready


# ---- L11: ends


async def test_ends_are_final(store):
    """L11, reference §2.7: no command, no start, no new fact; typed, and nothing is written."""
    last = await begin(store, "r", "a#1")
    end = await store.append("r", [ended()], after=last)
    head = await store.head("r")
    assert (head.status, head.steps, head.owner, head.ready) == ("completed", 0, None, False)
    refused = [
        ([noted("n#1")], end.last),
        ([scheduled("b#1")], end.last),
        ([timer("s#1", 1)], end.last),
        ([new("hook_opened", key="t#1")], end.last),
        ([new("attributes_set", key="attributes#1", data={"attributes": {}})], end.last),
        ([ended("failed")], end.last),
        ([ended("failed")], last),
        ([started("a#1", 2)], None),
        ([retried("a#1")], None),
        ([new("cancel_requested")], None),
        ([woken("w")], None),
        ([terminated()], None),
    ]
    for drafts, after in refused:
        with pytest.raises(RunEnded):
            await store.append("r", drafts, after=after)
    assert await store.head("r") == head
    assert len(await assert_sound(store, "r")) == end.last


async def test_a_running_steps_outcome_is_kept_after_the_end(store, clock):
    """L11, reference §2.7: late, for the record; of a step that was never started it is refused."""
    last = await begin(store, "r", "a#1", "b#1")
    last = (await store.append("r", [scheduled("c#1")], after=last)).last
    last = (await store.append("r", [ended("failed")], after=last)).last
    assert (await store.append("r", [completed("a#1")])).first == last + 1
    with pytest.raises(RunEnded) as caught:
        await store.append("r", [completed("b#1", at=clock.now()), noted("n#1")], after=last - 1)
    assert caught.value.recorded == [last + 2]
    with pytest.raises(RunEnded):
        await store.append("r", [completed("c#1")])
    head = await store.head("r")
    assert (head.status, head.steps, head.position) == ("failed", 0, last + 2)
    await assert_sound(store, "r")


async def test_terminate_is_a_record_that_needs_no_fence(store):
    """DESIGN §2: an end with `by` is not the code's; a second one finds the first, another end refuses it."""
    last = await begin(store, "r", "a#1")
    await store.append("r", [noted("n#1")], after=last)
    end = await store.append("r", [terminated()])
    assert (await store.append("r", [terminated()])).duplicates == [end.first]
    head = await store.head("r")
    assert (head.status, head.command) == ("cancelled", last + 1)
    log = await assert_sound(store, "r")
    assert log[-1].cls == "record"

    await begin(store, "pending")
    await store.append("pending", [ended("failed")], after=2)
    with pytest.raises(RunEnded):
        await store.append("pending", [terminated()])


async def test_a_pending_run_can_be_ended(store):
    """Reference §2.7: pending → cancelled, pending → failed (an error before the first tick)."""
    for run, end in (("c", terminated()), ("f", ended("failed", by="engine", error={}))):
        await store.append(run, [created()], after=0)
        await store.append(run, [end])
        await assert_sound(store, run)
    assert [h.status for h in await store.runs()] == ["failed", "cancelled"]


async def test_a_run_starts_once(store):
    """Reference §2.7: run_started is idempotent, also on an ended run."""
    last = await begin(store)
    assert (await store.append("r", [running()])).duplicates == [2]
    await store.append("r", [ended()], after=last)
    assert (await store.append("r", [running()])).duplicates == [2]


async def test_every_command_twice_is_refused(store, clock):
    """Reference §2.7: step, timer, hook, close, cancel of a timer, attributes, child: once each."""
    last = await begin(store)
    commands = [
        scheduled("a#1"),
        timer("s#1", 1),
        new("hook_opened", key="t#1"),
        new("hook_closed", key="t#1"),
        new("timer_cancelled", key="s#1"),
        new("attributes_set", key="attributes#1", data={"attributes": {"k": "v"}}),
        new("child_started", key="c#1", data={}),
        noted("n#1"),
        new("patched", key="p#1"),
    ]
    last = (await store.append("r", commands, after=last)).last
    for command in commands:
        with pytest.raises(StaleLog):
            await store.append("r", [command], after=last)
    assert (await store.head("r")).position == last
    await assert_sound(store, "r")


async def test_attributes_are_set_and_taken_away(store):
    """The projection follows the events; None takes a name away."""
    await store.append("r", [created(attributes={"a": "1", "b": "2"})], after=0)
    data = {"attributes": {"a": None, "c": "3"}}
    await store.append("r", [new("attributes_set", key="attributes#1", data=data)], after=1)
    assert (await store.head("r")).attributes == {"b": "2", "c": "3"}
    await assert_sound(store, "r")


def test_store_errors_have_codes_of_their_own():
    """L3, L-02: already there, stale, ended, too early … are different things with different codes."""
    errors = [StaleLog, RunEnded, StepEnded, TooEarly, CommandMissing, RunNotFound, StoreError]
    assert len({error.code for error in errors}) == len(errors)
