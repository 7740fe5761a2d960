"""`resume`, `wake`, `cancel`, `terminate`, `rerun`: acting from outside."""

import io
import json
import sys

import pytest
from cli_kit import Command


@pytest.fixture
def waiting(holdfast: Command) -> Command:
    assert holdfast("run", "shop:approve", "ana", "--run-id", "a-1", "--timeout", "0.05").code == 3
    return holdfast


def test_resume(waiting: Command) -> None:
    sent = waiting("resume", "approve:ana", '{"ok": true, "by": "ü"}', "--delivery-id", "mail-1")
    assert (sent.code, sent.out, sent.err) == (0, "a-1 has it, at position 5\n", "")
    again = waiting("resume", "approve:ana", '{"by": "ü", "ok": true}', "--delivery-id", "mail-1")
    assert (again.code, again.out) == (0, "a-1 had it already, at position 5\n")
    other = waiting("resume", "approve:ana", '{"ok": false}', "--delivery-id", "mail-1", "--json")
    assert other.code == 1
    assert "with another payload" in other.err
    assert json.loads(waiting("run", "shop:approve", "ana", "--run-id", "a-1").out) == {"by": "ü"}
    late = waiting("resume", "approve:ana", '{"ok": true}')
    assert (late.code, late.err) == (1, "error: no open hook 'approve:ana': its run has ended\n")


def test_resume_as_json(waiting: Command) -> None:
    sent = waiting("resume", "approve:ana", '{"ok": true}', "--json")
    assert json.loads(sent.out) == {"run": "a-1", "position": 5, "duplicate": False}


def test_resume_from_stdin(waiting: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"ok": true}\n'))
    assert waiting("resume", "approve:ana", "-").code == 0


@pytest.mark.parametrize(
    ("token", "payload", "message"),
    [
        ("approve:an", "{}", "no open hook 'approve:an': no run has opened it"),
        ("approve:an", "{}", "hint: did you mean approve:ana?\n"),
        ("zzz", "1", "hint: `holdfast hooks` lists the open ones\n"),
        ("approve:ana", "yes", "error: 'yes' is not JSON: Expecting value: line 1 column 1 (char 0)\n"),
        ("approve:ana", "yes", "hint: text needs quotes of its own: '\"yes\"'\n"),
        ("approve:ana", '{"ok"', "is not JSON"),
        ("approve:ana", "[" * 3000, "is not JSON"),
        (
            "approve:ana",
            '{"ok": "yes"}',
            "error: approve:ana payload: expected boolean, got string 'yes' - at `$.ok`\n",
        ),
        ("approve:ana", "{}", "expected the property 'ok'"),
        ("approve:ana", "-5", "expected object, got integer -5"),
        ("approve:ana'; DROP TABLE hooks; --", "{}", "no open hook "),
        ("", "{}", "no open hook ''"),
        ("approve:ana\x1b[31m", "{}", "\\x1b[31m"),
        ("\udcff", "{}", "'\\udcff'"),
    ],
)
def test_what_cannot_be_resumed(waiting: Command, token: str, payload: str, message: str) -> None:
    before = waiting("events", "a-1", "--json").out
    sent = waiting("resume", token, payload)
    assert (sent.code, sent.out) == (2, "")
    assert message in sent.err
    assert "\x1b" not in sent.err
    assert waiting("events", "a-1", "--json").out == before


def test_wake(holdfast: Command) -> None:
    assert holdfast("run", "shop:naps", "2026-01-31", "--run-id", "n-1", "--timeout", "0.05").code == 3
    assert holdfast("wake", "n-1", "--json").out == '{"run":"n-1","done":true,"status":"running"}\n'
    assert holdfast("run", "shop:naps", "2026-01-31", "--run-id", "n-1").out == '"2026-01-31"\n'
    late = holdfast("wake", "n-1")
    assert (late.code, late.out, late.err) == (1, "", "error: n-1 had ended already: completed\n")


def test_cancel(waiting: Command) -> None:
    asked = waiting("cancel", "a-1", "--reason", "ordered twice")
    assert (asked.code, asked.out) == (0, "a-1 is asked to cancel\n")
    done = waiting("run", "shop:approve", "ana", "--run-id", "a-1")
    assert (done.code, "was cancelled: ordered twice\n" in done.err) == (1, True)
    assert "  reason     ordered twice\n" in waiting("show", "a-1").out


def test_cancel_what_has_ended(holdfast: Command) -> None:
    holdfast("run", "shop:fulfil", "7", "--run-id", "order-7")
    late = holdfast("cancel", "order-7")
    assert (late.code, late.err) == (1, "error: order-7 had ended already: completed\n")


def test_terminate(waiting: Command) -> None:
    ended = waiting("terminate", "a-1", "--reason", "over")
    assert (ended.code, ended.out) == (0, "a-1 is cancelled\n")
    assert waiting("terminate", "a-1").code == 1
    shown = json.loads(waiting("show", "a-1", "--json").out)
    assert (shown["status"], shown["ended_by"], shown["reason"]) == ("cancelled", "terminate", "over")


def test_rerun_is_a_new_run_with_the_same_input_that_names_its_origin(holdfast: Command) -> None:
    first = holdfast("run", "shop:fulfil", "7", "customer=ben", "--run-id", "o-1", "--attribute", "who=ben")
    assert first.code == 0
    again = holdfast("rerun", "o-1")
    assert (again.code, again.err) == (0, "")
    new = again.out.strip()
    assert new != "o-1"
    shown = json.loads(holdfast("show", new, "--json").out)
    assert (shown["status"], shown["workflow"], shown["origin"]) == ("pending", "fulfil", "o-1")
    assert shown["attributes"] == {"who": "ben"}
    logs = [json.loads(holdfast("events", id, "--json").out.splitlines()[0])["data"] for id in ("o-1", new)]
    assert logs[0]["args"] == logs[1]["args"]
    assert logs[0]["seed"] != logs[1]["seed"]
    served = holdfast("run", "shop:fulfil", "7", "customer=ben", "--run-id", new)
    assert (served.code, served.out) == (0, first.out)
    assert "o-1, of which it repeats the input" in holdfast("show", new).out


def test_rerun_under_an_id_of_its_own(holdfast: Command) -> None:
    holdfast("run", "shop:fulfil", "7", "--run-id", "o-1")
    holdfast("run", "shop:fulfil", "8", "--run-id", "o-2")
    named = holdfast("rerun", "o-1", "--run-id", "o-3", "--json")
    assert json.loads(named.out) == {"run": "o-3", "workflow": "fulfil", "origin": "o-1"}
    assert holdfast("rerun", "o-1", "--run-id", "o-3").code == 0
    taken = holdfast("rerun", "o-1", "--run-id", "o-2")
    assert (taken.code, "exists already, with another input" in taken.err) == (1, True)
    unknown = holdfast("rerun", "o-9")
    assert (unknown.code, "no run 'o-9'" in unknown.err) == (2, True)
