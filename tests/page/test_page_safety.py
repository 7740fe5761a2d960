"""No text of users is markup, no other site writes, and the page can be used with what people use."""

import asyncio
import re

import page_flows as flows
import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import expect

import holdfast as hf
from holdfast.chunks import Part
from holdfast.events import dump_json, new
from holdfast.store.rows import ScheduleRow
from holdfast.store.streams import Author
from holdfast.trail import TrailFolder

pytestmark = pytest.mark.asyncio(loop_scope="session")

ATTACK = (
    "</title></textarea></script></style>\"'><script>window.owned = 1</script>"
    "<img src=x onerror='window.owned = 1'>\u202edexob\u2066\x00\x1b[31m{{ 7 * 7 }}"
)
VIEWS = ("", "?view=events", "?view=data", "?view=streams", "?view=streams&as=chunks")


async def attacked(site) -> str:
    """A run in which all that a user can name is an attack; its id is as bad as an id may be."""
    store, run = site.app.store, "<img src=x onerror=alert(1)> '\"&lt;/../ü?#%2F"
    data = {"workflow": ATTACK, "args": {ATTACK: ATTACK}, "seed": 1, "python": ATTACK, "version": ATTACK}
    await store.append(run, [new("run_created", data={**data, "attributes": {ATTACK: ATTACK}})], after=0)
    schema = {
        "type": "object",
        "properties": {
            ATTACK: {"type": "string", "description": ATTACK, "default": ATTACK},
            "c": {"enum": [ATTACK]},
        },
        "description": ATTACK,
    }
    hook = {"schema": schema, "metadata": {ATTACK: ATTACK}}
    error = {
        "type": ATTACK,
        "message": ATTACK,
        "traceback": ATTACK,
        "notes": [ATTACK],
        "cause": {"type": ATTACK},
    }
    note = {
        "kind": "decision",
        "content": ATTACK,
        "agent": ATTACK,
        "raw": {"question": ATTACK, "chosen": "x"},
    }
    await store.append(
        run,
        [
            new("run_started", data={"worker": ATTACK}),
            new("step_scheduled", key=f"{ATTACK}#1", data={"args": {ATTACK: ATTACK}}),
            new("hook_opened", key=f"{ATTACK}#1", data=hook),
            new("timer_started", key=f"{ATTACK}#1", data={"due": 1}),
            new("noted", key="note#1", data=note),
        ],
        after=1,
    )
    await store.append(run, [new("step_started", key=f"{ATTACK}#1", data={"attempt": 1, "worker": ATTACK})])
    for part in (
        Part("text", ATTACK.encode()),
        Part("json", dump_json(ATTACK)),
        Part("bytes", ATTACK.encode()),
    ):
        await store.write_stream(run, "<b>stream</b> '\"", [part], author=Author(run, f"{ATTACK}#1", 1))
    await store.append(
        run, [new("step_retried", key=f"{ATTACK}#1", data={"attempt": 1, "error": error, "due": 1})]
    )
    return run


async def unharmed(page):
    assert await page.evaluate("window.owned === undefined")
    assert await page.evaluate("document.querySelectorAll('main img, main script').length") == 0
    assert "49" not in await page.locator("main .wait, main td").all_inner_texts()
    text = await page.evaluate("document.documentElement.innerHTML")
    assert not set("\u202e\u2066\x00\x1b") & set(text)


async def test_nothing_that_users_name_is_markup(site, page):
    run = await attacked(site)
    await page.goto("/")
    await expect(page.locator("#rows td.name")).to_have_text(run)
    await unharmed(page)
    await page.locator("#rows td.name a").click()  # its address leads to it
    await expect(page.locator("h1")).to_contain_text(run)
    at = page.url
    for view in VIEWS:
        await page.goto(at + view)
        await expect(page.locator("h1")).to_contain_text(run)
        for row in range(await page.locator("#window [data-row]").count()):
            await page.locator("#window [data-row] a").nth(row).click()
            await expect(page.locator("#window [data-row]").nth(row)).to_have_class(re.compile("chosen"))
        if view == "":
            await page.keyboard.press("Escape")
            await expect(page.locator("#trail .chapters")).to_be_visible()
        await unharmed(page)
    await page.goto("/waiting")
    await unharmed(page)
    await page.goto(at)
    await page.locator("form.payload select").select_option(index=1)
    await page.get_by_role("button", name="Send").click()  # the attack is the token, and the payload
    await expect(page.locator("#toast")).to_contain_text("has the payload")
    log = await site.app.store.read(run)
    assert log[-1].type == "hook_received"
    assert log[-1].data["payload"]["c"] == ATTACK
    await unharmed(page)


async def test_trails_are_found_and_shown_without_harm(site, page, tmp_path):
    folder = TrailFolder(tmp_path / "trails", redact=None)
    with folder.start(f"Fix the login {ATTACK}"[:500], agent=f"ana{ATTACK}") as trail:
        trail.decide(f"Which {ATTACK}?", "JWT", reasoning=f"because {ATTACK}", alternatives=[ATTACK])
        trail.complete(summary=f"done {ATTACK}")
    with folder.start("Another thing") as other:
        other.note("nothing of that")
    await page.goto("/trails")
    await expect(page.locator("[data-row]")).to_have_count(2)
    await unharmed(page)
    await page.keyboard.press("/")
    await page.keyboard.type("jwt because")
    await page.keyboard.press("Enter")
    await expect(page.locator("[data-row]")).to_have_count(1)
    await expect(page.locator("mark").first).to_be_visible()
    await unharmed(page)
    await page.locator("[data-row] a").click()
    await expect(page.locator("main h1")).to_contain_text("Fix the login")
    await expect(page.locator(".choice")).to_have_count(1)
    await unharmed(page)
    answer = await page.goto("/trails/traj_none")
    assert answer.status == 404


async def test_no_inline_script_runs_and_nothing_comes_from_elsewhere(site, page):
    run = await attacked(site)
    elsewhere: list[str] = []
    page.on(
        "request", lambda request: elsewhere.append(request.url) if site.base not in request.url else None
    )
    answer = await page.goto("/")
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    await page.evaluate(
        "() => { const script = document.createElement('script'); script.textContent = 'window.owned = 1';"
        " document.body.append(script); }"
    )
    assert await page.evaluate("window.owned === undefined")
    site.errors.clear()  # the browser told that it refused the script
    await page.goto("/")
    await page.locator("#rows td.name a").click()
    await expect(page.locator("h1")).to_contain_text(run)
    assert elsewhere == []


async def test_forms_of_other_sites_are_refused(site, page):
    await flows.many_runs(site.app.store, 1)
    own = site.base
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": own, "Sec-Fetch-Site": "cross-site"},
        {},
    ):
        for address, fields in (
            ("/runs/many-00000", {"do": "terminate"}),
            ("/runs/many-00000", {"do": "cancel"}),
            ("/cancel", {"everything": "yes"}),
        ):
            answer = await page.request.post(own + address, form=fields, headers=headers, max_redirects=0)
            assert answer.status == 403, (headers, address)
    assert (await site.app.store.head("many-00000")).position == 2
    fine = await page.request.post(
        f"{own}/runs/many-00000", form={"do": "terminate"}, headers={"Origin": own}, max_redirects=0
    )
    assert fine.status == 303
    assert await site.app.run("many-00000").status() == "cancelled"
    for address in ("/cancel", "/runs/many-00000"):
        # A link writes nothing.
        await page.request.get(f"{own}{address}?do=terminate&everything=yes")
    late = await page.request.post(f"{own}/runs/many-00000", form={"do": "nonsense"}, headers={"Origin": own})
    assert late.status == 400


async def test_odd_addresses_are_answered_in_words(site, page):
    await flows.many_runs(site.app.store, 2)
    for address, status in (
        ("/runs/many-00000?part=nonsense", 404),
        ("/runs/many-00000?part=event&at=99", 404),
        ("/runs/many-00000?part=event&at=-1", 404),
        ("/runs/many-00000?part=lines&from=999999999999999999&count=9999999", 200),
        ("/runs/many-00000?from=x&view=none&scale=9", 200),
        ("/?before=nonsense&status=odd&q=%22unbalanced", 200),
        ("/?before=99999999999999999~x", 200),
        ("/static/../shell.py", 404),
        ("/static/%2e%2e/shell.py", 404),
        ("/static/nothing.css", 404),
        ("/runs/", 404),
        ("/trails/..%2F..%2Fetc", 404),
    ):
        answer = await page.request.get(site.base + address)
        assert answer.status == status, address
        assert "Traceback" not in await answer.text()


AXE = Axe()


@pytest.mark.parametrize("colours", ["light", "dark"])
async def test_axe_finds_nothing(site, page, tmp_path, colours):
    await page.emulate_media(color_scheme=colours, reduced_motion="reduce")
    folder = TrailFolder(tmp_path / "trails")
    with folder.start("Fix the login", agent="ana") as trail:
        trail.decide("Which token?", "JWT", reasoning="shorter", alternatives=["session"])
        trail.complete(summary="done")
    async with site.app.worker():
        await site.app.start(flows.page_order, "A-1", run_id="order-1", attributes={"customer": "ana"})
        failed = await site.app.start(flows.page_fails, "broken", run_id="fails-1")
        await site.app.start(flows.page_sleeps, 3)
        flows.gate.append(asyncio.Event())
        flows.gate[-1].set()
        await (await site.app.start(flows.page_tells, run_id="tells-1")).result()
        for name, paused in (("report", False), ("sweep", True)):
            due = site.app.store.clock.now() // 60_000_000 * 60_000_000
            row = ScheduleRow(name, "* * * * *", "Europe/Berlin", "latest", due, paused, None)
            await site.app.store.swap_schedule(None, row)
        while not [hook async for hook in site.app.hooks(run="order-1")]:
            await asyncio.sleep(0.01)
        with pytest.raises(hf.RunFailed):
            await failed.result()
        addresses = [
            "/",
            "/runs/order-1",
            "/runs/order-1?view=events",
            "/runs/fails-1",
            "/runs/fails-1?view=data",
            "/runs/tells-1?view=streams",
            "/runs/tells-1?view=streams&as=chunks",
            "/queues",
            "/schedules",
        ]
        addresses += [
            "/waiting",
            "/workers",
            "/trails",
            "/trails?q=token",
            f"/trails/{trail.id}",
            "/runs/none",
        ]
        found = []
        for address in addresses:
            await page.goto(address)
            if address.startswith("/runs/order"):
                await page.keyboard.press("j")
                await page.keyboard.press("Enter")
                await expect(page.locator("#detail")).to_be_visible()
            found += await violations(page, address, colours)
        await page.goto("/")
        await page.keyboard.press("?")
        found += await violations(page, "keys", colours)
        await page.set_viewport_size({"width": 360, "height": 740})
        for address in addresses if colours == "light" else ():
            await page.goto(address)
            assert await page.evaluate("document.documentElement.scrollWidth") <= 360, address
        await page.goto("/runs/order-1")
        found += await violations(page, "phone", colours)
    assert not found, found


async def violations(page, where, colours):
    """What axe finds; in the dark, only colours are others."""
    options = {"resultTypes": ["violations"]}  # what passes is not described, which takes longer than to look
    if colours == "dark":
        options["runOnly"] = ["color-contrast"]
    found = (await AXE.run(page, options=options)).response["violations"]
    return [(where, each["id"], [node["html"][:120] for node in each["nodes"]][:3]) for each in found]
