"""The demo: a worker is killed in the middle of a run, another goes on, and nothing is done twice.

    make demo                 survey this checkout
    make demo DIR=~/project   survey another folder

It plays with real processes: it starts a worker, starts a run, kills the worker with SIGKILL while two steps
run, starts another worker and lets a third process send the approval. Then it compares two records that know
nothing of each other: the run's log, and a plain file to which each step body appended a line as it began.
At the end it shows the run's trail: what each agent did and found, made from the log.

It stops what it started, and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

import holdfast as hf
from holdfast.events import Event
from holdfast.trail import TrailFolder
from holdfast.trail.export import export
from holdfast.trail.recorder import record

from .survey.effects import FOLDER, effects_file
from .survey.workflow import survey

HOLDFAST = str(Path(sys.executable).with_name("holdfast"))
STORE = "sqlite:///.holdfast/holdfast.db"
TRAILS = ".holdfast/trails"
MODULE = "examples.survey.workflow"
HELD = ("read_prose#1", "read_structure#1")
"""The steps that run when the worker is killed."""
PATIENCE = 60.0
"""Seconds for any one thing to happen; the whole demo takes a few."""
COLOURS = {"demo": "white", "worker 1": "yellow", "worker 2": "green", "you": "magenta"}


class DemoFailed(Exception):
    """Something did not happen; the message says what."""


@dataclass
class Line:
    """A line of the effects file: one step body that began."""

    step: str
    attempt: int
    pid: int


@dataclass
class Process:
    """A process that the demo started."""

    name: str
    handle: subprocess.Popen[bytes]
    log: Path


class Story:
    """What is printed while it happens: seconds since the start, who, what."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        self._began = time.monotonic()

    def tell(self, who: str, what: str, *, style: str = "") -> None:
        elapsed = f"{time.monotonic() - self._began:6.2f} s"
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", no_wrap=True)
        table.add_column(style=COLOURS.get(who, "cyan"), no_wrap=True, width=8)
        table.add_column(style=style)
        table.add_row(elapsed, who, what)
        self.console.print(table)

    def title(self, text: str) -> None:
        self.console.print(f"\n[bold]{text}[/]")


def next_home() -> Path:
    """A folder that this play alone has: .holdfast/demo/demo-1, demo-2 and so on. The run has its name."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    numbers = [int(p.name[5:]) for p in FOLDER.glob("demo-*") if p.name[5:].isdigit()]
    number = max(numbers, default=0)
    while True:
        number += 1
        home = FOLDER / f"demo-{number}"
        with contextlib.suppress(FileExistsError):
            home.mkdir()
            return home


class Demo:
    """One play."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = next_home()
        self.run_id = self.home.name
        self.gate = self.home / "gate"
        self.story = Story()
        self.processes: list[Process] = []
        self.workers: dict[str, str] = {}  # the id in the log -> "worker 1"
        self.events: list[Event] = []
        self.killed = 0.0

    async def play(self) -> bool:
        """The whole story; gives the verdict."""
        say = self.story.console.print
        say("\n[bold]Holdfast demo[/]  Three agents read a folder. Their worker dies half-way. Watch.\n")
        for name, value in (("folder", self.folder), ("store", STORE), ("run", self.run_id)):
            say(f"  [dim]{name:7}[/] {escape(str(value))}")
        say()
        self.gate.touch()
        async with hf.connect(STORE) as app:
            with contextlib.suppress(hf.RunNotFound):
                await app.run(self.run_id).status()
                raise DemoFailed(f"the store has a run {self.run_id} already, of an earlier demo: try again")
            run = await app.start(survey, str(self.folder), run_id=self.run_id)
            self.story.tell("demo", f"started the run: {survey.name}({str(self.folder)!r})")
            try:
                first = self.start_worker()
                await self.until_half_way(run)
                self.kill(first)
                self.gate.unlink()
                self.start_worker()
                await self.until_waiting(run)
                self.approve()
                outcome = await run.result(timeout=PATIENCE)
                await self.follow(run)
                recorded = await record(app.store, run.id, TrailFolder(TRAILS))
            except BaseException:
                await asyncio.shield(run.terminate("the demo was stopped"))
                raise
        self.story.tell("demo", "the run has ended")
        self.timeline()
        passed = self.verdict() and self.verify()
        self.trail(recorded.trail)
        self.what_next(outcome.report, recorded.trail)
        return passed

    # ---- the actors

    def start_worker(self) -> Process:
        """A worker process, as people start one."""
        name = f"worker {len(self.processes) + 1}"
        command = ["worker", MODULE, "--store", STORE]
        log = self.home / f"{name.replace(' ', '-')}.log"
        with log.open("wb") as output:
            handle = subprocess.Popen(
                [HOLDFAST, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "SURVEY_GATE": str(self.gate)},
                process_group=0,  # Ctrl-C is for the demo, which then stops its workers itself
            )
        process = Process(name, handle, log)
        self.processes.append(process)
        self.story.tell("demo", f"starts {name}, process {handle.pid}: holdfast worker {MODULE}")
        return process

    def kill(self, worker: Process) -> None:
        """kill -9."""
        pid = worker.handle.pid
        self.story.tell("demo", "held two steps at a gate file, so that the kill comes while they run")
        self.story.tell("demo", f"kill -9 {pid}", style="bold red")
        worker.handle.kill()
        code = worker.handle.wait(PATIENCE)
        if code != -signal.SIGKILL:
            raise DemoFailed(f"{worker.name} ended with {code}, not by SIGKILL")
        self.killed = time.monotonic()
        self.story.tell(worker.name, "is dead", style="red")

    def approve(self) -> None:
        """A third process sends the approval."""
        payload = json.dumps({"approved": True, "by": "you", "note": "Looks right."})
        command = ["resume", f"approve:{self.run_id}", payload]
        self.story.tell("you", f"$ holdfast {escape(shlex.join(command))}")
        done = self.holdfast(*command)
        if done.returncode:
            raise DemoFailed(f"holdfast resume failed: {done.stderr.strip() or done.stdout.strip()}")

    def holdfast(self, *command: str) -> subprocess.CompletedProcess[str]:
        """The command line, in a process of its own, to its end."""
        return subprocess.run(
            [HOLDFAST, *command, "--store", STORE],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def stop(self) -> None:
        """Stop the processes that are left: those that this demo started, by their ids."""
        self.gate.unlink(missing_ok=True)
        for process in self.processes:
            if process.handle.poll() is None:
                process.handle.terminate()
        for process in self.processes:
            try:
                process.handle.wait(10)
            except subprocess.TimeoutExpired:
                process.handle.kill()
                process.handle.wait()

    # ---- following

    async def follow(self, run: hf.Run[Any]) -> None:
        """Tell what is new in the log."""
        last = self.events[-1].position if self.events else 0
        async for event in run.events(after=last):
            self.events.append(event)
            told = self.describe(event)
            if told is not None:
                self.story.tell(*told)

    def describe(self, event: Event) -> tuple[str, str] | None:
        """One event as part of the story: who, what."""
        name = event.key.rpartition("#")[0]
        if event.type == "run_started" or event.type == "step_started":
            worker = event.data.get("worker", "?")
            if worker not in self.workers:
                self.workers[worker] = f"worker {len(self.workers) + 1}"
                if self.killed:
                    gap = time.monotonic() - self.killed
                    what = f"has the run {gap:.2f} s after the kill, its own start included"
                    self.story.tell(self.workers[worker], what)
            known = self.workers[worker]
            if event.type == "run_started":
                return known, "takes the run"
            attempt = event.data["attempt"]
            return known, f"runs   {name}" + (f", attempt {attempt}" if attempt > 1 else "")
        if event.type == "step_completed":
            return self.worker_of(event.key), f"[green]✓[/]      {name}{self.gist(event)}"
        if event.type == "step_failed":
            return self.worker_of(event.key), f"[red]✗[/]      {name}: {event.data['error'].get('message')}"
        if event.type == "hook_opened":
            return "the run", f"waits for {name}, three days at most"
        if event.type == "hook_received":
            return "the run", f"has its approval, from {event.data['payload']['by']}"
        return None

    def worker_of(self, key: str) -> str:
        started = [e for e in self.events if e.type == "step_started" and e.key == key]
        return self.workers.get(started[-1].data.get("worker", ""), "worker ?")

    def gist(self, event: Event) -> str:
        """What a step found, in a few words."""
        value = event.data.get("value")
        if isinstance(value, dict):
            if "findings" in value:
                count = len(value["findings"])
                return f"  [dim]{count} finding{'' if count == 1 else 's'}[/]"
            if "total" in value:
                return f"  [dim]{value['total']} files[/]"
        return ""

    async def until(self, run: hf.Run[Any], what: str, ready: Any) -> None:
        """Follow the log until something is so."""
        deadline = time.monotonic() + PATIENCE
        while True:
            await self.follow(run)
            if ready():
                return
            ended = next((e for e in self.events if e.type in ("run_failed", "run_cancelled")), None)
            if ended is not None:
                error = ended.data.get("error", {})
                raise DemoFailed(f"the run ended: {error.get('type', '')} {error.get('message', '')}")
            gone = self.processes[-1] if self.processes[-1].handle.poll() is not None else None
            if gone is not None:
                raise DemoFailed(f"{gone.name} ended with {gone.handle.returncode}: see {gone.log}")
            if time.monotonic() > deadline:
                raise DemoFailed(f"{what} did not happen within {PATIENCE:g} s: see {self.home}")
            await asyncio.sleep(0.02)

    async def until_half_way(self, run: hf.Run[Any]) -> None:
        """Until one agent has finished and the two others are at work, by the effects file and by the log."""

        def ready() -> bool:
            lines = self.effects()
            strangers = {line.pid for line in lines} - {p.handle.pid for p in self.processes}
            if strangers:
                raise DemoFailed(
                    f"another worker (process {strangers.pop()}) serves this store and took the run: "
                    "stop it, then try again"
                )
            at_work = {line.step for line in lines} >= set(HELD)
            done = any(e.type == "step_completed" and e.key == "read_history#1" for e in self.events)
            return at_work and done

        await self.until(run, "two agents at work and one finished", ready)

    async def until_waiting(self, run: hf.Run[Any]) -> None:
        """Until the run waits for its approval."""
        opened = "hook_opened"
        await self.until(run, "the wait for an approval", lambda: any(e.type == opened for e in self.events))

    def effects(self) -> list[Line]:
        """The plain file: which bodies began, in which process."""
        try:
            text = effects_file(self.run_id).read_text()
        except FileNotFoundError:
            return []
        found = re.findall(r"^\S+ (\S+) attempt=(\d+) pid=(\d+)$", text, re.MULTILINE)
        return [Line(f"{step}#1", int(attempt), int(pid)) for step, attempt, pid in found]

    # ---- the end

    def timeline(self) -> None:
        """The log, compact: one row per event, the time since the first."""
        self.story.title("The log")
        table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
        table.add_column("#", justify="right", style="dim")
        table.add_column("time", justify="right", style="dim", no_wrap=True)
        table.add_column("event", no_wrap=True)
        table.add_column("of", no_wrap=True, overflow="ellipsis")
        table.add_column("by", no_wrap=True)
        began = self.events[0].time
        styles = {"fact": "green", "command": "cyan", "record": "dim"}
        for event in self.events:
            data = event.data
            by = self.workers.get(data.get("worker", ""), "")
            if event.type == "step_started" and data["attempt"] > 1:
                by += f", attempt {data['attempt']}"
            table.add_row(
                str(event.position),
                f"{(event.time - began) / 1e6:.3f}",
                f"[{styles[event.cls]}]{event.type}[/]",
                self.about(event),
                by,
            )
        self.story.console.print(table)
        self.story.console.print(
            "[cyan]command[/]: the code asked for it   [green]fact[/]: it came from outside   "
            "[dim]record[/]: neither"
        )

    def about(self, event: Event) -> str:
        """What an event is about: its key, or what it tells the trail."""
        if event.type == "noted":
            kind, title = event.data["kind"].replace("_", " "), event.data.get("title")
            return escape(f"{kind} {title!r}" if title else kind)
        return escape(event.key.replace(self.run_id, "…"))

    def verdict(self) -> bool:
        """Compare the plain file with the log."""
        self.story.title("The verdict: bodies that began, by the plain file and by the log")
        lines = self.effects()
        pids = [process.handle.pid for process in self.processes]
        table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
        for header in ("step", "by the file", "by the log", "expected", ""):
            table.add_column(header)
        passed = True
        for key in [e.key for e in self.events if e.type == "step_scheduled"]:
            began = [(line.attempt, line.pid) for line in lines if line.step == key]
            logged = [
                (e.data["attempt"], pids[int(self.workers[e.data["worker"]][-1]) - 1])
                for e in self.events
                if e.type == "step_started" and e.key == key
            ]
            done = sum(e.type == "step_completed" and e.key == key for e in self.events)
            if key in HELD:
                wanted, text = [(1, pids[0]), (2, pids[1])], "twice: interrupted"
            else:
                wanted = [(1, pids[1] if key.startswith("write_report") else pids[0])]
                text = "once"
            right = began == logged == wanted and done == 1
            passed = passed and right
            mark = "[green]✓[/]" if right else "[red]✗[/]"
            table.add_row(key.rpartition("#")[0], self.by(began), self.by(logged), text, mark)
        self.story.console.print(table)
        passed = passed and len(lines) == sum(e.type == "step_started" for e in self.events)
        self.story.console.print()
        if passed:
            self.story.console.print(
                "[bold green]PASS[/] No finished step ran again. "
                "The two that were interrupted ran a second attempt, elsewhere."
            )
        else:
            self.story.console.print(
                f"[bold red]FAIL[/] The file and the log do not agree: see {effects_file(self.run_id)}"
            )
        return passed

    def verify(self) -> bool:
        """Let `holdfast verify` prove the log: positions, order, hashes, and the tables beside it."""
        done = self.holdfast("verify", self.run_id)
        said = done.stdout.strip() or done.stderr.strip()
        self.story.console.print(f"[dim]holdfast verify {self.run_id}:[/] {escape(said)}")
        return done.returncode == 0

    def trail(self, trail_id: str) -> None:
        """The run as its agents would tell it."""
        self.story.title("The trail: what each agent did and found")
        trail = TrailFolder(TRAILS).load(trail_id)
        self.story.console.print(export(trail, "timeline"), markup=False, soft_wrap=True)

    def by(self, began: list[tuple[int, int]]) -> str:
        """Attempts as 'worker 1, worker 2'."""
        names = {process.handle.pid: process.name for process in self.processes}
        return ", ".join(names.get(pid, f"pid {pid}") for _, pid in began) or "never"

    def what_next(self, report: str | None, trail_id: str) -> None:
        """What to look at, and what to type."""
        here = os.environ.get("VIRTUAL_ENV") is None
        command = ".venv/bin/holdfast" if here and Path(".venv/bin/holdfast").exists() else "holdfast"
        say = self.story.console.print
        self.story.title("What to look at now")
        rows = [
            (f"cat {report}", "the report"),
            (f"cat {effects_file(self.run_id)}", "the plain file"),
            (f"{command} trail --data-dir {TRAILS} show {trail_id}", "its trail"),
            (f"ls {TRAILS}/completed/*/{trail_id}.*", "the trail's files"),
            (f"{command} runs", "every run in the store"),
            (f"{command} show {self.run_id}", "this run"),
            (f"{command} events {self.run_id}", "its log"),
            (f"{command} why {self.run_id}", "what it waits for"),
            (f"{command} verify", "prove that logs and tables agree"),
        ]
        for text, what in rows:  # as they are, to be copied: a terminal may fold them, not we
            say(f"[dim]# {what}[/]\n{escape(text)}", soft_wrap=True)
        if os.environ.get("HOLDFAST_URL"):
            say(f"[dim]HOLDFAST_URL is set here: add --store {STORE} to these commands.[/]")


@contextlib.contextmanager
def stopping(demo: Demo) -> Iterator[None]:
    """Whatever happens, leave no process behind."""
    try:
        yield
    finally:
        demo.stop()


def main() -> int:
    """Play the demo; exit 0 only if the verdict is good."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".").expanduser().resolve()
    if not folder.is_dir():
        print(f"{folder} is not a folder: give one that holds source code", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    demo = Demo(folder)
    try:
        with stopping(demo):
            passed = asyncio.run(demo.play())
    except KeyboardInterrupt:
        demo.story.console.print("\nStopped. The demo's processes are gone; its run was terminated.")
        return 130
    except (DemoFailed, hf.HoldfastError, TimeoutError, subprocess.SubprocessError) as error:
        demo.story.console.print(f"\n[bold red]FAIL[/] {escape(str(error))}")
        for process in demo.processes:
            text = process.log.read_text(errors="replace").strip().splitlines()[-15:]
            demo.story.console.print(
                f"[dim]{process.name} said:[/]", *(escape(line) for line in text), sep="\n  "
            )
        return 1
    demo.story.console.print(f"\n[dim]{time.monotonic() - began:.1f} s[/]")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
