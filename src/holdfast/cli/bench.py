"""`bench`: what Holdfast costs on this machine and store, beside what the disk alone costs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import output
from .collector import collect_rarely
from .frame import CHECK, command
from .options import AsJson, ending
from .problem import Problem, did_you_mean

if TYPE_CHECKING:
    from ..bench import Figure, Order


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
            "bench sequential many:1000",
            "bench gather --store sqlite --store postgres --html out.html",
        ],
    ),
)
def bench(
    shapes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SHAPE[:SIZE]…]",
            help="What to measure (what --list marks); at one size, or its usual ones.",
        ),
    ] = None,
    store: Annotated[
        list[str] | None,
        typer.Option(
            "--store",
            metavar="URL",
            help="Where; several times to compare. Its runs stay there. Or memory, sqlite, postgres, http: one "
            "that is made in the current folder and thrown away (sqlite).",
        ),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Every shape at every size; some take minutes.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="A third of the samples.")] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page with plots, too.")
    ] = None,
    names: Annotated[bool, typer.Option("--list", help="Name the shapes and what they are.")] = False,
    as_json: AsJson = False,
) -> int:
    """Measure runs, steps, hooks, timers and streams, each beside its floor: a minute or two.

    The floor is the same number of raw durable commits of the same bytes on the same store, taken in turns with
    the shape. Times of one call are comparable with each other only.
    """
    from ..bench import SHAPES

    if names:
        for shape in SHAPES.values():
            sizes = " ".join(map(str, shape.sizes)) or "-"
            more = f" (--all: {' '.join(map(str, shape.more))})" if shape.more else ""
            output.data(f"{shape.name:16} {shape.about}: {sizes}{more}")
        return 0
    words = shapes or [name for name, shape in SHAPES.items() if shape.sizes or every]
    orders = [order for word in words for order in _orders(word, every=every, quick=quick)]
    logging.getLogger("holdfast").setLevel(logging.ERROR)  # of workers that it kills itself
    figures: list[Figure] = []
    collect_rarely()
    try:
        asyncio.run(_bench(store or ["sqlite"], orders, figures, quick=quick, as_json=as_json))
    finally:
        _report(figures, html, as_json=as_json)
    return 0


def _orders(word: str, *, every: bool, quick: bool) -> list[Order]:
    """What a word asks for: a shape's name, and perhaps its size."""
    from ..bench import SHAPES, Order

    name, colon, size = word.partition(":")
    if name not in SHAPES:
        raise Problem(f"no such shape {name!r}", hint=did_you_mean(name, SHAPES) or "holdfast bench --list")
    shape = SHAPES[name]
    if colon and not (size.isascii() and size.isdecimal()):
        raise Problem(
            f"{word!r}: expected a number behind the colon", hint=f"{name}:{(shape.sizes or shape.more)[0]}"
        )
    if colon and int(size) < shape.least:
        raise Problem(f"{word!r}: expected a size of {shape.least} or more", hint=f"{name}:{shape.least}")
    sizes = (
        [int(size)] if colon else sorted({*shape.sizes, *(shape.more if every or not shape.sizes else ())})
    )
    samples = max(1, shape.samples // 3) if quick else shape.samples
    return [Order(shape, size, 1 if size >= 1000 else samples) for size in sizes]


async def _bench(
    stores: Sequence[str], orders: Sequence[Order], figures: list[Figure], *, quick: bool, as_json: bool
) -> None:
    from ..bench.measure import WARM, measure

    with _progress(len(stores) * sum(order.samples for order in orders)) as done:
        for store in stores:
            async for figure in measure(store, orders, warm=1 if quick else WARM, done=done):
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
    from ..bench.report import machine, table

    for line in table(figures, output.terminal_width()):
        output.data(line)
    stores = list(dict.fromkeys(figure.store for figure in figures))
    disks = [store for store in stores if store != "memory"]
    durable = "every commit is durable" if disks else "nothing is on a disk"
    if 0 < len(disks) < len(stores):
        durable += ", but in memory"
    output.note(f"{', '.join(stores)}; {machine()}; {durable}")
    output.note("ms: the median of n; * the fastest store of a shape; ev: events, B: bytes")


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[], object]]:
    """A bar on stderr where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    # Drawn when something was measured, not by the clock: `idle` would measure that.
    with Progress(console=Console(stderr=True), transient=True, auto_refresh=False) as progress:
        task = progress.add_task("measuring", total=total)

        def done() -> None:
            progress.advance(task)
            progress.refresh()

        yield done
