"""`record`: the trails of workflow runs."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from .. import output
from ..problem import Problem
from .call import Call
from .words import Argument, Option, command

if TYPE_CHECKING:
    from ...trail.recorder import Recorded


@command(
    Argument(
        "RUN", "The runs, as `holdfast runs` lists them. Without it: all runs of the store.", False, True
    ),
    Option(
        "--store",
        "URL",
        "Where the runs are. Without it: $HOLDFAST_URL, else sqlite:///.holdfast/holdfast.db.",
    ),
    Option("--workflow", "NAME", "Only runs of this workflow; may be given several times.", many=True),
    Option("--follow", "", "Go on as the runs do: until they have ended, or, without RUN, until Ctrl-C."),
    examples=["record order-1", "record --workflow fulfil --follow"],
    codes={
        0: "recorded",
        2: "cannot: no such store or run, or a folder that cannot be written",
        130: "interrupted; what was said to be recorded is",
    },
)
def record(
    call: Call,
    run: list[str] | None = None,
    store: str | None = None,
    workflow: list[str] | None = None,
    follow: bool = False,
) -> int:
    """Make trails of runs, once or as they go on.

    They have a chapter for each agent and branch, what steps came to, what failed and why. Doing it again
    adds only what is new: the same log gives the same trail.
    """
    from ..options import DEFAULT_STORE

    if run and workflow:
        raise Problem("--workflow chooses among all runs, and RUN names some: give one of them")
    url = store or os.environ.get("HOLDFAST_URL") or DEFAULT_STORE
    return asyncio.run(_record(call, url, run or [], workflow, follow))


async def _record(call: Call, url: str, runs: list[str], workflows: list[str] | None, follow: bool) -> int:
    from ...trail import recorder
    from ..stores import existing, head_of

    async with existing(url) as store:
        for run_id in runs:
            await head_of(store, run_id)
        if follow:
            async for recorded in recorder.follow(store, call.folder, runs or None, workflows=workflows):
                _tell(call, recorded)
        elif runs:
            for run_id in runs:
                _tell(call, await recorder.record(store, run_id, call.folder))
        else:
            async for recorded in recorder.record_all(store, call.folder, workflows=workflows):
                _tell(call, recorded)
    return 0


def _tell(call: Call, recorded: Recorded) -> None:
    told: dict[str, Any] = {
        "run": recorded.run,
        "trail": recorded.trail,
        "status": recorded.status,
        "new": recorded.new,
    }
    call.answer(told, f"{recorded.trail}  {output.clean(recorded.run)}  {recorded.new} new")
