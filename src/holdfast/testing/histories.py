"""Recorded histories against today's code: one line of a test, and every run of the past still replays."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from ..errors import DefinitionError
from ..events import Event
from ..replay import check_run, load_history, read_history, workflow_name
from ..workflow import Workflow

Histories = str | Path | Iterable[Any]
"""A file, a folder (every *.jsonl below it), a pattern such as "histories/*.jsonl"; the lines that
`holdfast events RUN --json` writes; the events of one log; or several of these."""


def replay(histories: Histories, workflows: Iterable[Workflow[..., Any] | ModuleType] = ()) -> int:
    """Replay recorded runs with today's code; gives how many there were.

    `workflows` are the workflows to replay with, or modules that define them; without, those of this process.
    A run that was still going on when it was recorded counts, too: all that it had asked for must be asked for.

    Raises AssertionError where runs diverge, with a line for each: its file, the position, what the log holds
    there, what the code asked for, and where. Raises LookupError where there is no history at all (a pattern that
    names nothing would pass for ever), DefinitionError where the workflow of one is not there, PayloadError for
    what is no history.

    Example:
        def test_what_was_recorded_still_replays():
            replay("tests/histories", [shop])
    """
    known = _by_name(workflows)
    problems: list[str] = []
    count = 0
    for source, events in _read(histories):
        count += 1
        name = workflow_name(events)
        if known and name not in known:
            raise DefinitionError(
                f"{source}: no workflow {name!r} among {', '.join(sorted(known))}: give it to replay(…), too"
            )
        divergence = check_run(events, known.get(name)).divergence
        if divergence is not None:
            problems.append(f"{source}: {divergence}")
    if not count:
        raise LookupError(f"no history in {histories!r:.200}: expected files that end in .jsonl")
    if problems:
        raise AssertionError(f"{len(problems)} of {count} histories diverge:\n" + "\n".join(problems))
    return count


def _by_name(given: Iterable[Workflow[..., Any] | ModuleType]) -> Mapping[str, Workflow[..., Any]]:
    if isinstance(given, Workflow | ModuleType):
        given = [given]
    found: dict[str, Workflow[..., Any]] = {}
    for item in given:
        inside = vars(item).values() if isinstance(item, ModuleType) else [item]
        found |= {workflow.name: workflow for workflow in inside if isinstance(workflow, Workflow)}
    return found


def _read(histories: Histories) -> Iterator[tuple[str, Sequence[Event]]]:
    if isinstance(histories, str | Path):
        for path in _files(histories):
            yield str(path), load_history(path)
        return
    items = list(histories)
    for kind, group in groupby(items, _kind):
        if kind is Event:
            yield from _logs(list(group))
        elif kind is bytes:
            yield from _texts(list(group))
        else:
            for item in group:
                yield from _read(item)


def _kind(item: object) -> type | None:
    if isinstance(item, Event):
        return Event
    if isinstance(item, bytes) or (isinstance(item, str) and item.lstrip().startswith("{")):
        return bytes
    return None


def _files(named: str | Path) -> list[Path]:
    path = Path(named)
    if path.is_dir():
        return sorted(path.rglob("*.jsonl"))
    if path.exists() or not glob.has_magic(str(named)):
        return [path]  # a file that is not there is for `load_history` to tell
    return sorted(Path(found) for found in glob.glob(str(named), recursive=True))  # noqa: PTH207 - `**` in any place


def _logs(events: list[Event]) -> Iterator[tuple[str, Sequence[Event]]]:
    for run, log in groupby(events, lambda event: event.run):
        yield run, list(log)


class _Place(msgspec.Struct):
    position: int = 0


def _texts(lines: list[str | bytes]) -> Iterator[tuple[str, Sequence[Event]]]:
    """Lines of exported events; another run begins with each position 1."""
    history: list[str | bytes] = []
    begun = 1
    for number, line in enumerate(lines, 1):
        if history and _begins(line):
            yield f"lines {begun} to {number - 1}", read_history(history, f"lines from {begun} on")
            history, begun = [], number
        history.append(line)
    yield f"lines {begun} to {len(lines)}", read_history(history, f"lines from {begun} on")


def _begins(line: str | bytes) -> bool:
    try:
        return msgspec.json.decode(line, type=_Place).position == 1
    except (msgspec.MsgspecError, UnicodeError):
        return False  # for `read_history` to tell
