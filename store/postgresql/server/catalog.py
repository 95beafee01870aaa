"""Whether the schema is what the migrations make: columns, constraints, indexes, and nothing that acts by itself.

A missing index would be noticed as slowness, or not at all where it keeps ids unique; a trigger or a rule could
change what is written. So a worker compares them when it starts, and a check as well. What the migrations make is
made anew for that, as temporary tables in a transaction that is rolled back, by the same server: it describes both
in the same words. Tables and indexes that somebody added do no harm.
"""

from __future__ import annotations

from collections.abc import Mapping

import asyncpg

from .connecting import SCHEMA
from .schema import CREATE_MIGRATIONS, written

__all__ = ["made_schema", "schema_faults"]

# Each row is the table, what it is, its name, and its description.
_OBJECTS = """
    SELECT c.relname, 'column', a.attname,
           concat_ws(' ', format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attgenerated,
                     (SELECT collname FROM pg_collation WHERE oid = a.attcollation),
                     (SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef
                      WHERE adrelid = c.oid AND adnum = a.attnum))
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relnamespace = $1 AND c.relkind IN ('r', 'p')
    UNION ALL
    SELECT c.relname, 'constraint', o.conname, concat_ws(' ', pg_get_constraintdef(o.oid), o.convalidated)
    FROM pg_class c JOIN pg_constraint o ON o.conrelid = c.oid AND o.contype IN ('c', 'f', 'p', 'u', 'x')
    WHERE c.relnamespace = $1
    UNION ALL
    SELECT c.relname, 'index', i.relname, concat_ws(' ', pg_get_indexdef(i.oid), x.indisvalid)
    FROM pg_class c JOIN pg_index x ON x.indrelid = c.oid JOIN pg_class i ON i.oid = x.indexrelid
    WHERE c.relnamespace = $1"""

# What would act on rows, hide them, or lose them in a crash.
_ACTS = """
    SELECT CASE WHEN c.relpersistence = 'u' THEN 'the table ' || c.relname || ' is unlogged: a crash empties it'
                WHEN c.relrowsecurity THEN 'the table ' || c.relname || ' has row security, which hides rows' END
    FROM pg_class c
    WHERE c.relnamespace = $1 AND c.relkind = 'r' AND (c.relpersistence = 'u' OR c.relrowsecurity)
    UNION ALL
    SELECT 'the trigger ' || t.tgname || ' on ' || c.relname || ' is not posthouse''s'
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE c.relnamespace = $1 AND NOT t.tgisinternal
    UNION ALL
    SELECT 'the rule ' || r.rulename || ' on ' || c.relname || ' is not posthouse''s'
    FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class WHERE c.relnamespace = $1 AND c.relkind = 'r'"""

_Catalog = Mapping[tuple[str, str, str], str]
"""Descriptions by the table, what is described, and its name."""

_made: dict[tuple[int, int], _Catalog] = {}
"""What the migrations make, by the version of the server."""


async def schema_faults(connection: asyncpg.Connection) -> list[str]:
    """Return what is missing, altered or foreign in a schema that has all migrations.

    Raise InsufficientPrivilegeError if the role may not make temporary tables.
    """
    ours = await made_schema(connection)
    schema = await connection.fetchval("SELECT oid FROM pg_namespace WHERE nspname = $1", SCHEMA)
    theirs = await _described(connection, schema, SCHEMA)
    tables = {table for table, _, _ in ours}
    faults = {
        one: "altered" if one in theirs else "missing" for one, text in ours.items() if theirs.get(one) != text
    }
    faults |= {
        one: "not posthouse's" for one in theirs.keys() - ours.keys() if one[0] in tables and one[1] != "index"
    }
    found = [f"the {kind} {name} of {table} is {fault}" for (table, kind, name), fault in sorted(faults.items())]
    return found + [row[0] for row in await connection.fetch(_ACTS, schema)]


async def made_schema(connection: asyncpg.Connection) -> _Catalog:
    """Return what the migrations make on this version of the server. Only the first time it is made for that."""
    version = connection.get_server_version()[:2]
    if version not in _made:
        _made[version] = await _make(connection)
    return _made[version]


async def _make(connection: asyncpg.Connection) -> _Catalog:
    """Return what the migrations make."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute("SET LOCAL search_path = pg_temp")
        await connection.execute(CREATE_MIGRATIONS)
        for migration in written():
            await connection.execute(migration.sql)
        return await _described(connection, await connection.fetchval("SELECT pg_my_temp_schema()"), "pg_temp")
    finally:
        if not connection.is_closed():
            await transaction.rollback()


async def _described(connection: asyncpg.Connection, schema: int, name: str) -> _Catalog:
    """Describe a schema, without its name."""
    rows = await connection.fetch(_OBJECTS, schema)
    return {(table, kind, one): text.replace(f"{name}.", "") for table, kind, one, text in rows}
