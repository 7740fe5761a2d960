"""What must hold when the chaos is over, from the logs, the clients' journals and the journal of effects.

- `holdfast verify` finds no difference: L1–L5, L8, L11, L13, and the projections are what the logs fold to.
- Each log replays from nothing to what it holds (L6, L7, L9, L10). That is also what shows that no command of a
  superseded decider is in it: such a command follows from a view that lacks a fact, and the replay, which
  delivers that fact where it stands, does not ask for it. (Where a log holds the commands of several versions
  of the code, only the code can tell; here there is one.)
- A child has a parent, and counts as nobody's start.
- Who was cancelled was asked to be: in its own log, or, if it never began, in its parent's.
- A start that was acknowledged is there; a payload that was acknowledged stands at its position, once; one that
  was refused stands nowhere; what was read and what was left is what was accepted.
- A step with a result has at least one effect, of the attempt that the result is from; one result is recorded.
  No attempt had two bodies, and no body ran without its start in the log.
- Every run has ended, none is parked: nothing had something to do that nobody did (L14).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from ....events import Event, fold
from ....store.base import Store
from ....verify import Verification
from ..report import Payloads
from .errands import errand, part


class Told(msgspec.Struct):
    """What the clients' journals say."""

    starts: set[str] = msgspec.field(default_factory=set)
    started: set[str] = msgspec.field(default_factory=set)
    sends: set[str] = msgspec.field(default_factory=set)
    sent: dict[str, tuple[str, int]] = msgspec.field(default_factory=dict)
    refused: set[str] = msgspec.field(default_factory=set)


class ChaosReport(msgspec.Struct, kw_only=True):
    """What a chaos came to; `problems` is empty where every promise was kept.

    `befallen` counts the trouble by kind. `unknown` are sends and starts whose client died before it was told.
    `effects` counts the lines in the side journal, `steps` the results in the logs.
    """

    seed: str
    store: str
    seconds: float = 0.0
    settled: float = 0.0
    befallen: dict[str, int] = {}
    runs: dict[str, int] = {}
    payloads: Payloads = msgspec.field(default_factory=Payloads)
    unknown: int = 0
    steps: int = 0
    effects: int = 0
    events: int = 0
    replayed: int = 0
    stale: dict[str, int] = {}
    warnings: dict[str, int] = {}
    problems: list[str] = []


def read_journals(paths: Iterable[Path]) -> Told:
    """The journals of all clients; a last line that a kill cut in two was never said."""
    told = Told()
    for path in paths:
        for raw in path.read_bytes().splitlines():
            try:
                line: dict[str, Any] = msgspec.json.decode(raw)
            except msgspec.DecodeError:
                continue
            match line:
                case {"start": run}:
                    told.starts.add(run)
                case {"started": run}:
                    told.started.add(run)
                case {"send": delivery}:
                    told.sends.add(delivery)
                case {"sent": delivery, "run": run, "position": position}:
                    told.sent[delivery] = run, position
                case {"refused": delivery}:
                    told.refused.add(delivery)
    return told


def read_effects(path: Path) -> dict[str, Counter[int]]:
    """How often each attempt of each step left its mark."""
    effects: dict[str, Counter[int]] = defaultdict(Counter)
    if path.exists():
        for line in path.read_text().splitlines():
            key, attempt, _process = line.split("\t")
            effects[key][int(attempt)] += 1
    return effects


async def check(store: Store, report: ChaosReport, told: Told, effects: dict[str, Counter[int]]) -> None:
    """Add to the report what the logs hold, and what does not hold."""
    verification = Verification(store, workflows=[errand.name, part.name])
    report.problems += [f"verify: {difference}" async for difference in verification.run()]
    report.problems += [f"{run_id}: was written to all the time" for run_id in verification.unsettled]
    report.events, report.replayed = verification.events, verification.replayed
    places: dict[str, list[tuple[str, int]]] = defaultdict(list)
    statuses: Counter[str] = Counter()
    seen: set[str] = set()
    begun: set[str] = set()
    parents: dict[str, list[str]] = defaultdict(list)
    async for head in store.all_runs():
        log = await store.read(head.run)
        if head.parent is None:
            seen.add(head.run)
        else:
            parents[head.parent].append(head.run)
        statuses[head.status] += 1
        for event in log:
            if event.type == "hook_received":
                places[event.data["delivery"]].append((head.run, event.position))
            elif event.type == "step_started":
                begun.add(f"{head.run}/{event.key}")
        _check_run(report, head.run, head.parked, log)
        if head.status == "cancelled" and all(event.type != "cancel_requested" for event in log):
            above = await store.read(head.parent) if head.parent is not None else []
            if not _called_off(log, above):
                report.problems.append(f"{head.run}: was cancelled, and nobody asked for it")
        _check_effects(report, head.run, log, effects)
    report.runs = dict(statuses)
    if report.replayed < statuses.total() and not report.problems:
        report.problems.append(f"only {report.replayed} of {statuses.total()} runs were replayed")
    for step, attempts in effects.items():
        if attempts and step not in begun:
            report.problems.append(f"{step}: had an effect, and no log says that it was begun")
    report.effects = sum(sum(attempts.values()) for attempts in effects.values())
    for parent in parents.keys() - seen:
        report.problems.append(f"{', '.join(parents[parent])}: their parent {parent} is not there")
    _check_told(report, told, seen, places)


def _check_run(report: ChaosReport, run_id: str, parked: str | None, log: list[Event]) -> None:
    state = fold(log)
    report.payloads.accepted += state.received
    if parked is not None:
        report.problems.append(f"{run_id}: is parked: {parked}")
    if state.ended is None:
        report.problems.append(f"{run_id}: is stuck: it has not ended")
        return
    if state.status == "failed":
        report.problems.append(f"{run_id}: failed: {state.error}")
    if state.read > state.received:
        report.problems.append(f"{run_id}: read {state.read} payloads of {state.received}")
    report.payloads.read += state.read
    report.payloads.unread += state.received - state.read
    done = sum(event.type == "step_completed" for event in log)
    if state.status == "completed" and log[-1].type == "run_completed" and log[-1].data["value"] > done:
        report.problems.append(f"{run_id}: saw {log[-1].data['value']} steps completed, its log holds {done}")


def _called_off(log: list[Event], above: list[Event]) -> bool:
    """Whether a child never began because its parent, whose log is `above`, did not wait for it any more."""
    if [event.type for event in log] != ["run_created", "run_cancelled"]:
        return False
    key = log[0].data["parent"]["key"]
    said = {event.type for event in above if event.key == key}
    return "child_started" in said and ("child_cancelled" in said or fold(above).ended is not None)


def _check_effects(
    report: ChaosReport, run_id: str, log: list[Event], effects: dict[str, Counter[int]]
) -> None:
    started: set[tuple[str, int]] = set()
    for event in log:
        if event.type == "step_started":
            started.add((event.key, event.data["attempt"]))
        elif event.type == "step_completed":
            report.steps += 1
            if not effects[f"{run_id}/{event.key}"][event.data["attempt"]]:
                report.problems.append(f"{run_id}: {event.key} has a result, and had no effect")
    for key in {key for key, _ in started}:
        for attempt, count in effects[f"{run_id}/{key}"].items():
            if count > 1:
                report.problems.append(f"{run_id}: {key} attempt {attempt} had {count} bodies")
            if (key, attempt) not in started:
                report.problems.append(f"{run_id}: {key} attempt {attempt} had a body before its record")


def _check_told(
    report: ChaosReport, told: Told, seen: set[str], places: dict[str, list[tuple[str, int]]]
) -> None:
    problems = report.problems
    problems += [f"{run}: its start was acknowledged, and it is not there" for run in told.started - seen]
    problems += [f"{run}: nobody started it" for run in seen - told.starts]
    for delivery, place in told.sent.items():
        if places[delivery] != [place]:
            problems.append(f"{delivery}: acknowledged at {place}, it stands at {places[delivery]}")
    for delivery in told.refused:
        if places[delivery]:
            problems.append(f"{delivery}: refused, it stands at {places[delivery]}")
    for delivery, found in places.items():
        if len(found) > 1:
            problems.append(f"{delivery}: stands {len(found)} times: {found}")
        if delivery not in told.sends:
            problems.append(f"{delivery}: nobody sent it")
    report.payloads.refused = len(told.refused)
    report.unknown = len(told.starts - told.started) + len(told.sends - told.sent.keys() - told.refused)
