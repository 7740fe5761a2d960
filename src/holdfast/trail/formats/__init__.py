"""Trails in the formats of other tools: what can be written, and what can be taken in.

| format | module | written | taken in | revision |
|---|---|---|---|---|
| `atif`, the trajectories of Harbor | `atif` | yes | yes | writes ATIF-v1.7, reads any ATIF-v1 |
| `otel`, spans of OpenTelemetry as OTLP/JSON | `otel` | yes | | semantic conventions 1.41 |
| `agent-trace`, which lines of code are from this work | `agent_trace` | yes | | Agent Trace 0.1.0 |
| `swe-agent`, its `.traj` files | `swe_agent` | | yes | SWE-agent 0.x and 1.x |

What is written is a pure function of the trail (for `agent-trace`: and of the repository), so the same trail
gives the same bytes everywhere. What is taken in gets ids that follow from what it says, so taking it in twice
is taking it in once. The documents that people read are in `holdfast.trail.export`.

The specifications are not ours, and nothing of them is copied: a module names the revision that it was written
against, and tests check what the specification's own validator checks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from ...codec import check_depth, too_deep
from ...errors import PayloadError
from .. import record
from ..model import Trail

__all__ = ["READ", "WRITTEN", "export", "recognise", "to_trail"]

WRITTEN = {"atif": "atif", "otel": "otel", "agent-trace": "agent_trace"}
"""The formats that `export` writes, and their modules; one is imported when it is needed."""
READ = {"atif": "atif", "swe-agent": "swe_agent"}
"""The formats that `to_trail` reads, and their modules."""

_LONE = re.compile("[\ud800-\udfff]")


def export(trail: Trail, format: str, *, repository: Path | None = None, without: Path | None = None) -> str:
    """The trail in one of `WRITTEN`: JSON that ends with a line feed, and can be written as UTF-8.

    Only `agent-trace` needs `repository`, a folder in the work tree that the trail's commits are in (the current
    one), and `without`, a folder whose files are no work: that of the trails. Halves of a surrogate pair, which
    strict readers refuse, become U+FFFD. Raises PayloadError for a format that is not known, and for
    `agent-trace` where git cannot tell what changed.

    Example:
        path.write_text(export(folder.load(id), "otel"), encoding="utf-8")
    """
    if format not in WRITTEN:
        raise PayloadError(f"format: expected one of {', '.join(WRITTEN)}, got {format!r:.80}")
    module = import_module(f"{__name__}.{WRITTEN[format]}")
    code = {"repository": repository, "without": without} if format == "agent-trace" else {}
    data = module.of_trail(trail, **code)
    return _LONE.sub("\ufffd", json.dumps(data, ensure_ascii=False, allow_nan=False, indent=2)) + "\n"


def recognise(data: Any) -> str | None:
    """Which of `READ` this JSON data is in, as far as its top level tells; None for others, such as records."""
    if not isinstance(data, dict):
        return None
    if str(data.get("schema_version", "")).startswith("ATIF-"):
        return "atif"
    if "trajectory" in data and ("info" in data or "history" in data) and "version" not in data:
        return "swe-agent"
    return None


def to_trail(data: Any, *, when: datetime | None = None) -> Trail:
    """The trail that JSON data in one of `READ` tells.

    `when` is the time of what has none in the data: that of the file, say; without it, the epoch. Raises
    PayloadError: expected, got and path.

    Example:
        trail = to_trail(json.loads(path.read_text()))
    """
    format = recognise(data)
    if format is None:
        raise PayloadError(f"data: expected one of {', '.join(READ)}, got {type(data).__name__}")
    read: Callable[..., Trail] = import_module(f"{__name__}.{READ[format]}").to_trail
    try:
        check_depth(record.dump(data), format)
        return read(data, when=when)
    except RecursionError:
        raise too_deep(format) from None
