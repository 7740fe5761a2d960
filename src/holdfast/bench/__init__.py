"""Measuring Holdfast on one's own machine and store: what `holdfast bench` runs.

`shape` says what a shape is and `shapes` which there are (`flows` are the workflows of most of them; `streams` and
`apart`, with another process, bring their own). `place` is where they are timed, `floor` the price of the disk
alone, `measure` the turns of both, `report` the figures for people. Whatever is measured is durable: there is no
other mode.
"""

from .measure import Figure, Order, measure
from .place import KINDS
from .shape import Shape
from .shapes import SHAPES

__all__ = ["KINDS", "SHAPES", "Figure", "Order", "Shape", "measure"]
