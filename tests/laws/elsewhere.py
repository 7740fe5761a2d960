"""What another process does: replay the histories of a folder, or record one that rests on its hashes."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import durable  # defines the workflow of the histories

import holdfast as hf
from holdfast.errors import ReplayDivergence
from holdfast.replay import dump_history, load_history, replay_run
from holdfast.testing import Rehearsal


@hf.step
async def visit(city: str) -> None: ...


@hf.workflow
async def tour() -> None:
    cities = {"Aachen", "Bonn", "Celle", "Dresden", "Emden", "Fulda", "Gera", "Halle"}
    await asyncio.gather(*(visit(city) for city in cities))


def main(mode: str, folder: Path) -> None:
    logging.disable()
    if mode == "record":
        run = Rehearsal(tour)
        run.close()
        dump_history(run.log, folder / "tour.jsonl")
        return
    replayed = 0
    try:
        for path in sorted(folder.glob("*.jsonl")):
            replay_run(load_history(path))
            replayed += 1
    except ReplayDivergence as error:
        print(json.dumps({"diverged": str(error), "position": error.position, "where": error.where}))
    else:
        print(json.dumps({"replayed": replayed}))


assert durable.durable.name == "durable"
main(sys.argv[1], Path(sys.argv[2]))
