"""`trail export --format` and `trail import` for the files of other tools."""

import json
import subprocess
from pathlib import Path

from cli_kit import Command

from holdfast.trail import TrailFolder


def made(ours: Command) -> str:
    trail_id: str = json.loads(ours("start", "Count the files", "--agent", "ana", "--json").out)["id"]
    ours("note", "There are 7")
    return trail_id


def test_a_trail_goes_out_as_a_trajectory_and_comes_back(ours: Command, desk: Path) -> None:
    trail_id = made(ours)
    ours("export", trail_id, "--format", "atif", "--output", "t.json")
    assert json.loads((desk / "t.json").read_text())["steps"][-1]["message"] == "There are 7"
    assert ours("import", "t.json").lines == ["0 added, 0 updated, 1 unchanged"]
    assert ours("import", "t.json", "--data-dir", "other").lines == ["1 added, 0 updated, 0 unchanged"]
    assert [e.content for e in TrailFolder(desk / "other").load(trail_id).events] == ["There are 7"]


def test_a_trace_of_spans_is_written_to_stdout(ours: Command) -> None:
    trail_id = made(ours)
    (resource,) = json.loads(ours("export", trail_id, "--format", "otel").out)["resourceSpans"]
    assert resource["scopeSpans"][0]["spans"][0]["name"] == "invoke_workflow Count the files"


def test_the_lines_of_a_work_are_told_where_git_knows_them(ours: Command, desk: Path) -> None:
    refused = ours("export", made(ours), "--format", "agent-trace")
    assert (refused.code, refused.out) == (2, "")
    assert "expected the commit at which the work began" in refused.err
    for words in (("init", "-q"), ("commit", "-q", "--allow-empty", "-m", "x")):
        subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@x.y", *words], cwd=desk, check=True)
    trail_id = json.loads(ours("start", "Write it", "--json").out)["id"]
    (desk / "a.py").write_text("x = 1\n")
    data = json.loads(ours("export", trail_id, "--format", "agent-trace").out)
    assert [file["path"] for file in data["files"]] == ["a.py"]


def test_a_run_of_swe_agent_is_known_by_its_content(ours: Command, desk: Path) -> None:
    step = {"thought": "look", "action": "ls", "observation": "a.py"}
    (desk / "run").write_text(json.dumps({"trajectory": [step], "info": {"exit_status": "exit_cost"}}))
    assert ours("import", "run").lines == ["1 added, 0 updated, 0 unchanged"]
    assert ours("import", "run").lines == ["0 added, 0 updated, 1 unchanged"]
    (desk / "run").write_text(json.dumps({"trajectory": [{"action": 3}], "info": {}}))
    refused = ours("import", "run")
    assert refused.code == 1
    assert (
        "run: schema: SWE-agent: expected `str | null`, got `int` - at `$.trajectory[0].action`"
        in refused.err
    )
