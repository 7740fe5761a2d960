"""`bench` as people call it: the figures are the machine's affair, their shape is ours."""

import json
from pathlib import Path

from cli_kit import Command

URL = "sqlite:///bench.db"


def test_each_figure_stands_beside_its_floor_and_names_its_run(holdfast: Command) -> None:
    ran = holdfast("bench", "none", "sequential", "--quick", "--json", "--store", URL)
    assert ran.code == 0
    figures = [json.loads(line) for line in ran.lines]
    assert [(figure["shape"], figure["size"]) for figure in figures] == [
        ("none", 0), ("sequential", 1), ("sequential", 10), ("sequential", 25), ("sequential", 50),
    ]  # fmt: skip
    for figure in figures:
        assert figure["min_ms"] <= figure["ms"] <= figure["max_ms"]
        assert figure["ratio"] > 0
        assert figure["floor"].startswith(f"{figure['size'] + 1} commits of ")
    # Its runs can be looked up, and the floor has left nothing.
    assert holdfast("verify", "--store", URL).code == 0
    assert figures[-1]["run"] in holdfast("runs", "--store", URL, "--limit", "0").out
    assert not list(Path.cwd().glob("*floor*"))


def test_stores_are_compared_in_a_table_and_on_a_page_that_needs_nothing_else(holdfast: Command) -> None:
    ran = holdfast("bench", "none", "--quick", "--store", "memory://", "--store", URL, "--html", "bench.html")
    assert ran.code == 0
    heading, *rows = ran.lines
    assert heading.split()[:3] == ["shape", "store", "ms"]
    assert {row.split()[1].rstrip("*") for row in rows} == {"memory", "sqlite"}
    assert sum(row.split()[1].endswith("*") for row in rows) == 1  # the fastest
    page = Path("bench.html").read_text("utf-8")
    assert "<svg" in page
    assert "http" not in page


def test_a_store_of_its_own_is_thrown_away(holdfast: Command) -> None:
    before = set(Path.cwd().iterdir())
    assert holdfast("bench", "none", "--quick").code == 0
    assert set(Path.cwd().iterdir()) == before


def test_shapes_are_listed_and_others_refused(holdfast: Command) -> None:
    assert "gather" in holdfast("bench", "--list").out
    refused = holdfast("bench", "gathr")
    assert refused.code == 2
    assert "gather" in refused.err
