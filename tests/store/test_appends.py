"""Laws L1, L2, L4 and L12–L14: what an append is, whole or refused."""

import asyncio

import pytest
from store_kit import (
    assert_sound,
    begin,
    brief,
    closed,
    completed,
    created,
    ended,
    noted,
    opened,
    running,
    scheduled,
    started,
    types,
    woken,
)

from holdfast import faults
from holdfast.errors import (
    CommandMissing,
    FenceMissing,
    RunEnded,
    RunNotFound,
    StaleLog,
    StepEnded,
    StoreError,
)
from holdfast.events import new
from holdfast.store import Appended
from holdfast.store.rows import RunFilter


def outcome(result):
    return type(result).__name__


async def gathered(*appends):
    return await asyncio.gather(*appends, return_exceptions=True)


async def test_positions_are_dense_whoever_writes(place, store):
    """L1, L-08: 8 writers on 2 handles; each append is one range, and the ranges fill 1..n."""
    other = await place.open()
    last = await begin(store)

    async def write(handle, name):
        return [await handle.append("r", [woken(f"{name}-{i}-{j}") for j in range(3)]) for i in range(12)]

    answers = await asyncio.gather(*(write((store, other)[n % 2], n) for n in range(8)))
    ranges = sorted((a.first, a.last) for each in answers for a in each)
    assert all(high - low == 2 for low, high in ranges)
    assert [low for low, _ in ranges] == list(range(last + 1, last + 1 + 3 * 96, 3))
    assert len(await assert_sound(store, "r")) == last + 3 * 96


async def test_a_refused_second_draft_leaves_nothing_of_the_first(store):
    """L2: an append is whole or nothing, facts and commands alike."""
    last = await begin(store, "r", "a#1")
    await store.append("r", [completed("a#1")])
    before = await store.head("r")
    with pytest.raises(CommandMissing):
        await store.append("r", [woken("x"), completed("nobody#1")])
    with pytest.raises(StepEnded):
        await store.append("r", [scheduled("b#1"), started("a#1", 2)], after=last + 1)
    assert await store.head("r") == before
    assert types(await assert_sound(store, "r"))[-1] == "step_completed"


async def test_of_eight_deciders_with_one_view_one_wins(place, store):
    """L4, L-01: the others get StaleLog with what they missed, and nothing of theirs is allocated."""
    other = await place.open()
    last = await begin(store)
    results = await gathered(
        *(
            (store, other)[n % 2].append("r", [noted(f"n{n}#1"), noted(f"m{n}#1")], after=last)
            for n in range(8)
        )
    )
    won = [r for r in results if isinstance(r, Appended)]
    lost = [r for r in results if isinstance(r, StaleLog)]
    assert (len(won), len(lost)) == (1, 7)
    assert (won[0].first, won[0].last) == (last + 1, last + 2)
    for error in lost:
        assert [e.position for e in error.missed] == [last + 1, last + 2]
        assert (error.recorded, error.position) == ([], last + 2)
    assert len(await assert_sound(store, "r")) == last + 2


async def test_commands_without_a_fence_are_refused(store):
    """L4, L-03: a client that forgets `after` is told so, by every store."""
    last = await begin(store)
    for draft in (noted("n#1"), scheduled("a#1"), ended(), opened("t#1")):
        with pytest.raises(FenceMissing) as caught:
            await store.append("r", [draft])
        assert caught.value.code == "fence_missing"
    assert (await store.head("r")).position == last


async def test_its_own_command_beyond_after_trips_the_fence_too(store):
    """L4, B1: a decider that lost an answer and sends again under a new id does not write it twice."""
    last = await begin(store)
    await store.append("r", [noted("n#1")], after=last)
    with pytest.raises(StaleLog) as caught:
        await store.append("r", [noted("n#1")], after=last)
    assert brief(caught.value.missed) == [(last + 1, "noted", "n#1")]


async def test_a_command_is_there_once_also_when_the_fence_would_let_it_pass(store):
    """L4: (run, kind, name, ordinal) is unique; the last net answers StaleLog too."""
    last = await begin(store)
    last = (await store.append("r", [noted("n#1"), scheduled("n#1")], after=last)).last
    with pytest.raises(StaleLog):
        await store.append("r", [noted("n#2"), noted("n#1")], after=last)
    with pytest.raises(StaleLog):
        await store.append("r", [noted("n#3"), noted("n#3")], after=last)
    assert (await store.append("r", [noted("n#2")], after=last)).first == last + 1
    await assert_sound(store, "r")


async def test_the_refusal_is_typed_and_not_a_matter_of_words(store, monkeypatch):
    """L-04: code and fields say it; the message may be anything."""
    last = await begin(store)
    await store.append("r", [noted("n#1")], after=last)
    monkeypatch.setattr(StaleLog, "__str__", lambda _self: "fine")
    with pytest.raises(StaleLog) as caught:
        await store.append("r", [noted("n#2")], after=last)
    assert (caught.value.code, caught.value.position) == ("stale_log", last + 1)


async def test_what_was_never_asked_for_cannot_be_taken_back(store):
    """L3, L7: closing or cancelling what was never opened would leave a log that folds to nothing."""
    last = await begin(store)
    for draft in (closed("t#1"), new("timer_cancelled", key="s#1")):
        with pytest.raises(CommandMissing):
            await store.append("r", [noted("n#1"), draft], after=last)
    assert (await store.head("r")).position == last


async def test_an_event_that_cannot_be_read_fails_alone(store):
    """DESIGN §4: a program's error is its own, not its neighbours'."""
    last = await begin(store)
    await begin(store, "s")
    results = await gathered(
        store.append("s", [woken("w")]),
        store.append("r", [new("attributes_set", key="attributes#1")], after=last),
        store.append("s", [woken("v")]),
    )
    assert [outcome(r) for r in results] == ["Appended", "InvalidAppend", "Appended"]
    await assert_sound(store, "r")


async def test_a_view_from_beyond_the_log_is_refused(store):
    """L4: an `after` that the log has not reached (an older copy was put back) is no fence."""
    last = await begin(store)
    for after in (last + 1, -1):
        with pytest.raises(StoreError):
            await store.append("r", [noted("n#1")], after=after)
    with pytest.raises(StoreError):
        await store.append("r", [], after=last)
    assert (await store.head("r")).position == last


async def test_a_log_begins_with_its_creation(store):
    """DESIGN §8: `after=0` and `run_created` create a log; anything else finds none."""
    for drafts, after in (
        ([woken("x")], None),
        ([noted("n#1")], 0),
        ([noted("n#1")], 3),
        ([running()], 0),
        ([created()], None),
    ):
        with pytest.raises(RunNotFound):
            await store.append("r", drafts, after=after)
    assert await store.head("r") is None
    assert await store.read("r") == []


async def test_of_a_hundred_creations_of_one_id_one_wins(place, store):
    """L-16: 100 concurrent starts with one id are one run; the others see it, and leave nothing in it."""
    other = await place.open()
    results = await gathered(
        *(
            (store, other)[n % 2].append(
                "r", [created(n=n), running(), scheduled("a#1"), started("a#1")], after=0
            )
            for n in range(100)
        )
    )
    won = [r for r in results if isinstance(r, Appended)]
    assert len(won) == 1
    assert {outcome(r) for r in results} == {"Appended", "StaleLog"}
    missed = [types(r.missed) for r in results if isinstance(r, StaleLog)]
    assert missed == [["run_created", "run_started", "step_scheduled", "step_started"]] * 99
    assert len(await assert_sound(store, "r")) == 4


async def test_a_late_creator_brings_nothing_into_the_run_that_is_there(store, clock):
    """L4, L5: what its steps gave belongs to its own input; starts of attempts are refused with it."""
    await store.append("r", [created(), scheduled("a#1")], after=0)
    with pytest.raises(StaleLog) as caught:
        await store.append(
            "r",
            [created(), running(), scheduled("a#1"), started("a#1"), completed("a#1", at=clock.now())],
            after=0,
        )
    assert caught.value.recorded == []
    assert types(await assert_sound(store, "r")) == ["run_created", "step_scheduled"]


async def test_a_stale_decider_starts_no_attempt(store):
    """L4, L-13: the `step_started` beside a refused command is refused with it: nobody will run that body."""
    last = await begin(store)
    await store.append("r", [scheduled("a#1")], after=last)
    with pytest.raises(StaleLog):
        await store.append("r", [scheduled("a#1"), started("a#1")], after=last)
    assert types(await assert_sound(store, "r"))[-1] == "step_scheduled"


async def test_half_of_a_group_refused_leaves_the_other_half(store):
    """DESIGN §4: a refused append does not fail its neighbours, whatever refuses it."""
    lasts = {f"r{n}": await begin(store, f"r{n}", "a#1") for n in range(12)}
    calls = []
    for n, (run, last) in enumerate(lasts.items()):
        calls.append(
            [
                lambda run=run, last=last: store.append(run, [noted("n#1")], after=last),
                lambda run=run, last=last: store.append(run, [noted("n#1")], after=last + 7),
                lambda run=run: store.append(run, [completed("zz#1")]),
                lambda run=run: store.append(run, [noted("n#1")]),
                lambda run=run: store.append(run, [started("a#1")]),
                lambda run=run: store.append(run, [created()], after=0),
            ][n % 6]
        )
    results = await gathered(*(call() for call in calls))
    expected = ["Appended", "InvalidAppend", "CommandMissing", "FenceMissing", "Appended", "StaleLog"]
    assert [outcome(r) for r in results] == expected * 2
    assert [r.duplicates for r in results if isinstance(r, Appended)] == [[], [4], [], [4]]
    for run in lasts:
        await assert_sound(store, run)


async def test_one_run_twice_in_a_group_keeps_the_order(store):
    """L1, L2: appends of one run that share a commit come one after another, each judged after the other."""
    last = await begin(store, "r", "a#1")
    results = await gathered(
        store.append("r", [completed("a#1"), scheduled("b#1"), started("b#1")], after=last),
        store.append("r", [woken("x")]),
        store.append("r", [completed("b#1")]),
        store.append("r", [noted("n#1")], after=last),
        store.append("r", [completed("b#1", result="other")]),
    )
    assert [outcome(r) for r in results] == ["Appended", "Appended", "Appended", "StaleLog", "Appended"]
    assert (results[2].first, results[4].duplicates) == (last + 5, [last + 5])
    await assert_sound(store, "r")


# ---- L12: an unknown outcome


async def test_resending_a_whole_append_gives_the_same_answer(store, clock):
    """L12, L-13: same batch id, same answer (missed facts and doubles included), nothing doubled."""
    last = await begin(store, "r", "a#1", "b#1")
    await store.append("r", [completed("b#1")])
    drafts = [scheduled("c#1"), started("c#1"), started("a#1")]
    first = await store.append("r", drafts, after=last, batch="B1")
    assert (types(first.missed), first.duplicates) == (["step_completed"], [4])
    await store.append("r", [completed("a#1")])
    assert await store.append("r", drafts, after=last, batch="B1") == first
    await assert_sound(store, "r")


async def test_resending_early_facts_gives_the_same_answer(store, clock):
    """L12, B2: the resent append is recognised by its id, not by its events being there."""
    last = await begin(store, "r", "a#1")
    drafts = [completed("a#1", at=clock.now()), noted("n#1")]
    first = await store.append("r", drafts, after=last, batch="B1")
    clock.advance(5)
    assert await store.append("r", drafts, after=last, batch="B1") == first
    assert len(await assert_sound(store, "r")) == last + 2


async def test_resending_facts_gives_the_same_answer_also_without_a_key(store):
    """L12: a fact without a unique key is doubled by nothing but a new batch id."""
    await begin(store)
    first = await store.append("r", [woken(), woken()], batch="B1")
    assert await store.append("r", [woken(), woken()], batch="B1") == first
    assert (await store.append("r", [woken()], batch="B2")).first == first.last + 1
    await assert_sound(store, "r")


async def test_resending_a_creation_gives_the_same_answer(store):
    """L12: `start` whose answer was lost is sent again, also after the run has gone on and ended."""
    drafts = [created(), running(), noted("n#1")]
    first = await store.append("r", drafts, after=0, batch="B1")
    assert await store.append("r", drafts, after=0, batch="B1") == first
    await store.append("r", [ended()], after=first.last)
    assert await store.append("r", drafts, after=0, batch="B1") == first
    assert len(await assert_sound(store, "r")) == 4


async def test_resending_a_partial_append_is_partial_again(store, clock):
    """L5, L12: a partial append is no whole batch: sent again it doubles nothing and stays refused."""
    last = await begin(store, "r", "a#1", "b#1")
    await store.append("r", [completed("b#1")])
    drafts = [completed("a#1", at=clock.now()), noted("n#1")]
    for recorded in ([last + 2], []):
        with pytest.raises(StaleLog) as caught:
            await store.append("r", drafts, after=last, batch="B1")
        assert caught.value.recorded == recorded
    assert len(await assert_sound(store, "r")) == last + 2


@pytest.mark.parametrize("point", ["store.commit.before", "store.commit.after"])
async def test_an_append_whose_commit_failed_is_sent_again(store, point):
    """L12: whether the failure came before or after the commit, the same id makes it happen once."""
    last = await begin(store)
    armed = [True]

    def fail_once():
        if armed.pop() if armed else False:
            faults.fail()

    faults.arm(point, fail_once)
    with pytest.raises(StoreError):
        await store.append("r", [noted("n#1"), woken()], after=last, batch="B1")
    answer = await store.append("r", [noted("n#1"), woken()], after=last, batch="B1")
    assert (answer.first, answer.last) == (last + 1, last + 2)
    assert len(await assert_sound(store, "r")) == last + 2


# ---- L13, L14


async def test_the_chain_covers_every_byte_of_the_log(store):
    """L13: each append has a hash over the one before and its own events; the head holds the last."""
    last = await begin(store, "r", "a#1")
    last = (await store.append("r", [completed("a#1", result="x"), noted("n#1")], after=last)).last
    await store.append("r", [woken("x")])
    with pytest.raises(StaleLog):
        await store.append("r", [completed("a#1", 2), noted("n#2")], after=0)  # partial: kept in the chain
    await assert_sound(store, "r")
    links = await store.chain("r")
    assert [link.last for link in links] == [4, last, last + 1, last + 2]
    assert len({link.hash for link in links}) == 4


async def test_each_append_is_kept_with_the_fence_it_came_with(store):
    """L4, L5: facts from outside have none, and neither have facts whose commands were refused."""
    last = await begin(store, "r", "a#1")
    await store.append("r", [woken("x")])
    second = (await store.append("r", [noted("n#1")], after=last)).last
    with pytest.raises(StaleLog):
        await store.append("r", [completed("a#1"), noted("n#2")], after=last)
    fences = [(link.last, link.after) for link in await store.chain("r")]
    assert fences[-3:] == [(last + 1, None), (second, last), (second + 1, None)]
    assert fences[0][1] == 0


async def test_the_delivered_mark_is_after_and_never_the_own_position(store):
    """L14, B8: the facts between `after` and the append are still to be delivered, so the run stays ready."""
    last = await begin(store)
    assert not (await store.head("r")).ready
    await store.append("r", [woken("x")])
    head = await store.head("r")
    assert (head.delivered, head.fact, head.ready) == (0, last + 1, True)
    answer = await store.append("r", [noted("n#1")], after=last)
    assert types(answer.missed) == ["woken"]
    head = await store.head("r")
    assert (head.delivered, head.fact, head.ready) == (last, last + 1, True)
    await store.append("r", [noted("n#2")], after=answer.last)
    head = await store.head("r")
    assert (head.delivered, head.ready) == (answer.last, False)
    await store.append("r", [woken("y")])
    assert (await store.head("r")).delivered == answer.last


async def test_ready_says_whether_there_is_something_to_do_or_to_hold(store, clock):
    """L14: pending runs, undelivered facts, open steps and timers; not a run that waits for a payload."""
    await store.append("r", [created()], after=0)

    async def ready():
        return (await store.head("r")).ready

    assert await ready()
    last = (await store.append("r", [running(), opened("t#1")], after=1)).last
    assert not await ready()
    last = (await store.append("r", [scheduled("a#1")], after=last)).last
    assert await ready()
    await store.append("r", [completed("a#1")])
    assert await ready()
    last = (await store.append("r", [noted("n#1")], after=last + 1)).last
    assert not await ready()
    last = (await store.append("r", [new("timer_started", key="s#1", data={"due": 1})], after=last)).last
    assert await ready()
    last = (await store.append("r", [new("timer_cancelled", key="s#1")], after=last)).last
    assert not await ready()
    await store.append("r", [scheduled("b#1"), closed("t#1")], after=last)
    await store.park("r", '{"why":"divergence"}')
    assert not await ready()
    await store.park("r", None)
    assert await ready()
    await store.append("r", [ended()], after=last + 2)
    assert not await ready()


async def test_names_and_payloads_of_every_kind_come_back_as_they_were(place, store):
    """DESIGN §8: quotes, unicode, 500 characters, NUL and lone surrogates round-trip on every store."""
    names = ['it\'s "q" %s ?1 :a', "über-日本-🦊", "x" * 500, "a#b#1", " ", "nul\0in", "%_'--;"]
    values = ["nul \0 in", "\ud800 alone", "\U0001f98a", "\\", '"', "\u2028", "\x7f"]
    for name in names:
        key = f"{name}#1"
        last = await begin(store, name, key)
        data = {"attempt": 1, "result": values}
        await store.append(name, [new("step_completed", key=key, data=data)])
        drafts = [opened(key), new("attributes_set", key="attributes#1", data={"attributes": {name: name}})]
        await store.append(name, drafts, after=last + 1)
        await store.deliver(name, b'["nul \\u0000 in","\\ud800 alone"]', f"d-{name}")
    store = await place.reopen(store)
    for name in names:
        log = await assert_sound(store, name)
        assert log[4].data["result"] == values
        assert log[-1].data["payload"] == ["nul \0 in", "\ud800 alone"]
        assert (await store.runs(RunFilter(attributes={name: name})))[0].run == name
        assert [hook.run for hook in await store.hooks(token=name)] == [name]


async def test_a_name_that_is_no_text_is_refused_alone(place, store):
    """DESIGN §4: what one append cannot store is its own error."""
    if place.backend == "memory":
        pytest.skip("memory keeps any string")
    results = await gathered(
        store.append("fine", [created()], after=0),
        store.append("not\ud800fine", [created()], after=0),
        store.append("fine too", [created()], after=0),
    )
    assert [outcome(r) for r in results] == ["Appended", "PayloadError", "Appended"]


async def test_what_was_answered_is_there_after_opening_again(place, store):
    """Durability of the interface: logs, heads, hooks, timers, steps, batches and the chain."""
    last = await begin(store, "r", "a#1")
    drafts = [opened("t#1", metadata={"m": 1}), new("timer_started", key="s#1", data={"due": 7})]
    answer = await store.append("r", drafts, after=last, batch="B1")
    before = [await store.read("r"), await store.chain("r"), await store.hooks(), await store.timers()]
    store = await place.reopen(store)
    assert before == [
        await store.read("r"),
        await store.chain("r"),
        await store.hooks(),
        await store.timers(),
    ]
    assert await store.append("r", drafts, after=last, batch="B1") == answer
    await assert_sound(store, "r")


async def test_a_store_that_is_not_open_says_so(place):
    """Errors say what to do."""
    store = await place.open()
    await store.close()
    with pytest.raises(StoreError, match="async with"):
        await store.append("r", [created()], after=0)


async def test_no_command_follows_an_end_in_its_own_append(store):
    """L11: after the end no command is accepted, not even of the append that brings it."""
    last = await begin(store)
    with pytest.raises(RunEnded):
        await store.append("r", [ended(), noted("n#1")], after=last)
    assert (await store.head("r")).status == "running"
