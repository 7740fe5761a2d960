"""Compaction: what ended trails say, once, in one record; and no trail is lost by it."""

import json
import os
import random
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import PayloadError, TrailError, TrailIdError, TrailNotFound
from holdfast.trail import TrailFolder, record, sources
from holdfast.trail.compact import CATEGORIES, Compacted, category_of, compact, name_of, write
from holdfast.trail.export import compacted as page
from holdfast.trail.model import Agent, Chapter, Decision, Event, Retrospective, Task, Trail
from holdfast.trail.sources import discard, select

NOW = datetime(2026, 2, 1, tzinfo=UTC)


def files(folder: TrailFolder) -> dict[str, bytes]:
    """All that is in a folder."""
    return {
        str(path.relative_to(folder.root)): path.read_bytes()
        for path in folder.root.rglob("*")
        if path.is_file()
    }


def told(folder: TrailFolder, title: str, *, abandon: bool = False, **options: str) -> str:
    """A trail that has ended: its id."""
    trail = folder.start(title, agent="ana", **options)
    trail.find(f"{title}: it caches")
    trail.decide("Which cache?", "redis", reasoning="fast")
    if abandon:
        trail.abandon(f"{title} was too slow")
    else:
        trail.complete(summary=f"{title} is done", learnings=["Measure first"], files_changed=["a.py"])
    return trail.id


# ---- the record


def test_the_record_tells_of_completed_and_abandoned_trails(folder: TrailFolder) -> None:
    done, gone = told(folder, "Cache"), told(folder, "Queue", abandon=True)
    data = record.to_record(compact([folder.load(gone), folder.load(done)], at=NOW))
    assert data["sourceTrajectories"] == [done, gone]
    assert data["summary"] == {"totalDecisions": 2, "totalEvents": 5, "uniqueAgents": ["ana"]}
    assert [group["category"] for group in data["decisionGroups"]] == ["performance"]
    assert data["decisionGroups"][0]["decisions"] == [
        {"question": "Which cache?", "chosen": "redis", "reasoning": "fast", "fromTrajectory": done}
    ]
    assert data["keyFindings"] == ["Cache: it caches", "Queue: it caches"]
    assert (data["keyLearnings"], data["filesAffected"]) == (["Measure first"], ["a.py"])
    assert [(source["status"], source["outcome"]) for source in data["sources"]] == [
        ("completed", "Cache is done"),
        ("abandoned", "Queue was too slow"),
    ]
    needed = ["id", "version", "type", "compactedAt", "sourceTrajectories", "dateRange", "summary"]
    needed += ["decisionGroups", "keyLearnings", "keyFindings"]
    assert list(data)[: len(needed)] == needed
    assert data["id"].startswith("compact_")
    assert len(data["id"]) == len("compact_") + 12


@pytest.mark.parametrize(
    ("text", "category"),
    [
        ("What about this decision?", "other"),  # 'ci'
        ("Is it capital?", "other"),  # 'api'
        ("Restore the interest", "other"),  # 'rest', 'store', 'test'
        ("CI or not", "tooling"),
        ("Which DB's index? And the API", "database"),
        ("Two endpoints", "api"),
        ("naming", "naming"),
        ("", "other"),
    ],
)
def test_decisions_are_grouped_by_whole_words(text: str, category: str) -> None:
    assert category_of(text) == category


def test_no_word_has_two_categories() -> None:
    words = [word for text in CATEGORIES.values() for word in text.split()]
    assert len(words) == len(set(words))
    for name, text in CATEGORIES.items():
        for word in text.split():
            assert category_of(f"The {word.upper()}, then") == name


def test_what_says_the_same_is_told_once(folder: TrailFolder) -> None:
    trail = folder.start("x")
    for text in ("It  caches", "it caches\n", "It caches more"):
        trail.find(text)
    trail.decide("Cache?", "yes", reasoning="Fast")
    trail.decide("cache?", "Yes", reasoning="fast ")
    trail.decide("Cache?", "yes", reasoning="Cheap")
    trail.complete(summary="x", learnings=["A", "a ", "B"])
    made = compact([folder.load(trail.id)], at=NOW)
    assert made.key_findings == ["It  caches", "It caches more"]
    assert made.key_learnings == ["A", "B"]
    assert [each.reasoning for each in made.decision_groups[0].decisions] == ["Fast", "Cheap"]
    assert made.summary.total_decisions == 3


texts = st.text(max_size=12)
words = st.text(min_size=1, max_size=12)


@st.composite
def trails(draw: st.DrawFn) -> list[Trail]:
    made = []
    for number in range(draw(st.integers(1, 5))):
        start = NOW - timedelta(days=draw(st.integers(0, 3)))
        event = Event(ts=1, type=draw(st.sampled_from(["finding", "note"])), content=draw(words), agent="b")
        choices = st.lists(st.builds(Decision, question=words, chosen=words, reasoning=texts), max_size=3)
        retrospective = Retrospective(
            summary=draw(words), learnings=draw(st.lists(texts, max_size=3)), decisions=draw(choices)
        )
        made.append(
            Trail(
                id=f"traj_{number}",
                task=Task(title=draw(words)),
                status=draw(st.sampled_from(["completed", "abandoned"])),
                started_at=start,
                completed_at=start + timedelta(hours=draw(st.integers(-1, 2))),
                agents=[Agent(name="a", role="lead", joined_at=start)],
                chapters=[Chapter(id="c", title="x", agent_name="a", started_at=start, events=[event])],
                retrospective=draw(st.none() | st.just(retrospective)),
            )
        )
    return made


@given(trails(), st.randoms(use_true_random=False))
def test_the_order_of_trails_makes_no_difference(given: list[Trail], chance: random.Random) -> None:
    mixed = [*given, given[0]]
    chance.shuffle(mixed)
    made = compact(given, at=NOW)
    assert compact(mixed, at=NOW) == made
    assert record.from_record(record.parse(record.dump(record.to_record(made))), Compacted) == made
    assert made.date_range.start <= made.date_range.end
    kept = sum(len(group.decisions) for group in made.decision_groups)
    assert kept <= made.summary.total_decisions
    assert (kept == 0) == (made.summary.total_decisions == 0)


def test_what_cannot_be_compacted(folder: TrailFolder) -> None:
    with pytest.raises(PayloadError, match="got none"):
        compact([], at=NOW)
    with pytest.raises(PayloadError, match="which is active"):
        compact([folder.load(folder.start("x").id)], at=NOW)
    ended = folder.load(told(folder, "x"))
    with pytest.raises(PayloadError, match="focus: expected architecture"):
        compact([ended], at=NOW, focus=["nothing"])


def test_the_focus_comes_first(folder: TrailFolder) -> None:
    trail = folder.start("x")
    for question in ("Which API?", "What table?", "Whose name?"):
        trail.decide(question, "a")
    trail.complete(summary="x")
    groups = compact([folder.load(trail.id)], at=NOW, focus=["naming"]).decision_groups
    assert [group.category for group in groups] == ["naming", "api", "database"]


def test_the_page_shows_what_was_written_as_it_is(folder: TrailFolder) -> None:
    trail = folder.start("# <b>x</b>")
    trail.find("- [ ] do *this*\n\n# Not a heading")
    trail.decide("`a` or <img>?", "b", reasoning="1. first\n2. then")
    trail.abandon("## It broke")
    text = page.render(compact([folder.load(trail.id)], at=NOW, workflow_id="a`b"))
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings == [
        "# Compacted trails of workflow `` a`b ``",
        "## Decisions",
        "### Other",
        "## Findings",
        "## Trails",
    ]
    assert "<img>" not in text
    assert "<b>" not in text


# ---- on the disk


def test_a_compaction_is_written_and_its_trails_are_marked(folder: TrailFolder) -> None:
    ids = {told(folder, "a"), told(folder, "b")}
    folder.start("still active")
    selection = select(folder)
    assert {trail.id for trail in selection.trails} == ids
    made = compact(selection.trails, at=NOW)
    path, text = write(folder, made)
    assert path == str(folder.root / "compacted" / f"{made.id}_2026-02-01.json")
    assert record.from_record(record.parse(Path(path).read_bytes()), Compacted) == made
    assert Path(text).read_text() == page.render(made)
    assert select(folder).chosen == []
    assert {trail.id for trail in select(folder, again=True).trails} == ids
    assert {trail.id for trail in select(folder, named=sorted(ids)[:1]).trails} == set(sorted(ids)[:1])
    markers = [json.loads(data) for name, data in files(folder).items() if name.endswith(".compaction.json")]
    assert {marker["trajectoryId"] for marker in markers} == ids
    assert {marker["compactedInto"] for marker in markers} == {made.id}
    assert {trail.id for trail in folder.list()} > ids
    assert folder.reconcile().failures == []


def test_looking_writes_nothing(folder: TrailFolder) -> None:
    told(folder, "a")
    (folder.root / "index.json").unlink()
    before = files(folder)
    compact(select(folder).trails, at=NOW)
    assert files(folder) == before
    nowhere = TrailFolder(folder.root / "none")
    assert select(nowhere).chosen == []
    assert not nowhere.root.exists()


@pytest.mark.parametrize("workflow", ["../../evil", "/etc/x", "a/b", "..", "", "w" * 300, "é\n\0", "a b"])
def test_a_workflow_never_leaves_the_folder(folder: TrailFolder, workflow: str) -> None:
    made = compact([folder.load(told(folder, "a"))], at=NOW, workflow_id=workflow)
    before = {path for path in folder.root.parent.rglob("*") if path.parent != folder.root / "compacted"}
    path, _ = write(folder, made)
    assert Path(path).parent == folder.root / "compacted"
    new = {
        path for path in folder.root.parent.rglob("*") if path.parent != folder.root / "compacted"
    } - before
    assert {path.name.partition(".")[2] for path in new} <= {"", "compaction.json"}
    other = compact([folder.load(told(folder, "a"))], at=NOW, workflow_id=workflow + "_")
    assert name_of(other) != name_of(made)


def test_a_workflow_is_one_file_that_loses_no_trail(folder: TrailFolder) -> None:
    first = told(folder, "a", workflow_id="wf")
    write(folder, compact(select(folder, workflow="wf").trails, at=NOW, workflow_id="wf"))
    second = told(folder, "b", workflow_id="wf")
    told(folder, "other", workflow_id="wf2")
    selection = select(folder, workflow="wf")
    assert [trail.id for trail in selection.trails] == sorted([first, second])
    write(folder, compact(selection.trails, at=NOW, workflow_id="wf"))
    assert sorted(path.name for path in (folder.root / "compacted").iterdir()) == [
        "workflow-wf.json",
        "workflow-wf.md",
    ]
    discard(folder, selection.chosen)
    third = told(folder, "c", workflow_id="wf")
    path, _ = write(folder, compact(select(folder, workflow="wf").trails, at=NOW, workflow_id="wf"))
    assert Path(path).name == "workflow-wf-2.json"
    names = [
        json.loads(path.read_text())["sourceTrajectories"] for path in folder.root.glob("compacted/*.json")
    ]
    assert {name for each in names for name in each} == {first, second, third}


def test_output_takes_the_place_of_nothing_else(folder: TrailFolder, tmp_path: Path) -> None:
    made = compact([folder.load(told(folder, "a"))], at=NOW)
    out = tmp_path / "out.json"
    assert write(folder, made, output=out) == [str(out), str(tmp_path / "out.md")]
    assert write(folder, made, output=tmp_path / "out.md", markdown=False) == [str(out)]
    assert not (folder.root / "compacted").exists()
    other = compact([folder.load(told(folder, "b"))], at=NOW)
    before = out.read_bytes()
    with pytest.raises(TrailError, match="something else"):
        write(folder, other, output=out)
    (tmp_path / "notes.md").write_text("mine")
    with pytest.raises(TrailError, match="something else"):
        write(folder, other, output=tmp_path / "notes")
    with pytest.raises(TrailError):
        write(folder, other, output=tmp_path / "missing" / "out.json")
    assert out.read_bytes() == before
    assert [trail.id for trail in select(folder).trails] == other.source_trajectories, "not marked"


def test_a_linked_folder_is_not_followed(folder: TrailFolder, tmp_path: Path) -> None:
    made = compact([folder.load(told(folder, "a"))], at=NOW)
    (folder.root / "compacted").symlink_to(tmp_path)
    with pytest.raises(TrailError, match="symbolic link"):
        write(folder, made)


def test_secrets_of_other_tools_are_not_carried_on(tmp_path: Path) -> None:
    folder = TrailFolder(tmp_path / ".trajectories")
    secret = "ghp_" + "a1B2c3D4e5" * 4
    place = folder.root / "completed"
    place.mkdir(parents=True)
    npms(place / "traj_npm.json", {"learnings": [f"the key is {secret}"]})
    paths = write(folder, compact(select(folder).trails, at=NOW))
    for path in paths:
        assert "the key is" in Path(path).read_text()
        assert secret not in Path(path).read_text()


def npms(path: Path, retrospective: dict[str, object] | None = None) -> None:
    """A record as the npm tool leaves it."""
    name = path.parent.name if path.name == "trajectory.json" else path.stem
    path.parent.mkdir(parents=True, exist_ok=True)
    told = {"summary": "x", "approach": "x", "confidence": 0.5} | (retrospective or {})
    data = {"id": name, "version": 1, "status": "completed", "task": {"title": "x"}, "retrospective": told}
    data |= {"startedAt": "2026-01-31T09:00:00.000Z", "completedAt": "2026-01-31T10:00:00.000Z"}
    path.write_text(json.dumps(data | {"agents": [], "chapters": []}))


# ---- which


def test_trails_by_when_they_began(folder: TrailFolder) -> None:
    first, second = told(folder, "a"), told(folder, "b")
    between = folder.load(second).started_at
    assert [trail.id for trail in select(folder, since=between).trails] == [second]
    just_before = between - timedelta(microseconds=1)
    assert [trail.id for trail in select(folder, until=just_before).trails] == [first]
    assert select(folder, since=between, until=just_before).chosen == []


def test_ids_that_cannot_be_compacted(folder: TrailFolder) -> None:
    active = folder.start("x").id
    for error, trail_id in ((TrailError, active), (TrailNotFound, "traj_none"), (TrailIdError, "../x")):
        with pytest.raises(error):
            select(folder, named=[told(folder, "y"), trail_id])


def test_a_broken_trail_is_named_and_the_others_are_chosen(folder: TrailFolder) -> None:
    good = told(folder, "a")
    (folder.root / "completed" / "traj_broken.json").write_text('{"id": "traj_broken"}')
    selection = select(folder)
    assert [trail.id for trail in selection.trails] == [good]
    assert list(selection.broken) == ["traj_broken"]


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """`git("commit", …)` in a repository that is the current folder; `git.commit` gives the hash."""
    for name in list(os.environ):
        if name.startswith("GIT_"):
            monkeypatch.delenv(name)
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Ana")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "ana@example.org")
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> str:
        return subprocess.run(["git", *words], check=True, capture_output=True, text=True).stdout.strip()

    run("init", "-q", "-b", "main")
    return run


def commit(git, message: str) -> str:
    git("commit", "-q", "--allow-empty", "-m", message)
    return git("rev-parse", "HEAD")


def made_in(folder: TrailFolder, *commits: str, title: str = "x") -> str:
    trail = folder.start(title)
    trail.complete(summary="x", commits=list(commits))
    return trail.id


def test_trails_by_commits_and_branches(folder: TrailFolder, git) -> None:
    base = commit(git, "Base")
    git("switch", "-qc", "side")
    mine, named = commit(git, "Mine"), commit(git, "Named\n\nTrajectory: traj_x")
    of_base, of_mine, by_name, nothing = (
        made_in(folder, base[:7]),
        made_in(folder, "0000000", mine[:7]),
        made_in(folder),
        made_in(folder, ""),
    )
    git("commit", "-q", "--amend", "--allow-empty", "-m", f"Named\n\nTrajectory: {by_name}")
    named = git("rev-parse", "HEAD")

    def found(*commits) -> set[str]:
        return {trail.id for trail in select(folder, commits=commits).trails}

    assert found(sources.of_branch("main")) == {of_mine, by_name}
    assert found(sources.of_branch("side")) == set()
    assert found(sources.of_commits([base, named])) == {of_base, by_name}
    assert found(sources.of_commits(["main..side"])) == {of_mine, by_name}
    assert found(sources.of_commits(["side"])) == {by_name}, "a name is one commit"
    assert found(sources.of_branch("main"), sources.of_commits([mine])) == {of_mine}
    assert nothing not in found(sources.of_commits(["main..side", "main"])), "no commits match no branch"
    for name in ("none", "--all", "", "main..none"):
        with pytest.raises(TrailError, match="git knows no commits"):
            sources.of_commits([name])
        with pytest.raises(TrailError, match="git knows no commits"):
            sources.of_branch(name)


def test_trails_of_a_pull_request(folder: TrailFolder, git) -> None:
    first = commit(git, "Base")
    git("switch", "-qc", "side")
    inside = commit(git, "Inside")
    git("switch", "-q", "main")
    commit(git, "Beside #7")
    git("merge", "-q", "--no-ff", "side", "-m", "Merge pull request #7 from side")
    squashed = commit(git, "Squashed (#8)\n\nSee #7")
    commit(git, "Not this (#77)")
    made_in(folder, first)
    merged, squash = made_in(folder, inside[:8]), made_in(folder, squashed[:8])
    titled = made_in(folder, title="Review PR 7")
    made_in(folder, title="Review #77, sprint 7")

    def found(number: int) -> set[str]:
        return {trail.id for trail in select(folder, pull_request=number).trails}

    assert found(7) == {merged, titled}
    assert found(8) == {squash}
    assert found(9) == set()


# ---- discarding


def test_discarding_removes_all_files_and_counts_them(folder: TrailFolder) -> None:
    ours, stays = told(folder, "a"), folder.start("stays").id
    month = next((folder.root / "completed").iterdir())
    (month / f"{ours}.trace.json").write_text("{}")
    npms(month / "traj_flat.json")
    (month / "traj_flat.md").write_text("x")
    npms(month / "traj_nested" / "trajectory.json")
    (month / "traj_nested" / "summary.md").write_text("x")
    (month / "traj_nested.trace.json").write_text("{}")
    selection = select(folder)
    write(folder, compact(selection.trails, at=NOW))
    gone = discard(folder, selection.chosen)
    assert gone == (3, 4, 3, 2, 3, ())  # records: a journal and its record, and two of the npm tool
    assert list(month.iterdir()) == []
    assert [trail.id for trail in folder.list()] == [stays]
    assert len(list((folder.root / "compacted").iterdir())) == 2
    assert folder.reconcile().failures == []
    assert discard(folder, selection.chosen).trails == 0


def test_what_was_written_to_meanwhile_is_not_discarded(folder: TrailFolder) -> None:
    changed, same = told(folder, "a"), told(folder, "b")
    selection = select(folder)
    write(folder, compact(selection.trails, at=NOW))
    folder.open(changed, late=True).note("One more thing")
    gone = discard(folder, selection.chosen)
    assert (gone.trails, gone.kept) == (1, (changed,))
    assert [trail.id for trail in folder.list()] == [changed]
    assert folder.load(changed).events[-1].content == "One more thing"
    with pytest.raises(TrailNotFound):
        folder.load(same)
