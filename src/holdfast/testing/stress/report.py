"""What a storm came to, computed from the stored logs; nothing is taken from what the driver counted.

Three things come from elsewhere, because no log can hold them: what senders were told (the ledger, which the
logs are held against), the appends that were refused as stale (they leave nothing; worker processes that left
in peace tell), and where the runs stood when the time limit was up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from ...events import ENDS, Event, fold, name_of
from ...store.base import Store
from ...verify import Verification
from ...workflow import workflows
from .flows import HookSleep, Storm
from .ledger import Sent

SHOWN = 20
"""How many problems a summary names; the JSON has all."""


class Payloads(msgspec.Struct):
    """What became of what was sent: `accepted` = `read` + `unread`, once every run has ended."""

    accepted: int = 0
    read: int = 0
    unread: int = 0
    refused: int = 0


class Report(msgspec.Struct, kw_only=True):
    """A storm's outcome; `problems` is empty where every promise was kept.

    `seconds` has for each cycle the time from the first run's creation to the last one's end. `running` are
    runs that had not ended when the limit was up, `corrupt` those in which `verify` found a difference, and
    `failed` counts those that failed, by the code of their error.
    """

    storm: str
    store: str
    workers: int
    parameters: dict[str, Any]
    runs: int = 0
    completed: int = 0
    running: int = 0
    parked: int = 0
    cancelled: int = 0
    corrupt: int = 0
    failed: dict[str, int] = {}
    payloads: Payloads = msgspec.field(default_factory=Payloads)
    stale: dict[str, int] = {}
    events: int = 0
    replayed: int = 0
    seconds: list[float] = []
    problems: list[str] = []


Judge = Callable[[Sequence[Event], Any], list[str]]
"""What a completed run's log must show beside the laws: its events, and its result."""


async def look_at(store: Store, report: Report, runs: Sequence[Sequence[str]], judge: Judge) -> set[str]:
    """Count what the logs of these runs (a sequence for each cycle) hold. Gives the deliveries found."""
    delivered: set[str] = set()
    for cycle in runs:
        begun, ended = [], []
        for run_id in cycle:
            head = await store.head(run_id)
            log = await store.read(run_id)
            if head is None or not log:
                report.problems.append(f"{run_id}: its start was acknowledged, and it is not there")
                continue
            if head.parked is not None:
                report.parked += 1
                report.problems.append(f"{run_id}: is parked: {head.parked}")
            delivered |= _count(report, run_id, log, judge)
            begun.append(log[0].time)
            ended.append(head.ended or log[-1].time)
        if begun:
            report.seconds.append(round((max(ended) - min(begun)) / 1e6, 3))
    return delivered


def _count(report: Report, run_id: str, log: Sequence[Event], judge: Judge) -> set[str]:
    state = fold(log)
    report.runs += 1
    report.payloads.accepted += state.received
    ends = [event for event in log if event.type in ENDS]
    if not ends:
        report.running += 1
        report.problems.append(f"{run_id}: had not ended when the time was up")
    else:
        report.payloads.read += state.read
        report.payloads.unread += state.received - state.read
        if state.read > state.received:
            report.problems.append(f"{run_id}: read {state.read} payloads of {state.received}")
    if len(ends) > 1:
        report.problems.append(f"{run_id}: has {len(ends)} ends")
    match state.status:
        case "completed":
            report.completed += 1
            report.problems += [f"{run_id}: {what}" for what in judge(log, ends[0].data.get("value"))]
        case "failed":
            error = state.error or {}
            code = str(error.get("code") or error.get("type"))
            report.failed[code] = report.failed.get(code, 0) + 1
            report.problems.append(f"{run_id}: failed: {code}: {error.get('message')}")
        case "cancelled":
            report.cancelled += 1
            report.problems.append(f"{run_id}: was cancelled, and nobody asked for it")
    return {event.data["delivery"] for event in log if event.type == "hook_received"}


async def hold_to_ledger(store: Store, report: Report, sent: Sequence[Sent], delivered: set[str]) -> None:
    """Each acknowledged payload stands where its sender was told, and no refused one stands anywhere."""
    for one in sent:
        if one.position:
            there = await store.read(one.run, one.position - 1, 1)
            if not there or there[0].type != "hook_received" or there[0].data["delivery"] != one.delivery:
                report.problems.append(
                    f"{one.run}: payload {one.delivery} was acknowledged at {one.position}, and is not there"
                )
        elif one.reason and one.delivery in delivered:
            report.problems.append(f"{one.token}: payload {one.delivery} was refused, and is in the log")
    report.payloads.refused = sum(one.delivery not in delivered for one in sent if one.reason)


async def verify(store: Store, report: Report) -> None:
    """The code of `holdfast verify` over every log of the store, with replay by today's code."""
    verification = Verification(store, workflows=workflows.names())
    corrupt: set[str] = set()
    async for difference in verification.run():
        corrupt.add(difference.run)
        report.problems.append(f"verify: {difference}")
    report.corrupt = len(corrupt)
    report.events, report.replayed = verification.events, verification.replayed
    report.problems += [f"{run_id}: was written to all the time" for run_id in verification.unsettled]


# ---- what completed runs must show -------------------------------------------------------------------------


def judge_hook_sleep(given: HookSleep) -> Judge:
    """Each iteration once; payloads in order, none skipped, and each that was drained has its step."""

    def judge(log: Sequence[Event], result: Any) -> list[str]:
        done = _steps(log)
        found = []
        if done["stress.quick"] != given.iterations:
            found.append(f"{done['stress.quick']} quick steps instead of {given.iterations}")
        if result != list(range(len(result))):
            found.append(f"payloads were skipped, doubled or out of order: {result}")
        if done["stress.drain"] != len(result):
            found.append(f"{done['stress.drain']} drain steps for {len(result)} payloads")
        return found

    return judge


def judge_storm(given: Storm) -> Judge:
    """Every branch finalized and released once, recovered where it was late; every round reconciled."""

    def judge(log: Sequence[Event], result: Mapping[str, int]) -> list[str]:
        done, late = _steps(log), result.get("recover", 0)
        branches = given.rounds * given.width
        expected = {
            "finalize": branches,
            "release": branches,
            "recover": late,
            "reconcile": 2 * given.rounds + late,
        }
        return [
            f"{done[f'stress.{name}']} {name} steps instead of {count}"
            for name, count in expected.items()
            if done[f"stress.{name}"] != count or result.get(name, 0) != count
        ]

    return judge


def _steps(log: Sequence[Event]) -> Counter[str]:
    """How many steps of each name were completed."""
    return Counter(name_of(event.key) for event in log if event.type == "step_completed")
