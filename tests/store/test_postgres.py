"""What only PostgreSQL has: connections that are lost, a server that others share, a schema among others."""

import asyncio
import re

import asyncpg
import pytest
from patience import PATIENCE
from postgres_kit import execute
from store_kit import (
    SECOND,
    assert_sound,
    begin,
    completed,
    created,
    noted,
    opened,
    scheduled,
    started,
    woken,
    worker,
)

from holdfast.chunks import Part
from holdfast.errors import SchemaUnknown, StoreBroken, StoreError
from holdfast.store import open_store
from holdfast.store.migrate import load_migrations
from holdfast.store.postgres import connect
from holdfast.store.postgres.clock import ServerClock
from holdfast.store.postgres.connect import FOR_WRITING, SQL
from holdfast.store.postgres.text import escape, unescape
from holdfast.store.queries import load_queries

# ---- lost connections


class Cut:
    """Cuts the connection at one statement of a process, before it is sent or before its answer is read."""

    def __init__(self, monkeypatch):
        self.left, self.after, self.cut = 0, False, 0
        for name in ("fetch", "fetchval", "execute"):
            monkeypatch.setattr(asyncpg.Connection, name, self._cutting(getattr(asyncpg.Connection, name)))

    def at(self, number, after):
        self.left, self.after, self.cut = number, after, 0

    def _cutting(self, real):
        async def call(connection, *arguments, **options):
            self.left -= 1
            if self.left != 0:
                return await real(connection, *arguments, **options)
            self.cut += 1
            if self.after:
                await real(connection, *arguments, **options)
            connection.terminate()
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")

        return call


async def write_everything(store, run):
    """Appends on the fast and on the slow way, a payload, a stream: every statement that writes a log."""
    last = await begin(store, run, "a#1")
    answer = await store.append(run, [completed("a#1", at=store.clock.now()), noted("n#1")], after=last)
    await store.append(run, [opened(f"{run}#1"), noted("n#2")], after=answer.last)
    await store.deliver(run, b"1", "d")
    await store.append(run, [woken("w")])
    await store.write_stream(run, "s", [Part("text", b"x")])
    return [(event.position, event.type, event.key) for event in await assert_sound(store, run)]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_connection_lost_at_any_statement_changes_nothing(postgres_url, monkeypatch, after):
    """L-12, L-13: whichever statement it was, the log is the one that would have been written without it."""
    cut = Cut(monkeypatch)
    async with open_store(postgres_url) as store:
        expected = await write_everything(store, "r0")
        number = 0
        while True:
            number += 1
            cut.at(number, after)
            assert await write_everything(store, f"r{number}") == [
                (position, type_, key.replace("r0", f"r{number}")) for position, type_, key in expected
            ]
            assert len(await store.read_stream(f"r{number}", "s")) == 1
            if not cut.cut:
                break
        assert number > 25, "each statement had its turn"


async def test_any_backend_may_be_terminated_at_any_time(postgres_url):
    """DESIGN §4: what an administrator does to connections is a wait, and no failure; news are heard again."""
    heard = asyncio.Event()
    async with open_store(postgres_url) as store, open_store(postgres_url) as other:
        other.listen(lambda news: heard.set() if any(item.run == "last" for item in news) else None)

        async def write(name):
            last = await begin(store, name)
            for n in range(15):
                last = (await store.append(name, [noted(f"n#{n}")], after=last)).last

        async def terminate():
            async with asyncio.timeout(PATIENCE):
                for _ in range(12):
                    await asyncio.to_thread(
                        execute,
                        postgres_url,
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                        "WHERE application_name = 'holdfast' ORDER BY random() LIMIT 2",
                    )

        await asyncio.gather(terminate(), *(write(f"r{n}") for n in range(20)))
        for n in range(20):
            assert len(await assert_sound(other, f"r{n}")) == 2 + 15
        async with asyncio.timeout(PATIENCE):
            number = 0
            while not heard.is_set():
                number += 1
                await store.append("last" if number == 1 else f"x{number}", [created()], after=0)
                await store.append("last", [woken()])
                await asyncio.sleep(0.02)


async def test_whoever_stops_in_the_middle_holds_nothing_for_long(postgres_url, monkeypatch):
    """L-15: a process that is paused inside a transaction holds rows; the server takes them back."""
    monkeypatch.setattr(connect, "IDLE_IN_TRANSACTION", 300)
    async with open_store(postgres_url) as paused, open_store(postgres_url) as other:
        last = await begin(other, "r", "a#1")
        stopped, goes_on = asyncio.Event(), asyncio.Event()

        async def work(db):
            await db.execute(SQL["begin"])
            await db.fetch(SQL["lock_heads"], ["r"])
            stopped.set()
            await goes_on.wait()
            return await db.fetchval(SQL["now"])

        stopping = asyncio.create_task(paused._reading.run(work))
        await stopped.wait()
        answer = await other.append("r", [completed("a#1", at=other.clock.now())], after=last)
        assert answer.first == last + 1
        goes_on.set()
        assert await stopping > 0, "done again on a new connection"


async def test_a_server_that_cannot_be_reached_is_told_in_one_line(tmp_path):
    for url, word in (
        (f"postgresql://u:secret@/app?host={tmp_path}", "cannot be reached"),
        ("postgresql://u:secret@127.0.0.1:1/app", "cannot be reached"),
    ):
        with pytest.raises(StoreError, match=word) as caught:
            async with open_store(url):
                pass
        assert "\n" not in str(caught.value)
        assert "secret" not in str(caught.value)


# ---- time


async def test_a_process_with_a_wrong_clock_writes_the_servers_time(postgres_url):
    """L8: the fast way refuses an estimate that is off by a second; the slow way asks the server."""
    async with open_store(postgres_url) as store:
        assert isinstance(store.clock, ServerClock)
        last = await begin(store)
        store.clock._offset += 3600 * SECOND
        await store.append("r", [noted("n#1")], after=last)
        (server,) = execute(postgres_url, "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")[
            0
        ]
        log = await assert_sound(store, "r")
        assert abs(log[-1].time - server) < 5 * SECOND
        assert abs(store.clock.now() - server) < 5 * SECOND, "and it has learnt the time"


def test_the_estimate_moves_only_as_far_as_it_is_proven_wrong():
    clock = ServerClock()
    clock.learn(1_000_000, 0, 100)
    assert clock._offset == 1_000_000 - 50
    clock.learn(2_000_000, 1_000_000, 1_000_200)
    assert clock._offset == 1_000_000 - 50, "it lies between the two"
    clock.learn(2_000_500, 1_000_000, 1_000_200)
    assert clock._offset == 1_000_300, "it was too slow"
    clock.learn(2_000_000, 1_000_000, 1_000_200)
    assert clock._offset == 1_000_000, "it was too fast"


# ---- names


@pytest.mark.parametrize("name", ["", "plain", "nul\0", "\0\0", "\x1a", "\x1a0", "\x1a\0", "\x1a1\0\x1a"])
def test_every_name_comes_back(name):
    assert "\0" not in escape(name)
    assert unescape(escape(name)) == name


# ---- the schema


def dump(url):
    """What the schema is made of."""
    return execute(
        url,
        "SELECT table_name::text, column_name::text, data_type::text, is_nullable::text, "
        "coalesce(column_default, generation_expression)::text FROM information_schema.columns "
        "WHERE table_schema = 'holdfast' UNION ALL "
        "SELECT tablename::text, indexname::text, indexdef::text, '', NULL FROM pg_indexes "
        "WHERE schemaname = 'holdfast' ORDER BY 1, 2",
    )


async def open_and_close(url):
    async with open_store(url):
        pass


async def test_eight_that_open_an_empty_database_at_once_make_one_schema(postgres):
    url = postgres.fresh()
    await asyncio.gather(*(open_and_close(url) for _ in range(8)))
    assert execute(url, "SELECT count(*) FROM holdfast.migrations")[0][0] == len(load_migrations("postgres"))


async def test_migrating_equals_creating_and_is_asked_for(postgres, monkeypatch):
    """A worker refuses an older schema and says what to do; two that migrate at once migrate once."""
    old, new = postgres.fresh(), postgres.fresh()
    await open_and_close(old)
    first = load_migrations("postgres")
    extra = first[0]._replace(
        number=len(first) + 1, name="9999_extra", text="CREATE TABLE holdfast.extra (n integer);"
    )
    monkeypatch.setattr("holdfast.store.postgres.store.load_migrations", lambda _: [*first, extra])
    with pytest.raises(SchemaUnknown, match="holdfast migrate"):
        await open_and_close(old)

    async def migrate():
        store = open_store(old)
        store.upgrade = True
        async with store:
            return list(store.upgraded)

    assert sorted(await asyncio.gather(migrate(), migrate())) == [[], ["9999_extra"]]
    await open_and_close(old)
    await open_and_close(new)
    assert dump(old) == dump(new)


async def test_what_is_not_ours_is_refused(postgres):
    """A newer schema, one of another build, and one of another program: each is left alone."""
    newer, other_build, other = (postgres.fresh() for _ in range(3))
    await open_and_close(newer)
    execute(newer, "INSERT INTO holdfast.migrations VALUES (99, '0099_later', 'x', 1)")
    with pytest.raises(SchemaUnknown, match="upgrade holdfast"):
        await open_and_close(newer)
    await open_and_close(other_build)
    execute(other_build, "UPDATE holdfast.migrations SET checksum = 'x'")
    with pytest.raises(StoreBroken, match="another build"):
        await open_and_close(other_build)
    execute(other, "CREATE SCHEMA holdfast", "CREATE TABLE holdfast.theirs (n integer)")
    with pytest.raises(StoreBroken, match="another program"):
        await open_and_close(other)


# ---- the statements


async def test_a_step_touches_no_index_of_the_runs(postgres):
    """An append that leaves status and owner alone is a HOT update: 1,000,000 runs beside it cost nothing."""
    postgres_url = postgres.fresh()  # in the common one the server has counted what other tests did
    async with open_store(postgres_url) as store:
        last = await begin(store, "r", "a#1", owner="w")
        for n in range(1, 30):
            # As a worker does: not before what it knows, though the server's clock is only estimated here.
            at = max(store.clock.now(), (await store.head("r")).time)
            drafts = [completed(f"a#{n}", at=at), *step(f"a#{n + 1}")]
            last = (await store.append("r", drafts, after=last)).last
    await asyncio.sleep(0)
    updates, hot = 0, -1
    for _ in range(200):  # the server's counters are published a moment after the session ends
        updates, hot = execute(
            postgres_url,
            "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables "
            "WHERE schemaname = 'holdfast' AND relname = 'runs'",
        )[0]
        if updates >= 29:
            break
    assert updates >= 29
    assert hot >= updates - 3


def step(key):
    return [scheduled(key), started(key)]


LOOKED_UP = ["uniques", "batches", "beyond", "since", "take_up", "ends", "receivers", "write_streams"]
WRITTEN = ["write_group", "move_run", "deliver_payload", "end_run"]


@pytest.mark.parametrize("name", LOOKED_UP + WRITTEN)
async def test_a_plan_that_is_made_while_the_tables_are_empty_looks_into_an_index(postgres, name):
    """Plans are made once. One that reads whole tables costs nothing at first, and milliseconds a minute later."""
    import asyncpg

    postgres_url = postgres.fresh()
    async with open_store(postgres_url):
        pass
    query = load_queries("postgres")[name].rstrip().rstrip(";")
    given = ", ".join(["NULL"] * max(int(number) for number in re.findall(r"\$(\d+)", query)))
    settings = {"plan_cache_mode": "force_generic_plan"} | (FOR_WRITING if name in WRITTEN else {})
    db = await asyncpg.connect(postgres_url, server_settings=settings)
    try:
        await db.execute(f"PREPARE looked AS {query}")
        plan = "\n".join(row[0] for row in await db.fetch(f"EXPLAIN EXECUTE looked ({given})"))
    finally:
        await db.close()
    assert not re.search(r"Seq Scan on \w|Merge Join", plan), plan
    assert "Index Scan" in plan or "Index Only Scan" in plan or "Bitmap Index Scan" in plan, plan
    assert name not in WRITTEN or "hooks_open" not in plan, "that is every open hook there is"


@pytest.mark.parametrize("parked", [False, True])
async def test_a_claim_holds_its_limit_whatever_the_plan(postgres, parked):
    """Where rows are joined in loops, what stands behind IN is chosen for each row anew: more than three."""
    url = postgres.fresh()
    async with open_store(url) as store:
        for n in range(40):
            await store.append(f"r{n:02}", [created(f"w{n % 2}")], after=0)
            if parked:
                await store.park(f"r{n:02}", "{}")
    name = execute(url, "SELECT current_database()")[0][0]
    for way in ("hashjoin", "mergejoin", "hashagg", "sort", "material", "memoize"):
        execute(url, f"ALTER DATABASE {name} SET enable_{way} = off")
    async with open_store(url) as store:
        await store.enlist(worker("w1"))
        given = await store.claim("w1", ["w0", "w1"], limit=3, parked=parked)
    assert [claim.run for claim in given] == ["r00", "r01", "r02"]


async def test_plans_are_made_again_when_the_tables_may_have_grown(postgres_url):
    """After 64 pieces of work, four times as many, and so on: what a plan was made for is not what is there."""
    line = connect.Line(postgres_url, "there")
    forgotten = []
    uses = 0

    async def look(db):
        nonlocal uses
        uses += 1
        if uses == 1:
            db.add_query_logger(lambda query: forgotten.append(query.query))
        await db.fetch(SQL["now"])

    for _ in range(300):
        await line.run(look)
    await line.close()
    assert forgotten.count(SQL["plan_again"]) == 2


@pytest.mark.parametrize("chosen", [None, "pglz"])
async def test_large_values_are_compressed_in_the_quickest_way_that_the_server_has(postgres, chosen):
    """LZ4 where it was built with that, unless somebody has chosen."""
    url = postgres.fresh()
    [offered] = execute(url, "SELECT enumvals FROM pg_settings WHERE name = 'default_toast_compression'")
    if chosen is not None:
        [here] = execute(url, "SELECT current_database() AS name")
        execute(url, f"ALTER DATABASE {here['name']} SET default_toast_compression = {chosen}")
    async with open_store(url) as store:
        await begin(store, "r")
        await store.write_stream("r", "s", [Part("text", b"x" * 100_000)])
    expected = "lz4" if chosen is None and "lz4" in offered["enumvals"] else "pglz"
    [kept] = execute(url, "SELECT pg_column_compression(body) AS by FROM holdfast.chunks")
    assert kept["by"] == expected


def test_every_query_is_named_once_described_and_used():
    from pathlib import Path

    import holdfast.store

    folder = Path(holdfast.store.__file__).parent
    text = (folder / "sql/postgres/queries.sql").read_text()
    for block in text.split("-- name:")[1:]:
        assert block.splitlines()[1].startswith("-- "), block
    source = "".join(path.read_text() for path in folder.rglob("*.py"))
    unused = [name for name in load_queries("postgres") if f'"{name}"' not in source]
    assert unused == []


async def test_a_run_that_is_remembered_is_followed_by_what_is_new_and_only_where_the_hashes_say_so(
    postgres_url,
):
    """L13: what a process remembers of a run moves on by the hash of the log; anything else is read in full."""
    async with open_store(postgres_url) as store, open_store(postgres_url) as other:
        drafts = [created(), opened("t#1"), scheduled("a#1"), started("a#1")]
        last = (await store.append("r", drafts, after=0)).last
        await store.take_up("r")
        for n in (1, 2):
            await other.deliver("t", b"1", f"d{n}")
        await other.append("r", [completed("a#1"), woken("w")])
        new = (await other.read("r"))[last:]
        row = store._writer.remembered("r", last)
        rows = (await store._ask_since([(row, last)]))[row, last]
        assert [len(rows), store._writer.follow("r", last, rows[1:])] == [4, None], "not what comes next"
        assert store._writer.follow("r", last, rows[:-1]) is None, "half an append"
        forged = [(*rows[0][:4], '{"payload":2}', rows[0][5]), *rows[1:]]
        assert store._writer.follow("r", last, forged) is None, "not what was hashed"
        assert await store.catch_up("r", last) == new
        assert store._writer.remembered("r", last + 4) == row
        assert await store.catch_up("r", last + 4) == []
        await store.append("r", [noted("n#1")], after=last + 4)
        await assert_sound(store, "r")


async def test_a_large_group_is_judged_over_several_turns_and_what_comes_to_be_known_meanwhile_does_no_harm(
    postgres_url, monkeypatch
):
    """Two facts of one run: before the second is judged, what is remembered turns out to be old."""
    loop, turns, judged = asyncio.get_running_loop(), 0, []

    def turn():
        nonlocal turns
        turns += 1
        if len(judged) < 52:
            loop.call_soon(turn)

    async with open_store(postgres_url) as store, open_store(postgres_url) as other:
        for run in ("r", *(f"r{n}" for n in range(50))):
            await begin(store, run)
        await other.take_up("r")
        await other.append("r", [woken("theirs"), woken("theirs too")])
        find = store._writer._found_in_memory

        def looked(request):
            judged.append(turns)
            if len(judged) == 5:
                loop.call_soon(store._writer.remember, other._writer._known["r"])
            return find(request)

        monkeypatch.setattr(store._writer, "_found_in_memory", looked)
        loop.call_soon(turn)
        runs = ["r", *(f"r{n}" for n in range(50)), "r"]
        await asyncio.gather(*(store.append(run, [woken(str(n))]) for n, run in enumerate(runs)))
        group = judged[: len(runs)]
        assert max(group.count(turn) for turn in group) <= 16
        log = await assert_sound(store, "r")
        assert [event.data["id"] for event in log[2:]] == ["theirs", "theirs too", "0", "51"]


async def test_a_payload_of_this_process_is_given_to_its_worker_once_and_only_if_it_is_all_that_has_come(
    postgres_url,
):
    """The hash says so; for a run may be removed, and its id used again."""
    async with open_store(postgres_url) as store, open_store(postgres_url) as other:
        await store.enlist(worker("w"))
        last = (await store.append("r", [created(), opened("t#1")], after=0, owner="w")).last
        await store.deliver("t", b"1", "d1")
        await store.deliver("t", b"2", "d2")
        log = await other.read("r")
        assert store._writer.sent("r", last) == log[last:]
        assert store._writer.sent("r", last) == []
        await store.deliver("t", b"3", "d3")
        await other.deliver("t", b"4", "d4")
        await store.take_up("r")
        assert store._writer.sent("r", last + 2) == [], "it is not all that has come"
        assert await store.catch_up("r", last + 2) == (await other.read("r"))[last + 2 :]


# ---- rows that somebody holds


async def test_a_claim_looks_again_at_a_run_that_was_held_by_somebody_who_wrote_nothing(postgres_url):
    """L14: a second creator who comes too late holds the row for a moment, and its commit tells of nothing."""
    other = await asyncpg.connect(postgres_url)
    async with open_store(postgres_url) as store:
        await store.enlist(worker("w1"))
        await store.append("r", [created()], after=0)
        await other.execute("BEGIN")
        await other.execute("SELECT 1 FROM holdfast.runs FOR NO KEY UPDATE")
        claim = asyncio.create_task(store.claim("w1", ["w"]))
        await asyncio.wait([claim], timeout=0.02)
        await other.execute("COMMIT")
        assert [given.run for given in await claim] == ["r"]
    await other.close()
