"""The kinds of metrics. Each has a name, a sentence on what it is, at most one label, and perhaps a unit."""

from __future__ import annotations

import collections
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import ClassVar


class Metric:
    """What all kinds have in common. `read()` gives (the label's value, the number) pairs."""

    kind: ClassVar[str]

    def __init__(self, name: str, help: str, label: str | None = None, *, unit: str = "") -> None:
        self.name = name
        self.help = help
        self.label = label
        self.unit = unit

    def read(self) -> Iterable[tuple[str, float]]:
        """Its numbers now; the label's value is empty where it has no label."""
        raise NotImplementedError

    @property
    def exported(self) -> str:
        """Its name in Prometheus."""
        unit = "_seconds" if self.unit == "seconds" else ""
        return f"holdfast_{self.name}{unit}{'_total' if self.kind == 'counter' else ''}"


class Counter(Metric):
    """A number that only grows: `counter.total += 1`."""

    kind = "counter"

    def __init__(self, name: str, help: str) -> None:
        super().__init__(name, help)
        self.total = 0

    def read(self) -> Iterable[tuple[str, float]]:
        """The number."""
        return [("", self.total)]


class Labelled(Metric):
    """A counter for each value of a label: `counter.totals["step"] += 1`, or `counter.totals.update(values)`."""

    kind = "counter"

    def __init__(self, name: str, help: str, label: str) -> None:
        super().__init__(name, help, label)
        self.totals: collections.Counter[str] = collections.Counter()

    def read(self) -> Iterable[tuple[str, float]]:
        """The numbers that are not zero."""
        return sorted(self.totals.copy().items())


class Part(Metric):
    """A counter that is some of another one's numbers, under names of its own; always all of them."""

    kind = "counter"

    def __init__(
        self, name: str, help: str, whole: Labelled, names: Mapping[str, str], *, label: str | None = None
    ) -> None:
        super().__init__(name, help, label)
        self._whole = whole
        self._names = names

    def read(self) -> Iterable[tuple[str, float]]:
        """The numbers, also those that are zero."""
        return [(ours, self._whole.totals.get(theirs, 0)) for theirs, ours in self._names.items()]


class Gauge(Metric):
    """A number that goes up and down: the sum of what its `sources` say, or, by label, what was `set` last."""

    kind = "gauge"

    def __init__(self, name: str, help: str, label: str | None = None, *, unit: str = "") -> None:
        super().__init__(name, help, label, unit=unit)
        self._sources: list[Callable[[], int]] = []
        self._set: dict[str, float] = {}

    def follow(self, source: Callable[[], int]) -> Callable[[], None]:
        """Count what `source` gives whenever somebody reads; call the result to stop."""
        self._sources.append(source)

        def stop() -> None:
            if source in self._sources:
                self._sources.remove(source)

        return stop

    def set(self, numbers: Mapping[str, float]) -> None:
        """The numbers from now on, by the label's value."""
        self._set = dict(numbers)

    def read(self) -> Iterable[tuple[str, float]]:
        """The numbers now."""
        if self.label is None:
            return [("", sum(source() for source in list(self._sources)))]
        return sorted(self._set.items())


class Histogram(Metric):
    """How often values fell between which bounds: `histogram.observe(0.002)`."""

    kind = "histogram"

    def __init__(self, name: str, help: str, *, bounds: Sequence[float], unit: str = "") -> None:
        super().__init__(name, help, unit=unit)
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum: float = 0
        self.observe: Callable[[float], None] = self._observe
        """Take a value."""

    def _observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def tell(self, listener: Callable[[float], None]) -> Callable[[], None]:
        """Give each value to `listener` too (an instrument of OpenTelemetry); call the result to stop."""

        def observe(value: float) -> None:
            self._observe(value)
            listener(value)

        def stop() -> None:
            self.observe = self._observe

        self.observe = observe
        return stop

    def read(self) -> Iterable[tuple[str, float]]:
        """How many values there were."""
        return [("", sum(self.counts))]
