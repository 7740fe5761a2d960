"""How PostgreSQL gives a log: joined on the server, and the same events as were written, whatever is in them."""

import pytest
from store_kit import begin

from holdfast.events import new
from holdfast.store import open_store
from holdfast.store.postgres import logs
from holdfast.store.postgres.connect import SQL

HOSTILE = ["a\x01b", "\x01", "", "\0\x1a", "\x1a0", "\x1a1\0", "\N{SNOWMAN}"]
LARGE = ["x" * 9000, "y", "z" * 9000, "\N{SNOWMAN}" * 4000, "w", "v" * 8180, "u" * 9000]


@pytest.mark.parametrize("texts", [HOSTILE, LARGE, [str(number) for number in range(20)]])
async def test_a_log_is_read_as_it_was_written(postgres_url, monkeypatch, texts):
    monkeypatch.setattr(logs, "PAGE", 4)
    drafts = [new("noted", key=text[:10], data={"text": text}) for text in texts]
    async with open_store(postgres_url) as store:
        last = await begin(store)
        for after, draft in enumerate(drafts, last):
            await store.append("r", [draft], after=after)
        log = await store.read("r")
        assert [event.position for event in log] == list(range(1, len(drafts) + 3))
        assert [(event.key, event.body) for event in log[2:]] == [(draft.key, draft.body) for draft in drafts]
        for after in (0, 1, 4, 100):
            for limit in (0, 1, 4, 5, 100):
                assert await store.read("r", after=after, limit=limit) == log[after : after + limit]
        assert await store.read("nobody") == []
        assert (await store.take_up("r")).events == log


async def test_of_a_run_that_is_removed_while_it_is_read_there_is_a_prefix(postgres_url, monkeypatch):
    """Large bodies are asked for by themselves, and then they may be gone."""
    async with open_store(postgres_url) as store:
        await store.append(
            "r",
            [new("noted", key=text[:10], data={"text": text}) for text in ["a", *LARGE]],
            after=await begin(store),
        )
        log = await store.read("r")
        monkeypatch.setitem(
            SQL, "bodies", SQL["bodies"].replace("position = ANY", "position < 5 AND position = ANY")
        )
        assert await store.read("r") == log[:5]
        monkeypatch.setitem(SQL, "bodies", SQL["bodies"].replace("position < 5", "false"))
        assert await store.read("r") == log[:3]
