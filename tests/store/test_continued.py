"""A run that goes on as another: its tokens stay taken, its successor stands in the store, payloads go along."""

import asyncio

import pytest
from store_kit import created, running

import holdfast as hf
from holdfast.errors import RunContinued
from holdfast.events import new
from holdfast.store.succession import continued_as, last_of, succeed
from holdfast.verify import Verification

TOKEN = "it's/open"
SCHEMA = {"type": "integer"}


def opened(key: str):
    return new("hook_opened", key=key, data={"schema": SCHEMA})


def continued(**more):
    data = {"continued": "old~2", "args": {"n": 1}, "unread": [], "seen": 0, "read": 0, **more}
    return new("run_completed", data=data)


async def old_run(store):
    """Open hooks, one of them closed again; two payloads, one of which its code has read; then it goes on."""
    first = [created(args={}, attributes={"kind": "x"}), running(), opened(f"{TOKEN}#1"), opened("shut#1")]
    await store.append("old", [*first, new("hook_closed", key="shut#1")], after=0)
    for number in range(2):
        await store.deliver(TOKEN, str(number).encode(), f"d{number}")
    await store.append("old", [continued(unread=[7], seen=7, read=1)], after=7)


async def differences(store):
    return [str(difference) async for difference in Verification(store).run()]


async def test_the_token_stays_taken_until_the_successor_has_it(store):
    await old_run(store)
    with pytest.raises(RunContinued) as caught:
        await store.deliver(TOKEN, b"2", "d2")
    assert caught.value.run == "old"
    with pytest.raises(hf.HookNotFound):
        await store.deliver("shut", b"2", "d3")
    answer = await store.append("thief", [created(), running(), opened(f"{TOKEN}#1")], after=0)
    assert [event.data["owner"] for event in answer.missed] == ["old"]
    [hook] = await store.hooks(run="old", token=TOKEN, open_only=False)
    assert hook.status == "continued"
    [orphan] = await store.orphans()
    assert (orphan.run, orphan.child, orphan.position, orphan.status) == ("old", "old~2", 8, "continued")
    assert await differences(store) == []


async def test_the_successor_begins_with_what_nobody_has_read(store):
    await old_run(store)
    assert await succeed(store, "old") == await succeed(store, "old") == "old~2"
    log = await store.read("old~2")
    assert [(e.type, e.key) for e in log] == [("run_created", ""), ("hook_received", f"{TOKEN}#0")]
    told = log[0].data
    assert (told["args"], told["previous"], told["first"], told["number"]) == ({"n": 1}, "old", "old", 2)
    assert (told["hooks"], told["attributes"]) == ({TOKEN: SCHEMA}, {"kind": "x"})
    assert (log[1].data["payload"], log[1].data["from"]) == (1, {"run": "old", "position": 7})
    sent = await store.deliver(TOKEN, b"2", "d2")
    assert (sent.run, sent.first) == ("old~2", 3)
    again = await store.deliver(TOKEN, b"1", "d1")
    assert (again.run, again.first, again.duplicates) == ("old", 7, [7]), (
        "L3: it was accepted where it was sent"
    )
    [hook] = await store.hooks(token=TOKEN)
    assert (hook.run, hook.key, hook.schema) == ("old~2", f"{TOKEN}#0", SCHEMA)
    assert await differences(store) == []


async def test_the_token_is_free_when_the_successor_has_let_it_go(place, store):
    """Neither the placeholder nor the old run's hook takes payloads after it."""
    await old_run(store)
    await succeed(store, "old")
    store = await place.reopen(store)
    await store.append("old~2", [running(), opened(f"{TOKEN}#1")], after=2)
    assert (await store.deliver(TOKEN, b"3", "d3")).run == "old~2"
    assert (await store.read("old~2"))[-1].key == f"{TOKEN}#1"
    await store.append("old~2", [new("hook_closed", key=f"{TOKEN}#1")], after=5)
    with pytest.raises(hf.HookNotFound) as caught:
        await store.deliver(TOKEN, b"4", "d4")
    assert caught.value.reason == "closed"
    answer = await store.append("next", [created(), running(), opened(f"{TOKEN}#1")], after=0)
    assert answer.missed == []
    assert await differences(store) == []


async def test_many_create_the_successor_at_once(place, store):
    """L3: whoever finds it missing creates it, and it is one run."""
    await old_run(store)
    other = await place.open()
    await asyncio.gather(*(succeed(handle, "old") for handle in (store, other) * 5))
    assert len(await store.read("old~2")) == 2
    assert await differences(store) == []


async def test_the_end_of_a_chain(store):
    await old_run(store)
    last, end = await last_of(store, "old")
    assert (last, end) == ("old~2", None), "it was created on the way"
    await store.append("old~2", [running(), new("run_completed", data={"value": 1, "read": 0})], after=2)
    last, end = await last_of(store, "old")
    assert last == "old~2"
    assert end is not None
    assert continued_as(end) is None
    assert end.data["value"] == 1
