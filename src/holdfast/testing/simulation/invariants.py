"""What must hold after every scenario, whatever happened in it; each is a promise of the laws.

- the code of `holdfast verify` finds no difference: order, density, keys, chain, projections (L1–L5, L11, L13);
- each log replays from nothing, with today's code, to what it holds (L6–L9);
- whatever a process has read is a prefix of the log as it is at last, from where it read on, and holds what was
  acknowledged to anybody before it asked (L1: nothing is taken back, swapped or slipped in);
- a payload that was acknowledged stands at its position, once; one that was refused stands nowhere; payloads are
  read once or counted as unread, and the code that is replayed counts the same (L10);
- a step's result that is recorded is that of an attempt that has begun (L3);
- a run whose start was acknowledged is there;
- no run has something to do that nobody is about to do (L14): when peace has lasted, a run that goes on waits
  for a payload, and for nothing else;
- a run is parked only while nobody can replay it;
- each child run is there, ends, and its parent hears of it once, what it came to; one whose parent has ended,
  or does not wait for it any more, has ended or was asked to; no child is there that nobody asked for;
- a run that continues as another has one successor, and its unread payloads stand there, once each, in order;
- at no moment do more queued steps hold a place than the limits of their queue say (`check_places`);
- in a stream, no chunk of an attempt follows one of a later attempt of the same step.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...engine.tick import tick
from ...events import ENDS, Event, RunState, fold, token_of
from ...queues import declared
from ...store.succession import continued_as
from ...verify import Verification
from ...workflow import workflows

if TYPE_CHECKING:
    from .scenario import Sent
    from .world import World


async def check(world: World, sent: Sequence[Sent], started: set[str]) -> None:
    """Add to the world's problems what does not hold."""
    problems = world.problems
    async with world.plain() as store:
        async for difference in Verification(store, workflows=set(workflows.names())).run():
            problems.append(f"verify: {difference}")
    for run_id in sorted(started - world.data.runs.keys()):
        problems.append(f"{run_id}: its start was acknowledged, and it is not there")
    for run_id, run in world.data.runs.items():
        state = fold(run.log)
        if state.ended is None:
            problems.append(f"{run_id}: has not ended")
        if run.head.parked is not None:
            problems.append(f"{run_id}: is parked: {run.head.parked}")
        if state.read > state.received:
            problems.append(f"{run_id}: read {state.read} payloads of {state.received}")
        for name, stream in run.streams.items():
            latest: dict[str, int] = {}
            for chunk in stream.chunks:
                if chunk.attempt < latest.get(chunk.step, 0):
                    problems.append(f"{run_id}: stream {name}: {chunk.position} follows a later attempt")
                latest[chunk.step] = chunk.attempt
    _check_reads(world)
    _check_results(world)
    _check_payloads(world, sent)
    check_families(world)
    _check_successions(world)


def _check_reads(world: World) -> None:
    logs = {run_id: run.log for run_id, run in world.data.runs.items()}
    for run_id, after, told, events in world.reads:
        log = logs.get(run_id, [])
        if log[after : after + len(events)] != events:
            world.problems.append(f"{run_id}: what was read beyond {after} is no part of its log")
        elif after + len(events) < min(told, len(log)):
            world.problems.append(
                f"{run_id}: a read beyond {after} ended at {after + len(events)}, {told} was acknowledged before"
            )


def _check_results(world: World) -> None:
    for run_id, run in world.data.runs.items():
        begun: set[tuple[str, int]] = set()
        for event in run.log:
            if event.type == "step_started":
                begun.add((event.key, event.data["attempt"]))
            elif event.type == "step_completed" and (event.key, event.data["attempt"]) not in begun:
                world.problems.append(f"{run_id}: {event.key} has a result of an attempt that never began")


def _check_payloads(world: World, sent: Sequence[Sent]) -> None:
    stands: Counter[str] = Counter()
    places: dict[str, tuple[str, int]] = {}
    for run_id, run in world.data.runs.items():
        for event in run.log:
            if event.type == "hook_received":
                delivery = event.data.get("delivery")
                if delivery is None:  # carried from the run before
                    continue
                stands[delivery] += 1
                places[delivery] = (run_id, event.position)
    for one in sent:
        if stands[one.delivery] > 1:
            world.problems.append(f"{one.delivery}: stands {stands[one.delivery]} times")
        if one.refused and stands[one.delivery] and "twice" not in world.befallen:
            world.problems.append(f"{one.delivery}: was refused to its sender, and stands in the log")
        if one.position is not None and places.get(one.delivery) != (one.run, one.position):
            world.problems.append(
                f"{one.delivery}: acknowledged at {one.run} {one.position}, "
                f"it stands at {places.get(one.delivery)}"
            )


def check_families(world: World) -> None:
    """Parents and children know of each other, whichever of them has ended."""
    problems, runs = world.problems, world.data.runs
    problems += [f"{run_id}: ended, and nobody sees to what it has left" for run_id in world.data.orphaned]
    asked: dict[str, str] = {}
    for run_id, run in runs.items():
        told = Counter(event.key for event in run.log if event.type == "child_ended")
        problems += [f"{run_id}: heard {n} times of {key}" for key, n in told.items() if n > 1]
        state = fold(run.log)
        ends = {event.key: event.data for event in run.log if event.type == "child_ended"}
        for key, child in state.children.items():
            asked[child.run] = run_id
            if child.run not in runs:
                problems.append(f"{run_id}: its child {child.run} is not there")
            elif child.status != "started" and child.status != "detached":
                _check_child(world, state, key, ends.get(key))
    for run_id, run in runs.items():
        created = run.log[0].data
        parent = (created.get("parent") or {}).get("run")
        if parent is not None and "previous" not in created and asked.get(run_id) != parent:
            problems.append(f"{run_id}: a child of {parent}, which did not ask for it")


def _check_child(world: World, parent: RunState, key: str, told: dict[str, Any] | None) -> None:
    """A child that is there, and is waited for, or was."""
    child = parent.children[key].run
    last, end = _last(world, child)
    if told is not None:
        is_so = end is not None and _came_to(told) == _came_to(
            end.data | {"run": last, "status": end.type[4:]}
        )
        if not is_so:
            world.problems.append(f"{parent.run}: heard of {key} what is not so: {told}")
    elif end is None:
        asked = any(event.type == "cancel_requested" for event in world.data.runs[last].log)
        if not asked and (parent.ended is not None or parent.children[key].status == "cancelling"):
            world.problems.append(f"{parent.run}: does not wait for {last}, which goes on")
    elif parent.ended is None:
        world.problems.append(f"{parent.run}: has not heard of the end of {last}")


def _came_to(told: dict[str, Any]) -> str:
    names = {"completed": "value", "failed": "error", "cancelled": "reason"}
    what = names.get(told["status"], "status")
    return json.dumps([told["run"], told["status"], told.get(what) or ""], sort_keys=True)


def _last(world: World, run_id: str) -> tuple[str, Event | None]:
    """The last run of a chain that is there, and its end, if it has one."""
    log = world.data.runs[run_id].log
    end = next((event for event in log if event.type in ENDS), None)
    after = None if end is None else continued_as(end)
    return _last(world, after) if after in world.data.runs else (run_id, end)


def _check_successions(world: World) -> None:
    """Runs that went on as others: who comes after them, and what they have handed on."""
    after = Counter(run.log[0].data.get("previous") for run in world.data.runs.values())
    for run_id, run in world.data.runs.items():
        state = fold(run.log)
        if after[run_id] != (state.continued is not None):
            world.problems.append(f"{run_id}: {after[run_id]} runs come after it")
        if state.continued not in world.data.runs:
            continue
        end = next(event for event in run.log if event.type in ENDS)
        open_ = {hook.token for hook in state.hooks.values() if hook.status == "continued"}
        mine = [e for e in run.log if e.type == "hook_received" and token_of(e.key) in open_]
        unread = [
            event.position
            for event in mine
            if event.position > end.data["seen"] or event.position in end.data["unread"]
        ]
        theirs = [event.data.get("from") for event in world.data.runs[state.continued].log]
        carried = [origin["position"] for origin in theirs if origin and origin["run"] == run_id]
        if carried != unread:
            world.problems.append(f"{run_id}: unread are {unread}, its successor has {carried}")


def check_places(world: World) -> None:
    """Of each queue, how many steps hold a place now, and how many of each limit key."""
    held: dict[str, Counter[str | None]] = {}
    for run in world.data.runs.values():
        for key in run.holders:
            held.setdefault(run.queued[key].queue, Counter())[run.queued[key].limit_key] += 1
    for name, keys in held.items():
        queue = declared.get(name)
        if queue is None:
            continue
        if queue.concurrency is not None and keys.total() > queue.concurrency:
            world.problems.append(f"queue {name}: {keys.total()} steps hold its {queue.concurrency} places")
        most = max((n for key, n in keys.items() if key is not None), default=0)
        if queue.per_key is not None and most > queue.per_key:
            world.problems.append(f"queue {name}: {most} steps of one key hold its {queue.per_key} places")


async def check_not_stuck(world: World) -> None:
    """Runs that go on wait for payloads, or for children that do, and for nothing else."""
    check_families(world)
    for run_id, run in world.data.runs.items():
        state = fold(run.log)
        if state.ended is not None:
            continue
        definition = workflows.get(run.head.workflow)
        if state.open_steps:
            world.problems.append(f"{run_id}: stuck with open steps {sorted(run.steps)}")
        elif state.pending_timers:
            world.problems.append(f"{run_id}: stuck with pending timers {sorted(run.timers)}")
        elif definition is not None and tick(definition, run.log):
            world.problems.append(f"{run_id}: stuck with facts that nobody has answered")
