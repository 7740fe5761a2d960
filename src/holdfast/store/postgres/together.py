"""Questions about single runs, asked together: what is asked while the connection is busy is one statement.

A crowd of runs is taken up, followed and awaited one by one, as code is easiest to read; a round trip for each
of them would be most of what they cost. So the first question goes at the end of the loop's turn, and those that
come while it is under way go together when it is answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Together(Generic[K, V]):
    """One kind of question. `ask` answers many at once; what it does not answer is None."""

    def __init__(self, ask: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]], most: int) -> None:
        self._ask = ask
        self._most = most
        self._waiting: dict[K, list[asyncio.Future[V | None]]] = {}
        self._task: asyncio.Task[None] | None = None

    async def get(self, key: K) -> V | None:
        """The answer to one question. Raises what `ask` raises."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[V | None] = loop.create_future()
        self._waiting.setdefault(key, []).append(future)
        if self._task is None:
            self._task = loop.create_task(self._answer())
        return await future

    async def _answer(self) -> None:
        try:
            await asyncio.sleep(0)  # whatever is asked in this turn comes along
            while self._waiting:
                keys = list(self._waiting)[: self._most]
                asking = {key: self._waiting.pop(key) for key in keys}
                if all(future.done() for waiting in asking.values() for future in waiting):
                    continue  # everybody who asked has gone
                await self._answer_these(asking)
        finally:
            self._task = None

    async def _answer_these(self, asking: dict[K, list[asyncio.Future[V | None]]]) -> None:
        answers: Mapping[K, V] = {}
        failure: BaseException | None = None
        try:
            answers = await self._ask(list(asking))
        except Exception as error:  # noqa: BLE001 - it is the answer of all who asked
            failure = error
        except BaseException:
            for waiting in (*asking.values(), *self._waiting.values()):
                for future in waiting:
                    future.cancel()
            raise
        for key, waiting in asking.items():
            for future in waiting:
                if future.done():
                    continue
                if failure is None:
                    future.set_result(answers.get(key))
                else:
                    future.set_exception(failure)
