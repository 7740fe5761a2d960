"""Measuring Holdfast on one's own machine and store: what `holdfast bench` runs.

`flows` are the workflows that are timed, `shapes` what is done with them, `floor` the price of the disk alone,
`measure` the turns of both, `report` the figures for people. Whatever is measured is durable: there is no other
mode.
"""

from .measure import Figure, measure
from .shapes import SHAPES, Shape

__all__ = ["SHAPES", "Figure", "Shape", "measure"]
