"""`export`, `import`, `merge`: trails as documents, and trails of other folders and tools."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .. import output
from ..problem import NO, Problem
from .call import AGENT, SESSION, Call
from .words import Argument, Option, command, one_of

if TYPE_CHECKING:
    from pathlib import Path

    from ...trail.model import Trail

_DOCUMENTS = ("json", "md", "markdown", "timeline", "html")
"""`holdfast.trail.export.FORMATS`, told here so that `--help` need not import it; a test compares them."""
_OTHERS = ("atif", "agent-trace", "otel")
"""`holdfast.trail.formats.WRITTEN`, in the same way."""


@command(
    Argument(
        "TRAIL",
        "The trail's id. Without it: the one that a command would write to. With --layout: the folder to write.",
        needed=False,
    ),
    Option(
        "-f --format",
        "FORMAT",
        "json, md (without it), timeline or html; or for other tools: atif, agent-trace or otel.",
        read=one_of(*_DOCUMENTS, *_OTHERS),
    ),
    Option("-o --output", "FILE", "Write it there, not to stdout."),
    Option("--open", "", "Write it as html/<id>.html in the folder of trails, and show it in the browser."),
    Option(
        "--layout",
        "npm",
        "Write all trails (or that of --id) as the npm tool reads them.",
        read=one_of("npm"),
    ),
    Option("--id", "ID", "The same as TRAIL; with --layout, the only trail to write."),
    AGENT,
    SESSION,
    examples=[
        "export traj_k3j9x0a1b2c3 --format html --output trail.html",
        "export traj_k3j9x0a1b2c3 --format otel --output trace.json",
        "export --layout npm ../npm/.agentworkforce/trajectories",
    ],
    codes={
        0: "written",
        1: "with --layout: some could not be written; they are named",
        2: "cannot: no such trail, no commit that git knows, or a file that cannot be written",
    },
)
def export(
    call: Call,
    trail: str | None = None,
    format: str = "md",
    output: str | None = None,
    open: bool = False,
    layout: str | None = None,
) -> int:
    """Write a trail as a document, or all for the npm tool.

    A document has the same bytes on every machine. For other tools: atif is a dialogue in steps (Harbor),
    otel a trace of spans (OTLP/JSON), and agent-trace which lines of the code are from this work, as git in the
    current folder tells; what is not committed counts where the work ended at the commit that is checked out.
    With --layout npm, trails are written as the npm tool reads them, into a folder of its own; what it has
    changed there since the last time is imported first.
    """
    if layout is not None:
        return _export_npm(call, trail)
    from .which import known, which

    call.id = call.id if trail is None else trail
    if call.id is None and call.program.npm and not call.folder.list("active"):
        raise Problem(
            "no active trajectory and no ID provided", hint="`trail export ID`, as `trail list` shows it"
        )
    trail_id = which(call) if call.id is None else call.id
    folder = call.holds(trail_id)
    found = folder.load(known(folder, trail_id))
    if open and format == "md":
        format = "html"
    text = _text(found, format, folder.root)
    if output is None and not open:
        if call.json:
            return call.answer({"id": trail_id, "format": format, "text": text}, ())
        _out(text)
        return 0
    path = output or str(folder.root / "html" / f"{trail_id}.html")
    if output is None:
        (folder.root / "html").mkdir(exist_ok=True)
    _write(path, text)
    if open:
        _browse(path)
    told = f"✓ Exported to {path}" if call.program.npm else path
    return call.answer({"id": trail_id, "format": format, "output": path}, told)


def _text(trail: Trail, format: str, folder: Path) -> str:
    if format not in _OTHERS:
        from ...trail.export import export as document

        return document(trail, format)
    from ...errors import PayloadError
    from ...trail.formats import export as written

    try:
        return written(trail, format, without=folder)
    except PayloadError as error:
        raise Problem(str(error)) from None


def _out(text: str) -> None:
    output.data(text.removesuffix("\n"))


def _write(path: str, text: str) -> None:
    from ...trail.places import replace

    try:
        replace(path, text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise Problem(f"{path}: {os.strerror(error.errno or 0)}") from None


def _browse(path: str) -> None:
    import webbrowser
    from pathlib import Path

    if not webbrowser.open(Path(path).resolve().as_uri()):
        output.note(f"no browser to show {path}")


def _export_npm(call: Call, directory: str | None) -> int:
    from ...trail.npm import export_npm

    if directory is None:
        raise Problem("--layout npm needs a folder to write to", hint="`export --layout npm DIR`")
    done = export_npm(call.folder, directory, None if call.id is None else [call.id])
    result = {
        "output": directory,
        "written": done.written,
        "unchanged": done.unchanged,
        "imported": done.imported,
    }
    line = f"{done.written} written, {done.unchanged} unchanged, {done.imported} imported first"
    return _told(call, result, done.failures, line)


@command(
    Argument(
        "PATH",
        "A folder of trails in any layout, or one file: a record, a journal, ATIF, or SWE-agent's .traj.",
        many=True,
    ),
    examples=[
        "import ../other/.agentworkforce/trajectories",
        "import traj_k3j9x0a1b2c3.json",
        "import trajectory.json django__django-11099.traj",
    ],
    codes={
        0: "taken in",
        1: "some files could not be read; they are named, and the others are taken in",
        2: "cannot: there is no such folder or file",
    },
)
def import_(call: Call, path: list[str]) -> int:
    """Take in the trails of another folder or tool.

    The npm tool's in any of its layouts, too; a file of another tool is known by what is in it. Keys that
    nobody knows are kept. Doing it again takes only what is new.
    """
    return _take_in(call, path, foreign=True)


@command(
    Argument(
        "PATH", "A folder of trails, or a journal (<id>.jsonl): another copy of one that is here.", many=True
    ),
    examples=["merge ../other-branch/.trajectories", "merge traj_k3j9x0a1b2c3.jsonl"],
    codes={
        0: "merged; nothing was lost and nothing is there twice",
        1: "some files could not be read; they are named, and the others are merged",
        2: "cannot: there is no such folder or file",
    },
)
def merge(call: Call, path: list[str]) -> int:
    """Merge other copies of trails: the union of what they say."""
    return _take_in(call, path)


def _take_in(call: Call, paths: list[str], *, foreign: bool = False) -> int:
    from ...trail.formats.intake import import_file
    from ...trail.npm import import_folder

    counts = dict.fromkeys(("scanned", "added", "updated", "unchanged"), 0)
    failures: list[Any] = []
    for path in paths:
        done = (import_file(call.folder, path) if foreign else None) or import_folder(call.folder, path)
        counts = {key: count + getattr(done, key) for key, count in counts.items()}
        failures += done.failures
    line = f"{counts['added']} added, {counts['updated']} updated, {counts['unchanged']} unchanged"
    return _told(call, dict(counts), failures, line)


def _told(call: Call, result: dict[str, Any], failures: list[Any], line: str) -> int:
    result["failures"] = [{"path": f.path, "reason": f.reason, "message": f.message} for f in failures]
    call.answer(result, line)
    for failure in failures:
        output.note(output.clean(f"{failure.path}: {failure.reason}: {failure.message}"))
    return NO if failures else 0
