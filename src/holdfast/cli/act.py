"""`resume`, `wake`, `cancel`, `terminate`, `rerun`: acting on runs from outside, without their code."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import output
from .frame import ACT, command
from .options import DEFAULT_STORE, AsJson, RunId, StoreUrl, ending
from .problem import NO, Problem, did_you_mean

if TYPE_CHECKING:
    from ..client import App, Run

_Reason = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Why; it is recorded and shown with the run.")
]
_NO_RUN = {2: "cannot: there is no such store or run"}


@command(
    ACT,
    ending(
        {
            0: "the payload is stored, or was already under this delivery id",
            1: "the hook was closed, or its run has ended; or the delivery id had another payload",
            2: "cannot: no such store or token, no JSON, or a payload that the hook's type refuses",
        },
        ["resume approve:1 '{\"ok\": true}'", "resume approve:1 - --delivery-id mail-77 < answer.json"],
    ),
    any_words=True,
)
def resume(
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="The hook, as `holdfast hooks` lists it.")],
    payload: Annotated[str, typer.Argument(metavar="JSON", help="The payload; `-` reads it from stdin.")],
    delivery_id: Annotated[
        str | None,
        typer.Option(
            "--delivery-id", metavar="ID", help="Makes it safe to send again: same id, same payload."
        ),
    ] = None,
    store: StoreUrl = DEFAULT_STORE,
    as_json: AsJson = False,
) -> int:
    """Send a payload to the run that waits at a hook.

    It is checked against the hook's type, and durable when this command ends.
    """
    text = sys.stdin.read() if payload == "-" else payload
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        quoted = json.dumps(text.strip(), ensure_ascii=False)
        raise Problem(
            f"{text.strip()!r:.80} is not JSON: {error}", hint=f"text needs quotes of its own: '{quoted:.60}'"
        ) from None
    return asyncio.run(_resume(store, token, value, delivery_id, as_json))


async def _resume(url: str, token: str, value: Any, delivery_id: str | None, as_json: bool) -> int:
    from ..errors import HookNotFound
    from .stores import connected
    from .waiting import all_hooks

    async with connected(url) as connection:
        try:
            answer = await connection.resume(token, value, delivery_id=delivery_id)
        except HookNotFound as error:
            if error.reason != "unknown":
                raise Problem(str(error), code=NO) from error
            tokens = [hook.token async for hook in all_hooks(connection.store)]
            hint = did_you_mean(token, tokens) or "`holdfast hooks` lists the open ones"
            raise Problem(str(error), hint=hint) from error
        if as_json:
            output.data_json(
                {"run": answer.run_id, "position": answer.position, "duplicate": answer.duplicate}
            )
        else:
            already = "had it already" if answer.duplicate else "has it"
            output.data(f"{answer.run_id} {already}, at position {answer.position}")
    return 0


@command(ACT, ending({0: "it was woken", 1: "it had ended already", **_NO_RUN}, ["wake order-1"]))
def wake(run: RunId, store: StoreUrl = DEFAULT_STORE, as_json: AsJson = False) -> int:
    """End a run's sleeps early; take it up again if it is parked."""

    async def act(handle: Run[Any]) -> bool:
        return await handle.wake()

    return asyncio.run(_act(store, run, act, "is awake", as_json))


@command(
    ACT,
    ending(
        {
            0: "it is cancelled, or will be when a worker serves it",
            1: "it had ended already, or ends otherwise",
            **_NO_RUN,
        },
        ["cancel order-1 --reason 'ordered twice'"],
    ),
)
def cancel(run: RunId, reason: _Reason = "", store: StoreUrl = DEFAULT_STORE, as_json: AsJson = False) -> int:
    """Ask a run to cancel; its code may clean up.

    The code sees asyncio.CancelledError where it waits, and its `finally` blocks may run steps.
    """

    async def act(handle: Run[Any]) -> bool:
        return await handle.cancel(reason)

    return asyncio.run(_act(store, run, act, "is asked to cancel", as_json))


@command(ACT, ending({0: "it is ended", 1: "it had ended already", **_NO_RUN}, ["terminate order-1"]))
def terminate(
    run: RunId, reason: _Reason = "", store: StoreUrl = DEFAULT_STORE, as_json: AsJson = False
) -> int:
    """End a run at once, without asking its code.

    No `finally` block of it runs. `holdfast cancel` is the gentle way.
    """

    async def act(handle: Run[Any]) -> bool:
        return await handle.terminate(reason)

    return asyncio.run(_act(store, run, act, "is terminated", as_json))


@command(
    ACT,
    ending(
        {
            0: "the new run is stored; its id is on stdout",
            1: "the id is another run's",
            **_NO_RUN,
        },
        ["rerun order-1", "rerun order-1 --run-id order-1-again"],
    ),
)
def rerun(
    run: RunId,
    run_id: Annotated[
        str | None, typer.Option("--run-id", metavar="ID", help="The new run's id; a made one otherwise.")
    ] = None,
    store: StoreUrl = DEFAULT_STORE,
    as_json: AsJson = False,
) -> int:
    """Start a new run with the workflow and the input of another one.

    It goes by today's code, names its origin in its log, and is left to the workers. The old run stays as it is.
    """
    return asyncio.run(_rerun(store, run, run_id, as_json))


async def _rerun(url: str, origin: str, new_id: str | None, as_json: bool) -> int:
    from .stores import connected, head_of

    async with connected(url) as connection:
        head = await head_of(connection.store, origin)
        started = await connection.rerun(origin, new_id=new_id)
        if as_json:
            output.data_json({"run": started.id, "workflow": head.workflow, "origin": origin})
        else:
            output.data(started.id)
    return 0


async def _act(url: str, run_id: str, act: Any, done: str, as_json: bool) -> int:
    from .stores import connected, head_of

    async with connected(url) as connection:
        await head_of(connection.store, run_id)
        happened = await act(connection.run(run_id))
        status = await _status(connection, run_id)
        if as_json:
            output.data_json({"run": run_id, "done": happened, "status": status})
            return 0 if happened else NO
        if not happened:
            raise Problem(f"{run_id} had ended already: {status}", code=NO)
        output.data(f"{run_id} {'is cancelled' if status == 'cancelled' else done}")
    return 0


async def _status(connection: App, run_id: str) -> str:
    return await connection.run(run_id).status()
