"""`stress`: many runs at once that race, on a real store with real processes, and the proof from their logs."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from . import output
from .frame import CHECK, command, group
from .options import AsJson, ending
from .problem import NO, Problem

if TYPE_CHECKING:
    import msgspec

    from ..testing.stress.chaos import ChaosReport
    from ..testing.stress.report import Report

_SHOWN = 20
"""How many problems people are shown; the JSON has all."""

stress = group(CHECK, "stress", "Let many runs race, then prove from their logs that nothing was lost.")

_CODES = {
    0: "every run completed, and every promise was kept",
    1: "a run is corrupt, stuck or wrongly failed, or a payload was lost; each is named",
    2: "cannot: wrong usage, or a store or worker process that does not come up",
    130: "interrupted",
}


def _number(name: str, help: str, *, least: int = 0) -> Any:
    return typer.Option(name, metavar="N", min=least, help=help)


StormStore = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        help="Where the runs are; without it, an SQLite file that is thrown away. All logs there are verified.",
    ),
]
WorkerCount = Annotated[
    int, _number("--workers", "Worker processes beside this one, which sends (1); 0: this one works too.")
]
Limit = Annotated[
    float,
    typer.Option("--limit", metavar="SECONDS", min=1, help="When a run that has not ended is stuck (180)."),
]
Cycles = Annotated[int, _number("--cycles", "How often, one after the other (1).", least=1)]


@command(
    CHECK,
    ending(
        _CODES, ["stress hook-sleep", "stress hook-sleep --count 50 --fire-after-ms 500 --workers 4 --json"]
    ),
    name="hook-sleep",
    of=stress,
)
def hook_sleep(
    count: Annotated[int, _number("--count", "Runs at once (200).", least=1)] = 200,
    iterations: Annotated[int, _number("--iterations", "Races in each run (8).", least=1)] = 8,
    sleep_ms: Annotated[int, _number("--sleep-ms", "The sleep that races (500).")] = 500,
    sleep_branch_wait_count: Annotated[
        int, _number("--sleep-branch-wait-count", "Sleeps at once when the sleep has won (2).")
    ] = 2,
    sleep_branch_wait_ms: Annotated[
        int, _number("--sleep-branch-wait-ms", "How long each of those is (100).")
    ] = 100,
    drain_delay_ms: Annotated[
        int, _number("--drain-delay-ms", "The step that takes a payload in (50).")
    ] = 50,
    fire_after_ms: Annotated[
        int, _number("--fire-after-ms", "When the payloads come, from the start (3000).")
    ] = 3000,
    fire_count: Annotated[int, _number("--fire-count", "Payloads for each run, one by one (10).")] = 10,
    fire_burst_spacing_ms: Annotated[
        int, _number("--fire-burst-spacing-ms", "Between two payloads for one run (0).")
    ] = 0,
    cycles: Cycles = 1,
    workers: WorkerCount = 1,
    limit: Limit = 180.0,
    store: StormStore = None,
    as_json: AsJson = False,
) -> int:
    """Payloads against sleeps: runs that race a hook against a timer, and a burst of payloads for each.

    The race of vercel/workflow's pull request 2113, with its parameters. At full size: --cycles 2.
    """
    from ..testing.stress import HookSleep

    given = HookSleep(
        count=count,
        iterations=iterations,
        sleep_ms=sleep_ms,
        sleep_branch_wait_count=sleep_branch_wait_count,
        sleep_branch_wait_ms=sleep_branch_wait_ms,
        drain_delay_ms=drain_delay_ms,
        fire_after_ms=fire_after_ms,
        fire_count=fire_count,
        fire_burst_spacing_ms=fire_burst_spacing_ms,
        cycles=cycles,
    )
    return _run("hook-sleep", given, store, workers, limit, as_json)


StormCount = Annotated[int, _number("--count", "Runs at once (100).", least=1)]
Rounds = Annotated[int, _number("--rounds", "Rounds in each run (6).", least=1)]
Width = Annotated[int, _number("--width", "Branches in each round (8).", least=1)]
Watchdog = Annotated[int, _number("--watchdog-ms", "The sleep that each branch races against (2500).")]
StepDelay = Annotated[int, _number("--step-delay-ms", "How long a branch's step takes (2200).")]
StepSpread = Annotated[int, _number("--step-spread-ms", "More or less, in five steps (250).")]
Between = Annotated[int, _number("--between-ms", "Between two rounds (1000).")]
Poke = Annotated[
    int, _number("--poke-ms", "Between two payloads for the hook that nobody awaits (250).", least=1)
]


@command(
    CHECK,
    ending(_CODES, ["stress step-storm", "stress step-storm --count 20 --rounds 2 --workers 4"]),
    name="step-storm",
    of=stress,
)
def step_storm(
    count: StormCount = 100,
    rounds: Rounds = 6,
    width: Width = 8,
    watchdog_ms: Watchdog = 2500,
    step_delay_ms: StepDelay = 2200,
    step_spread_ms: StepSpread = 250,
    between_ms: Between = 1000,
    poke_ms: Poke = 250,
    cycles: Cycles = 1,
    workers: WorkerCount = 1,
    limit: Limit = 180.0,
    store: StormStore = None,
    as_json: AsJson = False,
) -> int:
    """Steps against watchdogs: branches that race a step against a sleep, and payloads all the while.

    Each branch recovers where it is late, finalizes, and releases in `finally`; each round ends with several
    steps at once.
    """
    from ..testing.stress import StepStorm

    given = StepStorm(
        count=count,
        rounds=rounds,
        width=width,
        watchdog_ms=watchdog_ms,
        step_delay_ms=step_delay_ms,
        step_spread_ms=step_spread_ms,
        between_ms=between_ms,
        poke_ms=poke_ms,
        cycles=cycles,
    )
    return _run("step-storm", given, store, workers, limit, as_json)


@command(
    CHECK,
    ending(_CODES, ["stress hook-storm", "stress hook-storm --count 20 --rounds 2 --workers 4"]),
    name="hook-storm",
    of=stress,
)
def hook_storm(
    count: StormCount = 100,
    rounds: Rounds = 6,
    width: Width = 8,
    watchdog_ms: Watchdog = 2500,
    step_delay_ms: Annotated[
        int, _number("--step-delay-ms", "When the payloads for half of the hooks come (2200).")
    ] = 2200,
    step_spread_ms: Annotated[
        int,
        _number("--step-spread-ms", "More or less, in five steps; so at the other half's watchdog (250)."),
    ] = 250,
    between_ms: Between = 1000,
    poke_ms: Poke = 250,
    cycles: Cycles = 1,
    workers: WorkerCount = 1,
    limit: Limit = 180.0,
    store: StormStore = None,
    as_json: AsJson = False,
) -> int:
    """Hooks against watchdogs: as step-storm, with payloads that come about when the watchdog barks."""
    from ..testing.stress import HookStorm

    given = HookStorm(
        count=count,
        rounds=rounds,
        width=width,
        watchdog_ms=watchdog_ms,
        step_delay_ms=step_delay_ms,
        step_spread_ms=step_spread_ms,
        between_ms=between_ms,
        poke_ms=poke_ms,
        cycles=cycles,
    )
    return _run("hook-storm", given, store, workers, limit, as_json)


@command(
    CHECK,
    ending(
        {
            0: "every run ended, and every promise was kept",
            1: "a promise was broken; each is named",
            2: "cannot: wrong usage, or a store or process that does not come up",
            130: "interrupted",
        },
        ["stress chaos --minutes 1", "stress chaos --minutes 10 --workers 4 --with fsync --with clock"],
    ),
    name="chaos",
    of=stress,
)
def chaos(
    minutes: Annotated[
        float, typer.Option("--minutes", metavar="M", min=0.01, help="How long the trouble lasts (1).")
    ] = 1.0,
    workers: Annotated[int, _number("--workers", "Worker processes (3).", least=1)] = 3,
    clients: Annotated[int, _number("--clients", "Client processes (2).", least=1)] = 2,
    in_flight: Annotated[int, _number("--in-flight", "Runs at once (40).", least=1)] = 40,
    seed: Annotated[
        str | None,
        typer.Option("--seed", metavar="TEXT", help="Of the trouble's chance; without it, one is drawn."),
    ] = None,
    with_: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="KIND",
            help="What else goes wrong: clock, fsync, disk, or postgres, which starts a server of its own and "
            "crashes it; may be given several times.",
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            "--store", metavar="URL", help="An empty store; without it, an SQLite file that is thrown away."
        ),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Kill and pause workers and clients at random, then prove that every promise was kept.

    Each step leaves a mark outside the store. When the trouble is over, logs, marks and what the clients were
    told are held against each other.
    """
    from ..testing.stress.chaos import KINDS
    from ..testing.stress.chaos import chaos as let_loose

    _check_store(store, workers)
    for kind in with_ or ():
        if kind not in KINDS:
            raise Problem(f"--with {kind}: expected one of {', '.join(KINDS)}")
    if "postgres" in (with_ or ()) and store is not None:
        raise Problem("--with postgres crashes a server, and none but its own: leave --store out")
    seed = seed if seed is not None else os.urandom(3).hex()
    if not as_json:
        output.note(f"seed {seed}")
    with _Bar("chaos") as bar:
        report = asyncio.run(
            let_loose(
                minutes=minutes,
                workers=workers,
                clients=clients,
                seed=seed,
                url=store,
                with_=with_ or (),
                in_flight=in_flight,
                progress=bar.show,
            )
        )
    if as_json:
        import msgspec

        output.data_json(msgspec.to_builtins(report))
    else:
        _tell_chaos(report)
    return NO if report.problems else 0


# ---- running, and saying what it came to -------------------------------------------------------------------


def _run(name: str, given: msgspec.Struct, url: str | None, workers: int, limit: float, as_json: bool) -> int:
    from ..testing.stress import stress as let_loose

    _check_store(url, workers)
    with _Bar(name) as bar:
        report = asyncio.run(let_loose(name, given, url=url, workers=workers, limit=limit, progress=bar.show))
    if as_json:
        import msgspec

        output.data_json(msgspec.to_builtins(report))
    else:
        _tell(report)
    return NO if report.problems else 0


def _check_store(url: str | None, workers: int) -> None:
    if url == "":
        raise Problem("--store: expected a URL, got nothing")
    if url is not None and url.startswith("memory:") and workers:
        raise Problem(f"{url} lives in one process: no other worker can serve it", hint="add --workers 0")


def _tell(report: Report) -> None:
    payloads = report.payloads
    fate = f"{payloads.read:,} read, {payloads.unread:,} unread; {payloads.refused:,} refused"
    rows = [
        ("runs", f"{report.runs:,}, {report.completed:,} completed"),
        ("running", f"{report.running} when the time was up, {report.parked} of them parked"),
        ("failed", ", ".join(f"{n} {code}" for code, n in report.failed.items()) or "none"),
        ("payloads", f"{payloads.accepted:,} accepted: {fate}"),
        ("refused as stale", f"{sum(report.stale.values()):,}"),
        *((f"  {site}", f"{n:,}") for site, n in sorted(report.stale.items())),
        (
            "verified",
            f"{report.events:,} events, {report.replayed:,} runs replayed, {report.corrupt} corrupt",
        ),
        ("seconds", ", ".join(f"{seconds:.2f}" for seconds in report.seconds)),
    ]
    output.table(("", ""), rows)
    _tell_problems(report.problems)


def _tell_chaos(report: ChaosReport) -> None:
    payloads = report.payloads
    fate = f"{payloads.read:,} read, {payloads.unread:,} unread; {payloads.refused:,} refused"
    rows = [
        ("befallen", ", ".join(f"{n} × {kind}" for kind, n in sorted(report.befallen.items()))),
        ("runs", ", ".join(f"{n:,} {status}" for status, n in sorted(report.runs.items()))),
        ("payloads", f"{payloads.accepted:,} accepted: {fate}"),
        ("unknown", f"{report.unknown:,} starts and payloads whose client died before it was told"),
        ("steps", f"{report.steps:,} results, {report.effects:,} effects"),
        ("verified", f"{report.events:,} events, {report.replayed:,} runs replayed"),
        ("settled", f"{report.settled:.1f} s after the trouble"),
    ]
    output.table(("", ""), rows)
    _tell_problems(report.problems)


def _tell_problems(problems: Sequence[str]) -> None:
    for problem in problems[:_SHOWN]:
        output.data(output.paint(output.clean(problem), "red"))
    if len(problems) > _SHOWN:
        output.note(f"and {len(problems) - _SHOWN} more: --json has all")
    if not problems:
        output.note(output.paint("every promise was kept", "green", sys.stderr))


class _Bar:
    """A progress bar on stderr, where that is a terminal."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress

            self._bar = Progress(console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(self._name, total=None)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, done: float, total: float, what: str) -> None:
        """So many have ended."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total, description=f"{self._name}: {what}")
