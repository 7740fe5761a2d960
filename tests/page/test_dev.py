"""`holdfast dev`: a worker and the page, new with each change; what cannot be replayed is told."""

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from patience import PATIENCE

import holdfast as hf
from holdfast.cli.checking import EndedRuns
from holdfast.store import open_store

CODE = """
import asyncio
import holdfast as hf

@hf.step
async def say(word: str) -> str:
    return word

@hf.workflow
async def greet() -> str:
    return await say("GREETING")
"""
# The order of a set of strings is another one in each process: each run asks for its steps in another order.
ODD = CODE.replace(
    'return await say("GREETING")',
    'return "".join([await say(w) for w in {f"word {n}" for n in range(40)}])',
)


class Dev:
    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self.process = process
        self.folder = folder
        self.said = ""

    async def until(self, words: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while words not in self.said:
                line = await self.process.stderr.readline()
                assert line, f"ended without saying {words!r}:\n{self.said}"
                self.said += line.decode()

    def write(self, code: str) -> None:
        (self.folder / "shop.py").write_text(code)

    async def settled(self, name: str) -> None:
        """A file is there."""
        async with asyncio.timeout(PATIENCE):
            while not (self.folder / name).exists():
                await asyncio.sleep(0.01)

    async def greet(self, app: hf.App) -> tuple[str, str]:
        run = await app.start_raw("greet", b"{}")
        return run.id, await run.result(PATIENCE)


@pytest.fixture
async def dev(tmp_path):
    (tmp_path / "shop.py").write_text(CODE.replace("GREETING", "one"))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "holdfast", "dev", "shop.py", "--port", "0", "--json", "--store", "sqlite:///s.db",
        cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    started = Dev(process, tmp_path)
    yield started
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
    rest, said = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 0, (rest, started.said, said)


async def test_changed_code_is_served_and_what_cannot_be_replayed_is_told(dev, tmp_path):
    ready = json.loads(await asyncio.wait_for(dev.process.stdout.readline(), PATIENCE))
    page = await asyncio.to_thread(lambda: urlopen(ready["url"]).read().decode())
    assert "<title>Runs · Holdfast</title>" in page
    async with hf.connect(f"sqlite:///{tmp_path}/s.db") as app:
        await dev.until("serves greet")
        assert (await dev.greet(app))[1] == "one"
        dev.said = ""
        dev.write(CODE.replace("GREETING", "two"))
        await dev.until("changed: shop.py")
        await dev.until("serves greet")
        assert (await dev.greet(app))[1] == "two"
        dev.write("this is no Python")
        await dev.until("SyntaxError")
        await dev.until("the worker has ended; it starts again when a Python file below this folder changes")
        assert dev.process.returncode is None
        dev.said = ""
        dev.write(ODD)
        await dev.until("serves greet")
        run_id, _ = await dev.greet(app)
        await dev.until(f"run {run_id} does not replay to itself")
    await asyncio.get_running_loop().shutdown_default_executor()


async def test_a_run_is_not_blamed_for_code_that_came_after_it(dev, tmp_path):
    """One run is being replayed and one waits when the code changes: they would not fit what it asks for now."""
    held = """
import sys, time
from pathlib import Path
if "replay" in sys.argv:
    Path("replaying").touch()
    while not Path("go on").exists():
        time.sleep(0.01)
"""
    await asyncio.wait_for(dev.process.stdout.readline(), PATIENCE)
    async with hf.connect(f"sqlite:///{tmp_path}/s.db") as app:
        await dev.until("serves greet")
        dev.said = ""
        dev.write(CODE + held)
        await dev.until("changed: shop.py")
        await dev.until("serves greet")
        before = [(await dev.greet(app))[0] for _ in range(2)]
        await dev.settled("replaying")
        dev.said = ""
        dev.write(ODD.replace("say", "tell"))
        await dev.until("changed: shop.py")
        (tmp_path / "go on").touch()
        await dev.until("serves greet")
        after, _ = await dev.greet(app)
        await dev.until(f"run {after} does not replay to itself")
        assert dev.said.count("does not replay to itself") == 1, (before, dev.said)
    await asyncio.get_running_loop().shutdown_default_executor()


@hf.workflow(name="dev.waits")
async def dev_waits() -> None:
    await hf.hook(f"go:{hf.run_info().run_id}")


async def test_a_run_whose_end_nobody_told_is_found_all_the_same(tmp_path):
    """News are hints (L14): here none arrives. Runs of before are left alone, and none comes twice."""
    url = f"sqlite:///{tmp_path}/s.db"
    heard: list[Any] = []

    async def end(run: hf.Run[None]) -> None:
        await app.resume(f"go:{run.id}")
        await run.result(PATIENCE)

    async with open_store(url) as deaf, hf.connect(url) as app, app.worker():
        await end(await app.start(dev_waits, run_id="old"))
        long = await app.start(dev_waits, run_id="long")
        peers = tmp_path / "s.db-peers"
        others = set(peers.glob("*.sock"))
        async with EndedRuns(deaf, beat=0.01) as ended, asyncio.timeout(PATIENCE):
            deaf.listen(heard.extend)
            (ears,) = set(peers.glob("*.sock")) - others
            ears.unlink()
            await end(long)
            assert await ended.next() == "long"
            for name in ("one", "two"):  # begun and ended between two looks, as a rule
                await end(await app.start(dev_waits, run_id=name))
                assert await ended.next() == name
    assert not heard


@pytest.mark.parametrize(
    ("module", "told"),
    [
        ("shpo.py", "no file shpo.py\nhint: did you mean shop.py?"),
        ("shopp", "no module 'shopp' in the current directory or on the path\nhint: did you mean shop?"),
        ("shop:greet", "'shop:greet' is no module name\nhint: give a dotted name or the path of a .py file"),
    ],
)
def test_what_is_no_module_is_told_before_anything_starts(tmp_path, module, told):
    (tmp_path / "shop.py").write_text(CODE)
    done = subprocess.run(
        [sys.executable, "-m", "holdfast", "dev", module, "--port", "0"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr.strip()) == (2, "", f"error: {told}")
