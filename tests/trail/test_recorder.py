"""Runs as trails: the same log gives the same bytes, whoever records it, however often, killed or not."""

from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

import itertools

import trail_flows
from patience import PATIENCE
from trail_flows import Report, everything, three_agents, waits_in_a_chapter

import holdfast as hf
from holdfast.events import Event, dump_json, new
from holdfast.replay import load_history, replay_run
from holdfast.testing import ManualClock, Rehearsal
from holdfast.trail import TrailFolder
from holdfast.trail import entry as line
from holdfast.trail.fold import fold
from holdfast.trail.model import Trail
from holdfast.trail.projection import RunTrail
from holdfast.trail.recorder import entries_of, follow, record, record_all, trail_of
from holdfast.trail.verdict import StepTold, cause_of, confidence, retrospective, span

GOLDEN = Path(__file__).with_name("golden")
HISTORIES = sorted((Path(__file__).parents[1] / "histories").glob("*.jsonl"))


def journal(folder: TrailFolder, trail_id: str) -> bytes:
    """The bytes of a trail's journal, wherever it stands."""
    (path,) = folder.root.rglob(f"{trail_id}.jsonl")
    return path.read_bytes()


async def resume(app: hf.App, token: str) -> None:
    """Send a payload as soon as the hook is open."""
    async with asyncio.timeout(PATIENCE):
        while not [hook async for hook in app.hooks(token=token)]:
            await asyncio.sleep(0.005)
    await app.resume(token)


def rich_log() -> list[Event]:
    """A run with all that a trail can tell, played by hand."""
    run = Rehearsal(everything, "pages", run_id="rich", attributes={"customer": "ana"})
    run.complete("read#1", Report("ana", 2))
    run.send("go:rich", {"ok": True})
    run.advance(1)
    for key in list(run.steps):
        run.complete(key, Report("x", 0))
    run.complete("publish#1", "published pages")
    assert run.ended
    replay_run(run.log, everything)
    return run.log


LOGS = {"rich": rich_log(), **{path.stem: load_history(path) for path in HISTORIES}}


def trail_from(events: list[Event]) -> Trail:
    return fold(trail_of(events[0].run, events[0].time), entries_of(events[0].run, events))


def log_of(*events: tuple[str, str, dict[str, Any]], run: str = "r") -> list[Event]:
    """A log by hand, a second between two events."""
    made = [("run_created", "", {"workflow": "ship", "args": {}}), ("run_started", "", {}), *events]
    return [
        Event(run, n, type, key, 1_800_000_000_000_000 + n * 1_000_000, dump_json(data))
        for n, (type, key, data) in enumerate(made, start=1)
    ]


# ---- the projection -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOGS)
def test_every_prefix_and_its_rest_give_what_the_whole_gives(name: str) -> None:
    log = LOGS[name]
    whole = [line.encode(entry) for entry in entries_of(name, log)]
    for cut in range(len(log) + 1):
        run = RunTrail(name)
        parts = [run.feed(event) for event in log[:cut]] + [run.feed(event) for event in log[cut:]]
        assert [line.encode(entry) for part in parts for entry in part] == whole


@pytest.mark.parametrize("name", ["trails", "retries_and_failure", "cancelled_with_finally"])
def test_the_journal_of_a_history_is_these_bytes(name: str) -> None:
    """Lines that people have in their folders stay: what changes here differs from what they have recorded.

    If it must be so, write the files again: `python tests/trail/test_recorder.py`.
    """
    made = b"".join(line.encode(entry) for entry in entries_of(name, LOGS[name]))
    assert made == (GOLDEN / f"{name}.jsonl").read_bytes()


@given(st.sampled_from(sorted(LOGS)), st.lists(st.integers(0, 60), max_size=6))
def test_a_journal_is_the_same_bytes_in_however_many_parts_it_was_taken_in(
    tmp_path_factory: pytest.TempPathFactory, name: str, cuts: list[int]
) -> None:
    log = LOGS[name]
    trail_id, entries = trail_of(name, log[0].time), entries_of(name, log)
    at_once, in_parts = (TrailFolder(tmp_path_factory.mktemp("trails")) for _ in range(2))
    at_once.absorb(trail_id, entries)
    bounds = [0, *sorted(min(cut, len(entries)) for cut in cuts), len(entries)]
    for start, end in itertools.pairwise(bounds):
        if start < end:
            # Recorders overlap: each takes in again what others have.
            in_parts.absorb(trail_id, entries[max(0, start - 3) if start else 0 : end], derive=False)
    assert journal(in_parts, trail_id) == journal(at_once, trail_id)
    assert in_parts.load(trail_id) == at_once.load(trail_id)


@pytest.mark.parametrize("name", LOGS)
def test_every_entry_has_an_id_of_its_own_and_its_place_in_the_order(name: str) -> None:
    entries = entries_of(name, LOGS[name])
    assert len({entry.id for entry in entries}) == len(entries)
    assert line.ordered(entries) == entries
    trail_from(LOGS[name])


def test_two_stores_with_one_run_id_have_two_trails() -> None:
    first, second = log_of(), log_of()
    second = [Event(e.run, e.position, e.type, e.key, e.time + 1, e.body) for e in second]
    assert not {e.id for e in entries_of("r", first)} & {e.id for e in entries_of("r", second)}
    assert trail_of("r", first[0].time) != trail_of("r", second[0].time)


def test_what_a_rich_run_comes_to() -> None:
    trail = trail_from(LOGS["rich"])
    assert (trail.title, trail.status, trail.workflow_id) == ("everything", "completed", "rich")
    assert trail.task.source is not None
    assert (trail.task.source.system, trail.task.source.id) == ("holdfast", "rich")
    assert trail.task.description == 'everything(title="pages")'
    assert trail.tags == ["customer=ana"]
    assert {agent.name: agent.role for agent in trail.agents} == {
        "everything": "workflow",
        "ana": "contributor",
        "ben": "contributor",
        "cleo": "contributor",
    }
    titles = {chapter.id: chapter.title for chapter in trail.chapters}
    tree = {chapter.title: titles.get(chapter.parent or "") for chapter in trail.chapters}
    assert tree == {
        "everything": None,
        "Plan": "everything",
        "Details": "Plan",
        "Reading by ben": "everything",
        "read#3": "everything",  # the branch without a chapter
        "sleep#1": "everything",
        "Publish": "everything",
    }
    assert all(chapter.ended_at is not None for chapter in trail.chapters)
    assert [decision.chosen for decision in trail.decisions] == ["oldest first"]
    assert trail.retrospective is not None
    assert trail.retrospective.confidence == 0.7  # what its code said itself
    assert trail.retrospective.summary == "All 4 steps completed in 1.0 s."


def test_events_of_types_that_nobody_knows_are_passed_over() -> None:
    log = log_of(("from_the_future", "x#1", {"a": 1}), ("run_completed", "", {"value": 1}))
    assert trail_from(log).status == "completed"


def test_notes_of_a_wrong_shape_are_passed_over() -> None:
    """They may be in a log that was written by hand; a trail must not become unreadable by them."""
    log = log_of(
        ("noted", "note#1", {}),
        ("noted", "note#2", {"kind": "trail_completed", "content": "not so"}),
        ("noted", "note#3", {"kind": "note", "content": "well", "chapter": "note#9"}),
        ("noted", "note#4", {"kind": "chapter_closed", "chapter": "note#8"}),
    )
    trail = trail_from(log)
    assert trail.status == "active"
    assert [event.content for event in trail.events] == ["well"]


# ---- ends ---------------------------------------------------------------------------------------------------

TIMEOUT = {"type": "TimeoutError", "message": "too long"}


def test_a_failed_run_is_an_abandoned_trail_with_its_cause() -> None:
    trail = trail_from(
        log_of(
            ("step_scheduled", "charge#1", {"args": {"amount": 3}}),
            ("step_started", "charge#1", {"attempt": 1, "worker": "w"}),
            ("step_retried", "charge#1", {"attempt": 1, "error": TIMEOUT, "delay": 0.5, "due": 1}),
            ("step_started", "charge#1", {"attempt": 2, "worker": "w", "reason": "recovered"}),
            ("step_failed", "charge#1", {"attempt": 2, "error": TIMEOUT}),
            ("run_failed", "", {"error": {"type": "RuntimeError", "message": "gave up", "cause": TIMEOUT}}),
        )
    )
    assert trail.status == "abandoned"
    assert trail.abandon_reason == "failed [timeout]: RuntimeError: gave up"
    told = [(event.type, event.content) for event in trail.events]
    assert told == [
        ("tool_call", "charge(amount=3)"),
        ("note", "charge#1: attempt 1 failed [timeout]: TimeoutError: too long; the next one in 0.5 s"),
        ("note", "charge#1: attempt 2 begins: the one before was lost with its worker"),
        ("error", "charge#1 failed [timeout] after 2 attempts: TimeoutError: too long"),
        ("abandoned", "Abandoned: failed [timeout]: RuntimeError: gave up"),
    ]
    error = trail.events[3]
    assert error.raw == {
        "step": "charge#1",
        "tool": "charge",
        "cause": "timeout",
        "type": "TimeoutError",
        "attempts": 2,
    }
    assert trail.retrospective is not None
    assert trail.retrospective.summary == (
        "Failed at charge#1 [timeout] after 7.0 s (1 retry): 0 of 1 step completed."
    )
    assert trail.retrospective.challenges == [
        "charge#1 failed after 2 attempts: it took longer than it was given (TimeoutError: too long)"
    ]
    assert trail.retrospective.confidence is None


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"reason": "not needed"}, "cancelled: not needed"),
        ({"reason": ""}, "cancelled"),
        ({"reason": "stuck", "by": "terminate"}, "terminated: stuck"),
    ],
)
def test_a_cancelled_run_is_an_abandoned_trail_with_its_reason(data: dict[str, Any], reason: str) -> None:
    trail = trail_from(log_of(("cancel_requested", "", {"reason": "x"}), ("run_cancelled", "", data)))
    assert (trail.status, trail.abandon_reason) == ("abandoned", reason)


def test_what_comes_after_the_end_is_late() -> None:
    trail = trail_from(
        log_of(
            ("step_scheduled", "slow#1", {"args": {}}),
            ("run_completed", "", {"value": 1, "open": ["slow#1"]}),
            ("step_completed", "slow#1", {"attempt": 1, "value": 2}),
        )
    )
    assert trail.status == "completed"
    assert [(e.content, e.late) for e in trail.events][-1] == ("slow#1 gave 2", True)
    assert not any(event.late for event in trail.events[:-1])


def test_a_second_outcome_is_told_and_changes_nothing() -> None:
    trail = trail_from(
        log_of(
            ("step_scheduled", "s#1", {"args": {}}),
            ("step_completed", "s#1", {"attempt": 2, "value": 1}),
            ("step_failed", "s#1", {"attempt": 1, "error": TIMEOUT}),
            ("run_completed", "", {"value": 1}),
        )
    )
    assert trail.retrospective is not None
    assert trail.retrospective.challenges == []
    assert trail.events[2].content == "s#1: attempt 1 failed later; its first outcome stands"


def test_a_continued_run_is_related_to_the_ones_before_and_behind() -> None:
    created = {"workflow": "ship", "args": {}, "previous": "r-1", "first": "r-0", "number": 3}
    end = {"continued": "r-3", "args": {}, "unread": [], "seen": 0, "read": 0}
    made = [("run_created", created), ("run_started", {}), ("run_completed", end)]
    log = [
        Event("r-2", n, type, "", 1_800_000_000_000_000 + n, dump_json(data))
        for n, (type, data) in enumerate(made, start=1)
    ]
    trail = trail_from(log)
    assert trail.extra == {"previousRun": "r-1"}
    assert "ship goes on as run r-3" in [event.content for event in trail.events]


def test_child_runs_are_related() -> None:
    parent = trail_from(
        log_of(
            ("child_started", "pack#1", {"run": "r/pack#1", "workflow": "pack"}),
            ("child_ended", "pack#1", {"run": "r/pack#1", "status": "completed", "value": 3}),
            ("child_started", "label#1", {"run": "r/label#1"}),
            ("child_ended", "label#1", {"run": "r/label#1", "error": TIMEOUT}),
        )
    )
    assert [(e.type, (e.raw or {}).get("childRun")) for e in parent.events] == [
        ("tool_call", "r/pack#1"),
        ("tool_result", "r/pack#1"),
        ("tool_call", "r/label#1"),
        ("error", "r/label#1"),
    ]
    created = {"workflow": "pack", "args": {}, "parent": {"run": "r/mid"}, "root": "r"}
    child = trail_from([Event("r/pack#1", 1, "run_created", "", 1_800_000_000_000_000, dump_json(created))])
    assert child.workflow_id == "r"
    assert child.extra == {"parentRun": "r/mid"}


def test_secrets_are_taken_out_before_values_are_cut(tmp_path: Path) -> None:
    """Of a secret that was cut, the rest would not be known for what it is."""
    key = "-----BEGIN RSA PRIVATE KEY-----\n" + "A1b2" * 400 + "\n-----END RSA PRIVATE KEY-----"
    token = "ghp_0123456789abcdefghijABCDEFGHIJ012345"
    folder = TrailFolder(tmp_path / "trails")
    log = log_of(
        ("step_scheduled", "a#1", {"args": {"text": "x" * 80 + " " + token, "password": "hunter2horse"}}),
        ("step_completed", "a#1", {"attempt": 1, "value": {"key": key}}),
        ("step_scheduled", "b#1", {"args": {}}),
        (
            "step_failed",
            "b#1",
            {"attempt": 1, "error": {"type": "ValueError", "message": "y" * 970 + " " + token}},
        ),
        ("noted", "note#1", {"kind": "note", "content": f"it was {token}"}),
        ("run_failed", "", {"error": {"type": "ValueError", "message": "z" * 170 + " " + token}}),
    )
    trail_id = trail_of("r", log[0].time)
    folder.absorb(trail_id, entries_of("r", log, redact=folder.files.redact))
    for path in folder.root.rglob("*"):
        text = path.read_bytes() if path.is_file() else b""
        assert b"A1b2A1b2" not in text, path
        assert b"ghp_01" not in text, path
        assert b"hunter2" not in text, path


def test_previews_are_short() -> None:
    log = log_of(
        ("step_scheduled", "a#1", {"args": {"text": "x" * 1_000_000}}),
        ("step_completed", "a#1", {"attempt": 1, "value": [["deep"] * 1000] * 1000}),
        ("hook_opened", "t#1", {}),
        ("hook_received", "t#1", {"payload": {"k" * 10_000: "v"}, "delivery": "d"}),
        ("run_completed", "", {"value": "y" * 1_000_000}),
    )
    assert all(len(line.encode(entry)) < 1000 for entry in entries_of("r", log))


# ---- the rules ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        ({"type": "TimeoutError"}, "timeout"),
        ({"type": "httpx:ReadTimeout"}, "timeout"),
        ({"type": "holdfast.worker.execute:StepTimeout"}, "timeout"),
        ({"type": "subprocess:TimeoutExpired"}, "timeout"),
        ({"type": "AssertionError"}, "verification_mismatch"),
        ({"type": "subprocess:CalledProcessError", "message": "timed out, enoent"}, "exit_nonzero"),
        ({"type": "FileNotFoundError", "traceback": 'File "/lib/subprocess.py", line 1'}, "spawn_failed"),
        ({"type": "FileNotFoundError"}, "unknown"),
        ({"type": "ConnectionResetError"}, "unreachable"),
        ({"type": "asyncio.exceptions:CancelledError"}, "aborted"),
        ({"type": "holdfast.errors:StepLost", "code": "step_lost"}, "lost"),
        ({"type": "shop:Declined", "code": "fatal"}, "refused"),
        ({"type": "holdfast.errors:PayloadError", "code": "payload"}, "wrong_value"),
        ({"type": "RuntimeError", "message": "connection aborted: timed out"}, "unknown"),
        ({"type": "RuntimeError", "cause": {"type": "ValueError", "cause": TIMEOUT}}, "timeout"),
        ({}, "unknown"),
        (None, "unknown"),
    ],
)
def test_causes_follow_from_classes_not_from_words(error: dict[str, Any] | None, cause: str) -> None:
    assert cause_of(error) == cause


def steps_of(*outcomes: tuple[str, int]) -> dict[str, StepTold]:
    return {f"s#{n}": StepTold(f"s#{n}", attempts, what) for n, (what, attempts) in enumerate(outcomes)}


def test_confidence_is_what_the_code_said_else_what_the_steps_say() -> None:
    assert confidence({}, None) is None
    assert confidence({}, 0.3) == 0.3
    assert confidence(steps_of(("completed", 1), ("completed", 1)), None) == 1.0
    assert confidence(steps_of(("completed", 2), ("completed", 1)), None) == 0.8333
    assert confidence(steps_of(("completed", 1), ("failed", 1)), None) == 0.5
    assert confidence(steps_of(("completed", 1), ("", 0)), None) == 0.5
    cancelled = steps_of(("completed", 1), ("failed", 1))
    cancelled["s#1"].error = {"type": "asyncio.exceptions:CancelledError"}
    assert confidence(cancelled, None) == 1.0


def test_what_was_learnt_is_what_needed_several_attempts() -> None:
    steps = steps_of(("completed", 3))
    steps["s#0"].first_error = {"type": "ConnectionError", "message": "no line"}
    told = retrospective("ship", 2, steps, 200_000)
    assert told == {
        "summary": "Done in 0.20 s (2 retries).",
        "approach": "Workflow ship (1 step, 2 agents)",
        "timeSpent": "0.20 s",
        "learnings": ["s#0 needed 3 attempts; the first failed with ConnectionError: no line"],
    }


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.00 s"),
        (0.25, "0.25 s"),
        (59, "59.0 s"),
        (125, "2 min 5 s"),
        (3600, "1 h"),
        (180_000, "2 d 2 h"),
    ],
)
def test_times_are_told_as_people_say_them(seconds: float, text: str) -> None:
    assert span(round(seconds * 1e6)) == text


# ---- recording ----------------------------------------------------------------------------------------------


async def test_a_worker_keeps_the_trails_of_its_runs(tmp_path: Path) -> None:
    folder = TrailFolder(tmp_path / "trails")
    async with hf.connect(f"sqlite:///{tmp_path}/app.db") as app:
        async with app.worker(trails=folder):
            run = await app.start(everything, "pages", run_id="one")
            failing = await app.start(everything, "", run_id="two")
            await resume(app, "go:one")
            await resume(app, "go:two")
            assert await run.result() == "published pages"
            with pytest.raises(hf.RunFailed, match="nobody answered"):
                await failing.result()
        listed = {s.status: s for s in folder.list()}
        assert set(listed) == {"completed", "abandoned"}
        # Recorded while it went on, in parts, it is what is recorded of it at once.
        again = TrailFolder(tmp_path / "again")
        async for recorded in record_all(app.store, again):
            assert journal(again, recorded.trail) == journal(folder, recorded.trail)
    failed = folder.load(listed["abandoned"].id)
    assert [e.content for e in failed.events if e.type == "error"] == [
        "publish#1 failed [timeout] after 1 attempt: TimeoutError: nobody answered",
        "TimeoutError: nobody answered",
    ]
    assert {e.agent for e in failed.events if e.type == "error"} == {"cleo"}


async def test_recording_again_changes_nothing(tmp_path: Path) -> None:
    folder = TrailFolder(tmp_path / "trails")
    async with hf.connect(f"sqlite:///{tmp_path}/app.db") as app, app.worker():
        run = await app.start(three_agents, 3, run_id="order/1 ä")
        await run.result()
        first = await record(app.store, run.id, folder)
        assert (first.status, first.ended) == ("completed", True)
        files = {path: path.read_bytes() for path in folder.root.rglob("*") if path.is_file()}
        assert (await record(app.store, run.id, folder)).new == 0
        assert [recorded async for recorded in record_all(app.store, folder)] == []
        assert {path: path.read_bytes() for path in folder.root.rglob("*") if path.is_file()} == files
        with pytest.raises(hf.RunNotFound):
            await record(app.store, "nobody", folder)


async def test_runs_are_followed_by_two_at_once(tmp_path: Path) -> None:
    """Each alone would do; together they write one journal, and its bytes are those of the log."""
    folders = [TrailFolder(tmp_path / "trails") for _ in range(2)]
    async with hf.connect(f"sqlite:///{tmp_path}/app.db") as app, app.worker():
        runs = [await app.start(waits_in_a_chapter, f"t{n}") for n in range(5)]
        ids = [run.id for run in runs]

        async def keep(folder: TrailFolder) -> int:
            return sum([recorded.new async for recorded in follow(app.store, folder, ids)])

        keepers = [asyncio.create_task(keep(folder)) for folder in folders]
        for number in range(5):
            await app.resume(f"t{number}", "yes")
        counts = await asyncio.gather(*keepers)
        for run in runs:
            log = await app.store.read(run.id)
            trail_id, expected = trail_of(run.id, log[0].time), TrailFolder(tmp_path / "alone")
            expected.absorb(trail_id, entries_of(run.id, log, redact=expected.files.redact))
            assert journal(folders[0], trail_id) == journal(expected, trail_id)
            assert folders[0].load(trail_id).status == "completed"
    assert sum(counts) == sum(len(folders[0].entries(s.id)) for s in folders[0].list())


async def test_late_outcomes_are_found_by_who_starts_later(tmp_path: Path) -> None:
    folder = TrailFolder(tmp_path / "trails")
    async with hf.connect(f"sqlite:///{tmp_path}/app.db") as app:
        store = app.store
        begun = [
            new("run_created", data={"workflow": "w", "args": {}}),
            new("step_scheduled", key="s#1", data={"args": {}}),
            new("step_started", key="s#1", data={"attempt": 1, "worker": "w"}),
        ]
        await store.append("r", begun, after=0)
        await store.append("r", [new("run_completed", data={"value": 1})], after=3)
        first = await record(store, "r", folder)
        await store.append("r", [new("step_completed", key="s#1", data={"attempt": 1, "value": 7})])
        assert [(r.trail, r.new) async for r in record_all(store, folder)] == [(first.trail, 1)]
        assert [r.new async for r in record_all(store, folder)] == [0]  # looked at again, nothing new
    assert [e.content for e in folder.load(first.trail).events if e.late] == ["s#1 gave 7"]


async def test_a_recorder_that_fails_is_loud_and_no_run_notices(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "trails").write_text("a file, where a folder should be")
    async with hf.connect(f"sqlite:///{tmp_path}/app.db") as app:
        with caplog.at_level(logging.ERROR, "holdfast.trail"):
            async with app.worker(trails=tmp_path / "trails"):
                run = await app.start(three_agents, 2)
                assert await run.result() == 6
        assert any(r.name == "holdfast.trail" and r.levelno >= logging.ERROR for r in caplog.records)
        # Mended, the next one catches up.
        (tmp_path / "trails").unlink()
        async with app.worker(trails=tmp_path / "trails"):
            pass
    (summary,) = TrailFolder(tmp_path / "trails").list()
    assert summary.status == "completed"


async def test_a_worker_that_begins_to_keep_trails_leaves_old_runs_alone(tmp_path: Path) -> None:
    """Those that had ended long before are left to `holdfast trail record`; what came since is all there."""

    async def has_run(run_id: str) -> None:
        created = new("run_created", data={"workflow": "three_agents", "args": {"pages": 1}})
        await app.store.append(run_id, [created], after=0)
        await app.store.append(run_id, [new("run_completed", data={"value": 3})], after=1)
        clock.advance(7200)

    def recorded() -> set[str]:
        return {folder.load(s.id).task.source.id for s in folder.list()}  # type: ignore[union-attr]

    clock, folder = ManualClock(), TrailFolder(tmp_path / "trails")
    async with hf.connect(f"sqlite:///{tmp_path}/app.db", clock=clock) as app:
        await has_run("old")
        async with app.worker(trails=folder):
            await (await app.start(three_agents, 0, run_id="first")).result()
        assert recorded() == {"first"}
        await has_run("missed")  # nobody kept trails just then
        async with app.worker(trails=folder):
            await (await app.start(three_agents, 0, run_id="second")).result()
        assert recorded() == {"first", "missed", "second"}
        assert [r.run async for r in record_all(app.store, folder)] == ["old"]


async def test_only_the_workers_own_workflows_are_kept(tmp_path: Path) -> None:
    async with hf.connect(f"sqlite:///{tmp_path}/app.db") as app:
        await app.store.append("alien", [new("run_created", data={"workflow": "alien", "args": {}})], after=0)
        async with app.worker(trails=tmp_path / "trails"):
            await (await app.start(three_agents, 1)).result()
    assert [summary.title for summary in TrailFolder(tmp_path / "trails").list()] == ["three_agents"]


async def test_killed_and_started_again_it_goes_on(tmp_path: Path) -> None:
    """kill -9 of a worker that keeps trails, while its runs are under way; another one completes both."""
    url, folder = f"sqlite:///{tmp_path}/app.db", TrailFolder(tmp_path / "trails")
    command = [sys.executable, trail_flows.__file__, url, str(folder.root)]

    def serve() -> subprocess.Popen[str]:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        assert child.stdout.readline() == "serving\n"
        return child

    async with hf.connect(url) as app:
        children = []
        try:
            children.append(serve())
            runs = [await app.start(everything, "pages", run_id=f"r{n}") for n in range(3)]
            async with asyncio.timeout(PATIENCE):
                while len(folder.list()) < 3:
                    await asyncio.sleep(0.01)
            children[0].send_signal(signal.SIGKILL)
            children[0].wait()
            children.append(serve())
            for run in runs:
                await resume(app, f"go:{run.id}")
            for run in runs:
                assert await run.result(PATIENCE) == "published pages"
            async with asyncio.timeout(PATIENCE):
                while [s.status for s in folder.list()] != ["completed"] * 3:
                    await asyncio.sleep(0.01)
        finally:
            for child in children:
                child.kill()
                child.wait()
                assert child.stdout is not None
                child.stdout.close()
        again = TrailFolder(tmp_path / "again")
        async for recorded in record_all(app.store, again):
            assert journal(again, recorded.trail) == journal(folder, recorded.trail)


def test_a_worker_without_trails_loads_nothing_of_them() -> None:
    script = """
import asyncio, sys
import holdfast as hf

@hf.workflow
async def quick() -> int:
    return 1

async def main():
    async with hf.connect("memory://") as app, app.worker():
        await (await app.start(quick)).result()

asyncio.run(main())
print([name for name in sys.modules if name.startswith("holdfast.trail")])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


if __name__ == "__main__":
    for golden in GOLDEN.glob("*.jsonl"):
        golden.write_bytes(b"".join(line.encode(e) for e in entries_of(golden.stem, LOGS[golden.stem])))
