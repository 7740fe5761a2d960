"""`schedules`: what is started at which times, and to pause, resume or forget one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import output
from .frame import LOOK, command
from .options import DEFAULT_STORE, AsJson, StoreUrl, ending
from .problem import NO, Problem, did_you_mean

if TYPE_CHECKING:
    from ..store.rows import ScheduleRow

_STATES = {"pause": "paused", "resume": "on", "forget": "forgotten"}
"""What may be done with one, and what it is then."""

_Act = Annotated[
    str | None,
    typer.Argument(metavar="[ACT", help="pause, resume or forget; without it, the schedules are listed."),
]
_Of = Annotated[str | None, typer.Argument(metavar="WORKFLOW]", help="Whose schedule, as the list shows it.")]


@command(
    LOOK,
    ending(
        {0: "listed or done", 1: "there is no such schedule", 2: "cannot: no such store or act"},
        ["schedules", "schedules pause report"],
    ),
)
def schedules(
    act: _Act = None, workflow: _Of = None, store: StoreUrl = DEFAULT_STORE, as_json: AsJson = False
) -> int:
    """List the schedules: when each was due last and is due next. Or pause, resume, forget one.

    One that is nobody's stands in the code of no worker that is alive: nothing is started until one comes.
    A paused one starts nothing; when it is resumed, what was due meanwhile is not made up for. One that is
    forgotten comes back when a worker starts whose code has it.
    """
    if act is None:
        return asyncio.run(_list(store, as_json))
    if act not in _STATES:
        raise Problem(
            f"expected {', '.join(_STATES)} or nothing, got {act!r}", hint=did_you_mean(act, list(_STATES))
        )
    if workflow is None:
        raise Problem(f"schedules {act}: whose? give the name of a workflow")
    return asyncio.run(_change(store, act, workflow, as_json))


async def _list(url: str, as_json: bool) -> int:
    from ..store.scheduled import keepers
    from .stores import existing

    async with existing(url) as store:
        rows = await store.schedules()
        alive = await keepers(store)
    if as_json:
        for row in rows:
            output.data_json(_as_json(row, kept=row.keeper in alive))
    elif rows:
        output.table(
            ["WORKFLOW", "SCHEDULE", "TIME ZONE", "LAST DUE", "NEXT DUE", "STATE"],
            [_as_cells(row, kept=row.keeper in alive) for row in rows],
        )
    else:
        output.note("no schedules: `@hf.workflow(schedule=…)` makes one, once a worker has started")
    return 0


def _as_json(row: ScheduleRow, *, kept: bool) -> dict[str, Any]:
    from ..clock import to_text
    from ..store.scheduled import dues

    last, next_ = dues(row)
    return {
        "workflow": row.workflow,
        "schedule": row.cron,
        "timezone": row.timezone,
        "missed": row.missed,
        "last_due_at": None if last is None else to_text(last),
        "next_due_at": None if next_ is None else to_text(next_),
        "paused": row.paused,
        "nobodys": not kept,
    }


def _as_cells(row: ScheduleRow, *, kept: bool) -> list[str]:
    from ..store.scheduled import dues

    last, next_ = dues(row)
    state = " ".join([*(["paused"] if row.paused else []), *([] if kept else ["nobody's"])])
    return [
        output.clean(row.workflow),
        output.clean(row.cron),
        output.clean(row.timezone),
        "" if last is None else _local(row, last),
        "" if next_ is None else _local(row, next_),
        state or "on",
    ]


def _local(row: ScheduleRow, when: int) -> str:
    from zoneinfo import ZoneInfo

    from ..clock import to_datetime

    return to_datetime(when).astimezone(ZoneInfo(row.timezone)).isoformat(" ")


async def _change(url: str, act: str, workflow: str, as_json: bool) -> int:
    from ..store.scheduled import change
    from .stores import existing

    async with existing(url) as store:
        if not await change(store, workflow, act):
            known = [row.workflow for row in await store.schedules()]
            hint = did_you_mean(workflow, known) or "`holdfast schedules` lists those that there are"
            raise Problem(f"no schedule of {workflow!r} in {url}", hint=hint, code=NO)
    word = _STATES[act]
    if as_json:
        output.data_json({"workflow": workflow, "state": word})
    else:
        output.data(f"{output.clean(workflow)} is {word}")
    return 0
