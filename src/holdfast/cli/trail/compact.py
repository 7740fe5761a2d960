"""`compact`: many ended trails as one record of what they decided, learnt and found."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from .. import output as out
from ..problem import CANNOT, NO, Problem
from .call import Call
from .words import Option, comma_list, command, instant, number

if TYPE_CHECKING:
    from ...trail.git import Commit
    from ...trail.sources import Discarded, Selection


@command(
    Option("--since", "WHEN", "Trails that started since: 7d, 2w, 1m, 3h or a date.", read=instant),
    Option("--until", "WHEN", "Trails that started until then.", read=instant),
    Option("--ids", "ID,ID", "These trails, also those that were compacted before.", read=comma_list),
    Option("--workflow", "ID", "All trails of this workflow, into workflow-<ID>.json."),
    Option("--branch", "NAME", "Trails with a commit that this branch has not, such as main."),
    Option("--commits", "REV,REV", "Trails with one of these commits; A..B names several.", read=comma_list),
    Option(
        "--pr",
        "NUMBER",
        "Trails of this pull request: by their title ('#7'), or its merge in git.",
        read=number,
    ),
    Option("--all", "", "Also trails that were compacted before."),
    Option("--focus", "NAME,NAME", "Categories of decisions that come first.", read=comma_list),
    Option("--output", "FILE", "Write it there, not into compacted/ in the folder of trails."),
    Option("--markdown", "", "Write a page to read beside it, as without this."),
    Option("--no-markdown", "", "Write the record alone."),
    Option("--discard-sources", "", "Then remove the trails, once the compaction is on the disk."),
    Option("--dry-run", "", "Write nothing; say what would be done."),
    Option("--mechanical --no-llm", "", "Without a model, as always."),
    Option("--llm", "", "Refused: no model is run."),
    examples=["compact --since 7d", "compact --branch main --dry-run", "compact --workflow wf-1"],
    codes={
        0: "written, or there was nothing to compact",
        1: "some trails cannot be read, or were written to meanwhile; they are named, and stay",
        2: "cannot: no such trail, commit or branch, or a file that cannot be written",
    },
)
def compact(
    call: Call,
    llm: bool = False,
    focus: list[str] | None = None,
    output: str | None = None,
    no_markdown: bool = False,
    discard_sources: bool = False,
    dry_run: bool = False,
    **wish: Any,
) -> int:
    """Fold ended trails into one record.

    What completed and abandoned trails decided (by category), learnt and found, each once; no model is asked.
    Without an option, all trails that were not compacted yet.
    """
    from ...trail import sources
    from ...trail.compact import compact as fold
    from ...trail.compact import write
    from ...trail.record import to_record

    if llm:
        raise Problem(
            "no model is ever run by `compact`", hint="without --llm, it compacts by rules", code=CANNOT
        )
    selection = _selected(call, wish)
    if not selection.chosen:
        return _nothing(call, selection, wish)
    compacted = fold(selection.trails, at=_now(call), workflow_id=wish.get("workflow"), focus=focus or ())
    paths: list[str] = []
    gone = sources.Discarded()
    if not dry_run:
        paths = write(call.folder, compacted, output=output, markdown=not no_markdown)
        if discard_sources:
            gone = sources.discard(call.folder, selection.chosen)
    result = {
        "dryRun": dry_run,
        "paths": paths,
        "discarded": _counts(gone) if discard_sources and not dry_run else None,
        "kept": list(gone.kept),
        "broken": selection.broken,
        "compacted": to_record(compacted),
    }
    call.answer(result, _lines(result))
    for trail_id in gone.kept:
        out.note(f"{trail_id} was written to meanwhile, and stays")
    return _warned(selection) or (NO if gone.kept else 0)


def _selected(call: Call, wish: dict[str, Any]) -> Selection:
    from ...trail import sources

    for name in ("ids", "commits"):
        if wish.get(name) == []:
            raise Problem(f"--{name}: expected names with commas between them, got none")
    return sources.select(
        call.folder,
        since=wish.get("since"),
        until=wish.get("until"),
        named=wish.get("ids") or (),
        workflow=wish.get("workflow"),
        commits=_commits(wish),
        pull_request=wish.get("pr"),
        again=wish.get("all", False),
    )


def _commits(wish: dict[str, Any]) -> list[list[Commit]]:
    from ...trail import sources

    told = [sources.of_branch(wish["branch"])] if "branch" in wish else []
    return told + ([sources.of_commits(wish["commits"])] if "commits" in wish else [])


def _now(call: Call) -> datetime:
    from ...clock import to_datetime

    return to_datetime(call.folder.now())


def _nothing(call: Call, selection: Selection, wish: dict[str, Any]) -> int:
    narrow = bool(wish.keys() - {"markdown", "mechanical"})
    result: dict[str, Any] = {"paths": [], "compacted": None, "broken": selection.broken, "narrow": narrow}
    call.answer(result, "no ended trail is as asked" if narrow else "no ended trail is left to compact")
    return _warned(selection)


def _warned(selection: Selection) -> int:
    for trail_id, reason in selection.broken.items():
        out.note(out.clean(f"{trail_id}: {reason}"))
    return NO if selection.broken else 0


def _lines(result: dict[str, Any]) -> list[str]:
    from ...trail.export.text import count

    told = result["compacted"]
    groups = ", ".join(f"{group['category']} {len(group['decisions'])}" for group in told["decisionGroups"])
    trails = count(len(told["sourceTrajectories"]), "trail")
    lines = [
        f"would compact {trails}" if result["dryRun"] else f"compacted {trails}",
        f"decisions: {groups or 'none'}",
        f"learnings: {len(told['keyLearnings'])}, findings: {len(told['keyFindings'])}",
    ]
    lines += [out.clean(path) for path in result["paths"]]
    if result["dryRun"]:
        lines += [out.clean(f"{source['id']} {source['title']}") for source in told["sources"]]
    if result["discarded"] is not None:
        lines.append(f"discarded {', '.join(f'{n} {name}' for name, n in result['discarded'].items())}")
    return lines


def _counts(gone: Discarded) -> dict[str, int]:
    told = gone._asdict()
    del told["kept"]
    return told
