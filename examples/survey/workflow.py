"""The durable part: what happens in which order, and what is waited for.

    holdfast worker examples.survey.workflow
    holdfast start examples.survey.workflow:survey '"."'

Kill the worker whenever you like and start another one: steps that had finished are not run again.
"""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import holdfast as hf

from . import files, history, prose, report, structure
from .effects import announce
from .findings import Approval, Finding, Findings, History, Listing, Prose, Structure

Read = TypeVar("Read", History, Structure, Prose)


@dataclass
class Outcome:
    """What a survey comes to: the report's path, or None where nobody approved it."""

    report: str | None
    approved_by: str
    findings: int


@hf.step
def list_files(folder: str) -> Listing:
    announce()
    return files.count(folder)


@hf.step
def read_history(folder: str) -> History:
    announce()
    return history.read(folder)


@hf.step
def read_structure(folder: str) -> Structure:
    announce(gate=True)
    return structure.read(folder)


@hf.step
def read_prose(folder: str) -> Prose:
    announce(gate=True)
    return prose.read(folder)


@hf.step
def write_report(findings: Findings, approval: Approval) -> str:
    announce()
    return report.write(hf.step_info().run_id, findings, approval)


async def by(agent: str, title: str, work: Awaitable[Read]) -> Read:
    """One agent's part, as a chapter of the run's trail; the agents work side by side."""
    async with hf.trail.chapter(title, agent=agent):
        result = await work
        tell(result.findings)
    return result


def tell(findings: list[Finding], most: int = 3) -> None:
    for finding in findings[:most]:
        hf.trail.find(finding.text, raw={"files": finding.files} if finding.files else None)


@hf.workflow
async def survey(folder: str) -> Outcome:
    run_id = hf.run_info().run_id
    listing = await list_files(folder)
    past, shape, words = await asyncio.gather(
        by("historian", "Read the history", read_history(folder)),
        by("architect", "Read the structure", read_structure(folder)),
        by("editor", "Read the prose", read_prose(folder)),
    )
    with hf.trail.chapter("Put it together"):
        findings = report.merge(folder, listing, past, shape, words)  # plain Python: no I/O, so no step
        tell(findings.together)
    hf.set_attributes(stage="waiting for approval")
    question = {"question": "Write the report?", "findings": len(findings.all)}
    async with hf.hook(f"approve:{run_id}", type=Approval, metadata=question) as approval:
        try:
            async with asyncio.timeout(timedelta(days=3).total_seconds()):
                answer = await approval
        except TimeoutError:
            answer = Approval(approved=False, by="nobody", note="no answer within three days")
    decision = "yes" if answer.approved else "no"
    hf.trail.decide("Write the report?", decision, reasoning=answer.note, agent=answer.by or "somebody")
    if not answer.approved:
        hf.set_attributes(stage="declined")
        return Outcome(None, answer.by, len(findings.all))
    path = await write_report(findings, answer)
    hf.set_attributes(stage="written")
    return Outcome(path, answer.by, len(findings.all))
