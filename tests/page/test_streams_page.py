"""What a run publishes, in the browser: as text while it is written, chunk by chunk, and when it is large."""

import asyncio
import re

import page_flows as flows
import pytest
from playwright.async_api import expect

import holdfast as hf
from holdfast.chunks import END, Part, part_of
from holdfast.events import new
from holdfast.server.page.streams import Tail, passages, window
from holdfast.store.streams import Author
from holdfast.store.url import open_store

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def begun(store, run_id="r"):
    """A run with a step that is at its first attempt."""
    data = {"workflow": "w", "args": {}, "seed": 1, "python": "3.11"}
    drafts = [
        new("run_created", data=data),
        new("run_started"),
        new("step_scheduled", key="say#1", data={"args": {}}),
    ]
    await store.append(run_id, drafts, after=0)
    await store.append(run_id, [new("step_started", key="say#1", data={"attempt": 1})])
    return Author(run_id, "say#1", 1)


async def tried_again(store, run_id="r"):
    """The same at its second attempt."""
    error = {"type": "E", "message": "gone"}
    await store.append(
        run_id, [new("step_retried", key="say#1", data={"attempt": 1, "error": error, "due": 1})]
    )
    await store.append(run_id, [new("step_started", key="say#1", data={"attempt": 2})])
    return Author(run_id, "say#1", 2)


async def said(store, author, *texts, name="answer", end=False):
    parts = [part_of(text, None, 1 << 20, "a chunk") for text in texts] + [END] * end
    await store.write_stream(author.run, name, parts, author=author)


async def test_text_is_read_while_it_is_written_and_attempts_are_told_apart(site, page):
    store = site.app.store
    author = await begun(store)
    await page.goto("/runs/r")
    await page.keyboard.press("4")
    await expect(page.locator("#stream")).to_contain_text("no stream yet")
    await expect(page.locator("#pulse.live")).to_be_visible()
    await said(store, author, "Once <b>upon", " a ti")
    text = page.locator("#stream.said")  # the page sees by itself that there is one now
    await expect(text).to_have_text("Once <b>upon a ti")
    await expect(page.locator(".views [data-view=streams] b")).to_have_text("1")
    await said(store, author, "me, ", "there")
    await expect(text).to_have_text("Once <b>upon a time, there")
    author = await tried_again(store)
    await said(store, author, "Long ago", name="answer")
    await expect(text.locator(".superseded")).to_have_text(["Once <b>upon a ti", "me, there"])
    await expect(text.locator(".begins")).to_have_text("Attempt 2 of say#1")
    await expect(text.locator(".passage:not(.superseded)")).to_have_text("Long ago")
    await said(store, author, {"tokens": 7}, end=True)
    await expect(text.locator(".other")).to_have_text('{"tokens":7}')
    await expect(text.locator(".end")).to_have_text("End")
    await expect(page.locator("#stream-about")).to_contain_text("ended")
    shown = await text.inner_text()
    await page.reload()  # it is the same whether one was there or not
    assert (await text.inner_text()).split() == shown.split()


async def test_chunks_of_each_kind_have_a_row_and_are_shown_whole(site, page):
    store = site.app.store
    author = await begun(store)
    await said(store, author, {"a": [1, "ü"]}, b"\x00\xffPNG" * 2000, "text\nin lines", name="all 'kinds'")
    await page.goto("/runs/r?view=streams")
    rows = page.locator("#window [data-row]")
    await expect(rows.locator(".type")).to_have_text(
        [re.compile("^json"), re.compile("^bytes"), re.compile("^text")]
    )
    await expect(rows.locator(".size")).to_have_text(["14 B", "10 kB", "13 B"])
    await rows.nth(0).locator("a").click()
    await expect(page.locator("#detail pre")).to_contain_text('"ü"')
    await rows.nth(1).locator("a").click()
    await expect(page.locator("#detail pre")).to_contain_text("000000  00 ff 50 4e 47 00 ff 50  ··PNG··P")
    await expect(page.locator("#detail")).to_contain_text("and 5.9 kB more")
    async with page.expect_download() as got:
        await page.locator("#detail a[download]").click()
    assert (await (await got.value).path()).read_bytes() == b"\x00\xffPNG" * 2000
    async with page.expect_download() as got:
        await page.get_by_role("link", name="Download", exact=True).click()
    whole = '{"a":[1,"ü"]}\n'.encode() + b"\x00\xffPNG" * 2000 + b"text\nin lines"
    assert (await (await got.value).path()).read_bytes() == whole
    await said(store, author, "more", name="all 'kinds'", end=True)  # rows come live too
    await expect(rows).to_have_count(5)
    await expect(rows.nth(4)).to_contain_text("the end of the stream")


async def test_a_large_stream_is_a_window_and_a_tail(site, page):
    store = site.app.store
    author = await begun(store)
    for start in range(0, 5000, 500):
        await said(store, author, *(f"word{n} " for n in range(start, start + 500)))
    await page.goto("/runs/r?view=streams&as=chunks")
    await expect(page.locator("#window.windowed")).to_be_attached()
    await page.keyboard.press("End")
    await expect(page.locator("#window [data-row]").last).to_contain_text("word4999")
    assert await page.evaluate("document.querySelectorAll('*').length") < 4000
    await page.get_by_role("link", name="Text", exact=True).click()
    await expect(page.locator(".cut")).to_contain_text("The last 2,000 of 5,000 chunks")
    await expect(page.locator(".passage")).to_contain_text("word3000 word3001")
    below = await page.locator("#stream").evaluate("s => s.scrollHeight - s.scrollTop - s.clientHeight")
    assert below < 2


async def test_a_step_that_publishes_is_seen_through_a_worker(site, page):
    flows.gate.append(asyncio.Event())
    async with site.app.worker():
        run = await site.app.start(flows.page_tells, run_id="tells-1")
        await page.goto("/runs/tells-1?view=streams")
        await expect(page.locator("#stream.said")).to_have_text("first")
        flows.gate[-1].set()
        await run.result()
        await expect(page.locator("#stream.said")).to_contain_text("first and last")
        await expect(page.locator("h1 .status")).to_have_text("completed")


def in_order(messages):
    """The text that a page would show that was told this, and how often it was told to begin anew."""
    texts, anew = "", 0
    for message in messages:
        for part in message.split(b"\n\n"):
            data = hf.codec.UNTYPED.decode(part.partition(b"data: ")[2], "news") if part else {}
            if data.get("anew"):
                texts, anew = "", anew + 1
            texts += "".join(re.findall(r"<span class=\"passage[^>]*>([^<]*)</span>", data.get("html", "")))
    return texts, anew


async def test_a_tail_tells_each_chunk_once_and_goes_on_where_the_browser_was():
    async with open_store("memory://") as store:
        author = await begun(store)
        tail = Tail(store, "r", "answer", "text", 0)
        heard = []
        for number in range(5):
            await said(store, author, f"{number}a ", f"{number}b ")
            heard += [message async for message in tail.news()]
        assert in_order(heard) == ("0a 0b 1a 1b 2a 2b 3a 3b 4a 4b ", 0)
        assert [message async for message in tail.news()] == []
        assert [re.search(rb"id: (\d+)", message)[1] for message in heard] == [b"2", b"4", b"6", b"8", b"10"]
        resumed = Tail(store, "r", "answer", "text", 6)
        assert in_order([message async for message in resumed.news()]) == ("3a 3b 4a 4b ", 0)


async def test_a_page_that_is_far_behind_begins_anew_at_the_tail():
    async with open_store("memory://") as store:
        author = await begun(store)
        tail = Tail(store, "r", "answer", "text", 0)
        await said(store, author, *(f"{n} " for n in range(3000)))
        text, anew = in_order([message async for message in tail.news()])
        assert anew == 1
        assert text.split() == [str(n) for n in range(1000, 3000)]


async def test_large_chunks_are_shown_up_to_a_size_one_at_least():
    async with open_store("memory://") as store:
        author = await begun(store)
        tail = Tail(store, "r", "answer", "text", 0)
        for number in range(20):
            await said(store, author, f"<{number}>" + "x" * 100_000)
        for told in (
            in_order([message async for message in tail.news()])[0],
            "".join(p.text for p in (await window(store, "r", "", "", None, 60))["rows"]),
        ):
            assert re.findall("[0-9]+", told) == ["18", "19"]
        await said(store, author, "y" * 900_000)
        assert in_order([message async for message in tail.news()]) == ("y" * 900_000, 0)


async def test_passages_join_the_text_of_one_attempt():
    async with open_store("memory://") as store:
        author = await begun(store)
        await said(store, author, "a", "b", {"n": 1}, {"n": 2}, "c")
        await store.write_stream("r", "answer", [Part("text", b"kept", "key")], author=author)
        again = await tried_again(store)
        await said(store, again, "d", end=True)
        head = await store.stream("r", "answer")
        made = passages(await store.read_stream("r", "answer"), head)
        assert [(p.kind, p.text, p.attempt, p.superseded, p.begins) for p in made] == [
            ("text", "ab", 1, True, False),
            ("json", '{"n":1}', 1, True, False),
            ("json", '{"n":2}', 1, True, False),
            ("text", "c", 1, True, False),
            ("text", "kept", 1, False, False),  # with a key, it is every attempt's
            ("text", "d", 2, False, True),
            ("end", "", 2, False, False),
        ]
