"""The embedded store: one SQLite file, any number of processes, every answer durable.

`store` is the whole; `connect` opens a file and names what is wrong with it, `appends` is the one
transaction that a group of writes becomes, `lookups` what such a transaction reads, `thread` where it runs
when it may not hold up the loop.
"""

from .store import SqliteStore

__all__ = ["SqliteStore"]
