"""`verify` and `replay` as people call them; what they find is tested in test_verify and test_replay."""

import json
import sqlite3
from pathlib import Path

import pytest
from cli_kit import Command, child, steady
from patience import PATIENCE


@pytest.fixture
def done(holdfast: Command) -> Command:
    assert holdfast("run", "shop:fulfil", "7", "--run-id", "order-7").code == 0
    assert holdfast("run", "shop:fails", "--run-id", "f-1").code == 1
    return holdfast


def edit(statement: str) -> None:
    with sqlite3.connect(".holdfast/holdfast.db") as db:
        assert db.execute(statement).rowcount
    db.close()


EDIT = "UPDATE events SET body = replace(body, 'paid 7', 'paid 8') WHERE type = 'run_completed'"


def test_verify(done: Command) -> None:
    fine = done("verify")
    assert (fine.code, fine.out, fine.err) == (0, "", "nothing differs in 2 runs, 22 events\n")
    assert json.loads(done("verify", "order-7", "--json").out) == {
        "runs": 1,
        "events": 12,
        "replayed": 0,
        "unsettled": [],
        "differences": [],
    }


def test_verify_finds_an_edit(done: Command) -> None:
    edit(EDIT)
    found = done("verify")
    assert found.code == 1
    assert (
        found.out
        == "order-7 position 11: the hash of this append (positions 11–12) does not fit its events\n"
    )
    assert found.err == "1 difference in 2 runs, 22 events\n"
    shown = json.loads(done("verify", "--json").out)
    assert [(d["run"], d["position"]) for d in shown["differences"]] == [("order-7", 11)]
    assert done("verify", "f-1").code == 0


def test_verify_with_code(done: Command, shop: Path) -> None:
    fine = done("verify", "--code", "shop")
    assert (fine.out, fine.err) == (
        "",
        "the workflow prints\nnothing differs in 2 runs, 22 events, 2 replayed\n",
    )
    text = (shop / "shop.py").read_text()
    (shop / "shop.py").write_text(text.replace("charge(amount)", "charge(amount + 1)"))
    found = child("verify", "--code", "shop.py", cwd=shop)
    out, _ = found.communicate(timeout=PATIENCE)
    assert found.returncode == 1
    assert out.startswith("order-7 position 4: the log holds step_scheduled charge#1 ")


def test_heads_are_exported_and_proved(done: Command, shop: Path) -> None:
    assert done("verify", "--export-head", "heads.jsonl").err.startswith("2 heads written to heads.jsonl\n")
    assert [json.loads(line)["run"] for line in (shop / "heads.jsonl").read_text().splitlines()] == [
        "f-1",
        "order-7",
    ]
    assert done("verify", "--head", "heads.jsonl").code == 0
    edit("DELETE FROM runs WHERE run = 'order-7'")
    found = done("verify", "--head", "heads.jsonl")
    assert found.code == 1
    assert "the store: 12 rows of events belong to no run: a run's row was taken away\n" in found.out
    assert "order-7 position 12: an exported head names this run, the store does not\n" in found.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("verify", "order-8"),
            "no run 'order-8' in sqlite:///.holdfast/holdfast.db\nhint: did you mean order-7?",
        ),
        (("verify", "--head", "none.jsonl"), "none.jsonl: No such file or directory"),
        (("verify", "--head", "shop.py"), "shop.py, line 2: "),
        (("verify", "--head", "."), ".: Is a directory"),
        (("verify", "--export-head", "no/such/heads"), "no/such/heads: No such file or directory"),
        (("verify", "--code", "shp"), "no module 'shp'"),
        (("replay",), "missing argument"),
        (("replay", "shp"), "no module 'shp'"),
        (("replay", "x.jsonl"), "no module was named"),
        (("replay", "shop", "none.jsonl"), "none.jsonl: No such file or directory"),
        (("replay", "shop", "bad.jsonl"), "bad.jsonl, line 1: not a JSON line"),
        (
            ("replay", "shop", "other.jsonl"),
            "other.jsonl is a run of 'nowhere', which the named modules do not define",
        ),
        (("replay", "shop", "--run", "order-8"), "no run 'order-8'"),
        (("replay", "shop", "bad.jsonl", "--run", "order-7"), "histories come from files or, with --run"),
    ],
)
def test_what_cannot_be_checked(done: Command, shop: Path, words: tuple[str, ...], message: str) -> None:
    (shop / "bad.jsonl").write_text("no json\n")
    line = '{"run":"r","position":1,"type":"run_created","at":"2026-01-01T00:00:00Z","key":"","data":'
    (shop / "other.jsonl").write_text(line + '{"workflow":"nowhere"}}')
    checked = done(*words)
    assert (checked.code, checked.out) == (2, "")
    assert message in checked.err


def test_replay(done: Command) -> None:
    assert done("replay", "shop").err == "the workflow prints\ntoday's code fits 2 runs, 22 events\n"
    assert done("replay", "shop", "--run", "f-1", "--run", "order-7").code == 0
    shown = [json.loads(line) for line in done("replay", "shop", "--json").lines]
    assert [(s["run"], s["workflow"], s["diverged"]) for s in shown] == [
        ("f-1", "fails", False),
        ("order-7", "fulfil", False),
    ]


def test_replay_tells_each_divergence(done: Command, shop: Path) -> None:
    text = (shop / "shop.py").read_text().replace("charge(amount), flaky(2)", "charge(amount), flaky(3)")
    (shop / "shop.py").write_text(text)
    line = next(number for number, line in enumerate(text.splitlines(), 1) if "flaky(3)" in line)
    found = child("replay", "shop", cwd=shop)
    out, err = found.communicate(timeout=PATIENCE)
    assert found.returncode == 1
    assert steady(out) == (
        "order-7 position 6: diverged\n"
        ' the log holds step_scheduled flaky#1 {"args":{"succeed_at":2}}\n'
        ' the code asks for step_scheduled flaky#1 {"args":{"succeed_at":3}}\n'
        f" at {shop / 'shop.py'}:{line}\n"
    )
    assert err == "the workflow prints\nthe workflow prints\n1 run of 2 runs, 22 events diverged\n"
    as_json = child("replay", "shop", "--run", "order-7", "--json", cwd=shop)
    shown = json.loads(as_json.communicate(timeout=PATIENCE)[0])
    assert (shown["position"], shown["where"]) == (6, f"{shop / 'shop.py'}:{line}")


def test_replay_of_a_module_that_has_no_runs(done: Command, shop: Path) -> None:
    (shop / "other.py").write_text("import holdfast as hf\n@hf.workflow\nasync def other() -> None: ...\n")
    none = done("replay", "other")
    assert (none.code, none.err) == (0, "no run of other to replay\n")
