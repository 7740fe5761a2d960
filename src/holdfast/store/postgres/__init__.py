"""The store for many workers on many machines: one PostgreSQL database, all tables in the schema `holdfast`.

`store` is the whole; `connect` is a connection that is made again when it is lost, `schema` what it finds
there; `appends` is what a group of writes becomes: one statement, or a transaction with locks and look-ups
(`lookups`) where that one did not fit; `known` is what is known of a group's runs while it is judged, `writes`
what is to be written; `ownership` who works on what; `clock` the server's time; `text` names with a NUL.
"""

from .store import PostgresStore

__all__ = ["PostgresStore"]
