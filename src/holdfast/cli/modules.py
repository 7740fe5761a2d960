"""The user's modules: importing them by name or by path, and finding workflows in them.

They are imported with the current directory first. What a module prints while it is imported goes to stderr,
for stdout holds data. An error in it is told in one line, with the file and line that is the user's.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
import sysconfig
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

from ..workflow import Step, Workflow, workflows
from .problem import Problem, did_you_mean

_HOLDFAST = str(Path(__file__).parents[1])
_STDLIB = sysconfig.get_paths()["stdlib"]


def load(name: str) -> ModuleType:
    """Import a module by its dotted name or the path of its `.py` file."""
    _put_first(str(Path.cwd()))
    if name.endswith(".py") or os.sep in name:
        return _load_file(name)
    return _import(name)


def expect(name: str) -> None:
    """Raise Problem where there is no such module; nothing of it is imported."""
    _put_first(str(Path.cwd()))
    if name.endswith(".py") or os.sep in name:
        _file(name)
    else:
        _check_name(name)
        if importlib.util.find_spec(name.partition(".")[0]) is None:
            raise _missing(name)


def load_all(names: Sequence[str]) -> dict[str, Workflow[..., object]]:
    """Import modules; the workflows that they define, by name. There must be one at least."""
    found: dict[str, Workflow[..., object]] = {}
    for name in names:
        here = workflows_of(load(name))
        if not here:
            raise Problem(
                f"{name} defines no workflow", hint="a workflow is an `async def` under @hf.workflow"
            )
        found.update(here)
    return found


def workflows_of(module: ModuleType) -> dict[str, Workflow[..., object]]:
    """The workflows that a module defines or names; of a package, those of its imported modules too."""
    named = [value for value in vars(module).values() if isinstance(value, Workflow)]
    prefix = f"{module.__name__}."
    for name in workflows.names():
        known = workflows.get(name)
        if known is not None and f"{known.__module__}.".startswith(prefix):
            named.append(known)
    return {workflow.name: workflow for workflow in named}


def find_workflow(spec: str) -> Workflow[..., object]:
    """The workflow of MODULE:WORKFLOW; WORKFLOW may be left out where the module defines one only."""
    place, colon, name = spec.rpartition(":")
    if not colon:
        return _only_one(spec)
    module = load(place)
    value: object = module
    for part in name.split("."):
        value = getattr(value, part, None)
    known = workflows_of(module)
    if isinstance(value, Workflow):
        return value
    if name in known:
        return known[name]
    if isinstance(value, Step):
        raise Problem(f"{spec} is a step, not a workflow", hint="call it from an @hf.workflow function")
    if callable(value):
        raise Problem(f"{spec} is a plain function", hint="put @hf.workflow above its `async def`")
    hint = did_you_mean(name, known) or (f"it defines {', '.join(known)}" if known else "")
    raise Problem(f"{place} has no workflow {name!r}", hint=hint or "it defines no workflow at all")


def _only_one(spec: str) -> Workflow[..., object]:
    known = list(load_all([spec]).values())
    if len(known) == 1:
        return known[0]
    names = ", ".join(f"{spec}:{workflow.name}" for workflow in known)
    raise Problem(f"{spec} defines {len(known)} workflows: name one", hint=names)


# ---- importing ---------------------------------------------------------------------------------------------


def _file(name: str) -> Path:
    path = Path(name).resolve()
    if not path.is_file():
        near = did_you_mean(path.name, [p.name for p in path.parent.glob("*.py")])
        raise Problem(f"no file {name}", hint=near)
    return path


def _load_file(name: str) -> ModuleType:
    path = _file(name)
    # The name under which other modules import it too, so that its classes have one name everywhere.
    parts, folder = [path.stem], path.parent
    if path.name == "__init__.py":
        parts, folder = [folder.name], folder.parent
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    if not all(part.isidentifier() for part in parts):
        raise Problem(f"{name} cannot be imported: {'.'.join(parts)!r} is no module name; rename it")
    if str(folder) not in sys.path:
        sys.path.insert(1, str(folder))
    module = _import(".".join(parts))
    there = getattr(module, "__file__", None)
    if there is None or Path(there).resolve() != path:
        raise Problem(f"{name} cannot be imported: {there or module.__name__} has its name; rename it")
    return module


def _import(name: str) -> ModuleType:
    _check_name(name)
    try:
        with _prints_to_stderr():
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            raise _missing(name) from error
        raise _broken(name, error) from error
    except (Exception, SystemExit) as error:
        raise _broken(name, error) from error


def _check_name(name: str) -> None:
    if not all(part.isidentifier() for part in name.split(".")):
        raise Problem(f"{name!r} is no module name", hint="give a dotted name or the path of a .py file")


def _missing(name: str) -> Problem:
    hint = did_you_mean(name, _modules_here())
    return Problem(f"no module {name!r} in the current directory or on the path", hint=hint)


def _modules_here() -> Iterator[str]:
    for path in Path().iterdir():
        if path.suffix == ".py" and path.stem.isidentifier():
            yield path.stem
        elif (path / "__init__.py").is_file():
            yield path.name


def _broken(name: str, error: BaseException) -> Problem:
    kind = type(error).__name__
    if isinstance(error, SyntaxError) and error.filename:
        return Problem(f"cannot import {name}: {error.filename}:{error.lineno}: {kind}: {error.msg}")
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<frozen")]
    own = [
        f for f in frames if not f.filename.startswith((_HOLDFAST, _STDLIB)) and "-packages" not in f.filename
    ]
    place = f"{own[-1].filename}:{own[-1].lineno}: " if own else ""
    text = " ".join(str(error).split())
    return Problem(f"cannot import {name}: {place}{kind}" + (f": {text}" if text else ""))


def _put_first(folder: str) -> None:
    if not sys.path or sys.path[0] != folder:
        sys.path.insert(0, folder)


@contextlib.contextmanager
def _prints_to_stderr() -> Iterator[None]:
    with contextlib.redirect_stdout(sys.stderr):
        yield
