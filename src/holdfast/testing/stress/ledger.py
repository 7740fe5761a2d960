"""What senders were told, payload by payload: the log is held against it when the storm is over.

A sender does not take "no answer" for an answer: it sends again under the same delivery id until it is told
where the payload stands, or that nobody takes it (law L12). Counting is done from the logs; the ledger only
says what was promised.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from ...client import App
from ...errors import HookNotFound, StoreError

AGAIN = 0.05
"""Seconds between two sends of a payload that was not answered, or whose hook is not open yet."""


class Sent(msgspec.Struct):
    """One payload. Acknowledged where `position` is set, refused where `reason` is, else its fate is unknown."""

    token: str
    delivery: str
    run: str = ""
    position: int = 0
    reason: str = ""


class Ledger:
    """Every payload that was sent."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []

    async def send(self, app: App, token: str, payload: Any, *, opens: bool = False) -> Sent:
        """Send until answered. With `opens`, the hook is about to be opened: wait for that too."""
        sent = Sent(token, f"{token}/{len(self.sent)}")
        self.sent.append(sent)
        while True:
            try:
                resumed = await app.resume(token, payload, delivery_id=sent.delivery)
            except HookNotFound as error:
                if not opens or error.reason != "unknown":
                    sent.reason = error.reason
                    return sent
            except StoreError:
                pass
            else:
                sent.run, sent.position = resumed.run_id, resumed.position
                return sent
            await asyncio.sleep(AGAIN)
