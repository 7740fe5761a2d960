"""The list of mutants is of today: each patch fits the source, each test that is named is there, the page agrees.

That the named tests kill their mutants is shown by `make mutants`; CI runs some of them after each commit.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "proof"))

from mutants import MUTANTS, README, ROOT, chosen, patched, play, table

SURVIVOR = next(mutant for mutant in MUTANTS if mutant.name == "no command fence")._replace(
    old="    if commands and head.command > after:", new="    if head.command > after and commands:"
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_of_today(mutant):
    text = patched(mutant)
    if mutant.file.endswith(".py"):
        ast.parse(text)
    path, name = mutant.killer.split("::")
    assert f"def {name.partition('[')[0]}(" in (ROOT / path).read_text()


def test_the_page_shows_the_list():
    """`python proof/mutants.py --table` writes it."""
    assert table() in README.read_text()


def test_names_are_given_once():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 50


def test_where_there_is_no_time_for_all_each_commit_has_its_own_order():
    assert [mutant.name for mutant in chosen("", in_time=False)] == [mutant.name for mutant in MUTANTS]
    assert sorted(chosen("", in_time=True)) == sorted(MUTANTS)
    assert chosen("", in_time=True) == chosen("", in_time=True) != MUTANTS


def test_a_mutant_is_killed_by_a_failure_and_by_nothing_else():
    """Not by a test that passes, by a name that no test has, nor by a patch that fits nowhere."""
    spared = "tests/engine/test_counterexamples.py::test_seed_and_python_version_stand_in_the_log"
    assert play(SURVIVOR, spared)[1:3] == (None, "")
    killer, why = play(SURVIVOR, "tests/engine/test_counterexamples.py::test_that_is_not_there")[1:3]
    assert killer is None
    assert "pytest ended with" in why
    assert play(SURVIVOR._replace(old="nowhere in the source"), spared)[1:3] == (
        None,
        "its patch fits 0 places of store/rules.py",
    )


def test_a_test_that_hangs_has_killed_only_where_the_list_says_so(monkeypatch):
    monkeypatch.setattr("mutants.PATIENCE", 0.1)
    spared = "tests/engine/test_counterexamples.py::test_seed_and_python_version_stand_in_the_log"
    killer, why, _, hung = play(SURVIVOR, spared)[1:]
    assert (killer, hung) == (None, True)
    assert "it hangs" in why
    killer, why, _, hung = play(SURVIVOR._replace(hangs=True), spared)[1:]
    assert (killer, why, hung) == (spared, "", True)
