"""How a command ends, whatever happens in it: an exit code, and at most two lines that say what went wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from . import output
from .problem import INTERRUPTED, NO, Problem


def guarded(action: Callable[[], object], usage: Callable[[Exception], Problem | None] | None = None) -> int:
    """Do it; returns the exit code. `usage` knows the errors of whatever parsed the arguments."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show a letter
    try:
        code = action()
        sys.stdout.flush()
    except BrokenPipeError:  # `holdfast events … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NO
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - whatever it is, people get one line
        problem = (usage(error) if usage is not None else None) or _as_problem(error)
        if os.environ.get("HOLDFAST_DEBUG") == "1":
            import traceback

            traceback.print_exception(error)
        sys.stdout.flush()
        tell(problem)
        return problem.code
    return code if isinstance(code, int) else 0


def tell(problem: Problem) -> None:
    """The line `error: …`, and the line `hint: …`."""
    red, cyan = output.paint("error:", "red", sys.stderr), output.paint("hint:", "cyan", sys.stderr)
    output.note(f"{red} {output.clean(problem)}")
    if problem.hint:
        output.note(f"{cyan} {output.clean(problem.hint)}")


def _as_problem(error: Exception) -> Problem:
    if isinstance(error, Problem):
        return error
    from ..errors import DeliveryConflict, HoldfastError, RunEnded, RunExists, TrailEnded

    if isinstance(error, RunEnded | RunExists | DeliveryConflict | TrailEnded):
        return Problem(str(error), code=NO)
    if isinstance(error, HoldfastError):
        return Problem(str(error))
    if isinstance(error, OSError):
        return Problem(str(error))
    import traceback

    where = traceback.extract_tb(error.__traceback__)[-1]
    return Problem(
        f"holdfast itself failed: {type(error).__name__}: {error} ({where.filename}:{where.lineno})",
        hint="this is a defect of Holdfast; HOLDFAST_DEBUG=1 shows the whole traceback",
    )
