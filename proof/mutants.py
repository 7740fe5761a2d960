"""Take a protection out, and see which test notices: each mutant is a patch, applied to a copy of the source.

    python proof/mutants.py                 all of them, with a progress line each
    python proof/mutants.py --only fence    those whose name holds "fence"

A mutant is killed by the first test that fails without its protection. Exit code 1 where one survives, or where
its patch no longer fits the source (then the list below is what is out of date).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src"

STORE = ("tests/store",)
STREAMS = ("tests/store/test_streams.py",)
ENGINE = ("tests/engine", "tests/laws/test_replay_laws.py")
SIMULATED = "tests/simulation/test_simulation.py"
FAMILIES = (f"{SIMULATED}::test_families_are_whole_in_all_kinds_of_trouble",)
QUEUES = ("tests/store/test_queues.py",)
WORKER = ("tests/simulation/test_simulation.py", "tests/engine/test_counterexamples.py", "tests/laws")


class Mutant(NamedTuple):
    """A protection, where it stands, what takes its place, and the tests that may notice, in order."""

    name: str
    law: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTANTS = [
    Mutant(
        "no command fence",
        "L4",
        "store/rules.py",
        "if commands and head.command > after:",
        "if False:",
        STORE,
    ),
    Mutant(
        "fence on the tail",
        "L4",
        "store/rules.py",
        "if commands and head.command > after:",
        "if commands and head.position > after:",
        STORE,
    ),
    Mutant(
        "early facts without the exact tail",
        "L5",
        "store/outcomes.py",
        "if self.before.position > (self.request.after or 0):",
        "if False:",
        (*STORE, *WORKER),
    ),
    Mutant(
        "a plain append without the exact tail",
        "L5",
        "store/plain.py",
        "before.position != after or",
        "",
        ("tests/store/test_plain.py", *STORE),
    ),
    Mutant(
        "a plain append doubles a key",
        "L3",
        "store/plain.py",
        "if unique in uniques:",
        "if False:",
        ("tests/store/test_plain.py", *STORE),
    ),
    Mutant(
        "a plain append runs ahead of the clock",
        "L8",
        "store/plain.py",
        "not early <= draft.at <= limit:",
        "not early <= draft.at:",
        ("tests/store/test_plain.py", *STORE),
    ),
    Mutant(
        "no unique keys of commands",
        "L3",
        "store/outcomes.py",
        "if self._there(draft) is not None:\n                    # The last net",
        "if False:\n                    # The last net",
        STORE,
    ),
    Mutant(
        "facts are not unique",
        "L3",
        "store/outcomes.py",
        "        if there is not None:\n            self.duplicates.append(there)",
        "        if False:\n            self.duplicates.append(there)",
        STORE,
    ),
    Mutant(
        "delivered mark at the append's own position",
        "L14",
        "store/outcomes.py",
        "head.delivered = max(head.delivered, after)",
        "head.delivered = head.position",
        STORE,
    ),
    Mutant(
        "facts without their commands",
        "L3",
        "store/outcomes.py",
        "        if draft.type in RESTS_ON and not self._asked_for(draft):\n"
        "            return self._missing(draft)\n"
        '        if draft.type == "step_started":',
        '        if draft.type == "step_started":',
        STORE,
    ),
    Mutant(
        "commands after the end",
        "L11",
        "store/rules.py",
        "if head.ended is not None:\n        return writing.late(commands)",
        "if False:\n        return writing.late(commands)",
        STORE,
    ),
    Mutant(
        "a batch is not recognised",
        "L12",
        "store/rules.py",
        "if found.batch is not None:",
        "if False:",
        STORE,
    ),
    Mutant(
        "the hash leaves the body out",
        "L13",
        "store/verdict.py",
        '{len(body)}\\0".encode(), body',
        '".encode(), b""',
        ("tests/test_verify.py", *STORE),
    ),
    Mutant(
        "a timer fires before it is due",
        "L8",
        "store/outcomes.py",
        "at = max(at, self.found.timers.get(draft.key, 0))",
        "pass",
        STORE,
    ),
    Mutant(
        "adoption without comparing input",
        "L7",
        "client.py",
        "        if not same:\n            raise RunExists(",
        "        if False:\n            raise RunExists(",
        ("tests/test_client.py",),
    ),
    Mutant(
        "arguments are not compared on replay",
        "L7",
        "engine/history.py",
        "or not _same(execution, asked, event)",
        "",
        ENGINE,
    ),
    Mutant(
        "names are not compared on replay",
        "L7",
        "engine/history.py",
        "or asked.key != event.key or",
        "or",
        ENGINE,
    ),
    Mutant(
        "one ordinal over the whole run",
        "L7",
        "engine/context.py",
        "ordinal = self._ordinals.get((kind, name), 0) + 1\n        self._ordinals[kind, name] = ordinal",
        'kind = name_ = ""\n        ordinal = self._ordinals.get((kind, name_), 0) + 1\n'
        "        self._ordinals[kind, name_] = ordinal",
        (*ENGINE, "tests/histories"),
    ),
    Mutant(
        "tasks hash by address",
        "L6",
        "engine/loop.py",
        "    def __hash__(self) -> int:\n        return self.hashed",
        "    def __hash__(self) -> int:\n        return id(self) >> 4",
        ENGINE,
    ),
    Mutant(
        "a dead waiter is not withdrawn",
        "L10",
        "engine/hooks.py",
        "            if not waiter.done():\n                waiter.set_result(payload)\n                return",
        "            if not waiter.cancelled():\n                waiter.set_result(payload)\n            return",
        ENGINE,
    ),
    Mutant(
        "a payload of a cancelled waiter is lost",
        "L10",
        "engine/hooks.py",
        "self._hand_over(waiter.result(), first=True)",
        "pass",
        ("tests/engine/test_semantics.py", "tests/engine/test_counterexamples.py", "tests/laws"),
    ),
    Mutant(
        "the workflow's clock is the wall's",
        "L8",
        "engine/context.py",
        '        """The time of the fact delivered last (law L8)."""\n        return to_datetime(self.clock)',
        "        import time\n        return to_datetime(time.time_ns() // 1000)",
        ENGINE,
    ),
    Mutant(
        "two facts before the code is quiet",
        "L6",
        "engine/tick.py",
        "        self.loop.drain()\n        if self._main.done():",
        "        if what.key:\n            self.loop.drain()\n        if self._main.done():",
        ENGINE,
    ),
    Mutant(
        "a divergence ends the run",
        "L7",
        "worker/advance.py",
        '            self._park("diverged", error)',
        "            self._fail(error)",
        WORKER,
    ),
    Mutant(
        "a lost answer is taken for a failure",
        "L12",
        "worker/advance.py",
        "            self._send_again(request, answer)\n        else:",
        "            self._reload()\n        else:",
        WORKER,
    ),
    Mutant(
        "facts are delivered while an append is under way",
        "L5",
        "worker/advance.py",
        "        if self.busy or self.closed:\n            return",
        "        if self.closed:\n            return",
        WORKER,
    ),
    Mutant(
        "missed facts are not delivered",
        "L5",
        "worker/advance.py",
        "        for event in answer.missed:\n            if not",
        "        for event in ():\n            if not",
        WORKER,
    ),
    Mutant(
        "nothing stands behind a lost notice",
        "L14",
        "worker/maintain.py",
        "        for run_id, fact in await worker.store.behind(worker.id):",
        "        for run_id, fact in ():",
        ("tests/laws/test_others.py",),
    ),
    Mutant(
        "a lost claim is forgotten",
        "L14",
        "worker/maintain.py",
        "                self._unsure = True  # it may have been given runs",
        "                pass  # it may have been given runs",
        WORKER,
    ),
    Mutant(
        "the dead keep their runs",
        "H-07",
        "worker/maintain.py",
        "if other.id != worker.id and other.expires < now:",
        "if False:",
        WORKER,
    ),
    Mutant(
        "an attempt of another worker is waited for, whatever comes of it",
        "L14",
        "worker/advance.py",
        "                    self._await_other(execution, key)",
        "                    pass",
        ("tests/laws/test_others.py",),
    ),
    Mutant(
        "a run that was let go is replayed all the same",
        "R-04",
        "worker/advance.py",
        "        if self.closed:  # meanwhile: an execution",
        "        if False:  # meanwhile: an execution",
        ("tests/laws/test_others.py",),
    ),
    Mutant(
        "a second claimer runs the body too",
        "L3",
        "worker/advance.py",
        "if draft.unique in answer.doubles:",
        "if False:",
        ("tests/laws/test_others.py",),
    ),
    Mutant(
        "an attempt that is over may write to a stream",
        "streams",
        "store/streams.py",
        "if author is not None and (found.open is None or found.open != (author.attempt, None)):",
        "if False:",
        STREAMS,
    ),
    Mutant(
        "a write to a stream that is sent again is written again",
        "streams",
        "store/streams.py",
        "if found.batch is not None:",
        "if False:",
        STREAMS,
    ),
    Mutant(
        "the end mark of an attempt that died binds the next",
        "streams",
        "store/streams.py",
        "if not (step and step == head.step and attempt > head.attempt):",
        "if True:",
        STREAMS,
    ),
    Mutant(
        "a step's outcome does not wait for its chunks",
        "streams",
        "worker/execute.py",
        """            if attempt.writers:
                await attempt.drain()
            draft""",
        """            draft""",
        ("tests/test_streams.py",),
    ),
    Mutant(
        "a reader does not look once more when the run has ended",
        "streams",
        "streams.py",
        "ended = True  # nothing is written from here on: what was, is found by one more look",
        "return",
        ("tests/test_streams.py",),
    ),
    # ---- the plain pass beside the rules
    Mutant(
        "a plain append marks its own position as delivered",
        "L14",
        "store/plain.py",
        "            head.delivered = after",
        "            head.delivered = position",
        ("tests/store/test_plain.py",),
    ),
    Mutant(
        "a plain append after the end",
        "L11",
        "store/plain.py",
        "before.position != after or before.ended is not None or",
        "before.position != after or",
        ("tests/store/test_plain.py",),
    ),
    Mutant(
        "the hash of a plain append leaves the body out",
        "L13",
        "store/plain.py",
        "        parts.append(body)\n",
        "",
        ("tests/store/test_plain.py",),
    ),
    # ---- a log that is read anew, a worker that is thought dead
    Mutant(
        "what the unenlisted own is nobody's to free",
        "H-07",
        "store/memory/store.py",
        '*(WorkerRow(owner, 0, "", 0) for owner in sorted(owners))',
        "",
        (*FAMILIES, "tests/laws/test_others.py"),
    ),
    # ---- child runs
    Mutant(
        "the start of a child is not repeated by who takes its parent over",
        "children",
        "worker/advance.py",
        "self.children.take_up(self._live.children, children, self._live.root)",
        "pass",
        FAMILIES,
    ),
    Mutant(
        "a parent is not told of its child where the news are lost",
        "children",
        "worker/maintain.py",
        "for child in await worker.store.ended_children(worker.id):",
        "for child in ():",
        ("tests/worker/test_children.py::test_a_notice_that_is_lost_costs_the_slow_poll_and_no_more",),
    ),
    Mutant(
        "an orphan is not cancelled",
        "children",
        "worker/children.py",
        "        await cancel(store, last, orphan.run)",
        "        pass",
        ("tests/worker/test_children.py::test_children_of_a_parent_that_ended_are_cancelled",),
    ),
    Mutant(
        "a child that nobody waits for is not told so",
        "children",
        "worker/children.py",
        "            await cancel(worker.store, run, self._run_id)",
        "            pass",
        ("tests/worker/test_children.py::test_a_time_out_cancels_the_child_for_good",),
    ),
    Mutant(
        "a detached child is forgotten with its parent",
        "children",
        "worker/children.py",
        '            if orphan.status == "detached":\n                await store.append',
        "            if False:\n                await store.append",
        (*FAMILIES, "tests/worker/test_children.py"),
    ),
    # ---- runs that go on as others
    Mutant(
        "unread payloads do not go along",
        "continue",
        "store/succession.py",
        "if token in open_hooks and (",
        "if False and (",
        FAMILIES,
    ),
    Mutant(
        "payloads that land just before the end do not go along",
        "continue",
        "store/succession.py",
        ' or event.position > told.get("seen", 0)',
        "",
        (*FAMILIES, "tests/worker/test_continue.py"),
    ),
    Mutant(
        "a successor is left to the worker that ended the run",
        "continue",
        "worker/children.py",
        "        await succeed(store, orphan.run)\n        return",
        "        return",
        FAMILIES,
    ),
    # ---- queues
    Mutant(
        "a place is freed by who does not hold it any more",
        "queues",
        "store/memory/queues.py",
        "if run is not None and run.holders.get(key) == worker:",
        "if run is not None and key in run.holders:",
        (*QUEUES, *FAMILIES),
    ),
    Mutant(
        "places are counted before the transaction that takes them",
        "queues",
        "store/memory/queues.py",
        "            choice = choose(queue, self._usage(queue, now), left, now)",
        "            before = self.__dict__.get(queue.name) or Usage({})\n"
        "            self.__dict__[queue.name] = self._usage(queue, now)\n"
        "            choice = choose(queue, before, left, now)",
        FAMILIES,
    ),
    Mutant(
        "the places of the dead are not put back",
        "queues",
        "store/memory/ownership.py",
        "[SOME_QUEUE] * queues.put_back(worker, held)",
        "[SOME_QUEUE] * bool(held)",
        FAMILIES,
    ),
]


class Outcome(NamedTuple):
    """`killer` is the test that failed; None where the mutant lives."""

    killer: str | None
    seconds: float


def play(mutant: Mutant, folder: Path) -> Outcome:
    """Apply a mutant to a copy, and run its tests until one fails."""
    begun = time.monotonic()
    source = folder / "src"
    shutil.copytree(SOURCE, source, ignore=shutil.ignore_patterns("__pycache__"))
    file = source / "holdfast" / mutant.file
    text = file.read_text()
    if text.count(mutant.old) < 1:
        raise SystemExit(f"{mutant.name}: its patch does not fit {mutant.file} any more")
    file.write_text(text.replace(mutant.old, mutant.new))
    environment = {**os.environ, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
    for tests in mutant.tests:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
            "-rfE",
            tests,
        ]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False
        )
        if done.returncode not in (0, 5):
            found = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
            return Outcome(
                found[1] if found else f"{tests} (exit {done.returncode})", time.monotonic() - begun
            )
    return Outcome(None, time.monotonic() - begun)


def main() -> int:
    parser = argparse.ArgumentParser(description="Take protections out, and see which test notices.")
    parser.add_argument("--only", default="")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if given.only in mutant.name]
    alive = 0
    for number, mutant in enumerate(chosen, start=1):
        with tempfile.TemporaryDirectory() as folder:
            outcome = play(mutant, Path(folder))
        alive += outcome.killer is None
        if given.json:
            print(
                json.dumps({**mutant._asdict(), "killer": outcome.killer, "s": round(outcome.seconds, 1)}),
                flush=True,
            )
            continue
        verdict = f"killed by {outcome.killer}" if outcome.killer else "SURVIVES"
        print(
            f"[{number}/{len(chosen)}] {mutant.law:5} {mutant.name}: {verdict} ({outcome.seconds:.0f} s)",
            flush=True,
        )
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
