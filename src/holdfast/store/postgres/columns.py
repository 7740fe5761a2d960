"""Rows laid out as the columns of one statement, each column one text.

The driver asks two abstract classes of each element of an array what it is, which costs 0.4 µs of processor time,
and the rows of a step have some fifty elements. As text they cost a tenth of that, and the server no more:

- numbers and booleans stand in an array's literal, `{1,null,2}`, for `unnest($3::text::bigint[])`;
- behind each text stands a mark, for `unnest(string_to_array($4, $1, $2))`. What follows the last mark is one
  empty text more, in a row whose numbers are NULL: each statement leaves out the row without a run. (With marks in
  between alone, one empty text would be the same as none.)
- bytes stand there in hex, for `decode(…, 'hex')`.

Any text may stand in any column: the marks are two control characters, which JSON never holds, and where a name
does hold one (they are counted), a random word goes before both. Columns of nothing but NULL are NULL themselves,
and so are those of no rows.

Rejected: JSON for the server to take apart (three times its time), escapes in the texts (a `replace` of each).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from holdfast import ids
from holdfast.events import dump_json

from .text import escape, escape_some

Rows = Sequence[tuple[Any, ...]]


class Marks(NamedTuple):
    """What stands behind each text of a statement, and what stands for NULL."""

    separator: str = "\x01"
    null: str = "\x02"


class _Marked(Exception):
    """A text holds one of the marks."""


def columns(*tables: tuple[Rows, str]) -> tuple[Marks, list[str | None]]:
    """The marks, and the columns of all tables, each given with its shape: a letter a column.

    `n` is for numbers and booleans, `b` for bytes, `t` for texts, `s` for names, which are escaped.
    """
    marks = Marks()
    while True:
        try:
            return marks, [column for rows, shape in tables for column in _columns(rows, shape, marks)]
        except _Marked:
            word = ids.random_bytes(8).hex()
            marks = Marks(word + "\x01", word + "\x02")


def _columns(rows: Rows, shape: str, marks: Marks) -> list[str | None]:
    if not rows:
        return [None] * len(shape)
    return [
        None if column[0] is None and column.count(None) == len(column) else _WAYS[kind](column, marks)
        for kind, column in zip(shape, zip(*rows, strict=True), strict=True)
    ]


def _numbers(column: Sequence[int | None], _marks: Marks) -> str:
    return "{" + dump_json(column).decode()[1:-1] + "}"  # a JSON array but for the brackets


def _texts(column: Sequence[str | None], marks: Marks) -> str:
    separator, null = marks
    nulls = 0
    try:
        joined = separator.join((*column, ""))  # type: ignore[arg-type]
    except TypeError:
        nulls = column.count(None)
        given = [null if text is None else text for text in column]
        joined = separator.join((*given, ""))
    if joined.count(separator) != len(column) or joined.count(null) != nulls:
        raise _Marked
    return joined


def _names(column: Sequence[str | None], marks: Marks) -> str:
    joined = _texts(column, marks)
    return joined if escape(joined) is joined else _texts([*map(escape_some, column)], marks)


def _bytes(column: Sequence[bytes | None], marks: Marks) -> str:
    return _texts([None if value is None else value.hex() for value in column], marks)


_WAYS: dict[str, Callable[[Sequence[Any], Marks], str]] = {
    "n": _numbers, "b": _bytes, "t": _texts, "s": _names,
}  # fmt: skip
