"""What the processes of bench/trails.py do with Holdfast: `python trails.py ROLE FOLDER [ARG…]`.

Each says "ready" and waits for a line. Then it says "+" and what for each save that returned, "!" and why for
each that threw, and one JSON object for each thing that it measured or read.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TEXT = "The quick brown fox looked at the failing test and found a stale cache entry in it. "
WORDS = (
    "login",
    "token",
    "retry",
    "schema",
    "worker",
    "lease",
    "parser",
    "timeout",
    "replay",
    "quota",
    "mirror",
)


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())  # whole, though threads say things at once


def ready() -> None:
    say("ready")
    sys.stdin.readline()


def each(number: int, save: Callable[[int], str]) -> None:
    """Save so often; "+" and what for each that returned, "!" and why for each that threw."""
    for i in range(number):
        try:
            say("+", save(i))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            say("!", error)


def at_once(folder: Any, number: str, rounds: str) -> None:
    ready()
    for _ in range(int(rounds)):
        barrier = threading.Barrier(int(number))

        def save(barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            each(1, lambda i: folder.start("saved at once").id)

        threads = [threading.Thread(target=save) for _ in range(int(number))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def new(folder: Any, number: str) -> None:
    ready()
    each(int(number), lambda i: str(folder.start(f"number {i}").id))


def create(folder: Any) -> None:
    ready()
    say("+", folder.start("shared").id)


def shared(folder: Any, trail_id: str, number: str) -> None:
    trail = folder.open(trail_id)
    ready()

    def note(i: int) -> str:
        trail.note(content := f"{os.getpid()}-{i}")
        return content

    each(int(number), note)


def live(folder: Any) -> None:
    """Create, three updates to 64 KiB, complete, again, until somebody kills us."""
    ready()
    for number in range(1 << 30):
        trail = folder.start(f"life {number}")
        say("+", trail.id, 0, "active")
        for i in range(3):
            trail.note("x" * 21_800)
            say("+", trail.id, i + 1, "active")
        trail.complete("done", confidence=0.9)
        say("+", trail.id, 3, "completed")


def fill(folder: Any) -> None:
    """One trail grows until the disk is full."""
    ready()
    trail = folder.start("growing")
    say("+", trail.id, 0, "active")
    for i in range(1 << 30):
        trail.note(TEXT * 24)
        say("+", trail.id, i + 1, "active")


def look(folder: Any) -> None:
    """What can be read, trail by trail."""
    ready()
    for summary in folder.list():
        trail = folder.load(summary.id)
        events = [event.content for chapter in trail.chapters for event in chapter.events]
        say(json.dumps({"id": trail.id, "status": trail.status, "events": events}))


def build(folder: Any, number: str) -> None:
    """So many trails of three chapters with five events each, as journals; the index is made at the first look."""
    from holdfast.trail import entry as line
    from holdfast.trail import ids

    ready()
    root = Path(folder.root) / "active"
    root.mkdir(parents=True)
    for i in range(int(number)):
        at = 1_760_000_000_000_000 + i * 60_000_000
        rows = [line.new(f"evt_{i}", "trail_started", {"title": f"Task {i}"}, occurred_at=at, agent="ana")]
        for c in range(3):
            chapter = f"chap_{i}_{c}"
            rows.append(
                line.new(
                    f"{chapter}o",
                    "chapter_opened",
                    {"title": f"Part {c}"},
                    occurred_at=at,
                    agent="ana",
                    chapter=chapter,
                )
            )
            for e in range(5):
                word = WORDS[(i + c + e) % len(WORDS)] if e else f"ticket{i % 500}"
                data = {"content": f"{TEXT}{TEXT}{word}", "significance": "medium"}
                rows.append(
                    line.new(f"{chapter}{e}", "note", data, occurred_at=at + e, agent="ana", chapter=chapter)
                )
        for seq, row in enumerate(rows, start=1):
            row.seq = seq
        (root / f"{ids.trail_id()}.jsonl").write_bytes(b"".join(map(line.encode, rows)))
    timed("first list, which makes the index", folder.list)


def scale(folder: Any) -> None:
    ready()
    timed("list", folder.list)
    timed("start", lambda: folder.start("one more"))
    timed("search, a miss", lambda: folder.search("xyzzy", limit=20))
    trail = folder.start("another")
    timed("event", lambda: trail.note("noted"))
    timed("complete", lambda: trail.complete("done"))
    for _ in range(20):
        timed("list", folder.list)
        timed("list, newest 20", lambda: folder.list(limit=20))
        timed("start", lambda: folder.start("one more"))
        timed("search, 20 hits", lambda: folder.search("ticket77 stale", limit=20))
        timed("search, a word of all", lambda: folder.search("stale", limit=20))
        timed("search, a miss", lambda: folder.search("xyzzy", limit=20))


def timed(what: str, call: Callable[[], Any]) -> None:
    begun = time.perf_counter()
    call()
    say(json.dumps({"what": what, "ms": (time.perf_counter() - begun) * 1e3}))


def saves(folder: Any, number: str) -> None:
    """Events and new trails, each in turn with the same bytes on the bare disk."""
    ready()
    trail = folder.start("durable")
    trail.note(TEXT)
    path = next(Path(folder.root).glob("active/*.jsonl"))
    line = path.read_bytes().splitlines(keepends=True)[-1]
    bare = Path(folder.root).parent / "bare"
    bare.mkdir()
    directory = os.open(bare, os.O_RDONLY)
    fd = os.open(bare / "journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def append() -> None:
        os.write(fd, line)
        os.fdatasync(fd)

    def begin(i: int) -> None:
        file = os.open(bare / str(i), os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        os.write(file, line)
        os.fdatasync(file)
        os.close(file)
        os.fsync(directory)

    for i in range(int(number)):
        timed("event", lambda: trail.note(TEXT))
        timed("event, floor", append)
        timed("new trail", lambda: folder.start("durable"))
        timed("new trail, floor", lambda i=i: begin(i))


def watch(folder: Path) -> None:
    """Read every JSON file of a folder without end, as another tool would; say each that is torn or empty."""
    ready()
    os.set_blocking(0, False)
    seen = torn = 0
    while sys.stdin.read(1) == "":
        for path in folder.rglob("*.json"):
            try:
                text = path.read_bytes()
            except FileNotFoundError:
                continue
            seen += 1
            try:
                json.loads(text)
            except ValueError:
                torn += 1
    say(json.dumps({"seen": seen, "torn": torn}))


ROLES: dict[str, Callable[..., None]] = {
    "at-once": at_once,
    **{f.__name__: f for f in (new, create, shared, live, fill, look, build, scale, saves)},
}


if __name__ == "__main__":
    role, place, *args = sys.argv[1:]
    if role == "watch":
        watch(Path(place))
    else:
        from holdfast.errors import TrailError
        from holdfast.trail import TrailFolder, handle, redact, search  # noqa: F401 - before "ready", as node
        from holdfast.trail.export import markdown  # noqa: F401 - has its whole package by then

        try:
            ROLES[role](TrailFolder(place), *args)
        except TrailError as error:
            sys.exit(str(error))
