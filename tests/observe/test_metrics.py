"""Metrics say what happened: compared with the logs, read by Prometheus's own parser."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from patience import PATIENCE
from prometheus_client.parser import text_string_to_metric_families

import holdfast as hf
from holdfast import events, metrics
from holdfast.metrics.kinds import Gauge, Histogram, Labelled
from holdfast.metrics.port import listening
from holdfast.store.exposition import exposition
from holdfast.testing import ManualClock

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests/server/kit"), str(ROOT / "tests/worker")]

from server_kit import ServerThread
from worker_kit import logged, parked

Read = dict[tuple[str, str], float]


def parsed(text: str) -> Read:
    """Every sample, by its name and its label's value."""
    found: Read = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            [value] = sample.labels.values() or [""]
            assert (sample.name, value) not in found
            found[sample.name, value] = sample.value
    return found


class Since:
    """What has been counted since it was made: the counts of a process have no other beginning in a test."""

    def __init__(self) -> None:
        self._before = parsed(metrics.text())

    def __call__(self, name: str, label: str = "") -> float:
        key = (f"holdfast_{name}", label)
        return parsed(metrics.text()).get(key, 0) - self._before.get(key, 0)


@hf.step(name="metered.work", retries=1, backoff=0.001)
async def work(number: int) -> int:
    if number == 1 and hf.step_info().attempt == 1:
        raise ValueError("not yet")
    return number


@hf.workflow(name="metered.run")
async def metered(steps: int) -> int:
    for number in range(steps):
        await work(number)
    if steps == 3:
        raise ValueError("three is too many")
    return int(await hf.hook(f"metered:{hf.run_info().run_id}"))


async def test_what_is_counted_is_what_the_logs_say(tmp_path: Path) -> None:
    since = Since()
    async with hf.connect(f"sqlite:///{tmp_path}/a.db") as app, app.worker():
        run = await app.start(metered, 2)
        failing = await app.start(metered, 3)
        stopped = await app.start(metered, 0)
        with pytest.raises(hf.RunFailed):
            await failing.result()
        await logged(app, run.id, "hook_opened")
        await app.resume(f"metered:{run.id}", 7, delivery_id="d")
        await app.resume(f"metered:{run.id}", 7, delivery_id="d")  # there already: counted once
        assert await run.result() == 7
        assert since("live_runs") == 1
        await stopped.cancel("enough")
        with pytest.raises(hf.RunCancelled):
            await stopped.result()
        logs = [event async for r in app.runs() async for event in app.run(r.id).events()]
    assert since("live_runs") == 0
    for type_ in events.TYPES:
        assert since("events_total", type_) == sum(e.type == type_ for e in logs), type_
    assert since("runs_started_total") == 3
    assert [since("runs_ended_total", s) for s in ("completed", "failed", "cancelled")] == [1, 1, 1]
    assert [since("step_attempts_total", o) for o in ("completed", "failed", "retried")] == [5, 0, 2]
    assert since("payloads_total") == 1
    assert since("appends_total", "duplicate") == 1
    assert since("group_size_count") == since("commit_time_seconds_count") > 0
    assert since("group_size_sum") >= since("appends_total", "accepted")
    assert 0 < since("commit_time_seconds_sum") < 60
    assert since("ticks_total") >= 3 + 5 + 1 + 1
    assert since("news_total") > 0


GATE = asyncio.Event()


@hf.step(name="metered.gated", retries=0)
async def gated() -> None:
    await GATE.wait()


@hf.workflow(name="metered.overtaken")
async def overtaken() -> None:
    await gated()
    await hf.sleep(3600)


async def test_a_refused_append_is_counted_by_what_it_asked_for(tmp_path: Path) -> None:
    """Another decider has asked for something while a step ran here (law L4); its outcome is kept."""
    GATE.clear()
    since = Since()
    async with hf.connect(f"sqlite:///{tmp_path}/a.db") as app, app.worker():
        run = await app.start(overtaken)
        log = await app.store.read(run.id)
        other = events.new("attributes_set", key="attributes#1", data={"attributes": {"a": "b"}})
        await app.store.append(run.id, [other], after=log[-1].position)
        GATE.set()
        await logged(app, run.id, "step_completed")
        await parked(app, run.id)  # its code never asked for attributes
        await run.terminate()
    assert since("refusals_total", "timer_started") == 1
    assert since("appends_total", "stale_log") == 1
    assert since("step_attempts_total", "completed") == 1
    assert since("runs_ended_total", "failed") + since("runs_ended_total", "cancelled") == 1


async def test_a_run_that_another_worker_had_begun_is_a_recovery(tmp_path: Path) -> None:
    since = Since()
    async with hf.connect(f"sqlite:///{tmp_path}/a.db") as app:
        async with app.worker():
            run = await app.start(metered, 0)
        assert since("recoveries_total") == 0
        async with app.worker():
            await app.resume(f"metered:{run.id}", 7)
            await run.result()
        assert since("recoveries_total") == 1
        assert since("replays_total") == 1


@hf.step(name="metered.queued", queue=hf.Queue("metered", concurrency=1))
async def queued() -> None: ...


@hf.workflow(name="metered.queueing")
async def queueing() -> None:
    await queued()


async def test_the_lag_of_a_queue_is_the_age_of_its_oldest_step(tmp_path: Path) -> None:
    clock = ManualClock()
    # A worker that advances runs and serves no queue.
    async with hf.connect(f"sqlite:///{tmp_path}/a.db", clock=clock) as app, app.worker(queues=[]):
        run = await app.start(queueing)
        assert parsed(await exposition(app.store))["holdfast_queue_lag_seconds", "metered"] == 0
        clock.advance(90)
        found = parsed(await exposition(app.store))
        assert found["holdfast_queue_lag_seconds", "metered"] == 90
        assert found["holdfast_queue_waiting", "metered"] == 1
        await run.terminate()


def test_text_is_what_prometheus_reads_whatever_the_label() -> None:
    odd = 'a"b\\c\nd\ud800é'
    labelled = Labelled("odd", "With \\ and\na second line.", "what")
    labelled.totals[odd] = 3
    gauge = Gauge("some", "Some.", "queue")
    gauge.set({"": 1.5})
    histogram = Histogram("sizes", "Sizes.", bounds=(1, 2))
    for value in (1, 2, 2, 3):
        histogram.observe(value)
    found = parsed(metrics.text([labelled, gauge, histogram]))
    assert found["holdfast_odd_total", odd.replace("\ud800", "?")] == 3
    assert found["holdfast_some", ""] == 1.5
    assert [found["holdfast_sizes_bucket", b] for b in ("1.0", "2.0", "+Inf")] == [1, 3, 4]
    assert (found["holdfast_sizes_sum", ""], found["holdfast_sizes_count", ""]) == (8, 4)


def test_the_reference_names_every_metric_with_its_kind_and_label() -> None:
    page = (ROOT / "docs/reference/metrics.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (?:`(\w+)`)? *\|", page, re.MULTILINE)
    assert rows == [(metric.exported, metric.kind, metric.label or "") for metric in metrics.ALL]


# ---- where they are shown


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerThread]:
    server = ServerThread(f"sqlite:///{tmp_path}/s.db")
    yield server
    server.stop()


def fetch(url: str) -> tuple[int, str, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.headers["content-type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["content-type"], error.read().decode()


def test_the_server_shows_them_to_who_may_read(server: ServerThread) -> None:
    status, kind, text = fetch(f"{server.url}/metrics")
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert {name for name, _ in parsed(text)} >= {
        "holdfast_ticks_total",
        "holdfast_commit_time_seconds_count",
    }


def test_the_server_keeps_them_from_who_has_no_token(tmp_path: Path) -> None:
    server = ServerThread(f"sqlite:///{tmp_path}/s.db", token_needed=True)
    try:
        status, _, text = fetch(f"{server.url}/metrics")
        assert status == 401
        assert "holdfast_ticks" not in text
    finally:
        server.stop()


async def test_a_worker_behind_a_server_leaves_the_counting_of_commits_to_it(server: ServerThread) -> None:
    """Both are in this process here: what both counted would stand there twice."""
    since = Since()
    async with hf.connect(server.url) as app, app.worker():
        run = await app.start(metered, 2)
        await logged(app, run.id, "hook_opened")
        await app.resume(f"metered:{run.id}", 7)
        await run.result()
    assert since("runs_started_total") == 1
    assert since("step_attempts_total", "completed") == 2


async def test_a_port_answers_one_question_and_survives_the_rest() -> None:
    async def answer() -> str:
        return "holdfast_x 1\n"

    async def say(port: int, data: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data)
        if b"\r\n\r\n" not in data:
            writer.write_eof()
        got = await asyncio.wait_for(reader.read(), PATIENCE)
        writer.close()
        return got

    async with listening(answer, 0) as port:
        assert (await say(port, b"GET /metrics?x=1 HTTP/1.1\r\nHost: h\r\n\r\n")).endswith(
            b"\r\n\r\nholdfast_x 1\n"
        )
        assert (await say(port, b"HEAD /metrics HTTP/1.1\r\n\r\n")).endswith(b"\r\n\r\n")
        assert (await say(port, b"POST /metrics HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 405")
        assert (await say(port, b"GET /etc/passwd HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 404")
        assert (await say(port, b"\x16\x03\x01\r\n\r\n")).startswith(b"HTTP/1.1 404")
        assert await say(port, b"GET /metrics") == b""
        assert await say(port, b"x" * 100_000) == b""
        assert (await say(port, b"GET /metrics HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")


def test_a_worker_process_shows_them_at_its_port(tmp_path: Path) -> None:
    (tmp_path / "flows.py").write_text(
        "import holdfast as hf\n\n@hf.workflow\nasync def nothing() -> int:\n    return 1\n"
    )
    command = [sys.executable, "-m", "holdfast"]
    store = ["--store", f"sqlite:///{tmp_path}/w.db"]
    worker = subprocess.Popen(
        [*command, "worker", "flows", "--metrics-port", "0", "--json", *store],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert worker.stdout is not None
        told = json.loads(worker.stdout.readline())
        assert told["metrics"].startswith("http://127.0.0.1:")
        subprocess.run(
            [*command, "run", "flows:nothing", *store], cwd=tmp_path, check=True, capture_output=True
        )
        found = parsed(fetch(told["metrics"])[2])
        assert found["holdfast_live_runs", ""] == 0
        port = told["metrics"].split(":")[2].split("/")[0]
        second = subprocess.run(
            [*command, "worker", "flows", "--metrics-port", port, *store], cwd=tmp_path, capture_output=True
        )
        assert second.returncode == 2
        assert b"cannot listen" in second.stderr
    finally:
        os.kill(worker.pid, signal.SIGTERM)
        worker.wait(PATIENCE)
        if worker.stdout is not None:
            worker.stdout.close()
