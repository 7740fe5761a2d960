"""`prune` as people call it; what may go is tested in tests/store/test_prune.py."""

import json

from cli_kit import Command


def test_prune(holdfast: Command) -> None:
    assert holdfast("run", "shop:fulfil", "7", "--run-id", "order-7").code == 0
    assert holdfast("run", "shop:fails", "--run-id", "f-1").code == 1
    assert holdfast("prune", "--older-than", "30d").err == "0 runs removed, 0 events\n"
    said = holdfast("prune", "--older-than", "0 s", "--dry-run")
    assert (said.code, said.out, said.err) == (0, "", "2 runs would be removed, 22 events\n")
    failed = holdfast("prune", "--older-than", "0s", "--status", "failed", "--json")
    assert json.loads(failed.out) == {"runs": 1, "events": 10, "kept": {}, "dry_run": False}
    assert holdfast("prune", "--older-than", "0s", "--workflow", "fails").err == "0 runs removed, 0 events\n"
    assert holdfast("prune", "--older-than", "0s", "--batch", "1").err == "1 run removed, 12 events\n"
    assert holdfast("runs", "--json").out == ""
    assert holdfast("verify").code == 0


def test_prune_says_what_it_cannot_read(holdfast: Command) -> None:
    assert holdfast("run", "shop:fulfil", "7").code == 0
    for words in (["30"], ["5m"], ["-3d"], ["soon"], ["1d", "--status", "running"], ["1d", "--batch", "0"]):
        said = holdfast("prune", "--older-than", *words)
        assert said.code == 2, words
        assert said.err.startswith("error: "), said.err
    assert len(holdfast("runs", "--json").out.splitlines()) == 1
    assert holdfast("prune", "--older-than", "1d", "--store", "sqlite:///none.db").code == 2
