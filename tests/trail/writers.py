"""What the other processes of the trail tests do: `python writers.py ROLE FOLDER [ARG…]`.

Each says "ready", waits for a line, and then says one line for each thing that it was told is on the disk.
"""

import json
import logging
import os
import sys
from itertools import count
from pathlib import Path

from holdfast.errors import TrailEnded, TrailError, TrailNotFound
from holdfast.trail import TrailFolder


def say(*words: object) -> None:
    print(*words, flush=True)


def wait() -> None:
    say("ready")
    sys.stdin.readline()


def begin(folder: TrailFolder, number: str, agent: str) -> None:
    """Start so many trails."""
    wait()
    for i in range(int(number)):
        say(folder.start(f"{agent} {i}", agent=agent).id)


def tell(folder: TrailFolder, trail_id: str, number: str, agent: str) -> None:
    """Write so many notes into one trail."""
    trail = folder.open(trail_id, agent=agent)
    wait()
    for i in range(int(number)):
        trail.note(f"{agent} {i}")
        say(f"{agent} {i}")


def end(folder: TrailFolder, *trail_ids: str) -> None:
    """Complete these trails; say which."""
    wait()
    for trail_id in trail_ids:
        try:
            folder.open(trail_id).complete(f"by {os.getpid()}")
            say(trail_id, "won")
        except TrailEnded:
            say(trail_id, "ended")
        except TrailNotFound:
            say(trail_id, "gone")


def note(folder: TrailFolder, *trail_ids: str) -> None:
    """Write into each of these trails until it is gone."""
    handles = {trail_id: folder.open(trail_id) for trail_id in trail_ids}
    wait()
    for round in count():
        for trail_id, trail in list(handles.items()):
            try:
                trail.note(f"{round}")
                say(trail_id, round)
            except TrailNotFound:
                del handles[trail_id]
        if not handles or round == 30:
            return


def delete(folder: TrailFolder, *trail_ids: str) -> None:
    """Delete these trails."""
    wait()
    for trail_id in trail_ids:
        folder.delete(trail_id)
        say(trail_id)


def look(folder: TrailFolder, number: str) -> None:
    """List and reconcile so many times."""
    wait()
    for _ in range(int(number)):
        folder.list()
        counted = folder.reconcile()
        assert not counted.failures, counted.failures
    say("looked")


def watch(folder: TrailFolder) -> None:
    """Read index.json and every record without end, as another tool would; say each that is torn or empty."""
    wait()
    os.set_blocking(0, False)
    root, seen = Path(folder.root), 0
    while sys.stdin.read(1) == "":
        for path in [root / "index.json", *root.glob("active/*.json"), *root.glob("completed/*/*.json")]:
            try:
                text = path.read_bytes()
            except FileNotFoundError:
                continue
            seen += 1
            try:
                json.loads(text)
            except ValueError:
                say("torn", path.name, len(text))
    say("seen", seen)


def live(folder: TrailFolder) -> None:
    """Start, note and complete without end, until somebody kills us."""
    wait()
    for number in count():
        trail = folder.start(f"life {number}", agent="ana")
        say("started", trail.id)
        for i in range(3):
            say("noted", trail.id, trail.note(f"{number} {i} " + "x" * 2000))
        if number % 2:
            trail.complete("done")
            say("ended", trail.id)


def hold(folder: TrailFolder, trail_id: str = "") -> None:
    """Hold the lock of the folder, or of a trail's journal."""
    from holdfast.trail import journal, lock

    if trail_id:
        with lock.locked(folder.files.places.path(folder.files.found(trail_id).journals[0]), journal.WRITE):
            wait()
    else:
        with folder.files.locked():
            wait()


if __name__ == "__main__":
    logging.basicConfig(format="%(levelname)s %(message)s")  # to stderr: a test that expects none sees it
    roles = {role.__name__: role for role in (begin, tell, end, note, delete, look, watch, live, hold)}
    try:
        roles[sys.argv[1]](TrailFolder(sys.argv[2], redact=None), *sys.argv[3:])
    except TrailError as error:
        sys.exit(f"{type(error).__name__}: {error}")
