"""What an operator can set about a server; closed by default."""

from __future__ import annotations

import msgspec

MIB = 1024 * 1024


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How a server behaves.

    host, port        where it listens; 127.0.0.1 is reached from this machine alone
    token_needed      whether callers on this machine need a token too (others always do)
    hosts             names, beside its own address, by which it may be called (the Host header)
    origins           web pages of these origins may call it (CORS); none unless set
    trails            the folder of trails that may be read here; None: none
    body_limit        bytes of a request's body; appends of workers are the largest
    rate, burst       requests a second of one caller, and how many at once; 0: no limit
    webhook_timeout   seconds for the body of a request to a webhook, and for a run's own response to it
    grace             seconds for which a worker whose connection is gone keeps its runs
    """

    host: str = "127.0.0.1"
    port: int = 8470
    token_needed: bool = False
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    trails: str | None = None
    body_limit: int = 64 * MIB
    rate: float = 2000.0
    burst: int = 4000
    webhook_timeout: float = 30.0
    grace: float = 0.4
