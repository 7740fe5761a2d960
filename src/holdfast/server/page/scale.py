"""Where an instant stands on the timeline, as a share of its width.

Runs work for milliseconds and wait for days. Drawn to scale, all work would be one line at the left edge. So
stretches in which no step runs are drawn short, with a break; what is between them is to scale. With
`skip=False` everything is to scale.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from .spans import Spans

_WIDEST = 1 / 8
"""What one idle stretch may take, as a share of the time at work."""
_ALL = 0.6
"""What all of them together may take, likewise."""
TICKS = 5


class Scale:
    """From instants (microseconds) to percent of the width. `breaks` are the places of the shortened stretches."""

    def __init__(self, spans: Spans, now: int, *, skip: bool = True) -> None:
        self.first = spans.start
        self.last = max(spans.end if spans.end is not None else now, spans.last, spans.start + 1)
        idle, busy = list(spans.idle), spans.busy
        if spans.end is None and self.last > spans.last:
            if spans.at_work:
                busy += self.last - spans.last
            else:
                idle.append((spans.last, self.last))
        self._real, self._drawn, self.breaks = _knots(
            self.first, self.last, _shortened(idle, busy) if skip else ([], 0.0)
        )

    def at(self, time: int) -> float:
        """The share of the width, in percent: 0 to 100."""
        if time <= self.first:
            return 0.0
        if time >= self.last:
            return 100.0
        place = bisect_right(self._real, time) - 1
        left, right = self._real[place], self._real[place + 1]
        begin, finish = self._drawn[place], self._drawn[place + 1]
        return begin + (finish - begin) * (time - left) / max(right - left, 1)

    def time(self, percent: float) -> int:
        """The instant that stands at this share of the width."""
        place = min(bisect_right(self._drawn, percent), len(self._drawn) - 1) - 1
        begin, finish = self._drawn[place], self._drawn[place + 1]
        share = 0.0 if finish <= begin else (percent - begin) / (finish - begin)
        return round(self._real[place] + share * (self._real[place + 1] - self._real[place]))

    def ticks(self) -> list[tuple[float, int]]:
        """(percent, microseconds since the start) of the lines that help the eye."""
        places = [100 * number / (TICKS - 1) for number in range(TICKS)]
        return [(place, self.time(place) - self.first) for place in places]


def _shortened(idle: Sequence[tuple[int, int]], busy: int) -> tuple[list[tuple[int, int]], float]:
    """The stretches that are drawn short, and how long they are drawn."""
    if not busy:
        return [], 0.0
    longest = busy * _WIDEST
    found = [stretch for stretch in idle if stretch[1] - stretch[0] > longest]
    if len(found) * longest > busy * _ALL:
        longest = busy * _ALL / len(found)
    return found, longest


def _knots(
    first: int, last: int, shortened: tuple[Sequence[tuple[int, int]], float]
) -> tuple[list[int], list[float], list[tuple[float, float, int]]]:
    stretches, length = shortened
    real, drawn = [first], [0.0]
    for start, end in stretches:
        if start > real[-1]:
            drawn.append(drawn[-1] + start - real[-1])
            real.append(start)
        drawn.append(drawn[-1] + length)
        real.append(end)
    if last > real[-1] or len(real) == 1:
        drawn.append(drawn[-1] + max(last - real[-1], 1))
        real.append(max(last, real[-1] + 1))
    whole = drawn[-1] or 1.0
    drawn = [100 * place / whole for place in drawn]
    place_of = dict(zip(real, drawn, strict=True))
    return real, drawn, [(place_of[start], place_of[end], end - start) for start, end in stretches]
