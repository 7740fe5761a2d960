"""What an operator can set about a server; closed by default."""

from __future__ import annotations

import msgspec


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How a server behaves.

    host, port        where it listens; 127.0.0.1 is reached from this machine alone
    trails            the folder of trails that may be read here; None: none
    """

    host: str = "127.0.0.1"
    port: int = 8470
    trails: str | None = None
