"""`show`: one run with all that its log tells: steps, timers, hooks, attributes, error."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import output
from .frame import LOOK, command
from .options import DEFAULT_STORE, AsJson, RunId, StoreUrl, ending

if TYPE_CHECKING:
    from ..events import ChildState, Event, HookState, RunState, StepState
    from ..store.rows import Head


@command(LOOK, ending({0: "shown", 2: "cannot: there is no such store or run"}, ["show order-1"]))
def show(run: RunId, store: StoreUrl = DEFAULT_STORE, as_json: AsJson = False) -> int:
    """Show a run: its steps, child runs, timers, hooks, attributes, result or error.

    Steps come with attempts and durations, an error with its traceback. Commands that the end left open and
    payloads that nobody read are named.
    """
    return asyncio.run(_show(store, run, as_json))


async def _show(url: str, run_id: str, as_json: bool) -> int:
    from ..why import read_log
    from .live import args_text
    from .look import run_as_json
    from .stores import existing, head_of

    async with existing(url) as store:
        head = await head_of(store, run_id)
        args: dict[str, str] = {}

        def see(event: Event) -> None:
            if event.type in ("step_scheduled", "child_started"):
                args[f"{event.type} {event.key}"] = args_text(event)

        state, end = await read_log(store, run_id, see)
        if as_json:
            output.data_json({**run_as_json(head), **_as_json(state, end)})
        else:
            _print(head, state, end, args, store.clock.now())
    return 0


# ---- for programs ------------------------------------------------------------------------------------------


def _as_json(state: RunState, end: Event | None) -> dict[str, Any]:
    from ..clock import to_text

    def at(micros: int | None) -> str | None:
        return None if micros is None else to_text(micros)

    content = end.data if end is not None else {}
    return {
        "version": state.version,
        "origin": state.origin,
        "previous": state.previous,
        "continued": state.continued,
        "started_at": at(state.started),
        "result": content.get("value"),
        "error": state.error,
        "reason": content.get("reason", state.cancel),
        "ended_by": _ended_by(end),
        "steps": [
            {
                "step": step.key,
                "status": step.status,
                "attempts": step.attempt,
                "scheduled_at": at(step.scheduled),
                "started_at": at(step.started),
                "ended_at": at(step.ended),
                "due_at": at(step.due),
                "worker": step.worker,
                "error": step.error,
                "late": step.late,
            }
            for step in state.steps.values()
        ],
        "children": [
            {
                "child": child.key,
                "run": child.run,
                "workflow": child.workflow,
                "status": child.status,
                "started_at": at(child.started),
                "ended_at": at(child.ended),
                "error": child.error,
            }
            for child in state.children.values()
        ],
        "timers": [
            {"timer": t.key, "status": t.status, "started_at": at(t.started), "due_at": at(t.due)}
            for t in state.timers.values()
        ],
        "hooks": [
            {
                "hook": hook.key,
                "token": hook.token,
                "status": hook.status,
                "opened_at": at(hook.opened),
                "received": hook.received,
                "metadata": hook.metadata,
                "owner": hook.owner,
            }
            for hook in state.hooks.values()
        ],
        "left_open": state.left_open,
        "received": state.received,
        "unread": state.unread,
    }


def _ended_by(end: Event | None) -> str | None:
    return None if end is None else end.data.get("by", "code")


# ---- for people --------------------------------------------------------------------------------------------


def _print(head: Head, state: RunState, end: Event | None, args: dict[str, str], now: int) -> None:
    import json

    output.data(f"{output.paint(head.run, 'bold')}  {output.status(head.status)}")
    facts = [
        ("workflow", output.clean(head.workflow) + (f"  version {state.version}" if state.version else ""))
    ]
    facts.append(("created", f"{output.instant(head.created)}  ({output.ago(head.created, now)})"))
    if head.parent is not None:
        facts.append(("parent", output.clean(head.parent)))
    if head.root not in (None, head.parent):
        facts.append(("root", output.clean(head.root or "")))
    if state.previous is not None:
        facts.append(("goes on", f"from {output.clean(state.previous)}"))
    if state.origin is not None:
        facts.append(("origin", f"{output.clean(state.origin)}, of which it repeats the input"))
    if head.ended is not None:
        facts.append(
            ("ended", f"{output.instant(head.ended)}  after {output.span(head.ended - head.created)}")
        )
    facts.append(("log", f"{head.position} events"))
    if head.owner is not None:
        facts.append(("worker", head.owner))
    for name, value in head.attributes.items():
        facts.append(("attribute", output.clean(f"{name}={value}")))
    if head.parked is not None:
        reason = json.loads(head.parked)
        facts.append(("parked", output.clean(f"{reason['kind']}: {reason['message']}")))
    facts += _end_facts(state, end)
    for name, value in facts:
        output.data(f"  {output.paint(f'{name:<10}', 'dim')} {value}")
    _section("steps", [_step_row(step, state, args, now) for step in state.steps.values()])
    _section("child runs", [_child_row(child, state, args, now) for child in state.children.values()])
    _section("timers", _timer_rows(state, now))
    hooks = state.hooks.values()
    below = ["" if hook.metadata is None else output.compact(hook.metadata) for hook in hooks]
    _section("hooks", [_hook_row(hook, now) for hook in hooks], below)
    _error(state)


def _end_facts(state: RunState, end: Event | None) -> list[tuple[str, str]]:
    facts = []
    content = end.data if end is not None else {}
    if end is not None and end.type == "run_completed" and state.continued is None:
        text = output.compact(content.get("value"))
        facts.append(("result", text if len(text) <= 2000 else f"{text[:2000]}…"))
    if state.continued is not None:
        facts.append(("goes on", f"as {output.clean(state.continued)}"))
    if content.get("by"):
        facts.append(("ended by", str(content["by"])))
    reason = content.get("reason") or state.cancel
    if reason:
        facts.append(("reason", output.clean(reason)))
    if state.left_open:
        facts.append(("left open", output.clean(", ".join(state.left_open))))
    if state.unread:
        facts.append(("unread", f"{state.unread} of {state.received} payloads were not read"))
    return facts


def _section(title: str, rows: Sequence[Sequence[str]], below: Sequence[str] = ()) -> None:
    if rows:
        output.data("")
        output.data(output.paint(title, "bold"))
        output.table([""] * len(rows[0]), rows, indent="  ", below=below)


def _step_row(step: StepState, state: RunState, args: dict[str, str], now: int) -> list[str]:
    from ..phrases import error_line

    attempts = f"{step.attempt} attempt{'s' if step.attempt != 1 else ''}"
    took = "" if step.started is None else output.span((step.ended or state.ended or now) - step.started)
    remark = error_line(step.error) if step.error and step.status != "completed" else ""
    if step.status == "waiting" and step.due is not None and state.ended is None:
        remark = f"again {output.due(step.due, now)}: {remark}"
    if step.late:
        remark = f"{remark} (and {step.late} late outcome{'s' if step.late > 1 else ''})".strip()
    remark = remark or args.get(f"step_scheduled {step.key}", "")
    word = output.status(step.status)
    if step.open and state.ended is not None:
        word = output.status("pending", "left open")
    return [output.clean(step.key), word, attempts, took, remark]


def _child_row(child: ChildState, state: RunState, args: dict[str, str], now: int) -> list[str]:
    took = output.span((child.ended or state.ended or now) - child.started)
    word = output.status(_CHILD_STATUS.get(child.status, child.status), child.status)
    if child.ended is None and state.ended is not None:
        word = output.status("pending", "left open")
    from ..phrases import error_line

    remark = error_line(child.error) if child.error else args.get(f"child_started {child.key}", "")
    return [output.clean(child.run), word, took, remark]


_CHILD_STATUS = {"open": "running", "detached": "pending", "cancelling": "running", "started": "completed"}
"""The status whose colour one of a child has."""


def _timer_rows(state: RunState, now: int) -> list[list[str]]:
    return [
        [
            timer.key,
            output.status(timer.status),
            output.instant(timer.due),
            output.due(timer.due, now) if timer.status == "pending" and state.ended is None else "",
        ]
        for timer in state.timers.values()
    ]


def _hook_row(hook: HookState, now: int) -> list[str]:
    return [
        output.clean(hook.token),
        output.status(hook.status),
        f"{hook.received} payload{'s' if hook.received != 1 else ''}",
        f"held by {hook.owner}" if hook.owner else f"opened {output.ago(hook.opened, now)}",
    ]


def _error(state: RunState) -> None:
    from ..phrases import error_line

    if state.error is None:
        return
    output.data("")
    output.data(f"{output.paint('error', 'bold')}  {error_line(state.error)}")
    for line in str(state.error.get("traceback", "")).splitlines():
        output.data(f"  {output.clean(line, lines=True)}")
    for note in state.error.get("notes", ()):
        output.data(f"  note: {output.clean(note, lines=True)}")
    cause = state.error.get("cause")
    while isinstance(cause, dict):
        output.data(f"  caused by {error_line(cause)}")
        cause = cause.get("cause")
