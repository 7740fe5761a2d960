"""Streams as authors and applications use them: written in steps, followed while they grow (`streams.py`)."""

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent / folder) for folder in ("kit", "worker")]

from patience import PATIENCE
from worker_kit import Gate, log_of, logged

import holdfast as hf
from holdfast import faults, streams
from holdfast.client import App
from holdfast.errors import StepEnded
from holdfast.events import new
from holdfast.store.memory import Data, MemoryStore
from holdfast.store.streams import Author
from holdfast.testing import run_workflow
from holdfast.testing.check import checking

gates: dict[str, Gate] = {}
seen: list[object] = []


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    gates.clear()
    seen.clear()
    yield "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/app.db"
    Gate.open_all()


@pytest.fixture(autouse=True)
def no_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read here is read because of news: the slow look would come too late for every time-out."""
    monkeypatch.setattr(streams, "_LOOK_AGAIN", 3600)


@contextlib.asynccontextmanager
async def working(url: str, **options: object) -> AsyncIterator[App]:
    async with asyncio.timeout(PATIENCE), hf.connect(url) as app, app.worker(**options):
        yield app


async def taken(chunks: AsyncIterator[hf.Chunk], count: int) -> list[object]:
    """The next `count` chunks of a stream that goes on."""
    return [(await anext(chunks)).data for _ in range(count)]


# ---- a step writes, others read


@hf.step(name="streams.tell")
async def tell() -> str:
    async with hf.stream("words") as out:
        await out.write("one")
        await gates["read"].wait()
        await out.write(b"\x02")
        await out.write({"three": [3, None]})
    return "told"


@hf.workflow(name="streams.telling")
async def telling() -> str:
    return await tell()


async def test_a_chunk_is_readable_before_the_outcome_of_its_step(url: str) -> None:
    """The step waits until its first chunk was read; the reader ends with the end mark."""
    gates["read"] = Gate()
    async with working(url) as app:
        run = await app.start(telling)
        chunks = aiter(run.stream("words"))
        assert (await anext(chunks)).data == "one"
        assert not [event for event in await log_of(app, run.id) if event.type == "step_completed"]
        gates["read"].open.set()
        rest = [chunk async for chunk in chunks]
        assert [(c.position, c.data, c.step, c.attempt) for c in rest] == [
            (2, b"\x02", "streams.tell#1", 1),
            (3, {"three": [3, None]}, "streams.tell#1", 1),
        ]
        assert await run.result() == "told"
        assert await run.streams() == ["words"]
        assert [event.type for event in await log_of(app, run.id) if "stream" in event.type] == []


async def test_a_reader_that_was_cut_off_goes_on_where_it_was(url: str) -> None:
    """Resume from a position: nothing is lost, nothing comes twice; also behind the end, and long after it."""
    gates["read"] = Gate()
    async with working(url) as app:
        run = await app.start(telling)
        chunks = aiter(run.stream("words"))
        first = await anext(chunks)
        await chunks.aclose()  # type: ignore[attr-defined]
        gates["read"].open.set()
        assert [c.position async for c in run.stream("words", after=first.position)] == [2, 3]
        await run.result()
        assert [[c.position async for c in run.stream("words", after=n)] for n in range(6)] == [
            [1, 2, 3],
            [2, 3],
            [3],
            [],
            [],
            [],
        ]


@hf.step(name="streams.source")
async def source(out: hf.Stream) -> None:
    async with out:
        for n in range(16):
            await out.write(bytes([n]) * 65536)


@hf.step(name="streams.add_one")
async def add_one(given: hf.Stream, out: hf.Stream) -> int:
    async with out:
        async for chunk in given:
            await out.write(bytes([chunk.data[0] + 1]) * len(chunk.data), key=str(chunk.position))
    return chunk.position


@hf.workflow(name="streams.pipeline")
async def pipeline() -> hf.Stream:
    stages = [hf.stream(f"stage-{n}") for n in range(6)]
    await asyncio.gather(source(stages[0]), *(add_one(a, b) for a, b in pairwise(stages)))
    return stages[-1]


async def test_five_transforms_of_a_megabyte_pass_their_streams_on(url: str) -> None:
    """Handles are values: passed to steps, returned from the workflow, equal on replay."""
    async with working(url) as app, checking(app):
        run = await app.start(pipeline)
        whole = await run.stream("stage-5").bytes()
        assert whole == b"".join(bytes([n + 5]) * 65536 for n in range(16))
        assert await run.result() == hf.Stream("stage-5", run.id)


@hf.step(name="streams.plain")
def plain(lines: int) -> int:
    with hf.stream("lines") as out:
        for n in range(lines):
            out.write_sync(f"line {n}\n")
            out.flush_sync()
    return sum(len(chunk.data) for chunk in hf.stream("lines"))


@hf.workflow(name="streams.from_a_thread")
async def from_a_thread() -> int:
    return await plain(3)


async def test_a_sync_step_writes_and_reads_from_its_thread(url: str) -> None:
    async with working(url) as app:
        run = await app.start(from_a_thread)
        assert await run.stream("lines").text() == "line 0\nline 1\nline 2\n"
        assert await run.result() == 21
        with pytest.raises(hf.PayloadError, match="expected bytes, chunk 1 is text"):
            await run.stream("lines").bytes()


# ---- attempts


@hf.step(name="streams.shaky", retries=2, backoff=0)
async def shaky(keyed: bool) -> None:
    attempt = hf.step_info().attempt
    out = hf.stream("out")
    for n in range(4):
        await out.write(f"{n} of {attempt}", key=f"n{n}" if keyed else None)
        if n == attempt:
            await out.end()
            raise ConnectionError("the model went away")
    await out.end()


@hf.workflow(name="streams.retried")
async def retried(keyed: bool) -> None:
    await shaky(keyed)


async def test_chunks_of_a_retried_step_say_which_attempt(url: str) -> None:
    """All, or the latest attempt only; what was written before the failure is there; so are its end marks."""
    async with working(url) as app:
        run = await app.start(retried, False)
        with pytest.raises(hf.RunFailed):
            await run.result()
        every = [(c.data, c.attempt) async for c in run.stream("out")]
        assert every == [
            *(("0 of 1", 1), ("1 of 1", 1)),
            *(("0 of 2", 2), ("1 of 2", 2), ("2 of 2", 2)),
            *(("0 of 3", 3), ("1 of 3", 3), ("2 of 3", 3), ("3 of 3", 3)),
        ]
        latest = [c.data async for c in run.stream("out", latest=True)]
        assert latest == ["0 of 3", "1 of 3", "2 of 3", "3 of 3"]


async def test_a_retried_step_that_names_its_chunks_writes_each_once(url: str) -> None:
    """Exactly once by key: the first stands; `latest` leaves none of them out."""
    async with working(url) as app:
        run = await app.start(retried, True)
        with pytest.raises(hf.RunFailed):
            await run.result()
        for latest in (False, True):
            chunks = [(c.data, c.key) async for c in run.stream("out", latest=latest)]
            assert chunks == [("0 of 1", "n0"), ("1 of 1", "n1"), ("2 of 2", "n2"), ("3 of 3", "n3")]


ghost_may_write, ghost_is_done = threading.Event(), threading.Event()


@hf.step(name="streams.stuck", retries=1, backoff=0, timeout=1)
def stuck() -> str:
    out = hf.stream("out")
    if hf.step_info().attempt == 2:
        out.write_sync("second")
        out.flush_sync()
        ghost_may_write.set()
        ghost_is_done.wait(PATIENCE)
        return "done"
    ghost_may_write.wait(PATIENCE)
    try:
        out.write_sync("ghost")
        out.flush_sync()
    except StepEnded as error:
        seen.append(str(error))
    ghost_is_done.set()
    return "late"


@hf.workflow(name="streams.haunted")
async def haunted() -> str:
    return await stuck()


async def test_an_attempt_that_was_given_up_cannot_write(url: str) -> None:
    """A thread cannot be stopped by its time-out; what it writes then is refused, and it is told."""
    ghost_may_write.clear()
    ghost_is_done.clear()
    async with working(url) as app:
        run = await app.start(haunted)
        assert await run.result() == "done"
        assert [c.data async for c in run.stream("out")] == ["second"]
    assert len(seen) == 1
    assert "attempt 1 of streams.stuck#1 is over" in str(seen[0])


# ---- child runs


@hf.step(name="streams.report")
async def report(to: hf.Stream, who: str) -> None:
    await to.write(who, key=who)


@hf.workflow(name="streams.helper")
async def helper(to: hf.Stream, who: str) -> None:
    await report(to, who)
    await to.write(f"{who} is done")


@hf.workflow(name="streams.family")
async def family() -> None:
    out = hf.stream("report")
    await helper(out, "ana")
    await helper(out, "ben")
    await out.write("all")
    await out.end()


async def test_child_runs_write_to_a_stream_of_their_parent(url: str) -> None:
    """The handle says whose it is; chunks name the run of their step; keys of two runs do not meet."""
    async with working(url) as app, checking(app):
        run = await app.start(family)
        chunks = [(c.data, c.step.rpartition("/")[2], "/" in c.step) async for c in run.stream("report")]
        assert chunks == [
            ("ana", "streams.report#1", True),
            ("ana is done", "stream.write#1", True),
            ("ben", "streams.report#1", True),
            ("ben is done", "stream.write#1", True),
            ("all", "stream.write#1", False),
        ]
        await run.result()


# ---- workflow code


@hf.workflow(name="streams.progress")
async def progress(parts: int) -> int:
    out = hf.stream("progress")
    async with out:
        for n in range(parts):
            await out.write({"done": n, "of": parts})
            await asyncio.sleep(0)
        await out.write("own", key="mine")
        await out.write("again", key="mine")
    return parts


async def test_workflow_code_writes_each_chunk_once_however_often_it_is_replayed(url: str) -> None:
    """L6, L7: each write is a command that the log holds; replays ask for it again and do nothing."""
    async with working(url, keep=0) as app, checking(app):
        run = await app.start(progress, 3)
        assert await run.result() == 3
        chunks = [(c.data, c.key) async for c in run.stream("progress")]
        assert chunks == [({"done": n, "of": 3}, f"stream.write#{n + 1}") for n in range(3)] + [
            ("own", "mine")
        ]


async def test_a_write_of_workflow_code_whose_worker_dies_behind_it_is_not_doubled(url: str) -> None:
    """The second attempt of the write finds the chunk of the first by its key."""
    async with working(url) as app:
        run = await app.start(progress, 1)
        await run.result()
        write = await log_of(app, run.id)
        key = next(event.key for event in write if event.type == "step_scheduled")
        answer = await app.store.write_stream(
            run.id, "progress", [streams.part_of("x", key, 100, "")], author=Author(run.id, key, 2)
        )
        assert answer.duplicates == [1]


@hf.workflow(name="streams.peeping")
async def peeping() -> list[str]:
    return [chunk.data async for chunk in hf.stream("out")]


async def test_workflow_code_cannot_read_a_stream(url: str) -> None:
    """What has come until now is no function of the log."""
    async with working(url) as app:
        with pytest.raises(hf.RunFailed, match=r"NotDeterministic: stream 'out' .* read it in a step"):
            await (await app.start(peeping)).result()


def test_a_rehearsal_needs_no_answer_for_writes_to_streams() -> None:
    run = run_workflow(progress, 2)
    assert run.result() == 2
    assert [c["chunk"] for c in run.calls("stream.write")][:2] == [{"done": 0, "of": 2}, {"done": 1, "of": 2}]


# ---- ends, limits, wrong use


@hf.step(name="streams.endless")
async def endless() -> None:
    await hf.stream("out").write("one")
    await gates["go"].wait()
    await hf.stream("out").write("two")


@hf.workflow(name="streams.unended")
async def unended() -> None:
    await endless()


async def test_a_reader_ends_with_the_run_where_nobody_set_an_end_mark(url: str) -> None:
    """Also one that waits for a stream that never began; and one of a run that nobody knows is told."""
    gates["go"] = Gate()
    async with working(url) as app:
        run = await app.start(unended)
        never = asyncio.create_task(anext(aiter(run.stream("other")), None))
        chunks = aiter(run.stream("out"))
        assert await taken(chunks, 1) == ["one"]
        gates["go"].open.set()
        assert [chunk.data async for chunk in chunks] == ["two"]
        assert await never is None
        with pytest.raises(hf.RunNotFound):
            await anext(aiter(app.run("nobody").stream("out")))


async def test_a_run_that_is_terminated_takes_no_more_chunks(url: str) -> None:
    """Its readers end; the body that still runs is interrupted, and could not write any more."""
    gates["go"] = Gate()
    async with working(url) as app:
        run = await app.start(unended)
        chunks = aiter(run.stream("out"))
        await taken(chunks, 1)
        await run.terminate("enough")
        assert [chunk.data async for chunk in chunks] == []
        with pytest.raises(hf.RunEnded):
            author = Author(run.id, "streams.endless#1", 1)
            await app.store.write_stream(run.id, "out", [streams.END], author=author)


@hf.step(name="streams.careless", retries=5, backoff=0)
async def careless(what: str) -> None:
    seen.append(hf.step_info().attempt)
    out = hf.stream("out")
    if what == "chunk":
        await out.write("x" * 1001)
    elif what == "stream":
        for _ in range(3):
            await out.write("x" * 1000)
    elif what == "value":
        await out.write(threading.Lock())
    elif what == "deep":
        value: object = 1
        for _ in range(101):
            value = [value]
        await out.write(value)
    elif what == "name":
        hf.stream("two\nlines")
    elif what == "after the end":
        await out.end()
        await out.write("more")


@hf.workflow(name="streams.refused")
async def refused(what: str) -> None:
    await careless(what)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("chunk", r"PayloadError: a chunk of stream 'out' is 1,001 bytes, over the limit of 1,000"),
        ("stream", r"PayloadError: stream 'out' of run .* would have 3,000 bytes, .* raise stream_limit"),
        ("value", r"PayloadError: a chunk of stream 'out': cannot be stored: .*lock. is not a plain type"),
        (
            "deep",
            r"PayloadError: a chunk of stream 'out' is nested too deeply: expected JSON of at most 100 ",
        ),
        ("name", r"PayloadError: stream name: expected 1–255 printable characters, got 'two\\nlines'"),
        ("after the end", r"StreamEnded: stream 'out' of run .* was ended by streams.careless#1"),
    ],
)
async def test_what_cannot_be_written_fails_its_step_at_once_and_says_why(
    url: str, what: str, message: str
) -> None:
    """Also where the body did not wait for it: a step's outcome says that its chunks are stored."""
    async with working(url, payload_limit=1000, stream_limit=2500) as app:
        with pytest.raises(hf.RunFailed, match=message):
            await (await app.start(refused, what)).result()
    assert seen == [1]


@pytest.mark.parametrize("data", ["[" * 300, b"{" * 300])
def test_only_json_has_levels(data: str | bytes) -> None:
    assert streams.part_of(data, None, 1000, "w").body == (data.encode() if isinstance(data, str) else data)


async def test_a_handle_has_no_use_outside_of_runs() -> None:
    """It says where to read instead."""
    with pytest.raises(hf.DefinitionError, match="in workflow code and in steps only"):
        hf.stream("out")
    handle = hf.Stream("out", "order-1")
    with pytest.raises(hf.DefinitionError, match=r"app.run\('order-1'\).stream\('out'\)"):
        await handle.write("x")
    with pytest.raises(hf.DefinitionError):
        aiter(handle)


# ---- the writer


class SlowStore(MemoryStore):
    """A store whose writes to streams wait until they are let through."""

    def __init__(self) -> None:
        super().__init__("memory://", None, Data())
        self.through = asyncio.Semaphore(0)
        self.writes: list[int] = []

    async def write_stream(self, run_id, name, parts, **options):  # type: ignore[no-untyped-def]
        self.writes.append(len(parts))
        await self.through.acquire()
        return await super().write_stream(run_id, name, parts, **options)


@pytest.fixture
async def slow() -> AsyncIterator[SlowStore]:
    async with SlowStore() as store:
        await store.append("r", [created()], after=0)
        yield store


def created():  # type: ignore[no-untyped-def]
    return new("run_created", data={"workflow": "w", "args": {}})


async def test_a_writer_waits_while_too_much_is_not_acknowledged(slow: SlowStore) -> None:
    """Back-pressure by bytes; one chunk larger than the bound goes through alone."""
    writer = streams.Writer(streams.Streams(slow, buffer=100), "r", "s", None)
    await writer.write("x" * 60, None)
    second = asyncio.create_task(writer.write("y" * 60, None))
    await turns()
    assert not second.done()
    slow.through.release()
    await second
    third = asyncio.create_task(writer.write("z" * 500, None))
    await turns()
    assert not third.done()
    slow.through.release()
    await third
    slow.through.release()
    await writer.flush()
    assert [len(c.body) for c in await slow.read_stream("r", "s")] == [60, 60, 500]


async def test_what_comes_while_a_write_is_under_way_is_the_next_write(slow: SlowStore) -> None:
    """Group commit: two writes to the store for fifty chunks, one chunk waits for nothing."""
    writer = streams.Writer(streams.Streams(slow), "r", "s", None)
    await writer.write("0", None)
    await turns()
    for n in range(1, 50):
        await writer.write(str(n), None)
    slow.through.release()
    slow.through.release()
    await writer.flush()
    assert slow.writes == [1, 49]
    assert [c.data for c in await slow.read_stream("r", "s")] == [str(n) for n in range(50)]


async def test_what_is_written_in_one_go_is_one_write(
    slow: SlowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A megabyte and its end mark; but who takes his time between chunks holds up nobody."""
    monkeypatch.setattr(streams, "_HOLD", 3600.0)
    for _ in range(4):
        slow.through.release()
    quick = streams.Writer(streams.Streams(slow), "r", "quick", None)
    for _ in range(16):
        await quick.write(b"x" * 65_536, None)
    await quick.end()
    assert slow.writes == [17]
    monkeypatch.setattr(streams, "_HOLD", 0.0)
    thoughtful = streams.Writer(streams.Streams(slow), "r", "thoughtful", None)
    for n in range(3):
        while thoughtful._loop.time() == thoughtful._began:
            pass  # the clock has moved on
        await thoughtful.write(str(n), None)
    await thoughtful.flush()
    assert slow.writes[1] < 3
    assert [c.data for c in await slow.read_stream("r", "thoughtful")] == ["0", "1", "2"]


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@hf.step(name="streams.count")
async def count(to: int) -> None:
    async with hf.stream("numbers") as out:
        for n in range(to):
            await out.write(n)
            if n % 10 == 0:
                await out.flush()


@hf.workflow(name="streams.counting")
async def counting(to: int) -> None:
    await count(to)


async def test_a_write_whose_answer_is_lost_is_not_doubled(url: str) -> None:
    """L12: the store commits and fails; the same write is sent again and found there."""
    async with working(url) as app:
        run = await app.start(counting, 100)
        chunks = aiter(run.stream("numbers"))
        assert await taken(chunks, 1) == [0]
        failures = iter([True, False, False, True])
        faults.arm("store.commit.after", lambda: faults.fail() if next(failures, False) else None)
        try:
            assert [chunk.data async for chunk in chunks] == list(range(1, 100))
            await run.result()
        finally:
            faults.disarm()


class ShakyStore(MemoryStore):
    """A store that does not answer every other look at streams."""

    looks = 0

    async def read_stream(self, *query, **more):  # type: ignore[no-untyped-def]
        self.looks += 1
        if self.looks % 2:
            raise hf.StoreError("the connection was lost")
        return await super().read_stream(*query, **more)


async def test_a_reader_asks_again_where_the_store_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is lost and nothing comes twice; a store that stays away is an error in the end."""
    monkeypatch.setattr(streams, "_RETRY_FIRST", 0.001)
    async with ShakyStore("memory://", None, Data()) as store:
        await store.append("r", [created()], after=0)
        for n in range(3):
            await store.write_stream("r", "s", [streams.part_of(n, None, 100, "")] * 1000)
        await store.write_stream("r", "s", [streams.END])
        positions = [chunk.position async for chunk in streams.Streams(store).read("r", "s")]
        assert positions == list(range(1, 3001))
        assert store.looks > 6
        monkeypatch.setattr(streams, "_GIVE_UP", 0)
        with pytest.raises(hf.StoreError, match="the connection was lost"):
            await anext(streams.Streams(store).read("r", "s"))


class EndingStore(MemoryStore):
    """A store whose run gets a last chunk and ends while somebody asks whether it has."""

    asked = False

    async def head(self, run_id):  # type: ignore[no-untyped-def]
        if not self.asked:
            self.asked = True
            await self.write_stream("r", "s", [streams.part_of("last", None, 100, "")])
            await self.append("r", [new("run_cancelled", data={"reason": "", "by": "terminate"})])
        return await super().head(run_id)


async def test_what_comes_right_before_the_end_of_the_run_is_read() -> None:
    """The end is seen after a look that found nothing: one more look follows."""
    async with EndingStore("memory://", None, Data()) as store:
        await store.append("r", [created()], after=0)
        assert [chunk.data async for chunk in streams.Streams(store).read("r", "s")] == ["last"]


async def test_a_slow_reader_harms_nobody(url: str) -> None:
    """One reader stands at its first chunk while the run ends and others read it all; then it reads on."""
    async with working(url) as app:
        run = await app.start(counting, 500)
        slow_one = aiter(run.stream("numbers"))
        assert await taken(slow_one, 1) == [0]
        others = [asyncio.create_task(taken(aiter(run.stream("numbers")), 500)) for _ in range(20)]
        await run.result()
        assert [await other for other in others] == [list(range(500))] * 20
        assert [chunk.data async for chunk in slow_one] == list(range(1, 500))


# ---- several processes


@hf.step(name="streams.dictate", retries=3)
async def dictate(keyed: bool) -> None:
    async with hf.stream("book") as out:
        for n in range(40):
            await out.write(f"line {n}", key=f"line-{n}" if keyed else None)
            await out.flush()


@hf.workflow(name="streams.book")
async def book(keyed: bool) -> None:
    await dictate(keyed)


async def serve(url: str) -> None:
    async with hf.connect(url) as app, app.worker():
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def follow(url: str, run_id: str) -> None:
    async with hf.connect(url) as app:
        async for chunk in app.run(run_id).stream("book"):
            print(chunk.position, chunk.data, flush=True)


@contextlib.contextmanager
def process(*arguments: str, faults: str = ""):  # type: ignore[no-untyped-def]
    child = subprocess.Popen(
        [sys.executable, __file__, *arguments],
        env={**os.environ, "HOLDFAST_FAULTS": faults},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


@pytest.mark.parametrize("keyed", [False, True])
async def test_a_writer_is_killed_in_the_middle_and_its_reader_goes_on(tmp_path: Path, keyed: bool) -> None:
    """kill -9 behind a commit; another process takes over; the reader, in a third one, loses nothing.

    With keys each line is there once. Without, the attempt says which lines are the dead one's.
    """
    url = f"sqlite:///{tmp_path}/app.db"
    async with asyncio.timeout(PATIENCE), hf.connect(url) as app:
        run = await app.start(book, keyed)
        chunks = aiter(run.stream("book"))
        with process("serve", url, faults="store.commit.after=kill@12") as first:
            read = [await anext(chunks)]
            assert await asyncio.to_thread(first.wait, PATIENCE) == -9
        with process("serve", url):
            read += [chunk async for chunk in chunks]
            await run.result(PATIENCE)
    lines = [f"line {n}" for n in range(40)]
    assert [chunk.position for chunk in read] == list(range(1, len(read) + 1))
    own = {attempt: [c.data for c in read if c.attempt == attempt] for attempt in (1, 2)}
    assert 0 < len(own[1]) < 40
    assert own[1] == lines[: len(own[1])]
    assert own[2] == (lines[len(own[1]) :] if keyed else lines)


async def test_a_reader_is_killed_in_the_middle_and_another_goes_on(tmp_path: Path) -> None:
    """What the first has printed and what the second reads from there is the whole."""
    url = f"sqlite:///{tmp_path}/app.db"
    async with working(url) as app:
        run = await app.start(book, True)
        with process("follow", url, run.id) as reader:
            printed = [await asyncio.to_thread(reader.stdout.readline) for _ in range(5)]
            reader.kill()
        last = int(printed[-1].split()[0])
        rest = [f"{c.position} {c.data}\n" async for c in run.stream("book", after=last)]
        assert printed + rest == [f"{n + 1} line {n}\n" for n in range(40)]


async def test_a_run_is_recovered_while_its_reader_waits(tmp_path: Path) -> None:
    """The reader hears of the end of a run that another process ends."""
    gates["go"] = Gate()
    url = f"sqlite:///{tmp_path}/app.db"
    async with asyncio.timeout(PATIENCE), hf.connect(url) as reading, hf.connect(url) as app, app.worker():
        run = await app.start(unended)
        chunks = aiter(reading.run(run.id).stream("out"))
        assert await taken(chunks, 1) == ["one"]
        waiting = asyncio.create_task(anext(chunks, None))
        gates["go"].open.set()
        await logged(app, run.id, "run_completed")
        last = await waiting
        assert last is not None
        assert last.data == "two"
        assert await anext(chunks, None) is None


if __name__ == "__main__":
    asyncio.run({"serve": serve, "follow": follow}[sys.argv[1]](*sys.argv[2:]))
