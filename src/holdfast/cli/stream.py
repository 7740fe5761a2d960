"""`stream`: what a run publishes, read while it works or later."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated

import typer

from . import output
from .frame import LOOK, command
from .options import DEFAULT_STORE, AsJson, RunId, StoreUrl, ending
from .problem import Problem, did_you_mean

if TYPE_CHECKING:
    from ..chunks import Chunk
    from ..store.base import Store
    from ..store.streams import StreamHead


@command(
    LOOK,
    ending(
        {
            0: "shown; with --follow: the stream or the run has ended",
            2: "cannot: there is no such store, run or stream",
            130: "interrupted",
        },
        ["stream chat-1", "stream chat-1 answer --follow", "stream build-7 artifact > app.tar"],
    ),
)
def stream(
    run: RunId,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="The stream. Without it: which streams there are.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes, until the stream or the run ends.")
    ] = False,
    after: Annotated[
        int, typer.Option("--after", min=0, metavar="N", help="Only chunks beyond this position.")
    ] = 0,
    latest: Annotated[
        bool, typer.Option("--latest", help="Leave out what a later attempt of its step has superseded.")
    ] = False,
    store: StoreUrl = DEFAULT_STORE,
    as_json: AsJson = False,
) -> int:
    """Show a stream of a run, or list its streams.

    Text and bytes are written as they are, one behind the other; JSON one value a line. With --json each line is
    one chunk, with its position, time, step and attempt.
    """
    if name is None:
        return asyncio.run(_list(store, run, as_json))
    return asyncio.run(_show(store, run, name, after, follow, latest, as_json))


async def _list(url: str, run_id: str, as_json: bool) -> int:
    from .stores import existing, head_of

    async with existing(url) as store:
        await head_of(store, run_id)
        heads = await store.streams(run_id)
        if as_json:
            for head in heads:
                output.data_json(
                    {
                        "name": head.name,
                        "position": head.position,
                        "bytes": head.size,
                        "ended": bool(head.ended),
                    }
                )
        elif heads:
            output.table(["STATUS", "POSITION", "BYTES", "STREAM"], [_row(head) for head in heads])
        else:
            output.note(f"{run_id} has written to no stream")
    return 0


def _row(head: StreamHead) -> list[str]:
    status = "ended" if head.ended else "open"
    return [output.status(status), f"{head.position}", f"{head.size:,}", output.clean(head.name)]


async def _show(
    url: str, run_id: str, name: str, after: int, follow: bool, latest: bool, as_json: bool
) -> int:
    from .stores import existing, head_of

    write = _write_json if as_json else _Plain()
    async with existing(url) as store:
        await head_of(store, run_id)
        if not follow:
            await _check_there(store, run_id, name)
        async for chunk in _chunks(store, run_id, name, after, follow, latest):
            write(chunk)
            sys.stdout.flush()
    if isinstance(write, _Plain):
        write.end()
    return 0


async def _check_there(store: Store, run_id: str, name: str) -> None:
    if await store.stream(run_id, name) is None:
        known = [head.name for head in await store.streams(run_id)]
        hint = did_you_mean(name, known) or f"`holdfast stream {run_id}` lists those that there are"
        raise Problem(f"{run_id} has written to no stream {name!r}", hint=hint)


async def _chunks(
    store: Store, run_id: str, name: str, after: int, follow: bool, latest: bool
) -> AsyncIterator[Chunk]:
    from ..streams import Streams

    if follow:
        async for chunk in Streams(store).read(run_id, name, after, latest=latest):
            yield chunk
        return
    head = await store.stream(run_id, name)
    while head is not None and after < head.position:  # what comes while we print is for --follow
        for chunk in await store.read_stream(run_id, name, after):
            after = chunk.position
            if chunk.kind != "end" and not (latest and head.superseded(chunk)):
                yield chunk


def _write_json(chunk: Chunk) -> None:
    output.data(chunk.to_json().decode())


class _Plain:
    """Chunks one behind the other; on a terminal without what could play tricks on it."""

    def __init__(self) -> None:
        self._on_terminal = sys.stdout.isatty()
        self._open_line = False

    def __call__(self, chunk: Chunk) -> None:
        body = chunk.body + b"\n" if chunk.kind == "json" else chunk.body
        if self._on_terminal:
            text = body.decode(errors="replace")
            sys.stdout.write("".join(c if c in "\n\t" else output.clean(c) for c in text))
        else:
            sys.stdout.buffer.write(body)
        self._open_line = not body.endswith(b"\n") if body else self._open_line

    def end(self) -> None:
        """Leave the terminal's cursor at the beginning of a line."""
        if self._on_terminal and self._open_line:
            sys.stdout.write("\n")
