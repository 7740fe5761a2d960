"""Traces hang together across runs, workers and replays, and workflow code sees nothing of them."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from patience import PATIENCE

import holdfast as hf
from holdfast import metrics, tracing
from holdfast.ext import otel

SEEN: dict[str, trace.SpanContext] = {}


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    stop = otel.instrument(tracer_provider=provider, meter_provider=MeterProvider())
    SEEN.clear()
    yield exporter
    stop()
    assert tracing.active is None


def current() -> trace.SpanContext:
    return trace.get_current_span().get_span_context()


@hf.step(name="traced.work", retries=1, backoff=0.001)
async def work(number: int) -> int:
    SEEN[f"work {number}"] = current()
    if number == 1 and hf.step_info().attempt == 1:
        raise ValueError("a secret")
    return number


@hf.step(name="traced.threaded")
def threaded() -> None:
    SEEN["threaded"] = current()


@hf.workflow(name="traced.child")
async def child() -> int:
    return await work(9)


@hf.workflow(name="traced.parent")
async def parent() -> int:
    SEEN["workflow"] = current()
    await work(1)
    await threaded()
    await child()
    return int(await hf.hook(f"traced:{hf.run_info().run_id}"))


def named(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.name == name]


def parent_of(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


async def test_a_run_is_one_trace_below_who_started_it(spans: InMemorySpanExporter, tmp_path: Path) -> None:
    """Two workers one after the other; the second replays, and makes no span for what the first has done."""
    ours = TracerProvider().get_tracer("application")
    async with hf.connect(f"sqlite:///{tmp_path}/t.db") as app:
        async with app.worker():
            with ours.start_as_current_span("request") as request:
                run = await app.start(parent)
            async with asyncio.timeout(PATIENCE):
                while not [hook async for hook in app.hooks(run=run.id)]:
                    await asyncio.sleep(0.005)
        before = len(spans.get_finished_spans())
        async with app.worker():
            await app.resume(f"traced:{run.id}", 7)
            assert await run.result() == 7
        after = [span.name for span in spans.get_finished_spans()[before:]]
        created = (await app.store.read(run.id, limit=1))[0].data
        log = await app.store.read(run.id)
    assert after == ["run traced.parent"]  # the payload was there when it read the log
    [start], [whole] = named(spans, "start traced.parent"), named(spans, "run traced.parent")
    assert start.context is not None
    assert parent_of(start) == request.get_span_context().span_id
    ids = f"00-{start.context.trace_id:032x}-{start.context.span_id:016x}-"
    assert created["traceparent"].startswith(ids)
    assert {span.context.trace_id for span in spans.get_finished_spans() if span.context} == {
        request.get_span_context().trace_id
    }
    children = [*named(spans, "step traced.threaded"), *named(spans, "tick traced.parent"), whole]
    assert {parent_of(span) for span in children} == {start.context.span_id}
    # The child hangs below its parent's start, and its own steps below its own.
    [start_child] = named(spans, "start traced.child")
    assert start_child.context is not None
    assert parent_of(start_child) == start.context.span_id
    [nine] = [s for s in named(spans, "step traced.work") if parent_of(s) == start_child.context.span_id]
    assert SEEN["work 9"].span_id == (nine.context and nine.context.span_id)
    # Attempts: one failed, one did not, and the error says its type alone.
    first, second = [s for s in named(spans, "step traced.work") if s is not nine]
    assert first.attributes is not None
    assert second.attributes is not None
    assert (first.attributes["holdfast.attempt"], second.attributes["holdfast.attempt"]) == (1, 2)
    assert first.attributes["error.type"] == "ValueError"
    assert (first.status.is_ok, second.status.is_ok) == (False, True)
    assert "secret" not in "".join(span.to_json() for span in spans.get_finished_spans())
    # The run's span has the times of its log.
    assert (whole.start_time, whole.attributes and whole.attributes["holdfast.run"]) == (
        log[0].time * 1000,
        run.id,
    )
    assert len(named(spans, "tick traced.parent")) == sum(event.cls == "fact" for event in log)
    # Bodies see their span, in threads too; the code of the workflow sees none, not even the caller's.
    assert SEEN["threaded"].span_id in {s.context.span_id for s in children if s.context}
    assert not SEEN["workflow"].is_valid


@hf.step(name="traced.queued", queue=hf.Queue("traced"))
async def queued() -> None:
    SEEN["queued"] = current()


@hf.workflow(name="traced.queueing")
async def queueing() -> None:
    await queued()


async def test_a_step_at_another_worker_continues_the_trace(
    spans: InMemorySpanExporter, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/t.db"
    async with hf.connect(url) as app, hf.connect(url) as other, app.worker(queues=[]):
        async with other.worker(runs=False):
            run = await app.start(queueing)
            await run.result(PATIENCE)
        created = (await app.store.read(run.id, limit=1))[0].data
    [step] = named(spans, "step traced.queued")
    context = TraceContextTextMapPropagator().extract({"traceparent": created["traceparent"]})
    assert parent_of(step) == trace.get_current_span(context).get_span_context().span_id
    assert SEEN["queued"].span_id == (step.context and step.context.span_id)


@hf.workflow(name="traced.patient")
async def patient() -> int:
    return int(await hf.hook("traced:patient"))


@hf.workflow(name="traced.waiting")
async def waiting() -> int:
    return await patient()


async def test_who_takes_up_a_parent_starts_its_child_no_second_time(
    spans: InMemorySpanExporter, tmp_path: Path
) -> None:
    async with hf.connect(f"sqlite:///{tmp_path}/t.db") as app:
        async with app.worker():
            run = await app.start(waiting)
            async with asyncio.timeout(PATIENCE):
                while not [hook async for hook in app.hooks(token="traced:patient")]:
                    await asyncio.sleep(0.005)
        await run.wake()  # so that the next worker has a reason to read the parent's log
        async with app.worker():
            await app.resume("traced:patient", 7)
            assert await run.result() == 7
    assert len(named(spans, "start traced.patient")) == 1
    assert len(named(spans, "run traced.patient")) == 1


async def test_starting_again_makes_no_second_start(spans: InMemorySpanExporter) -> None:
    async with hf.connect("memory://") as app, app.worker():
        for _ in range(2):
            await (await app.start(child, run_id="one")).result()
    assert len(named(spans, "start traced.child")) == len(named(spans, "run traced.child")) == 1


async def test_a_run_that_was_started_without_a_trace_has_one_by_its_id(tmp_path: Path) -> None:
    async with hf.connect(f"sqlite:///{tmp_path}/t.db") as app:
        run = await app.start(child)  # not instrumented
        created = (await app.store.read(run.id, limit=1))[0].data
        assert "traceparent" not in created
        exporter, provider = InMemorySpanExporter(), TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        stop = otel.instrument(tracer_provider=provider)
        try:
            async with app.worker():
                await run.result()
        finally:
            stop()
    found = {span.context.trace_id for span in exporter.get_finished_spans() if span.context}
    assert [f"{trace_id:032x}" for trace_id in found] == [tracing.carrier_of(run.id, {})["traceparent"][3:35]]


async def test_a_terminated_run_has_its_span(spans: InMemorySpanExporter) -> None:
    async with hf.connect("memory://") as app, app.worker():
        run = await app.start(parent)
        await run.terminate("enough")
        async with asyncio.timeout(PATIENCE):
            while not named(spans, "run traced.parent"):
                await asyncio.sleep(0.005)
    [span] = named(spans, "run traced.parent")
    assert span.attributes is not None
    assert span.attributes["holdfast.status"] == "cancelled"


class Broken(SpanProcessor):
    def on_start(self, span: object, parent_context: object = None) -> None:
        raise RuntimeError("no disk for spans")

    def on_end(self, span: object) -> None:
        raise RuntimeError("no disk for spans")


async def test_no_run_suffers_from_a_broken_exporter(caplog: pytest.LogCaptureFixture) -> None:
    provider = TracerProvider()
    provider.add_span_processor(Broken())
    stop = otel.instrument(tracer_provider=provider)
    try:
        async with hf.connect("memory://") as app, app.worker():
            assert await (await app.start(child)).result(PATIENCE) == 9
    finally:
        stop()
    assert "a span could not be made" in caplog.text


async def test_every_metric_is_an_instrument(tmp_path: Path) -> None:
    reader = InMemoryMetricReader()
    async with hf.connect(f"sqlite:///{tmp_path}/t.db") as app:
        stop = otel.instrument(app, meter_provider=MeterProvider([reader]))
        try:
            async with app.worker(queues=[]):
                run = await app.start(queueing)
                reader.collect()  # asks for the queues; the next one tells
                async with asyncio.timeout(PATIENCE):
                    while not list(metrics.QUEUE_WAITING.read()):
                        await asyncio.sleep(0.005)
                data = reader.get_metrics_data()
                await run.terminate()
        finally:
            stop()
    assert data is not None
    found = {
        metric.name: list(metric.data.data_points)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    assert set(found) >= {
        f"holdfast.{metric.name}" for metric in metrics.ALL if metric is not metrics.REFUSALS
    }
    [waiting] = found["holdfast.queue_waiting"]
    assert (waiting.attributes, waiting.value) == ({"queue": "traced"}, 1)  # type: ignore[union-attr]
    assert found["holdfast.commit_time"][0].count > 0  # type: ignore[union-attr]
