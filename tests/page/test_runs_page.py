"""The list of runs in the browser: filters, pages, many at once, live; ten thousand of them."""

import page_flows as flows
import pytest
from playwright.async_api import expect

from holdfast.events import new

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def names(page):
    return await page.locator("#rows td.name a").all_text_contents()


async def test_ten_thousand_runs_are_paged_counted_and_searched(site, page):
    await flows.many_runs(site.app.store, 10_000)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.goto("/")
    await expect(page.locator("#tabs a").first).to_have_text("All 10,000")
    await expect(page.locator("#tabs a.is-running")).to_have_text("Running 1,000")
    assert len(await names(page)) == 100
    assert await page.evaluate("document.querySelectorAll('*').length") < 4000
    await expect(page.locator("#pulse.live")).to_be_visible()
    assert len(asked) <= 12, asked  # the page, its files, its news; nothing a row
    # Each page begins behind the last one, and going back gives the same rows.
    first = await names(page)
    await page.keyboard.press("n")
    await expect(page.locator("#rows tr").first).not_to_contain_text(first[0])
    second = await names(page)
    assert not set(first) & set(second)
    assert len(second) == 100
    await page.go_back()
    assert await names(page) == first
    # By status and workflow, by attribute, by a part of the id.
    await page.locator("#tabs a.is-running").click()
    await page.get_by_label("Workflow").select_option("flow-1")
    await expect(page.locator("#tabs a[aria-current]")).to_have_text("Running 333")
    assert set(await page.locator("#rows td.flow").all_text_contents()) == {"flow-1"}
    await page.keyboard.press("/")
    await page.keyboard.type("shard=3 7")
    await page.keyboard.press("Enter")
    await expect(page.locator("#search")).to_have_value("shard=3 7")
    found = await names(page)
    expected = [
        n for n in range(10_000) if n % 10 == 0 and n % 3 == 1 and n % 7 == 3 and "7" in f"many-{n:05}"
    ]
    assert found == [f"many-{n:05}" for n in reversed(expected)]
    await page.goto("/?q=many-00777")
    assert await names(page) == ["many-00777"]
    await page.goto("/?q=nothing-of-this-name")
    await expect(page.locator(".empty")).to_contain_text("No run is like that")


async def test_the_selected_runs_are_cancelled_with_a_reason(site, page):
    await flows.many_runs(site.app.store, 40)
    await page.goto("/")
    await page.keyboard.press("j")
    await page.keyboard.press("j")
    await page.keyboard.press("x")  # an ended run cannot be selected
    await expect(page.locator("#picked")).to_be_hidden()
    await page.get_by_label("Select many-00030").check()
    await page.get_by_label("Select many-00010").check()
    await expect(page.locator("#picked-count")).to_have_text("2 selected")
    await page.keyboard.press("c")
    await page.get_by_label("Reason").fill("ordered twice")
    await page.locator("#cancel-go").click()
    await expect(page.locator("#toast")).to_have_text("2 runs asked to cancel")
    for place in (0, 10, 20, 30):
        log = await site.app.store.read(f"many-{place:05}", 2)
        wanted = ["cancel_requested"] if place in (10, 30) else []
        assert [event.type for event in log] == wanted
    assert log[0].data["reason"] == "ordered twice"


async def test_all_that_match_the_filter_are_cancelled_beyond_the_page_too(site, page):
    await flows.many_runs(site.app.store, 720, live=2)
    await page.goto("/?workflow=flow-0")
    await page.get_by_role("button", name="Cancel all that match…").click()
    await expect(page.locator(".filter-told")).to_contain_text("flow-0")
    await page.get_by_role("button", name="Cancel all that match", exact=True).click()
    await expect(page.locator("#toast")).to_have_text("120 runs asked to cancel")
    asked = 0
    for place in range(0, 720, 2):
        head = await site.app.store.head(f"many-{place:05}")
        asked += head.position == 3
        assert (head.position == 3) == (head.workflow == "flow-0")
    assert asked == 120


async def test_runs_come_and_change_while_one_looks(site, page):
    await page.goto("/?status=running")
    await expect(page.locator("#pulse.live")).to_be_visible()
    await expect(page.locator(".empty")).to_be_visible()
    async with site.app.worker():
        await site.app.start(flows.page_sleeps, 2, run_id="second <b>")
        await expect(page.locator("#rows tr")).to_have_count(1)
        await expect(page.locator("#rows tr td.load")).to_have_text("1 timer")
        await expect(page.locator("#tabs a.is-running")).to_have_text("Running 1")
        await page.get_by_label("Select second <b>").check()
        await site.app.start(flows.page_sleeps, 2, run_id="third")
        await expect(page.locator("#rows tr")).to_have_count(2)
        assert await names(page) == ["third", "second <b>"]
        await expect(page.get_by_label("Select second <b>")).to_be_checked()
        await site.app.run("second <b>").wake()
        row = page.locator("#rows tr").filter(has_text="second <b>")
        await expect(row.locator(".status")).to_have_text("completed")  # it stays where it was
        await expect(page.locator("#picked")).to_be_hidden()


async def test_a_burst_of_runs_is_a_few_messages(site, page):
    await page.goto("/")
    await expect(page.locator("#pulse.live")).to_be_visible()
    await page.evaluate(
        "() => { window.changes = 0; new MutationObserver(() => { window.changes += 1; })"
        ".observe(document.querySelector('#rows'), { childList: true }); }"
    )
    await flows.many_runs(site.app.store, 1200)
    await expect(page.locator("#tabs a").first).to_have_text("All 1,200")
    assert await page.locator("#rows tr").count() <= 200
    assert await page.evaluate("window.changes") < 60


async def test_keys_lead_through_the_page(site, page):
    await flows.many_runs(site.app.store, 20)
    await page.goto("/")
    for _ in range(3):
        await page.keyboard.press("j")
    await page.keyboard.press("k")
    focused = await page.evaluate("document.activeElement.textContent")
    assert focused == (await names(page))[1]
    await page.keyboard.press("Enter")
    await expect(page.locator("h1")).to_contain_text(focused)
    await page.keyboard.press("2")
    await expect(page.locator("#window[data-part=lines]")).to_be_visible()
    await page.keyboard.press("g")
    await page.keyboard.press("h")
    await expect(page.locator("h1")).to_have_text("Waiting")
    await page.keyboard.press("?")
    await expect(page.locator("#keys")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.locator("#keys")).to_be_hidden()
    await page.keyboard.press("t")
    dark = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    await page.reload()  # it is remembered
    assert await page.evaluate("getComputedStyle(document.body).backgroundColor") == dark
    await page.keyboard.press("t")
    assert await page.evaluate("getComputedStyle(document.body).backgroundColor") != dark


async def test_it_says_so_when_it_is_not_live(site, page):
    await page.route("**/live*", lambda route: route.abort())
    await page.goto("/")
    await expect(page.locator("#pulse.lost")).to_have_attribute(
        "title", "Not live: the server cannot be reached"
    )


async def test_a_parked_run_is_found(site, page):
    data = {"workflow": "w", "args": {}, "seed": 1, "python": "3.11"}
    await site.app.store.append("parked-1", [new("run_created", data=data), new("run_started")], after=0)
    await site.app.store.park("parked-1", '{"kind": "diverged", "message": "<b>it</b> asks for more"}')
    await page.goto("/")
    await page.locator("#tabs a.is-parked").click()
    assert await names(page) == ["parked-1"]
    await page.locator("#rows a").first.click()
    await expect(page.locator(".wait-parked")).to_contain_text("<b>it</b> asks for more")
    await page.get_by_role("button", name="Wake").click()
    await expect(page.locator("h1 .status")).to_have_text("running")
