"""The disk of a chaos: a small one of its own where mounting is allowed, so that it can be filled to the brim."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

_SIZE = "48m"


class Disk:
    """Where the store is. `full` lets it run out of space."""

    def __init__(self, folder: Path, marker: Path, *, mounted: bool) -> None:
        self.folder = folder
        self.mounted = mounted
        self._marker = marker
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Let nothing more fit."""
        if not self.mounted:
            self._marker.touch()
            return
        with self._ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(1 << 16)):
                pass

    def free(self) -> None:
        """Give the space back."""
        self._marker.unlink(missing_ok=True)
        self._ballast.unlink(missing_ok=True)


@contextlib.contextmanager
def disk_of(folder: Path, *, small: bool) -> Iterator[Disk]:
    """A disk in a folder; without `small`, or where mounting is not allowed, that of the folder."""
    place = folder / "disk"
    place.mkdir()
    mounted = small and _ran("mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs", str(place))
    try:
        yield Disk(place, folder / "disk-full", mounted=mounted)
    finally:
        if mounted:
            _ran("umount", "-l", str(place))


def _ran(*words: str) -> bool:
    try:
        return subprocess.run(words, capture_output=True, check=False).returncode == 0
    except OSError:
        return False
