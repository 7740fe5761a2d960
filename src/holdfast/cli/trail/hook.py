"""`enable`, `disable`: the hook by which each commit names its trail."""

from __future__ import annotations

from ..problem import CANNOT
from .call import Call
from .words import Option, command

_CODES = {0: "it is so now, or was already", CANNOT: "cannot: no git repository, or another's hook"}


@command(
    Option("--force", "", "Keep another's hook, and call it first; `disable` puts it back."),
    examples=["enable", "enable --force"],
    codes=_CODES,
)
def enable(call: Call, force: bool = False) -> int:
    """Have each commit name its trail.

    Installs git hooks (prepare-commit-msg and commit-msg) that add a line `Trajectory: <id>` to the message:
    of $TRAJECTORIES_ID, else of the active trail of $TRAJECTORIES_SESSION or $TRAJECTORIES_AGENT, else of the
    one that was resumed or written to last. They stop no commit, and leave merges, rebases and amended commits
    alone.
    """
    from ...trail import githook

    new = githook.enable(force=force, data_dir=call.data_dir)
    result = {"enabled": True, "changed": new}
    return call.answer(
        result, "each commit names its trail now" if new else "each commit names its trail already"
    )


@command(examples=["disable"], codes=_CODES)
def disable(call: Call) -> int:
    """Have commits name their trails no more.

    Removes the git hooks, and puts back what was there before.
    """
    from ...trail import githook

    gone = githook.disable()
    result = {"enabled": False, "changed": gone}
    return call.answer(
        result, "commits name no trail now" if gone else "commits name no trail: there is no hook"
    )
