"""`replay`: recorded histories, wherever they stand, against today's code, in one line of a test."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from pathlib import Path

import pytest

import holdfast as hf
from holdfast.errors import DefinitionError, PayloadError
from holdfast.replay import dump_history, load_history
from holdfast.testing import Rehearsal, replay, run_workflow
from holdfast.workflow import steps, workflows

GOLDEN = Path(__file__).parents[1] / "histories"


@hf.step
async def weigh(item: str) -> int: ...


@hf.workflow(name="parcel")
async def parcel(item: str) -> int:
    weight = await weigh(item)
    await asyncio.sleep(60)
    return weight


@hf.workflow(name="parcel")
async def parcel_of_today(item: str) -> int:
    return await weigh(item.upper())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three recorded runs; the third was going on."""
    (tmp_path / "old").mkdir()
    for name, item in (("one", "lamp"), ("old/two", "book")):
        dump_history(run_workflow(parcel, item, steps={"weigh": 3}).log, tmp_path / f"{name}.jsonl")
    with Rehearsal(parcel, "half-way") as run:
        run.complete("weigh#1", 3)
        dump_history(run.log, tmp_path / "three.jsonl")
    return tmp_path


def test_histories_are_found_wherever_they_are(folder: Path) -> None:
    files = sorted(folder.rglob("*.jsonl"))
    logs = [load_history(file) for file in files]
    lines = [line for file in files for line in file.read_text().splitlines()]
    for given, count in [
        (folder, 3),
        (str(folder), 3),
        (folder / "one.jsonl", 1),
        (f"{folder}/*.jsonl", 2),
        (f"{folder}/**/*.jsonl", 3),
        ([folder / "one.jsonl", str(folder / "old")], 2),
        (logs, 3),
        (logs[0], 1),
        (lines, 3),
        (iter(line.encode() for line in lines), 3),
        ([folder / "one.jsonl", logs[1], *lines], 5),
    ]:
        assert replay(given, [parcel]) == count


def test_a_divergence_names_file_position_and_both_sides(folder: Path) -> None:
    with pytest.raises(AssertionError) as caught:
        replay(folder, [parcel_of_today])
    first, *lines = str(caught.value).splitlines()
    assert first == "3 of 3 histories diverge:"
    assert lines[1].startswith(
        f"{folder}/one.jsonl: rehearsal, position 2: the log holds step_scheduled weigh#1"
    )
    assert '"item":"lamp"' in lines[1]
    assert '"item":"LAMP"' in lines[1]
    assert f"{__file__}:" in lines[1]


def test_what_would_pass_for_ever_is_refused(folder: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for nothing in (f"{folder}/*.json", empty, []):
        with pytest.raises(LookupError, match="no history in"):
            replay(nothing)
    with pytest.raises(PayloadError, match=r"none\.jsonl: No such file"):
        replay(folder / "none.jsonl")
    with pytest.raises(PayloadError, match="line"):
        replay(['{"position": 1, "nonsense": 1}'])
    with pytest.raises(DefinitionError, match="no workflow 'parcel' among other"):
        replay(folder, [hf.workflow(name="other")(parcel.fn)])


def test_workflows_may_be_given_as_the_module_that_defines_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (workflows, steps):
        monkeypatch.setattr(kind, "_known", {})  # its names are other modules' too
    spec = importlib.util.spec_from_file_location("workflows", GOLDEN / "workflows.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "workflows", module)  # exceptions are known by their module's name
    spec.loader.exec_module(module)
    assert replay(GOLDEN, [module]) == replay(GOLDEN, module) >= 9
