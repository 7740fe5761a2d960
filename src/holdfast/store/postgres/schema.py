"""The schema `holdfast`: made in an empty database, brought up to date by `holdfast migrate`, else checked.

All of it happens in one transaction behind a lock, so of several processes that open an empty store at once one
makes the schema and the others find it done. An older schema is not changed by the first newer worker that
comes along, for others may be at work on it: that is a decision, and a command.
"""

from __future__ import annotations

from holdfast.errors import SchemaUnknown, StoreBroken, StoreError
from holdfast.store.migrate import Migration, check_applied

from .connect import SQL, Connection
from .lookups import lock_number


async def prepare(
    db: Connection, migrations: list[Migration], where: str, now: int, *, upgrade: bool = False
) -> list[str]:
    """Make the schema where there is none; with `upgrade`, bring an old one up to date.

    Returns the names of the migrations that were applied. Raises SchemaUnknown, StoreBroken, StoreError.
    """
    # Looked up without the lock: the way of nearly every open.
    applied = await _applied(db, migrations, where)
    if len(applied) == len(migrations):
        return []
    await db.execute(SQL["begin"])
    try:
        await db.fetch(SQL["lock_schema"], lock_number("schema"))
        applied = await _applied(db, migrations, where)
        missing = migrations[len(applied) :]
        if applied and missing and not upgrade:
            raise SchemaUnknown(
                f"{where} has schema {applied[-1][1]}, this version needs {migrations[-1].name}: "
                "run `holdfast migrate` (workers of the old version may go on meanwhile)"
            )
        if not applied:
            await db.execute(SQL["create_migrations"])
        for migration in missing:
            await db.execute(migration.text)
            await db.fetch(SQL["add_migration"], migration.number, migration.name, migration.checksum, now)
        await db.execute(SQL["commit"])
    except BaseException:
        if not db.is_closed():
            await db.execute(SQL["rollback"])
        raise
    return [migration.name for migration in missing]


async def _applied(db: Connection, migrations: list[Migration], where: str) -> list[tuple[int, str, str]]:
    """The migrations that the schema has had, after checking that they are the first of ours."""
    encoding, schema, history, standby = (await db.fetch(SQL["schema"]))[0]
    if encoding != "UTF8":
        raise StoreError(f"{where} keeps its text in {encoding}: use a database with the encoding UTF8")
    if not history:
        if standby:
            raise StoreError(f"{where} is a standby that only reads: connect to its primary")
        if schema and await db.fetch(SQL["schema_tables"]):
            raise StoreBroken(
                f"{where} has a schema `holdfast` of another program: give Holdfast a database of its own"
            )
        return []
    applied = [tuple(row) for row in await db.fetch(SQL["migrations"])]
    check_applied(applied, migrations, where)
    return applied
