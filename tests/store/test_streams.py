"""Streams: dense, durable before readable, once by key, and no ghosts (`store/streams.py`)."""

import asyncio

import pytest
from patience import PATIENCE
from store_kit import (
    SECOND,
    begin,
    child,
    completed,
    ended,
    finished,
    noted,
    retried,
    started,
)

from holdfast import faults
from holdfast.chunks import END, Part
from holdfast.errors import PayloadError, RunEnded, RunNotFound, StepEnded, StoreError, StreamEnded
from holdfast.store.streams import PAGE_BYTES, Author, extend_chain

ONE = Author("r", "a#1", 1)
TWO = Author("r", "a#1", 2)


def text(*words, key=None):
    return [Part("text", word.encode(), key and f"{key}-{n}") for n, word in enumerate(words)]


async def words(store, run="r", name="s", after=0):
    found = []
    while page := await store.read_stream(run, name, after):
        found += [chunk.data if chunk.kind != "end" else "END" for chunk in page]
        after = page[-1].position
    return found


async def assert_sound_stream(store, run="r", name="s"):
    """Positions are dense, and the row says what the chunks say."""
    chunks = await store.at_rest.read_stream(run, name, 0, 10_000)
    head = await store.stream(run, name)
    assert [chunk.position for chunk in chunks] == list(range(1, len(chunks) + 1))
    assert (head.position, head.size) == (len(chunks), sum(len(chunk.body) for chunk in chunks))
    assert head.chain == extend_chain(b"", chunks)
    assert head.ended == (len(chunks) if chunks[-1].kind == "end" else 0)
    return await store.read_stream(run, name, 0, 10_000)


def skip_where_sealed(store):
    """Sizes are those at rest, and a sealed chunk is a few bytes larger."""
    if store.at_rest is not store:
        pytest.skip("sealed chunks are larger")


async def test_chunks_have_dense_positions_and_come_back_as_they_were(place, store, clock):
    """Bytes, text and JSON, with author, attempt, key and time; another handle reads the same."""
    await begin(store, "r", "a#1")
    parts = [
        Part("text", 'say "ü"'.encode()),
        Part("bytes", b"\0\xff", "k'1"),
        Part("json", b'{"n":[1,null]}'),
    ]
    answer = await store.write_stream("r", "na\"me's", parts, author=ONE)
    assert (answer.first, answer.last, answer.duplicates) == (1, 3, [])
    at = clock.advance(2)
    answer = await store.write_stream("r", "na\"me's", [END], author=ONE)
    assert (answer.first, answer.last) == (4, 4)

    other = await place.open()
    chunks = await other.read_stream("r", "na\"me's")
    assert [(c.position, c.kind, c.data) for c in chunks] == [
        (1, "text", 'say "ü"'),
        (2, "bytes", b"\0\xff"),
        (3, "json", {"n": [1, None]}),
        (4, "end", None),
    ]
    assert [(c.step, c.attempt, c.key) for c in chunks[:2]] == [("a#1", 1, None), ("a#1", 1, "k'1")]
    assert [c.time for c in chunks] == [at - 2 * SECOND] * 3 + [at]
    assert await other.read_stream("r", "na\"me's", 2, 1) == chunks[2:3]
    await assert_sound_stream(other, "r", "na\"me's")


async def test_streams_are_apart_and_take_no_position_of_the_log(store):
    """Two streams of one run, one name in two runs; the logs stay as they were."""
    for run in ("r", "q"):
        await begin(store, run)
    for run, name, word in (("r", "s", "one"), ("r", "t", "two"), ("q", "s", "three")):
        await store.write_stream(run, name, text(word))
    assert [await words(store, run, name) for run, name in (("r", "s"), ("r", "t"), ("q", "s"))] == [
        ["one"],
        ["two"],
        ["three"],
    ]
    assert [(head.run, head.name, head.position) for head in await store.streams("r")] == [
        ("r", "s", 1),
        ("r", "t", 1),
    ]
    assert (await store.head("r")).position == 2
    assert await store.stream("r", "none") is None
    assert await store.read_stream("nobody", "s") == []
    assert await store.streams("nobody") == []


async def test_a_key_is_taken_once_and_the_first_one_stands(store):
    """Exactly once: also within one write, mixed with new ones, after the end mark and after the run's end."""
    last = await begin(store)
    await store.write_stream("r", "s", [Part("text", b"one", "k1"), Part("text", b"free")])
    mixed = [Part("text", b"other", "k1"), Part("text", b"two", "k2"), Part("text", b"again", "k2")]
    answer = await store.write_stream("r", "s", mixed)
    assert (answer.first, answer.last, answer.duplicates) == (3, 3, [1, 3])
    await store.write_stream("r", "s", [END])
    await store.append("r", [ended()], after=last)
    answer = await store.write_stream("r", "s", [mixed[0], END])
    assert (answer.first, answer.last, answer.duplicates) == (0, 0, [1, 4])
    assert await words(store) == ["one", "free", "two", "END"]


async def test_a_write_that_is_sent_again_is_there_once(place, store):
    """L12: the same batch gives the same answer, however far the stream has grown since."""
    await begin(store)
    parts = [Part("text", b"one"), Part("text", b"two", "k")]
    first = await store.write_stream("r", "s", parts, batch="b1")
    await store.write_stream("r", "s", text("three"))
    other = await place.open()
    assert await other.write_stream("r", "s", parts, batch="b1") == first
    assert await words(store) == ["one", "two", "three"]


async def test_an_answer_that_is_lost_after_the_commit_is_found_again(store):
    """L12: the caller cannot know, so it sends the same batch again."""
    await begin(store)
    faults.arm("store.commit.after", faults.fail)
    with pytest.raises(StoreError):
        await store.write_stream("r", "s", text("one"), batch="b1")
    faults.disarm()
    answer = await store.write_stream("r", "s", text("one"), batch="b1")
    assert (answer.first, answer.last) == (1, 1)
    assert await words(store) == ["one"]


async def test_what_is_not_committed_is_not_readable(store):
    """A chunk is durable before it is readable: a commit that fails leaves nothing, no stream either."""
    await begin(store)
    faults.arm("store.commit.before", faults.fail)
    with pytest.raises(StoreError):
        await store.write_stream("r", "s", text("one"))
    faults.disarm()
    if store.url.startswith("sqlite"):
        assert await words(store) == []
        assert await store.stream("r", "s") is None


async def test_after_the_end_mark_nothing_comes(store):
    """StreamEnded; ending again is already there."""
    await begin(store)
    await store.write_stream("r", "s", [*text("one"), END])
    with pytest.raises(StreamEnded, match="'s' of run 'r' was ended"):
        await store.write_stream("r", "s", text("two"))
    assert (await store.write_stream("r", "s", [END])).duplicates == [2]
    with pytest.raises(StreamEnded):
        await store.write_stream("r", "t", [END, *text("two")])
    await assert_sound_stream(store)


async def test_a_run_that_has_ended_or_never_was_takes_no_chunks(store):
    """RunEnded and RunNotFound, and nothing is stored."""
    last = await begin(store)
    await store.write_stream("r", "s", text("one"))
    await store.append("r", [ended()], after=last)
    with pytest.raises(RunEnded):
        await store.write_stream("r", "s", text("two"))
    with pytest.raises(RunNotFound):
        await store.write_stream("nobody", "s", text("two"))
    assert await words(store) == ["one"]


async def test_an_attempt_that_is_over_cannot_write(store):
    """No ghosts: between attempts, behind a later attempt, and after the step's outcome."""
    await begin(store, "r", "a#1")
    await store.write_stream("r", "s", text("first"), author=ONE)
    with pytest.raises(StepEnded):
        await store.write_stream("r", "s", text("early"), author=TWO)
    await store.append("r", [retried("a#1", due=0)])
    with pytest.raises(StepEnded, match=r"attempt 1 of a#1 is over"):
        await store.write_stream("r", "s", text("ghost"), author=ONE)
    await store.append("r", [started("a#1", 2)])
    with pytest.raises(StepEnded):
        await store.write_stream("r", "s", text("ghost"), author=ONE)
    await store.write_stream("r", "s", text("second"), author=TWO)
    await store.append("r", [completed("a#1", 2)])
    with pytest.raises(StepEnded):
        await store.write_stream("r", "s", text("late"), author=TWO)
    assert await words(store) == ["first", "second"]


async def test_readers_can_tell_what_a_later_attempt_has_superseded(store):
    """The row knows the latest attempt of each step that was tried again; a chunk with a key is every one's."""
    await begin(store, "r", "a#1", "b#1")
    await store.write_stream("r", "s", [*text("first"), *text("kept", key="k")], author=ONE)
    await store.write_stream("r", "s", text("b"), author=Author("r", "b#1", 1))
    assert (await store.stream("r", "s")).attempts == {}
    await store.append("r", [started("a#1", 2)])
    await store.write_stream("r", "s", text("second"), author=TWO)
    head = await store.stream("r", "s")
    assert head.attempts == {"a#1": 2}
    chunks = await store.read_stream("r", "s")
    assert [c.data for c in chunks if not head.superseded(c)] == ["kept", "b", "second"]


async def test_the_end_mark_of_an_attempt_that_died_does_not_bind_the_next(store):
    """A step that ends its stream and dies before its outcome can be tried again; others stay out."""
    await begin(store, "r", "a#1", "b#1")
    await store.write_stream("r", "s", [*text("half"), END], author=ONE)
    with pytest.raises(StreamEnded):
        await store.write_stream("r", "s", text("more"), author=ONE)
    with pytest.raises(StreamEnded):
        await store.write_stream("r", "s", text("b"), author=Author("r", "b#1", 1))
    await store.append("r", [started("a#1", 2)])
    await store.write_stream("r", "s", text("whole"), author=TWO)
    assert (await store.stream("r", "s")).ended == 0
    await store.write_stream("r", "s", [END], author=TWO)
    assert await words(store) == ["half", "END", "whole", "END"]
    await assert_sound_stream(store)


async def test_a_step_may_write_to_a_stream_of_another_run(store):
    """Then its own run's log says whether it still may, and chunks name that run."""
    await begin(store, "r")
    last = await begin(store, "child", "a#1")
    author = Author("child", "a#1", 1)
    await store.write_stream("r", "s", text("one"), author=author)
    assert (await store.read_stream("r", "s"))[0].step == "child/a#1"
    await store.append("child", [ended()], after=last)
    with pytest.raises(StepEnded):
        await store.write_stream("r", "s", text("two"), author=author)


async def test_a_stream_has_a_limit(store):
    """Of bytes in all, with an error that says what to do."""
    skip_where_sealed(store)
    await begin(store)
    await store.write_stream("r", "s", text("12345"), limit=8)
    with pytest.raises(PayloadError, match=r"10 bytes, over the limit of 8.*stream_limit"):
        await store.write_stream("r", "s", text("67890"), limit=8)
    await store.write_stream("r", "s", text("678"), limit=8)


async def test_a_page_holds_so_many_bytes_and_one_chunk_at_least(store):
    """A remote reader is never sent more than it can take."""
    skip_where_sealed(store)
    await begin(store)
    big = [Part("bytes", bytes(PAGE_BYTES // 2)) for _ in range(3)]
    await store.write_stream("r", "s", [*big, Part("bytes", bytes(2 * PAGE_BYTES))])
    assert [len(await store.read_stream("r", "s", after)) for after in range(5)] == [2, 2, 1, 1, 0]


async def test_a_full_page_has_room_for_the_end_mark(store):
    """It has no bytes, and who copies a stream sets his own with the last chunks, not a commit later."""
    skip_where_sealed(store)
    await begin(store)
    await store.write_stream("r", "s", [Part("bytes", bytes(PAGE_BYTES // 2))] * 2 + [END])
    assert [chunk.kind for chunk in await store.read_stream("r", "s")] == ["bytes", "bytes", "end"]


async def test_what_one_handle_remembers_is_not_believed_when_another_has_gone_on(place, store):
    """An attempt, a stream and a run that are over by another process's doing; two first chunks at once."""
    other = await place.open()
    last = await begin(store, "r", "a#1")
    await store.write_stream("r", "s", text("one"), author=ONE)
    await other.write_stream("r", "s", text("two"))
    await other.write_stream("r", "theirs", text("x"))
    await store.write_stream("r", "ours", text("y"))
    await store.write_stream("r", "s", text("three"), author=ONE)
    assert await words(store) == ["one", "two", "three"]
    for name, word in (("theirs", "x"), ("ours", "y")):
        assert [chunk.data for chunk in await assert_sound_stream(store, "r", name)] == [word]
    await other.write_stream("r", "theirs", [END])
    with pytest.raises(StreamEnded):
        await store.write_stream("r", "theirs", text("z"))
    await store.write_stream("r", "s", text("four"), author=ONE)
    await other.append("r", [completed("a#1")])
    with pytest.raises(StepEnded):
        await store.write_stream("r", "s", text("five"), author=ONE)
    await store.write_stream("r", "s", text("six"))
    await other.append("r", [ended()], after=last + 1)
    with pytest.raises(RunEnded):
        await store.write_stream("r", "s", text("seven"))
    await assert_sound_stream(store)


async def test_writers_of_one_stream_in_two_handles_make_one_dense_stream(place, store):
    """Each one's chunks stay in its order."""
    other = await place.open()
    await begin(store)

    async def write(store, name):
        for n in range(20):
            await store.write_stream("r", "s", text(f"{name}{n}", f"{name}{n}'"))

    await asyncio.gather(write(store, "a"), write(other, "b"), write(store, "c"))
    chunks = await assert_sound_stream(store)
    for name in "abc":
        own = [c.data for c in chunks if c.data.startswith(name)]
        assert own == [f"{name}{n}{suffix}" for n in range(20) for suffix in ("", "'")]


async def test_chunks_share_a_commit_with_each_other_and_with_appends(store):
    """Group commit; and a refused write fails none of its neighbours."""
    last = await begin(store, "r", "a#1")
    commits = []
    faults.arm("store.commit.before", lambda: commits.append(1))
    outcomes = await asyncio.gather(
        store.write_stream("r", "s", text("one"), author=ONE),
        store.write_stream("r", "t", text("two")),
        store.append("r", [noted("n#1")], after=last),
        store.write_stream("nobody", "s", text("x")),
        store.write_stream("r", "s", text("three")),
        return_exceptions=True,
    )
    assert len(commits) == 1
    assert [type(outcome).__name__ for outcome in outcomes] == [
        *("Written", "Written", "Appended", "RunNotFound", "Written"),
    ]
    assert await words(store) == ["one", "three"]


async def test_a_reader_is_told_of_each_write(place, store):
    """Tail by news: they name run and stream, and what they tell of can be read; a refused write is no news."""
    other = await place.open()
    await begin(store)
    heard = asyncio.Queue()

    async def hear(news):
        for item in news:
            if item.stream is not None:
                heard.put_nowait((item.run, item.stream, item.fact, item.ended, item.ready))

    tasks = []
    other.listen(lambda news: tasks.append(asyncio.ensure_future(hear(news))))
    await store.write_stream("r", "s", text("one"))
    assert await asyncio.wait_for(heard.get(), PATIENCE) == ("r", "s", False, False, False)
    assert await words(other) == ["one"]
    with pytest.raises(RunNotFound):
        await store.write_stream("nobody", "s", text("one"))
    await store.write_stream("r", "t", [Part("text", b"one", "k")])
    assert (await asyncio.wait_for(heard.get(), PATIENCE))[:2] == ("r", "t")
    await store.write_stream("r", "t", [Part("text", b"one", "k")])
    await store.write_stream("r", "u", text("one"))
    assert (await asyncio.wait_for(heard.get(), PATIENCE))[:2] == ("r", "u")


WRITER = """
import asyncio, sys
from holdfast.chunks import Part
from holdfast.store import open_store
async def main():
    async with open_store(sys.argv[1]) as store:
        print("ready", flush=True)
        sys.stdin.readline()
        for n in range(50):
            await store.write_stream("r", "s", [Part("text", f"{sys.argv[2]} {n}".encode())])
asyncio.run(main())
"""


async def test_three_processes_write_one_stream(tmp_path):
    """Dense across processes, each one's order kept."""
    from holdfast.store import open_store

    url = f"sqlite:///{tmp_path}/store.db"
    async with open_store(url) as store:
        await begin(store)
        children = [child(WRITER, url, n) for n in range(3)]
        for process in children:
            await asyncio.to_thread(process.stdout.readline)
        for process in children:
            process.stdin.write("\n")
            process.stdin.flush()
        for process in children:
            await asyncio.to_thread(finished, process)
        chunks = await assert_sound_stream(store)
        for name in range(3):
            own = [c.data for c in chunks if c.data.startswith(f"{name} ")]
            assert own == [f"{name} {n}" for n in range(50)]
