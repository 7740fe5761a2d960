"""`bench`: what Holdfast costs on this machine and store, beside what the disk alone costs."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import output
from .frame import CHECK, command
from .options import AsJson, ending
from .problem import Problem, did_you_mean

if TYPE_CHECKING:
    from ..bench import Figure, Shape


@command(
    CHECK,
    ending(
        {
            0: "measured",
            2: "cannot: no such shape, or a store that cannot be used",
            130: "interrupted; what was measured until then has been written",
        },
        [
            "bench",
            "bench sequential many",
            "bench sequential --store memory:// --store sqlite:///bench.db",
        ],
    ),
)
def bench(
    shapes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SHAPE…]", help="What to measure (everything); `--list` names them."),
    ] = None,
    store: Annotated[
        list[str] | None,
        typer.Option(
            "--store",
            metavar="URL",
            help="Where; several times to compare. Its runs stay there. Without it: an SQLite file in the "
            "current folder that is thrown away.",
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A third of the samples.")] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page with plots, too.")
    ] = None,
    names: Annotated[bool, typer.Option("--list", help="Name the shapes and what they are.")] = False,
    as_json: AsJson = False,
) -> int:
    """Measure runs, steps, hooks and timers, each beside its floor.

    The floor is the same number of raw durable commits of the same bytes on the same disk, taken in turns with
    the shape. Times of one call are comparable with each other only.
    """
    from ..bench import SHAPES

    if names:
        for shape in SHAPES.values():
            output.data(f"{shape.name:16} {shape.about}")
        return 0
    chosen = []
    for name in shapes or SHAPES:
        if name not in SHAPES:
            raise Problem(
                f"no such shape {name!r}", hint=did_you_mean(name, SHAPES) or "holdfast bench --list"
            )
        chosen.append(SHAPES[name])
    figures: list[Figure] = []
    try:
        with _stores(store) as urls:
            asyncio.run(_bench(urls, chosen, figures, quick=quick, as_json=as_json))
    finally:
        _report(figures, html, as_json=as_json)
    return 0


@contextlib.contextmanager
def _stores(given: Sequence[str] | None) -> Iterator[list[str]]:
    if given:
        yield list(given)
        return
    # In the current folder, for the temporary one is often in memory, which has no floor.
    with tempfile.TemporaryDirectory(prefix=".holdfast-bench-", dir=".") as folder:
        yield [f"sqlite:///{folder}/bench.db"]


async def _bench(
    urls: Sequence[str], shapes: Sequence[Shape], figures: list[Figure], *, quick: bool, as_json: bool
) -> None:
    from ..bench.measure import measure, samples_of

    total = len(urls) * sum(len(shape.sizes) * samples_of(shape, quick) for shape in shapes)
    with _progress(total) as done:
        for url in urls:
            async for figure in measure(url, shapes, quick=quick, done=done):
                figures.append(figure)
                if as_json:
                    output.data_json(figure)


def _report(figures: Sequence[Figure], html: Path | None, *, as_json: bool) -> None:
    from ..bench.report import page

    if not figures:
        return
    if not as_json:
        _show(figures)
    if html is not None:
        html.write_text(page(figures), encoding="utf-8")
        output.note(f"wrote {html}")


def _show(figures: Sequence[Figure]) -> None:
    from ..bench.report import HEADINGS, cells, fastest_of, machine

    best = fastest_of(figures)
    rows = [HEADINGS, *(cells(figure, figure in best) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    for row in rows:
        words = [
            cell.ljust(width) if column in (0, 1, 8, 9) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        output.data("  ".join(words).rstrip())
    output.note(f"{machine()}; every commit is durable; * the fastest store of a shape")


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[], object]]:
    """A bar on stderr where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("measuring", total=total)
        yield lambda: progress.advance(task)
