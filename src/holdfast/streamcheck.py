"""One run's streams under examination: each one's order, its size and its hash (law L13, for streams).

The row is read first, then the chunks up to where it says: they never change, so a stream that is being written
to meanwhile is in order up to there or not at all.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from .chunks import Chunk
from .logcheck import Difference
from .store.base import Store
from .store.streams import StreamHead, extend_chain


async def check_streams(store: Store, run_id: str) -> AsyncIterator[Difference]:
    """What is not as it must be in the streams of a run."""
    for head in await store.streams(run_id):
        found = _Found()
        after = 0
        while after < head.position and (page := await store.read_stream(run_id, head.name, after)):
            for chunk in page:
                if chunk.position <= head.position:
                    found.add(chunk)
            after = page[-1].position
        for what in (*found.differences, *found.against(head)):
            yield Difference(run_id, 0, f"stream {head.name!r}{what}")
        beyond = await store.read_stream(run_id, head.name, head.position, 1)
        now = await store.stream(run_id, head.name)
        if beyond and now is not None and now.position == head.position:
            yield Difference(
                run_id,
                0,
                f"stream {head.name!r} position {beyond[0].position}: lies beyond what its row says",
            )


class _Found:
    """What the chunks of a stream come to."""

    def __init__(self) -> None:
        self.differences: list[str] = []
        self.last = self.size = 0
        self.kind = ""
        self.chain = b""
        self._keys: dict[str, int] = {}

    def add(self, chunk: Chunk) -> None:
        """Check the next chunk against all before it."""
        at = f" position {chunk.position}: "
        if chunk.position != self.last + 1:
            self.differences.append(f"{at}position {self.last + 1} is missing before it")
        if chunk.key is not None and self._keys.setdefault(chunk.key, chunk.position) != chunk.position:
            self.differences.append(f"{at}key {chunk.key!r} stands at {self._keys[chunk.key]} already")
        self.last, self.kind = chunk.position, chunk.kind
        self.size += len(chunk.body)
        self.chain = extend_chain(self.chain, (chunk,))

    def against(self, head: StreamHead) -> Iterator[str]:
        """The chunks against the stream's row."""
        if self.last != head.position:
            yield f": its row says {head.position} chunks, the last one there is {self.last}"
        elif self.chain != head.chain:
            yield ": the hash of its row does not fit its chunks"
        elif (self.size, self.last if self.kind == "end" else 0) != (head.size, head.ended):
            yield f": its row says {head.size} bytes and end {head.ended}, its chunks have {self.size} bytes"
