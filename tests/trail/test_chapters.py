"""Which chapter an event belongs to: that of the code that tells it, whoever else is at work (row T-08)."""

import asyncio
import contextvars
import functools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from trail_kit import at_once

from holdfast.errors import PayloadError
from holdfast.trail import TrailFolder
from holdfast.trail.handle import current


def told(folder, trail):
    """{chapter: what was told in it}, of a trail's events."""
    return {c.title: [e.content for e in c.events] for c in folder.load(trail.id).chapters}


def tree(folder, trail):
    """{chapter: the chapter around it}."""
    chapters = folder.load(trail.id).chapters
    titles = {c.id: c.title for c in chapters}
    return {c.title: titles.get(c.parent) for c in chapters}


def in_a_thread(work):
    """Run it in a plain thread, which has no copy of the context."""
    (answer,) = at_once(work)
    if isinstance(answer, Exception):
        raise answer
    return answer


# ---- one thread ---------------------------------------------------------------------------------------------


def test_a_chapter_is_around_what_stands_in_its_block(folder):
    with folder.start("x", agent="ana") as t:
        t.note("before")
        with t.chapter("A", agent="ben"):
            t.note("in A")
            with t.chapter("B"):
                t.note("in B")
            t.note("in A again")
        t.note("after")
    assert told(folder, t) == {"A": ["in A", "in A again"], "B": ["in B"], "Work": ["before", "after"]}
    assert tree(folder, t) == {"A": None, "B": "A", "Work": None}
    agents = {e.content: e.agent for e in folder.load(t.id).events}
    assert agents == {"before": "ana", "in A": "ben", "in B": "ben", "in A again": "ben", "after": "ana"}


def test_trails_and_folders_may_be_interleaved(folder, tmp_path):
    """Each event goes to its own trail's chapter, also where two folders hold copies of one trail."""
    other = TrailFolder(tmp_path / "other", redact=None)
    with folder.start("one") as one:
        other.absorb(one.id, folder.entries(one.id))
        with one.chapter("A"), folder.start("two") as two, two.chapter("B"):
            copy = other.open(one.id)
            copy.note("in the copy")
            one.note("in A")
            two.note("in B")
            with copy.chapter("C"):
                one.note("in A again")
                copy.note("in C")
            assert current().title == "B"
    assert told(folder, one) == {"A": ["in A", "in A again"]}
    assert told(folder, two) == {"B": ["in B"]}
    assert told(other, copy) == {"Work": ["in the copy"], "C": ["in C"]}
    assert tree(other, copy)["C"] is None


def test_two_handles_of_one_trail_are_in_the_same_chapter_and_speak_for_their_agents(folder):
    with folder.start("x", agent="ana") as t, t.chapter("A"):
        folder.open(t.id).note("whoever")
        ben = folder.open(t.id, agent="ben")
        ben.note("ben's")
        TrailFolder(folder.root, redact=None).open(t.id, agent="cid").note("cid's")
        with ben.chapter("B"):
            t.note("ana in B")
    assert told(folder, t) == {"A": ["whoever", "ben's", "cid's"], "B": ["ana in B"]}
    assert tree(folder, t)["B"] == "A"
    agents = {e.content: e.agent for e in folder.load(t.id).events}
    assert agents == {"whoever": "ana", "ben's": "ben", "cid's": "cid", "ana in B": "ben"}


def test_chapters_without_a_block_lie_side_by_side_and_take_their_agents_notes(folder):
    t = folder.start("x", agent="ana")
    first = t.chapter("First")
    t.note("1")
    t.chapter("Second")
    t.note("2")
    ben = t.chapter("Ben's", agent="ben")
    t.note("still 2")
    t.note("by ben", agent="ben")
    ben.note("by ben too")
    first.note("late for the first")
    ben.close()
    t.note("by ben, nowhere", agent="ben")
    assert told(folder, t) == {
        "First": ["1", "late for the first"],
        "Second": ["2", "still 2"],
        "Ben's": ["by ben", "by ben too"],
        "Work": ["by ben, nowhere"],
    }
    assert set(tree(folder, t).values()) == {None}


def test_a_generator_that_is_closed_elsewhere_leaves_no_chapter_behind(folder):
    t = folder.start("x")

    def steps():
        with t.chapter("G"):
            t.note("in G")
            yield

    generator = steps()
    next(generator)
    contextvars.copy_context().run(generator.close)
    t.note("outside")
    asyncio.run(asyncio.to_thread(t.note, "outside"))  # which inherits what is around here
    assert current() is None
    assert told(folder, t) == {"G": ["in G"], "Work": ["outside", "outside"]}
    assert folder.load(t.id).chapters[0].ended_at is not None


def test_in_an_empty_context_of_the_same_thread_the_chapter_is_known(folder):
    with folder.start("x") as t, t.chapter("A"):
        contextvars.Context().run(t.note, "in A")
    assert told(folder, t) == {"A": ["in A"]}


# ---- threads ------------------------------------------------------------------------------------------------


def test_threads_started_in_a_chapter_are_in_it(folder):
    with folder.start("x") as t, t.chapter("A"):
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(t.note, "123"))
        in_a_thread(lambda: t.note("plain"))
        asyncio.run(asyncio.to_thread(t.note, "to_thread"))
    (notes,) = told(folder, t).values()
    assert sorted(notes) == ["1", "2", "3", "plain", "to_thread"]


def test_parallel_threads_write_twelve_of_twelve_into_their_own_chapters(folder):
    with folder.start("x") as t, t.chapter("All"):

        def work(name):
            t.note(f"{name} begins")
            with t.chapter(name, agent=name):
                for i in range(4):
                    t.note(f"{name}{i}")

        at_once(*[functools.partial(work, name) for name in "abc"])
    notes = told(folder, t)
    assert {name: notes[name] for name in "abc"} == {n: [f"{n}{i}" for i in range(4)] for n in "abc"}
    assert sorted(notes["All"]) == ["a begins", "b begins", "c begins"]
    assert tree(folder, t) == {"All": None, "a": "All", "b": "All", "c": "All"}


@pytest.mark.parametrize("around", [True, False])
def test_a_thread_never_gets_the_chapter_of_another_thread(folder, around):
    """With A open in the main thread and B in one thread, a second thread is in A; without A, in none."""
    t = folder.start("x", agent="ana")
    entered, leave = threading.Event(), threading.Event()

    def first():
        with t.chapter("B", agent="ben"):
            entered.set()
            leave.wait()

    def second():
        t.note("by the second")
        with t.chapter("C", agent="cid"):
            t.note("in C")

    def both():
        thread = threading.Thread(target=first)
        thread.start()
        entered.wait()
        in_a_thread(second)
        leave.set()
        thread.join()

    if around:
        with t.chapter("A"):
            both()
    else:
        both()
    home = "A" if around else "Work"
    assert told(folder, t) == ({"A": []} if around else {}) | {
        "B": [],
        home: ["by the second"],
        "C": ["in C"],
    }
    assert tree(folder, t)["C"] == ("A" if around else None)


def test_one_chapter_may_be_entered_by_two_threads(folder):
    with folder.start("x") as t:
        chapter = t.chapter("A")
        left = threading.Event()

        def first():
            with chapter:
                t.note("1")
            left.set()

        def second():
            with chapter:
                in_a_thread(first)
                left.wait()
                t.note("2")

        in_a_thread(second)
    assert told(folder, t) == {"A": ["1", "2"]}


# ---- tasks --------------------------------------------------------------------------------------------------


async def test_tasks_inherit_the_chapter_and_do_not_see_each_others(folder):
    """Sync handles in async code: the context variable is the same."""
    barrier = asyncio.Barrier(3)
    with folder.start("x") as t, t.chapter("All"):

        async def work(name):
            t.note(f"{name} begins")
            with t.chapter(name):
                for i in range(4):
                    await barrier.wait()
                    t.note(f"{name}{i}")

        await asyncio.gather(*map(work, "abc"))
        t.note("done")
    notes = told(folder, t)
    assert {name: notes[name] for name in "abc"} == {n: [f"{n}{i}" for i in range(4)] for n in "abc"}
    assert notes["All"] == ["a begins", "b begins", "c begins", "done"]


async def test_a_task_that_was_there_before_the_chapter_is_not_in_it(folder):
    wanted, done = asyncio.Event(), asyncio.Event()
    t = folder.start("x")

    async def server():
        await wanted.wait()
        t.note("the server's")
        done.set()

    task = asyncio.create_task(server())
    with t.chapter("A"):
        wanted.set()
        await done.wait()
    await task
    assert told(folder, t) == {"A": [], "Work": ["the server's"]}


async def test_a_task_that_outlives_its_chapter_still_belongs_to_it(folder):
    closed = asyncio.Event()
    t = folder.start("x")

    async def after():
        await closed.wait()
        t.note("by what A began")

    with t.chapter("A"):
        task = asyncio.create_task(after())
    closed.set()
    await task
    t.note("outside")
    assert told(folder, t) == {"A": ["by what A began"], "Work": ["outside"]}


async def test_a_thread_of_an_executor_gets_the_chapter_that_all_open_ones_share(folder):
    loop = asyncio.get_running_loop()
    barrier = asyncio.Barrier(2)
    with folder.start("x") as t, t.chapter("A"):

        async def work(name):
            with t.chapter(name):
                await barrier.wait()
                await loop.run_in_executor(None, t.note, f"somebody in {name}")
                await asyncio.to_thread(t.note, f"exactly {name}")
                await barrier.wait()

        await loop.run_in_executor(None, t.note, "A alone")
        await asyncio.gather(work("B"), work("C"))
    notes = told(folder, t)
    assert sorted(notes["A"]) == ["A alone", "somebody in B", "somebody in C"]
    assert (notes["B"], notes["C"]) == (["exactly B"], ["exactly C"])


# ---- exceptions ---------------------------------------------------------------------------------------------


def test_an_exception_is_recorded_in_the_innermost_chapter_once_and_abandons_the_trail(folder):
    with (
        pytest.raises(ValueError, match="no") as caught,
        folder.start("x") as t,
        t.chapter("A"),
        t.chapter("B"),
    ):
        try:
            raise KeyError("first")
        except KeyError as cause:
            raise ValueError("no") from cause
    trail = folder.load(t.id)
    assert told(folder, t) == {"A": [], "B": ["ValueError: no"], "Work": ["Abandoned: ValueError: no"]}
    assert (trail.status, trail.abandon_reason) == ("abandoned", "ValueError: no")
    error = next(e for e in trail.events if e.type == "error")
    assert (error.raw["type"], error.raw["cause"]) == ("ValueError", "KeyError: 'first'")
    assert error.raw["where"][-1].startswith("test_an_exception_is_recorded")
    assert caught.value.args == ("no",)


async def test_parallel_failures_are_each_recorded_once(folder):
    barrier = asyncio.Barrier(2)
    with folder.start("x") as t:

        async def work(name):
            with t.chapter(name), t.chapter(name + name):
                await barrier.wait()
                raise ValueError(name)

        await asyncio.gather(work("a"), work("b"), return_exceptions=True)
    assert told(folder, t) == {"a": [], "b": [], "aa": ["ValueError: a"], "bb": ["ValueError: b"]}


async def test_a_group_of_exceptions_names_its_parts(folder):
    with pytest.raises(ExceptionGroup), folder.start("x") as t, t.chapter("A"):
        raise ExceptionGroup("both", [ValueError("a"), KeyError("b")])
    (error,) = [e for e in folder.load(t.id).events if e.type == "error"]
    assert error.raw["exceptions"] == ["ValueError: a", "KeyError: 'b'"]


def test_what_left_the_block_is_never_hidden_by_what_could_not_be_recorded(folder, caplog):
    with pytest.raises(ValueError, match="mine"), folder.start("x") as t, t.chapter("A"):
        folder.delete(t.id)
        raise ValueError("mine")
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


def test_an_exception_whose_text_cannot_be_made_is_recorded_by_its_type(folder):
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError("no text")

    with pytest.raises(Mute), folder.start("x") as t:
        raise Mute
    assert folder.load(t.id).abandon_reason == "Mute"


def test_a_generator_that_is_not_used_up_is_no_failure(folder):
    t = folder.start("x")

    def steps():
        with t.chapter("G"):
            yield

    generator = steps()
    next(generator)
    generator.close()
    assert told(folder, t) == {"G": []}


# ---- bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda t: t.note(""),
        lambda t: t.note("x", agent=5),
        lambda t: t.note("x", tags="one"),
        lambda t: t.note("x", tags=[1]),
        lambda t: t.note("x", confidence=2),
        lambda t: t.note("x", occurred_at="today"),
        lambda t: t.chapter(" "),
        lambda t: t.chapter("x", agent=5),
        lambda t: t.join("", "reviewer"),
        lambda t: t.decide("q", ""),
        lambda t: t.decide("q", "c", alternatives="one"),
        lambda t: t.reflect("x", focal_points="one"),
        lambda t: t.complete(" "),
        lambda t: t.complete("x", decisions=["which"]),
        lambda t: t.complete("x", commits="abc"),
        lambda t: t.abandon(5),
        lambda t: t.amend(sumary="x"),
    ],
)
def test_a_wrong_value_is_refused_and_poisons_nothing(folder, call):
    """Row T-13."""
    t = folder.start("x")
    with pytest.raises(PayloadError):
        call(t)
    t.note("y")
    assert [e.content for e in folder.load(t.id).events] == ["y"]
    assert folder.load(t.id).status == "active"


def test_a_decision_keeps_what_else_was_given_with_it(folder):
    t = folder.start("x")
    t.decide("Which?", "This", reasoning="so", raw={"ticket": 7})
    (event,) = folder.load(t.id).events
    assert (event.raw["ticket"], event.decision.reasoning) == (7, "so")
