# ruff: noqa: RET503 - it does not know that hf.continue_as_new never returns
"""`hf.continue_as_new`: one successor, and not a payload between the two."""

import asyncio

import pytest
from patience import PATIENCE
from worker_kit import assert_one_end, log_of, of_type, told

import holdfast as hf
from holdfast.engine.tick import tick
from holdfast.events import new
from holdfast.store.rows import RunFilter
from holdfast.store.succession import succeed
from holdfast.verify import Verification
from holdfast.workflow import workflows


@hf.step(name="continue.add")
async def add(a: int, b: int) -> int:
    return a + b


@hf.workflow(name="continue.countdown")
async def countdown(left: int, total: int = 0) -> list[str | int | None]:
    total = await add(total, left)
    if left == 0:
        info = hf.run_info()
        return [total, info.first, info.previous, info.run_id, info.parent]
    hf.continue_as_new(left - 1, total=total)


@hf.workflow(name="continue.collect")
async def collect(want: int, got: list[int] | None = None, *, each: int = 3) -> list[int]:
    """Takes `each` payloads a run, from a hook that goes along."""
    got = got or []
    async with hf.hook("collect", type=int) as hook:
        for _ in range(each):
            got.append(await hook)
            if len(got) == want:
                return got
        hf.continue_as_new(want, got, each=each)


async def sound(app) -> None:
    check = Verification(app.store, workflows=set(workflows.names()))
    assert [str(difference) async for difference in check.run()] == []
    assert await told(app.store, app.store.orphans, lambda orphans: not orphans) == []


async def chain_of(app, first: str) -> list[str]:
    """The ids of a chain, the first one first."""
    ids = [first]
    while (successor := (await log_of(app, ids[-1]))[-1].data.get("continued")) is not None:
        ids.append(successor)
    return ids


async def test_a_run_goes_on_as_a_new_one_with_a_fresh_log(working):
    run = await working.start(countdown, 4, run_id="countdown", attributes={"kind": "count"})
    total, first, previous, last, parent = await run.result(PATIENCE)
    chain = await chain_of(working, "countdown")
    assert (total, first, parent) == (10, "countdown", None)
    assert (previous, last, len(chain)) == (chain[-2], chain[-1], 5)
    for run_id in chain:
        events = await log_of(working, run_id)
        assert_one_end(events)
        assert len(of_type(events, "step_completed")) == 1
        assert (await working.run(run_id).info()).attributes == {"kind": "count"}
    assert await working.run(chain[2]).result(PATIENCE) == [total, first, previous, last, parent]
    assert not await run.cancel(), "the chain has ended"
    await sound(working)


async def test_payloads_go_along_in_order_each_once(working):
    """L10 over the seam: sent all at once, read three a run."""
    run = await working.start(collect, 20, run_id="collect")
    await told(working.store, lambda: working.store.hooks(token="collect"), bool)
    for n in range(20):
        await working.resume("collect", n, delivery_id=f"d{n}")
    assert await run.result(PATIENCE) == list(range(20))
    chain = await chain_of(working, "collect")
    assert len(chain) == 7
    again = await working.resume("collect", 5, delivery_id="d5")
    assert again.duplicate, "L3: a payload that is sent again is still the same one"
    with pytest.raises(hf.HookNotFound) as caught:
        await working.resume("collect", 99)
    assert caught.value.reason == "closed"
    assert await working.run(chain[-1]).unread() == 0
    await sound(working)


async def test_payloads_under_way_while_runs_change_are_neither_lost_nor_doubled(url):
    """Three senders and a worker on handles of their own: nobody is told HookNotFound in between."""
    async with hf.connect(url) as app, hf.connect(url) as other, app.worker():
        run = await app.start(collect, 30, run_id="collect", each=1)
        await told(app.store, lambda: app.store.hooks(token="collect"), bool)

        async def send(sender, numbers):
            for n in numbers:
                await sender.resume("collect", n)

        await asyncio.gather(*(send(sender, range(k, 30, 3)) for k, sender in enumerate((app, other, app))))
        got = await run.result(PATIENCE)
        assert sorted(got) == list(range(30))
        for k in range(3):
            mine = [n for n in got if n % 3 == k]
            assert mine == sorted(mine), "what one sender sent keeps its order"
        assert len(await chain_of(app, "collect")) == 30
        await sound(app)


async def test_between_the_end_and_the_new_run_a_sender_creates_it(app, monkeypatch):
    """Whoever finds the gap closes it; and the token is not free meanwhile."""
    monkeypatch.setattr("holdfast.worker.maintain.see_to_orphans", _nothing)

    @hf.workflow(name="continue.wants-the-token")
    async def wants_the_token() -> str:
        try:
            return str(await hf.hook("collect"))
        except hf.HookTaken as error:
            return error.owner

    async with app.worker(poll=600):
        run = await app.start(collect, 2, run_id="collect", each=1)
        await told(app.store, lambda: app.store.hooks(token="collect"), bool)
        await app.resume("collect", 1)
        await told(app.store, run.status, lambda status: status == "completed")
        [successor] = [orphan.child for orphan in await app.store.orphans()]
        assert await app.store.head(successor) is None
        assert await (await app.start(wants_the_token)).result(PATIENCE) == "collect"
        sent = await app.resume("collect", 2)
        assert sent.run_id == successor
        assert await run.result(PATIENCE) == [1, 2]
        assert await succeed(app.store, "collect") == successor, "again, and it is the same one"
    monkeypatch.undo()
    async with app.worker():
        await sound(app)


async def _nothing(_store) -> None:
    """A worker that never comes to its orphans."""


async def test_who_waits_for_the_result_creates_the_new_run_too(app, monkeypatch):
    monkeypatch.setattr("holdfast.worker.maintain.see_to_orphans", _nothing)
    async with app.worker(poll=600):
        assert (await (await app.start(countdown, 3, run_id="c")).result(PATIENCE))[0] == 6


async def test_cancel_follows_the_chain(working):
    run = await working.start(collect, 10, run_id="collect", each=1)
    await told(working.store, lambda: working.store.hooks(token="collect"), bool)
    await working.resume("collect", 1)
    await told(working.store, run.status, lambda status: status == "completed")
    assert await run.cancel("enough")
    with pytest.raises(hf.RunCancelled, match="enough"):
        await run.result(PATIENCE)
    await sound(working)


async def test_a_cancel_that_lands_just_before_the_end_reaches_the_new_run(app):
    """L9 over the seam: it changed nothing in the old run, so it goes along."""

    @hf.workflow(name="continue.once")
    async def once(again: bool = True) -> None:
        if again:
            hf.continue_as_new(again=False)
        await hf.hook("never")

    created = new("run_created", data={"workflow": "continue.once", "args": {}, "seed": "s"})
    await app.store.append("once", [created, new("run_started")], after=0)
    end = tick(once, await app.store.read("once"))
    await app.store.append("once", [new("cancel_requested", data={"reason": "stop"})])
    await app.store.append("once", end, after=2)
    async with app.worker():
        with pytest.raises(hf.RunCancelled, match="stop"):
            await app.run("once").result(PATIENCE)
        await sound(app)


async def test_a_parent_waits_for_the_last_of_a_chain(working):
    @hf.workflow(name="continue.parent")
    async def parent() -> list[str | int | None]:
        return await countdown(3)

    @hf.workflow(name="continue.gives-up")
    async def gives_up() -> str:
        waits = asyncio.create_task(collect(10, each=1))
        await hf.hook("give up")
        waits.cancel()
        return "gave up"

    total, _, _, _, above = await (await working.start(parent, run_id="parent")).result(PATIENCE)
    assert (total, above) == (6, "parent")
    run = await working.start(gives_up, run_id="gives-up")
    await told(working.store, lambda: working.store.hooks(token="collect"), bool)
    await working.resume("collect", 1)
    await told(
        working.store, lambda: working.store.runs(RunFilter(parent="gives-up")), lambda rows: len(rows) == 2
    )
    await working.resume("give up")
    assert await run.result(PATIENCE) == "gave up"
    rows = [r async for r in working.runs(parent="gives-up")]
    with pytest.raises(hf.RunCancelled):
        await working.run(rows[0].id).result(PATIENCE)
    await sound(working)


async def test_what_does_not_go_along(working):
    """Open children are cancelled; arguments that do not fit are told at the call, and the run goes on."""

    @hf.workflow(name="continue.waits")
    async def waits() -> None:
        await hf.hook("continue.waits")

    @hf.workflow(name="continue.leaves")
    async def leaves(n: int) -> str:
        if n == 0:
            return "done"
        asyncio.create_task(waits())
        await asyncio.sleep(0.01)
        try:
            hf.continue_as_new("not a number")
        except hf.PayloadError:
            hf.continue_as_new(0)

    run = await working.start(leaves, 1, run_id="leaves")
    assert await run.result(PATIENCE) == "done"
    [child] = [r async for r in working.runs(workflow="continue.waits")]
    with pytest.raises(hf.RunCancelled):
        await working.run(child.id).result(PATIENCE)
    await sound(working)
