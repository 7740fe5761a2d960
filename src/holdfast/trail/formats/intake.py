"""Taking a file of another tool into a folder of trails."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ...errors import PayloadError, TrailBroken, TrailNotFound
from .. import record, retell
from ..examine import Failure
from ..npm import Imported
from . import recognise, to_trail

if TYPE_CHECKING:
    from ..folder import TrailFolder
    from ..model import Trail

_SIGNS = (b'"schema_version"', b'"trajectory"')
"""What stands in every file of `READ`: a large record without them is not parsed to learn that it is none."""


def import_file(folder: TrailFolder, path: str | os.PathLike[str]) -> Imported | None:
    """Take in a file that is in one of `formats.READ`, as its content tells; None for what is in none of them.

    What we have already is not taken again, also where the file has grown. A file that is in a format, but does
    not fit it, is reported as a failure. Raises TrailError where our folder cannot be written.

    Example:
        import_file(folder, "django__django-11099.traj")
    """
    path = os.path.abspath(os.path.expanduser(os.fspath(path)))
    try:
        if not os.path.isfile(path):
            return None
        with open(path, "rb") as file:
            text = file.read()
            when = datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, UTC)
    except (OSError, OverflowError):
        return None  # whoever reads it as a trail says why it cannot be read
    if not any(sign in text for sign in _SIGNS):
        return None
    try:
        data = record.parse(text)
        format = recognise(data)
        if format is None:
            return None
    except PayloadError:
        return None
    try:
        trail = to_trail(data, when=when)
        there, added = _absorb(folder, trail, format)
    except (PayloadError, TrailBroken) as error:
        failure = Failure(path=os.path.basename(path), reason="schema", message=str(error))
        return Imported(scanned=1, failures=[failure])
    return Imported(
        scanned=1, added=int(not there), updated=int(there and added > 0), unchanged=int(there and not added)
    )


def _absorb(folder: TrailFolder, trail: Trail, format: str) -> tuple[bool, int]:
    """Whether the trail was there, and how many entries were new."""
    try:
        ours = folder.entries(trail.id)
    except TrailNotFound:
        return False, folder.absorb(trail.id, retell.entries_of(trail, origin=format))
    return True, folder.absorb(trail.id, retell.new_in(trail, ours, origin=format))
