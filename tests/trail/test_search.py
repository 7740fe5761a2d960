"""Full text: everything is found, at once, and nothing that happens to the cache file changes an answer."""

import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trail_kit import at_once

from holdfast.clock import from_text
from holdfast.errors import PayloadError
from holdfast.trail import Decision, TrailFolder, search
from holdfast.trail import entry as line


def ids(found):
    return [summary.id for summary in found]


def cache(folder):
    return folder.root / ".cache" / "search.sqlite"


def files_read(folder):
    """How many trails a search reads now."""
    db = search._connect(folder)
    try:
        index = search.Index(folder, db)
        index.answer('"x"', None, False)
        return index.read
    finally:
        db.close()


@pytest.fixture
def statements():
    """The SQL that new connections are asked to run; settings, and what FTS5 runs itself, are left out."""
    seen = []

    def note(event):
        if "'main'." not in event["sql"] and not event["sql"].startswith(("pragma", "PRAGMA", "--")):
            seen.append(event["sql"])

    def hook(db):
        db.trace_v2(apsw.SQLITE_TRACE_STMT, note)

    apsw.connection_hooks.append(hook)
    yield seen
    apsw.connection_hooks.remove(hook)


# ---- what is found ------------------------------------------------------------------------------------------


@pytest.fixture
def rich(folder):
    """A trail that holds a word of its own in each place where there is text."""
    t = folder.start(
        "wtitle",
        agent="wlead",
        description="wdescription",
        tags=["wtag"],
        source={"system": "linear", "id": "ENG-17"},
    )
    with t.chapter("wchapter", agent="wben"):
        t.note("wnote", tags=["weventtag"])
        t.event("tool_call", "wtool")
        with t.chapter("wnested"):
            t.find("wfinding", agent="wcid")
    t.decide(
        "wquestion",
        "wchosen",
        reasoning="wreasoning",
        alternatives=["wother", {"option": "wopt", "reason": "wwhy"}],
    )
    t.reflect("wreflection")
    t.complete(
        "wsummary",
        "wapproach",
        challenges=["wchallenge"],
        learnings=["wlearning"],
        suggestions=["wsuggestion"],
        decisions=[Decision(question="wtold", chosen="wtoo", reasoning="wbecause")],
        commits=["abc1234"],
        files_changed=["src/wfile.py"],
    )
    folder.open(t.id, late=True).note("wlate")
    return t


WORDS = [
    *("wtitle", "wlead", "wdescription", "wtag", "eng-17", "wchapter", "wben", "wnote", "weventtag", "wtool"),
    *("wnested", "wfinding", "wcid", "wquestion", "wchosen", "wreasoning", "wother", "wopt", "wwhy"),
    *("wreflection", "wsummary", "wapproach", "wchallenge", "wlearning", "wsuggestion", "wtold", "wtoo"),
    *("wbecause", "abc1234", "src/wfile.py", "wlate"),
]


def test_everything_that_a_trail_says_is_found(folder, rich):
    other = folder.start("another")
    other.abandon("wabandoned because")
    for word in WORDS:
        assert ids(folder.search(word)) == [rich.id], word
        assert word.split("-")[0].split("/")[0] in search.hits(folder, word)[0].snippet.lower(), word
    assert ids(folder.search("wabandoned")) == [other.id]
    assert ids(folder.search(" ".join(WORDS))) == [rich.id]
    assert folder.search("wnote wabandoned") == []
    (found,) = folder.search("wnote")
    (listed,) = [summary for summary in folder.list() if summary.id == rich.id]
    assert found == listed


@pytest.mark.parametrize(
    ("text", "query", "found"),
    [
        ("The login token", "token", True),
        ("The login tokens", "token", False),
        ("The login token", "token LOGIN", True),
        ("The login token", "token absent", False),
        ("The login token", '"login token"', True),
        ("The login token", '"token login"', False),
        ("Café Ångström naïve", "cafe angstrom NAIVE", True),
        ("cafe", "CAFÉ", True),
        ("Привет мир", "привет", True),
        ("the jwt_token", "jwt_token", True),
        ("the token jwt", "jwt_token", False),
        ("a-b", "a-b", True),
        ("x AND y", "x AND y", True),
        ("x y", "x AND y", False),
        ("login", "log*", False),
        ("login", "-login", True),
        ("login", "title:login", False),
        ("about title login", "title:login", True),
        ("login", '"login', True),
        ("login", 'login "', True),
        ("login", "(login)", True),
        ("login", "***", False),
        ("login", "", False),
        ("login", '""', False),
        ("login", "login\0 ^ {} + NEAR(", False),
        ("login", "\ud800", False),
        ("a\ud800b\0c", "c", True),
        ("login " * 3, "login " * 3000, True),
    ],
)
def test_words_phrases_and_nothing_else(folder, text, query, found):
    folder.start("unrelated")
    t = folder.start("x")
    t.note(text)
    assert ids(folder.search(query)) == ([t.id] if found else [])
    assert [hit.summary.id for hit in search.hits(folder, query)] == ([t.id] if found else [])


def test_a_phrase_does_not_begin_in_one_event_and_end_in_the_next(folder):
    t = folder.start("x", tags=["red", "green"])
    t.note("first login")
    t.note("token second")
    assert folder.search('"login token"') == folder.search('"red green"') == []
    assert ids(folder.search("login token")) == [t.id]


def test_the_best_match_comes_first_and_then_the_newest(folder):
    said = folder.start("x")
    said.note("login")
    old, new = folder.start("login"), folder.start("login")
    assert ids(folder.search("login")) == [new.id, old.id, said.id]
    assert ids(folder.search("login", limit=2)) == [new.id, old.id]
    assert folder.search("login", limit=0) == []
    assert len(folder.search("login")) == 3, "no hidden limit"


def test_a_snippet_shows_the_place(folder):
    folder.start("x").note("so it is\nthe login that " + "goes on and on " * 30)
    (hit,) = search.hits(folder, "LOGIN")
    assert hit.summary.title == "x"
    assert "so it is the **login** that goes" in hit.snippet
    assert len(hit.snippet) < 200


@given(st.text(max_size=40))
def test_no_text_is_an_error(tmp_path_factory, text):
    folder = TrailFolder(tmp_path_factory.mktemp("any") / "t", redact=None)
    folder.start("x").note("login")
    assert len(folder.search(text)) in (0, 1)
    assert len(search.hits(folder, text + ' "x')) in (0, 1)


@pytest.mark.parametrize(("text", "limit"), [(5, None), (None, None), ("x", -1), ("x", "one")])
def test_a_wrong_value_is_refused(folder, text, limit):
    with pytest.raises(PayloadError):
        folder.search(text, limit)


def test_a_folder_that_is_not_there_is_not_made(folder):
    assert folder.search("x") == []
    assert not folder.root.exists()


# ---- it is current ------------------------------------------------------------------------------------------


def test_each_change_is_found_by_the_next_search(folder):
    t = folder.start("x")
    assert folder.search("login") == []
    t.note("login")
    assert ids(folder.search("login")) == [t.id]
    t.complete("done")
    (found,) = folder.search("login")
    assert (found.status, found.path.split("/")[0]) == ("completed", "completed")
    folder.open(t.id, late=True).note("token")
    assert ids(folder.search("token login")) == [t.id]
    folder.delete(t.id)
    assert folder.search("login") == []


def test_records_of_other_tools_are_found_and_followed(folder):
    folder.start("x")
    id = "traj_abc123def456"
    path = folder.root / "active" / f"{id}.json"
    data = {
        "id": id,
        "version": 1,
        "task": {"title": "Theirs"},
        "status": "active",
        "startedAt": "2026-01-31T09:00:00Z",
        "agents": [],
        "chapters": [],
        "commits": [],
        "filesChanged": [],
        "tags": [],
    }
    path.write_text(json.dumps(data))
    assert ids(folder.search("theirs")) == [id]
    path.write_text(json.dumps(data | {"task": {"title": "Changed"}}))
    assert (folder.search("theirs"), ids(folder.search("changed"))) == ([], [id])
    path.write_text("{")
    assert folder.search("changed") == []
    assert files_read(folder) == 0, "a malformed file is not read again until it changes"
    path.unlink()
    nested = folder.root / "active" / id
    nested.mkdir()
    assert folder.search("theirs") == []
    (nested / "trajectory.json").write_text(json.dumps(data))
    assert ids(folder.search("theirs")) == [id]


def test_what_git_puts_in_place_of_a_file_is_read(folder):
    """Same size, same time: the inode differs."""
    t = folder.start("x")
    t.note("login")
    assert ids(folder.search("login")) == [t.id]
    path = folder.root / "active" / f"{t.id}.jsonl"
    status, other = path.stat(), path.with_suffix(".new")
    other.write_bytes(path.read_bytes().replace(b"login", b"token"))
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.rename(path)
    assert (folder.search("login"), ids(folder.search("token"))) == ([], [t.id])


def test_when_nothing_changed_nothing_is_read_or_written(folder, statements):
    trails = [folder.start(f"number {i}") for i in range(20)]
    assert len(folder.search("number")) == 20
    assert files_read(folder) == 0
    before = cache(folder).stat().st_mtime_ns
    statements.clear()
    assert len(folder.search("number")) == 20
    assert [sql.split()[0] for sql in statements] == ["BEGIN", "SELECT", "SELECT", "ROLLBACK"], statements
    assert cache(folder).stat().st_mtime_ns == before
    trails[3].note("login")
    assert files_read(folder) == 1
    assert files_read(folder) == 0


# ---- the file -----------------------------------------------------------------------------------------------


def older(path):
    db = apsw.Connection(str(path))
    db.execute("DROP TABLE words; CREATE TABLE words (a); PRAGMA user_version = 1")
    db.close()


def foreign(path):
    path.unlink()
    db = apsw.Connection(str(path))
    db.execute("CREATE TABLE somebody (elses)")
    db.close()


def emptied(path):
    db = apsw.Connection(str(path))
    db.execute("DROP TABLE files")
    db.close()


DAMAGES = {
    "deleted": lambda path: path.unlink(),
    "no bytes": lambda path: path.write_bytes(b""),
    "no database": lambda path: path.write_bytes(b"x" * 5000),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:9000]),
    "overwritten": lambda path: path.write_bytes(path.read_bytes()[:4096] + b"\xff" * 40000),
    "of an older version": older,
    "of somebody else": foreign,
    "a table is missing": emptied,
    "with a stray journal": lambda path: path.with_name(path.name + "-journal").write_bytes(b"\xff" * 600),
    "with a stray write-ahead log": lambda path: path.with_name(path.name + "-wal").write_bytes(
        b"\xff" * 600
    ),
}


HARMLESS = ("with a stray journal", "with a stray write-ahead log")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_index_is_made_again(folder, caplog, damage):
    caplog.set_level(logging.INFO, "holdfast.trail")
    t = folder.start("login")
    assert ids(folder.search("login")) == [t.id]
    caplog.clear()
    DAMAGES[damage](cache(folder))
    assert ids(folder.search("login")) == [t.id]
    levels = [record.levelname for record in caplog.records]
    assert levels.count("WARNING") == (damage not in ("deleted", "no bytes", *HARMLESS)), "one line says why"
    assert levels.count("INFO") == (damage not in HARMLESS), "and one that it is made"
    assert len(levels) <= 2
    assert ids(folder.search("login")) == [t.id]
    assert files_read(folder) == 0, "and it is kept"


def test_it_may_be_deleted_while_it_is_used(folder):
    t = folder.start("login")
    done = False

    def delete():
        nonlocal done
        try:
            for _ in range(150):
                for path in (folder.root / ".cache").glob("search*"):
                    path.unlink(missing_ok=True)
        finally:
            done = True

    def look(writes):
        handle, count = folder.open(t.id), 0
        while not done or count < 10:
            word = f"w{os.getpid()}n{writes}n{count}"
            handle.note(word)
            assert ids(folder.search(word)) == [t.id]
            count += 1
        return count

    answers = at_once(delete, lambda: look(1), lambda: look(2), lambda: look(3))
    assert answers[0] is None
    assert all(isinstance(answer, int) for answer in answers[1:]), answers
    assert ids(folder.search("login")) == [t.id]


def test_a_link_is_not_followed(folder, tmp_path):
    t = folder.start("login")
    outside = tmp_path / "outside"
    outside.mkdir()
    (folder.root / ".cache").symlink_to(outside)
    assert ids(folder.search("login")) == [t.id]
    assert list(outside.iterdir()) == []


def test_git_ignores_it(folder):
    folder.start("login")
    folder.search("login")
    assert "/.cache/" in (folder.root / ".gitignore").read_text().split()
    assert (folder.root / ".cache" / ".gitignore").read_text() == "*\n"


READ_ONLY = """
import os, sys
from holdfast.trail import TrailFolder
if os.getuid() == 0:
    os.setuid(65534)
folder = TrailFolder(sys.argv[1])
for _ in range(2):
    print(*[summary.id for summary in folder.search("login")])
assert not os.access(folder.root, os.W_OK)
"""


@pytest.mark.parametrize("indexed", [True, False])
def test_in_a_folder_that_cannot_be_written_an_index_in_memory_is_used(indexed):
    with tempfile.TemporaryDirectory() as outside:  # pytest's own folder is closed to other users
        folder = TrailFolder(Path(outside) / "t", redact=None)
        t = folder.start("login")
        if indexed:
            folder.search("login")
            t.note("the file does not know this")
        for path in [Path(outside), *Path(outside).rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        try:
            out = subprocess.run(
                [sys.executable, "-c", READ_ONLY, str(folder.root)],
                capture_output=True,
                text=True,
                check=True,
            )
        finally:
            for path in [Path(outside), *Path(outside).rglob("*")]:
                path.chmod(0o755)
    assert out.stdout.split() == [t.id, t.id]
    assert out.stderr.count("an index in memory takes its place") == 1
    assert len(out.stderr.splitlines()) == 1


def test_a_search_that_gets_no_lock_answers_all_the_same(folder, monkeypatch):
    """Another process has stopped in the middle of its work."""
    t = folder.start("login")
    assert ids(folder.search("login")) == [t.id]
    monkeypatch.setattr(search, "WAIT_MS", 50)
    stopped = apsw.Connection(str(cache(folder)))
    stopped.execute("BEGIN EXCLUSIVE")
    t.note("token")
    assert ids(folder.search("login token")) == [t.id]
    t.note("cookie")
    assert ids(folder.search("login token cookie")) == [t.id]
    stopped.execute("ROLLBACK")
    stopped.close()
    assert ids(folder.search("cookie")) == [t.id]
    assert files_read(folder) == 0


# ---- many at once -------------------------------------------------------------------------------------------

SEARCHER = """
import os, sys
from holdfast.trail import TrailFolder
folder = TrailFolder(sys.argv[1], redact=None)
print("ready", flush=True)
sys.stdin.readline()
trail = folder.start(f"of {os.getpid()}")
for i in range(15):
    word = f"w{os.getpid()}n{i}"
    trail.note(word)
    found = [summary.id for summary in folder.search(word)]
    assert found == [trail.id], (word, found)
trail.complete("login")
found = folder.search(f"w{os.getpid()}n3 login")
assert [(s.id, s.status) for s in found] == [(trail.id, "completed")], found
"""


def test_processes_search_and_write_at_once(folder):
    """What was acknowledged before a search began is found by it; the index is made by all at the same time."""
    for i in range(50):
        folder.start(f"number {i}")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SEARCHER, str(folder.root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        assert process.communicate(timeout=120)[1] == ""
        assert process.returncode == 0
    assert len(folder.search("login")) == 6
    assert files_read(folder) == 0


def test_threads_search_and_write_at_once(folder):
    def work(name):
        t = folder.start(name)
        for i in range(10):
            t.note(f"{name}{i}")
            assert ids(folder.search(f"{name}{i}")) == [t.id]
        return t.id

    answers = at_once(*[lambda n=n: work(f"n{n}") for n in "abcdef"])
    assert all(isinstance(answer, str) for answer in answers), answers


# ---- ten thousand -------------------------------------------------------------------------------------------


def build(root, count):
    """Journals of that many trails, three of four ended, spread over twelve months."""
    words = ["login", "token", "cache", "parser", "index", "socket", "retry", "schema", "lock", "worker"]
    words += ["deploy", "config", "widget", "thread"]
    first = from_text("2025-01-01T00:00:00Z")
    for month in range(1, 13):
        (root / "completed" / f"2025-{month:02d}").mkdir(parents=True)
    (root / "active").mkdir()
    for i in range(count):
        now, said = first + i * 3_000_000_000, words[i % 14 :] + words[: i % 14]
        told = [("trail_started", {"title": f"number{i} common"}), ("chapter_opened", {"title": said[1]})]
        told += [("note", {"content": " ".join(said[n : n + 6])}) for n in range(5)]
        if i % 4:
            told.append(("trail_completed", {"summary": " ".join(said[:4]), "confidence": 0.8}))
        lines = [
            line.encode(
                line.new(f"evt_{i}_{n}", type, data, occurred_at=now + n, chapter="chap_1", seq=n + 1)
            )
            for n, (type, data) in enumerate(told)
        ]
        place = f"completed/2025-{i % 12 + 1:02d}" if i % 4 else "active"
        (root / place / f"traj_{i:012d}.jsonl").write_bytes(b"".join(lines))


@pytest.fixture
def clocked(capsys):
    def run(what, call):
        begun, cpu = time.perf_counter(), time.process_time()
        answer = call()
        took = time.perf_counter() - begun, time.process_time() - cpu
        with capsys.disabled():
            print(f"\n  {what}: {took[0] * 1000:.0f} ms ({took[1] * 1000:.0f} ms of the processor)", end="")
        return answer

    return run


COUNT = 2_500


@pytest.mark.slow
def test_thousands_of_trails(folder, statements, clocked):
    """Row T-14: 14 s for each command, with 10,000. Counts are asserted, the same for any number; times are shown,
    and `bench/trails.py` takes those of 10,000."""
    clocked(f"{COUNT:,} journals are written", lambda: build(folder.root, COUNT))
    assert len(clocked("index.json and what is derived are made", folder.list)) == COUNT
    assert len(clocked("the full-text index is made", lambda: folder.search("number77"))) == 1
    begins = [sql for sql in statements if sql.startswith("BEGIN")]
    assert begins == ["BEGIN", "BEGIN IMMEDIATE"], "one transaction"
    for _ in range(3):
        assert len(clocked("list", folder.list)) == COUNT
        assert len(clocked("list(limit=20)", lambda: folder.list(limit=20))) == 20
    for _ in range(3):
        statements.clear()
        assert len(clocked("search, 1 hit", lambda: folder.search("number77"))) == 1
        assert len(statements) == 4
    assert len(clocked("search, 20 of many hits", lambda: folder.search("common token", limit=20))) == 20
    assert len(clocked("hits, 20 of many", lambda: search.hits(folder, "common token", limit=20))) == 20
    assert len(clocked(f"search, {COUNT:,} hits", lambda: folder.search("common"))) == COUNT
    assert files_read(folder) == 0
    trails = [clocked("start", lambda: folder.start("x")) for _ in range(4)]
    assert len(clocked("search after 4 starts", lambda: folder.search("number78"))) == 1
    clocked("note", lambda: trails[0].note("y"))
    assert files_read(folder) == 1
    clocked("complete", lambda: trails[0].complete("done"))
    assert files_read(folder) == 1
    assert len(clocked("list", folder.list)) == COUNT + 4
