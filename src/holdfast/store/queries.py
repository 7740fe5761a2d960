"""Named SQL: every statement of a backend stands in `sql/<backend>/queries.sql`, and what it is for.

    -- name: head
    -- A run's row, in the order of the fields of `Head`.
    SELECT …;

So the statements can be read, explained and reviewed in one place, and Python holds none.
"""

from __future__ import annotations

from importlib.resources import files

from .rows import RunFilter

_MARK = "-- name:"


def load_queries(backend: str) -> dict[str, str]:
    """The statements of a backend by name, without comments. Raises ValueError for a name given twice."""
    return parse_queries((files("holdfast.store") / "sql" / backend / "queries.sql").read_text("utf-8"))


def parse_queries(text: str) -> dict[str, str]:
    """The statements in the text of a `queries.sql`."""
    queries: dict[str, str] = {}
    for block in text.split(_MARK)[1:]:
        name, *lines = block.splitlines()
        name = name.strip()
        if name in queries:
            raise ValueError(f"queries.sql names {name!r} twice")
        kept = [line for line in lines if line.strip() and not line.lstrip().startswith("--")]
        queries[name] = "\n".join(kept)
    return queries


def listing(which: RunFilter) -> str:
    """The name of the statement that lists these runs: that of the index which leaves the fewest to look at."""
    if which.parent is not None:
        return "list_runs_by_parent"
    if which.root is not None:
        return "list_runs_by_root"
    if which.parked:
        return "list_parked"
    if which.status is not None:
        return "list_runs_by_status"
    return "list_runs" if which.workflow is None else "list_runs_by_workflow"
