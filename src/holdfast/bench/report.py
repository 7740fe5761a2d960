"""The figures for people: a table of shape × store, and a page with plots that needs nothing else."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable, Sequence
from html import escape

from .measure import Figure

HEADINGS = (
    "shape", "store", "ms", "min", "max", "n", "first", "slurp", "floor", "over", "× floor", "", "run",
)  # fmt: skip
"""Of a row of the table. Milliseconds: the median, the extremes of `n` samples; to the first byte and from there
to the last; the floor, and what is over it."""
GIVE_WAY = ("slurp", "over", "floor", "max", "min", "n", "first")
"""Columns in the order in which a narrow terminal leaves them out."""


def title_of(figure: Figure) -> str:
    """A shape at its size: 'gather 50'."""
    return f"{figure.shape} {figure.size}" if figure.size else figure.shape


def cells(figure: Figure, fastest: bool) -> tuple[str, ...]:
    """A row of the table; the fastest store of a shape has a star."""
    amount = "" if figure.amount is None else f"{_number(figure.amount)} {figure.unit}"
    return (
        title_of(figure),
        figure.store + ("*" if fastest else ""),
        _number(figure.ms),
        _number(figure.min_ms),
        _number(figure.max_ms),
        str(figure.samples),
        _number(figure.first_ms),
        _number(figure.slurp_ms),
        _number(figure.floor_ms),
        _number(figure.overhead_ms),
        "" if figure.ratio is None else f"{figure.ratio:.2f}",
        amount,
        figure.run,
    )


def by_shape(figures: Iterable[Figure]) -> list[Figure]:
    """The stores of each shape side by side, in the order in which the shapes were first measured."""
    groups: dict[tuple[str, int], list[Figure]] = {}
    for figure in figures:
        groups.setdefault((figure.shape, figure.size), []).append(figure)
    return [figure for group in groups.values() for figure in group]


def table(figures: Sequence[Figure], width: int | None) -> list[str]:
    """The lines of the table. Columns with nothing in them are left out, others where `width` is too little."""
    best = fastest_of(figures)
    rows = [HEADINGS, *(cells(figure, figure in best) for figure in by_shape(figures))]
    shown = [number for number in range(len(HEADINGS)) if any(row[number] for row in rows[1:])]
    for name in GIVE_WAY:
        if width is None or _width(rows, shown) <= width:
            break
        shown = [number for number in shown if HEADINGS[number] != name]
    if width is not None and _width(rows, shown) > width:
        return _narrow(rows, width)
    return _lines(rows, shown, "  ")


def _narrow(rows: Sequence[tuple[str, ...]], width: int) -> list[str]:
    """The least: what is counted stands where the ratio is, and a store that is the only one is not named."""
    ratio, amount = HEADINGS.index("× floor"), HEADINGS.index("")
    merged = [(*row[:ratio], row[amount] or row[ratio], *row[ratio + 1 :]) for row in rows]
    names: tuple[str, ...] = ("shape", "store", "ms", "× floor", "run")
    if len({row[1] for row in rows[1:]}) == 1:
        names = ("shape", "ms", "× floor", "run")
    shown = [HEADINGS.index(name) for name in names]
    return _lines(merged, shown, "  " if _width(merged, shown) <= width else " ")


def _width(rows: Sequence[tuple[str, ...]], shown: Sequence[int]) -> int:
    return sum(2 + max(len(row[number]) for row in rows) for number in shown) - 2


def _lines(rows: Sequence[tuple[str, ...]], shown: Sequence[int], between: str) -> list[str]:
    left = (0, 1, len(HEADINGS) - 1)
    widths = {number: max(len(row[number]) for row in rows) for number in shown}
    return [
        between.join(
            row[number].ljust(widths[number]) if number in left else row[number].rjust(widths[number])
            for number in shown
        ).rstrip()
        for row in rows
    ]


def fastest_of(figures: Iterable[Figure]) -> set[Figure]:
    """Of each shape that several stores have run, the figure of the fastest one."""
    best: dict[tuple[str, int], list[Figure]] = {}
    for figure in figures:
        best.setdefault((figure.shape, figure.size), []).append(figure)
    return {min(rivals, key=lambda f: f.ms) for rivals in best.values() if len(rivals) > 1}


def machine() -> str:
    """What the figures were taken on."""
    return f"{platform.system()} {platform.machine()}, Python {sys.version.split()[0]}"


def page(figures: Sequence[Figure]) -> str:
    """A self-contained page of HTML: the plots, and the table."""
    best = fastest_of(figures)
    groups: dict[str, list[Figure]] = {}
    for figure in by_shape(figures):
        groups.setdefault(figure.shape, []).append(figure)
    plots = "\n".join(_plot(shape, rows) for shape, rows in groups.items())
    head = "".join(f"<th>{escape(name)}</th>" for name in HEADINGS)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells(figure, figure in best)) + "</tr>"
        for figure in by_shape(figures)
    )
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Holdfast: figures</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
table {{ border-collapse: collapse; font-size: 13px }} td, th {{ padding: .2rem .6rem; text-align: right }}
td:first-child, td:last-child, th:first-child {{ text-align: left }} tr:nth-child(even) {{ background: #f4f4f4 }}
svg text {{ font: 12px system-ui, sans-serif; fill: #222 }}
@media (prefers-color-scheme: dark) {{ body {{ background: #181818; color: #ddd }} svg text {{ fill: #ddd }}
 tr:nth-child(even) {{ background: #222 }} }}
</style>
<h1>Holdfast: figures</h1>
<p>{escape(machine())}. Every commit is durable (SQLite: WAL, synchronous=FULL, one fdatasync each; PostgreSQL: as
its server is set). Bars are medians in milliseconds, red lines go from the least to the most, grey bars are the
floor: the least number of raw durable commits of the same bytes on the same store, taken in turns with the shape.
* is the fastest store of a shape. Figures of one page are comparable with each other only.</p>
{plots}
<h2>All figures</h2>
<table><thead><tr>{head}</tr></thead><tbody>
{body}
</tbody></table></html>
"""


def _plot(shape: str, figures: Sequence[Figure]) -> str:
    """Bars: the median, the floor in grey, and a line from the least to the most."""
    most = max(f.max_ms for f in figures) or 1.0
    wide, bars = 560, []
    for row, figure in enumerate(figures):
        y = 8 + 34 * row
        label = escape(f"{title_of(figure)} · {figure.store}")
        ratio = "" if figure.ratio is None else f" ({figure.ratio:.2f} × floor)"
        bars.append(f'<text x="0" y="{y + 15}">{label}</text>')
        bars.append(
            f'<rect x="190" y="{y}" width="{wide * figure.ms / most:.1f}" height="16" fill="#3b76c4"/>'
        )
        if figure.floor_ms is not None:
            bars.append(
                f'<rect x="190" y="{y + 17}" width="{wide * figure.floor_ms / most:.1f}" height="6" fill="#999"/>'
            )
        x1, x2 = 190 + wide * figure.min_ms / most, 190 + wide * figure.max_ms / most
        bars.append(f'<line x1="{x1:.1f}" x2="{x2:.1f}" y1="{y + 8}" y2="{y + 8}" stroke="#d33"/>')
        bars.append(f'<text x="{200 + wide}" y="{y + 14}">{_number(figure.ms)} ms{ratio}</text>')
    high = 16 + 34 * len(figures)
    return (
        f"<h2>{escape(shape)}</h2>\n"
        f'<svg viewBox="0 0 960 {high}" role="img" aria-label="{escape(shape)}">{"".join(bars)}</svg>'
    )


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
