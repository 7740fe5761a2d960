"""The same simulated deployments on real stores: the seed decides whose call arrives next (`proof/sites.py`).

`python proof/simulate.py --store sqlite --seeds 300` (`make scenarios`) plays more.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent.parent / "proof")]

from scenarios import generated, played
from sites import PostgresSite, SqliteSite
from troubled import MARKS

pytestmark = MARKS


@pytest.fixture
def file(tmp_path):
    with contextlib.closing(SqliteSite(tmp_path)) as site:
        yield site


@pytest.fixture
def database(postgres_url):
    with contextlib.closing(PostgresSite(postgres_url)) as site:
        yield site


def lawful(site, seeds):
    for seed in seeds:
        report = played(generated(seed), seed, site.emptied())
        assert report.problems == [], f"seed {seed}: {report.problems}"


def one_history(site, seed):
    first, second = [played(generated(seed), seed, site.emptied()) for _ in range(2)]
    assert first.befallen
    assert first.trace == second.trace


def test_deployments_on_a_file_leave_lawful_logs_whichever_call_comes_first(file):
    """L1–L14 on SQLite. Seed 49 is one that found something: a forgotten alarm."""
    lawful(file, [*range(4), 49])


def test_deployments_on_a_server_leave_lawful_logs_whichever_call_comes_first(database):
    """L1–L14 on PostgreSQL, with what its server tells as the only news."""
    lawful(database, (0, 1, 5))


def test_a_seed_is_one_history_on_a_file_too(file):
    one_history(file, 1)


def test_a_seed_is_one_history_on_a_server_too(database):
    one_history(database, 1)


def test_what_a_file_holds_is_found_by_who_checks_it(file):
    """A log that somebody has changed is a problem: the check reads the file, not what processes remember."""
    site = file.emptied()
    assert played(generated(1), 1, site).problems == []
    before = {run_id: len(run.log) for run_id, run in site.data.runs.items()}
    assert before
    db = site._looked[0]
    db.execute("DELETE FROM events WHERE position = 1")
    site._seen = None
    assert {run_id: len(run.log) for run_id, run in site.data.runs.items()} == {
        run_id: count - 1 for run_id, count in before.items()
    }
