"""Metrics as Prometheus reads them (its text format, version 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate

from .kinds import Histogram, Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""What HTTP says of it."""


def text(metrics: Iterable[Metric] | None = None) -> str:
    """All metrics of this process, or these, as Prometheus reads them.

    Example:
        print(metrics.text())
    """
    if metrics is None:
        from . import ALL

        metrics = ALL
    return "".join(line + "\n" for metric in metrics for line in _lines(metric))


def _lines(metric: Metric) -> Iterator[str]:
    name = metric.exported
    yield f"# HELP {name} {_escaped(metric.help)}"
    yield f"# TYPE {name} {metric.kind}"
    if isinstance(metric, Histogram):
        yield from _histogram(name, metric)
        return
    for value, number in metric.read():
        label = f'{{{metric.label}="{_quoted(value)}"}}' if metric.label else ""
        yield f"{name}{label} {number}"


def _histogram(name: str, metric: Histogram) -> Iterator[str]:
    *below, total = accumulate(metric.counts)
    for bound, count in zip(metric.bounds, below, strict=True):
        yield f'{name}_bucket{{le="{float(bound)!r}"}} {count}'
    yield f'{name}_bucket{{le="+Inf"}} {total}'
    yield f"{name}_sum {metric.sum}"
    yield f"{name}_count {total}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _quoted(text: str) -> str:
    # Names of queues are text of people's own: a lone surrogate has no bytes.
    return _escaped(text).replace('"', r"\"").encode("utf-8", "replace").decode()
