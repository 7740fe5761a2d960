"""Sealed payloads: unreadable at rest, the same to whoever has the keys, and nobody guesses without them."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from patience import PATIENCE

import holdfast as hf
from holdfast.errors import DeliveryConflict, KeyMissing
from holdfast.events import new
from holdfast.keys import Keys
from holdfast.store import open_store
from holdfast.verify import Verification

OLD, NEW = {"old": b"o" * 32}, {"new": b"n" * 32, "old": b"o" * 32}
SECRETS = (
    "secret-argument",
    "secret-result",
    "secret-error",
    "secret-payload",
    "secret-note",
)


@hf.step(name="keys.whisper", retries=0)
async def whisper(word: str) -> str:
    if word == "fail":
        raise ValueError("secret-error")
    return "secret-result"


@hf.workflow(name="keys.hushed")
async def secretive(word: str) -> str:
    hook = hf.hook("keys:answer", type=str, metadata={"for": "secret-note"})
    said = await whisper(word)
    hf.trail.note("secret-note")
    try:
        await whisper("fail")
    except ValueError:
        said += await hook
    return said


def url_of(folder: Path) -> str:
    return f"sqlite:///{folder}/runs.db"


async def play(folder: Path, keys: Keys | None) -> str:
    async with hf.connect(url_of(folder), keys=keys) as app, app.worker():
        run = await app.start(secretive, "secret-argument", run_id="r")
        assert (await _opened(app)).metadata == {"for": "secret-note"}
        await app.resume("keys:answer", "secret-payload", delivery_id="d")
        return await run.result(PATIENCE)


def bytes_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.glob("runs.db*")))


async def test_no_payload_stands_in_the_file_and_all_of_it_is_read_back(tmp_path):
    """Every secret is in the plain file, so that the search is one that finds; in the sealed one there is none."""
    plain, sealed = tmp_path / "plain", tmp_path / "sealed"
    assert await play(plain, None) == await play(sealed, Keys(OLD)) == "secret-resultsecret-payload"
    assert [word for word in SECRETS if word.encode() not in bytes_of(plain)] == []
    assert b"secret" not in bytes_of(sealed)

    async with open_store(url_of(plain)) as a, open_store(url_of(sealed), keys=Keys(OLD)) as b:
        told = [[(e.type, e.key, _steady(e.data)) for e in await store.read("r")] for store in (a, b)]
    assert told[0] == told[1]


def _steady(data):
    """Without what differs from run to run."""
    left_out = {"seed", "digest", "worker", "traceback"}
    if isinstance(data, dict):
        return {name: _steady(value) for name, value in data.items() if name not in left_out}
    return data


async def test_the_proof_needs_no_key(tmp_path):
    await play(tmp_path, Keys(OLD))
    for keys in (None, Keys(OLD)):
        async with open_store(url_of(tmp_path), keys=keys) as store:
            assert [found async for found in Verification(store).run()] == []


async def test_an_old_key_opens_and_a_new_one_seals(tmp_path):
    await play(tmp_path, Keys(OLD))
    async with open_store(url_of(tmp_path), keys=Keys(NEW)) as store:
        await store.append(
            "r2", [new("run_created", data={"workflow": "w", "args": {"word": "hush"}})], after=0
        )
        assert (await store.read("r"))[-1].data["value"] == "secret-resultsecret-payload"
        at_rest = (await store.at_rest.read("r2"))[0].data["args"]["$sealed"]
    assert at_rest.startswith("new:")
    async with open_store(url_of(tmp_path), keys=Keys(OLD)) as store:
        with pytest.raises(KeyMissing, match="'new': add its line"):
            await store.read("r2")


async def test_a_payload_sent_again_counts_once_also_after_the_key_was_changed(tmp_path):
    async with open_store(url_of(tmp_path), keys=Keys(OLD)) as store:
        await store.append("r", [new("run_created"), new("hook_opened", key="t#1", data={})], after=0)
        first = await store.deliver("t", b'"yes"', "d")
    async with open_store(url_of(tmp_path), keys=Keys(NEW)) as store:
        assert (await store.deliver("t", b'"yes"', "d")).duplicates == [first.first]
        with pytest.raises(DeliveryConflict):
            await store.deliver("t", b'"no"', "d")


async def test_a_sealed_value_opens_in_its_place_only(tmp_path):
    """Who can write to the database cannot put one run's result into another one."""
    async with open_store(url_of(tmp_path), keys=Keys(OLD)) as store:
        for run, value in (("a", 1), ("b", 1_000_000)):
            await store.append(
                run, [new("run_created"), new("run_completed", data={"value": value, "read": 0})], after=0
            )
        stolen = (await store.at_rest.read("b"))[1].body
    import apsw

    db = apsw.Connection(str(tmp_path / "runs.db"))
    db.execute(
        "UPDATE events SET body = ? WHERE position = 2 AND run = (SELECT row FROM runs WHERE run = 'a')",
        (stolen.decode(),),
    )
    db.close()
    async with open_store(url_of(tmp_path), keys=Keys(OLD)) as store:
        with pytest.raises(KeyMissing, match="changed or moved"):
            await store.read("a")
        assert (await store.read("b"))[1].data["value"] == 1_000_000


async def test_a_worker_without_the_keys_parks_the_run_and_one_with_them_ends_it(tmp_path):
    """It must not guess, nor fail the run: the code never saw what it was given."""
    sealed = Keys(OLD)
    async with hf.connect(url_of(tmp_path), keys=sealed) as app:
        await app.start(secretive, "secret-argument", run_id="r")
    async with hf.connect(url_of(tmp_path)) as app, app.worker():
        run = app.run("r")
        while not (info := await run.info()).parked:
            await asyncio.sleep(0.01)
        assert info.status != "failed"
        assert "HOLDFAST_KEYS" in str(info.parked)
    async with hf.connect(url_of(tmp_path), keys=sealed) as app, app.worker():
        await _opened(app)
        await app.resume("keys:answer", "!", delivery_id="d")
        assert await app.run("r").result(PATIENCE) == "secret-result!"


async def _opened(app):
    """The run's hook, once it has it."""
    while True:
        async for hook in app.hooks(token="keys:answer"):
            return hook
        await asyncio.sleep(0.01)


def cli(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    import os

    command = [sys.executable, "-m", "holdfast", *words]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env}, timeout=60)


def test_the_command_makes_a_file_for_its_owner_and_puts_new_keys_on_top(tmp_path):
    file = tmp_path / "keys.txt"
    first = cli("key", str(file), "--json")
    assert first.returncode == 0, first.stderr
    assert f"HOLDFAST_KEYS={file}" in first.stderr
    assert file.stat().st_mode & 0o777 == 0o600
    second = json.loads(cli("key", str(file), "--json").stdout)
    assert second["older"] == [json.loads(first.stdout)["name"]]
    assert Keys.load(file).names == [second["name"], *second["older"]]
    third = cli("key", str(file), "--name", second["name"])
    assert (third.returncode, "another --name" in third.stderr) == (2, True)
    assert len(file.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no key"),
        ("only-a-name", "expected 32 bytes, got 0"),
        ("k !!!", "line 1: expected NAME BASE64"),
        ("k b29v", "expected 32 bytes, got 3"),
        ("k b29v\nk b29v", "line 2: k stands there twice"),
        ("\udcff", "cannot be read"),
    ],
)
def test_a_file_that_is_no_key_file_is_told_in_one_line(tmp_path, text, said):
    file = tmp_path / "keys.txt"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(KeyMissing, match=said):
        Keys.load(file)
    told = cli("runs", "--store", "sqlite:///x.db", HOLDFAST_KEYS=str(file))
    assert told.returncode == 2
    assert "Traceback" not in told.stderr
