"""One step, then many agents at once that all write in one folder of trails: nobody's work is lost.

    python -m examples.fan_out                  100 rounds: 40 with 3 agents, 40 with 10, 20 with 50
    python -m examples.fan_out --rounds 10      the same in small
    python -m examples.fan_out --folder here    keep the folders, to look at them

Each round is a run on a SQLite store: a planner's step starts a trail for the team, in a folder that is not
there yet; then the agents, as parallel steps in threads, meet at a barrier and at the same instant each joins
the team's trail, notes something there, and starts, writes and completes a trail of its own. The round is good
if index.json, read as a plain file, names every trail, and the team's trail holds every agent and every note.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import holdfast as hf
from holdfast.trail import TrailFolder

SHARES = {3: 0.4, 10: 0.4, 50: 0.2}
"""How the rounds divide: agents in a round, and their share of all rounds."""
PATIENCE = 60.0
"""Seconds for which an agent waits for the others."""

barriers: dict[str, threading.Barrier] = {}
"""Where the agents of a run meet: they are threads of one process, so they start within microseconds."""
making = threading.Lock()


@dataclass
class Plan:
    """What the upstream step hands to the agents: the folder, and the team's trail in it."""

    folder: str
    team: str
    agents: int


@dataclass
class Saved:
    """What an agent has written: its name, and the trail of its own."""

    agent: str
    trail: str


@dataclass
class Round:
    """What a round comes to."""

    plan: Plan
    saved: list[Saved]


@hf.step(retries=0)
def plan(folder: str, agents: int) -> Plan:
    """The planner begins the team's trail."""
    team = TrailFolder(folder).start(f"A question for {agents} agents", agent="planner")
    team.decide("How many agents?", str(agents), reasoning="as the round wants it")
    return Plan(folder, team.id, agents)


@hf.step(retries=0)
def answer(plan: Plan, number: int) -> Saved:
    """An agent registers and saves, at the same instant as all others."""
    name, folder = f"agent-{number}", TrailFolder(plan.folder)
    with making:
        barrier = barriers.setdefault(hf.step_info().run_id, threading.Barrier(plan.agents))
    barrier.wait(PATIENCE)
    team = folder.open(plan.team, agent=name)
    team.join(name, "reader")
    with team.chapter(f"Answer {number}") as chapter:
        chapter.note(f"{name} was here")
    with folder.start(f"What {name} found", agent=name) as trail:
        trail.find(f"finding of {name}")
        trail.complete(summary=f"{name} is done", confidence=0.9)
    return Saved(name, trail.id)


@hf.workflow
async def fan_out(folder: str, agents: int) -> Round:
    planned = await plan(folder, agents)
    saved = await asyncio.gather(*(answer(planned, number) for number in range(agents)))
    return Round(planned, list(saved))


def missing(done: Round) -> list[str]:
    """What is not there that should be."""
    folder = Path(done.plan.folder)
    index = json.loads((folder / "index.json").read_bytes())["trajectories"]
    problems = []
    for one in done.saved:
        entry = index.get(one.trail)
        if entry is None:
            problems.append(f"{one.agent}: its trail {one.trail} is not in index.json")
        elif entry["status"] != "completed" or not (folder / entry["path"]).is_file():
            problems.append(f"{one.agent}: index.json says of its trail {entry}")
    if len(index) != len(done.saved) + 1 or index.get(done.plan.team, {}).get("status") != "active":
        problems.append(f"index.json has {len(index)} trails instead of {len(done.saved) + 1}")
    team = TrailFolder(folder).load(done.plan.team)
    joined = {agent.name for agent in team.agents if agent.role == "reader"}
    noted = {(chapter.agent_name, event.content) for chapter in team.chapters for event in chapter.events}
    for one in done.saved:
        if one.agent not in joined:
            problems.append(f"{one.agent} is not among the agents of the team's trail")
        if (one.agent, f"{one.agent} was here") not in noted:
            problems.append(f"{one.agent}: its note is not in its chapter of the team's trail")
    return problems


async def play(home: Path, rounds: int) -> bool:
    """All rounds, one after another; whether all were good."""
    good = True
    print("agents  rounds   saved  in index.json  in the team's trail   time")
    async with hf.connect(f"sqlite:///{home}/runs.db") as app, app.worker(concurrency=max(SHARES)):
        for agents, share in SHARES.items():
            count, saved, problems = max(1, round(rounds * share)), 0, []
            begun = time.monotonic()
            for number in range(count):
                folder = home / f"{agents}-agents" / f"round-{number + 1}" / ".trajectories"
                run = await app.start(fan_out, str(folder), agents)
                done = await run.result(timeout=120)
                saved += len(done.saved)
                problems += missing(done)
            took = time.monotonic() - begun
            lost = sum("index.json" in problem for problem in problems)
            print(
                f"{agents:6}  {count:6}  {saved:6}  {saved - lost:13}  {saved - len(problems) + lost:19}"
                f"  {took:4.1f} s"
            )
            for problem in problems[:10]:
                print(f"        {problem}", file=sys.stderr)
            good = good and not problems and saved == count * agents
    print("PASS  every agent and every trail is there" if good else "FAIL")
    return good


def main() -> int:
    """Exit 0 if nothing is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100, help="all together (100)")
    parser.add_argument("--folder", type=Path, help="where to work, and leave everything (a temporary one)")
    options = parser.parse_args()
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
        return 0 if asyncio.run(play(options.folder.resolve(), options.rounds)) else 1
    with tempfile.TemporaryDirectory(prefix="fan-out-") as home:
        return 0 if asyncio.run(play(Path(home), options.rounds)) else 1


if __name__ == "__main__":
    sys.exit(main())
