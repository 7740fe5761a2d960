"""The real npm tool, 0.6.1: it reads what we export, we take over what it writes, and we survive it in our folder.

It is installed once, into the user's cache; without node or npm, or where they cannot fetch it, these tests are
skipped. What they show of the tool's ways is in the reference; here it is run.
"""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from trail_kit import wait_until

from holdfast.trail import TrailFolder, doctor, npm

PACKAGE = "agent-trajectories@0.6.1"


@pytest.fixture(scope="session")
def package():
    """Where the package is installed."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "holdfast-tests"
    home = cache / PACKAGE
    if not shutil.which("node"):
        pytest.skip("node is not there: the npm tool is not tested")
    if not (home / "node_modules").exists():
        if not shutil.which("npm"):
            pytest.skip("npm is not there: the npm tool is not tested")
        cache.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=cache))
        (fresh / "package.json").write_text('{"private":true,"type":"module"}')
        command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", PACKAGE]
        done = subprocess.run(command, cwd=fresh, capture_output=True, text=True, timeout=170)
        if done.returncode != 0:
            shutil.rmtree(fresh)
            pytest.skip(f"npm could not install {PACKAGE}: the npm tool is not tested")
        try:
            fresh.rename(home)
        except OSError:  # another session was quicker
            shutil.rmtree(fresh)
    return home


@pytest.fixture
def tool(package, tmp_path):
    """Runs `trail …` in a project's folder, with a data folder if it is told one, and gives what it printed."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TRAJECTORIES_")}

    def run(*words, data=None, cwd=tmp_path, ok=True):
        told = {"TRAJECTORIES_DATA_DIR": str(data)} if data else {}
        done = subprocess.run(
            [package / "node_modules" / ".bin" / "trail", *words],
            cwd=cwd,
            env=environment | told | {"GIT_CEILING_DIRECTORIES": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode == 0) == ok, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def contents(trail):
    return [event.content for event in trail.events]


# ---- through a folder of its own ----------------------------------------------------------------------------


def test_the_tool_reads_all_that_we_export(folder, tmp_path, tool):
    """Also titles too long for it, decisions without reasons, addresses that are none, no confidence."""
    source = {"system": "linear", "id": "ENG-1", "url": "not an address"}
    with folder.start("Naïve 😀 " + "😀" * 400, agent="ana", source=source, tags=["t"]) as trail:
        trail.decide("Which token?", "JWT")
        with trail.chapter("Look around", agent="ben") as chapter:
            chapter.note("in the outer one", raw={"any": [1, None]})
            with chapter.chapter("Deeper", agent="cy") as inner:
                inner.find("in the inner one", agent="dora", confidence=1)
                inner.event("review-completed", "an unknown type")
            chapter.error("half a character: \ud83d")
            chapter.decide(
                "Cache?",
                "Redis",
                reasoning="fast",
                alternatives=["none", {"option": "file", "reason": "slow"}],
            )
        trail.complete(summary="Done", learnings=["x"])
    gone = folder.start("Not this way", agent="ana")
    gone.abandon("too slow")
    folder.start("Under way", agent="eve").note("going on")
    exchange = tmp_path / "npm"

    told = npm.export_npm(folder, exchange)
    assert (told.written, told.failures) == (3, [])

    assert "Found 3 trajectories" in tool("list", data=exchange)
    assert tool("doctor", data=exchange).strip() == "No invalid trajectory files found."
    assert "Under way" in tool("status", data=exchange)
    shown = tool("show", trail.id, "--decisions", data=exchange)
    assert "JWT" in shown
    assert "Redis" in shown
    exported = json.loads(tool("export", trail.id, "--format", "json", data=exchange))
    assert [
        (c["title"], c["agentName"], [e["content"] for e in c["events"]]) for c in exported["chapters"]
    ] == [
        ("Look around", "ben", ["in the outer one", "half a character: \ud83d", "Cache?: Redis"]),
        ("Deeper", "cy", ["in the inner one", "an unknown type"]),
        ("Work", "ana", ["Which token?: JWT"]),
    ]
    assert "Abandoned: too slow" in tool("export", gone.id, "--format", "json", data=exchange)
    assert npm.export_npm(folder, exchange).unchanged == 3


def test_an_export_imported_elsewhere_is_the_same_trail(folder, tmp_path):
    """No tool is needed for this one: what it does not touch comes back as it was."""
    with folder.start(
        "x" * 500, agent="ana", source={"system": "s", "id": "1", "url": "://"}, start_ref="1"
    ) as trail:
        trail.decide("q", "c")
        with trail.chapter("y", agent="ben") as chapter:
            chapter.note("z", agent="cy")
        trail.complete(summary="s", confidence=None)
    npm.export_npm(folder, tmp_path / "npm")
    other = TrailFolder(tmp_path / "other", redact=None)
    npm.import_folder(other, tmp_path / "npm")
    ours, theirs = folder.load(trail.id), other.load(trail.id)
    for event in (*ours.events, *theirs.events):
        event.seq = 0  # the numbers of the lines are a journal's own
    assert ours == theirs
    assert other.absorb(trail.id, folder.entries(trail.id)) > 0
    again = other.load(trail.id)
    for event in again.events:
        event.seq = 0
    assert again == ours, "both journals merged tell nothing twice"


def test_what_the_tool_adds_comes_back_and_what_we_add_goes_out(folder, tmp_path, tool):
    exchange = tmp_path / "npm"
    trail = folder.start("Shared", agent="ana")
    with trail.chapter("Ours", agent="ben"):
        trail.note("ours 1")
    npm.export_npm(folder, exchange)

    tool("decision", "Use a queue", "--reasoning", "it is simple", data=exchange)
    trail.note("ours 2")
    told = npm.export_npm(
        folder, exchange
    )  # before it replaces the tool's record, it takes over what is new there
    assert (told.written, told.imported) == (1, 1)
    words = ["ours 1", "Use a queue: Use a queue", "ours 2"]
    assert contents(folder.load(trail.id)) == words
    assert [decision.reasoning for decision in folder.load(trail.id).decisions] == ["it is simple"]
    shown = tool("export", trail.id, "--format", "json", data=exchange)
    assert all(text in shown for text in words)

    tool("reflect", "going well", "--confidence", "0.7", data=exchange)
    tool("complete", "--summary", "All done", "--confidence", "0.9", data=exchange)
    told = npm.import_folder(folder, exchange)
    assert (told.added, told.updated, told.failures) == (0, 1, [])
    now = folder.load(trail.id)
    assert contents(now) == [*words, "going well"]
    assert (now.status, now.retrospective.summary, now.retrospective.confidence) == (
        "completed",
        "All done",
        0.9,
    )
    assert [event.origin for event in now.events] == [None, "npm", None, "npm"]
    assert [line.status for line in folder.list()] == ["completed"]
    assert npm.import_folder(folder, exchange).unchanged == 1

    late = folder.open(trail.id, late=True)
    late.note("ours 3")
    assert npm.export_npm(folder, exchange).written == 1
    assert "Found 1 trajectories" in tool("list", data=exchange)
    assert "ours 3" in tool("export", trail.id, "--format", "json", data=exchange)


def test_a_trail_that_the_tool_began_goes_on_with_us_and_ends_there(folder, tmp_path, tool):
    exchange = tmp_path / "npm"
    id = tool("start", "Theirs", "--agent", "claude", "--quiet", data=exchange).strip()
    assert npm.import_folder(folder, exchange).added == 1
    folder.open(id).note("ours", agent="ben")
    folder.open(id).complete(summary="We finished it")
    npm.export_npm(folder, exchange)
    assert "No active trajectory" in tool("status", data=exchange)
    assert "We finished it" in tool("show", id, data=exchange)
    assert not (exchange / "active" / id).exists()


def test_files_of_the_tool_that_are_no_records_of_ours_are_left_alone(folder, tmp_path, tool):
    exchange = tmp_path / "npm"
    tool("start", "Theirs", "--quiet", data=exchange)
    trail = folder.start("Ours")
    trail.complete(summary="s")
    npm.export_npm(folder, exchange)
    [place] = exchange.glob("completed/*/*")
    (place / "compaction.json").write_text("{}")
    torn = exchange / "active" / "traj_torn" / "trajectory.json"
    torn.parent.mkdir()
    torn.write_text('{"id":"traj_torn"')
    before = {path: path.read_bytes() for path in exchange.rglob("*") if path.is_file()}
    folder.open(trail.id, late=True).amend(learnings=["later"])
    npm.export_npm(folder, exchange)
    after = {path: path.read_bytes() for path in exchange.rglob("*") if path.is_file()}
    changed = {path.name for path in before if after.get(path) != before[path]}
    assert set(after) == set(before)
    assert changed == {"trajectory.json", "summary.md"}
    assert torn.read_text() == '{"id":"traj_torn"'


WRITER = """
import { TrajectoryClient } from "agent-trajectories";
const client = new TrajectoryClient({ dataDir: process.argv[2], defaultAgent: "node" });
await client.init();
const session = process.argv[3] === "new" ? await client.start("Theirs") : await client.open(process.argv[3]);
console.log(session.id);
for (let i = 0; i < 80; i++) await session.note(`theirs ${i} ` + "x".repeat(20000));
await session.done("finished", 0.8);
await client.close();
"""


@pytest.mark.parametrize("whose", ["theirs", "ours"])
def test_import_and_export_while_the_tool_writes_lose_and_double_nothing(folder, tmp_path, package, whose):
    """The tool cuts the file, writes it, again and again; we read, add words of our own and write it, too."""
    exchange, script = tmp_path / "npm", package / f"writer-{os.getpid()}.mjs"
    script.write_text(WRITER)
    id = "new"
    if whose == "ours":
        id = folder.start("Ours", agent="ana").id
        npm.export_npm(folder, exchange)
    environment = os.environ | {"TRAJECTORIES_DATA_DIR": str(exchange)}
    node = subprocess.Popen(
        ["node", script, exchange, id], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        id = node.stdout.readline().strip()
        wait_until(lambda: npm.import_folder(folder, exchange).scanned, "the tool's first record")
        turns = 0
        while node.poll() is None:
            assert npm.import_folder(folder, exchange).failures == []
            if folder.load(id).status == "active":
                folder.open(id).note(f"ours {turns}", agent="ben")
                turns += 1
            if whose == "ours":
                npm.export_npm(folder, exchange)
        assert node.wait() == 0
    finally:
        node.kill()
        node.wait()
        node.stdout.close()
        script.unlink()
    assert npm.import_folder(folder, exchange).failures == []
    trail = folder.load(id)
    said = [text.split(" x")[0] for text in contents(trail)]
    assert sorted(text for text in said if text.startswith("theirs")) == sorted(
        f"theirs {n}" for n in range(80)
    )
    assert [text for text in said if text.startswith("ours")] == [f"ours {n}" for n in range(turns)]
    assert (trail.status, trail.retrospective.summary) == ("completed", "finished")
    assert doctor.diagnose(folder).failures == []


def test_a_torn_file_is_read_again_and_never_taken_for_an_empty_one(folder, tmp_path):
    """As the tool leaves it in the middle of a save: empty, cut off, gone and then somewhere else."""
    exchange = tmp_path / "npm"
    place = exchange / "active" / "traj_x" / "trajectory.json"
    with TrailFolder(tmp_path / "other").start("x") as trail:
        trail.note("whole")
    npm.export_npm(trail.folder, tmp_path / "whole")
    text = (tmp_path / "whole" / "active" / trail.id / "trajectory.json").read_bytes()
    place = exchange / "active" / trail.id / "trajectory.json"
    place.parent.mkdir(parents=True)
    states = [b"", text[:40], None, text]
    place.write_bytes(states.pop(0))
    asked = []

    def pause(seconds):
        asked.append(seconds)
        state = states.pop(0)
        place.unlink(missing_ok=True)
        if state is not None:
            place.write_bytes(state)

    told = npm.import_folder(folder, exchange, pause=pause)
    assert len(asked) == 2, "gone: there is nothing more to read, until the next import"
    assert (told.added, told.failures) == (0, [])
    told = npm.import_folder(folder, exchange, pause=pause)
    place.write_bytes(states.pop(0))
    assert npm.import_folder(folder, exchange, pause=pause).added == 1
    assert contents(folder.load(trail.id)) == ["whole"]

    place.write_bytes(text[:-1])
    told = npm.import_folder(folder, exchange, pause=asked.append)
    assert [(f.path, f.reason) for f in told.failures] == [
        (f"active/{trail.id}/trajectory.json", "malformed")
    ]
    assert len(asked) == 2 + len(npm.PAUSES), "a bounded number of times"
    assert contents(folder.load(trail.id)) == ["whole"]
    told = npm.export_npm(folder, exchange, pause=asked.append)
    assert [failure.reason for failure in told.failures] == ["malformed"]
    assert place.read_bytes() == text[:-1], "what cannot be read is not replaced"


def test_an_export_into_our_own_folder_is_refused(folder):
    folder.start("x")
    for place in (folder.root, folder.root / "npm"):
        with pytest.raises(Exception, match="expected a folder of its own"):
            npm.export_npm(folder, place)


# ---- the accident: the tool runs where our folder is ----------------------------------------------------------


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project whose trails stand at the default place."""
    monkeypatch.delenv("TRAJECTORIES_DATA_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_tool_moves_our_folder_and_our_trails_go_on(project, tool):
    """`trail status` renames .trajectories while a handle and a chapter are open."""
    folder = TrailFolder(redact=None)
    done = folder.start("Done", agent="ana")
    done.complete(summary="s")
    trail = folder.start("Under way", agent="ana")
    trail.note("before")
    with trail.chapter("Open", agent="ben") as chapter:
        chapter.note("in it")
        folder.settle(trail.id)
        assert "Under way" in tool("status", cwd=project)
        assert not (project / ".trajectories").exists()
        assert not (project / ".agentworkforce/trajectories/index.json").exists()
        chapter.note("after the move")
    other = TrailFolder(redact=None)
    assert {line.id for line in other.list()} == {done.id, trail.id}
    other.open(trail.id).note("a new handle")
    began = other.start("Begun afterwards")
    trail.complete(summary="all the same")
    assert contents(other.load(trail.id)) == ["before", "in it", "after the move", "a new handle"]
    assert {line.id: line.status for line in folder.list()} == {
        done.id: "completed",
        trail.id: "completed",
        began.id: "active",
    }
    assert not (project / ".trajectories").exists()
    told = folder.reconcile()
    assert (told.scanned, told.failures) == (3, [])


def test_what_only_the_tools_record_says_is_taken_over_with_its_origin(project, tool):
    """A decision of the tool deletes active/<id>.json and the index, and writes a record of its own."""
    folder = TrailFolder(redact=None)
    trail = folder.start("Under way", agent="ana")
    with trail.chapter("Ours", agent="ben"):
        trail.note("ours")
    folder.settle(trail.id)
    tool("decision", "Use a queue", cwd=project)
    moved = project / ".agentworkforce/trajectories"
    assert {path.name for path in (moved / "active").iterdir()} == {trail.id, f"{trail.id}.jsonl"}

    assert contents(folder.load(trail.id)) == ["ours", "Use a queue: Use a queue"]
    folder.open(trail.id).note("we go on")
    assert len(folder.files.places.find(trail.id).records) == 1, "its record stays: it may write there again"
    tool("reflect", "fine", cwd=project)
    assert not (moved / "active" / f"{trail.id}.json").exists()
    told = folder.reconcile()
    assert told.failures == []
    assert any("only another tool's record told" in text for text in told.mended)
    now = folder.load(trail.id)
    assert contents(now) == ["ours", "Use a queue: Use a queue", "we go on", "fine"]
    assert [event.origin for event in now.events] == [None, "record", None, "record"]
    assert folder.reconcile().mended == []
    assert (moved / "active" / f"{trail.id}.json").exists()


def test_the_tool_completes_our_trail_in_our_folder(project, tool):
    folder = TrailFolder(redact=None)
    trail = folder.start("Under way", agent="ana")
    trail.note("ours")
    folder.settle(trail.id)
    tool("complete", "--summary", "theirs", "--confidence", "0.6", cwd=project)
    told = doctor.diagnose(folder)
    assert told.failures == []
    assert told.mended
    assert folder.reconcile().failures == []
    now = folder.load(trail.id)
    assert (now.status, now.retrospective.summary, contents(now)) == ("completed", "theirs", ["ours"])
    assert folder.files.places.find(trail.id).journals[0].startswith("completed/")
    assert [line.status for line in folder.list()] == ["completed"]
    trail.note("late")
    assert [event.late for event in folder.load(trail.id).events] == [False, True]
    assert doctor.diagnose(folder).mended == []


def test_the_tool_in_our_folder_by_name_only_deletes_what_is_derived(project, tool):
    """With TRAJECTORIES_DATA_DIR it moves nothing, and writes into our folder as if it were its own."""
    folder = TrailFolder(redact=None)
    trail = folder.start("Under way", agent="ana")
    trail.note("ours")
    folder.settle(trail.id)
    tool("decision", "Theirs", data=folder.root, cwd=project)
    assert [line.id for line in folder.list()] == [trail.id], "the index is made again"
    assert contents(folder.open(trail.id).folder.load(trail.id)) == ["ours", "Theirs: Theirs"]
    assert (folder.root / "index.json").exists()


def test_a_folder_that_git_made_again_takes_back_what_the_tool_had_moved(project, tool):
    folder = TrailFolder(redact=None)
    trail = folder.start("Moved", agent="ana")
    trail.note("1")
    tool("status", cwd=project)
    trail.note("2")
    (project / ".trajectories" / "active").mkdir(parents=True)  # as a checkout would
    assert folder.list() == []
    assert doctor.diagnose(folder).mended
    assert doctor.reconcile(folder).mended
    assert contents(folder.load(trail.id)) == ["1", "2"]
    assert doctor.diagnose(folder).mended == []


def test_a_record_that_an_older_tool_wrote_over_ours_is_not_lost_when_ours_is_made_again(folder):
    """Up to 0.5.6 it wrote active/<id>.json itself: the place of our derived record."""
    trail = folder.start("Under way", agent="ana")
    trail.note("ours")
    folder.settle(trail.id)
    path = folder.root / "active" / f"{trail.id}.json"
    data = json.loads(path.read_text())
    del data["_holdfast"]
    for event in data["chapters"][0]["events"]:
        for key in ("id", "seq", "agent", "chapter", "occurredAt", "recordedAt"):
            del event[key]
    data["chapters"][0]["events"].append({"ts": 1900000000000, "type": "note", "content": "theirs"})
    path.write_text(json.dumps(data))
    folder.settle(trail.id)
    assert contents(folder.open(trail.id).folder.load(trail.id)) == ["ours", "theirs"]
    path.write_text(json.dumps(data))
    folder.reconcile()
    assert contents(folder.load(trail.id)) == ["ours", "theirs"]
