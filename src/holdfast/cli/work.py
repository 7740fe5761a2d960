"""`run`, `start` and `worker`: the commands that need the user's code."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import output
from .collector import collect_rarely
from .frame import WORK, command
from .logs import LogFormat, log_to_stderr
from .options import DEFAULT_STORE, AsJson, Attributes, StoreUrl, attributes_of, ending
from .problem import INTERRUPTED, NO, TIMED_OUT, Problem
from .signals import interruptible, on_signals

if TYPE_CHECKING:
    from ..client import App, Run
    from ..events import Event
    from ..worker import Worker
    from ..workflow import Workflow

_EXIT_AFTER = 10.0
"""Seconds after which a tick that cannot be interrupted ends a worker process; others take its runs over."""

_Spec = Annotated[
    str,
    typer.Argument(
        metavar="MODULE:WORKFLOW",
        help="A dotted module name or a .py file, and the workflow in it "
        "(which may be left out if there is only one).",
    ),
]
_Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[ARG]...",
        help="Arguments as JSON, by position or NAME=JSON; a bare word is text where the parameter is a str.",
    ),
]
_NewId = Annotated[
    str | None,
    typer.Option("--run-id", metavar="ID", help="The run's id; the same id and input again is the same run."),
]
_START_CODES = {2: "cannot: no such module, workflow or store, or arguments that do not fit"}


@command(
    WORK,
    ending(
        {
            0: "the run completed; its result is on stdout",
            1: "the run failed, was cancelled, or is parked; or the id is another run's",
            **_START_CODES,
            3: "it has not ended within --timeout; it goes on when a worker serves it",
            130: "interrupted; the run goes on when a worker serves it",
        },
        [
            "run shop:fulfil '{\"id\": 1}'",
            "run shop.py:greet ana times=3",
            "run shop:fulfil 7 --run-id order-7",
        ],
    ),
    any_words=True,
)
def run(
    workflow: _Spec,
    args: _Words = None,
    run_id: _NewId = None,
    attribute: Attributes = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", min=0, help="Wait no longer than this.")
    ] = None,
    store: StoreUrl = DEFAULT_STORE,
    as_json: AsJson = False,
) -> int:
    """Start a workflow, work on it here, and wait for its result.

    The result goes to stdout as JSON; a view of its steps goes to stderr meanwhile, if that is a terminal.
    A run of this id that was interrupted is taken up where it was.
    """
    from .modules import find_workflow

    definition = find_workflow(workflow)
    args_, kwargs = _arguments(definition, args or [])
    options = {"run_id": run_id, "attributes": attributes_of(attribute) or None}
    with contextlib.redirect_stdout(sys.stderr) as stderr:  # what steps print is not the result
        assert stderr is not None
        log_to_stderr()
        outcome = interruptible(_run(store, definition, args_, kwargs, options, timeout))
    if isinstance(outcome, int):
        return outcome
    return _report(outcome[0], outcome[1], as_json)


@command(
    WORK,
    ending(
        {0: "the run is stored; its id is on stdout", 1: "the id is another run's", **_START_CODES},
        ["start shop:fulfil '{\"id\": 1}' --run-id order-1"],
    ),
    any_words=True,
)
def start(
    workflow: _Spec,
    args: _Words = None,
    run_id: _NewId = None,
    attribute: Attributes = None,
    store: StoreUrl = DEFAULT_STORE,
    as_json: AsJson = False,
) -> int:
    """Start a workflow and leave it to the workers. Prints the run's id."""
    from .modules import find_workflow
    from .stores import connected

    if store.startswith("memory:"):
        raise Problem(f"{store} ends with this process, and the run with it", hint="use `holdfast run`")
    definition = find_workflow(workflow)
    args_, kwargs = _arguments(definition, args or [])

    async def begin() -> str:
        async with connected(store, create=True) as connection:
            options = {"run_id": run_id, "attributes": attributes_of(attribute) or None}
            return (await _start(connection, definition, args_, kwargs, options)).id

    started = asyncio.run(begin())
    if as_json:
        output.data_json({"run": started, "workflow": definition.name})
    else:
        output.data(started)
    return 0


@command(
    WORK,
    ending(
        {
            0: "stopped by SIGTERM or Ctrl-C, after the running steps had finished",
            2: "cannot: no such module, or it defines no workflow",
            75: "a workflow's code blocked the process and could not be interrupted",
            130: "interrupted a second time: stopped at once",
        },
        ["worker shop", "worker shop.py billing.py --concurrency 20", "worker shop --queue gpu --no-runs"],
    ),
)
def worker(
    modules: Annotated[
        list[str], typer.Argument(metavar="MODULE...", help="Dotted module names or .py files.")
    ],
    concurrency: Annotated[
        int, typer.Option("--concurrency", min=1, metavar="N", help="Steps that run at once (100).")
    ] = 100,
    queue: Annotated[
        list[str] | None,
        typer.Option(
            "--queue", metavar="NAME", help="A queue to serve; again for more (all that the steps name)."
        ),
    ] = None,
    runs: Annotated[
        bool, typer.Option("--runs/--no-runs", help="Advance runs, or only run steps of queues.")
    ] = True,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            "--metrics-port",
            min=0,
            max=65535,
            metavar="N",
            help="Tell Prometheus at this port; 0: a free one.",
        ),
    ] = None,
    metrics_host: Annotated[
        str, typer.Option("--metrics-host", metavar="ADDRESS", help="Where that port listens (127.0.0.1).")
    ] = "127.0.0.1",
    log_format: LogFormat = "text",
    store: StoreUrl = DEFAULT_STORE,
    as_json: AsJson = False,
) -> int:
    """Serve the workflows of these modules until stopped.

    SIGTERM or Ctrl-C lets running steps finish and hands the runs back. Says in one line when it is ready (on
    stderr; with --json on stdout).
    """
    from .modules import load_all

    if store.startswith("memory:"):
        raise Problem(f"{store} lives in one process: no run can come to this worker")
    names = list(load_all(modules))
    log_to_stderr(log_format)
    collect_rarely()
    options = {"concurrency": concurrency, "queues": queue or None, "runs": runs}
    metrics = None if metrics_port is None else (metrics_port, metrics_host)
    return asyncio.run(_serve(store, names, options, metrics, as_json))


async def _serve(
    store: str, names: list[str], options: dict[str, Any], metrics: tuple[int, str] | None, as_json: bool
) -> int:
    from .stores import connected

    stop = asyncio.Event()

    def asked(_count: int) -> None:
        if not stop.is_set():
            stop.set()
            output.note("stopping: running steps finish first (once more: stop at once)")
            return
        os._exit(INTERRUPTED)

    with on_signals(asked):
        async with connected(store, create=True) as connection, _measured(connection, metrics) as shown:
            serving = connection.worker(**options, exit_after=_EXIT_AFTER)
            async with serving as serving_worker:
                if as_json:
                    ready = {"worker": serving_worker.id, "workflows": names, "store": store}
                    output.data_json(ready if shown is None else ready | {"metrics": shown})
                    sys.stdout.flush()
                else:
                    output.note(
                        f"worker {serving_worker.id} serves {_served(serving_worker, names)} on {store}"
                    )
                    if shown is not None:
                        output.note(f"metrics at {shown}")
                await stop.wait()
    output.note("stopped: its runs are free for others")
    return 0


@contextlib.asynccontextmanager
async def _measured(connection: App, at: tuple[int, str] | None) -> AsyncIterator[str | None]:
    """Tell Prometheus of this process while the block runs; gives the address."""
    if at is None:
        yield None
        return
    from ..metrics.port import listening
    from ..store.exposition import exposition

    port, host = at
    try:
        async with listening(lambda: exposition(connection.store), port, host) as taken:
            yield f"http://{f'[{host}]' if ':' in host else host}:{taken}/metrics"
    except OSError as error:
        reason = error.strerror or str(error)
        raise Problem(
            f"--metrics-port {port}: cannot listen on {host}: {reason}", hint="choose another"
        ) from None


def _served(worker: Worker, names: list[str]) -> str:
    """What a worker serves: 'fulfil, refund and queue gpu'."""
    queues = [queue.name for queue in worker.serving.queues()]
    parts = [", ".join(names)] if worker.advances else []
    if queues:
        parts.append(f"queue{'s' if len(queues) > 1 else ''} {', '.join(queues)}")
    return " and ".join(parts) or "nothing: no step names a queue"


# ---- running and waiting -----------------------------------------------------------------------------------


def _arguments(definition: Workflow[..., Any], words: list[str]) -> tuple[list[Any], dict[str, Any]]:
    from .arguments import read_arguments

    return read_arguments(definition, words)


async def _start(
    connection: App, definition: Workflow[..., Any], args: list[Any], kwargs: dict[str, Any], options: Any
) -> Run[Any]:
    # As bytes: a workflow's own parameter may be called run_id.
    raw = definition.arguments.encode(tuple(args), kwargs)
    return await connection.start_raw(definition.name, raw, definition=definition, **options)


async def _run(
    store: str,
    definition: Workflow[..., Any],
    args: list[Any],
    kwargs: dict[str, Any],
    options: Any,
    timeout: float | None,
) -> tuple[str, Event]:
    from ..store.succession import continued_as, succeed
    from .stores import connected

    async with connected(store, create=True) as connection, connection.worker(exit_after=_EXIT_AFTER):
        started = await _start(connection, definition, args, kwargs, options)
        if not sys.stderr.isatty():
            output.note(f"run {started.id} of {definition.name}")
        try:
            async with asyncio.timeout(timeout):
                end = await _until_end(connection, started.id)
                while continued_as(end) is not None:
                    end = await _until_end(connection, await succeed(connection.store, end.run))
                return end.run, end
        except TimeoutError:
            raise Problem(
                f"run {started.id} has not ended within {timeout:g} s; it goes on",
                hint=f"a worker takes it further; `holdfast why {started.id}` says what it waits for",
                code=TIMED_OUT,
            ) from None
        except asyncio.CancelledError:
            output.note(f"run {started.id} goes on when a worker serves it")
            raise


async def _until_end(connection: App, run_id: str) -> Event:
    """Show the run's steps until its end; raises Problem where it is parked."""
    from .follow import follow
    from .live import RunView

    with RunView(run_id, connection.store.clock) as view:
        async for page in follow(connection.store, run_id):
            view.add(page)
            if not page:
                head = await connection.store.head(run_id)
                if head is not None and head.parked is not None:
                    reason = json.loads(head.parked)
                    raise Problem(
                        f"run {run_id} is parked ({reason['kind']}): {reason['message']}",
                        hint=f"`holdfast why {run_id}` says what to do",
                        code=NO,
                    )
    assert view.end is not None, "follow ends after the run's end"
    return view.end


def _report(run_id: str, end: Event, as_json: bool) -> int:
    """The result to stdout, or the error."""
    import msgspec

    content = end.data
    status = end.type.removeprefix("run_")
    if as_json:
        shown: dict[str, Any] = {key: content[key] for key in ("error", "reason") if key in content}
        if status == "completed":
            shown["result"] = content.get("value")
        output.data_json({"run": run_id, "status": status, **shown})
        return 0 if status == "completed" else NO
    if status == "completed":
        raw = msgspec.json.decode(end.body, type=dict[str, msgspec.Raw])["value"]
        text = bytes(raw).decode()
        output.data(
            json.dumps(json.loads(text), indent=2, ensure_ascii=False) if sys.stdout.isatty() else text
        )
        return 0
    if status == "failed":
        from ..phrases import error_line

        message = f"run {run_id} failed: {error_line(content.get('error') or {})}"
    else:
        reason = content.get("reason")
        message = f"run {run_id} was cancelled" + (f": {reason}" if reason else "")
    raise Problem(message, hint=f"`holdfast show {run_id}` tells more", code=NO)
