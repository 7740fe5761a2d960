"""Replay, offline: recorded histories against today's code. The check before a deploy.

    from holdfast.replay import load_history, replay_run

    import shop                                            # today's code
    replay_run(load_history("histories/order-1.jsonl"))    # raises ReplayDivergence where it would diverge

It is the engine's own replay (law L7), on logs from files (`holdfast events RUN --json`) or from a store.
Nothing is written and no step runs. Beyond what a worker checks it demands one thing more: a run that its
code ended must not ask for more than its log holds.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Container, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from .clock import from_text
from .engine.tick import replay
from .errors import DefinitionError, KeyMissing, PayloadError, ReplayDivergence, RunNotFound
from .events import ENDS, TYPES, Event, dump_json
from .keys import is_sealed
from .store.base import Store
from .workflow import Workflow, workflows


class Replayed(msgspec.Struct, frozen=True):
    """What a replay came to. `divergence` is where code and log disagree, or None.

    `open_commands` counts what the code asks for beyond the log: a run in flight may, an ended one may not.
    """

    run: str
    workflow: str
    position: int
    ended: bool
    open_commands: int = 0
    divergence: ReplayDivergence | None = None


def replay_run(events: Sequence[Event], workflow: Workflow[..., Any] | None = None) -> Replayed:
    """Replay one run's log with today's code, from its beginning.

    Without `workflow`, the one that the log names is taken; its module must have been imported.

    Example:
        def test_yesterdays_orders_still_replay():
            for path in Path("histories").glob("*.jsonl"):
                replay_run(load_history(path))

    Raises ReplayDivergence (position, expected, asked, where), DefinitionError where its workflow is unknown.
    """
    outcome = check_run(events, workflow)
    if outcome.divergence is not None:
        raise outcome.divergence
    return outcome


def check_run(events: Sequence[Event], workflow: Workflow[..., Any] | None = None) -> Replayed:
    """`replay_run` that gives a divergence back instead of raising it: for looking at many runs.

    Example:
        outcomes = [check_run(load_history(path)) for path in paths]
        diverged = [outcome for outcome in outcomes if outcome.divergence]
    """
    name = workflow_name(events)
    if workflow is None:
        workflow = workflows.get(name)
    if workflow is None:
        raise DefinitionError(
            f"{events[0].run}: no workflow {name!r} is defined here: import the module that defines it"
        )
    if is_sealed(events[0].body):
        raise KeyMissing(f"{events[0].run}: its payloads are sealed: give the keys ($HOLDFAST_KEYS)")
    ended = any(event.type in ENDS for event in events)
    outcome = Replayed(events[0].run, name, events[-1].position, ended)
    try:
        execution = replay(workflow, events)
        asked = list(execution.asked)
        execution.bury()
    except ReplayDivergence as divergence:
        return msgspec.structs.replace(outcome, divergence=divergence)
    end = next((event for event in events if event.type in ENDS), None)
    if asked and end is not None and end.cls == "command":
        extra = f"{asked[0].type} {asked[0].key}".strip()
        more = ReplayDivergence(
            f"{end.run}, position {end.position}: the log ends with {end.type}, "
            f"but the code goes on to ask for {extra}",
            position=end.position,
            expected=end.type,
            asked=extra,
        )
        return msgspec.structs.replace(outcome, divergence=more, open_commands=len(asked))
    return msgspec.structs.replace(outcome, open_commands=len(asked))


async def replay_store(
    store: Store, names: Container[str] | None = None, *, run_id: str | None = None
) -> AsyncIterator[Replayed]:
    """Replay the runs of a store whose workflow is in `names` (or is defined in this process), newest first.

    One run is in memory at a time. With `run_id`, that run alone.

    Example:
        async with hf.connect("sqlite:///app.db") as app:
            async for outcome in replay_store(app.store):
                assert outcome.divergence is None, outcome.divergence

    Raises RunNotFound.
    """
    known = workflows.names() if names is None else names
    if run_id is not None:
        events = await store.read(run_id)
        if not events:
            raise RunNotFound(f"no run {run_id!r} in {store.url}")
        yield check_run(events)
        return
    async for head in store.all_runs():
        if head.workflow in known:
            yield check_run(await store.read(head.run))


def workflow_name(events: Sequence[Event]) -> str:
    """The workflow whose log this is. Raises PayloadError where it does not begin as a log does."""
    if not events or events[0].type != "run_created":
        raise PayloadError("a history begins with run_created, at position 1")
    return str(events[0].data.get("workflow", ""))


# ---- histories in files ------------------------------------------------------------------------------------


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    """One event as it is exported."""

    run: str
    position: int
    type: str
    at: str
    key: str
    data: msgspec.Raw = msgspec.Raw(b"")


_read_line = msgspec.json.Decoder(_Line).decode


def load_history(path: str | Path) -> list[Event]:
    """The log in a file, as `holdfast events RUN --json` wrote it: one event a line, one run a file.

    Example:
        events = load_history("histories/order-1.jsonl")

    Raises PayloadError, with file and line, for what is no such log.
    """
    try:
        with Path(path).open("rb") as file:
            return read_history(file, str(path))
    except OSError as error:
        raise PayloadError(f"{path}: {error.strerror}") from error


def read_history(lines: Iterable[str | bytes], source: str) -> list[Event]:
    """The log in lines of exported events; `source` is what errors call it.

    Example:
        events = read_history(sys.stdin, "standard input")

    Raises PayloadError, with the line, for what is no such log.
    """
    events: list[Event] = []
    for number, line in enumerate(lines, 1):
        raw = line.encode() if isinstance(line, str) else line
        if raw.strip():
            events.append(_read_event(raw, events, f"{source}, line {number}"))
    if not events:
        raise PayloadError(f"{source}: holds no event")
    return events


def _read_event(line: bytes, before: list[Event], where: str) -> Event:
    try:
        read = _read_line(line)
    except msgspec.ValidationError as error:
        raise PayloadError(f"{where}: {str(error)[:1].lower()}{str(error)[1:]}") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        read = _read_odd_line(line, where)
    if read.type not in TYPES:
        raise PayloadError(f"{where}: no event type {read.type!r}: was it written by a newer Holdfast?")
    if read.position != len(before) + 1:
        raise PayloadError(f"{where}: expected position {len(before) + 1}, got {read.position}")
    if not before and read.type != "run_created":
        raise PayloadError(f"{where}: expected run_created, got {read.type}")
    if before and read.run != before[0].run:
        raise PayloadError(f"{where}: expected run {before[0].run!r}, got {read.run!r}: one file, one run")
    body = bytes(read.data)
    if not body.startswith(b"{"):
        raise PayloadError(f"{where}: expected data to be an object" + ("" if body else ", got none"))
    try:
        time = from_text(read.at)
    except ValueError:
        raise PayloadError(f"{where}: expected a time with its zone in `at`, got {read.at!r}") from None
    return Event(read.run, read.position, read.type, read.key, time, body)


def _read_odd_line(line: bytes, where: str) -> _Line:
    """A line that msgspec refuses: perhaps for a lone surrogate, which Python's reader takes."""
    try:
        plain = json.loads(line)
        plain["data"] = msgspec.Raw(dump_json(plain["data"]))
        return msgspec.convert(plain, _Line)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise PayloadError(f"{where}: not a JSON line ({error})") from None


def dump_history(events: Sequence[Event], path: str | Path) -> None:
    """Write a log in the form that `load_history` reads.

    Example:
        dump_history(await app.store.read("order-1"), "histories/order-1.jsonl")
    """
    Path(path).write_bytes(b"".join(event.to_json() + b"\n" for event in events))
