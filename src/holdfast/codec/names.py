"""How the log names a class, `module:qualname`, and how the class is found again."""

from __future__ import annotations

import functools
import importlib
import sys
from typing import Any


def main_name() -> str:
    """The name under which another process can import what is running as `__main__`."""
    main = sys.modules.get("__main__")
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if spec is not None:
        return str(spec.name)
    return _stem(file) if file else "__main__"


@functools.cache
def _stem(file: str) -> str:
    import pathlib  # takes 5 ms, for programs that define classes in their main script

    return pathlib.PurePath(file).stem


def class_name(cls: type) -> str:
    """The name of a class in the log: 'module:qualname'."""
    module = main_name() if cls.__module__ == "__main__" else cls.__module__
    return f"{module}:{cls.__qualname__}"


def find_class(name: str) -> type | None:
    """The class behind a name made by `class_name`; None if there is none. Imports its module."""
    module, _, path = name.partition(":")
    if not path:
        return None
    try:
        found: Any = sys.modules.get("__main__" if module == main_name() else module)
        found = found or importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except Exception:  # noqa: BLE001  a module may fail to import in any way
        return None
    return found if isinstance(found, type) else None
