"""The path classes that the codec knows. `pathlib` takes 5 ms to import, and few programs log a path.

A path, or a hint that names one, exists only where somebody has imported `pathlib`.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

PATH_NAMES = ("Path", "PosixPath", "PurePosixPath", "PureWindowsPath", "WindowsPath")


def is_path(cls: Any) -> bool:
    """Whether this is one of the path classes themselves; their subclasses would not come back."""
    return "pathlib" in sys.modules and cls in _classes()


def make_path(name: str, text: str) -> Any:
    """The path with this text, of the class with this name."""
    import pathlib  # see above

    return getattr(pathlib, name)(text)


@functools.cache
def _classes() -> frozenset[type]:
    import pathlib  # see above

    return frozenset({pathlib.Path, pathlib.PurePosixPath, pathlib.PureWindowsPath, type(pathlib.Path())})
