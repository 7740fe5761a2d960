"""Putting the three together, and writing the report. `merge` is pure, so the workflow calls it directly."""

from pathlib import Path

from .effects import FOLDER
from .findings import Approval, Finding, Findings, History, Listing, Prose, Structure
from .history import DAYS


def merge(folder: str, listing: Listing, history: History, structure: Structure, prose: Prose) -> Findings:
    """What the agents know together that none of them knows alone."""
    return Findings(folder, listing, history, structure, prose, _together(history, structure, prose))


def _together(history: History, structure: Structure, prose: Prose) -> list[Finding]:
    findings = []
    both = {f: n * structure.paths[f] for f, n in history.changes.items() if n > 1 and f in structure.paths}
    risky = sorted(both, key=lambda file: (-both[file], file))[:3]
    if risky:
        names = ", ".join(
            f"{file} (changed {history.changes[file]} times, {structure.paths[file]} ways through it)"
            for file in risky
        )
        findings.append(Finding(f"Most likely to hold the next bug, often changed and hard: {names}.", risky))
    if structure.lines and prose.words:
        share = prose.words / structure.lines
        findings.append(Finding(f"For each line of code there are {share:.1f} words of documents."))
    return findings


def write(run_id: str, findings: Findings, approval: Approval) -> str:
    """Write the report and give its path. Written beside and renamed: a second attempt does no harm."""
    path = FOLDER / run_id / "report.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part")
    draft.write_text(render(findings, approval), "utf-8")
    draft.replace(path)
    return str(path)


def render(findings: Findings, approval: Approval) -> str:
    """The report as Markdown."""
    history, structure, prose = findings.history, findings.structure, findings.prose
    note = f" “{approval.note}”" if approval.note else ""
    parts = [
        f"# A survey of {Path(findings.folder).name or findings.folder}",
        f"{findings.listing.total} files looked at by three agents; approved by {approval.by}.{note}",
        _section("Seen together", findings.together),
        _section("History", history.findings),
        _weekdays(history),
        _section("Structure", structure.findings),
        _hardest(structure),
        _section("Prose", prose.findings),
        _documents(prose),
    ]
    if findings.listing.skipped:
        parts.append(f"*{findings.listing.skipped} files were left out: the folder is large.*")
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(title: str, findings: list[Finding]) -> str:
    if not findings:
        return ""
    return f"## {title}\n\n" + "\n".join(f"- {finding.text}" for finding in findings)


def _weekdays(history: History) -> str:
    most = max(history.weekdays)
    if not most:
        return ""
    rows = [
        f"{day} {'█' * round(20 * count / most) or '·'} {count}"
        for day, count in zip(DAYS, history.weekdays, strict=True)
    ]
    span = history.first if history.first == history.last else f"{history.first} to {history.last}"
    return f"Commits by day of the week, {span}:\n\n```\n" + "\n".join(rows) + "\n```"


def _hardest(structure: Structure) -> str:
    if not structure.hardest:
        return ""
    rows = [f"| `{f.name}` | {f.file}:{f.line} | {f.paths} | {f.lines} |" for f in structure.hardest]
    return "\n".join(["| function | where | ways | lines |", "|---|---|---:|---:|", *rows])


def _documents(prose: Prose) -> str:
    if not prose.documents:
        return ""
    rows = [
        f"| {d.file} | {d.words:,} | {d.headings} | {'' if d.ease is None else f'{d.ease:g}'} |"
        for d in prose.documents
    ]
    return "\n".join(["| document | words | headings | ease |", "|---|---:|---:|---:|", *rows])
