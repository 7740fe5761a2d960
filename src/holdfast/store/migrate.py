"""The schema's history: numbered files, each applied once, in order, and never changed afterwards.

Every migration that a file has had stands in its table `migrations` with the checksum of its text. All of it
happens in one write transaction, so of several processes that open an empty or old store at once one migrates
and the others find it done. What is refused, and why:

- a number that this version does not have: a newer Holdfast wrote the store (SchemaUnknown);
- a checksum that differs: nobody can say what the tables look like (StoreBroken);
- tables without a history: the file belongs to another program (StoreBroken).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

from holdfast.errors import SchemaUnknown, StoreBroken

if TYPE_CHECKING:
    import apsw


class Migration(NamedTuple):
    """One step of the schema's history; `name` is its file's name without `.sql`."""

    number: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        """What the text came to when it was applied, so that a later change of it is found."""
        return hashlib.blake2b(self.text.encode(), digest_size=16).hexdigest()


def load_migrations(backend: str) -> list[Migration]:
    """The migrations of a backend, the oldest first: `sql/<backend>/0001_initial.sql` and so on."""
    found = []
    for file in (files("holdfast.store") / "sql" / backend).iterdir():
        number, _, rest = file.name.partition("_")
        if number.isdigit() and rest.endswith(".sql"):
            name = file.name.removesuffix(".sql")
            found.append(Migration(int(number), name, file.read_text("utf-8")))
    return sorted(found)


def migrate(
    db: apsw.Connection, queries: dict[str, str], migrations: list[Migration], path: str, now: int
) -> None:
    """Bring a SQLite file to the schema of this version. Raises SchemaUnknown and StoreBroken."""
    # Looked up without the write lock: the way of nearly every open.
    begun = "migrations" in _tables(db, queries)
    if begun and len(_applied(db, queries, migrations, path)) == len(migrations):
        return
    db.execute(queries["begin"])
    try:
        applied = _applied(db, queries, migrations, path)
        if not applied:
            db.execute(queries["create_migrations"])
        for migration in migrations[len(applied) :]:
            db.execute(migration.text)
            db.execute(
                queries["add_migration"],
                (migration.number, migration.name, migration.checksum, now),
            )
        db.execute(queries["commit"])
    except BaseException:
        if db.in_transaction:
            db.execute(queries["rollback"])
        raise


def _tables(db: apsw.Connection, queries: dict[str, str]) -> set[Any]:
    # By a query, for the driver's own look at the schema may be older than the transaction.
    return {name for (name,) in db.execute(queries["tables"])}


def _applied(
    db: apsw.Connection, queries: dict[str, str], migrations: list[Migration], path: str
) -> list[tuple[int, str, str]]:
    """The migrations that the file has had, after checking that they are the first of ours."""
    tables = _tables(db, queries)
    if "migrations" not in tables:
        if tables:
            raise StoreBroken(f"{path} is a database of another program: give Holdfast a file of its own")
        return []
    applied: list[Any] = db.execute(queries["migrations"]).fetchall()
    check_applied(applied, migrations, path)
    return applied


def check_applied(
    applied: Sequence[tuple[int, str, str]], migrations: Sequence[Migration], where: str
) -> None:
    """See that the migrations that a store has had (number, name, checksum) are the first of ours.

    Raises SchemaUnknown and StoreBroken.
    """
    for position, (number, name, checksum) in enumerate(applied):
        if position >= len(migrations):
            raise SchemaUnknown(
                f"{where} has schema {name}, this version knows {migrations[-1].name}: upgrade holdfast"
            )
        ours = migrations[position]
        if (number, checksum) != (ours.number, ours.checksum):
            raise StoreBroken(
                f"{where}: its migration {name} is not the one of this version: the store was made by another "
                "build of holdfast; use that build, or move the store away and begin a new one"
            )
