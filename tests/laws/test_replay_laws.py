"""Laws L6 to L9 on generated workflows: commands follow from code and facts, and from nothing else."""

from __future__ import annotations

import gc
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given

sys.path.insert(0, str(Path(__file__).parent))

from durable import asked_by, commands, durable, play_through, plays, seeds, woven

from holdfast.engine.tick import replay, tick
from holdfast.errors import ReplayDivergence
from holdfast.replay import dump_history, replay_run

HERE = Path(__file__).parent


# Programs that are cut off leave coroutines which nobody will await, on both loops.
pytestmark = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level("CRITICAL")  # exceptions of tasks that a program leaves behind
    yield
    gc.collect()


@given(seeds, seeds)
def test_each_prefix_of_a_log_yields_the_commands_that_follow_it(program: int, facts: int) -> None:
    """L6: what a prefix yields, the log holds next, in order; no longer log takes it back."""
    run = play_through(woven(program), facts)
    run.close()
    log = run.log
    for k in range(1, len(log) + 1):
        follows = commands(log[k:])
        yielded = asked_by(tick(durable, log[:k]))
        assert yielded == follows[: len(yielded)], f"after position {k}"
        if k < len(log) and log[k].cls == "command":
            assert yielded, f"position {k + 1} is a command that its log does not yield"


@given(seeds, seeds)
def test_a_live_run_and_a_cold_replay_agree_at_every_point(program: int, facts: int) -> None:
    """Kept live, or dropped before each fact and replayed: the same log and the same sight of the world."""
    plays.clear()
    live = play_through(woven(program), facts)
    live.close()
    live_trace = plays[0].trace
    cold = play_through(woven(program), facts, cold=True)
    cold.close()
    assert cold.log == live.log
    plays.clear()
    replay(durable, live.log).bury()
    assert plays[0].trace == live_trace


@given(seeds, seeds, seeds)
def test_whatever_order_facts_arrive_in_the_log_replays_to_itself(
    program: int, first: int, second: int
) -> None:
    """R-01: two orders of the same concurrent facts give two logs, each true to itself."""
    for facts in (first, second):
        run = play_through(woven(program), facts)
        run.close()
        replay_run(run.log, durable)
        assert asked_by(tick(durable, run.log)) == []


@given(seeds, seeds)
def test_a_log_whose_commands_are_tampered_with_does_not_replay(program: int, facts: int) -> None:
    """L7: leave one command out of a log, and the replay says so at that place or at the next command."""
    run = play_through(woven(program), facts)
    run.close()
    # The answers of `patched` come from the log itself, so a missing marker is a legal other history.
    at = [e.position for e in run.log if e.cls == "command" and e.type != "patched"]
    for position in at[:-1][::7]:
        log = [event for event in run.log if event.position != position]
        with pytest.raises(ReplayDivergence):
            replay_run(log, durable)


# ---- another process, another hash seed


def other_process(mode: str, folder: Path, hash_seed: int) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    command = [sys.executable, str(HERE / "elsewhere.py"), mode, str(folder)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_logs_replay_in_another_process_with_other_hashes(tmp_path: Path) -> None:
    """A1, and iteration over sets in general: nothing in a log rests on addresses or hashes of a process."""
    # The same programs on every CI run; others each time elsewhere.
    start = 1 if os.environ.get("CI") else random.randrange(2**32)
    for number in range(25):
        run = play_through(woven(start + number), number)
        run.close()
        dump_history(run.log, tmp_path / f"{number:02}.jsonl")
    for hash_seed in (1, 2):
        done = other_process("replay", tmp_path, hash_seed)
        assert done.stdout == '{"replayed": 25}\n', f"programs from {start}: {done.stdout}{done.stderr}"


def test_a_set_of_strings_in_workflow_code_is_found_out_by_another_hash_seed(tmp_path: Path) -> None:
    """The trap that check mode is for: a set of strings iterates in another order in each process."""
    other_process("record", tmp_path, 1).check_returncode()
    same = other_process("replay", tmp_path, 1)
    assert json.loads(same.stdout) == {"replayed": 1}, same.stderr
    other = other_process("replay", tmp_path, 2)
    found = json.loads(other.stdout)
    assert "the log holds step_scheduled visit#" in found["diverged"]
    assert "elsewhere.py:" in found["where"]
