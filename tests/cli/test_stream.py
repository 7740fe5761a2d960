"""`stream`: what a run publishes, from a shell."""

import asyncio
import json
from pathlib import Path

import pytest
from cli_kit import Command, child, steady
from patience import PATIENCE

from holdfast.chunks import END, Part
from holdfast.events import new
from holdfast.store import open_store


@pytest.fixture
def told(holdfast: Command) -> Command:
    """A store with a run that has written to two streams."""
    assert holdfast("start", "shop:approve", "ana", "--run-id", "a-1").code == 0

    async def write() -> None:
        async with open_store("sqlite:///.holdfast/holdfast.db") as store:
            parts = [Part("text", b"one "), Part("text", "two 'ü'\n".encode(), "k"), Part("json", b'{"n":3}')]
            await store.write_stream("a-1", "words", parts)
            await store.write_stream("a-1", "bytes", [Part("bytes", b"\0\xff"), END])

    asyncio.run(write())
    return holdfast


def test_the_streams_of_a_run(told: Command) -> None:
    assert steady(told("stream", "a-1").out) == (
        "STATUS POSITION BYTES STREAM\nopen 3 20 words\nended 2 2 bytes\n"
    )
    assert [json.loads(line) for line in told("stream", "a-1", "--json").out.splitlines()] == [
        {"name": "words", "position": 3, "bytes": 20, "ended": False},
        {"name": "bytes", "position": 2, "bytes": 2, "ended": True},
    ]


def test_chunks_one_behind_the_other(told: Command) -> None:
    assert told("stream", "a-1", "words").out == "one two 'ü'\n" + '{"n":3}\n'
    assert told("stream", "a-1", "words", "--after", "2").out == '{"n":3}\n'
    assert told("stream", "a-1", "words", "--after", "9").out == ""


def test_chunks_as_json(told: Command) -> None:
    lines = [json.loads(line) for line in told("stream", "a-1", "words", "--json").out.splitlines()]
    assert [(c["position"], c["kind"], c.get("key"), c["data"]) for c in lines] == [
        (1, "text", None, "one "),
        (2, "text", "k", "two 'ü'\n"),
        (3, "json", None, {"n": 3}),
    ]
    [chunk] = [
        json.loads(line) for line in told("stream", "a-1", "bytes", "--follow", "--json").out.splitlines()
    ]
    assert chunk["data"] == "AP8="


def test_what_is_not_there(told: Command) -> None:
    done = told("stream", "a-1", "word")
    assert done.code == 2
    assert done.err == "error: a-1 has written to no stream 'word'\nhint: did you mean words?\n"
    assert told("stream", "nobody").code == 2
    assert told("stream", "nobody", "words", "--follow").code == 2


def test_following_goes_on_until_the_run_has_ended(told: Command) -> None:
    """In another process, which hears of what comes."""
    process = child("stream", "a-1", "words", "--follow", "--json", cwd=Path.cwd())

    async def write() -> None:
        async with open_store("sqlite:///.holdfast/holdfast.db") as store:
            await store.write_stream("a-1", "words", [Part("text", b"late")])
            await store.append("a-1", [new("run_cancelled", data={"reason": "", "by": "terminate"})])

    with process:
        assert json.loads(process.stdout.readline())["position"] == 1
        asyncio.run(write())
        out = process.stdout.read()  # not `communicate`: it does not know of what `readline` has buffered
        assert [json.loads(line)["position"] for line in out.splitlines()] == [2, 3, 4]
        assert process.wait(PATIENCE) == 0
