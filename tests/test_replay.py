"""Replay, offline: golden histories, changed code, files that are no histories."""

import importlib.util
import json
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import pytest
from patience import PATIENCE

import holdfast as hf
from holdfast.cli.follow import follow
from holdfast.replay import check_run, dump_history, load_history, replay_run, replay_store
from holdfast.workflow import steps, workflows

HISTORIES = Path(__file__).parent / "histories"
GOLDEN = sorted(HISTORIES.glob("*.jsonl"))


def load(path: Path) -> ModuleType:
    """Import a file as a module of its own."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


golden = load(HISTORIES / "workflows.py")
CODE = {workflow.name: workflow for workflow in vars(golden).values() if hasattr(workflow, "version")}


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test defines its own workflows, some of the same name."""
    monkeypatch.setattr(workflows, "_known", {})
    monkeypatch.setattr(steps, "_known", {})


# ---- golden histories


def test_there_are_histories_of_each_kind() -> None:
    assert {path.stem for path in GOLDEN} >= {
        "sequence",
        "gather_and_race",
        "hooks_and_timers",
        "retries_and_failure",
        "cancelled_with_finally",
        "patched_before",
        "patched_after",
        "in_flight",
    }


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_the_golden_history_still_replays(path: Path) -> None:
    events = load_history(path)
    outcome = replay_run(events, CODE[events[0].data["workflow"]])
    assert outcome.position == len(events)
    assert outcome.ended == (path.stem != "in_flight")
    assert outcome.open_commands == 0


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_every_beginning_of_a_golden_history_replays(path: Path) -> None:
    """The prefix law: what a prefix yields is what the log recorded next."""
    events = load_history(path)
    commands = [(e.type, e.key) for e in events if e.cls == "command"]
    for length in range(1, len(events)):
        outcome = check_run(events[:length], CODE[events[0].data["workflow"]])
        assert outcome.divergence is None
        there = sum(event.cls == "command" for event in events[:length])
        assert outcome.open_commands <= len(commands) - there


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_history_is_written_as_it_was_read(path: Path, tmp_path: Path) -> None:
    dump_history(load_history(path), tmp_path / "copy.jsonl")
    assert (tmp_path / "copy.jsonl").read_bytes() == path.read_bytes()


# ---- changed code

SHOP = """
import asyncio
import holdfast as hf

@hf.step
async def charge(amount: int) -> int:
    return amount

@hf.step
async def pack(what: str) -> str:
    return what

@hf.workflow
async def fulfil(amount: int) -> str:
    paid = await charge(amount)
    done, label = await asyncio.gather(pack("book"), pack("label"))
    await asyncio.sleep(60)
    return f"{paid} {done} {label}"
"""


@pytest.fixture
async def history(tmp_path: Path) -> Path:
    """A run of SHOP that has ended, as a file."""
    shop = write_shop(tmp_path, SHOP)
    async with hf.connect("memory://") as app, app.worker():
        run = await app.start(shop.fulfil, 7, run_id="order-7")
        async for page in follow(app.store, run.id):
            if any(event.type == "timer_started" for event in page):
                break
        await run.wake()
        assert await run.result(PATIENCE) == "7 book label"
        dump_history(await app.store.read("order-7"), tmp_path / "order-7.jsonl")
    return tmp_path / "order-7.jsonl"


def write_shop(folder: Path, text: str) -> ModuleType:
    """`shop.py` with this text, imported; what was defined before it is forgotten."""
    workflows._known.clear()
    steps._known.clear()
    (folder / "shop.py").write_text(textwrap.dedent(text))
    return load(folder / "shop.py")


def line_of(text: str, part: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if part in line)


def diverged(folder: Path, history: Path, old: str, new: str) -> tuple[hf.ReplayDivergence, str]:
    assert old in SHOP
    text = SHOP.replace(old, new)
    write_shop(folder, text)
    with pytest.raises(hf.ReplayDivergence) as caught:
        replay_run(load_history(history))
    return caught.value, text


def test_the_same_code_replays(tmp_path: Path, history: Path) -> None:
    write_shop(tmp_path, SHOP)
    assert replay_run(load_history(history)).ended


def test_another_argument_diverges(tmp_path: Path, history: Path) -> None:
    error, text = diverged(tmp_path, history, "await charge(amount)", "await charge(amount + 1)")
    assert error.position == 3
    assert error.expected == 'step_scheduled charge#1 {"args":{"amount":7}}'
    assert error.asked == 'step_scheduled charge#1 {"args":{"amount":8}}'
    assert error.where == f"{tmp_path / 'shop.py'}:{line_of(text, 'charge(amount + 1)')}"
    assert "order-7, position 3" in str(error)
    assert "hf.patched" in str(error)


def test_a_step_in_a_gather_is_found_in_its_line(tmp_path: Path, history: Path) -> None:
    error, text = diverged(tmp_path, history, 'pack("label")', 'pack("sticker")')
    assert error.position == 8
    assert error.where == f"{tmp_path / 'shop.py'}:{line_of(text, 'sticker')}"


def test_another_order_diverges(tmp_path: Path, history: Path) -> None:
    swapped = 'pack("label"), pack("book")'
    error, _ = diverged(tmp_path, history, 'pack("book"), pack("label")', swapped)
    assert error.position == 6
    assert '"what":"book"' in error.expected
    assert '"what":"label"' in error.asked


def test_a_step_less_diverges(tmp_path: Path, history: Path) -> None:
    error, text = diverged(tmp_path, history, "    await asyncio.sleep(60)\n", "")
    assert error.position == 12
    assert error.expected.startswith("timer_started sleep#1")
    assert error.asked.startswith("run_completed")
    assert text


def test_a_step_more_at_the_end_diverges(tmp_path: Path, history: Path) -> None:
    error, text = diverged(tmp_path, history, "    return f", "    await charge(0)\n    return f")
    assert error.expected.startswith("run_completed")
    assert error.asked == 'step_scheduled charge#2 {"args":{"amount":0}}'
    assert error.where == f"{tmp_path / 'shop.py'}:{line_of(text, 'charge(0)')}"


def test_code_that_waits_longer_asks_for_nothing_more(tmp_path: Path, history: Path) -> None:
    error, _ = diverged(tmp_path, history, "    return f", "    await asyncio.Event().wait()\n    return f")
    assert error.expected.startswith("run_completed")
    assert error.asked == "nothing more"
    assert error.where == ""


def test_another_result_diverges(tmp_path: Path, history: Path) -> None:
    error, _ = diverged(tmp_path, history, 'return f"{paid} {done}', 'return f"{paid}, {done}')
    assert error.expected.startswith('run_completed {"value":"7 book label"')


def test_a_renamed_parameter_diverges_and_says_so(tmp_path: Path, history: Path) -> None:
    error, _ = diverged(tmp_path, history, "fulfil(amount: int)", "fulfil(total: int)")
    assert error.position == 1
    assert "today's signature refuses" in error.asked


def test_a_new_parameter_with_a_default_is_no_change(tmp_path: Path, history: Path) -> None:
    write_shop(tmp_path, SHOP.replace("charge(amount: int)", "charge(amount: int, currency: str = 'EUR')"))
    assert replay_run(load_history(history)).divergence is None


PATCHED = SHOP.replace(
    "    await asyncio.sleep(60)\n",
    """    if hf.patched("no-nap"):
        await charge(1)
    else:
        await asyncio.sleep(60)
""",
)


async def test_patched_lets_a_change_through_for_old_runs_and_new(tmp_path: Path, history: Path) -> None:
    shop = write_shop(tmp_path, PATCHED)
    assert replay_run(load_history(history)).ended
    async with hf.connect("memory://") as app, app.worker():
        run = await app.start(shop.fulfil, 8)
        assert await run.result(PATIENCE) == "8 book label"
        events = [event async for event in run.events()]
    assert [e.type for e in events].count("patched") == 1
    assert "timer_started" not in {e.type for e in events}
    assert replay_run(events).ended


def test_a_run_in_flight_may_ask_for_more(tmp_path: Path, history: Path) -> None:
    write_shop(tmp_path, SHOP)
    events = load_history(history)
    outcome = replay_run(events[:5])
    assert not outcome.ended
    assert outcome.open_commands == 2


def test_a_terminated_run_replays_up_to_its_end(tmp_path: Path, history: Path) -> None:
    write_shop(tmp_path, SHOP)
    events = load_history(history)[:5]
    line = json.loads(events[-1].to_json())
    line |= {"position": 6, "type": "run_cancelled", "key": "", "data": {"reason": "", "by": "terminate"}}
    with history.open("wb") as file:
        file.writelines(event.to_json() + b"\n" for event in events)
        file.write(json.dumps(line).encode())
    outcome = replay_run(load_history(history))
    assert outcome.ended
    assert outcome.divergence is None


def test_a_workflow_that_nobody_defines(history: Path) -> None:
    text = history.read_text().replace('"workflow":"fulfil"', '"workflow":"nowhere"')
    history.write_text(text)
    with pytest.raises(hf.DefinitionError, match="no workflow 'nowhere' is defined here"):
        replay_run(load_history(history))


async def test_a_store_is_replayed_run_by_run(tmp_path: Path) -> None:
    shop = write_shop(tmp_path, PATCHED)
    async with hf.connect(f"sqlite:///{tmp_path / 'app.db'}") as app:
        async with app.worker():
            for number in range(5):
                run = await app.start(shop.fulfil, number, run_id=f"order-{number}")
                await run.result(PATIENCE)
        outcomes = [outcome async for outcome in replay_store(app.store, ["fulfil"])]
        assert [outcome.run for outcome in outcomes] == [f"order-{n}" for n in (4, 3, 2, 1, 0)]
        assert not any(outcome.divergence for outcome in outcomes)
        assert [o.run async for o in replay_store(app.store, ["other"])] == []
        write_shop(tmp_path, PATCHED.replace("await charge(1)", "await charge(2)"))
        outcomes = [outcome async for outcome in replay_store(app.store, run_id="order-3")]
        assert [(o.run, o.divergence is not None) for o in outcomes] == [("order-3", True)]
        with pytest.raises(hf.RunNotFound):
            [outcome async for outcome in replay_store(app.store, run_id="order-9")]


# ---- files that are no histories

LINE = (
    '{"run":"r","position":1,"type":"run_created","at":"2026-01-01T00:00:00Z","key":"",'
    '"data":{"workflow":"w","args":{}}}'
)
SECOND = '{"run":"r","position":2,"type":"run_started","at":"2026-01-01T00:00:00Z","key":"","data":{}}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no event"),
        ("\n\n", "holds no event"),
        ("no json\n", "line 1: not a JSON line"),
        (f"{LINE}\n{{", "line 2: not a JSON line"),
        (f'{LINE}\n"\xff', "line 2: not a JSON line"),
        (f"{LINE}\n[]", "line 2: expected `object`, got `array`"),
        (f"{LINE}\n{{}}", "line 2: object missing required field `run`"),
        (LINE.replace('"r"', "5"), "line 1: expected `str`, got `int` - at `$.run`"),
        (LINE.replace('"run":', '"job":'), "line 1: "),
        (LINE.replace('"position":1', '"position":2'), "line 1: expected position 1, got 2"),
        (f"{LINE}\n{LINE}", "line 2: expected position 2, got 1"),
        (f"{LINE}\n\n" + SECOND.replace("2,", "4,"), "line 3: expected position 2, got 4"),
        (SECOND.replace(":2,", ":1,"), "line 1: expected run_created, got run_started"),
        (f"{LINE}\n" + SECOND.replace("run_started", "run_flew"), "line 2: no event type 'run_flew'"),
        (f"{LINE}\n" + SECOND.replace('"r"', '"s"'), "line 2: expected run 'r', got 's'"),
        (f"{LINE}\n" + SECOND.replace("{}", "3"), "line 2: expected data to be an object"),
        (f"{LINE}\n" + SECOND.replace(',"data":{}', ""), "line 2: expected data to be an object, got none"),
        (LINE.replace("2026-01-01T00:00:00Z", "today"), "line 1: expected a time with its zone in `at`"),
        (LINE.replace("00:00:00Z", "00:00:00"), "line 1: expected a time with its zone in `at`"),
    ],
)
def test_what_is_no_history_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "odd.jsonl"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(hf.PayloadError) as caught:
        load_history(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(hf.PayloadError, match="No such file"):
        load_history(tmp_path / "none.jsonl")


def test_odd_text_survives_the_file(tmp_path: Path) -> None:
    """Lone surrogates and NUL are written as escapes, which plain readers of JSON accept."""
    odd = LINE.replace('"args":{}', '"args":{"x":"\\ud800\\u0000 ü"}')
    (tmp_path / "odd.jsonl").write_text(odd)
    (event,) = load_history(tmp_path / "odd.jsonl")
    assert event.data["args"] == {"x": "\ud800\x00 ü"}
    dump_history([event], tmp_path / "again.jsonl")
    assert load_history(tmp_path / "again.jsonl")[0].data == event.data
