"""`run`, `start`, `worker`: with the user's code."""

import json
import signal
from pathlib import Path

import pytest
from cli_kit import Command, child, steady
from patience import PATIENCE

# ---- run


def test_the_result_is_on_stdout_and_nothing_else_is(holdfast: Command) -> None:
    done = holdfast("run", "shop:fulfil", "7")
    assert done.code == 0
    assert json.loads(done.out) == "ana paid 7 after 2 tries"
    assert steady(done.err) == "the workflow prints\nrun RUN-ID of fulfil\n"


def test_a_run_as_json(holdfast: Command) -> None:
    done = holdfast("run", "shop:fulfil", "7", "--run-id", "order-7", "--json")
    assert json.loads(done.out) == {
        "run": "order-7",
        "status": "completed",
        "result": "ana paid 7 after 2 tries",
    }


def test_the_same_id_and_input_is_the_same_run(holdfast: Command) -> None:
    first = holdfast("run", "shop:fulfil", "7", "--run-id", "order-7")
    again = holdfast("run", "shop:fulfil", "7", "--run-id", "order-7")
    assert (again.code, again.out) == (0, first.out)
    other = holdfast("run", "shop:fulfil", "8", "--run-id", "order-7")
    assert other.code == 1
    assert other.err.endswith(
        "error: run 'order-7' exists already, with another input: choose another run_id, or the same input\n"
    )
    assert len(holdfast("runs", "--json").lines) == 1


def test_a_run_that_fails(holdfast: Command) -> None:
    done = holdfast("run", "shop:fails", "--run-id", "f-1")
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        "run f-1 of fails\n"
        "error: run f-1 failed: ValueError: attempt 3 failed\n"
        "hint: `holdfast show f-1` tells more\n"
    )
    as_json = holdfast("run", "shop:fails", "--run-id", "f-1", "--json")
    assert as_json.code == 1
    shown = json.loads(as_json.out)
    assert (shown["status"], shown["error"]["message"]) == ("failed", "attempt 3 failed")


def test_a_run_that_takes_too_long_goes_on(holdfast: Command) -> None:
    done = holdfast("run", "shop:naps", "2026-01-31", "--run-id", "n-1", "--timeout", "0.2")
    assert (done.code, done.out) == (3, "")
    assert "error: run n-1 has not ended within 0.2 s; it goes on\n" in done.err
    assert json.loads(holdfast("show", "n-1", "--json").out)["status"] == "running"
    assert holdfast("wake", "n-1").out == "n-1 is awake\n"
    again = holdfast("run", "shop:naps", "2026-01-31", "--run-id", "n-1")
    assert (again.code, json.loads(again.out)) == (0, "2026-01-31")


def test_a_run_that_is_cancelled_elsewhere(holdfast: Command) -> None:
    holdfast("start", "shop:naps", "2026-01-31", "--run-id", "n-1")
    holdfast("cancel", "n-1", "--reason", "too long")
    done = holdfast("run", "shop:naps", "2026-01-31", "--run-id", "n-1")
    assert (done.code, done.out) == (1, "")
    assert "error: run n-1 was cancelled: too long\n" in done.err


def test_a_run_that_diverges_is_parked_and_says_so(holdfast: Command, shop: Path) -> None:
    holdfast("run", "shop:approve", "ana", "--run-id", "a-1", "--timeout", "0.1")
    holdfast("resume", "approve:ana", '{"ok": true}')
    text = (shop / "shop.py").read_text()
    (shop / "shop.py").write_text(text.replace("approve:{name}", "ask:{name}"))
    process = child("run", "shop:approve", "ana", "--run-id", "a-1", cwd=shop)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (1, "")
    assert (
        "error: run a-1 is parked (diverged): a-1, position 3: the log holds hook_opened approve:ana#1" in err
    )
    assert err.endswith("hint: `holdfast why a-1` says what to do\n")
    assert "Traceback" not in err


def test_the_store_may_be_in_memory(holdfast: Command, shop: Path) -> None:
    assert holdfast("run", "shop:fulfil", "7", "--store", "memory://").code == 0
    assert not (shop / ".holdfast").exists()


def test_the_store_is_named_by_the_environment(
    holdfast: Command, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_URL", "sqlite:///named.db")
    assert holdfast("run", "shop:fulfil", "7").code == 0
    assert (shop / "named.db").exists()
    assert len(holdfast("runs", "--json").lines) == 1


def test_attributes(holdfast: Command) -> None:
    holdfast("run", "shop:fulfil", "7", "--attribute", "tier=gold", "--attribute", "a=b=c")
    assert json.loads(holdfast("runs", "--json").out)["attributes"] == {
        "tier": "gold",
        "a": "b=c",
        "customer": "ana",
    }
    assert holdfast("run", "shop:fulfil", "7", "--attribute", "tier").code == 2


# ---- arguments


@pytest.mark.parametrize(
    ("words", "result"),
    [
        ((), [[], False, {}]),
        (("a", '"b"', "7", "true", "null", "ü"), [["a", "b", "7", "true", "null", "ü"], False, {}]),
        (("loud=true", "-5", "n=-5", "--", "--x"), [["-5", "--x"], True, {"n": -5}]),
        (("",), [[""], False, {}]),
    ],
)
def test_words_become_arguments(holdfast: Command, words: tuple[str, ...], result: object) -> None:
    done = holdfast("run", "shop:echo", *words)
    assert (done.code, json.loads(done.out)) == (0, result), done.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("fulfil",), "fulfil: missing a required argument: 'amount'\nhint: it takes (amount: "),
        (("fulfil", "x"), "argument amount: 'x' is not JSON: "),
        (("fulfil", '{"a":'), "argument amount: '{\"a\":' is not JSON: "),
        (("fulfil", "NaN"), "argument amount: 'NaN' is not JSON: NaN is no JSON number"),
        (("fulfil", "1.5"), "fulfil argument amount: expected `int`, got `float`"),
        (("fulfil", "[" * 5000), "is not JSON: "),
        (("fulfil", "1", "ana", "3"), "fulfil: too many arguments from '3' on"),
        (("fulfil", "amunt=3"), "fulfil has no parameter 'amunt'\nhint: did you mean amount?"),
        (("fulfil", "1", "amount=3"), "fulfil: multiple values for argument 'amount'"),
        (("fulfil", "1", "ana", "--stroe", "x"), "no such option --stroe"),
        (("naps", "tomorrow"), "argument day: 'tomorrow' is not JSON"),
        (("echo", "n=x"), "argument n: 'x' is not JSON"),
    ],
)
def test_arguments_that_do_not_fit(
    holdfast: Command, words: tuple[str, ...], message: str, shop: Path
) -> None:
    done = holdfast("run", f"shop:{words[0]}", *words[1:])
    assert (done.code, done.out) == (2, "")
    assert f"error: {message}" in done.err or message in done.err
    assert not (shop / ".holdfast").exists()


# ---- modules


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("shp:fulfil", "no module 'shp' in the current directory or on the path\nhint: did you mean shop?"),
        ("shop:fulfill", "shop has no workflow 'fulfill'\nhint: did you mean fulfil?"),
        ("shop:zzz", "shop has no workflow 'zzz'\nhint: it defines fulfil, approve, fails, naps, echo"),
        ("shop", "shop defines 5 workflows: name one\nhint: shop:fulfil, "),
        ("shop:charge", "shop:charge is a step, not a workflow"),
        ("shop:plain", "shop:plain is a plain function\nhint: put @hf.workflow above"),
        ("shpo.py:fulfil", "no file shpo.py\nhint: did you mean shop.py?"),
        ("a b:c", "'a b' is no module name"),
        (":c", "'' is no module name"),
        ("json:loads", "json:loads is a plain function"),
        ("json", "json defines no workflow"),
        ("os.path.nothing:x", "no module 'os.path.nothing'"),
        ("..shop:x", "'..shop' is no module name"),
        ("'; DROP TABLE runs; --:x", "is no module name"),
    ],
)
def test_modules_that_cannot_be_had(holdfast: Command, spec: str, message: str) -> None:
    done = holdfast("run", spec)
    assert (done.code, done.out) == (2, "")
    assert f"error: {message}" in done.err or message in done.err
    assert len(done.err.splitlines()) <= 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "import holdfast\nimport nothing_like_this\n",
            ":2: ModuleNotFoundError: No module named 'nothing_like_this'",
        ),
        ("x = 1\n\ndef f(:\n", ":3: SyntaxError: "),
        ("def f():\n    raise ValueError('a\\nb')\nf()\n", ":2: ValueError: a b"),
        ("import sys\nsys.exit(3)\n", ":2: SystemExit: 3"),
        (
            "import holdfast as hf\n@hf.workflow\ndef f(): ...\n",
            "DefinitionError: f: a workflow is an `async def`",
        ),
        ("import json\njson.loads('{')\n", ":2: JSONDecodeError: "),
    ],
)
def test_an_error_in_the_users_module_is_one_line_with_its_place(
    holdfast: Command, shop: Path, text: str, message: str
) -> None:
    (shop / "odd.py").write_text(text)
    done = holdfast("run", "odd:f")
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    assert done.err.startswith(f"error: cannot import odd: {shop / 'odd.py'}:")
    assert message in done.err


def test_a_path_is_as_good_as_a_name(holdfast: Command, shop: Path) -> None:
    assert holdfast("run", "shop.py:fulfil", "7").code == 0
    assert holdfast("run", f"{shop}/shop.py:fulfil", "7").code == 0


def test_a_file_in_a_package_has_its_name_in_the_package(holdfast: Command, shop: Path) -> None:
    (shop / "pkg").mkdir()
    (shop / "pkg" / "__init__.py").touch()
    (shop / "pkg" / "flow.py").write_text(
        "import holdfast as hf\nfrom . import other\n"
        "@hf.workflow\nasync def name() -> str:\n    return __name__\n"
    )
    (shop / "pkg" / "other.py").touch()
    assert holdfast("run", "pkg/flow.py").out == '"pkg.flow"\n'
    assert holdfast("run", "pkg.flow:name").out == '"pkg.flow"\n'


def test_a_file_whose_name_is_taken(holdfast: Command, shop: Path) -> None:
    (shop / "json.py").write_text("")
    done = holdfast("run", "json.py:x")
    assert done.code == 2
    assert "json.py cannot be imported: " in done.err
    assert "has its name; rename it" in done.err


def test_what_a_module_prints_is_not_data(holdfast: Command, shop: Path) -> None:
    (shop / "loud.py").write_text("print('loading')\nfrom shop import fulfil\n")
    done = holdfast("run", "loud:fulfil", "7")
    assert json.loads(done.out) == "ana paid 7 after 2 tries"
    assert "loading\n" in done.err


# ---- start and worker


def test_start_leaves_the_run_to_workers(holdfast: Command) -> None:
    done = holdfast("start", "shop:fulfil", "7", "--run-id", "order-7")
    assert (done.code, done.out, done.err) == (0, "order-7\n", "")
    assert json.loads(holdfast("runs", "--json").out)["status"] == "pending"
    again = holdfast("start", "shop:fulfil", "7", "--run-id", "order-7", "--json")
    assert json.loads(again.out) == {"run": "order-7", "workflow": "fulfil"}


@pytest.mark.parametrize("command", ["start", "worker"])
def test_memory_is_no_store_for_others(holdfast: Command, command: str) -> None:
    done = holdfast(command, "shop" if command == "worker" else "shop:fulfil", "--store", "memory://")
    assert done.code == 2


def test_a_worker_needs_workflows(holdfast: Command, shop: Path) -> None:
    (shop / "empty.py").touch()
    done = holdfast("worker", "empty")
    assert (done.code, done.out) == (2, "")
    assert "error: empty defines no workflow\n" in done.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_serves_until_it_is_told_to_stop(
    holdfast: Command, shop: Path, number: signal.Signals
) -> None:
    holdfast("start", "shop:fulfil", "7", "--run-id", "order-7")
    worker = child("worker", "shop.py", "--concurrency", "3", cwd=shop)
    assert worker.stderr is not None
    ready = worker.stderr.readline()
    assert steady(ready) == (
        "worker WORKER serves fulfil, approve, fails, naps, echo on sqlite:///.holdfast/holdfast.db\n"
    )
    followed = holdfast("events", "order-7", "--follow", "--json")
    assert [json.loads(line)["type"] for line in followed.lines][-1] == "run_completed"
    worker.send_signal(number)
    out, err = worker.communicate(timeout=PATIENCE)
    assert worker.returncode == 0
    assert out == "the workflow prints\n"
    assert err == (
        "stopping: running steps finish first (once more: stop at once)\n"
        "stopped: its runs are free for others\n"
    )


def test_a_worker_whose_words_nobody_reads_stops_all_the_same(shop: Path) -> None:
    """A closed pipe at the signal left it running for ever, whatever the number of signals."""
    worker = child("worker", "shop.py", cwd=shop)
    assert worker.stdout is not None
    assert worker.stderr is not None
    worker.stderr.readline()
    worker.stdout.close()
    worker.stderr.close()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=PATIENCE) == 0


SLOW = """
import asyncio, pathlib
import holdfast as hf

@hf.step
async def waits_for_file() -> str:
    pathlib.Path("began").touch()
    while not pathlib.Path("go").exists():
        await asyncio.sleep(0.01)
    return "done"

@hf.workflow
async def slow() -> str:
    return await waits_for_file()
"""


def test_a_stopping_worker_lets_its_step_finish(holdfast: Command, shop: Path) -> None:
    (shop / "slow.py").write_text(SLOW)
    holdfast("start", "slow:slow", "--run-id", "s-1")
    worker = child("worker", "slow", cwd=shop)
    assert worker.stderr is not None
    worker.stderr.readline()
    follow = child("events", "s-1", "--follow", cwd=shop)
    assert follow.stdout is not None
    assert any("step_started" in line for line in follow.stdout), follow.communicate()
    worker.send_signal(signal.SIGTERM)
    assert worker.stderr.readline().startswith("stopping: running steps finish first")
    (shop / "go").touch()
    worker.communicate(timeout=PATIENCE)
    assert worker.returncode == 0
    shown = json.loads(holdfast("show", "s-1", "--json").out)
    assert [(step["status"], step["attempts"]) for step in shown["steps"]] == [("completed", 1)]
    assert holdfast("run", "slow:slow", "--run-id", "s-1").out == '"done"\n'
    follow.communicate(timeout=PATIENCE)
    assert follow.returncode == 0


@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupted_run_goes_on_later(holdfast: Command, shop: Path, times: int) -> None:
    (shop / "slow.py").write_text(SLOW)
    process = child("run", "slow:slow", "--run-id", "s-1", cwd=shop)
    assert process.stderr is not None
    assert process.stderr.readline() == "run s-1 of slow\n"
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline().startswith("interrupted: running steps finish first")
    if times == 2:
        process.send_signal(signal.SIGINT)
    else:
        (shop / "go").touch()
    out, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (130, "")
    (shop / "go").touch()
    assert holdfast("run", "slow:slow", "--run-id", "s-1").out == '"done"\n'
