"""`hf.trail` in workflow code: commands of the run's log, credited to the right branch, never doubled."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from trail_flows import Report, bare_branches, everything, read, three_agents, waits_in_a_chapter

import holdfast as hf
from holdfast.codec import DEFAULT_LIMIT
from holdfast.errors import PayloadError
from holdfast.events import Event
from holdfast.replay import replay_run
from holdfast.testing import Rehearsal, checking, run_workflow
from holdfast.trail import TrailFolder
from holdfast.trail.recorder import entries_of, record

HISTORIES = Path(__file__).parents[1] / "histories"


def noted(log: list[Event]) -> list[dict[str, Any]]:
    return [event.data for event in log if event.type == "noted"]


def without_branch(event: Event) -> Event:
    from msgspec.structs import replace

    from holdfast.events import dump_json

    return replace(event, body=dump_json({k: v for k, v in event.data.items() if k != "branch"}))


# ---- branches -----------------------------------------------------------------------------------------------


async def test_parallel_agents_are_credited_with_their_own_notes(tmp_path: Path) -> None:
    """T-08: 3 branches, 4 notes each, at the same time: 12 of 12 in the chapter of their agent."""
    folder = TrailFolder(tmp_path / "trails")
    async with hf.connect(f"sqlite:///{tmp_path}/app.db") as app, app.worker(), checking(app):
        run = await app.start(three_agents, 4)
        assert await run.result() == 12
        trail = folder.load((await record(app.store, run.id, folder)).trail)
    credited = {
        (chapter.agent_name, event.content)
        for chapter in trail.chapters
        for event in chapter.events
        if event.type == "note" and "opens" in event.content
    }
    assert credited == {(n, f"{n} opens page {p}") for n in ("ana", "ben", "cleo") for p in range(4)}
    for chapter in trail.chapters:
        calls = [event for event in chapter.events if event.type in ("tool_call", "tool_result")]
        assert all(chapter.agent_name in event.content for event in calls)
        assert len(calls) == (8 if chapter.title.startswith("Reading") else 0)


def test_branches_that_open_no_chapter_are_told_apart() -> None:
    run = run_workflow(
        bare_branches, ["a", "b", "c"], steps={"read": lambda agent, page: Report(agent, page)}
    )
    entries = entries_of("r", run.log)
    opened = {e.chapter: e.data for e in entries if e.type == "chapter_opened"}
    calls = [e for e in entries if e.type == "tool_call"]
    results = [e for e in entries if e.type == "tool_result"]
    assert len({e.chapter for e in calls}) == 3
    assert [e.chapter for e in results] == [e.chapter for e in calls]
    reading = next(e.chapter for e in entries if e.data.get("title") == "Reading")
    assert [opened[e.chapter]["parent"] for e in calls] == [reading] * 3
    assert {e.agent for e in calls} == {"ana"}


def test_the_main_task_says_nothing_of_itself() -> None:
    """An ordinary log does not grow: neither branch nor chapter where there is none."""

    @hf.workflow(name="inside.plain")
    async def plain() -> None:
        await read("ana", 0)
        await hf.sleep(1)
        hf.hook("x")

    run = run_workflow(plain, steps={"read": Report("ana", 0)})
    asked = {e.type: set(e.data) for e in run.log if e.cls == "command"}
    assert asked["step_scheduled"] == {"args"}
    assert asked["timer_started"] == {"due"}
    assert asked["hook_opened"] == set()


def test_the_branch_takes_no_part_in_the_match() -> None:
    """Logs from before have none; and it is for people, nothing follows from it."""
    run = run_workflow(three_agents, 2, steps={"read": lambda agent, page: Report(agent, page)})
    assert any("branch" in e.data for e in run.log if e.type == "step_scheduled")
    replay_run([without_branch(event) for event in run.log], three_agents)


# ---- commands -----------------------------------------------------------------------------------------------


def test_what_is_told_is_a_command_each() -> None:
    run = Rehearsal(everything, "pages")
    run.complete("read#1", Report("ana", 2))
    told = [(data["kind"], data.get("chapter"), data.get("agent")) for data in noted(run.log)]
    assert told == [
        ("note", None, None),
        ("chapter_opened", None, "ana"),
        ("decision", "note#2", None),
        ("chapter_opened", "note#2", None),
        ("finding", "note#4", None),
        ("chapter_closed", "note#4", None),
        ("chapter_closed", "note#2", None),
    ]
    decision = noted(run.log)[2]
    assert decision["content"] == "Which order?: oldest first"
    assert decision["raw"]["alternatives"] == ["newest first"]
    run.close()


def test_a_note_that_changes_diverges_and_says_so() -> None:
    texts = ["first"]

    @hf.workflow
    async def notes() -> None:
        hf.trail.note(texts[0])
        await read("ana", 0)

    run = run_workflow(notes, steps={"read": Report("ana", 0)})
    texts[0] = "second"
    with pytest.raises(hf.ReplayDivergence, match=r"first.*second") as raised:
        replay_run(run.log, notes)
    assert raised.value.position == 2


def test_a_note_that_is_left_out_diverges() -> None:
    wanted = [True]

    @hf.workflow
    async def maybe() -> None:
        if wanted[0]:
            hf.trail.note("x")
        await read("ana", 0)

    run = run_workflow(maybe, steps={"read": Report("ana", 0)})
    wanted[0] = False
    with pytest.raises(hf.ReplayDivergence, match="step_scheduled read#1"):
        replay_run(run.log, maybe)


async def test_a_run_that_is_taken_over_doubles_nothing(tmp_path: Path) -> None:
    """The first worker leaves while the chapter is open; the second replays, and goes on inside it."""
    async with hf.connect(f"sqlite:///{tmp_path}/app.db") as app:
        async with app.worker():
            run = await app.start(waits_in_a_chapter, "t")
        async with app.worker(), checking(app):
            await app.resume("t", "yes")
            assert await run.result() == "yes"
        told = [e.data.get("content", e.data["kind"]) async for e in run.events() if e.type == "noted"]
    assert told == ["chapter_opened", "before", "after", "chapter_closed"]


def test_evicted_code_writes_nothing() -> None:
    """Its `with` blocks are left by the eviction; what they would write is what the replay still has to say."""
    touched: list[str] = []

    @hf.workflow(name="inside.waits")
    async def waits() -> None:
        with hf.trail.chapter("outer") as chapter:
            try:
                await hf.hook("t")
            finally:
                touched.append("finally")
                chapter.note("in finally")
                hf.trail.note("not reached where it is evicted")
                touched.append("told")

    run = Rehearsal(waits)
    before = list(run.log)
    run.evict()
    assert run.log == before
    assert not run.execution.asked
    assert touched == ["finally"]
    run.send("t", 1)
    assert [d["kind"] for d in noted(run.log)] == ["chapter_opened", "note", "note", "chapter_closed"]
    replay_run(run.log, waits)


def test_an_old_history_still_replays_and_gives_a_trail() -> None:
    """Logs from before there were branches: all of it is the main task's."""
    from holdfast.replay import load_history

    for path in sorted(HISTORIES.glob("*.jsonl")):
        if path.stem == "trails":
            continue
        entries = entries_of(path.stem, load_history(path))
        opened = [e for e in entries if e.type == "chapter_opened"]
        assert len(opened) == 1, path.name
        assert entries[0].type == "trail_started"


# ---- values -------------------------------------------------------------------------------------------------

BAD: list[Callable[[], Any]] = [
    lambda: hf.trail.note(""),
    lambda: hf.trail.note("  \n"),
    lambda: hf.trail.note(None),  # type: ignore[arg-type]
    lambda: hf.trail.note("x", confidence=1.1),
    lambda: hf.trail.note("x", confidence=float("nan")),
    lambda: hf.trail.note("x", confidence=True),
    lambda: hf.trail.note("x", significance="huge"),  # type: ignore[arg-type]
    lambda: hf.trail.note("x", tags="one"),
    lambda: hf.trail.note("x", tags=[1]),  # type: ignore[list-item]
    lambda: hf.trail.note("x", agent=""),
    lambda: hf.trail.note("x", raw=object()),
    lambda: hf.trail.note("x" * DEFAULT_LIMIT),
    lambda: hf.trail.note("x", occurred_at=datetime(2026, 1, 1)),
    lambda: hf.trail.decide("", "yes"),
    lambda: hf.trail.decide("Ship?", ""),
    lambda: hf.trail.decide("Ship?", "yes", alternatives="no"),
    lambda: hf.trail.reflect("x", confidence=-0.1),
    lambda: hf.trail.chapter(""),
    lambda: hf.trail.chapter("x", agent=""),
]


@pytest.mark.parametrize("number", range(len(BAD)))
def test_a_value_that_does_not_fit_is_refused_at_the_call_and_poisons_nothing(number: int) -> None:
    """T-13: an ordinary exception in workflow code; the log holds nothing of it, and the run goes on."""

    @hf.workflow
    async def careless() -> str:
        with hf.trail.chapter("Try"):
            with pytest.raises(PayloadError):
                BAD[number]()
            hf.trail.note("goes on")
        return "done"

    run = run_workflow(careless)
    assert run.result() == "done"
    assert [d["kind"] for d in noted(run.log)] == ["chapter_opened", "note", "chapter_closed"]


def test_values_come_back_as_they_were_told() -> None:
    """Also what JSON finds hard: lone surrogates, NUL, a set (in one order), a dataclass, an instant."""
    when = datetime(2026, 1, 31, 9, tzinfo=UTC)

    @hf.workflow
    async def tells() -> None:
        raw = {"cities": {"Oslo", "Rome", "Bern"}, "report": Report("ana", 1), "odd": "\ud800\0"}
        hf.trail.note("odd \ud800 text\0", raw=raw, occurred_at=when)

    run = run_workflow(tells)
    (told,) = noted(run.log)
    assert told["content"] == "odd \ud800 text\0"
    assert told["raw"]["odd"] == "\ud800\0"
    (entry,) = [e for e in entries_of("r", run.log) if e.type == "note"]
    assert entry.occurred_at == "2026-01-31T09:00:00.000000Z"
    assert entry.recorded_at.startswith("2026-01-01")


def test_a_note_that_was_accepted_is_accepted_on_replay_under_a_lower_limit() -> None:
    @hf.workflow
    async def long() -> None:
        hf.trail.note("x" * 5000)

    run = Rehearsal(long)
    from holdfast.engine.tick import replay

    replay(long, run.log, payload_limit=1000).bury()
    with pytest.raises(PayloadError, match="limit"):
        Rehearsal(long, payload_limit=1000).result()


# ---- exceptions ---------------------------------------------------------------------------------------------


def test_an_exception_is_recorded_where_it_left_and_once() -> None:
    @hf.workflow(name="inside.fails")
    async def fails() -> None:
        with hf.trail.chapter("outer"), hf.trail.chapter("inner"):
            raise ValueError("broken")

    run = Rehearsal(fails)
    closed = [d for d in noted(run.log) if d["kind"] == "chapter_closed"]
    assert closed[0]["error"] == {"type": "ValueError", "message": "broken"}
    assert "error" not in closed[1]
    replay_run(run.log, fails)
    events = [e for e in entries_of("r", run.log) if e.type == "error"]
    assert [e.data["content"] for e in events] == ["ValueError: broken"]
    inner = next(e.chapter for e in entries_of("r", run.log) if e.data.get("title") == "inner")
    assert events[0].chapter == inner


def test_an_exceptions_message_may_differ_on_replay_its_type_may_not() -> None:
    """A message may hold an address; as with a run's end, the type is what is matched."""
    errors: list[Exception] = [ValueError("<object at 0x1>")]

    @hf.workflow(name="inside.fails")
    async def fails() -> None:
        with hf.trail.chapter("x"):
            raise errors[0]

    run = Rehearsal(fails)
    errors[0] = ValueError("<object at 0x2>")
    replay_run(run.log, fails)
    errors[0] = KeyError("x")
    with pytest.raises(hf.ReplayDivergence):
        replay_run(run.log, fails)


def test_a_failing_branch_leaves_its_own_chapter_and_cancels_the_others() -> None:
    async def one(name: str, fails: bool) -> None:
        async with hf.trail.chapter(name, agent=name):
            if fails:
                await read(name, 0)
                raise RuntimeError("no")
            await hf.hook("never")

    @hf.workflow
    async def group() -> None:
        async with hf.trail.chapter("all"), asyncio.TaskGroup() as tasks:
            tasks.create_task(one("ana", True))
            tasks.create_task(one("ben", False))

    run = Rehearsal(group)
    run.complete("read#1", Report("ana", 0))
    assert run.status == "failed"
    replay_run(run.log, group)
    told = [(e.agent, e.type, e.data["content"]) for e in entries_of("r", run.log) if "content" in e.data]
    assert ("ana", "error", "RuntimeError: no") in told
    assert ("ben", "note", "Cancelled") in told


async def test_a_cancelled_run_closes_its_chapters() -> None:
    async with hf.connect("memory://") as app, app.worker(), checking(app):
        run = await app.start(waits_in_a_chapter, "t")
        await run.cancel("enough")
        with pytest.raises(hf.RunCancelled):
            await run.result()
        told = [e.data async for e in run.events() if e.type == "noted"]
    assert [d["kind"] for d in told] == ["chapter_opened", "note", "chapter_closed"]
    assert told[-1]["error"]["type"].endswith("CancelledError")


def test_a_generator_that_is_closed_closes_its_chapter_without_an_error() -> None:
    async def pages() -> AsyncIterator[int]:
        async with hf.trail.chapter("pages"):
            for page in range(10):
                yield page

    @hf.workflow
    async def reads() -> None:
        source = pages()
        async for page in source:
            if page == 2:
                break
        await source.aclose()
        hf.trail.note("outside again")

    run = run_workflow(reads)
    closed, last = noted(run.log)[-2:]
    assert closed == {"kind": "chapter_closed", "chapter": "note#1"}
    assert "chapter" not in last


def test_a_chapter_is_opened_once_and_by_with() -> None:
    @hf.workflow
    async def misuses() -> None:
        chapter = hf.trail.chapter("x")
        with pytest.raises(hf.DefinitionError, match="is not open: use it as `with"):
            chapter.note("too early")
        with chapter:
            pass
        with pytest.raises(hf.DefinitionError, match="was opened before"), chapter:
            pass
        chapter.note("late, and still its own")

    run = run_workflow(misuses)
    assert [d.get("chapter") for d in noted(run.log)] == [None, "note#1", "note#1"]


# ---- elsewhere ----------------------------------------------------------------------------------------------


def test_outside_of_workflows_it_writes_to_the_trail_around(tmp_path: Path) -> None:
    folder = TrailFolder(tmp_path / "trails")
    with folder.start("Fix the login", agent="ana") as trail:
        hf.trail.note("at the trail")
        with hf.trail.chapter("Look", agent="ben") as chapter:
            hf.trail.find("a quote")
            chapter.note("by hand")
        hf.trail.decide("Quote?", "yes", reasoning="names have them")
        hf.trail.reflect("fine", confidence=0.9)
    told = {event.content: event.agent for event in folder.load(trail.id).events}
    assert told == {
        "at the trail": "ana",
        "a quote": "ben",
        "by hand": "ben",
        "Quote?: yes": "ana",
        "fine": "ana",
    }


async def test_outside_of_workflows_tasks_find_their_own_chapters(tmp_path: Path) -> None:
    folder = TrailFolder(tmp_path / "trails")

    async def one(name: str) -> None:
        async with hf.trail.chapter(name, agent=name):
            for number in range(4):
                await asyncio.sleep(0)
                hf.trail.note(f"{name} {number}")

    with folder.start("Read", agent="lead") as trail:
        await asyncio.gather(*(one(name) for name in ("ana", "ben", "cleo")))
    chapters = folder.load(trail.id).chapters
    assert {c.agent_name: [e.content for e in c.events] for c in chapters} == {
        name: [f"{name} {number}" for number in range(4)] for name in ("ana", "ben", "cleo")
    }


def test_where_there_is_neither_the_error_says_what_to_do() -> None:
    for call in (
        lambda: hf.trail.note("x"),
        lambda: hf.trail.find("x"),
        lambda: hf.trail.decide("a", "b"),
        lambda: hf.trail.reflect("x"),
        lambda: hf.trail.chapter("x"),
    ):
        with pytest.raises(hf.DefinitionError, match="no trail is open around it: begin one with"):
            call()


async def test_a_step_is_told_to_return_its_note() -> None:
    @hf.step(retries=0)
    async def notes() -> None:
        hf.trail.note("x")

    @hf.workflow
    async def calls() -> None:
        await notes()

    from holdfast.trail import handle

    assert handle.current() is None, "a test before this one has left a trail open"
    async with hf.connect("memory://") as app, app.worker():
        with pytest.raises(hf.RunFailed, match="return what is worth a note"):
            await (await app.start(calls)).result()


def test_the_first_use_may_be_inside_a_tick() -> None:
    """The modules are imported there and then, and the watch over impure calls lets them be."""
    script = """
import sys
import holdfast as hf
from holdfast.replay import replay_run
from holdfast.testing import run_workflow
assert "holdfast.trail" not in sys.modules

@hf.workflow
async def first() -> None:
    with hf.trail.chapter("x"):
        hf.trail.decide("a", "b")
    try:
        with hf.trail.chapter("y"):
            raise ValueError("z")
    except ValueError:
        pass

run = run_workflow(first)
assert run.status == "completed", run.status
print(len(run.log))
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("7\n", "")


def test_the_package_offers_its_parts_when_they_are_asked_for() -> None:
    import holdfast.trail as package

    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match=r"^module 'holdfast.trail' has no attribute 'nothing'$"):
        _ = package.nothing
