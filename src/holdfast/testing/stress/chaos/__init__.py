"""Chaos: real workers and clients on one store, killed and paused at random times; then what must hold.

    report = await chaos(minutes=1, workers=3, seed="7")
    assert report.problems == []

`errands` are the runs, `client` is the program of a client, `trouble` what befalls everybody, `promises` what is
checked when it is over. The chance is seeded: who is hit by what, and after how long, follows from the seed;
what that leads to does not, for the machine has a say in it.
"""

from .promises import ChaosReport
from .trouble import KINDS, chaos

__all__ = ["KINDS", "ChaosReport", "chaos"]
