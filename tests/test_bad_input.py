"""Bad input gets a clear one-line error, and changes nothing."""

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent / "worker"))

from patience import PATIENCE
from worker_kit import log_of

import holdfast as hf
from holdfast.codec import MAX_DEPTH
from holdfast.errors import DefinitionError, SchemaUnknown, StoreBroken
from holdfast.store import open_store
from holdfast.workflow import steps, workflows


@hf.step(name="bad.double")
async def double(n: int) -> int:
    return n * 2


@hf.workflow(name="bad.doubled")
async def doubled(n: int) -> int:
    return await double(n)


@hf.workflow(name="bad.nested")
async def nested(rows: list[dict[str, int]]) -> int:
    return len(rows)


@hf.workflow(name="bad.echo")
async def echo(value: Any) -> Any:
    return value


def one_line(error: BaseException, *words: str) -> None:
    """A message that fits on a line and names what it is about."""
    text = str(error)
    assert "\n" not in text
    assert len(text) < 500
    for word in words:
        assert word in text, f"{word!r} is not in {text!r}"


async def runs_of(app: hf.App) -> list[str]:
    return [run.id async for run in app.runs()]


@pytest.fixture
async def app():
    async with hf.connect("memory://") as app, app.worker():
        yield app


# ---- definitions


def test_a_plain_function_is_no_workflow():
    """R-11: refused where it is written, with the remedy."""
    with pytest.raises(DefinitionError) as caught:

        @hf.workflow
        def plain(n: int) -> int:
            return n

    one_line(caught.value, "plain", "async def", "step")


@pytest.mark.parametrize("decorate", [hf.step, hf.workflow])
def test_generators_are_refused(decorate):
    """R-11."""
    with pytest.raises(DefinitionError) as caught:

        @decorate
        def rows():
            yield 1

    one_line(caught.value, "rows", "generator")
    with pytest.raises(DefinitionError) as caught:

        @decorate
        async def more_rows():
            yield 1

    one_line(caught.value, "more_rows", "generator")


@pytest.mark.parametrize(
    "thing", [len, "text", 7, print, type("C", (), {}), type("C", (), {"__call__": len})()]
)
@pytest.mark.parametrize("decorate", [hf.step, hf.workflow])
def test_only_functions_can_be_decorated(decorate, thing):
    with pytest.raises(DefinitionError, match="expected a function"):
        decorate(thing)


@pytest.mark.parametrize("options", [{"retries": -1}, {"retries": "3"}, {"timeout": -1}, {"heartbeat": -0.5}])
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(DefinitionError) as caught:
        hf.step(**options)
    one_line(caught.value, next(iter(options)))


@pytest.mark.parametrize("name", ["a#b", "nul\0", "line\nbreak", "x" * 256, "\ud800"])
def test_names_that_a_log_cannot_hold_are_refused(name):
    async def fn() -> None: ...

    for decorate in (hf.step(name=name), hf.workflow(name=name)):
        with pytest.raises(DefinitionError) as caught:
            decorate(fn)
        one_line(caught.value, "printable")


@pytest.mark.parametrize(
    "name", ['it\'s "quoted"', "naïve—ключ-🗝", "a b/c:d?e", "x" * 255, "; DROP TABLE runs"]
)
async def test_names_may_hold_any_printable_text(tmp_path, name):
    @hf.step(name=name)
    async def inner(n: int) -> int:
        return n + 1

    @hf.workflow(name=name)
    async def outer(n: int) -> int:
        return await inner(n)

    async with hf.connect(f"sqlite:///{tmp_path}/app.db") as app, app.worker():
        run = await app.start(outer, 1)
        assert await run.result(PATIENCE) == 2
        assert (await run.info()).workflow == name
        assert [r.id async for r in app.runs(workflow=name)] == [run.id]
        assert (await log_of(app, run.id))[2].key == f"{name}#1"


async def test_two_functions_of_one_name_are_refused_with_both_places(app, tmp_path):
    """DESIGN §8: when the second is used, not when it is imported."""
    spaces = []
    for folder in ("one", "two"):
        file = tmp_path / f"{folder}.py"
        source = """
            import holdfast as hf

            @hf.step(name="bad.shared-step")
            async def work() -> int:
                return 1

            @hf.workflow(name="bad.shared")
            async def shared() -> int:
                return 1

            @hf.workflow(name="bad.uses-{folder}")
            async def uses() -> int:
                return await work()
        """
        space = {"__name__": f"bad_{folder}"}
        exec(compile(textwrap.dedent(source).replace("{folder}", folder), str(file), "exec"), space)
        spaces.append(space)
    try:
        with pytest.raises(DefinitionError) as caught:
            await app.start(spaces[0]["shared"])
        one_line(caught.value, "bad.shared", f"{tmp_path}/one.py:8", f"{tmp_path}/two.py:8", "name=")
        run = await app.start(spaces[0]["uses"])
        with pytest.raises(hf.RunFailed, match=r"bad\.shared-step.*one\.py:4.*two\.py:4"):
            await run.result(PATIENCE)
        assert await runs_of(app) == [run.id]
    finally:
        del workflows._known["bad.shared"], steps._known["bad.shared-step"]


# ---- arguments and payloads


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (([{"a": 1}, {"b": "two"}],), ["bad.nested argument rows", "int", "str", "[1]"]),
        (("text",), ["bad.nested argument rows", "array", "str"]),
        (([{1: 1}],), ["bad.nested argument rows", "str", "int"]),
        (([None],), ["bad.nested argument rows", "object", "null"]),
    ],
)
async def test_arguments_say_expected_got_and_path(app, args, words):
    with pytest.raises(hf.PayloadError) as caught:
        await app.start(nested, *args)
    one_line(caught.value, "expected", "got", *[w for w in words if w not in {"array", "object", "null"}])
    assert await runs_of(app) == []


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (object(), ["object"]),
        ({"a": [1, {"deep": {1, object()}}]}, ["a", "deep"]),
        ([asyncio.Lock], ["[0]", "type"]),
        (lambda: None, ["function"]),
        ({"rows": [sys]}, ["rows", "module"]),
    ],
)
async def test_values_that_cannot_be_written_name_the_field(app, value, words):
    with pytest.raises(hf.PayloadError) as caught:
        await app.start(echo, value)
    one_line(caught.value, "bad.echo argument value", *words)
    assert await runs_of(app) == []


async def test_values_that_hold_themselves_are_refused(app):
    loop: list[Any] = []
    loop.append(loop)
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    for value in (loop, deep):
        with pytest.raises(hf.PayloadError) as caught:
            await app.start(echo, value)
        one_line(caught.value, "bad.echo argument value")
    assert await runs_of(app) == []


def in_lists(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@hf.step(name="bad.deep")
async def deep_result(levels: int) -> Any:
    return in_lists(levels)


@hf.step(name="bad.goes-in")
async def goes_in(value: Any) -> None: ...


@hf.workflow(name="bad.returns-deep")
async def returns_deep(levels: int) -> Any:
    return in_lists(levels)


@hf.workflow(name="bad.steps-deep")
async def steps_deep(levels: int) -> Any:
    return await deep_result(levels)


@hf.workflow(name="bad.passes-deep")
async def passes_deep(levels: int) -> None:
    await goes_in(in_lists(levels - 1))  # and the object of the arguments


@hf.workflow(name="bad.child-gets-deep")
async def child_gets_deep(levels: int) -> None:
    await echo(in_lists(levels - 1))


@hf.workflow(name="bad.describes-deep")
async def describes_deep(levels: int) -> None:
    hf.hook("described", metadata=in_lists(levels))


@hf.workflow(name="bad.waits-for-anything")
async def waits_for_anything() -> Any:
    return await hf.hook("anything")


@pytest.mark.parametrize("workflow", [returns_deep, steps_deep, passes_deep, child_gets_deep, describes_deep])
async def test_a_run_may_keep_a_hundred_levels_and_no_more(app, workflow):
    """What is accepted can be read by every worker; what one Python can write, another one may not read."""
    async with app.worker():
        run = await app.start(workflow, MAX_DEPTH)
        await run.result(PATIENCE)
        run = await app.start(workflow, MAX_DEPTH + 1)
        with pytest.raises(hf.RunFailed, match="is nested too deeply: expected JSON of at most 100 levels"):
            await run.result(PATIENCE)


async def test_what_comes_from_outside_may_have_a_hundred_levels_and_no_more(app):
    def raw(levels: int) -> bytes:
        return b"[" * levels + b"]" * levels

    async with app.worker():
        waiting = await app.start(waits_for_anything)
        for levels in (MAX_DEPTH + 1, 5000, 1_000_000):
            for send in (
                lambda levels=levels: app.start_raw("bad.echo", b'{"value":' + raw(levels - 1) + b"}"),
                lambda levels=levels: app.resume_raw("anything", raw(levels)),
            ):
                with pytest.raises(hf.PayloadError) as caught:
                    await send()
                one_line(caught.value, "is nested too deeply: expected JSON of at most 100 levels")
        assert await runs_of(app) == [waiting.id]
        run = await app.start_raw("bad.echo", b'{"value":' + raw(MAX_DEPTH - 1) + b"}")
        value = await run.result(PATIENCE)
        await app.resume_raw("anything", raw(MAX_DEPTH))
        assert await waiting.result(PATIENCE) == [value]


async def test_arguments_over_the_limit_say_size_and_limit():
    async with hf.connect("memory://", payload_limit=1000) as app:
        with pytest.raises(hf.PayloadError) as caught:
            await app.start(echo, "x" * 1001)
        one_line(caught.value, "bad.echo arguments", "1,000", "payload_limit")
        assert await runs_of(app) == []


@pytest.mark.parametrize("text", ["nul \0", "\ud800 lone \udfff", "'\"`;--", "\u2028\u2029\x7f", "🗝", ""])
async def test_every_text_round_trips_on_sqlite(tmp_path, text):
    """DESIGN §8: NUL characters and lone surrogates too."""
    async with hf.connect(f"sqlite:///{tmp_path}/app.db") as app, app.worker():
        run = await app.start(echo, {"said": text, text: [text]}, run_id="text")
        assert await run.result(PATIENCE) == {"said": text, text: [text]}
        assert (await app.start(echo, {"said": text, text: [text]}, run_id="text")).id == "text"


async def test_a_workflow_that_no_process_knows_just_waits(app):
    run = await app.start_raw("bad.unknown", b"{}")
    assert await run.status() == "pending"
    with pytest.raises(TimeoutError):
        await run.result(0.05)


async def test_raw_arguments_that_do_not_fit_park_the_run_and_say_so(app):
    """The sender had no code to check with; nothing can be decided, so nothing is written in its name."""
    run = await app.start_raw("bad.doubled", b'{"n":"two"}')
    async with asyncio.timeout(PATIENCE):
        while (reason := (await run.info()).parked) is None:
            await asyncio.sleep(0.005)
    one_line(Exception(reason["message"]), "argument n", "int", "str")


# ---- files


def script(body: str) -> str:
    return textwrap.dedent("""
        import asyncio, sys
        import holdfast as hf

        @hf.step
        async def double(n: int) -> int:
            return n * 2

        @hf.workflow
        async def doubled(n: int) -> int:
            return await double(n)

        @hf.workflow
        async def large(text: str) -> int:
            return len(text)
    """) + textwrap.dedent(body)


async def test_a_file_that_is_no_database_is_left_as_it_is(tmp_path):
    file = tmp_path / "letter.txt"
    file.write_text("Dear Ana,\n" + "this is no database. " * 500)
    before = file.read_bytes()
    with pytest.raises(StoreBroken) as caught:
        async with hf.connect(f"sqlite:///{file}"):
            pass
    one_line(caught.value, str(file), "not an SQLite database")
    assert file.read_bytes() == before
    assert os.listdir(tmp_path) == ["letter.txt"]


async def test_somebody_elses_database_is_left_as_it_is(tmp_path):
    file = tmp_path / "theirs.db"
    db = sqlite3.connect(file)
    db.execute("CREATE TABLE customers (name TEXT)")
    db.commit()
    db.close()
    with pytest.raises(hf.StoreError) as caught:
        async with hf.connect(f"sqlite:///{file}"):
            pass
    one_line(caught.value, str(file))
    db = sqlite3.connect(file)
    assert [row[0] for row in db.execute("SELECT name FROM sqlite_schema")] == ["customers"]
    db.close()


async def test_a_newer_schema_is_refused(tmp_path):
    file = tmp_path / "app.db"
    async with hf.connect(f"sqlite:///{file}") as app:
        await app.start(doubled, 1, run_id="one")
    db = sqlite3.connect(file)
    db.execute("INSERT INTO migrations VALUES (9999, 'from the future', 'x', 0)")
    db.commit()
    db.close()
    with pytest.raises(SchemaUnknown) as caught:
        async with hf.connect(f"sqlite:///{file}"):
            pass
    one_line(caught.value, str(file))
    assert "newer" in str(caught.value)


async def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(hf.StoreError) as caught:
        async with hf.connect(f"sqlite:///{tmp_path}"):
            pass
    one_line(caught.value, str(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(hf.StoreError) as caught:
        async with hf.connect(f"sqlite:///{tmp_path}/file/app.db"):
            pass
    one_line(caught.value, "folder")


async def test_a_corrupt_file_is_reported_and_not_written(tmp_path):
    file = tmp_path / "app.db"
    async with hf.connect(f"sqlite:///{file}") as app:
        for n in range(300):
            await app.start(doubled, n, run_id=f"run-{n}")
    db = sqlite3.connect(file)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    with file.open("r+b") as raw:
        size = raw.seek(0, 2)
        for page in range(1, size // 4096):
            raw.seek(page * 4096)
            raw.write(b"\xde\xad\xbe\xef" * 256)
    with pytest.raises(StoreBroken) as caught:
        async with hf.connect(f"sqlite:///{file}") as app:
            await app.run("run-7").status()
            await app.start(doubled, 1)
    one_line(caught.value, str(file), "corrupt", "backup")


def run_script(folder: Path, body: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script(body)], cwd=folder, capture_output=True, text=True, timeout=40
    )


READ_ONLY = """
    import os, tempfile

    async def main(url):
        try:
            async with hf.connect(url) as app:
                await app.start(doubled, 1)
        except hf.StoreError as error:
            print(error)

    with tempfile.TemporaryDirectory() as folder:  # what is imported late, root must import
        asyncio.run(main(f"sqlite:///{folder}/app.db"))
    os.setgid(65534)
    os.setuid(65534)
    asyncio.run(main("sqlite:///app.db"))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="root may write everywhere: becoming nobody needs root")
@pytest.mark.parametrize("what", ["empty", "with a store"])
async def test_a_folder_that_cannot_be_written(what):
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        if what == "with a store":
            async with hf.connect(f"sqlite:///{folder}/app.db") as app:
                await app.start(doubled, 1)
        for path in folder.iterdir():
            path.chmod(0o444 if path.is_file() else 0o555)
        folder.chmod(0o555)
        before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        done = run_script(folder, READ_ONLY)
        assert done.returncode == 0, done.stderr
        (said,) = done.stdout.splitlines()
        one_line(Exception(said), "app.db", "writable")
        assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


FULL = """
    async def main():
        async with hf.connect("sqlite:///small/app.db") as app:
            async with app.worker():
                kept = 0
                try:
                    for n in range(400):
                        run = await app.start(large, "x" * 100_000, run_id=f"run-{n}")
                        assert await run.result(20) == 100_000
                        kept += 1
                except (hf.StoreError, TimeoutError) as error:
                    print("said:", type(error).__name__, str(error))
                print("kept:", kept)
                import os
                os.unlink("small/ballast")
                run = await app.start(doubled, 21, run_id="after")
                print("after:", await run.result(60))
        async with hf.connect("sqlite:///small/app.db") as app:
            print("completed:", len([r async for r in app.runs(status="completed")]))
    asyncio.run(main())
"""


def test_a_full_disk_loses_nothing_that_was_acknowledged(tmp_path):
    """A small tmpfs fills up: the caller is told, what was answered stays, and with room again it goes on."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(small)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs here: {mounted.stderr.strip()}")
    try:
        (small / "ballast").write_bytes(b"\1" * (8 << 20))
        done = run_script(tmp_path, FULL)
        lines = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
        assert done.returncode == 0, done.stderr[-2000:]
        assert "disk is full" in lines["said"] or "TimeoutError" in lines["said"], lines
        assert "disk is full" in lines["said"] + done.stderr
        assert lines["after"] == "42"
        assert int(lines["completed"]) >= int(lines["kept"]) + 1
        assert "Traceback" not in done.stderr
    finally:
        subprocess.run(["umount", str(small)], check=True)


async def test_memory_and_file_urls_that_are_wrong():
    for url in ("sqlite:///", "sqlite://app.db", "sqlite:///:memory:", "mysql://x", "app.db", "", "postgres"):
        with pytest.raises(hf.StoreError) as caught:
            open_store(url)
        one_line(caught.value, "sqlite:///")
