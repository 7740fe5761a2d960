"""What came of a run, said by rules: causes of failures, confidence, and the retrospective of its trail.

No model is asked and nothing is guessed; who reads a sentence here can find in the log what it rests on.

**Cause of a failure.** The class of the exception, or of the first one in its chain of causes that has a rule:

    timeout                 TimeoutError, or a class whose name ends in Timeout, TimeoutError, TimeoutExpired …
    verification_mismatch   AssertionError: a check of the work's own failed
    exit_nonzero            CalledProcessError
    spawn_failed            FileNotFoundError or PermissionError that the module subprocess raised
    unreachable             ConnectionError and its subclasses, gaierror
    aborted                 CancelledError, RunCancelled, KeyboardInterrupt
    lost                    StepLost: the workers died
    refused                 FatalError: the step said that a retry cannot help
    wrong_value             PayloadError, or a class whose name ends in ValidationError
    not_deterministic       NotDeterministic
    unknown                 all others

(The tool whose record this is looks for words in the lower-cased message instead, so that a process whose
stderr speaks of a missing file "failed to spawn", and "connection aborted" was "aborted".)

**Confidence.** What the workflow's own code said last (`hf.trail.reflect(…, confidence=)`), for it knows best.
Else, from the steps that were not cancelled: two thirds the share that completed, one third the share that did
so at the first attempt. None where there was no step, or where the run did not complete. (The other tool gives
a quarter of the whole to steps with a verification of their output, so that a faultless run without any ends
at 0.75; 0.7 where it knows nothing; and 0 to what was abandoned, as if half of a work were worth none.)

**Summary.** How many steps completed in which time, or which step the run failed at and why.
**Approach.** The workflow, its steps, and its agents where there are several.
**Learnings.** A sentence for each step that needed several attempts: how many, and why the first one failed.
**Challenges.** A sentence for each step that failed for good, and one for a failure of the code between steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

_BY_CODE = {
    "step_lost": "lost",
    "fatal": "refused",
    "payload": "wrong_value",
    "not_deterministic": "not_deterministic",
    "run_cancelled": "aborted",
}
_BY_NAME = {
    "AssertionError": "verification_mismatch",
    "CalledProcessError": "exit_nonzero",
    "CancelledError": "aborted",
    "KeyboardInterrupt": "aborted",
    **dict.fromkeys(
        (
            "ConnectionError",
            "ConnectionRefusedError",
            "ConnectionResetError",
            "ConnectionAbortedError",
            "BrokenPipeError",
            "gaierror",
        ),
        "unreachable",
    ),
}
_BY_ENDING = {
    ("Timeout", "TimeoutError", "TimeoutExpired", "TimeoutException"): "timeout",
    ("ValidationError",): "wrong_value",
}
_DIAGNOSES = {
    "timeout": "it took longer than it was given",
    "verification_mismatch": "its own check of the work failed",
    "exit_nonzero": "the process that it ran reported a failure",
    "spawn_failed": "the program that it wanted to run is not there",
    "unreachable": "what it talks to could not be reached",
    "aborted": "it was cancelled",
    "lost": "its workers died while it ran; whether its effect happened is unknown",
    "refused": "it said itself that a retry cannot help",
    "wrong_value": "a value did not have the expected form",
    "not_deterministic": "workflow code did what a replay could not repeat",
    "unknown": "an error that no rule knows",
}


class StepTold(msgspec.Struct):
    """A step as its outcomes tell it: what the rules look at."""

    key: str
    attempts: int = 0
    outcome: str = ""
    error: dict[str, Any] | None = None
    first_error: dict[str, Any] | None = None


def cause_of(error: Mapping[str, Any] | None) -> str:
    """The cause of a failure, by the rules above, of an exception as the log describes it.

    Example:
        cause_of({"type": "TimeoutError", "message": "…"})    # 'timeout'
    """
    for _ in range(10):
        if not isinstance(error, Mapping):
            break
        found = _rule(error)
        if found:
            return found
        error = error.get("cause")
    return "unknown"


def _rule(error: Mapping[str, Any]) -> str:
    name = str(error.get("type", "")).rpartition(":")[2].rpartition(".")[2]
    if name in ("FileNotFoundError", "PermissionError", "NotADirectoryError"):
        return "spawn_failed" if "subprocess.py" in str(error.get("traceback", "")) else ""
    for endings, cause in _BY_ENDING.items():
        if name.endswith(endings):
            return cause
    return _BY_CODE.get(str(error.get("code", "")), "") or _BY_NAME.get(name, "")


def said(error: Mapping[str, Any] | None) -> str:
    """'ValueError: the message', as Python prints it."""
    name = str((error or {}).get("type") or "Error").rpartition(":")[2]
    message = str((error or {}).get("message") or "")
    return f"{name}: {message}" if message else name


def confidence(steps: Mapping[str, StepTold], own: float | None) -> float | None:
    """How far the result may be trusted, from 0 to 1; None where there is nothing to tell it by."""
    if own is not None:
        return own
    counted = _counted(steps)
    if not counted:
        return None
    completed = [step for step in counted if step.outcome == "completed"]
    first = sum(step.attempts <= 1 for step in completed)
    return round((2 * len(completed) + first) / (3 * len(counted)), 4)


def _counted(steps: Mapping[str, StepTold]) -> list[StepTold]:
    return [s for s in steps.values() if s.outcome != "failed" or cause_of(s.error) != "aborted"]


def retrospective(
    workflow: str,
    agents: int,
    steps: Mapping[str, StepTold],
    elapsed: int,
    *,
    error: Mapping[str, Any] | None = None,
    end: str = "completed",
) -> dict[str, Any]:
    """Summary, approach, learnings, challenges and time of a run's trail, as the data of its last entry.

    `elapsed` is in microseconds, `end` completed, failed, cancelled or terminated, `error` why it failed.
    """
    counted = _counted(steps)
    done = sum(step.outcome == "completed" for step in counted)
    blamed = _blamed(counted, error) if end == "failed" else None
    data: dict[str, Any] = {
        "summary": _summary(counted, done, span(elapsed), end, blamed, error),
        "approach": _approach(workflow, len(steps), agents),
        "timeSpent": span(elapsed),
    }
    learnings = [
        f"{step.key} needed {step.attempts} attempts; the first failed with {_short(said(step.first_error))}"
        for step in counted
        if step.outcome == "completed" and step.attempts > 1 and step.first_error is not None
    ]
    challenges = [
        f"{step.key} failed after {_count(step.attempts, 'attempt')}: {_diagnosis(step.error)}"
        for step in counted
        if step.outcome == "failed"
    ]
    if end == "failed" and blamed is None:
        challenges.append(f"The workflow's own code failed: {_diagnosis(error)}")
    if learnings:
        data["learnings"] = learnings
    if challenges:
        data["challenges"] = challenges
    return data


def _blamed(counted: list[StepTold], error: Mapping[str, Any] | None) -> StepTold | None:
    """The step whose error ended the run: the last one that failed with it, or with a cause of it."""
    for _ in range(10):
        if not isinstance(error, Mapping):
            return None
        for step in reversed(counted):
            if step.outcome == "failed" and said(step.error) == said(error):
                return step
        error = error.get("cause")
    return None


def _summary(
    counted: list[StepTold],
    done: int,
    took: str,
    end: str,
    blamed: StepTold | None,
    error: Mapping[str, Any] | None,
) -> str:
    total = len(counted)
    retries = sum(max(0, step.attempts - 1) for step in counted)
    again = f" ({_count(retries, 'retry', 'retries')})" if retries else ""
    share = f"{done} of {_count(total, 'step')} completed" if total else "no step had begun"
    if end == "completed":
        if not total:
            return f"Completed in {took}, without a step."
        if done == total:
            return (
                f"All {total} steps completed in {took}{again}." if total > 1 else f"Done in {took}{again}."
            )
        return f"Completed in {took}{again}: {share}."
    if end == "failed":
        where = blamed.key if blamed is not None else f"the code of the workflow ({_short(said(error))})"
        why = cause_of(blamed.error if blamed is not None else error)
        return f"Failed at {where} [{why}] after {took}{again}: {share}."
    return f"{end.capitalize()} after {took}{again}: {share}."


def _approach(workflow: str, steps: int, agents: int) -> str:
    parts = [_count(steps, "step")] if steps else []
    parts += [f"{agents} agents"] if agents > 1 else []
    return f"Workflow {workflow}" + (f" ({', '.join(parts)})" if parts else "")


def _diagnosis(error: Mapping[str, Any] | None) -> str:
    return f"{_DIAGNOSES[cause_of(error)]} ({_short(said(error))})"


def _short(text: str) -> str:
    return text if len(text) <= 200 else text[:199] + "…"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def span(micros: int) -> str:
    """A length of time as people say it: '0.4 s', '2 min 5 s', '3 d 2 h'."""
    seconds = micros / 1e6
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, next_size, next_unit in (
        (86_400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // next_size
            return f"{whole // size} {unit}" + (f" {rest} {next_unit}" if rest else "")
    raise AssertionError(micros)


__all__ = ["StepTold", "cause_of", "confidence", "retrospective", "said", "span"]
