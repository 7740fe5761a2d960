"""The page in a real browser: the server, the worker and Chromium's driver share one loop, for all these tests."""

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import pytest_asyncio
from patience import PATIENCE

import holdfast as hf
from holdfast.server import Settings, serving

sys.path.insert(0, str(Path(__file__).parent / "kit"))

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
WIDE, PHONE = {"width": 1280, "height": 800}, {"width": 360, "height": 740}


class Site:
    """A served store. `errors` is what the browser complained of: nothing, at the end of each test."""

    def __init__(self, app: hf.App, base: str) -> None:
        self.app = app
        self.base = base
        self.errors: list[str] = []


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def chromium():
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        why = f"no Chromium on this machine (looked for {', '.join(BROWSERS)}): the page was opened in no browser"
        assert os.environ.get("CI", "").lower() != "true", why
        pytest.skip(why)
    from playwright.async_api import async_playwright, expect

    expect.set_options(timeout=1000 * PATIENCE)  # a busy machine is slow, not wrong
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    threads = ThreadPoolExecutor()  # of this test alone: none is left behind
    asyncio.get_running_loop().set_default_executor(threads)
    settings = Settings(port=0, trails=str(tmp_path / "trails"), rate=0)
    async with hf.connect(f"sqlite:///{tmp_path}/store.db") as app, serving(app, settings) as address:
        served = Site(app, address)
        yield served
    threads.shutdown()
    assert served.errors == []


@pytest_asyncio.fixture(loop_scope="session")
async def page(chromium, site: Site):
    context = await chromium.new_context(viewport=WIDE, base_url=site.base)
    context.set_default_timeout(1000 * PATIENCE)
    opened = await context.new_page()
    opened.on("pageerror", lambda error: site.errors.append(str(error)))
    opened.on("console", lambda message: site.errors.append(message.text) if _is_trouble(message) else None)
    yield opened
    await context.close()


def _is_trouble(message) -> bool:
    # What the server refuses is told by the browser too; tests that provoke it look at the page.
    return message.type in ("error", "warning") and "Failed to load resource" not in message.text
