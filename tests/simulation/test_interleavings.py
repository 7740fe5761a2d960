"""Small scopes, whole: each order of the store calls of two real deciders and a client leaves a lawful log.

What runs here in seconds is a share of `python proof/interleavings.py`; proof/README.md has the figures of the
whole, and what is meant by a schedule.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "proof"))

from backends import PostgresBackend, SqliteBackend
from interleavings import SCOPES, enumerate_scope, story, without

pytestmark = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level("CRITICAL")


def lawful(name: str, **more: object):
    tried = enumerate_scope(SCOPES[name], **more)
    assert not tried.problems, "\n".join([*tried.problems[0][0], *story(SCOPES[name], tried.problems[0][1])])
    assert not tried.loops
    print(
        f"{name}: {tried.schedules:,} schedules, {tried.states:,} states, {'whole' if tried.whole else 'a share'}"
    )
    return tried


SMALL = ["timer", "timer, far", "hook, far", "beside, far"]


@pytest.mark.parametrize("name", SMALL)
def test_every_schedule_of_a_small_scope_is_lawful(name):
    """L1–L14: whichever call comes first, the log is lawful, the run ends, and no payload is lost."""
    assert lawful(name).whole


@pytest.mark.parametrize("name", [name for name in SCOPES if name not in SMALL])
def test_a_share_of_the_schedules_of_each_larger_scope_is_lawful(name):
    assert lawful(name, most=300).schedules > 1000


@pytest.mark.parametrize("name", ["hook, far", "beside, far"])
def test_what_is_merged_makes_no_difference(name):
    """Cutting at a state seen before finds the same: as many schedules, counted one by one, and the same logs."""

    def logs(*, merge: bool) -> tuple[int, set[tuple[object, ...]]]:
        found: set[tuple[object, ...]] = set()
        scope = SCOPES[name]._replace(deciders=1)

        def remember(world):
            found.add(tuple((e.type, e.key, e.time, e.body) for e in world.backend.log()))

        return enumerate_scope(scope, merge=merge, also=remember).schedules, found

    assert logs(merge=True) == logs(merge=False)


def test_news_that_come_while_the_log_is_read_are_not_forgotten():
    """L14: a payload landed between the read of the log and its answer; the worker heard of it, and forgot it.

    Nobody would have told it again before its slow poll. (The stores in memory and in a file read in one go.)
    """
    assert lawful("beside, far").whole


# ---- the same on a file


@pytest.fixture
def sqlite(tmp_path):
    with contextlib.closing(SqliteBackend(tmp_path)) as backend:
        yield backend.emptied


@pytest.mark.parametrize("name", ["timer", "hook or timer", "step or hook"])
def test_sqlite_gives_the_same_answers_in_the_same_order(name, sqlite):
    """Two handles on one file: the tree of schedules has the same shape, state by state."""
    share = {"most": 150}
    assert lawful(name, backend=sqlite, **share) == lawful(name, **share)


@pytest.mark.parametrize("name", ["timer", "hook or timer"])
def test_postgres_gives_the_same_answers_in_the_same_order(name, postgres_url):
    """Two connections for each process: state by state the same tree as in memory."""
    share = {"most": 25}
    with contextlib.closing(PostgresBackend(postgres_url)) as backend:
        assert lawful(name, backend=backend.emptied, **share) == lawful(name, **share)


# ---- with protections taken out, the same enumeration finds what they protect from


def broken_without(*protections: str, scope: str = "hook or timer", so: str = "") -> str:
    """The first schedule that goes wrong in such a way, and what is wrong with it."""
    with without(*protections):
        tried = enumerate_scope(SCOPES[scope], most=5000, enough=5 if so else 1)
        for problems, path in tried.problems:
            if so in "\n".join(problems):
                return "\n".join([*story(SCOPES[scope], path), *problems])
        raise AssertionError(f"{tried.schedules} schedules without {protections}, and nothing was found")


def test_without_any_fence_the_timer_overtakes_a_payload_that_has_landed():
    """L-01, V#2113: the payload is in the log, and an old tick decides for the sleep all the same."""
    found = broken_without("fence", "tail", "keys")
    log = found[found.index("run_created") :]
    assert log.index("hook_received") < log.index("timer_fired") < log.index('"late"'), found
    assert '"in time"' in log, found  # commands of both branches


def test_without_the_check_of_the_tail_early_facts_stand_in_another_order_than_they_were_delivered():
    """B3 of the model: replay takes another branch than the live execution did."""
    assert "do not follow it" in broken_without("tail")
    broken_without("tail", so="today's code asks for")


def test_without_fence_and_keys_commands_stand_twice():
    assert "stands at position" in broken_without("fence", "keys", scope="timer")


def test_with_one_version_of_the_code_the_keys_suffice():
    """What each protection buys: the fence is for mixed versions and impure code; no small scope misses it."""
    with without("fence"):
        assert lawful("timer").whole
