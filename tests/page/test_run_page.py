"""One run in the browser: its timeline, its log, its hooks and what may be done with it."""

import asyncio
import re

import page_flows as flows
import pytest
from playwright.async_api import expect

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def waiting_order(site, order="A-1", run_id="order-1"):
    run = await site.app.start(flows.page_order, order, run_id=run_id, attributes={"customer": "ana"})
    while not [hook async for hook in site.app.hooks(run=run.id)]:
        await asyncio.sleep(0.01)
    return run


async def test_the_timeline_shows_attempts_parallel_steps_and_the_open_hook(site, page):
    async with site.app.worker():
        await waiting_order(site)
        await page.goto("/runs/order-1")
        await expect(page.locator("h1")).to_contain_text("order-1")
        await expect(page.locator("h1 .status")).to_have_text("running")
        rows = page.locator("#window [data-row]")
        await expect(rows).to_have_count(5)
        flaky = rows.filter(has_text="page_flaky")
        await expect(flaky.locator(".tries")).to_have_text("×3")
        await expect(flaky.locator("rect.attempt.failed")).to_have_count(2)
        await expect(flaky.locator("rect.attempt.completed")).to_have_count(1)
        await expect(flaky.locator("rect.backoff")).to_have_count(2)
        bars = [rows.filter(has_text=f"page_pack#{n}").locator("rect.attempt") for n in (1, 2, 3)]
        boxes = [await bar.bounding_box() for bar in bars]
        begins = max(box["x"] for box in boxes)
        assert begins <= min(box["x"] + box["width"] for box in boxes) + 1  # side by side
        await expect(rows.filter(has_text="approve:A-1").locator("rect.open")).to_have_count(1)
        await expect(page.locator(".wait-hook")).to_contain_text("It waits at its hook approve:A-1")
        await expect(page.locator("#trail")).to_contain_text("Which gateway?")
        await expect(page.locator("#trail")).to_contain_text("The other was down")
        await expect(page.locator("#trail .agent").filter(has_text="cashier").first).to_be_visible()


async def test_a_payload_is_checked_where_it_is_typed_and_then_the_run_goes_on_live(site, page):
    async with site.app.worker():
        run = await waiting_order(site)
        await page.goto("/runs/order-1")
        form = page.locator("form.payload")
        await form.get_by_label("approved").check()
        await form.get_by_label("by").fill("eve\n<b>")
        await form.get_by_label("amount").fill("many")
        await form.get_by_role("button", name="Send").click()
        await expect(form.locator(".error")).to_have_text("expected a whole number")
        await expect(form.get_by_label("amount")).to_be_focused()
        await expect(form.get_by_label("by")).to_have_value("eve\n<b>")
        assert await run.status() == "running"
        await form.get_by_label("amount").fill("7")
        await form.get_by_label("route").select_option("air")
        await form.get_by_role("button", name="Send").click()
        await expect(page.locator("h1 .status")).to_have_text("completed")
        await expect(page.locator("#toast")).to_contain_text("has the payload, at position")
        assert await run.result() == "shipped by air for 7"
        await expect(page.locator("form.payload")).to_have_count(0)
        await expect(page.locator("#window path.mark")).to_have_count(1)


async def sent(page, *, hold):
    """Type a payload and send it, while `hold` keeps back what the browser would hear first."""
    form = page.locator("form.payload")
    await form.get_by_label("approved").check()
    await form.get_by_label("by").fill("eve")
    await page.route("**/runs/order-1*", hold)
    await form.get_by_label("amount").fill("7")
    await form.get_by_label("amount").press("Enter")
    await expect(page.locator("h1 .status")).to_have_text("completed")


async def test_the_form_goes_also_when_the_run_ends_before_its_answer_is_here(site, page):
    async def after_the_news(route):
        if route.request.method != "POST":
            await route.fallback()
            return
        answer = await route.fetch()
        await expect(page.locator("h1 .status")).to_have_text("completed")
        await expect(page.locator("form.payload")).to_have_count(1)  # it is not known yet what became of it
        await route.fulfill(response=answer)

    async with site.app.worker():
        await waiting_order(site)
        await page.goto("/runs/order-1")
        await sent(page, hold=after_the_news)
        await expect(page.locator("form.payload")).to_have_count(0)
        await expect(page.locator(".wait")).to_have_count(1)
        await expect(page.locator("#toast")).to_contain_text("has the payload")


async def test_the_form_goes_also_when_its_answer_is_here_before_the_news(site, page):
    answered = asyncio.Event()

    async def after_the_answer(route):
        if "part=live" in route.request.url:
            await answered.wait()
        elif route.request.method == "POST":
            await route.fulfill(response=await route.fetch())
            answered.set()
            return
        await route.fallback()

    async with site.app.worker():
        await waiting_order(site)
        await page.route("**/runs/order-1*", after_the_answer)
        await page.goto("/runs/order-1")
        await sent(page, hold=after_the_answer)
        await expect(page.locator("form.payload")).to_have_count(0)
        await expect(page.locator("#toast")).to_contain_text("has the payload")


async def test_a_hook_takes_one_payload_after_the_other_from_its_form(site, page):
    async with site.app.worker():
        run = await site.app.start(flows.page_counts, run_id="counts-1")
        await page.goto("/runs/counts-1")
        area = page.get_by_label("Payload, as JSON")
        for number in (1, 2):
            await area.fill(str(number))
            await area.press("Tab")
            await page.keyboard.press("Enter")
            await expect(page.locator("#toast")).to_contain_text("has the payload")
            await expect(area).to_have_value("0")
            await expect(area).to_be_focused()
            await expect(page.locator(".wait-hook")).to_contain_text(f"it has had {number} payload")
        await area.fill("3")
        await area.press("Tab")
        await page.keyboard.press("Enter")
        assert await run.result() == [1, 2, 3]
        await expect(page.locator("form.payload")).to_have_count(0)


async def test_what_is_typed_for_a_hook_that_closes_stays_until_it_is_discarded(site, page):
    async with site.app.worker():
        run = await waiting_order(site)
        await page.goto("/runs/order-1")
        await expect(page.locator("#pulse.live")).to_be_visible()
        await page.get_by_label("by").fill("half a sent")
        await run.cancel("too late")
        await expect(page.locator("h1 .status")).to_have_text("cancelled")
        await expect(page.locator(".wait.over")).to_contain_text("what you typed was not sent")
        await expect(page.get_by_label("by")).to_have_value("half a sent")
        await page.get_by_role("button", name="Discard").click()
        await expect(page.locator("form.payload")).to_have_count(0)


async def test_a_removed_run_is_gone_from_its_page_too(site, page):
    async with site.app.worker():
        run = await site.app.start(flows.page_sleeps, 1, run_id="sleeps-1")
        await page.goto("/runs/sleeps-1")
        await run.wake()
        await run.result()
        await expect(page.locator("h1 .status")).to_have_text("completed")
    await site.app.store.remove(["sleeps-1"], site.app.store.clock.now() + 1)
    answer = await page.goto("/runs/sleeps-1")
    assert answer.status == 404


async def test_without_a_script_the_form_says_what_is_wrong_and_sends(site, chromium):
    async with site.app.worker():
        run = await waiting_order(site)
        context = await chromium.new_context(java_script_enabled=False, base_url=site.base)
        page = await context.new_page()
        await page.goto("/runs/order-1")
        await page.get_by_label("by").fill("eve")
        await page.get_by_label("amount").fill("1.5")
        await page.get_by_role("button", name="Send").click()
        await expect(page.locator(".payload .error")).to_have_text("expected a whole number")
        await page.get_by_label("amount").fill("2")
        await page.get_by_role("button", name="Send").click()
        assert await run.result() == "shipped by sea for 2"
        await context.close()


async def test_a_hook_without_a_type_takes_json(site, page):
    async with site.app.worker():
        run = await site.app.start(flows.page_asks, 'which "one" <i>?', run_id="asks-1")
        await page.goto("/runs/asks-1")
        area = page.get_by_label("Payload, as JSON")
        await area.fill("{nonsense")
        await page.get_by_role("button", name="Send").click()
        await expect(page.locator(".payload .error")).to_contain_text("this is not JSON")
        await area.fill('{"a": [1, "ü"]}')
        await page.get_by_role("button", name="Send").click()
        assert await run.result() == {"a": [1, "ü"]}


async def test_what_somebody_types_survives_news_of_the_run(site, page):
    async with site.app.worker():
        run = await waiting_order(site)
        await page.goto("/runs/order-1")
        await expect(page.locator("#pulse.live")).to_be_visible()
        await page.get_by_label("by").fill("half a sent")
        await run.wake()
        await expect(page.locator(".views [data-view=events] b")).to_have_text(
            str((await run.info()).position)
        )
        await expect(page.get_by_label("by")).to_have_value("half a sent")
        await expect(page.get_by_label("by")).to_be_focused()


async def test_cancel_terminate_wake_and_rerun(site, page):
    async with site.app.worker():
        asleep = await site.app.start(flows.page_sleeps, 3, run_id="sleeps/1 ü?")
        await page.goto("/")
        await page.get_by_role("link", name="sleeps/1 ü?").click()
        await expect(page.locator(".wait-timer")).to_contain_text("in 2 h 59 min")
        await page.get_by_role("button", name="Wake").click()
        await expect(page.locator("h1 .status")).to_have_text("completed")
        await page.get_by_role("button", name="Rerun").click()
        await expect(page.locator("h1")).not_to_contain_text("sleeps/1")
        await expect(page.locator(".facts")).to_contain_text("sleeps/1 ü?")
        again = page.url.rpartition("/")[2]
        await page.get_by_role("button", name="Cancel…").click()
        await page.get_by_label("Reason").fill("not <i>twice</i>")
        await page.locator("#end-go").click()
        await expect(page.locator("h1 .status")).to_have_text("cancelled")
        await expect(page.locator(".wait-ended")).to_contain_text("not <i>twice</i>")
        log = [event async for event in site.app.run(again).events()]
        assert log[0].data["origin"] == "sleeps/1 ü?"
        assert await asleep.result() == 3
        await page.get_by_role("button", name="Rerun").click()
        await expect(page.locator("h1 .status")).to_have_text("running")
        await page.get_by_role("button", name="Terminate…").click()
        await page.locator("#end-go").click()
        await expect(page.locator("h1 .status")).to_have_text("cancelled")
        await expect(page.locator(".wait-ended")).to_contain_text("was terminated")


async def test_a_failure_is_told_with_its_traceback(site, page):
    async with site.app.worker():
        run = await site.app.start(flows.page_fails, "no <b>carrier</b>", run_id="fails-1")
        with pytest.raises(Exception, match="carrier"):
            await run.result()
        await page.goto("/runs/fails-1")
        await expect(page.locator(".failure .headline")).to_have_text("ValueError: no <b>carrier</b>")
        await expect(page.locator(".failure pre")).to_contain_text("in page_breaks")
        await page.goto("/runs/fails-1?view=data")
        await expect(page.locator(".columns")).to_contain_text('"text": "no <b>carrier</b>"')


async def test_a_step_is_seen_to_run_and_then_to_end(site, page):
    flows.gate.append(asyncio.Event())
    async with site.app.worker():
        run = await site.app.start(flows.page_holds, run_id="holds-1")
        await page.goto("/runs/holds-1")
        await expect(page.locator("rect.attempt.running")).to_have_count(1)
        await expect(page.locator(".wait-step")).to_contain_text("Its step page_hold#1 runs (attempt 1)")
        await page.keyboard.press("j")
        await page.keyboard.press("Enter")
        await expect(page.locator("#detail")).to_contain_text("page_hold")
        flows.gate[-1].set()
        await run.result()
        await expect(page.locator("rect.attempt.completed")).to_have_count(1)
        await expect(page.locator("#detail")).to_contain_text('"released"')
        await page.keyboard.press("Escape")
        await expect(page.locator("#detail")).to_be_hidden()


async def test_the_log_tells_classes_by_shape_and_which_append_brought_what(site, page):
    async with site.app.worker():
        await waiting_order(site)
    log = await site.app.store.read("order-1")
    chain = await site.app.store.chain("order-1")
    await page.goto("/runs/order-1?view=events")
    lines = page.locator("#window [data-row]")
    await expect(lines).to_have_count(len(log))
    shown = await lines.evaluate_all("rows => rows.map(r => [r.dataset.at, r.classList[1]])")
    assert shown == [[str(event.position), f"cls-{event.cls}"] for event in log]
    shapes = await page.evaluate(
        "() => Object.fromEntries(['fact', 'command', 'record'].map(c => "
        "[c, document.querySelector(`.line.cls-${c} .icon`).innerHTML]))"
    )
    assert len(set(shapes.values())) == 3
    begun = await page.locator(".append.first, .append.only").count()
    ended = await page.locator(".append.last, .append.only").count()
    assert begun == ended == len(chain)
    place = await page.locator(".append.last, .append.only").evaluate_all(
        "all => all.map(a => Number(a.closest('[data-at]').dataset.at))"
    )
    assert place == [link.last for link in chain]
    await page.get_by_role("link", name=re.compile("^step_completed")).first.click()
    await expect(page.locator("#detail")).to_contain_text('"charged"')
    await expect(page.locator("#detail")).to_contain_text("Hash")
    await page.locator(".toggle", has_text="Records").click()
    facts_and_commands = sum(event.cls != "record" for event in log)
    await expect(lines).to_have_count(facts_and_commands)
    await page.keyboard.press("/")
    await page.keyboard.type("hook_opened approve")
    await page.keyboard.press("Enter")
    await expect(lines).to_have_count(1)


async def test_ten_thousand_events_are_a_window(site, page):
    await flows.long_run(site.app.store, "long-1", 3333)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "part=" in request.url else None)
    for view in ("events", "timeline"):
        await page.goto(f"/runs/long-1?view={view}")
        await expect(page.locator("#window.windowed")).to_be_attached()
        asked.clear()
        nodes = await page.evaluate("document.querySelectorAll('*').length")
        assert nodes < 4000
        await page.keyboard.press("End")
        await expect(page.locator("#window [data-row]").last).to_contain_text("fetch#3333")
        await expect(page.locator("#window [data-row]").last).to_be_in_viewport()
        assert await page.evaluate("document.querySelectorAll('*').length") < 4000
        lists = [url for url in asked if "part=lines" in url or "part=spans" in url]
        assert len(lists) <= 8, lists  # not every window between here and there
    # A log that grows is read on, not read again.
    rows = site.app.store.read
    read: list[int] = []

    async def counted(run, after=0, limit=None):
        read.append(after)
        return await rows(run, after, limit)

    site.app.store.read = counted
    await page.goto("/runs/long-1?view=events")
    assert [after for after in read if after < 10_001] == []


async def test_a_run_that_is_not_there(site, page):
    answer = await page.goto("/runs/nobody")
    assert answer.status == 404
    await expect(page.locator("main")).to_contain_text("there is no run 'nobody' in this store")
