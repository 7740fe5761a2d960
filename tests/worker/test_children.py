"""Child runs: results, failures and cancellations between a run and those that it starts."""

import asyncio

import pytest
from patience import PATIENCE
from worker_kit import assert_one_end, log_of, logged, of_type, told, types

import holdfast as hf
from holdfast.errors import StoreError
from holdfast.ids import child_id
from holdfast.store.rows import RunFilter
from holdfast.verify import Verification
from holdfast.workflow import workflows


class Declined(Exception):
    """What a child of these tests fails with."""


@hf.step(name="children.double")
async def double(n: int) -> int:
    return 2 * n


@hf.step(name="children.decline", retries=0)
async def decline(n: int) -> int:
    raise Declined(f"card {n}")


@hf.workflow(name="children.leaf")
async def leaf(n: int) -> int:
    return await double(n) if n >= 0 else await decline(n)


@hf.workflow(name="children.patient")
async def patient(token: str) -> int:
    """Waits for a payload; when it is cancelled it takes leave with a step."""
    try:
        return await hf.hook(token, type=int)
    except asyncio.CancelledError:
        await double(21)
        raise


@hf.workflow(name="children.family")
async def family() -> dict[str, str | None]:
    info = hf.run_info()
    return {"parent": info.parent, "root": info.root, "id": info.run_id}


@hf.workflow(name="children.middle")
async def middle() -> dict[str, str | None]:
    return await family()


@hf.workflow(name="children.top")
async def top() -> dict[str, str | None]:
    return await middle()


async def sound(app) -> None:
    """`holdfast verify` with the code finds nothing, and no child waits to be seen to."""
    check = Verification(app.store, workflows=set(workflows.names()))
    found = [str(difference) async for difference in check.run()]
    assert found == []
    assert await told(app.store, app.store.orphans, lambda orphans: not orphans) == []


async def test_a_workflow_called_in_a_workflow_is_a_run_of_its_own(working):
    @hf.workflow(name="children.sums")
    async def sums(count: int) -> int:
        return sum(await asyncio.gather(*(leaf(n) for n in range(count))))

    run = await working.start(sums, 5, run_id="sums")
    assert await run.result(PATIENCE) == 20
    children = [r async for r in working.runs(parent="sums")]
    assert sorted(r.id for r in children) == [child_id("sums", "children.leaf", n) for n in range(1, 6)]
    assert {r.status for r in children} == {"completed"}
    events = await log_of(working, "sums")
    assert [e.data["run"] for e in of_type(events, "child_started")] == sorted(r.id for r in children)
    assert len(of_type(events, "child_ended")) == 5
    assert_one_end(events)
    await sound(working)


async def test_parent_and_root_are_known_in_the_run_and_outside(working):
    run = await working.start(top, run_id="t'op")
    told = await run.result(PATIENCE)
    grandchild = await working.run(told["id"]).info()
    assert told == {"parent": grandchild.parent, "root": "t'op", "id": grandchild.id}
    assert (await working.run(grandchild.parent).info()).parent == "t'op"
    assert (await run.info()).root == "t'op"
    assert len([r async for r in working.runs(root="t'op")]) == 3
    await sound(working)


async def test_a_failure_comes_up_as_the_childs_own_exception(working):
    @hf.workflow(name="children.careful")
    async def careful() -> str:
        try:
            await leaf(-1)
        except Declined as error:
            assert "in child run" in error.__notes__[0]
            return str(error)
        return "?"

    @hf.workflow(name="children.careless")
    async def careless() -> int:
        return await leaf(-2)

    assert await (await working.start(careful)).result(PATIENCE) == "card -1"
    run = await working.start(careless, run_id="careless")
    with pytest.raises(hf.RunFailed) as caught:
        await run.result(PATIENCE)
    assert isinstance(caught.value.__cause__, Declined)
    assert "decline" in caught.value.__cause__.remote_traceback, "where it happened, not where it was awaited"
    await sound(working)


async def test_a_time_out_cancels_the_child_for_good(working):
    """The child's `finally` runs, the parent goes on at once and is told later how the child ended."""

    @hf.workflow(name="children.impatient")
    async def impatient() -> str:
        try:
            async with asyncio.timeout(0.05):
                await patient("never")
        except TimeoutError:
            return "gave up"
        return "?"

    run = await working.start(impatient, run_id="impatient")
    assert await run.result(PATIENCE) == "gave up"
    events = await log_of(working, "impatient")
    commands = [e.type for e in events if e.cls == "command"]
    assert commands == ["timer_started", "child_started", "child_cancelled", "run_completed"]
    [child] = [r async for r in working.runs(parent="impatient")]
    with pytest.raises(hf.RunCancelled, match="impatient does not wait"):
        await working.run(child.id).result(PATIENCE)
    assert "step_completed" in types(await log_of(working, child.id))
    await sound(working)


async def test_a_parent_that_goes_on_sends_home_the_child_that_it_no_longer_waits_for(working):
    """Children of a parent that has ended are orphans, which others see to; this one has to ask itself."""

    @hf.workflow(name="children.turns-elsewhere")
    async def turns_elsewhere() -> str:
        try:
            async with asyncio.timeout(0.05):
                await patient("nobody comes here")
        except TimeoutError:
            pass
        return await hf.hook("elsewhere", type=str)

    run = await working.start(turns_elsewhere, run_id="turns")
    [ended] = of_type(await logged(working, "turns", "child_ended"), "child_ended")
    assert ended.data["status"] == "cancelled"
    assert "turns does not wait" in ended.data["reason"]
    assert await run.status() == "running"
    await working.resume("elsewhere", "on we go")
    assert await run.result(PATIENCE) == "on we go"
    await sound(working)


async def test_cancel_goes_down_all_levels(working):
    @hf.workflow(name="children.outer")
    async def outer() -> int:
        return await inner()

    @hf.workflow(name="children.inner")
    async def inner() -> int:
        return sum(await asyncio.gather(patient("a"), patient("b")))

    run = await working.start(outer, run_id="outer")
    await told(working.store, lambda: working.store.hooks(), lambda hooks: len(hooks) == 2)
    assert await run.cancel("changed our mind")
    with pytest.raises(hf.RunCancelled):
        await run.result(PATIENCE)
    for child in [r async for r in working.runs(root="outer")]:
        with pytest.raises(hf.RunCancelled):
            await working.run(child.id).result(PATIENCE)
    await sound(working)


@pytest.mark.parametrize("how", ["terminate", "fail"])
async def test_children_of_a_parent_that_ended_are_cancelled(working, how):
    @hf.workflow(name=f"children.fails.{how}")
    async def fails() -> int:
        asyncio.create_task(patient("x"))
        await hf.hook("go")
        raise Declined("and the child is left behind")

    run = await working.start(fails, run_id="fails")
    await told(working.store, lambda: working.store.hooks(), lambda hooks: len(hooks) == 2)
    if how == "terminate":
        assert await run.terminate("enough")
    else:
        await working.resume("go")
    [child] = [r async for r in working.runs(parent="fails")]
    with pytest.raises(hf.RunCancelled, match="fails"):
        await working.run(child.id).result(PATIENCE)
    await sound(working)


async def test_children_of_a_parent_that_nobody_holds_are_cancelled_by_the_next_worker(app):
    @hf.workflow(name="children.alone")
    async def alone() -> int:
        return await patient("alone")

    async with app.worker():
        run = await app.start(alone, run_id="alone")
        await told(app.store, lambda: app.store.hooks(), lambda hooks: len(hooks) == 1)
    await run.terminate()
    assert len(await app.store.orphans()) == 1
    [child] = [r async for r in app.runs(parent="alone")]
    async with app.worker():
        with pytest.raises(hf.RunCancelled):
            await app.run(child.id).result(PATIENCE)
        await sound(app)


async def test_a_cancelled_child_is_an_error_that_says_so(working):
    @hf.workflow(name="children.asks")
    async def asks() -> str:
        try:
            return str(await patient("asks"))
        except hf.RunCancelled as error:
            return f"{error.reason} / {error}"

    run = await working.start(asks, run_id="asks")
    await told(working.store, lambda: working.store.hooks(), lambda hooks: len(hooks) == 1)
    [child] = [r async for r in working.runs(parent="asks")]
    await working.run(child.id).cancel("not today")
    assert await run.result(PATIENCE) == f"not today / child run {child.id} was cancelled: not today"
    await sound(working)


async def test_a_detached_child_outlives_its_parent(working):
    @hf.workflow(name="children.lets-go")
    async def lets_go(token: str) -> str:
        child = await patient.start(token, run_id="detached", attributes={"kind": "audit"})
        return child.id

    run = await working.start(lets_go, "later", run_id="lets-go")
    assert await run.result(PATIENCE) == "detached"
    child = working.run("detached")
    info = await child.info()
    assert (info.parent, info.root, info.attributes) == ("lets-go", "lets-go", {"kind": "audit"})
    await told(working.store, lambda: working.store.hooks(), lambda hooks: len(hooks) == 1)
    await working.resume("later", 7)
    assert await child.result(PATIENCE) == 7
    await sound(working)


async def test_a_detached_child_is_started_though_its_parent_did_not_wait(working):
    @hf.workflow(name="children.does-not-wait")
    async def does_not_wait() -> None:
        asyncio.create_task(leaf.start(4, run_id="on-its-own"))
        await asyncio.sleep(0)

    await (await working.start(does_not_wait)).result(PATIENCE)
    await told(working.store, lambda: working.store.head("on-its-own"), lambda head: head is not None)
    assert await working.run("on-its-own").result(PATIENCE) == 8
    await sound(working)


async def test_an_id_of_another_run_is_refused_where_it_is_asked_for(working):
    await (await working.start(leaf, 1, run_id="taken")).result(PATIENCE)

    @hf.workflow(name="children.clash")
    async def clash() -> list[str]:
        said = []
        for ask in (leaf.run(1, run_id="taken"), leaf.start(1, run_id="taken")):
            try:
                await ask
            except hf.RunExists as error:
                said.append(str(error))
        first = await leaf.run(3, run_id="mine")
        again = await leaf.run(3, run_id="mine")
        assert first == again == 6
        try:
            await leaf.run(4, run_id="mine")
        except hf.RunExists as error:
            said.append(str(error))
        return said

    said = await (await working.start(clash, run_id="clash")).result(PATIENCE)
    assert [text.split(":")[0] for text in said[:2]] == [
        "run 'taken' exists already, and is no child of clash"
    ] * 2
    assert "another input" in said[2]
    assert len([r async for r in working.runs(parent="clash")]) == 1, "one id, one run"
    await sound(working)


async def test_bad_arguments_are_told_at_the_call(working):
    @hf.workflow(name="children.bad")
    async def bad() -> list[str]:
        said = []
        for ask in (leaf("x"), leaf(1, 2), leaf.run(1, run_id=""), leaf.run(1, attributes={"a": 1})):
            try:
                await ask
            except hf.PayloadError as error:
                said.append(str(error))
        return said

    assert len(await (await working.start(bad, run_id="bad")).result(PATIENCE)) == 4
    assert [r async for r in working.runs(parent="bad")] == []


async def test_outside_of_a_workflow(app):
    assert await leaf.fn(2) == await leaf(2) == 4
    for call in (leaf.run, leaf.start):
        with pytest.raises(hf.HoldfastError, match="start it with app"):
            call(1)


async def test_another_worker_executes_a_child_that_this_one_does_not_know(app, monkeypatch):
    """The parent's worker creates it, whoever serves its workflow runs it, and the parent hears of its end."""

    @hf.workflow(name="children.elsewhere")
    async def elsewhere() -> int:
        return await leaf(8)

    async with app.worker() as here:
        serves = here.definition
        monkeypatch.setattr(here, "definition", lambda name: None if name == leaf.name else serves(name))
        run = await app.start(elsewhere, run_id="elsewhere")
        await logged(app, "elsewhere", "child_started")
        await told(
            app.store, lambda: app.store.runs(RunFilter(parent="elsewhere")), lambda rows: len(rows) == 1
        )
        [child] = await app.store.runs(RunFilter(parent="elsewhere"))
        assert child.status == "pending"
        async with hf.connect(app.store.url) as other, other.worker() as there:
            assert await run.result(PATIENCE) == 16
            assert there.id != here.id
    await sound(app)


async def test_a_notice_that_is_lost_costs_the_slow_poll_and_no_more(app, monkeypatch):
    """L14: the parent's worker asks for ended children where it heard nothing."""

    @hf.workflow(name="children.deaf")
    async def deaf() -> int:
        return await patient("deaf")

    async with app.worker(poll=0.05) as worker:
        run = await app.start(deaf, run_id="deaf")
        await told(app.store, lambda: app.store.hooks(), lambda hooks: len(hooks) == 1)
        monkeypatch.setattr(worker.runs, "child_ended", lambda *_: None)
        await app.resume("deaf", 5)
        [child] = [r async for r in app.runs(parent="deaf")]
        assert await app.run(child.id).result(PATIENCE) == 5
        assert not (await run.info()).ended_at
        monkeypatch.undo()
        assert await run.result(PATIENCE) == 5


async def test_the_store_that_does_not_answer_is_asked_again(memory, monkeypatch):
    """L12: neither a start nor an end is lost; the child is started once."""
    failing = {"append": 3, "end_of": 3}
    store = memory.store
    monkeypatch.setattr("holdfast.worker.children._RETRY_FIRST", 0.001)

    def sometimes(name):
        real = getattr(store, name)

        async def call(*args, **kwargs):
            if failing[name] > 0:
                failing[name] -= 1
                raise StoreError("not now")
            return await real(*args, **kwargs)

        return call

    for name in failing:
        monkeypatch.setattr(store, name, sometimes(name))

    @hf.workflow(name="children.unlucky")
    async def unlucky() -> int:
        return await leaf(1) + await leaf(2)

    run = await memory.start(unlucky, run_id="unlucky")
    await told(store, lambda: store.head("unlucky"), lambda head: head.ended is not None)
    monkeypatch.undo()
    assert await run.result(PATIENCE) == 6
    await sound(memory)


async def test_a_thousand_children_cost_twice_what_five_hundred_do(memory, monkeypatch):
    """Linear: what a parent with n children reads and writes grows with n. Counted, not timed."""
    store = memory.store
    reads = 0
    real = store.end_of

    async def counted(run_id):
        nonlocal reads
        reads += 1
        return await real(run_id)

    monkeypatch.setattr(store, "end_of", counted)

    @hf.workflow(name="children.nothing")
    async def nothing(n: int) -> int:
        return n

    @hf.workflow(name="children.thousand")
    async def thousand(count: int) -> int:
        return sum(await asyncio.gather(*(nothing(n) for n in range(count))))

    for count in (100, 1000):
        reads = 0
        run = await memory.start(thousand, count, run_id=f"many-{count}")
        assert await run.result(PATIENCE) == count * (count - 1) // 2
        assert reads <= 3 * count + 10
        assert (await run.info()).position == 2 * count + 3


async def test_waiting_for_children_takes_no_step_slot(url):
    """H-09: with one slot a tree of runs goes on."""
    async with hf.connect(url) as app, app.worker(concurrency=1):

        @hf.workflow(name="children.tree")
        async def tree(depth: int) -> int:
            if depth == 0:
                return await double(1)
            return sum(await asyncio.gather(tree(depth - 1), tree(depth - 1)))

        assert await (await app.start(tree, 4, run_id="tree")).result(PATIENCE) == 32
        await sound(app)


async def test_deep_nesting(memory):
    @hf.workflow(name="deep")
    async def deep(level: int) -> int:
        return 1 + await deep(level - 1) if level else 0

    run = await memory.start(deep, 60, run_id="a" * 100)
    assert await run.result(PATIENCE) == 60
    ids = [r.id async for r in memory.runs(root="a" * 100)]
    assert len(ids) == 61
    assert max(map(len, ids)) <= 200
    await sound(memory)


async def test_a_run_that_was_dropped_from_memory_hears_of_its_child(app):
    async with app.worker(keep=1):

        @hf.workflow(name="children.dropped")
        async def dropped(token: str) -> int:
            return await patient(token)

        runs = [await app.start(dropped, f"t{n}", run_id=f"dropped-{n}") for n in range(4)]
        await told(app.store, lambda: app.store.hooks(), lambda hooks: len(hooks) == 4)
        for n in range(4):
            await app.resume(f"t{n}", n)
        assert [await run.result(PATIENCE) for run in runs] == [0, 1, 2, 3]
        await sound(app)
