"""`holdfast schedules`: the list, and one paused, resumed, forgotten."""

import asyncio
import json

import msgspec
import pytest
from cli_kit import Command

import holdfast as hf
from holdfast.clock import from_text
from holdfast.store import open_store
from holdfast.store.rows import ScheduleRow, WorkerRow

STORE = "sqlite:///office.db"
DUE = from_text("2026-03-27T08:00:00Z")
ROW = ScheduleRow("report", "0 9 * * *", "Europe/Berlin", "latest", DUE)


@pytest.fixture
def office(holdfast: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    """A store with a schedule that is nobody's and was due at 9 in Berlin, and one that a machine cannot read."""
    monkeypatch.setenv("HOLDFAST_URL", STORE)

    async def fill() -> None:
        async with open_store(STORE) as store:
            await store.swap_schedule(None, ROW)
            await store.swap_schedule(
                None, ScheduleRow("mars\n", "0 9 * * *", "Mars/Olympus", "none", DUE + 1)
            )

    asyncio.run(fill())
    return holdfast


def row(name: str = "report") -> ScheduleRow | None:
    async def read() -> list[ScheduleRow]:
        async with open_store(STORE) as store:
            return await store.schedules()

    return {found.workflow: found for found in asyncio.run(read())}.get(name)


def test_the_list_tells_times_in_the_time_zone_of_each(office: Command) -> None:
    header, mars, report = office("schedules").lines
    assert header.split("  ")[0] == "WORKFLOW"
    assert mars.split() == ["mars\\n", *["0", "9", "*", "*", "*"], "Mars/Olympus", "nobody's"]
    assert "2026-03-27 09:00:00+01:00  2026-03-28 09:00:00+01:00  nobody's" in report


def test_the_list_as_json_and_after_the_change_of_the_clock(office: Command) -> None:
    _, told = map(json.loads, office("schedules", "--json").lines)
    assert told == {
        "workflow": "report",
        "schedule": "0 9 * * *",
        "timezone": "Europe/Berlin",
        "missed": "latest",
        "last_due_at": "2026-03-27T08:00:00.000000Z",
        "next_due_at": "2026-03-28T08:00:00.000000Z",
        "paused": False,
        "nobodys": True,
    }


def test_a_schedule_whose_worker_gives_no_sign_of_life_is_nobodys(office: Command) -> None:
    async def keep(expires: int) -> None:
        async with open_store(STORE) as store:
            await store.enlist(WorkerRow("w1", 1, "elsewhere", expires))
            was = next(found for found in await store.schedules() if found.workflow == "report")
            await store.swap_schedule(was, msgspec.structs.replace(was, keeper="w1"))

    asyncio.run(keep(from_text("2100-01-01T00:00:00Z")))
    assert not json.loads(office("schedules", "--json").lines[1])["nobodys"]
    asyncio.run(keep(DUE))
    assert json.loads(office("schedules", "--json").lines[1])["nobodys"]


def test_pause_and_resume_begin_anew(office: Command) -> None:
    assert office("schedules", "pause", "report").out == "report is paused\n"
    found = row()
    assert found is not None
    assert (found.paused, found.since) == (True, DUE)
    assert office("schedules").lines[2].endswith("paused nobody's")
    assert office("schedules", "resume", "report").code == 0
    found = row()
    assert found is not None
    assert not found.paused
    assert found.since > DUE  # what was due meanwhile is not made up for
    assert json.loads(office("schedules", "resume", "report", "--json").out) == {
        "workflow": "report",
        "state": "on",
    }
    assert row() == found  # and to resume what runs changes nothing


def test_what_is_forgotten_is_gone(office: Command) -> None:
    assert office("schedules", "forget", "report").code == 0
    assert row() is None
    gone = office("schedules", "pause", "report")
    assert (gone.code, gone.err.splitlines()[0]) == (1, f"error: no schedule of 'report' in {STORE}")


def test_what_is_asked_wrongly_is_said_in_a_line(office: Command) -> None:
    assert office("schedules", "paus", "report").err.splitlines() == [
        "error: expected pause, resume, forget or nothing, got 'paus'",
        "hint: did you mean pause?",
    ]
    assert office("schedules", "pause").code == 2


def test_a_schedule_that_a_worker_keeps_is_on(office: Command) -> None:
    async def work() -> list[str]:
        @hf.workflow(name="report", schedule="0 9 * * *", timezone="Europe/Berlin", missed="none")
        async def report() -> None: ...

        async with hf.connect(STORE) as app, app.worker():
            return (await asyncio.to_thread(office, "schedules")).lines

    assert asyncio.run(work())[2].endswith("on")
