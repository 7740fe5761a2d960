"""Hooks: tokens, deliveries and what a payload is answered (laws L3, L5, L11; rows H-01, H-02, R-12)."""

import asyncio

import pytest
from store_kit import (
    assert_sound,
    begin,
    brief,
    closed,
    ended,
    noted,
    opened,
    terminated,
    types,
)

from holdfast.errors import CommandMissing, DeliveryConflict, HookNotFound
from holdfast.events import new
from holdfast.store import Appended


async def reason(store, token, delivery="new"):
    with pytest.raises(HookNotFound) as caught:
        await store.deliver(token, b"1", delivery)
    return caught.value.reason


async def test_a_payload_goes_to_the_run_that_has_the_hook_open(store):
    """DESIGN §8: `resume` by token; the answer has the run's id and the position."""
    last = await begin(store)
    await store.append("r", [opened("t#1")], after=last)
    answer = await store.deliver("t", b'{"ok": true}', "d1")
    assert (answer.run, answer.first, answer.last) == ("r", last + 2, last + 2)
    log = await assert_sound(store, "r")
    assert (log[-1].type, log[-1].key) == ("hook_received", "t#1")
    assert log[-1].data["payload"] == {"ok": True}
    head = await store.head("r")
    assert (head.fact, head.ready) == (last + 2, True)


async def test_a_payload_without_an_open_hook_is_told_why(store):
    """L11, H-01: unknown, closed, run_ended; never a silent drop."""
    assert await reason(store, "t") == "unknown"
    last = await begin(store)
    last = (await store.append("r", [opened("t#1"), opened("u#1")], after=last)).last
    last = (await store.append("r", [closed("t#1")], after=last)).last
    assert await reason(store, "t") == "closed"
    last = (await store.append("r", [ended()], after=last)).last
    assert await reason(store, "u") == "run_ended"
    assert await reason(store, "t") == "closed"
    assert (await store.head("r")).position == last
    await assert_sound(store, "r")


async def test_what_a_sender_saw_of_a_hook_is_never_believed(place, store):
    """L11, H-01: whatever happens between its look and its payload, the answer is that of the log."""
    other = await place.open()
    last = await begin(store)
    last = (await store.append("r", [opened("t#1"), opened("u#1"), opened("v#1")], after=last)).last
    for token in ("t", "u", "v"):
        hook = await other.receiver(token)
        assert (hook.run, hook.key, hook.status) == ("r", f"{token}#1", "open")
    last = (await store.append("r", [closed("t#1"), opened("u#2")], after=last)).last
    assert await reason(other, "t") == "closed"
    assert (await other.deliver("u", b"1", "d")).first == last + 1
    assert (await assert_sound(other, "r"))[-1].key == "u#2", "the newest one gets it"
    assert (await other.receiver("u")).key == "u#2"
    assert (await other.deliver("v", b"1", "d")).first == last + 2
    assert (await other.receiver("v")).key == "v#1"
    await store.append("r", [terminated()])
    assert await reason(other, "v") == "run_ended"
    assert await other.receiver("v") is None
    second = await begin(store, "s")
    await store.append("s", [opened("t#1")], after=second)
    assert (await other.deliver("t", b"1", "d")).run == "s", "the token is another run's now"


async def test_a_payload_is_taken_once_whatever_was_remembered(place, store):
    """L3: the same delivery id again, at once, together with others and from another process."""
    other = await place.open()
    last = await begin(store)
    last = (await store.append("r", [opened("t#1"), opened("u#1")], after=last)).last
    await asyncio.gather(store.receiver("t"), other.receiver("t"))
    sent = [(s, token, n) for s in (store, other) for token in ("t", "u") for n in (1, 1, 2)]
    answers = await asyncio.gather(*(s.deliver(token, b"1", f"d{n}") for s, token, n in sent))
    assert sum(not answer.duplicates for answer in answers) == 4
    assert len(await assert_sound(store, "r")) == last + 4


async def test_fifty_payloads_race_the_end(place, store):
    """L11, H-01: each payload is in the log before the end, or refused; the end comes once."""
    other = await place.open()
    last = await begin(store)
    last = (await store.append("r", [opened("t#1")], after=last)).last

    async def deliver(n):
        return await (store, other)[n % 2].deliver("t", b"1", f"d{n}")

    async def end():
        await deliver(100)
        return await store.append("r", [terminated()])

    sends = [deliver(n) for n in range(50)]
    results = await asyncio.gather(*sends[:25], end(), *sends[25:], return_exceptions=True)
    end_answer = results.pop(25)
    taken = [r.first for r in results if isinstance(r, Appended)]
    refused = [r for r in results if isinstance(r, HookNotFound)]
    assert len(taken) + len(refused) == 50
    assert all(position < end_answer.first for position in taken)
    assert {r.reason for r in refused} <= {"run_ended"}
    log = await assert_sound(store, "r")
    assert types(log)[-1] == "run_cancelled"
    assert types(log).count("hook_received") == len(taken) + 1


async def test_a_delivery_id_counts_once(place, store):
    """L3, H-02: sent again it gives the first position, also after closing, ending and opening again."""
    last = await begin(store)
    await store.append("r", [opened("t#1")], after=last)
    first = await store.deliver("t", b"[1]", "d")
    again = await store.deliver("t", b"[1]", "d")
    assert (again.run, again.first, again.duplicates) == ("r", first.first, [first.first])
    await store.append("r", [closed("t#1")], after=last + 1)
    assert (await store.deliver("t", b"[1]", "d")).duplicates == [first.first]
    await store.append("r", [ended()], after=last + 3)
    store = await place.reopen(store)
    assert (await store.deliver("t", b"[1]", "d")).duplicates == [first.first]
    assert types(await assert_sound(store, "r")).count("hook_received") == 1


async def test_a_delivery_id_counts_once_for_a_token_whoever_holds_it(store):
    """B10: keyed by token, not by hook or run: a retry after the token went on is still the same payload."""
    last = await begin(store, "r1")
    await store.append("r1", [opened("t#1")], after=last)
    first = await store.deliver("t", b"1", "d")
    await store.append("r1", [closed("t#1"), opened("t#2")], after=last + 1)
    assert (await store.deliver("t", b"1", "d")).duplicates == [first.first]
    await store.append("r1", [ended()], after=last + 4)
    last = await begin(store, "r2")
    await store.append("r2", [opened("t#1")], after=last)
    again = await store.deliver("t", b"1", "d")
    assert (again.run, again.duplicates) == ("r1", [first.first])
    direct = new("hook_received", key="t#1", data={"delivery": "d", "payload": 1, "digest": ""})
    with pytest.raises(DeliveryConflict):
        await store.append("r2", [direct])
    assert (await store.deliver("t", b"1", "d2")).run == "r2"


async def test_one_delivery_id_with_two_payloads_is_a_conflict(store):
    """H-02: the same id with another payload is refused, open hook or not."""
    last = await begin(store)
    await store.append("r", [opened("t#1"), opened("u#1")], after=last)
    await store.deliver("t", b"1", "d")
    with pytest.raises(DeliveryConflict):
        await store.deliver("t", b"2", "d")
    await store.deliver("u", b"2", "d")  # another token, another delivery
    await store.append("r", [ended()], after=last + 2)
    with pytest.raises(DeliveryConflict):
        await store.deliver("t", b"2", "d")


async def test_twenty_senders_of_one_delivery_are_one(place, store):
    """H-02: at once, on two handles."""
    other = await place.open()
    last = await begin(store)
    await store.append("r", [opened("t#1")], after=last)
    answers = await asyncio.gather(*((store, other)[n % 2].deliver("t", b"1", "d") for n in range(20)))
    assert {a.first for a in answers} == {last + 2}
    assert sorted(len(a.duplicates) for a in answers) == [0] + [1] * 19


async def test_a_taken_token_is_refused_right_behind_the_append(store):
    """L5, DESIGN §8: the append is accepted and causes `hook_refused`, which its writer gets back."""
    last = await begin(store, "r1")
    await store.append("r1", [opened("t#1")], after=last)
    last = await begin(store, "r2")
    await store.append("r2", [new("woken", data={"id": "w"})])
    answer = await store.append("r2", [noted("n#1"), opened("t#1"), opened("u#1")], after=last)
    assert brief(answer.missed) == [(last + 1, "woken", ""), (last + 5, "hook_refused", "t#1")]
    assert answer.missed[-1].data == {"owner": "r1"}
    assert (answer.first, answer.last) == (last + 2, last + 5)
    assert [(h.token, h.run) for h in await store.hooks()] == [("t", "r1"), ("u", "r2")]
    assert (await store.deliver("t", b"1", "d")).run == "r1"
    await assert_sound(store, "r2")
    answer = await store.append("r2", [closed("t#1")], after=answer.last)  # frees nothing of r1's
    assert [(h.token, h.run) for h in await store.hooks(token="t")] == [("t", "r1")]
    await assert_sound(store, "r2")


async def test_resending_the_append_that_was_refused_a_token_gives_the_same_answer(store):
    """L5, L12: the refusal that it caused comes back each time."""
    last = await begin(store, "r1")
    await store.append("r1", [opened("t#1")], after=last)
    last = await begin(store, "r2")
    first = await store.append("r2", [opened("t#1"), noted("n#1")], after=last, batch="B")
    await store.append("r2", [new("woken", data={"id": "w"})])
    assert await store.append("r2", [opened("t#1"), noted("n#1")], after=last, batch="B") == first
    assert types(first.missed) == ["hook_refused"]


async def test_of_ten_runs_that_open_one_token_one_gets_it(place, store):
    """DESIGN §8: in one commit or in many, the others are told who has it."""
    other = await place.open()
    lasts = [await begin(store, f"r{n}") for n in range(10)]
    answers = await asyncio.gather(
        *((store, other)[n % 2].append(f"r{n}", [opened("t#1")], after=last) for n, last in enumerate(lasts))
    )
    (owner,) = [a.run for a in answers if not a.missed]
    assert {a.missed[0].data["owner"] for a in answers if a.missed} == {owner}
    assert [h.run for h in await store.hooks()] == [owner]


async def test_a_token_is_free_when_its_run_closes_it_or_ends(store):
    """DESIGN §8."""
    last = await begin(store, "r1")
    last = (await store.append("r1", [opened("t#1"), opened("u#1")], after=last)).last
    last = (await store.append("r1", [closed("t#1")], after=last)).last
    other = await begin(store, "r2")
    other = (await store.append("r2", [opened("t#1")], after=other)).last
    await store.append("r1", [ended()], after=last)
    answer = await store.append("r2", [opened("u#1")], after=other)
    assert answer.missed == []
    assert (await store.deliver("u", b"1", "d")).run == "r2"


async def test_close_then_open_in_one_append_keeps_the_order_of_the_code(store):
    """R-12: the new hook gets the payloads, and opening the same token again is no conflict with oneself."""
    last = await begin(store)
    last = (await store.append("r", [opened("t#1")], after=last)).last
    answer = await store.append("r", [closed("t#1"), opened("t#2")], after=last)
    assert answer.missed == []
    await store.deliver("t", b"1", "d")
    assert (await assert_sound(store, "r"))[-1].key == "t#2"
    await store.append("r", [opened("v#1"), closed("v#1")], after=answer.last)
    assert await reason(store, "v") == "closed"


async def test_the_newest_of_a_runs_own_hooks_with_one_token_gets_the_payloads(store):
    """R-12: a run is in nobody's way but its own; when the newer one closes, the older one is there again."""
    last = await begin(store)
    last = (await store.append("r", [opened("t#1")], after=last)).last
    answer = await store.append("r", [opened("t#2")], after=last)
    assert answer.missed == []
    await store.deliver("t", b"1", "d1")
    await store.append("r", [closed("t#2")], after=answer.last)
    await store.deliver("t", b"1", "d2")
    keys = [e.key for e in await assert_sound(store, "r") if e.type == "hook_received"]
    assert keys == ["t#2", "t#1"]


async def test_a_payload_straight_into_a_log_needs_its_hook(store):
    """Reference §2.7: a payload for a hook of another name, or of one that is closed."""
    last = await begin(store)
    last = (await store.append("r", [opened("t#1")], after=last)).last
    with pytest.raises(CommandMissing):
        await store.append("r", [new("hook_received", key="t#2", data={"payload": 1})])
    await store.append("r", [new("hook_received", key="t#1", data={"payload": 1})])
    await store.append("r", [closed("t#1")], after=last)
    with pytest.raises(HookNotFound) as caught:
        await store.append("r", [new("hook_received", key="t#1", data={"payload": 1})])
    assert caught.value.reason == "closed"


async def test_hooks_are_listed_with_what_they_were_opened_with(store):
    """DESIGN §8: schema and metadata, for senders without the code; pages by (token, run)."""
    for run in ("r1", "r2"):
        last = await begin(store, run)
        drafts = [opened(f"{run}-{n}#1", schema={"type": "object"}, metadata=[n]) for n in range(5)]
        await store.append(run, [*drafts, closed(f"{run}-0#1")], after=last)
    first = await store.hooks(limit=3)
    rest = await store.hooks(limit=100, after=(first[-1].token, first[-1].run))
    assert [h.token for h in first + rest] == [f"r{r}-{n}" for r in (1, 2) for n in range(1, 5)]
    assert (first[0].schema, first[0].metadata) == ({"type": "object"}, [1])
    assert [h.token for h in await store.hooks(run="r2", open_only=False, limit=2)] == ["r2-0", "r2-1"]
    assert [h.status for h in await store.hooks(token="r1-0", open_only=False)] == ["closed"]
    assert await store.hooks(token="r1-0", run="r2", open_only=False) == []


async def test_a_page_never_cuts_a_pair_in_two(store):
    """A cursor of (token, run) would lose the rest of the pair otherwise."""
    last = await begin(store)
    drafts = []
    for n in range(1, 6):
        drafts += [opened(f"t#{n}"), closed(f"t#{n}")]
    await store.append("r", [*drafts, opened("u#1")], after=last)
    page = await store.hooks(open_only=False, limit=2)
    assert [h.key for h in page] == ["t#1", "t#2", "t#3", "t#4", "t#5"]
    rest = await store.hooks(open_only=False, limit=2, after=(page[-1].token, page[-1].run))
    assert [h.key for h in rest] == ["u#1"]
