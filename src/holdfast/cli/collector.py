"""How often Python looks for garbage in a process whose work is to advance runs."""

import gc

_THRESHOLDS = (10_000, 10, 10)


def collect_rarely() -> None:
    """Set the garbage collector's thresholds for this process, which has no other work.

    With Python's own (700) 1,000 runs at once spend a tenth of their processor time in it, and the loop waits up
    to 0.1 s while it looks at all of them; with these a hundredth (`bench/RESULTS.md`).
    """
    gc.set_threshold(*_THRESHOLDS)
