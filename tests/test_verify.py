"""`verify` finds what was changed by hand: real SQL on a real file, one edit a test."""

import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from patience import PATIENCE

import holdfast as hf
from holdfast.chunks import END, Part
from holdfast.events import new
from holdfast.logcheck import ExportedHead, LogCheck
from holdfast.store import open_store
from holdfast.store.rules import extend_chain
from holdfast.verify import Verification, read_heads
from holdfast.workflow import steps, workflows

ENDED, WAITING = "ended", "waiting"
"""The two runs of each store: one that has ended, one that has an open step, a timer and a hook."""


async def build(url: str) -> None:
    async with open_store(url) as store:
        created = new("run_created", data={"workflow": "w", "args": {}, "attributes": {"customer": "ana"}})
        step = new("step_scheduled", key="charge#1", data={"args": {"amount": 7}})
        began = new("step_started", key="charge#1", data={"attempt": 1, "worker": "w1"})
        await store.append(ENDED, [created, new("run_started")], after=0)
        await store.append(ENDED, [step, began], after=2)
        await store.append(ENDED, [new("step_completed", key="charge#1", data={"attempt": 1, "value": 7})])
        await store.append(
            ENDED, [new("attributes_set", key="attributes#1", data={"attributes": {"a": "b"}})], after=5
        )
        await store.append(ENDED, [new("run_completed", data={"value": 7, "read": 0})], after=6)
        await store.append(WAITING, [created, new("run_started")], after=0)
        asked = [
            step,
            began,
            new("timer_started", key="sleep#1", data={"due": 2_000_000_000_000_000}),
            new(
                "hook_opened",
                key="approve:1#1",
                data={"schema": {"type": "object"}, "metadata": {"who": "ana"}},
            ),
            new("step_scheduled", key="pack#1", data={"args": {}}),
        ]
        await store.append(WAITING, asked, after=2)
        await store.append(WAITING, [new("step_retried", key="charge#1", data={"attempt": 1, "due": 5})])
        await store.deliver("approve:1", b'{"ok":true}', "mail-1")


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    await build(f"sqlite:///{tmp_path / 'app.db'}")
    return tmp_path / "app.db"


def edit(path: Path, *statements: str) -> None:
    """Change the file behind Holdfast's back; the rows of a run are named by its id."""
    with sqlite3.connect(path) as db:
        for statement in statements:
            for run in (ENDED, WAITING):
                statement = statement.replace(f"<{run}>", f"(SELECT row FROM runs WHERE run = '{run}')")
            assert db.execute(statement).rowcount != 0, f"changes nothing: {statement}"
    db.close()


async def verify(path: Path, **options: object) -> list[str]:
    async with open_store(f"sqlite:///{path}") as store:
        return [str(found) async for found in Verification(store, **options).run()]  # type: ignore[arg-type]


async def heads(path: Path) -> list[ExportedHead]:
    async with open_store(f"sqlite:///{path}") as store:
        verification = Verification(store, keep_heads=True)
        assert [found async for found in verification.run()] == []
        return verification.heads


# ---- nothing differs


async def test_a_store_that_nobody_touched(path: Path) -> None:
    async with open_store(f"sqlite:///{path}") as store:
        verification = Verification(store)
        assert [found async for found in verification.run()] == []
    assert (verification.runs, verification.events, verification.unsettled) == (2, 16, [])


async def test_the_store_in_memory() -> None:
    async with open_store("memory://verify") as keeper:
        await build("memory://verify")
        assert [found async for found in Verification(keeper).run()] == []


async def test_runs_of_every_shape_are_in_order(tmp_path: Path) -> None:
    """What workers write is what verify expects: retries, cancels, refused hooks, late outcomes."""
    url = f"sqlite:///{tmp_path / 'app.db'}"
    async with hf.connect(url) as app, app.worker():
        runs = [await app.start(shape, n) for shape in SHAPES for n in range(3)]
        await runs[-1].cancel("enough")
        for run in runs[:-3]:
            try:
                await run.result(PATIENCE)
            except hf.RunFailed:
                pass
        await app.run(runs[-2].id).terminate()
    async with open_store(url) as store:
        verification = Verification(store, workflows=workflows.names())
        assert [str(found) async for found in verification.run()] == []
        assert verification.replayed == len(runs)


# ---- the log was changed


async def test_an_edited_event(path: Path) -> None:
    edit(path, """UPDATE events SET body = '{"attempt":1,"value":8}' WHERE run = <ended> AND position = 5""")
    assert await verify(path) == [
        "ended position 5: the hash of this append (position 5) does not fit its events"
    ]


async def test_an_edited_event_amid_an_append_names_the_append_and_no_other(path: Path) -> None:
    edit(path, "UPDATE events SET body = '{\"args\":{}}' WHERE run = <waiting> AND position = 3")
    assert await verify(path) == [
        "waiting position 3: the hash of this append (positions 3–7) does not fit its events"
    ]


async def test_commands_that_were_decided_on_an_old_view(path: Path) -> None:
    """L4: no store accepts such; the fence that is kept with each append proves that this one did not."""
    edit(path, "UPDATE events SET fence = 3 WHERE run = <ended> AND position = 7")
    assert await verify(path) == [
        "ended position 7: commands were decided here on a view that ends at 3, which lacks the command at 6"
    ]


async def test_early_facts_that_do_not_follow_the_view_they_were_delivered_on(path: Path) -> None:
    """L5: a fact from outside rests on no view; one that was delivered early stands right behind it."""
    edit(path, "UPDATE events SET fence = 4 WHERE run = <ended> AND position = 5")
    assert await verify(path) == []
    edit(path, "UPDATE events SET fence = 3 WHERE run = <ended> AND position = 5")
    assert await verify(path) == [
        "ended position 5: facts were delivered here on a view that ends at 3, and do not follow it"
    ]


async def test_an_edited_time(path: Path) -> None:
    edit(path, "UPDATE events SET time = time - 1000000 WHERE run = <ended> AND position = 5")
    found = await verify(path)
    assert re.match(r"ended position 5: its time lies \d+ µs before its predecessor's", found[0])
    assert "does not fit its events" in found[1]


async def test_a_timer_that_fired_too_early_unless_it_was_cancelled_before() -> None:
    """L8. A decider with an old view and a clock that is ahead rings for a timer that another has cancelled."""
    due = 4_000_000_000_000_000
    async with open_store("memory://") as store:
        created = new("run_created", data={"workflow": "w", "args": {}})
        timers = [new("timer_started", key=f"sleep#{n}", data={"due": due}) for n in (1, 2)]
        await store.append("r", [created, new("run_started"), *timers], after=0)
        await store.append("r", [new("timer_cancelled", key="sleep#2")], after=4)
        await store.append("r", [new("timer_fired", key="sleep#2")])
        assert [difference async for difference in Verification(store).run()] == []
        await store.append("r", [new("timer_fired", key="sleep#1")])
        log = await store.read("r")
        assert (log[5].time < due, log[6].time) == (True, due), "the store lets no pending timer fire early"
    check = LogCheck("r")
    for event in [*log[:6], msgspec.structs.replace(log[6], time=log[5].time)]:
        check.add(event)
    assert [str(difference) for difference in check.differences] == [
        "r position 7: sleep#1 fired before it was due"
    ]


async def test_an_edited_type_and_key(path: Path) -> None:
    edit(path, "UPDATE events SET key = 'refund#1' WHERE run = <ended> AND position = 3")
    found = await verify(path)
    assert "ended position 4: step_started charge#1 reports on a command that is not before it" in found
    assert any("does not fit its events" in line for line in found)


async def test_a_type_that_does_not_exist(path: Path) -> None:
    edit(path, "UPDATE events SET type = 'step_dreamt' WHERE run = <ended> AND position = 5")
    assert (await verify(path))[0] == "ended position 5: no event type 'step_dreamt'"


async def test_a_body_that_is_no_json(path: Path) -> None:
    edit(path, "UPDATE events SET body = '{\"attempt\":' WHERE run = <ended> AND position = 5")
    assert (await verify(path))[0].startswith("ended position 5: step_completed charge#1 cannot be read: ")


@pytest.mark.parametrize("body", ["[]", "5", "null", '"x"', "{}", '{"attempt":"x"}', '{"attempt":null}'])
@pytest.mark.parametrize("position", range(1, 8))
async def test_no_body_makes_verify_fail_itself(path: Path, body: str, position: int) -> None:
    edit(path, f"UPDATE events SET body = '{body}' WHERE run = <ended> AND position = {position}")
    found = await verify(path)
    was_empty = position == 2 and body == "{}"
    assert bool(found) != was_empty


async def test_a_cut_log(path: Path) -> None:
    edit(path, "DELETE FROM events WHERE run = <ended> AND position > 5")
    found = await verify(path)
    assert "ended: the hash in the run's row is not that of its log" in found
    assert "ended position 5: the log ends here, the run's row says 7" in found
    assert 'ended: the run\'s row says status = "completed", the log says "running"' in found


async def test_a_log_cut_inside_an_append(path: Path) -> None:
    edit(path, "DELETE FROM events WHERE run = <waiting> AND position > 5")
    found = await verify(path)
    assert "waiting position 3: no append's hash covers the log from here on" in found


async def test_a_log_that_was_emptied(path: Path) -> None:
    edit(path, "DELETE FROM events WHERE run = <ended>")
    found = await verify(path)
    assert "ended: the log is empty, the run's row says 7" in found


CUT = (
    "DELETE FROM events WHERE run = <ended> AND position > 5",
    """UPDATE runs SET position = 5, status = 'running', ended = NULL, command = 3, fact = 5, delivered = 2,
        attributes = '{"customer":"ana"}',
        time = (SELECT time FROM events WHERE events.run = runs.row AND position = 5) WHERE run = 'ended'""",
)
CUT_WELL = (
    *CUT,
    """UPDATE runs SET chain = (SELECT chain FROM events WHERE events.run = runs.row AND position = 5)
        WHERE run = 'ended'""",
)


async def test_a_log_cut_with_its_row_adjusted_but_for_the_hash(path: Path) -> None:
    edit(path, *CUT)
    assert await verify(path) == ["ended: the hash in the run's row is not that of its log"]


async def test_a_log_cut_by_somebody_who_knows_how_is_found_by_an_exported_head(path: Path) -> None:
    exported = await heads(path)
    edit(path, *CUT_WELL)
    assert await verify(path) == []  # nothing inside the file can tell
    assert await verify(path, exported=exported) == [
        "ended position 7: the log ends at 5, an exported head stands at 7: it was cut"
    ]


async def test_a_log_rewritten_with_all_its_hashes_is_found_by_an_exported_head(path: Path) -> None:
    exported = await heads(path)
    with sqlite3.connect(path) as db:
        rows = db.execute(
            "SELECT position, type, key, time, body, chain FROM events "
            "WHERE run = (SELECT row FROM runs WHERE run = 'ended') ORDER BY position"
        ).fetchall()
        chain, part = b"", []
        for position, type_, key, time, body, stored in rows:
            if position == 5:
                body = body.replace('"value":7', '"value":8')
                db.execute(
                    "UPDATE events SET body = ? WHERE position = 5 AND type = 'step_completed'", (body,)
                )
            part.append((position, type_, key, time, body.encode()))
            if stored is not None:
                chain, part = extend_chain(chain, part), []
                db.execute(
                    "UPDATE events SET chain = ? WHERE position = ? "
                    "AND run = (SELECT row FROM runs WHERE run = 'ended')",
                    (chain, position),
                )
        db.execute("UPDATE runs SET chain = ? WHERE run = 'ended'", (chain,))
    db.close()
    assert await verify(path) == []
    assert await verify(path, exported=exported) == [
        "ended position 7: the exported head has another hash here: the log was rewritten"
    ]


async def test_a_run_that_vanished_is_found_by_an_exported_head(path: Path) -> None:
    exported = await heads(path)
    edit(path, "DELETE FROM runs WHERE run = 'ended'")
    found = await verify(path, exported=exported)
    assert "ended position 7: an exported head names this run, the store does not" in found


async def test_a_run_that_vanished_leaves_rows_that_belong_to_none(path: Path) -> None:
    edit(path, "DELETE FROM runs WHERE run = 'waiting'")
    assert await verify(path) == [
        "the store: 1 rows of deliveries belong to no run: a run's row was taken away",
        "the store: 9 rows of events belong to no run: a run's row was taken away",
        "the store: 1 rows of hooks belong to no run: a run's row was taken away",
        "the store: 2 rows of steps belong to no run: a run's row was taken away",
        "the store: 1 rows of timers belong to no run: a run's row was taken away",
    ]
    edit(path, "DELETE FROM runs WHERE run = 'ended'")
    assert len(await verify(path)) == 5


async def test_exported_heads_still_hold_when_a_run_has_gone_on(path: Path) -> None:
    exported = await heads(path)
    async with open_store(f"sqlite:///{path}") as store:
        await store.append(WAITING, [new("woken", data={"id": "1"})])
    assert await verify(path, exported=exported) == []


async def test_a_missing_position(path: Path) -> None:
    edit(path, "DELETE FROM events WHERE run = <waiting> AND position = 4")
    found = await verify(path)
    assert "waiting position 5: position 4 missing before it" in found


async def test_several_missing_positions(path: Path) -> None:
    edit(path, "DELETE FROM events WHERE run = <waiting> AND position IN (4, 5, 6)")
    assert "waiting position 7: 4–6 missing before it" in await verify(path)


async def test_a_doubled_position(path: Path) -> None:
    edit(
        path,
        "DROP INDEX events_place",
        "INSERT INTO events (run, position, type, key, time, body) "
        "SELECT run, position, 'woken', '', time, '{}' FROM events WHERE run = <waiting> AND position = 5",
    )
    found = await verify(path)
    assert "waiting position 5: this position is taken twice (the second is woken)" in found


@pytest.mark.parametrize("page", [1, 2, 3, 4, 5, 100])
async def test_a_doubled_position_at_the_edge_of_a_page(
    path: Path, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(
        path,
        "DROP INDEX events_place",
        "INSERT INTO events (run, position, type, key, time, body) "
        "SELECT run, position, 'woken', '', time, '{}' FROM events WHERE run = <waiting> AND position = 5",
    )
    monkeypatch.setattr("holdfast.verify.PAGE", page + 1)
    found = await verify(path)
    assert "waiting position 5: this position is taken twice (the second is woken)" in found


async def test_two_ends(path: Path) -> None:
    edit(
        path,
        "INSERT INTO events (run, position, type, key, time, body) "
        "SELECT run, 8, 'run_failed', '', time, '{\"read\":0}' FROM events "
        "WHERE run = <ended> AND position = 7",
    )
    found = await verify(path)
    assert "ended position 8: 'end' stands at position 7 already" in found
    assert "ended position 8: run_failed follows the end at 7" in found
    assert "ended position 8: no append's hash covers the log from here on" in found


async def test_a_command_after_the_end(path: Path) -> None:
    edit(
        path,
        "INSERT INTO events (run, position, type, key, time, body) "
        "SELECT run, 8, 'step_scheduled', 'late#1', time, '{}' FROM events "
        "WHERE run = <ended> AND position = 7",
    )
    assert "ended position 8: step_scheduled late#1 follows the end at 7" in await verify(path)


async def test_a_second_creation(path: Path) -> None:
    edit(path, "UPDATE events SET type = 'run_created' WHERE run = <ended> AND position = 2")
    assert "ended position 2: run_created: a log begins with run_created, and nowhere else" in await verify(
        path
    )


# ---- a projection was changed


@pytest.mark.parametrize(
    ("run", "statement", "message"),
    [
        (ENDED, "status = 'failed'", 'says status = "failed", the log says "completed"'),
        (ENDED, "workflow = 'other'", 'says workflow = "other", the log says "w"'),
        (ENDED, "attributes = '{}'", 'says attributes = {}, the log says {"customer": "ana", "a": "b"}'),
        (ENDED, "ended = NULL", "says ended = nothing, the log says "),
        (ENDED, "created = created - 5", "says created = "),
        (ENDED, "time = time + 1", "says time = "),
        (ENDED, "position = 9", "the log ends here, the run's row says 9"),
        (ENDED, "position = 3", "the log ends here, the run's row says 3"),
        (ENDED, "chain = x'00'", "the hash in the run's row is not that of its log"),
        (ENDED, "delivered = 8", "says delivered = 8, the log ends at 7"),
        (WAITING, "command = 2", "says command = 2, the log says 7"),
        (WAITING, "fact = 0", "says fact = 0, the log says 9"),
        (WAITING, "steps = 1", "says steps = 1, the log says 2"),
        (WAITING, "timers = 0", "says timers = 0, the log says 1"),
    ],
)
async def test_a_row_of_runs(path: Path, run: str, statement: str, message: str) -> None:
    edit(path, f"UPDATE runs SET {statement} WHERE run = '{run}'")
    found = await verify(path)
    assert all(line.startswith(run) for line in found)
    assert any(message in line for line in found), found


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (
            "UPDATE steps SET attempt = 4 WHERE key = 'charge#1'",
            'steps says charge#1 = {"attempt": 4, "due": 5}, the log says {"attempt": 1, "due": 5}',
        ),
        ("UPDATE steps SET due = NULL WHERE key = 'charge#1'", "the table of steps says charge#1 = "),
        ("DELETE FROM steps WHERE key = 'pack#1'", "the table of steps says pack#1 = nothing"),
        (
            "INSERT INTO steps (run, key, attempt) VALUES (<ended>, 'charge#1', 1)",
            'the table of steps says charge#1 = {"attempt": 1, "due": null}, the log says nothing',
        ),
        ("UPDATE timers SET due = 1", "the table of timers says sleep#1 = 1, the log says 2000000000000000"),
        ("DELETE FROM timers", "the table of timers says sleep#1 = nothing"),
        ("UPDATE hooks SET status = 'closed'", 'the table of hooks says approve:1#1 = {"token": "approve:1"'),
        (
            "UPDATE hooks SET token = 'approve:2'",
            'the table of hooks says approve:1#1 = {"token": "approve:2"',
        ),
        ("UPDATE hooks SET schema = NULL", "the table of hooks says approve:1#1 = "),
        ("UPDATE hooks SET metadata = '{}'", "the table of hooks says approve:1#1 = "),
        ("DELETE FROM hooks", "the table of hooks says approve:1#1 = nothing"),
    ],
)
async def test_a_row_of_another_projection(path: Path, statement: str, message: str) -> None:
    edit(path, statement)
    found = await verify(path)
    assert len(found) == 1
    assert message in found[0], found


# ---- which runs


async def test_one_run_alone(path: Path) -> None:
    edit(path, "UPDATE runs SET status = 'failed'")
    found = await verify(path, run_id=WAITING)
    assert [line.split(":")[0] for line in found] == [WAITING]


async def test_heads_are_kept_of_runs_that_are_in_order_alone(path: Path) -> None:
    edit(path, "UPDATE runs SET status = 'failed' WHERE run = 'ended'")
    async with open_store(f"sqlite:///{path}") as store:
        verification = Verification(store, keep_heads=True)
        assert [found.run async for found in verification.run()] == [ENDED]
        (head,) = verification.heads
        stored = await store.head(WAITING)
        assert stored is not None
        assert head == ExportedHead(WAITING, 9, stored.chain.hex())


def test_heads_are_read_line_by_line() -> None:
    line = b'{"run":"r","position":3,"chain":"ab"}\n'
    assert list(read_heads([line, b"\n"])) == [ExportedHead("r", 3, "ab")]
    with pytest.raises(ValueError, match=r"^line 2: "):
        list(read_heads([line, b'{"run":"r"}\n']))


async def test_code_is_replayed_where_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path / 'app.db'}"
    async with hf.connect(url) as app, app.worker():
        await (await app.start(SHAPES[0], 1, run_id="r")).result(PATIENCE)
    monkeypatch.setattr(SHAPES[0], "fn", other_code)
    async with open_store(url) as store:
        assert [found async for found in Verification(store).run()] == []
        (found,) = [found async for found in Verification(store, workflows=["verify.plain"]).run()]
    assert found.position == 4
    assert "step_scheduled double#1" in found.what
    assert "step_scheduled double#1" in found.what.partition("today's code asks for")[2]
    assert f"{__file__}:" in found.what


async def test_a_run_that_is_written_to_meanwhile_is_not_told_as_different(path: Path) -> None:
    """Between two reads of one check, another writer appends; the check reads on."""
    async with open_store(f"sqlite:///{path}") as store, open_store(f"sqlite:///{path}") as other:
        verification = Verification(store)
        count = 0
        read_head = store.head

        async def head(run_id: str) -> object:
            nonlocal count
            count += 1
            if count < 8:
                await other.append(WAITING, [new("woken", data={"id": str(count)})])
            return await read_head(run_id)

        store.head = head  # type: ignore[assignment,method-assign]
        assert [str(found) async for found in verification.run()] == []
        assert verification.unsettled == []
        assert count > 8


# ---- runs of many shapes


@hf.step(retries=1, backoff=0)
async def double(n: int) -> int:
    if n == 2 and hf.step_info().attempt == 1:
        raise ValueError("once more")
    return 2 * n


@hf.workflow(name="verify.plain")
async def plain(n: int) -> int:
    hf.set_attributes(n=str(n))
    return await double(n)


async def other_code(n: int) -> int:
    hf.set_attributes(n=str(n))
    return await double(n + 1)


@hf.step(retries=0)
async def fails() -> None:
    raise ValueError("no")


@hf.workflow
async def failing(n: int) -> None:
    await hf.sleep(0.001 * n)
    await fails()


@hf.workflow(name="verify.waits")
async def waits(n: int) -> None:
    try:
        await hf.hook("the one token")
    except hf.HookTaken:
        await hf.hook(f"token {n}")
    finally:
        await double(n)


SHAPES: list[hf.workflow] = [plain, failing, waits]  # type: ignore[valid-type]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests define workflows of these names too."""
    own: Callable[[object], dict[str, list[object]]] = lambda kind: {  # noqa: E731
        d.name: [d]
        for d in globals().values()
        if isinstance(d, kind)  # type: ignore[arg-type]
    }
    monkeypatch.setattr(workflows, "_known", own(type(plain)))
    monkeypatch.setattr(steps, "_known", own(type(double)))


# ---- streams were changed


async def test_an_edited_stream(path: Path) -> None:
    """Density, hash, size, end, keys and strays; each edit is named."""
    async with open_store(f"sqlite:///{path}") as store:
        parts = [Part("text", b"one", "k1"), Part("text", b"two", "k2"), Part("text", b"three")]
        await store.write_stream(WAITING, "s", parts)
        await store.write_stream(WAITING, "s", [END])
        await store.write_stream(WAITING, "t", parts)
    assert await verify(path) == []
    s, t = (f"(SELECT row FROM streams WHERE name = '{name}')" for name in "st")
    edit(path, f"UPDATE chunks SET body = 'TWO' WHERE stream = {s} AND position = 2")
    assert await verify(path) == ["waiting: stream 's': the hash of its row does not fit its chunks"]
    edit(path, f"DELETE FROM chunks WHERE stream = {s} AND position = 2")
    assert (await verify(path))[0] == "waiting: stream 's' position 3: position 2 is missing before it"
    edit(
        path,
        f"DELETE FROM chunks WHERE stream = {s} AND position = 4",
        f"UPDATE streams SET size = 1 WHERE row = {t}",
    )
    found = await verify(path)
    assert "waiting: stream 's': its row says 4 chunks, the last one there is 3" in found
    assert "waiting: stream 't': its row says 1 bytes and end 0, its chunks have 11 bytes" in found
    edit(path, f"UPDATE streams SET position = 2 WHERE row = {t}")
    assert "waiting: stream 't' position 3: lies beyond what its row says" in await verify(path)
    edit(path, f"DELETE FROM streams WHERE row = {t}")
    assert "the store: 3 rows of chunks belong to no run: a run's row was taken away" in await verify(path)
