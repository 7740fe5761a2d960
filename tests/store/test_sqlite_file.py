"""SQLite only: the file, the commits, and what can be wrong with either."""

import asyncio
import os
import re
import shutil
import sqlite3
import subprocess
import threading
from pathlib import Path

import apsw
import msgspec
import pytest
from patience import PATIENCE
from store_kit import (
    assert_sound,
    begin,
    child,
    completed,
    created,
    finished,
    noted,
    running,
    scheduled,
    started,
    timer,
    woken,
)
from store_kit import (
    opened as hook,
)

from holdfast.chunks import Part
from holdfast.errors import SchemaUnknown, StoreBroken, StoreError
from holdfast.store import open_store
from holdfast.store.migrate import Migration, load_migrations
from holdfast.store.queries import load_queries, parse_queries
from holdfast.store.sqlite import appends, checkpoints, connect


async def opened(path):
    async with open_store(f"sqlite:///{path}") as store:
        return await store.runs()


# ---- the file


async def test_folders_are_made_and_the_path_is_what_the_url_says(tmp_path, monkeypatch):
    """DESIGN §8: three slashes and a relative path, four and an absolute one."""
    monkeypatch.chdir(tmp_path)
    async with open_store("sqlite:///deep/er/rel.db"):
        pass
    assert (tmp_path / "deep/er/rel.db").is_file()
    assert await opened(tmp_path / "abs.db") == []
    for url in ("sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:rel.db", "other:///x"):
        with pytest.raises(StoreError):
            open_store(url)


def one_line(error):
    assert "\n" not in str(error)
    assert "store.db" in str(error)
    return str(error)


async def test_a_file_that_is_no_database_is_refused(tmp_path):
    """One line, with the file's name; the file is left as it is."""
    path = tmp_path / "store.db"
    path.write_text("dear diary " * 1000)
    with pytest.raises(StoreBroken) as caught:
        await opened(path)
    one_line(caught.value)
    assert path.read_text() == "dear diary " * 1000


async def test_a_database_of_another_program_is_refused(tmp_path):
    """Nothing is added to what is not ours."""
    path = tmp_path / "store.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE runs (a)")
    db.close()
    with pytest.raises(StoreBroken) as caught:
        await opened(path)
    assert "another program" in one_line(caught.value)


async def test_a_truncated_or_damaged_file_is_named(tmp_path):
    """Corruption is StoreBroken, when it is met: at opening, reading or writing."""
    path = tmp_path / "store.db"
    async with open_store(f"sqlite:///{path}") as store:
        for n in range(50):
            await begin(store, f"r{n}", *(f"a#{k}" for k in range(1, 20)))
    Path(f"{path}-wal").unlink(missing_ok=True)
    whole = path.read_bytes()
    for damaged in (whole[:5000], whole[:4096] + os.urandom(len(whole) - 4096)):
        path.write_bytes(damaged)
        with pytest.raises(StoreBroken) as caught:
            async with open_store(f"sqlite:///{path}") as store:
                await store.runs()
                await store.read("r7")
                await store.append("new", [created()], after=0)
        one_line(caught.value)
        for rest in ("-wal", "-shm"):
            Path(f"{path}{rest}").unlink(missing_ok=True)


async def test_a_folder_that_cannot_be_made_or_opened(tmp_path):
    """Missing rights and wrong kinds of file are StoreError with what to do."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError) as caught:
        await opened(tmp_path / "file" / "store.db")
    one_line(caught.value)
    (tmp_path / "store.db").mkdir()
    with pytest.raises(StoreError) as caught:
        await opened(tmp_path / "store.db")
    one_line(caught.value)


@pytest.fixture
def mounted(tmp_path):
    """A small file system of the test's own, or a skip."""
    folder = tmp_path / "mounted"
    folder.mkdir()

    def mount(*options):
        done = subprocess.run(["mount", *options, str(folder)], capture_output=True, check=False)
        if done.returncode:
            pytest.skip("needs the right to mount")
        return folder

    yield mount
    while subprocess.run(["umount", str(folder)], capture_output=True, check=False).returncode == 0:
        pass


async def test_a_read_only_folder(mounted, tmp_path):
    """An existing store there, or a new one: one line that says so."""
    folder = mounted("-t", "tmpfs", "-o", "size=30m", "tmpfs")
    await opened(folder / "store.db")
    mounted("-o", "remount,ro")
    for name in ("store.db", "other-store.db"):
        with pytest.raises(StoreError) as caught:
            await opened(folder / name)
        one_line(caught.value)


async def test_a_full_disk_fails_the_group_and_the_store_goes_on(mounted):
    """L2, L12: every append of the group gets StoreError, nothing of it is stored; with room it goes on."""
    folder = mounted("-t", "tmpfs", "-o", "size=12m", "tmpfs")
    async with open_store(f"sqlite:///{folder}/store.db") as store:
        last = {run: await begin(store, run) for run in ("r1", "r2")}
        filler = folder / "filler"
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError):
            while True:
                file.write(bytes(4096))
        full = False
        for n in range(1, 2000):
            heads = [await store.head(run) for run in last]
            answers = await asyncio.gather(
                *(
                    store.append(
                        run,
                        [noted(f"{'n' * 50_000}#{n}"), woken(f"{n}")],
                        after=last[run],
                        batch=f"{run}.{n}",
                    )
                    for run in last
                ),
                return_exceptions=True,
            )
            if any(isinstance(a, Exception) for a in answers):
                full = True
                break
            last = {a.run: a.last for a in answers}
        assert full
        assert [type(a) for a in answers] == [StoreError, StoreError]
        assert all("full" in one_line(a) for a in answers)
        assert heads == [await store.head(run) for run in last]
        filler.unlink()
        for run in last:
            answer = await store.append(
                run, [noted(f"n#{n}"), woken(f"{n}")], after=last[run], batch=f"{run}.{n}"
            )
            assert answer.first == last[run] + 1
            await assert_sound(store, run)


# ---- the schema


def applied(path):
    with sqlite3.connect(path) as db:
        rows = db.execute("SELECT number, name, checksum FROM migrations").fetchall()
    db.close()
    return rows


async def test_a_newer_schema_is_left_alone(tmp_path):
    """SchemaUnknown with the remedy; nothing is touched."""
    path = tmp_path / "store.db"
    await opened(path)
    with sqlite3.connect(path) as db:
        db.execute("INSERT INTO migrations VALUES (9999, '9999_later', 'x', 1)")
    db.close()
    with pytest.raises(SchemaUnknown, match="upgrade holdfast") as caught:
        await opened(path)
    one_line(caught.value)


async def test_a_migration_whose_text_changed_is_refused(tmp_path):
    """StoreBroken: nobody can say what the tables look like."""
    path = tmp_path / "store.db"
    await opened(path)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE migrations SET checksum = 'other'")
    db.close()
    with pytest.raises(StoreBroken) as caught:
        await opened(path)
    one_line(caught.value)


def schema(path):
    with sqlite3.connect(path) as db:
        rows = db.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY type, name").fetchall()
    db.close()
    return rows


async def test_migrating_equals_creating(tmp_path, monkeypatch):
    """DESIGN §4: a store that came through every version step by step is the store that is created today."""
    extra = Migration(
        9001, "9001_more", "ALTER TABLE workers ADD COLUMN note TEXT; CREATE INDEX x ON workers (note);"
    )
    every = [*load_migrations("sqlite"), extra]
    for count in range(1, len(every) + 1):
        monkeypatch.setattr(connect, "load_migrations", lambda _, count=count: every[:count])
        connect.close(list(connect.connect(str(tmp_path / "old.db"), 0)))
        assert [row[0] for row in applied(tmp_path / "old.db")] == [m.number for m in every[:count]]
    await opened(tmp_path / "new.db")
    assert schema(tmp_path / "old.db") == schema(tmp_path / "new.db")
    assert applied(tmp_path / "old.db") == applied(tmp_path / "new.db")


async def test_a_migration_that_fails_changes_nothing(tmp_path, monkeypatch):
    """One transaction: the old version still opens the file."""
    path = tmp_path / "store.db"
    await opened(path)
    before = schema(path)
    every = load_migrations("sqlite")
    bad = Migration(9001, "9001_bad", "CREATE TABLE extra (a); CREATE TABLE runs (b);")
    monkeypatch.setattr(connect, "load_migrations", lambda _: [*every, bad])
    with pytest.raises(StoreError):
        await opened(path)
    monkeypatch.undo()
    assert await opened(path) == []
    assert schema(path) == before


OPEN = """
import asyncio, sys
from holdfast.store import open_store
from store_kit import created
async def main():
    print("ready", flush=True)
    sys.stdin.readline()
    async with open_store(sys.argv[1]) as store:
        await store.append(sys.argv[2], [created()], after=0)
        print(len(await store.read(sys.argv[2])))
asyncio.run(main())
"""


@pytest.mark.slow
async def test_eight_processes_open_an_empty_store_at_once(tmp_path):
    """DESIGN §8: connecting to an empty store creates it, also when several processes do so at once."""
    url = f"sqlite:///{tmp_path}/new/store.db"
    children = [child(OPEN, url, f"r{n}") for n in range(8)]
    for process in children:
        assert process.stdout.readline() == "ready\n"
    for process in children:
        process.stdin.write("\n")
        process.stdin.flush()
    assert [finished(process) for process in children] == ["1\n"] * 8
    assert len(await opened(tmp_path / "new/store.db")) == 8


# ---- the commits

GROUP = """
import asyncio, os, sys
from holdfast.store import open_store
from store_kit import begin, noted
async def main():
    async with open_store(sys.argv[1]) as store:
        lasts = [await begin(store, f"r{n}") for n in range(10)]
        os.access("/mark-group", os.R_OK)
        await asyncio.gather(
            *(store.append(f"r{n}", [noted("n#1")], after=last) for n, last in enumerate(lasts))
        )
        os.access("/mark-done", os.R_OK)
asyncio.run(main())
"""


async def test_ten_appends_that_wait_together_are_one_fsync(tmp_path):
    """DESIGN §4: group commit, counted at the system call."""
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    trace = tmp_path / "trace"
    prefix = ["strace", "-f", "-o", str(trace), "-e", "trace=fdatasync,fsync,access,faccessat,faccessat2"]
    process = child(GROUP, f"sqlite:///{tmp_path}/store.db", prefix=prefix)
    process.communicate(timeout=PATIENCE)
    if process.returncode and not trace.exists():
        pytest.skip("needs the right to trace")
    calls = trace.read_text().split("/mark-group")[1].split("/mark-done")[0].splitlines()
    assert len([line for line in calls if "sync(" in line]) == 1


CRASH = """
import asyncio, os, sys
os.environ["HOLDFAST_FAULTS"] = sys.argv[2]
from holdfast.store import open_store
from store_kit import begin, noted
async def main():
    async with open_store(sys.argv[1]) as store:
        last = await begin(store)
        for n in range(1, 10):
            last = (await store.append("r", [noted(f"n#{n}")], after=last, batch=f"B{n}")).last
            print(n, flush=True)
asyncio.run(main())
"""


@pytest.mark.parametrize(("point", "kept"), [("store.commit.before", 3), ("store.commit.after", 4)])
async def test_kill_9_around_a_commit_loses_nothing_that_was_answered(tmp_path, point, kept):
    """L2, L12, L-17: what was answered is there, what was not is there whole or not at all."""
    url = f"sqlite:///{tmp_path}/store.db"
    process = child(CRASH, url, f"{point}=kill@5")
    out, _ = process.communicate(timeout=PATIENCE)
    assert out.splitlines() == ["1", "2", "3"]
    async with open_store(url) as store:
        assert len(await assert_sound(store, "r")) == 2 + kept
        answer = await store.append("r", [noted("n#4")], after=5, batch="B4")
        assert (answer.first, answer.last) == (6, 6)
        assert len(await assert_sound(store, "r")) == 6


async def test_groups_commit_on_the_loop_and_what_would_hold_it_up_in_the_thread(tmp_path, monkeypatch):
    """HOTPATH 3: handing a single commit over would cost a quarter of it."""
    where = []
    async with open_store(f"sqlite:///{tmp_path}/store.db") as store:
        store._pace, pace = 0.0, property(lambda self: 0.0, lambda self, value: None)
        monkeypatch.setattr(type(store), "_pace", pace, raising=False)
        hand_over = store._thread.hand_over
        store._thread.hand_over = lambda *job: (where.append("thread"), hand_over(*job))
        last = await begin(store)
        for n in range(5):
            last = (await store.append("r", [noted(f"n#{n + 1}")], after=last)).last
        assert where == []
        await asyncio.gather(*(store.append("r", [woken(f"{n}")]) for n in range(10)))
        assert where == []
        await store.append("r", [woken(f"many {n}") for n in range(1001)])
        assert where == ["thread"]


async def test_megabytes_of_chunks_leave_the_log_to_a_thread_and_it_stays_bounded(tmp_path, monkeypatch):
    """Commits of megabytes move nothing into the database themselves, unless the thread lags far behind."""
    monkeypatch.setattr(checkpoints, "MOST", 2500)
    moved = {}  # pages of the log, moved by which thread

    class Watched(apsw.Connection):
        def wal_checkpoint(self, *args):
            pages, done = super().wal_checkpoint(*args)
            moved.setdefault(threading.current_thread().name.partition(" ")[0], []).append(done)
            return pages, done

    monkeypatch.setattr(apsw, "Connection", Watched)
    path = tmp_path / "store.db"
    async with open_store(f"sqlite:///{path}") as store:
        await begin(store)
        parts = [Part("bytes", os.urandom(64 * 1024)) for _ in range(16)]
        for _ in range(48):  # 260 pages each
            await store.write_stream("r", "s", parts)
        size = path.with_name("store.db-wal").stat().st_size
        await assert_sound(store, "r")
    assert sum(moved["holdfast-checkpoints"]) > 1000
    # While the thread is at it nobody else can be: what is written meanwhile comes on top.
    assert max(map(max, moved.values())) < 2500 + 3000
    assert size < (2500 + 4000) * 4120
    async with open_store(f"sqlite:///{path}") as store:
        assert (await store.stream("r", "s")).position == 48 * 16


async def test_a_checkpoint_that_fails_fails_no_commit(tmp_path, monkeypatch):
    """The log is as durable as the database; who meets the disk next says what is wrong with it."""
    monkeypatch.setattr(checkpoints, "MOST", 1300)
    failed = []

    class Broken(apsw.Connection):
        def wal_checkpoint(self, *_args):
            failed.append(threading.current_thread().name.partition(" ")[0])
            raise apsw.FullError("no room")

    monkeypatch.setattr(apsw, "Connection", Broken)
    async with open_store(f"sqlite:///{tmp_path}/store.db") as store:
        await begin(store)
        for _ in range(12):
            await store.write_stream("r", "s", [Part("bytes", b"x" * 1_000_000)])
        assert (await store.stream("r", "s")).position == 12
        await assert_sound(store, "r")
    assert set(failed) == {"holdfast-checkpoints", "holdfast-writer"}


async def test_a_lock_held_elsewhere_does_not_hold_up_the_loop(tmp_path):
    """HOTPATH 4: the append waits in the thread, the loop goes on."""
    path = tmp_path / "store.db"
    async with open_store(f"sqlite:///{path}") as store:
        last = await begin(store)
        # Not by sqlite3: two SQLite libraries in one process do not see each other's locks.
        holder = apsw.Connection(str(path))
        holder.execute("BEGIN IMMEDIATE")
        waiting = asyncio.ensure_future(store.append("r", [noted("n#1")], after=last))
        for _ in range(1000):
            await asyncio.sleep(0)
        assert not waiting.done()
        assert len(await store.read("r")) == last
        holder.execute("ROLLBACK")
        holder.close()
        assert (await waiting).first == last + 1


async def test_a_slow_disk_sends_single_commits_to_the_thread(tmp_path):
    """HOTPATH 4: where commits take milliseconds, the loop does not wait for them; later it does again."""
    async with open_store(f"sqlite:///{tmp_path}/store.db") as store:
        handed = []
        hand_over = store._thread.hand_over
        store._thread.hand_over = lambda *job: (handed.append(1), hand_over(*job))
        await begin(store)
        store._pace = 1.0
        await store.append("r", [woken("a")])
        assert handed == [1]
        store._pace = 0.0
        await store.append("r", [woken("b")])
        assert handed == [1]


async def test_what_is_remembered_is_used_and_never_trusted(tmp_path, monkeypatch):
    """HOTPATH 8: appends in sequence read nothing; a change by another handle is noticed in time."""
    url = f"sqlite:///{tmp_path}/store.db"
    async with open_store(url) as store, open_store(url) as other:
        looked = []
        find = store._writer._lookups.find
        monkeypatch.setattr(
            store._writer._lookups,
            "find",
            lambda request, *rest: (looked.append(request.run), find(request, *rest))[1],
        )
        last = await begin(store, "r", "a#1")
        for n in range(1, 6):
            drafts = [completed(f"a#{n}"), scheduled(f"a#{n + 1}"), started(f"a#{n + 1}")]
            last = (await store.append("r", drafts, after=last)).last
        assert looked == []
        await other.append("r", [completed("a#6")])
        assert (await store.append("r", [completed("a#6")])).duplicates == [last + 1]
        assert looked == ["r"]
        await store.append("r", [noted("n#1")], after=last + 1)
        assert looked == ["r"]
        await assert_sound(store, "r")


async def test_more_runs_than_are_remembered(tmp_path, monkeypatch):
    """The memory is bounded; what fell out of it is looked up."""
    monkeypatch.setattr(appends, "REMEMBERED", 3)
    async with open_store(f"sqlite:///{tmp_path}/store.db") as store:
        for n in range(10):
            await begin(store, f"r{n}", "a#1")
        for n in range(10):
            await store.append(f"r{n}", [completed("a#1"), noted("n#1")], after=4)
            await assert_sound(store, f"r{n}")
        assert len(store._writer._known) == 3


async def test_many_open_steps_are_not_read_for_each_fact_from_outside(tmp_path):
    """A run with thousands of open steps: an outside fact looks up its own step only."""
    async with open_store(f"sqlite:///{tmp_path}/store.db") as store:
        keys = [f"a#{n}" for n in range(1, 501)]
        await begin(store, "r", *keys)
    async with open_store(f"sqlite:///{tmp_path}/store.db") as store:
        for key in keys[:20]:
            await store.append("r", [completed(key)])
        assert not store._writer._known
        await store.append("r", [completed(keys[20])], after=1022)
        assert len(store._writer._known["r"].steps) == 479
        await assert_sound(store, "r")


def test_people_can_read_the_log_with_sql(tmp_path):
    """DESIGN §4: payloads are JSON text."""

    async def write():
        async with open_store(f"sqlite:///{tmp_path}/store.db") as store:
            await store.append("r", [created(input={"n": 7}), running()], after=0)

    asyncio.run(write())
    with sqlite3.connect(tmp_path / "store.db") as db:
        query = "SELECT typeof(body), json_extract(body, '$.input.n') FROM events WHERE type = 'run_created'"
        assert db.execute(query).fetchall() == [("text", 7)]
    db.close()


async def statements_of(store, work):
    """How many statements a store's writer executes meanwhile."""
    executed = []
    store._writer.db.exec_trace = lambda *_: executed.append(1) or True
    try:
        await work
    finally:
        store._writer.db.exec_trace = None
    return len(executed)


async def test_what_its_worker_has_read_of_a_run_is_remembered_and_only_where_the_hashes_say_so(tmp_path):
    """L13: after payloads of others a decider's append is judged from memory; after anything odd, by look-ups."""
    url = f"sqlite:///{tmp_path}/store.db"
    async with open_store(url) as store, open_store(url) as other:
        last = (
            await store.append("r", [created(), hook("t#1"), scheduled("a#1"), started("a#1")], after=0)
        ).last
        costs = {}

        async def go_on(what, change):
            """Two things come from outside, are read one after the other, changed, and gone on from."""
            nonlocal last
            for kind in ("first", "second"):
                await other.deliver("t", b"1", f"{what}-{kind}")
                last = (await store.catch_up("r", last))[-1].position
            heard = store._writer._heard
            if "r" in heard:
                heard["r"] = change(heard["r"])
            costs[what] = await statements_of(store, store.append("r", [noted(f"{what}#1")], after=last))
            last += 1

        def forged(new):
            event = msgspec.structs.replace(new[0][0], body=b'{"payload":2}')
            return [(event, new[0][1]), *new[1:]]

        await go_on("plain", lambda new: new)
        await go_on("not all of it", lambda new: [(new[0][0], None)])
        await go_on("not what comes next", lambda new: new[1:])
        await go_on("not what was hashed", forged)
        await go_on("half an append", lambda new: [*new[:-1], (new[-1][0], None)])
        await go_on("plain again", lambda new: new)
        assert costs.pop("plain") == costs.pop("plain again") == 4, "BEGIN, the run's row, the event, COMMIT"
        assert set(costs.values()) == {10}, costs
        await other.append("r", [completed("a#1"), woken("w")])
        assert [event.type for event in await store.catch_up("r", last)] == ["step_completed", "woken"]
        last = (await store.append("r", [noted("n#1"), timer("s#1", due=10)], after=last + 2)).last
        assert await store.open_steps("r") == []
        await other.append("r", [noted("n#2")], after=last)
        await store.catch_up("r", last)
        more = store.append("r", [noted("n#3")], after=last + 1)
        assert await statements_of(store, more) == 10, "a command says that somebody else has decided"
        await assert_sound(store, "r")


async def test_of_what_was_read_and_never_gone_on_from_little_is_kept(tmp_path, monkeypatch):
    """A run that only listens must not fill memory, nor must many."""
    monkeypatch.setattr(appends, "HEARD", (2, 1))
    url = f"sqlite:///{tmp_path}/store.db"
    async with open_store(url) as store, open_store(url) as other:
        for run in "abc":
            await begin(store, run)
            await other.append(run, [woken("1")])
            await store.catch_up(run, 2)
        assert list(store._writer._heard) == ["b", "c"]
        await other.append("c", [woken("2")])
        await store.catch_up("c", 3)
        assert list(store._writer._heard) == ["b"]


# ---- the statements


def test_every_statement_is_named_described_and_used():
    """STYLE: no SQL in Python; a name that nobody uses is dead."""
    folder = Path(connect.__file__).parents[1]
    text = (folder / "sql/sqlite/queries.sql").read_text()
    for block in text.split("-- name:")[1:]:
        assert block.splitlines()[1].startswith("-- "), block
    source = "".join(p.read_text() for p in folder.rglob("*.py"))
    unused = [name for name in load_queries("sqlite") if f'"{name}"' not in source]
    assert unused == []
    with pytest.raises(ValueError, match="twice"):
        parse_queries("-- name: a\nSELECT 1;\n-- name: a\nSELECT 2;")


async def test_listings_use_their_indexes(tmp_path):
    """No page of a listing and no claim reads all runs."""
    async with open_store(f"sqlite:///{tmp_path}/store.db") as store:
        queries = load_queries("sqlite")
        names = re.findall(r":(\w+)", "".join(queries.values()))
        values = dict.fromkeys(names, 1)
        for name in queries:
            if name.startswith("list_"):
                plan = store._reader.execute("EXPLAIN QUERY PLAN " + queries[name], values).fetchall()
                steps = [row[3] for row in plan if "VIRTUAL TABLE" not in row[3]]
                assert not [s for s in steps if s.startswith("SCAN") and "INDEX" not in s], (name, steps)
        claim = store._reader.execute("EXPLAIN QUERY PLAN " + queries["claim"], ("w", "[]", 1)).fetchall()
        assert any("runs_free" in row[3] for row in claim)
