"""Records of loggers say in fields what they are about; as JSON they are one line each."""

import asyncio
import json
import logging
import re
import sys
from pathlib import Path

import pytest

import holdfast as hf
from holdfast import events
from holdfast.cli.logs import log_to_stderr
from holdfast.logs import About, JsonLines

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests/worker"))

from worker_kit import parked

GATE = asyncio.Event()


@hf.step(name="logged.gated", retries=0)
async def gated() -> None:
    await GATE.wait()


@hf.workflow(name="logged.overtaken")
async def overtaken() -> None:
    await gated()
    await hf.sleep(3600)


async def test_a_refusal_is_one_record_with_run_site_and_distance(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "holdfast")
    GATE.clear()
    async with hf.connect("memory://") as app, app.worker() as worker:
        run = await app.start(overtaken)
        log = await app.store.read(run.id)
        other = events.new("attributes_set", key="attributes#1", data={"attributes": {"a": "b"}})
        await app.store.append(run.id, [other], after=log[-1].position)
        GATE.set()
        await parked(app, run.id)
        [refused] = [record for record in caplog.records if record.name == "holdfast.fence"]
        [told] = [r for r in caplog.records if r.levelno == logging.ERROR]  # that it is parked
        line = json.loads(JsonLines().format(refused))
        assert {"run": run.id, "worker": worker.id, "workflow": overtaken.name}.items() <= line.items()
        assert (line["site"], line["after"], line["distance"]) == ("timer_started", log[-1].position, 2)
        assert (line["logger"], line["level"]) == ("holdfast.fence", "info")
        assert "\n" not in JsonLines().format(refused)
        assert {"run": run.id, "worker": worker.id}.items() <= vars(told).items()
        await run.terminate()


def test_a_line_of_json_has_the_error_and_survives_anything(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr("json")
    log = About(logging.getLogger("holdfast.worker"), {"run": 'r"1'})
    try:
        raise ValueError("two\nlines")
    except ValueError:
        log.exception("%s: broke", "x", extra={"odd": {1}})
    [line] = capsys.readouterr().err.splitlines()
    found = json.loads(line)
    assert (found["message"], found["run"], found["odd"]) == ("x: broke", 'r"1', "{1}")
    assert "ValueError: two\nlines" in found["error"]


def test_every_logger_is_documented() -> None:
    page = (ROOT / "docs/how-to/observe.md").read_text()
    documented = set(re.findall(r"^\| `(holdfast\.\w+)` \|", page, re.MULTILINE))
    sources = "".join(path.read_text() for path in Path(hf.__file__).parent.rglob("*.py"))
    assert documented == set(re.findall(r'getLogger\("(holdfast\.\w+)"\)', sources))
