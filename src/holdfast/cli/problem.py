"""What goes wrong, as people are told: one line, a hint where there is a remedy, an exit code."""

from __future__ import annotations

from collections.abc import Iterable

NO, CANNOT, TIMED_OUT, INTERRUPTED = 1, 2, 3, 130
"""Exit codes beside 0: the answer is no, it cannot be done (or was asked wrongly), time is up, Ctrl-C."""


class Problem(Exception):
    """Ends the command: `error: …`, perhaps `hint: …`, and the exit code."""

    def __init__(self, message: str, *, hint: str = "", code: int = CANNOT) -> None:
        super().__init__(message)
        self.hint = hint
        self.code = code


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """'did you mean fulfil?', or '' where nothing is near."""
    import difflib

    names = list(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    near += [other for other in names if name and other.startswith(name) and other not in near][:3]
    return f"did you mean {' or '.join(near[:3])}?" if near else ""
