"""The demo, end to end, with real processes; and the agents of its survey on small folders."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from patience import PATIENCE

import holdfast as hf
from holdfast.trail import TrailFolder

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from examples.survey import files, history, prose, report, structure
from examples.survey.findings import Approval


def environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HOLDFAST", "PYTEST", "GIT_"))}
    return {**kept, "COLUMNS": "100", "GIT_CONFIG_GLOBAL": os.devnull}


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=Ana", "-c", "user.email=ana@example.org"]
    subprocess.run(
        ["git", *identity, *arguments], cwd=folder, env=environment(), check=True, capture_output=True
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the examples, which has a store of its own."""
    place = tmp_path / "checkout"
    shutil.copytree(ROOT / "examples", place / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    return place


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small folder of source code with a history."""
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init", "--quiet")
    for number in range(3):
        body = "    if a:\n        return 1\n" * number
        (folder / "app.py").write_text(f'"""An app."""\n\ndef run(a):\n{body}    return {number}\n')
        (folder / "README.md").write_text(f"# App {number}\n\nSee [the guide](guide.md).\n")
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "-m", f"Change {number}")
    (folder / "notes.py").write_text("import numpy\n# TODO: write it\n")
    return folder


def play(checkout: Path, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "examples.demo", str(folder)],
        cwd=checkout,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def lines_of(checkout: Path, run: str) -> list[tuple[str, int, int]]:
    """The plain file, read by the test itself: (step, attempt, pid)."""
    try:
        text = (checkout / ".holdfast" / "demo" / run / "effects.txt").read_text()
    except FileNotFoundError:
        return []
    found = re.findall(r"(\w+) attempt=(\d+) pid=(\d+)\n", text)
    return [(step, int(attempt), int(pid)) for step, attempt, pid in found]


def wait_until(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_the_demo_proves_itself_twice(checkout: Path, project: Path, tmp_path: Path) -> None:
    """A folder with a history and one without; the second time the store is there already."""
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "one.py").write_text("x = 1\n")
    for run_id, folder in (("demo-1", project), ("demo-2", bare)):
        with play(checkout, folder) as demo:
            out, _ = demo.communicate(timeout=80)
        assert demo.returncode == 0, out
        assert "PASS" in out
        lines = lines_of(checkout, run_id)
        counts = {step: [line[1] for line in lines if line[0] == step] for step, _, _ in lines}
        assert counts == {
            "list_files": [1],
            "read_history": [1],
            "read_structure": [1, 2],
            "read_prose": [1, 2],
            "write_report": [1],
        }
        assert len({pid for _, _, pid in lines}) == 2
        assert not [pid for _, _, pid in lines if is_alive(pid)]
        text = (checkout / ".holdfast" / "demo" / run_id / "report.md").read_text()
        assert text.startswith(f"# A survey of {folder.name}")
        assert ("There is no history to read" in text) == (folder is bare)
        async with hf.connect(f"sqlite:///{checkout}/.holdfast/holdfast.db") as app:
            assert await app.run(run_id).status() == "completed"
        assert "The trail: what each agent did and found" in out
        trails = TrailFolder(checkout / ".holdfast" / "trails")
        trail = trails.load(trails.list(limit=1)[0].id)
        assert (trail.status, trail.workflow_id) == ("completed", run_id)
        found = {event.agent for event in trail.events if event.type == "finding"}
        assert {"historian", "architect", "editor"} <= found
        assert [decision.chosen for decision in trail.decisions] == ["yes"]


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_an_interrupted_demo_leaves_nothing_behind(checkout: Path, project: Path) -> None:
    with play(checkout, project) as demo:
        wait_until(lambda: lines_of(checkout, "demo-1"), demo)
        demo.send_signal(signal.SIGINT)
        out, _ = demo.communicate(timeout=80)
    assert demo.returncode == 130, out
    assert not [pid for _, _, pid in lines_of(checkout, "demo-1") if is_alive(pid)]
    async with hf.connect(f"sqlite:///{checkout}/.holdfast/holdfast.db") as app:
        assert await app.run("demo-1").status() == "cancelled"


def test_a_folder_that_is_none_is_refused(checkout: Path) -> None:
    with play(checkout, checkout / "nowhere") as demo:
        out, _ = demo.communicate(timeout=PATIENCE)
    assert demo.returncode == 2
    assert "is not a folder" in out


def test_what_the_agents_find(project: Path) -> None:
    listing = files.list_files(str(project))
    assert (listing.python, listing.documents) == (["app.py", "notes.py"], ["README.md"])
    past = history.read(str(project))
    assert (past.commits, past.authors) == (3, {"Ana": 3})
    assert past.changes == {"README.md": 3, "app.py": 3}
    assert any("changed together 3 times" in finding.text for finding in past.findings)
    shape = structure.read(str(project))
    assert (shape.modules, shape.functions, shape.paths) == (2, 1, {"app.py": 3})
    assert shape.libraries == {"numpy": 1}
    words = prose.read(str(project))
    texts = [finding.text for finding in words.findings]
    assert any("README.md → guide.md" in text for text in texts)
    assert "One note to self, the first at notes.py:2: TODO write it" in texts
    merged = report.merge(str(project), files.count(str(project)), past, shape, words)
    assert merged.all[0].files == ["app.py"]
    text = report.render(merged, Approval(True, "ben", "good"))
    assert "approved by ben. “good”" in text


def test_python_that_cannot_be_read_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def (:\n")
    (tmp_path / "null.py").write_bytes(b"x = 1\0")
    shape = structure.read(str(tmp_path))
    assert shape.modules == 0
    assert [finding.files for finding in shape.findings] == [["broken.py", "null.py"]]
