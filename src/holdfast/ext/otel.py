"""Holdfast in OpenTelemetry: spans for starts, runs, ticks and attempts of steps, and every metric.

`instrument()` once in a process is all; needs the extra `otel`, which is the API of OpenTelemetry alone. Which SDK
exports what it makes, and where to, is the application's affair. `holdfast.tracing` says how spans hang together.

Example:
    from holdfast.ext import otel

    otel.instrument()
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from .. import metrics, tracing
from ..metrics.kinds import Histogram, Metric
from ..store.exposition import look_at_queues

try:
    from opentelemetry import context as contexts
    from opentelemetry import metrics as otel_metrics
    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as error:  # pragma: no cover
    raise ImportError("holdfast.ext.otel needs the extra `otel`: pip install 'holdfast[otel]'") from error

if TYPE_CHECKING:
    from ..client import App
    from ..tracing import Carrier

log = logging.getLogger("holdfast.otel")
_w3c = TraceContextTextMapPropagator()
_QUEUES = (metrics.QUEUE_LAG, metrics.QUEUE_WAITING, metrics.QUEUE_RUNNING)
_stop: Callable[[], None] | None = None


def instrument(
    app: App | None = None,
    *,
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: otel_metrics.MeterProvider | None = None,
) -> Callable[[], None]:
    """Trace and measure what Holdfast does in this process, from now on; call the result to stop.

    Without providers, the global ones are used. With `app`, an open one, its queues are measured too; each
    export tells what they were at the one before. Instrumenting again takes the place of what was.

    Example:
        async with hf.connect("sqlite:///app.db") as app:
            otel.instrument(app)
    """
    global _stop
    if _stop is not None:
        _stop()
    spans = _Spans(trace.get_tracer("holdfast", tracer_provider=tracer_provider))
    tracing.active = spans
    stop_metrics = _measure(app, otel_metrics.get_meter("holdfast", meter_provider=meter_provider))

    def stop() -> None:
        stop_metrics()
        if tracing.active is spans:
            tracing.active = None

    _stop = stop
    return stop


# ---- metrics


def _measure(app: App | None, meter: otel_metrics.Meter) -> Callable[[], None]:
    """Make an instrument of each metric; call the result to stop."""
    watch = _Watch(app)
    stops = [watch.stop]
    for metric in metrics.ALL:
        name, unit = f"holdfast.{metric.name}", "s" if metric.unit == "seconds" else "1"
        if isinstance(metric, Histogram):
            stops.append(metric.tell(meter.create_histogram(name, unit, metric.help).record))
        elif metric in _QUEUES and app is None:
            continue
        elif metric.kind == "counter":
            meter.create_observable_counter(name, [watch.observer(metric)], unit, metric.help)
        else:
            meter.create_observable_gauge(name, [watch.observer(metric)], unit, metric.help)

    def stop() -> None:
        for each in stops:
            each()

    return stop


class _Watch:
    """What instruments ask when they are read, in whatever thread. Queues are looked at on the app's loop."""

    def __init__(self, app: App | None) -> None:
        self._app = app
        self._on = True
        self._loop = None if app is None else asyncio.get_running_loop()
        self._looking: asyncio.Task[None] | None = None
        self._look_soon()

    def stop(self) -> None:
        """Say nothing any more: an instrument cannot be taken back."""
        self._on = False

    def observer(self, metric: Metric) -> Callable[[Any], Iterable[otel_metrics.Observation]]:
        """What tells a metric's numbers."""

        def observe(_options: Any) -> Iterable[otel_metrics.Observation]:
            if not self._on:
                return
            if metric is metrics.QUEUE_LAG:
                self._look_soon()
            for value, number in metric.read():
                yield otel_metrics.Observation(number, {metric.label: value} if metric.label else {})

        return observe

    def _look_soon(self) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has gone
                self._loop.call_soon_threadsafe(self._look)

    def _look(self) -> None:
        if self._app is not None and self._on and (self._looking is None or self._looking.done()):
            self._looking = asyncio.get_running_loop().create_task(look_at_queues(self._app.store))


# ---- traces


class _Starting:
    """A span for a start; one that is never `done` is never exported."""

    def __init__(self, span: trace.Span, carrier: Carrier) -> None:
        self._span = span
        self.carrier = carrier

    def done(self) -> None:
        """The run is there."""
        with _guarded():
            self._span.end()


class _Spans:
    """Makes the spans."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer

    def starting(self, workflow: str, run: str, parent: Carrier | None = None) -> _Starting:
        """A start, in the context of the caller or of the parent run."""
        carrier: dict[str, str] = {}
        span: trace.Span = trace.INVALID_SPAN
        with _guarded():
            context = None if parent is None else _context(parent)
            about = _about(run, workflow)
            span = self._tracer.start_span(f"start {workflow}", context, trace.SpanKind.PRODUCER, about)
            _w3c.inject(carrier, trace.set_span_in_context(span, Context()))
        return _Starting(span, carrier)

    def tick(self, workflow: str, run: str, carrier: Carrier, fact: str, key: str) -> Callable[[], None]:
        """A tick; never the current span."""
        with _guarded():
            about = _about(run, workflow, fact=fact, key=key)
            span = self._tracer.start_span(f"tick {workflow}", _context(carrier), attributes=about)
            return span.end
        return lambda: None

    def attempt(self, run: str, key: str, number: int, carrier: Carrier) -> Callable[[Any], None]:
        """An attempt of a step: the current span of the context in which this is called."""
        step = key.rpartition("#")[0]
        span: trace.Span = trace.INVALID_SPAN
        with _guarded():
            context, about = _context(carrier), _about(run, step=step, key=key, attempt=number)
            span = self._tracer.start_span(f"step {step}", context, trace.SpanKind.CONSUMER, about)
            contexts.attach(trace.set_span_in_context(span, context))

        def done(draft: Any) -> None:
            with _guarded():
                span.set_attribute("holdfast.outcome", draft.type.removeprefix("step_"))
                _end(span, draft.data)

        return done

    def ended(self, workflow: str, run: str, carrier: Carrier, times: tuple[int, int], end: Any) -> None:
        """A run, from its beginning to its end."""
        with _guarded():
            about = _about(run, workflow, status=end.type.removeprefix("run_"))
            began, ended = (time * 1000 for time in times)
            span = self._tracer.start_span(
                f"run {workflow}", _context(carrier), attributes=about, start_time=began
            )
            _end(span, end.data, ended)


def _end(span: trace.Span, data: Any, time: int | None = None) -> None:
    """End a span; of an error it tells the type alone, for messages may hold what is sealed in the log."""
    error = data.get("error")
    if isinstance(error, dict):
        span.set_attribute("error.type", str(error.get("type", "")))
        span.set_status(trace.StatusCode.ERROR, str(error.get("type", "")))
    span.end(time)


def _context(carrier: Carrier) -> Context:
    """The context of a run, and nothing of the one that is current here."""
    return _w3c.extract(carrier, Context())


def _about(run: str, workflow: str | None = None, **more: str | int) -> dict[str, str | int]:
    about: dict[str, str | int] = {"holdfast.run": run}
    if workflow is not None:
        about["holdfast.workflow"] = workflow
    return about | {f"holdfast.{name}": value for name, value in more.items()}


@contextlib.contextmanager
def _guarded() -> Any:
    """A defect of an exporter or sampler is logged; no run suffers from it."""
    try:
        yield
    except Exception:
        log.exception("a span could not be made")
