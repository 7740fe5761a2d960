"""What `holdfast top` shows: one look at a store, as JSON and drawn for the width that there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ..clock import to_text
from ..store.gauge import MOST, STATES, Gauge, Oldest, Rates, WorkerLoad
from ..store.queued import QueueRow
from . import output

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

_LATE = 5_000_000
"""Microseconds after which what should go at once is shown as late."""
_LAGS = (
    ("free", "no worker has"),
    ("undelivered", "fact not delivered"),
    ("oldest", "oldest open run"),
)


class Look(msgspec.Struct, frozen=True):
    """A look at a store, and what happened since the one before."""

    url: str
    gauge: Gauge
    queues: list[QueueRow]
    rates: Rates | None

    def as_json(self) -> dict[str, Any]:
        """As `top --json` writes it: times as text, durations and rates in seconds."""
        gauge = self.gauge
        return {
            "store": self.url,
            "at": to_text(gauge.time),
            "runs": gauge.runs,
            "counted_to": MOST,
            "rates": None if self.rates is None else msgspec.structs.asdict(self.rates),
            **{name: _oldest_json(getattr(gauge, name), gauge.time) for name, _ in _LAGS},
            "refusals": gauge.refusals,
            "workers": [
                {
                    "id": load.worker.id,
                    "host": load.worker.host,
                    "pid": load.worker.pid,
                    "runs": load.runs,
                    "held": load.held,
                    "lease_left": (load.worker.expires - gauge.time) / 1e6,
                    **load.worker.counters,
                }
                for load in gauge.workers
            ],
            "queues": [
                {
                    "queue": row.name,
                    "waiting": row.waiting,
                    "running": row.running,
                    "oldest_at": None if row.oldest is None else to_text(row.oldest),
                }
                for row in self.queues
            ],
        }


def _oldest_json(oldest: Oldest | None, now: int) -> dict[str, Any] | None:
    if oldest is None:
        return None
    return {"run": oldest.run, "since": to_text(oldest.since), "seconds": (now - oldest.since) / 1e6}


def drawn(look: Look, *, every: float | None = None, height: int | None = None, problem: str = "") -> Any:
    """The look as Rich draws it; rows that do not fit into `height` are counted instead."""
    from rich.console import Group
    from rich.text import Text

    gauge = look.gauge
    parts: list[Any] = [_title(look, every), _numbers(look), _lags(gauge)]
    room = 1_000_000 if height is None else max(height - 15, 4)
    queues = min(len(look.queues), max(room // 2, room - len(gauge.workers)))
    parts += [Text(), _workers(gauge, max(room - queues, 1))]
    if look.queues:
        parts += [Text(), _queues(look, queues)]
    if problem:
        parts += [Text(), Text(output.clean(problem), style="bold red")]
    return Group(*parts)


def _title(look: Look, every: float | None) -> Table:
    from rich.table import Table
    from rich.text import Text

    line = Table.grid(expand=True, padding=(0, 1, 0, 0))
    line.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    line.add_column(no_wrap=True, justify="right")
    name = Text.assemble(("holdfast top", "bold"), "  ", output.clean(look.url))
    keys = "" if every is None else f"  every {every:g} s, q ends"
    line.add_row(name, Text(output.instant(look.gauge.time) + keys, style="dim"))
    return line


def _numbers(look: Look) -> Any:
    """Runs by status, and what happens in a second: one column a number, its name above it."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    def row(cells: list[tuple[str, str, str]]) -> Table:
        table = Table.grid(expand=True)
        for _ in cells:
            table.add_column(no_wrap=True, ratio=1)
        table.add_row(*(Text(name, style="dim") for name, _, _ in cells))
        table.add_row(*(Text(value, style=style) for _, value, style in cells))
        return table

    gauge, rates = look.gauge, look.rates
    runs = [
        (state, _count(gauge.runs[state]), output.STATUS_STYLES[state] if gauge.runs[state] else "dim")
        for state in STATES
    ]
    per_second = [
        ("events/s", None if rates is None else rates.events),
        ("steps/s", None if rates is None else rates.steps),
        ("started/s", None if rates is None else rates.started),
        ("ended/s", None if rates is None else rates.ended),
    ]
    rated = [(name, _rate(value), "bold" if value else "dim") for name, value in per_second]
    refused = ("refusals", f"{gauge.refusals:,}", "yellow" if gauge.refusals else "dim")
    return Group(Text(), row(runs), Text(), row([*rated, refused, ("", "", "")]), Text())


def _lags(gauge: Gauge) -> Table:
    """What waits, and since when."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    table.add_column(no_wrap=True, overflow="ellipsis")
    for name, words in _LAGS:
        oldest: Oldest | None = getattr(gauge, name)
        if oldest is None:
            table.add_row(Text(words, style="dim"), Text("–", style="dim"), "")
            continue
        waited = gauge.time - oldest.since
        style = "red" if name != "oldest" and waited > _LATE else ""
        table.add_row(
            Text(words, style="dim"), Text(output.span(waited), style=style), output.clean(oldest.run)
        )
    return table


def _workers(gauge: Gauge, room: int) -> Any:
    from rich.text import Text

    if not gauge.workers:
        return Text("no worker: `holdfast worker MODULE` is one", style="yellow")
    busiest = sorted(gauge.workers, key=lambda load: (-load.runs, -load.held, load.worker.id))
    table = _table("WORKER", "HOST", "PID", "RUNS", "STEPS", "HELD", "REFUSED", "LEASE", left=2)
    for load in busiest[:room]:
        table.add_row(*_worker(load, gauge.time))
    return _with_rest(table, len(busiest) - room, "workers")


def _worker(load: WorkerLoad, now: int) -> list[Text]:
    from rich.text import Text

    worker = load.worker
    left = worker.expires - now
    refused = worker.counters.get("refusals", 0)
    return [
        Text(output.clean(worker.id), overflow="fold"),
        Text(output.clean(worker.host), overflow="ellipsis"),
        Text(str(worker.pid)),
        Text(_count(load.runs)),
        Text(str(worker.counters.get("running", 0))),
        Text(str(load.held)),
        Text(f"{refused:,}", style="yellow" if refused else ""),
        Text(output.span(left) if left > 0 else "over", style="" if left > _LATE else "red"),
    ]


def _queues(look: Look, room: int) -> Any:
    from rich.text import Text

    table = _table("QUEUE", "WAITING", "RUNNING", "OLDEST", left=1)
    for row in look.queues[:room]:
        waits = "" if row.oldest is None else output.span(look.gauge.time - row.oldest)
        table.add_row(
            Text(output.clean(row.name), overflow="ellipsis"),
            Text(f"{row.waiting:,}", style="yellow" if row.waiting else ""),
            Text(f"{row.running:,}"),
            Text(waits),
        )
    return _with_rest(table, len(look.queues) - room, "queues")


def _table(*titles: str, left: int) -> Table:
    """Columns as wide as what is in them; the first `left` ones hold words, the others numbers."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for number, title in enumerate(titles):
        table.add_column(title, no_wrap=True, justify="left" if number < left else "right")
    return table


def _with_rest(table: Table, rest: int, what: str) -> Any:
    from rich.console import Group
    from rich.text import Text

    return table if rest <= 0 else Group(table, Text(f"… and {rest:,} more {what}", style="dim"))


def _count(number: int) -> str:
    return f"{number:,}+" if number >= MOST else f"{number:,}"


def _rate(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.1f}"
