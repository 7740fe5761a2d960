"""Trails go to other tools and come from them: nothing is lost on the way, and nothing refuses what we write."""

import hashlib
import json
import subprocess
from collections import Counter
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from generated import trails
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.cli.trail import exchange
from holdfast.errors import PayloadError
from holdfast.trail import TrailFolder, export, formats
from holdfast.trail.fold import fold
from holdfast.trail.formats import agent_trace, atif, otel
from holdfast.trail.formats.intake import import_file
from holdfast.trail.model import Chapter, Event, Retrospective, Source, Task, Trace, Trail
from holdfast.trail.retell import entries_of

LAW = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
WHEN = datetime(2026, 3, 1, 9, tzinfo=UTC)


def story() -> Trail:
    """Two agents, a call that works, one that fails, one without an answer, and an answer to nothing."""
    told = [
        ("prompt", "Make the login work", None),
        ("thinking", "Names with a quote fail", None),
        ("tool_call", "read login.py", {"call_id": "c1", "tool": "read", "arguments": {"path": "login.py"}}),
        ("tool_call", "run tests", {"tool_call_id": "c2", "name": "run", "input": ["tests"]}),
        ("tool_result", "2 failed", {"tool_call_id": "c2", "is_error": True}),
        ("tool_result", "def login(): …", {"call_id": "c1"}),
        (
            "decision",
            "How: quote it",
            {"question": "How", "chosen": "quote it", "alternatives": ["refuse it"]},
        ),
        ("finding", "The form is in login.py", None),
        ("tool_call", "deploy", None),
        ("tool_result", "disk is full", {"call_id": "nobody's"}),
    ]
    events = [
        Event(
            ts=1_772_355_600_000 + n * 1000,
            type=type,
            content=content,
            raw=raw,
            id=f"evt_{n}",
            seq=n,
            agent="ana",
        )
        for n, (type, content, raw) in enumerate(told, start=1)
    ]
    return Trail(
        id="traj_story",
        task=Task(title="Fix the login", source=Source(system="linear", id="E-1", url="https://x.y/E-1")),
        status="completed",
        started_at=WHEN,
        completed_at=WHEN.replace(hour=10),
        chapters=[
            Chapter(id="chap_a", title="Fix", agent_name="ana", started_at=WHEN, events=events[:8]),
            Chapter(
                id="chap_b",
                title="Ship",
                agent_name="ben",
                started_at=WHEN,
                parent="chap_a",
                events=events[8:],
            ),
        ],
        retrospective=Retrospective(summary="Quoted", confidence=0.9),
    )


# ---- what holds for all that is written


def test_the_command_line_knows_the_formats_of_both_tables():
    assert set(exchange._DOCUMENTS) == set(export.FORMATS)
    assert set(exchange._OTHERS) == set(formats.WRITTEN)


@LAW
@given(trails(), st.sampled_from(["atif", "otel"]))
def test_any_trail_becomes_json_that_strict_readers_take(trail, format):
    text = formats.export(trail, format)
    json.loads(text.encode("utf-8").decode("utf-8"), parse_constant=pytest.fail)
    assert text == formats.export(trail, format)


def test_a_format_that_nobody_knows_is_named():
    with pytest.raises(PayloadError, match=r"format: expected one of atif, otel, agent-trace, got 'md'"):
        formats.export(story(), "md")


# ---- ATIF

_STEP = {
    "step_id",
    "timestamp",
    "source",
    "message",
    "reasoning_content",
    "tool_calls",
    "observation",
    "extra",
}
_AGENT_ONLY = {"reasoning_content", "tool_calls"}


def assert_is_atif(data: dict[str, Any]) -> None:
    """What the validators of Harbor 0.25 demand of the keys that we write."""
    assert set(data) == {
        *("schema_version", "session_id", "trajectory_id", "agent", "steps", "final_metrics", "extra"),
    }
    assert data["schema_version"] == "ATIF-v1.7"
    assert set(data["agent"]) == {"name", "version"}
    assert all(isinstance(value, str) for value in data["agent"].values())
    assert data["final_metrics"] == {"total_steps": len(data["steps"])}
    assert [step["step_id"] for step in data["steps"]] == list(range(1, len(data["steps"]) + 1)) != []
    for step in data["steps"]:
        assert set(step) <= _STEP
        assert step["source"] in ("system", "user", "agent")
        assert isinstance(step["message"], str)
        assert step["source"] == "agent" or not _AGENT_ONLY & set(step)
        datetime.fromisoformat(step["timestamp"])
        called = [call["tool_call_id"] for call in step.get("tool_calls", ())]
        for call in step.get("tool_calls", ()):
            assert set(call) == {"tool_call_id", "function_name", "arguments"}
            assert isinstance(call["tool_call_id"], str)
            assert isinstance(call["function_name"], str)
            assert isinstance(call["arguments"], dict)
        for result in step.get("observation", {"results": ()})["results"]:
            assert set(result) <= {"source_call_id", "content", "extra"}
            assert isinstance(result["content"], str)
            assert "source_call_id" not in result or result["source_call_id"] in called


@LAW
@given(trails())
def test_any_trail_is_a_valid_trajectory_that_tells_each_event_once(trail):
    data = atif.of_trail(trail)
    assert_is_atif(data)
    calls = [call for step in data["steps"] for call in step.get("tool_calls", ())]
    results = [r for step in data["steps"] if "observation" in step for r in step["observation"]["results"]]
    counts = Counter(event.type for event in trail.events)
    assert (len(calls), len(results)) == (counts["tool_call"], counts["tool_result"])
    assert Counter(r["content"] for r in results) == Counter(
        event.content for event in trail.events if event.type == "tool_result"
    )


@LAW
@given(trails())
def test_what_we_wrote_as_a_trajectory_is_the_same_trail_again(trail):
    assert formats.to_trail(json.loads(json.dumps(atif.of_trail(trail)))) == trail


def test_a_trajectory_shows_a_dialogue_to_a_reader_that_does_not_know_us():
    steps = atif.of_trail(story())["steps"]
    assert [(step["source"], step["message"]) for step in steps[:3]] == [
        ("user", "Fix the login"),
        ("user", "Make the login work"),
        ("agent", ""),
    ]
    assert steps[2]["reasoning_content"] == "Names with a quote fail"
    read, run, decided, _, deploy, full = steps[3:]
    assert read["tool_calls"][0]["arguments"] == {"path": "login.py"}
    assert read["observation"]["results"][0]["content"] == "def login(): …"
    assert run["tool_calls"][0] == {
        "tool_call_id": "c2",
        "function_name": "run",
        "arguments": {"input": ["tests"]},
    }
    assert run["observation"]["results"][0] | {"extra": 0} == {
        "source_call_id": "c2",
        "content": "2 failed",
        "extra": 0,
    }
    assert decided["extra"]["decision"]["alternatives"] == ["refuse it"]
    assert "observation" not in deploy
    assert (full["source"], full["observation"]["results"][0]["content"]) == ("system", "disk is full")


def theirs(**more: Any) -> dict[str, Any]:
    """A trajectory as other tools write it."""
    steps = [
        {"step_id": 1, "source": "system", "message": "You are careful", "timestamp": "2026-03-01T09:00:00Z"},
        {"step_id": 2, "source": "user", "message": [{"type": "text", "text": "Count the files\nplease"}]},
        {
            "step_id": 3,
            "source": "agent",
            "timestamp": "2026-03-01T10:00:05.5+01:00",
            "model_name": "m-1",
            "message": "I look",
            "reasoning_content": "ls will do",
            "tool_calls": [
                {"tool_call_id": "a", "function_name": "ls", "arguments": {"dir": "."}},
                {"tool_call_id": "b", "function_name": "wc", "arguments": {}},
            ],
            "observation": {
                "results": [
                    {"source_call_id": "b", "content": "7"},
                    {
                        "source_call_id": "a",
                        "content": [
                            {"type": "image", "source": {"media_type": "image/png", "path": "a.png"}}
                        ],
                    },
                    {"content": None},
                ]
            },
            "metrics": {"prompt_tokens": 11, "cost_usd": 0.5},
        },
        {"step_id": 4, "source": "agent", "message": ""},
    ]
    agent = {"name": "counter", "version": "2", "model_name": "m-0"}
    return {"schema_version": "ATIF-v1.5", "session_id": "s-1", "agent": agent, "steps": steps} | more


def test_a_trajectory_of_another_tool_becomes_a_trail():
    trail = formats.to_trail(theirs(notes="kept", final_metrics={"total_cost_usd": 0.5}))
    assert trail.title == "Count the files"
    assert [(e.type, e.content) for e in trail.events] == [
        ("prompt", "You are careful"),
        ("prompt", "Count the files\nplease"),
        ("thinking", "ls will do"),
        ("message_sent", "I look"),
        ("tool_call", 'ls({"dir": "."})'),
        ("tool_call", "wc()"),
        ("tool_result", "7"),
        ("tool_result", "[image: a.png]"),
        ("tool_result", "(empty)"),
        ("message_sent", "(empty)"),
    ]
    thinking = trail.events[2]
    assert thinking.raw == {"step": {"model_name": "m-1", "metrics": {"prompt_tokens": 11, "cost_usd": 0.5}}}
    assert thinking.occurred_at == datetime(2026, 3, 1, 9, 0, 5, 500_000, tzinfo=UTC)
    assert trail.events[1].occurred_at == WHEN  # that of the step before
    assert trail.events[0].tags == ["system"]
    assert trail.extra["atif"]["notes"] == "kept"
    assert trail.extra["atif"]["final_metrics"] == {"total_cost_usd": 0.5}
    again = atif.of_trail(trail)
    assert [
        (call["function_name"], step["observation"]["results"][0]["content"])
        for step in again["steps"]
        for call in step.get("tool_calls", ())
    ] == [("ls", "[image: a.png]"), ("wc", "7")]


def test_subagents_have_chapters_inside_their_parents():
    inner = theirs(agent={"name": "helper", "version": "1"}, trajectory_id="inner")
    outer = theirs(subagent_trajectories=[theirs(trajectory_id="sub", subagent_trajectories=[inner])])
    trail = formats.to_trail(outer)
    top, sub, deep = trail.chapters
    assert (top.parent, sub.parent, deep.parent) == (None, top.id, sub.id)
    assert [(agent.name, agent.role) for agent in trail.agents] == [
        ("counter", "lead"),
        ("helper", "subagent"),
    ]
    assert len({event.id for event in trail.events}) == 30


def test_taking_a_file_in_twice_is_taking_it_in_once_and_a_file_that_has_grown_adds_what_is_new(
    folder, tmp_path
):
    file = tmp_path / "trajectory.json"
    data = theirs()
    for step in data["steps"]:
        step.pop("timestamp", None)  # dated with the file's time, which changes
    file.write_text(json.dumps(data))
    assert import_file(folder, file).added == 1
    file.write_text(json.dumps(data, indent=4))
    assert import_file(folder, file).unchanged == 1
    data["steps"].append({"step_id": 5, "source": "agent", "message": "There are 7"})
    file.write_text(json.dumps(data))
    assert import_file(folder, file).updated == 1
    (line,) = folder.list()
    events = folder.load(line.id).events
    assert [event.content for event in events[-2:]] == ["(empty)", "There are 7"]
    assert len(events) == 11


def test_our_own_trajectory_comes_back_into_its_trail(folder, tmp_path):
    with folder.start("Count", agent="ana") as trail:
        trail.event("tool_call", "ls .", raw={"call_id": 1})
        trail.event("tool_result", "7 files", raw={"call_id": 1})
        trail.decide("How many", "7")
        trail.complete(summary="Counted")
    file = tmp_path / "x.json"
    file.write_text(formats.export(folder.load(trail.id), "atif"))
    assert import_file(folder, file).unchanged == 1
    elsewhere = TrailFolder(tmp_path / "elsewhere")
    assert import_file(elsewhere, file).added == 1
    there, here = elsewhere.load(trail.id), folder.load(trail.id)
    assert [(e.id, e.type, e.content, e.raw) for e in there.events] == [
        (e.id, e.type, e.content, e.raw) for e in here.events
    ]
    assert there.retrospective == here.retrospective


def at(data: Any, *path: Any) -> Any:
    for key in path:
        data = data[key]
    return data


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("schema_version",), "ATIF-v2.0", "expected ATIF-v1.x, got 'ATIF-v2.0' - at `$.schema_version`"),
        (("steps",), {}, "expected `array`, got `object` - at `$.steps`"),
        (("steps", 0, "message"), None, "$.steps[0].message"),
        (
            ("steps", 0, "timestamp"),
            "soon",
            "expected an ISO 8601 time, got 'soon' - at `$.steps[0].timestamp`",
        ),
        (("steps", 0, "timestamp"), "0001-01-01T00:00:00+23:00", "$.steps[0].timestamp"),
        (("steps", 2, "tool_calls", 0, "arguments"), "x", "$.steps[2].tool_calls[0].arguments"),
        (("agent",), None, "$.agent"),
    ],
)
def test_a_malformed_trajectory_is_told_with_the_place(path, value, says):
    data = theirs()
    at(data, *path[:-1])[path[-1]] = value
    with pytest.raises(PayloadError) as refused:
        formats.to_trail(data)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("extra", "holdfast", "task"), 3, "$.extra.holdfast: expected `object`, got `int` - at `$.task`"),
        (("extra", "holdfast", "id"), "../x", "at `$.id`"),
        (("steps", 1, "extra", "holdfast"), [], "$.steps[1].extra.holdfast"),
        (
            ("steps", 1, "extra", "holdfast", "at"),
            [9, 0],
            "$.steps[1].extra.holdfast.at: expected a chapter below 2",
        ),
        (
            ("steps", 1, "extra", "holdfast", "event", "ts"),
            "x",
            "$.steps[1]: expected `int`, got `str` - at `$.ts`",
        ),
    ],
)
def test_so_is_a_trajectory_of_ours_that_was_edited(path, value, says):
    data = json.loads(json.dumps(atif.of_trail(story())))
    at(data, *path[:-1])[path[-1]] = value
    with pytest.raises(PayloadError) as refused:
        formats.to_trail(data)
    assert says in str(refused.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)


def places_in(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """All places in JSON data but the top."""
    inside = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [found for key, value in inside for found in [(*path, key), *places_in(value, (*path, key))]]


@LAW
@given(st.data())
def test_damage_anywhere_is_refused_in_words_or_gives_a_trail_that_can_be_stored(data):
    given_ = data.draw(st.sampled_from([theirs(), atif.of_trail(story()), traj()]))
    whole = json.loads(json.dumps(given_))
    path = data.draw(st.sampled_from(places_in(whole)))
    at(whole, *path[:-1])[path[-1]] = data.draw(json_values)
    try:
        trail = formats.to_trail(whole, when=WHEN)
    except PayloadError:
        return
    entries = list(entries_of(trail, origin="x"))
    assert len(fold(trail.id, entries).events) >= len(trail.events)


@pytest.mark.parametrize("levels", [100, 5000, 50_000])
def test_data_that_is_nested_too_deeply_is_refused_in_words(levels):
    data = theirs()
    deep: list[Any] = []
    for _ in range(levels):
        deep = [deep]
    data["steps"][2]["tool_calls"][0]["arguments"] = {"deep": deep}
    with pytest.raises(PayloadError, match="atif is nested too deeply: expected JSON of at most 100 levels"):
        formats.to_trail(data)


# ---- SWE-agent


def traj(**info: Any) -> dict[str, Any]:
    """A file as SWE-agent 1.1 writes it."""
    problem = {"type": "text", "id": "repo-1", "text": "Divide by zero\nin a.py"}
    return {
        "trajectory": [
            {
                "response": "I look.\nls -a",
                "thought": "I look.",
                "action": "ls -a\n",
                "observation": "a.py",
                "state": {"working_dir": "/r"},
                "query": [{"role": "system", "content": "much text"}],
                "execution_time": 0.25,
                "extra_info": {},
            },
            {
                "response": "done",
                "thought": "done",
                "action": "submit",
                "observation": "",
                "execution_time": 0.1,
            },
        ],
        "history": [
            {"role": "system", "content": "You are careful"},
            {"role": "user", "content": "an example", "is_demo": True},
            {"role": "user", "content": [{"type": "text", "text": "Solve it"}]},
        ],
        "info": info,
        "environment": "main",
        "replay_config": json.dumps({"problem_statement": problem}),
    }


PATCH = "diff --git a/a.py b/a.py\n--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-x\n+y\n"


def test_a_run_of_swe_agent_becomes_a_trail():
    stats = {"instance_cost": 0.1, "api_calls": 2}
    trail = formats.to_trail(traj(exit_status="submitted", submission=PATCH, model_stats=stats), when=WHEN)
    assert trail.title == "repo-1: Divide by zero"
    assert [(e.type, e.content) for e in trail.events] == [
        ("prompt", "Solve it"),
        ("thinking", "I look."),
        ("tool_call", "ls -a"),
        ("tool_result", "a.py"),
        ("thinking", "done"),
        ("tool_call", "submit"),
        ("tool_result", "(no output)"),
        ("completion-evidence", PATCH),
    ]
    call, result = trail.events[2].raw, trail.events[3].raw
    assert (call["tool"], call["call_id"]) == ("ls", result["call_id"])
    assert result["execution_time"] == 0.25
    assert "query" not in result
    assert (trail.status, trail.files_changed) == ("completed", ["a.py"])
    assert trail.extra["swe_agent"] == {"exit_status": "submitted", "model_stats": stats}
    (first, second) = [step for step in atif.of_trail(trail)["steps"] if "tool_calls" in step]
    assert first["observation"]["results"][0]["content"] == "a.py"
    assert second["tool_calls"][0]["arguments"] == {"command": "submit"}


def test_a_run_that_gave_up_is_abandoned_and_one_that_goes_on_is_completed_later(folder, tmp_path):
    assert formats.to_trail(traj(exit_status="exit_cost")).abandon_reason == "exit_cost"
    file = tmp_path / "repo-1.traj"
    file.write_text(json.dumps(traj(exit_status=None)))
    assert import_file(folder, file).added == 1
    assert [line.status for line in folder.list()] == ["active"]
    file.write_text(json.dumps(traj(exit_status="submitted", submission=PATCH)))
    assert import_file(folder, file).updated == 1
    assert import_file(folder, file).unchanged == 1
    assert [line.status for line in folder.list()] == ["completed"]
    assert Counter(e.type for e in folder.load(folder.list()[0].id).events)["tool_call"] == 2


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("trajectory",), "x", "SWE-agent: expected `array`, got `str` - at `$.trajectory`"),
        (("trajectory", 1, "action"), 3, "expected `str | null`, got `int` - at `$.trajectory[1].action`"),
        (("info",), [], "at `$.info`"),
    ],
)
def test_a_malformed_run_is_told_with_the_place(path, value, says):
    data = traj()
    at(data, *path[:-1])[path[-1]] = value
    with pytest.raises(PayloadError) as refused:
        formats.to_trail(data)
    assert says in str(refused.value)


def test_a_file_that_does_not_fit_is_reported_and_one_of_no_such_format_is_left_to_others(folder, tmp_path):
    file = tmp_path / "x.json"
    file.write_text(json.dumps(theirs(agent=3)))
    (failure,) = import_file(folder, file).failures
    assert (failure.path, failure.reason) == ("x.json", "schema")
    assert "$.agent" in failure.message
    for other in (
        "{",
        "[]",
        '{"schema_version": 1}',
        '{"version": 1, "trajectory": "traj_x", "info": 1}',
        "[" * 99999,
    ):
        file.write_text(other)
        assert import_file(folder, file) is None
    assert import_file(folder, tmp_path) is import_file(folder, tmp_path / "gone") is None


# ---- OpenTelemetry


def spans_of(trail: Trail) -> list[dict[str, Any]]:
    (resource,) = otel.of_trail(trail)["resourceSpans"]
    (scope,) = resource["scopeSpans"]
    return scope["spans"]


def attributes(of: dict[str, Any]) -> dict[str, Any]:
    return {one["key"]: next(iter(one["value"].values())) for one in of["attributes"]}


@LAW
@given(trails())
def test_the_spans_of_any_trail_are_one_tree_and_well_nested(trail):
    spans = spans_of(trail)
    by_id = {span["spanId"]: span for span in spans}
    assert len(by_id) == len(spans)
    assert all(len(span["spanId"]) == 16 and len(span["traceId"]) == 32 for span in spans)
    assert len({span["traceId"] for span in spans}) == 1
    assert [span for span in spans if "parentSpanId" not in span] == [spans[0]]
    for span in spans:
        start, end = int(span["startTimeUnixNano"]), int(span["endTimeUnixNano"])
        assert 0 <= start <= end < 2**63
        for event in span["events"]:
            assert start <= int(event["timeUnixNano"]) <= end
        above, seen = span, set()
        while "parentSpanId" in above:
            assert above["spanId"] not in seen
            seen.add(above["spanId"])
            above = by_id[above["parentSpanId"]]
            assert int(above["startTimeUnixNano"]) <= start
            assert end <= int(above["endTimeUnixNano"])
        for one in [*span["attributes"], *(a for e in span["events"] for a in e["attributes"])]:
            assert set(one) == {"key", "value"}
            assert len(one["value"]) == 1


@LAW
@given(trails())
def test_each_chapter_each_call_and_each_other_event_is_in_the_trace_once(trail):
    spans = spans_of(trail)
    kinds = Counter(attributes(span)["gen_ai.operation.name"] for span in spans)
    types = Counter(event.type for event in trail.events)
    assert (kinds["invoke_workflow"], kinds["invoke_agent"]) == (1, len(trail.chapters))
    results = [span for span in spans if "gen_ai.tool.call.result" in attributes(span)]
    asked = [span for span in spans if "gen_ai.tool.call.arguments" in attributes(span)]
    assert (len(results), len(asked)) == (types.pop("tool_result", 0), types.pop("tool_call", 0))
    assert Counter(event["name"] for span in spans for event in span["events"]) == Counter(
        {f"holdfast.{type}": count for type, count in types.items()}
    )


def test_a_trace_shows_who_worked_inside_whom_and_what_each_tool_came_to():
    root, ana, ben, read, run, deploy, orphan = spans_of(story())
    assert (root["name"], ana["name"], ben["name"]) == (
        "invoke_workflow Fix the login",
        "invoke_agent ana",
        "invoke_agent ben",
    )
    assert (ana["parentSpanId"], ben["parentSpanId"]) == (root["spanId"], ana["spanId"])
    assert [tool["name"] for tool in (read, run, deploy, orphan)] == [
        *("execute_tool read", "execute_tool run", "execute_tool deploy", "execute_tool disk"),
    ]
    assert json.loads(attributes(read)["gen_ai.tool.call.arguments"]) == {"path": "login.py"}
    assert int(read["endTimeUnixNano"]) - int(read["startTimeUnixNano"]) == 3 * 10**9
    assert run["status"] == {"code": 2, "message": "2 failed"}
    assert read["status"] == {}
    decision = next(event for event in ana["events"] if event["name"] == "holdfast.decision")
    assert attributes(decision)["holdfast.decision.chosen"] == "quote it"
    assert attributes(root)["holdfast.trail.summary"] == "Quoted"


def test_a_trail_that_has_grown_extends_its_trace():
    before = {span["spanId"]: span["name"] for span in spans_of(story())}
    grown = story()
    grown.chapters[0].events.append(Event(ts=1_772_355_700_000, type="tool_call", content="ls", seq=99))
    after = {span["spanId"]: span["name"] for span in spans_of(grown)}
    assert before.items() < after.items()


def test_the_bytes_of_a_trace_do_not_change():
    """A change of this number changes what users have in their collectors: say it in the changelog."""
    digest = hashlib.sha256(formats.export(story(), "otel").encode()).hexdigest()
    assert digest[:16] == "befd6fd2c5e18fe3"


# ---- Agent Trace


@pytest.fixture
def repository(tmp_path):
    place = tmp_path / "repo with ü"
    place.mkdir()

    def git(*words: str) -> str:
        who = ["-c", "user.name=t", "-c", "user.email=t@x.y", "-c", "commit.gpgsign=false"]
        return subprocess.run(
            ["git", *who, *words], cwd=place, check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init", "-q")
    git.place = place
    return git


def commit(git: Any, **files: str) -> str:
    for name, text in files.items():
        (git.place / name).write_text(text)
    git("add", "-A")
    git("commit", "-q", "-m", "x")
    return git("rev-parse", "HEAD")


def test_the_ranges_of_a_trace_are_the_lines_that_the_work_wrote(repository):
    start = commit(repository, a="1\n2\n3\n4\n5\n", gone="x\n", moved="m\n" * 20)
    repository("mv", "moved", "new place")
    repository("rm", "-q", "gone")
    hostile = 'q"\\\tü\n'
    end = commit(
        repository, a="1\nzwei\n3\n5\n6\n7", **{hostile: "+++ b/x\n--- a/y\n@@ -1 +1 @@\n", "bin": "\0\1"}
    )
    repository("config", "diff.noprefix", "true")
    repository("config", "diff.mnemonicPrefix", "true")
    repository("config", "color.ui", "always")
    trail = story()
    trail.trace = Trace(start_ref=start[:9], end_ref=end)
    data = json.loads(formats.export(trail, "agent-trace", repository=repository.place))
    assert (data["version"], data["vcs"]) == ("0.1.0", {"type": "git", "revision": end})
    assert data["timestamp"] == "2026-03-01T10:00:00.000Z"
    told = {
        file["path"]: [(r["start_line"], r["end_line"]) for c in file["conversations"] for r in c["ranges"]]
        for file in data["files"]
    }
    assert told == {"a": [(2, 2), (5, 6)], hostile: [(1, 3)]}
    (conversation,) = data["files"][0]["conversations"]
    assert conversation["contributor"] == {"type": "ai"}
    assert conversation["related"] == [
        {"type": "trail", "url": "urn:holdfast:trail:traj_story"},
        {"type": "task", "url": "https://x.y/E-1"},
    ]
    digest = hashlib.sha256(b"6\n7").hexdigest()
    assert conversation["ranges"][1]["content_hash"] == f"sha256:{digest}"
    assert str(UUID(data["id"])) == data["id"]
    assert data == json.loads(formats.export(trail, "agent-trace", repository=repository.place))


def test_work_that_is_not_committed_counts_and_is_marked(repository):
    start = commit(repository, a="1\n2\n")
    end = commit(repository, a="1\n2\n3\n")
    (repository.place / "a").write_text("0\n1\n2\n3\n")
    (repository.place / "new").write_text("x\ny")
    (repository.place / "empty").write_text("")
    (repository.place / ".trajectories").mkdir()
    (repository.place / ".trajectories" / "x.md").write_text("a trail\n")
    trail = story()
    trail.trace = Trace(start_ref=start)
    text = formats.export(
        trail, "agent-trace", repository=repository.place, without=repository.place / ".trajectories"
    )
    data = json.loads(text)
    assert data["metadata"]["dev.holdfast"] == {
        "trail": "traj_story",
        "start": start,
        "uncommitted": {"a": [[1, 1]], "new": [[1, 2]]},
    }
    (a, new) = data["files"]
    assert [[(r["start_line"], r["end_line"]) for r in c["ranges"]] for c in a["conversations"]] == [
        [(3, 3)],
        [(1, 1)],
    ]
    assert (new["path"], new["conversations"][0]["ranges"][0]["end_line"]) == ("new", 2)
    commit(repository)
    trail.trace.end_ref = end  # others went on after the end: what they do is not this trail's
    (repository.place / "new").write_text("not ours\n")
    later = json.loads(formats.export(trail, "agent-trace", repository=repository.place))
    assert "uncommitted" not in later["metadata"]["dev.holdfast"]
    assert [file["path"] for file in later["files"]] == ["a"]


@pytest.mark.parametrize("start", ["0" * 40, "--output=pwned", "HEAD:a", "x\0y", "\ud800"])
def test_a_commit_that_git_does_not_know_is_told(repository, start):
    commit(repository, a="1\n")
    trail = story()
    trail.trace = Trace(start_ref=start)
    with pytest.raises(PayloadError, match="git"):
        formats.export(trail, "agent-trace", repository=repository.place)
    assert not (repository.place / "pwned").exists()


def test_without_a_commit_or_a_repository_there_is_no_trace(tmp_path):
    with pytest.raises(PayloadError, match="expected the commit at which the work began"):
        formats.export(story(), "agent-trace", repository=tmp_path)
    trail = story()
    trail.trace = Trace(start_ref="HEAD")
    with pytest.raises(PayloadError, match="git rev-parse"):
        formats.export(trail, "agent-trace", repository=tmp_path)


@LAW
@given(
    trails(), st.dictionaries(st.text(min_size=1), st.just([{"start_line": 1, "end_line": 2}]), max_size=2)
)
def test_the_trace_of_any_trail_has_what_the_specification_requires(trail, ranges):
    data = agent_trace.attribution(trail, "0" * 40, ranges, ranges)
    assert {"version", "id", "timestamp", "files"} <= set(data)
    UUID(data["id"])
    datetime.fromisoformat(data["timestamp"])
    assert [file["path"] for file in data["files"]] == sorted(ranges)
    for file in data["files"]:
        for conversation in file["conversations"]:
            assert conversation["contributor"]["type"] == "ai"
            assert all(" " not in one["url"] and ":" in one["url"] for one in conversation["related"])
