"""`hf.stream`: what a run publishes while it works.

A `Stream` is a value: the name of a stream and its run, nothing else. So it can be passed to steps, returned
and stored like any other value, and means the same wherever it arrives. What can be done with it depends on
where that is:

- In a step, it writes and reads: at once, in the name of the step's attempt.
- In workflow code, each write is a small durable step (`stream.write#3`) which appends its chunk under its own
  key. So it is asked for again on replay and not done again (laws L6 and L7), and a retry finds its chunk there.
  It costs what a step costs, and the chunk stands in the log too. Reading is refused there: what has come until
  now is no function of the log.
- Elsewhere there is `run.stream(name)`.

Rejected: chunks of workflow code that are sent beside the tick. They may be sent only after the append that
holds what they follow from (a decider that delivers early can be wrong until then), must be sent once more after
a crash between the two, and nothing would tell a replay that they differ.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, Self

import msgspec

from .chunks import Chunk, check_name
from .errors import DefinitionError, NotDeterministic
from .inside import step_info
from .runtime import Attempt, attempt_here, here
from .workflow import step

_WRITERS = 10
"""Attempts for a write by workflow code: it fails for reasons of the store only."""


class Stream(msgspec.Struct, frozen=True):
    """A stream of a run, as steps and workflow code hold it: write to it, end it, and in a step read it.

    Example:
        @hf.step
        async def answer(question: str) -> None:
            async with hf.stream("answer") as out:        # ended at the end of the block
                async for token in model(question):
                    await out.write(token)

    `async with` sets the end mark where the block is left without an exception. A sync step uses `with`,
    `write_sync`, `end_sync`, `flush_sync` and `for chunk in stream`.
    """

    name: str
    run: str

    # ---- writing

    async def write(self, chunk: Any, *, key: str | None = None) -> None:
        """Append a chunk: str, bytes, or a value that becomes JSON. Waits while too much is not yet stored.

        It is durable at the latest when the step has its outcome; `flush` waits for it now. A chunk with a
        `key` that the stream holds already is not appended again. Raises PayloadError (size, no JSON),
        StreamEnded, RunEnded, StepEnded (this attempt was given up) for this chunk or an earlier one.
        """
        if here.runtime is not None:
            await here.runtime.step(_write, (self, chunk, key), {})
        else:
            await self.attempt_here().writer(self.run, self.name).write(chunk, key)

    async def end(self) -> None:
        """Set the end mark, behind which nothing comes; all is durable when this returns."""
        if here.runtime is not None:
            await here.runtime.step(_end, (self,), {})
        else:
            await self.attempt_here().writer(self.run, self.name).end()

    async def flush(self) -> None:
        """Wait until all that this step has written here is durable."""
        if here.runtime is None:
            await self.attempt_here().writer(self.run, self.name).flush()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        if kind is None:
            await self.end()

    # ---- reading

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self.read()

    def read(self, after: int = 0, *, latest: bool = False) -> AsyncIterator[Chunk]:
        """The chunks beyond `after`, as they come, until the end mark or the run's end. In steps only.

        With `latest`, those of an attempt that a later one had superseded are left out.
        """
        if here.runtime is not None:
            raise NotDeterministic(
                f"stream {self.name!r} cannot be read in workflow code, for a replay would find more of it "
                "there: read it in a step"
            )
        return self.attempt_here().read(self.run, self.name, after, latest=latest)

    # ---- the same from a step that is a plain function

    def write_sync(self, chunk: Any, *, key: str | None = None) -> None:
        """`write`, in a sync step."""
        self.attempt_here().wait(lambda: self.write(chunk, key=key))

    def end_sync(self) -> None:
        """`end`, in a sync step."""
        self.attempt_here().wait(self.end)

    def flush_sync(self) -> None:
        """`flush`, in a sync step."""
        self.attempt_here().wait(self.flush)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.end_sync()

    def __iter__(self) -> Iterator[Chunk]:
        attempt, chunks = self.attempt_here(), self.read()
        while True:
            try:
                yield attempt.wait(lambda: anext(chunks))
            except StopAsyncIteration:
                return

    def attempt_here(self) -> Attempt:
        attempt = attempt_here.get()
        if attempt is None:
            raise DefinitionError(
                f"stream {self.name!r} can be used here in a step or in workflow code only: "
                f"read it with app.run({self.run!r}).stream({self.name!r})"
            )
        return attempt


def stream(name: str) -> Stream:
    """The stream of this run with this name, in workflow code or in a step; it begins with its first chunk.

    Example:
        await hf.stream("progress").write({"done": 3, "of": 10})
    """
    check_name(name, "stream name")
    if here.runtime is not None:
        return Stream(name, here.runtime.info().run_id)
    attempt = attempt_here.get()
    if attempt is None:
        raise DefinitionError(
            "hf.stream() works in workflow code and in steps only: elsewhere use app.run(…).stream(name)"
        )
    return Stream(name, attempt.info.run_id)


@step(name="stream.write", retries=_WRITERS)
async def _write(stream: Stream, chunk: Any, key: str | None = None) -> None:
    info = step_info()
    own = info.key.removeprefix(f"{info.run_id}/") if info.run_id == stream.run else info.key
    await stream.write(chunk, key=key or own)


@step(name="stream.end", retries=_WRITERS)
async def _end(stream: Stream) -> None:
    await stream.end()
