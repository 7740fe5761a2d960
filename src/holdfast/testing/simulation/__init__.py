"""Deterministic simulation: real workers and clients, one seed, a clock that jumps, and trouble of every kind.

from holdfast.testing.simulation import Scenario, Start, simulate

report = simulate(Scenario(starts=[Start(fulfil, (order,), "order-1")]), seed=7)
assert not report.problems, report.trace[-50:]

`shrink` makes the scenario of a seed that finds a problem small.
"""

from .faults import QUIET, Profile, profile
from .scenario import Report, Scenario, Start, simulate
from .shrink import Reduction, Shrunk, shrink
from .world import World

__all__ = [
    "QUIET",
    "Profile",
    "Reduction",
    "Report",
    "Scenario",
    "Shrunk",
    "Start",
    "World",
    "profile",
    "shrink",
    "simulate",
]
