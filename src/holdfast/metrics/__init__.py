"""What this process counts about itself: counters, gauges and histograms, as plain numbers.

There is one set for a process, as module attributes; `docs/reference/metrics.md` says what each means. Nothing
here locks or waits: they are written on the loop's thread (or, for ticks of several loops, with a lost count at
worst), and whoever reads sees numbers that are a moment old. They start at zero with the process.

Most of what happens to runs is an event, so it is counted once, by the type of the event (`EVENTS`), where a
commit is answered; what has a name of its own (runs that ended, attempts of steps) is read off that count.
Rejected: a library of metrics on the hot path (an observation there costs as much as a tenth of a tick), and
labels by run or workflow (their number has no bound).

Example:
    from holdfast import metrics

    metrics.TICKS.total          # of this process, since it began
    print(metrics.text())        # all, as Prometheus reads it
"""

from __future__ import annotations

from .kinds import Counter, Gauge, Histogram, Labelled, Metric, Part
from .text import text

TICKS = Counter(
    "ticks", "Ticks: facts that were delivered to the code of a run, and logs that were replayed."
)
REPLAYS = Counter("replays", "Logs that were read and replayed, for whatever reason.")
RECOVERIES = Counter("recoveries", "Runs that a worker took up which another worker had begun.")
NEWS = Counter("news", "Notices of commits that the workers of this process heard.")
APPENDS = Labelled("appends", "Appends that were answered, by the answer.", "answer")
EVENTS = Labelled("events", "Events that were committed, by type.", "type")
REFUSALS = Labelled("refusals", "Appends refused as stale, by the commands in them.", "site")
RUNS_STARTED = Part("runs_started", "Runs that were created.", EVENTS, {"run_created": ""})
RUNS_ENDED = Part(
    "runs_ended",
    "Runs that ended, by status.",
    EVENTS,
    {"run_completed": "completed", "run_failed": "failed", "run_cancelled": "cancelled"},
    label="status",
)
STEP_ATTEMPTS = Part(
    "step_attempts",
    "Attempts of steps that ended, by outcome.",
    EVENTS,
    {"step_completed": "completed", "step_failed": "failed", "step_retried": "retried"},
    label="outcome",
)
PAYLOADS = Part("payloads", "Payloads that hooks took.", EVENTS, {"hook_received": ""})
GROUP_SIZE = Histogram(
    "group_size", "Writes that shared a commit.", bounds=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
)
COMMIT_TIME = Histogram(
    "commit_time",
    "Seconds from handing a group of writes to the store until it was durable.",
    unit="seconds",
    bounds=(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0),
)
LIVE_RUNS = Gauge("live_runs", "Runs whose code is in memory in this process.")
STEPS_RUNNING = Gauge("steps_running", "Attempts of steps that run in this process, or wait for a place.")
QUEUE_LAG = Gauge(
    "queue_lag", "Seconds for which the oldest waiting step of a queue has waited.", "queue", unit="seconds"
)
QUEUE_WAITING = Gauge("queue_waiting", "Steps that wait in a queue.", "queue")
QUEUE_RUNNING = Gauge("queue_running", "Steps of a queue that run, at whatever worker.", "queue")

ALL: tuple[Metric, ...] = (
    *(TICKS, REPLAYS, RECOVERIES, NEWS, APPENDS, EVENTS, REFUSALS),
    *(RUNS_STARTED, RUNS_ENDED, STEP_ATTEMPTS, PAYLOADS),
    *(GROUP_SIZE, COMMIT_TIME),
    *(LIVE_RUNS, STEPS_RUNNING, QUEUE_LAG, QUEUE_WAITING, QUEUE_RUNNING),
)
"""Every metric, in the order in which they are shown."""

__all__ = ["ALL", "Counter", "Gauge", "Histogram", "Labelled", "Metric", "Part", "text"]
