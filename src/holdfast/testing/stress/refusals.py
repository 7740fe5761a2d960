"""What a process knows alone: how many of its appends were refused as stale; a refusal leaves nothing in a log."""

from __future__ import annotations

import logging
from collections import Counter


class Refusals(logging.Handler):
    """Counts what `holdfast.fence` tells: refused appends, by the commands in them."""

    def __init__(self) -> None:
        super().__init__()
        self.by_site: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        """One refused append; its second argument names what it asked for."""
        assert isinstance(record.args, tuple)
        self.by_site[str(record.args[1])] += 1


def count_refusals() -> Refusals:
    """From now on, in this process."""
    refusals = Refusals()
    log = logging.getLogger("holdfast.fence")
    log.addHandler(refusals)
    log.setLevel(logging.INFO)
    log.propagate = False
    return refusals
