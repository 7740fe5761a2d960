"""`verify` and `replay`: proofs about what is recorded, and about today's code."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import output
from .frame import CHECK, command
from .options import DEFAULT_STORE, AsJson, StoreUrl, ending
from .problem import NO, Problem

if TYPE_CHECKING:
    from ..logcheck import ExportedHead
    from ..replay import Replayed
    from ..verify import Verification


# ---- verify ------------------------------------------------------------------------------------------------


@command(
    CHECK,
    ending(
        {
            0: "nothing differs",
            1: "something differs; each difference is a line on stdout",
            2: "cannot: there is no such store, run, file or module",
            130: "interrupted",
        },
        [
            "verify",
            "verify order-1 --code shop",
            "verify --export-head heads.jsonl",
            "verify --head heads.jsonl",
        ],
    ),
)
def verify(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="One run; without it, every run of the store.")
    ] = None,
    head: Annotated[
        Path | None,
        typer.Option(
            "--head", metavar="FILE", help="Prove the logs against heads that were exported before."
        ),
    ] = None,
    export_head: Annotated[
        Path | None,
        typer.Option(
            "--export-head",
            metavar="FILE",
            help="Write each run's head (position and hash), to keep elsewhere.",
        ),
    ] = None,
    code: Annotated[
        list[str] | None,
        typer.Option(
            "--code", metavar="MODULE", help="Replay with this code too; may be given several times."
        ),
    ] = None,
    store: StoreUrl = DEFAULT_STORE,
    as_json: AsJson = False,
) -> int:
    """Prove the logs and what is derived from them.

    Folds every log and compares it with the tables beside it; checks positions, times, keys, order and the
    hash chain. An edited event, a cut log or a row that was changed by hand is found and named.
    """
    from .modules import load_all

    names = list(load_all(code)) if code else []
    return asyncio.run(_verify(store, run, head, export_head, names, as_json))


async def _verify(
    url: str, run_id: str | None, head: Path | None, export_head: Path | None, names: list[str], as_json: bool
) -> int:
    from ..verify import Verification
    from .stores import existing, head_of

    exported = [] if head is None else _read_heads(head)
    differences: list[dict[str, Any]] = []
    async with existing(url) as store:
        if run_id is not None:
            await head_of(store, run_id)
        verification = Verification(
            store, run_id=run_id, workflows=names, exported=exported, keep_heads=export_head is not None
        )
        with _progress("verifying") as show:
            async for difference in verification.run():
                differences.append(
                    {"run": difference.run, "position": difference.position, "what": difference.what}
                )
                if not as_json:
                    show.data(output.paint(output.clean(difference), "red"))
                show.count(verification.runs, verification.events)
    if export_head is not None:
        _write_heads(export_head, verification.heads)
    if as_json:
        output.data_json(
            {
                "runs": verification.runs,
                "events": verification.events,
                "replayed": verification.replayed,
                "unsettled": verification.unsettled,
                "differences": differences,
            }
        )
    else:
        _summary(verification, len(differences), replays=bool(names))
    return NO if differences else 0


def _summary(verification: Verification, differing: int, *, replays: bool) -> None:
    looked_at = f"{_count(verification.runs, 'run')}, {_count(verification.events, 'event')}"
    if replays:
        looked_at += f", {verification.replayed} replayed"
    for run_id in verification.unsettled:
        output.note(f"{run_id} was written to all the time: verify it again when it rests")
    if differing:
        output.note(f"{_count(differing, 'difference')} in {looked_at}")
    else:
        output.note(output.paint("nothing differs", "green", sys.stderr) + f" in {looked_at}")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _read_heads(path: Path) -> list[ExportedHead]:
    from ..verify import read_heads

    try:
        with path.open("rb") as file:
            return list(read_heads(file))
    except OSError as error:
        raise Problem(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise Problem(f"{path}, {error}", hint="expected what `verify --export-head FILE` writes") from error


def _write_heads(path: Path, heads: list[ExportedHead]) -> None:
    """All of them or the file as it was: a half-written proof would look like deleted runs."""
    import msgspec

    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.writelines(msgspec.json.encode(head) + b"\n" for head in heads)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except OSError as error:
        raise Problem(f"{path}: {error.strerror}") from error
    output.note(f"{_count(len(heads), 'head')} written to {path}")


# ---- replay ------------------------------------------------------------------------------------------------


@command(
    CHECK,
    ending(
        {
            0: "today's code fits every history",
            1: "it diverges; each divergence is told on stdout",
            2: "cannot: no such module, workflow, file, store or run, or a file that is no history",
            130: "interrupted",
        },
        ["replay shop", "replay shop --run order-1", "replay shop tests/histories/*.jsonl"],
    ),
)
def replay(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="MODULE... [FILE.jsonl...]",
            help="The code, then histories that `holdfast events RUN --json` wrote. "
            "Without histories: every run of the store whose workflow the modules define.",
        ),
    ],
    run: Annotated[
        list[str] | None,
        typer.Option("--run", metavar="RUN", help="This run of the store; may be given several times."),
    ] = None,
    store: StoreUrl = DEFAULT_STORE,
    as_json: AsJson = False,
) -> int:
    """Replay recorded histories with today's code.

    The check before a deploy: no step runs and nothing is written. Tells for each divergence the run, the
    position, what the log holds and what the code asks for, with file and line.
    """
    from .modules import load_all

    files = [name for name in names if name.endswith((".jsonl", ".json"))]
    modules = [name for name in names if name not in files]
    if not modules:
        raise Problem("no module was named", hint="holdfast replay MODULE… [FILE.jsonl…]")
    if files and run:
        raise Problem("histories come from files or, with --run, from the store: not from both")
    workflows = list(load_all(modules))
    return asyncio.run(_replay(store, workflows, files, run or [], as_json))


async def _replay(url: str, workflows: list[str], files: list[str], runs: list[str], as_json: bool) -> int:
    count = events = diverged = 0
    outcomes = _from_files(files, workflows) if files else _from_store(url, workflows, runs)
    with _progress("replaying") as show:
        async for outcome in outcomes:
            count, events = count + 1, events + outcome.position
            show.count(count, events)
            diverged += outcome.divergence is not None
            if as_json:
                show.data(_outcome_as_json(outcome))
            elif outcome.divergence is not None:
                show.data(_divergence_text(outcome))
    if not as_json:
        looked_at = f"{_count(count, 'run')}, {_count(events, 'event')}"
        if diverged:
            output.note(f"{_count(diverged, 'run')} of {looked_at} diverged")
        elif count:
            output.note(output.paint("today's code fits", "green", sys.stderr) + f" {looked_at}")
        else:
            output.note(f"no run of {', '.join(workflows)} to replay")
    return NO if diverged else 0


async def _from_files(files: list[str], workflows: list[str]) -> AsyncIterator[Replayed]:
    from ..replay import check_run, load_history, workflow_name

    for name in files:
        events = load_history(name)
        _check_defined(name, workflow_name(events), workflows)
        yield check_run(events)


async def _from_store(url: str, workflows: list[str], runs: list[str]) -> AsyncIterator[Replayed]:
    from ..replay import replay_store
    from .stores import existing, head_of

    async with existing(url) as store:
        for run_id in runs:
            _check_defined(run_id, (await head_of(store, run_id)).workflow, workflows)
            async for outcome in replay_store(store, run_id=run_id):
                yield outcome
        if not runs:
            async for outcome in replay_store(store, workflows):
                yield outcome


def _check_defined(history: str, workflow: str, workflows: list[str]) -> None:
    if workflow not in workflows:
        raise Problem(
            f"{history} is a run of {workflow!r}, which the named modules do not define",
            hint=f"they define {', '.join(workflows)}",
        )


def _divergence_text(outcome: Replayed) -> str:
    divergence = outcome.divergence
    assert divergence is not None
    lines = [f"{outcome.run} position {divergence.position}: {output.paint('diverged', 'red')}"]
    lines.append(f"  the log holds       {divergence.expected}")
    lines.append(f"  the code asks for   {divergence.asked}")
    if divergence.where:
        lines.append(f"  at                  {divergence.where}")
    return "\n".join(output.clean(line, lines=True) if line.startswith("  ") else line for line in lines)


def _outcome_as_json(outcome: Replayed) -> str:
    from ..events import dump_json

    divergence = outcome.divergence
    shown: dict[str, Any] = {
        "run": outcome.run,
        "workflow": outcome.workflow,
        "events": outcome.position,
        "diverged": divergence is not None,
    }
    if divergence is not None:
        shown["position"] = divergence.position
        shown["expected"] = divergence.expected
        shown["asked"] = divergence.asked
        shown["where"] = divergence.where
    return dump_json(shown).decode()


# ---- progress ----------------------------------------------------------------------------------------------


class _Progress:
    """A bar on stderr where that is a terminal; lines of data are printed above it."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._out = sys.stdout
        self._bar: Any = None
        self._task: Any = None

    def start(self) -> None:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (TextColumn("{task.description}"), BarColumn(20), TimeElapsedColumn())
            self._bar = Progress(
                *columns, console=Console(stderr=True), transient=True, redirect_stdout=False
            )
            self._task = self._bar.add_task(self._what, total=None)
            self._bar.start()

    def stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()

    def count(self, runs: int, events: int) -> None:
        """So many were looked at."""
        if self._bar is not None:
            self._bar.update(self._task, description=f"{self._what} {_count(runs, 'run')}, {events:,} events")

    def data(self, text: str) -> None:
        """A line of what was asked for."""
        print(text, file=self._out)


@contextlib.contextmanager
def _progress(what: str) -> Iterator[_Progress]:
    progress = _Progress(what)
    with contextlib.redirect_stdout(sys.stderr):  # what workflow code prints is no data
        progress.start()
        try:
            yield progress
        finally:
            progress.stop()
