"""Queues and schedules in the browser: how they stand, as they change, and what may be done with them."""

import page_flows as flows
import pytest
from playwright.async_api import expect

import holdfast as hf
from holdfast.events import new
from holdfast.store.rows import ScheduleRow, WorkerRow

pytestmark = pytest.mark.asyncio(loop_scope="session")

NAME = "<b>gpu</b> 'q' \"" + "long" * 40


async def asked(store, run, queue, number):
    """A run that asks for steps of a queue."""
    data = {"workflow": "w", "args": {}, "seed": 1, "python": "3.11"}
    steps = [
        new("step_scheduled", key=f"draw#{n + 1}", data={"args": {}, "queue": queue}) for n in range(number)
    ]
    await store.append(run, [new("run_created", data=data), new("run_started"), *steps], after=0)


async def cells(page, row):
    return [" ".join(text.split()) for text in await row.locator("td").all_inner_texts()]


async def test_queues_show_what_waits_what_runs_and_the_limits_that_are_known(site, page):
    store = site.app.store
    await page.goto("/queues")
    await expect(page.locator("#pulse.live")).to_be_visible()
    for queue in ("page-mail", NAME):
        await expect(page.locator("[data-row]").filter(has_text=queue)).to_have_count(
            int(queue == "page-mail")
        )
    await asked(store, "r1", "page-mail", 3)
    await asked(store, "r2", NAME, 1)
    mail = page.locator("[data-row]").filter(has_text="page-mail")
    await expect(mail.locator(".number").first).to_have_text("3")  # it is live
    await store.enlist(WorkerRow("w1", 1, "here", store.clock.now() + 600_000_000))
    taken = await store.take_steps("w1", [flows.mail], ["draw"], 10)
    assert len(taken.steps) == 2
    for step in taken.steps:
        await store.append(step.run, [new("step_started", key=step.key, data={"attempt": 1, "worker": "w1"})])
    await expect(mail.locator(".number").nth(1)).to_have_text("2 of 2")
    await expect(mail.locator(".tag")).to_have_text(["2 at once", "1 a key", "100 in 1 min"])
    other = page.locator("[data-row]").filter(has_text="<b>gpu</b>")
    await expect(other).to_contain_text("in its workers' code")
    await page.keyboard.press("j")
    await asked(store, "r3", NAME, 1)
    await expect(other.locator(".number").first).to_have_text("2")
    assert await page.evaluate("document.activeElement.tagName") == "A"  # what had the focus has it still
    await page.set_viewport_size({"width": 360, "height": 740})
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360


async def test_schedules_are_paused_resumed_and_forgotten(site, page):
    store = site.app.store
    now = store.clock.now()
    await store.enlist(WorkerRow("w1", 1, "here", now + 600_000_000))
    due = (now // 60_000_000) * 60_000_000
    rows = [
        ScheduleRow("page_sleeps", "* * * * *", "UTC", "latest", due, keeper="w1"),
        ScheduleRow("<i>report</i>", "0 9 * * MON-FRI", "Europe/Berlin", "all", now, keeper="gone"),
    ]
    for row in rows:
        await store.swap_schedule(None, row)
    await page.goto("/")
    await page.keyboard.press("g")
    await page.keyboard.press("s")
    await expect(page.locator("h1")).to_have_text("Schedules")
    sleeps = page.locator("[data-row]").filter(has_text="page_sleeps")
    report = page.locator("[data-row]").filter(has_text="<i>report</i>")
    await expect(sleeps.locator(".status")).to_have_text("on")
    await expect(sleeps.locator("[data-of=Next]")).to_contain_text("in ")
    await expect(report.locator(".status")).to_have_text("nobody's")
    await expect(report.locator("[data-of=Last]")).to_contain_text("none since")
    run_id = f"page_sleeps@{hf.clock.to_datetime(due):%Y-%m-%dT%H:%M:%SZ}"
    await site.app.start(flows.page_sleeps, 3, run_id=run_id)
    await sleeps.locator("[data-of=Last] a").click()  # the run of its last due time
    await expect(page.locator("h1")).to_contain_text(run_id)
    await page.go_back()
    await sleeps.get_by_role("button", name="Pause").click()
    await expect(page.locator("#toast")).to_have_text("The schedule of page_sleeps is paused")
    await expect(sleeps.locator(".status")).to_have_text("paused")
    assert [row.paused for row in await store.schedules()] == [False, True]
    await sleeps.get_by_role("button", name="Resume").click()
    await expect(sleeps.locator(".status")).to_have_text("on")
    resumed = {row.workflow: row for row in await store.schedules()}["page_sleeps"]
    assert not resumed.paused
    assert resumed.since > due  # what was due meanwhile is not made up for
    await expect(sleeps.locator("[data-of=Last]")).to_contain_text("none since")
    await report.get_by_role("button", name="Forget…").click()
    await expect(page.locator("#forget-name")).to_have_text("<i>report</i>")
    await page.locator("#forget-dialog").get_by_role("button", name="Forget").click()
    await expect(report).to_have_count(0)
    assert [row.workflow for row in await store.schedules()] == ["page_sleeps"]


async def test_a_schedule_that_is_gone_is_told_and_odd_acts_are_refused(site, page):
    for form, status in (
        ({"do": "pause", "workflow": "nobody"}, 404),
        ({"do": "run", "workflow": "nobody"}, 400),
        ({}, 400),
    ):
        answer = await page.request.post(
            f"{site.base}/schedules", form=form, headers={"Origin": site.base}, max_redirects=0
        )
        assert answer.status == status
    elsewhere = await page.request.post(f"{site.base}/schedules", form={"do": "pause", "workflow": "x"})
    assert elsewhere.status == 403


async def test_places_say_what_would_be_there(site, page):
    await page.goto("/schedules")
    await expect(page.locator(".empty")).to_contain_text("No workflow has a schedule")
    await page.goto("/waiting")
    await expect(page.locator(".empty")).to_have_count(2)
    await page.goto("/workers")
    await expect(page.locator(".empty")).to_contain_text("No worker is up")
