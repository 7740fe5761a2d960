"""`bench` as people call it: the figures are the machine's affair, their shape is ours."""

import contextlib
import json
import signal
import sqlite3
import subprocess
from pathlib import Path

import pytest
from cli_kit import Command, child
from patience import PATIENCE

from holdfast.bench import SHAPES, Figure, flows
from holdfast.bench.floor import floor_of
from holdfast.bench.place import Where
from holdfast.bench.report import table
from holdfast.workflow import Workflow, workflows

URL = "sqlite:///bench.db"
SMALL = {"none": 0, "idle": 1, "step-to-step": 3, "handed-over": 3, "long": 10}
"""The sizes at which every shape is tried; 2 where nothing is said."""


@pytest.fixture(autouse=True)
def _flows_are_known(shop: Path) -> None:
    """Modules are imported once, and each test begins without the workflows that an earlier one has imported."""
    for flow in vars(flows).values():
        if isinstance(flow, Workflow):
            workflows.add(flow)


def test_each_figure_stands_beside_its_floor_and_names_its_run(holdfast: Command) -> None:
    ran = holdfast("bench", "none", "sequential", "--quick", "--json", "--store", URL)
    assert ran.code == 0
    figures = [json.loads(line) for line in ran.lines]
    assert [(figure["shape"], figure["size"]) for figure in figures] == [
        ("none", 0), ("sequential", 1), ("sequential", 10), ("sequential", 50),
    ]  # fmt: skip
    for figure in figures:
        assert figure["min_ms"] <= figure["ms"] <= figure["max_ms"]
        assert figure["ratio"] > 0
        assert figure["floor"].startswith(f"{figure['size'] + 1} commits of ")
    # Its runs can be looked up, and the floor has left nothing.
    assert holdfast("verify", "--store", URL).code == 0
    assert figures[-1]["run"] in holdfast("runs", "--store", URL, "--limit", "0").out
    assert not list(Path.cwd().glob("*floor*"))


@pytest.mark.parametrize("name", SHAPES)
def test_each_shape_says_how_small_it_can_be(holdfast: Command, name: str) -> None:
    """At its least size it is measured; below, the error names that size."""
    least = SHAPES[name].least
    if not SHAPES[name].apart:
        ran = holdfast("bench", f"{name}:{least}", "--quick", "--store", "memory")
        assert (ran.code, len(ran.lines)) == (0, 2)
        assert "nothing is on a disk" in ran.err
    if least:
        ran = holdfast("bench", f"{name}:{least - 1}")
        assert (ran.code, ran.out) == (2, "")
        assert f"expected a size of {least} or more" in ran.err


def test_stores_are_compared_in_a_table_and_on_a_page_that_needs_nothing_else(holdfast: Command) -> None:
    ran = holdfast("bench", "none", "--quick", "--store", "memory://", "--store", URL, "--html", "bench.html")
    assert ran.code == 0
    heading, *rows = ran.lines
    assert heading.split()[:3] == ["shape", "store", "ms"]
    assert all("run_" in row for row in rows)
    assert {row.split()[1].rstrip("*") for row in rows} == {"memory", "sqlite"}
    assert sum(row.split()[1].endswith("*") for row in rows) == 1  # the fastest
    page = Path("bench.html").read_text("utf-8")
    assert "<svg" in page
    assert "http" not in page


def test_a_store_of_its_own_is_thrown_away(holdfast: Command) -> None:
    before = set(Path.cwd().iterdir())
    assert holdfast("bench", "none", "--quick").code == 0
    assert set(Path.cwd().iterdir()) == before


@pytest.mark.parametrize("store", ["memory", "http"])
def test_every_shape_runs_on_stores_that_are_made_for_it(shop: Path, store: str) -> None:
    """A server has all that a bare file needs too; PostgreSQL's floor has a test of its own."""
    words = [f"{name}:{SMALL.get(name, 2)}" for name in SHAPES]
    bench = child("bench", *words, "--quick", "--json", "--store", store, cwd=shop)
    with bench:
        out, err = bench.communicate(timeout=120)
    assert bench.returncode == 0, err
    figures = {figure["shape"]: figure for figure in map(json.loads, out.splitlines())}
    apart = {name for name, shape in SHAPES.items() if shape.apart}
    assert set(figures) == set(SHAPES) - (apart if store == "memory" else set())
    for name, figure in figures.items():
        assert figure["store"] == store
        floored = SHAPES[name].floor is not None and store != "memory"
        assert ("ratio" in figure) == ("floor_ms" in figure) == ("overhead_ms" in figure) == floored
        if name in ("stream", "stream-pipeline", "stream-parallel", "stream-fan"):
            assert 0 < figure["first_ms"] <= figure["max_ms"]
    assert not list(shop.glob(".holdfast-bench-*"))


async def test_the_floor_of_postgres_commits_and_leaves_nothing(postgres_url: str) -> None:
    import asyncpg

    floor = await floor_of(Where("postgresql", postgres_url, postgres_url))
    assert floor is not None
    connection = await asyncpg.connect(postgres_url)
    before = await connection.fetchval("SELECT count(*) FROM holdfast_bench_floor")
    await floor.run(3, 330)
    await floor.run(1, 1 << 20)  # in rows of 64 KiB
    assert await connection.fetchval("SELECT count(*) FROM holdfast_bench_floor") == before + 3 + 16
    await floor.close()
    assert await connection.fetchval("SELECT to_regclass('holdfast_bench_floor')") is None
    await connection.close()


@pytest.mark.parametrize("stores", [["postgres"], ["sqlite", "postgres"]])
def test_a_table_fits_the_terminal_and_keeps_runs_and_what_is_counted(stores: list[str]) -> None:
    figures = [
        Figure(
            shape, 10, store, "run_" + "0" * 26, 10, 1234.5, 1111.1, 2222.2,
            first_ms=1.5, slurp_ms=2.5, floor_ms=999.9, overhead_ms=234.6, ratio=1.23,
            amount=amount, unit="steps/s",
        )
        for store in stores
        for shape, amount in (("stream-parallel", None), ("many", 12_345.6))
    ]  # fmt: skip
    for width in (80, 120, None):
        _, *lines = table(figures, width)
        assert width is None or max(map(len, lines)) <= width
        assert all(line.endswith(figures[0].run) for line in lines)
        assert "1.23" in lines[0]
        assert "12,346 steps/s" in lines[-1]
    assert "slurp" in table(figures, None)[0]


def test_whoever_interrupts_it_gets_what_it_has(shop: Path) -> None:
    bench = child("bench", "none", "stream-latency:10000", "--quick", cwd=shop, start_new_session=True)
    with bench:
        try:
            while not has_begun(shop, "holdfast.bench.stream_paced"):  # so the first shape has been measured
                with contextlib.suppress(subprocess.TimeoutExpired):
                    pytest.fail(f"ended with {bench.wait(0.05)}")
            bench.send_signal(signal.SIGINT)
            out, err = bench.communicate(timeout=PATIENCE)
        finally:
            bench.kill()
    assert bench.returncode == 130
    assert [line.split()[0] for line in out.splitlines()] == ["shape", "none"]
    assert "Traceback" not in err
    assert not list(shop.glob(".holdfast-bench-*"))


def has_begun(folder: Path, workflow: str) -> bool:
    for path in folder.glob(".holdfast-bench-*/bench.db"):
        with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(sqlite3.connect(path)) as db:
            return bool(db.execute("SELECT 1 FROM runs WHERE workflow = ?", [workflow]).fetchall())
    return False


def test_shapes_are_listed_and_others_refused(holdfast: Command) -> None:
    assert "gather" in holdfast("bench", "--list").out
    refused = holdfast("bench", "gathr")
    assert refused.code == 2
    assert "gather" in refused.err
    refused = holdfast("bench", "gather:many")
    assert refused.code == 2
    assert "gather:10" in refused.err
