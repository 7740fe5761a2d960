"""`doctor`, `reconcile`: whether the files of a folder are in order, and putting them in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import output
from ..problem import NO
from .call import Call
from .words import Option, command

if TYPE_CHECKING:
    from ...trail.doctor import Reconciled

_REASONS = {"malformed": "malformed_json", "schema": "schema_violation", "io": "io_error"}
"""What the npm tool's users know the reasons as."""


@command(
    Option("--rebuild", "", "Make the index, and each trail's record and page, anew from the journals."),
    Option("--quarantine", "", "Move what cannot be read to invalid/, at the same relative path."),
    examples=["doctor", "doctor --rebuild --quarantine"],
    codes={
        0: "all is in order; with --rebuild or --quarantine: now it is",
        1: "something is wrong; each file is named, with the reason",
        2: "cannot: the folder cannot be read, or written",
    },
)
def doctor(call: Call, rebuild: bool = False, quarantine: bool = False) -> int:
    """Look for files that cannot be read or are out of order.

    Out of order is what a crash, git or another tool left half-done. Without an option nothing is
    changed, and a read-only folder will do.
    """
    from ...trail import doctor as care

    moved = care.quarantine(call.folder) if quarantine else []
    told = care.rebuild(call.folder) if rebuild else care.diagnose(call.folder)
    mends = not (rebuild or quarantine)
    wrong = bool(told.failures or (mends and told.mended))
    result = {
        **_as_json(told),
        "quarantined": [{"path": m.path, "movedTo": m.moved_to, "reason": m.reason} for m in moved],
    }
    lines = _failures(told.failures, call.program.npm)
    lines += [f"{line}" for line in told.mended] if not call.program.npm or told.mended else []
    if moved:
        lines += [f"{m.path} is moved to {m.moved_to}: {m.message}" for m in moved]
        where = call.folder.root / "invalid"
        lines.append(
            f"✓ Moved {len(moved)} file(s) to {where}" if call.program.npm else f"{len(moved)} moved"
        )
    if not lines:
        lines = ["No invalid trajectory files found." if call.program.npm else "all is in order"]
    call.answer(result, [output.clean(line) for line in lines])
    if wrong and not call.json:
        way = (
            "--rebuild puts it right" if not told.failures else "--quarantine moves away what cannot be read"
        )
        output.note(f"`{call.program.name} doctor {way.partition(' ')[0]}` {way.partition(' ')[2]}")
    return NO if wrong else 0


@command(
    examples=["reconcile --json"],
    codes={
        0: "done, and all could be read",
        1: "some files cannot be read; they are named",
        2: "cannot: the folder cannot be written",
    },
)
def reconcile(call: Call) -> int:
    """Read every file, put the index right, and count.

    What a crash left half-done is finished.
    """
    told = call.folder.reconcile()
    counts = (
        f"{told.scanned} scanned, {told.added} added, {told.already_indexed} already indexed, "
        f"{told.malformed} malformed, {told.schema} of another shape, {told.io} unreadable"
    )
    call.answer(_as_json(told), [counts, *told.mended, *_failures(told.failures, call.program.npm)])
    return NO if told.failures else 0


def _as_json(told: Reconciled) -> dict[str, Any]:
    return {
        "scanned": told.scanned,
        "added": told.added,
        "alreadyIndexed": told.already_indexed,
        "malformed": told.malformed,
        "schema": told.schema,
        "io": told.io,
        "failures": [{"path": f.path, "reason": f.reason, "message": f.message} for f in told.failures],
        "mended": list(told.mended),
    }


def _failures(failures: list[Any], npm: bool) -> list[str]:
    words = _REASONS if npm else {}
    return [output.clean(f"{f.path}: {words.get(f.reason, f.reason)}: {f.message}") for f in failures]
