"""Trails: the record of a piece of agent work, that no interleaving of writers can break.

    import holdfast as hf
    from holdfast.trail import TrailFolder

    with TrailFolder().start("Fix the login", agent="ana") as trail:
        with trail.chapter("Investigate"):
            trail.find("It fails for names with a quote")
        trail.complete(summary="Names are quoted now", confidence=0.9)

`hf.trail.chapter`, `note`, `find`, `decide` and `reflect` tell the same from inside a workflow: there they are
commands of the run's log, of which the recorder makes a trail.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .inside import chapter, decide, find, note, reflect

if TYPE_CHECKING:
    from ..errors import TrailBroken, TrailEnded, TrailError, TrailIdError, TrailLocked, TrailNotFound
    from .folder import TrailFolder
    from .handle import OpenChapter, OpenTrail
    from .model import Alternative, Chapter, Decision, Event, Retrospective, Summary, Trail

_LATER = {
    "TrailFolder": ".folder",
    "OpenTrail": ".handle",
    "OpenChapter": ".handle",
    **dict.fromkeys(
        ("Agent", "Alternative", "Chapter", "Decision", "Event", "Retrospective", "Source"), ".model"
    ),
    **dict.fromkeys(("Summary", "Task", "Trail"), ".model"),
    **dict.fromkeys(
        ("TrailBroken", "TrailEnded", "TrailError", "TrailIdError", "TrailLocked", "TrailNotFound"),
        "..errors",
    ),
}
"""Names that workflow code does not need, and where they are: imported when first used."""


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(_LATER[name], __name__), name)
    raise AttributeError(f"module 'holdfast.trail' has no attribute {name!r}")


__all__ = [
    "Alternative",
    "Chapter",
    "Decision",
    "Event",
    "OpenChapter",
    "OpenTrail",
    "Retrospective",
    "Summary",
    "Trail",
    "TrailBroken",
    "TrailEnded",
    "TrailError",
    "TrailFolder",
    "TrailIdError",
    "TrailLocked",
    "TrailNotFound",
    "chapter",
    "decide",
    "find",
    "note",
    "reflect",
]
