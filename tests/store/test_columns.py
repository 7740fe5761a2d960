"""Rows on their way to PostgreSQL as text: what comes out of the server is what went in, whatever it is."""

import asyncio
import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as some

from holdfast.store.postgres import columns as module
from holdfast.store.postgres.columns import columns
from holdfast.store.postgres.text import unescape_some

asyncpg = pytest.importorskip("asyncpg")

ROWS = """
    SELECT n, o, t, s, decode(b, 'hex') FROM (
        SELECT unnest($3::text::bigint[]) AS n, unnest($4::text::boolean[]) AS o,
            unnest(string_to_array($5, $1, $2)) AS t, unnest(string_to_array($6, $1, $2)) AS s,
            unnest(string_to_array($7, $1, $2)) AS b
    ) AS rows WHERE n IS NOT NULL"""
HOSTILE = some.sampled_from(
    ["", "\x01", "\x02", "\x01\x02", "a\x01", "NULL", "null", "{}", '"', "\\", "\\x00", "'", ","]
)
TEXT = (
    HOSTILE | some.text(some.sampled_from("\x01\x02ab")) | some.text(some.characters(exclude_characters="\0"))
)
NAME = HOSTILE | some.text(some.sampled_from("\x01\x02\0\x1a01")) | some.text()
ROW = some.tuples(
    some.integers(-(2**63), 2**63 - 1),
    some.none() | some.booleans(),
    some.none() | TEXT,
    some.none() | NAME,
    some.none() | some.binary(max_size=20),
)


def test_what_the_server_takes_apart_is_what_was_laid_out(postgres_url):
    with asyncio.Runner() as runner:
        db = runner.run(asyncpg.connect(postgres_url))
        read = runner.run(db.prepare(ROWS))

        @settings(max_examples=150, deadline=None, database=None)
        @given(some.lists(ROW, max_size=6))
        @example([])
        @example([(1, None, "", "", b"")])
        @example([(1, None, None, None, None), (2, True, "\x01", "\x02", b"\x01")])
        def check(rows):
            marks, laid_out = columns((rows, "nntsb"))
            back = runner.run(read.fetch(*marks, *laid_out))
            assert [(n, o, t, unescape_some(s), b) for n, o, t, s, b in back] == rows

        try:
            check()
        finally:
            runner.run(db.close())


@pytest.mark.parametrize("text", ["\x01", "\x02", "a\x01b", "a\x02"])
def test_a_text_that_holds_a_mark_gets_other_marks_for_all_tables(monkeypatch, text):
    """Also where a text holds the word that was drawn: then another one is."""
    words = itertools.count(1)
    monkeypatch.setattr(module.ids, "random_bytes", lambda size: bytes([next(words)] * size))
    drawn = (b"\1" * 8).hex() + text.lstrip("a").rstrip("b")
    marks, laid_out = columns(([("plain",)], "t"), ([(text,)], "s"), ([(drawn,)], "t"))
    assert marks == ((b"\2" * 8).hex() + "\x01", (b"\2" * 8).hex() + "\x02")
    assert laid_out == [each + marks.separator for each in ("plain", text, drawn)]


def test_columns_without_rows_or_of_nothing_but_null_are_null():
    assert columns(([], "nts"), ([(None, 1), (None, None)], "tn"))[1] == [None, None, None, None, "{1,null}"]
