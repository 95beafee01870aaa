"""What all workers of one house have in common, kept in its database: the public key by which they are known."""

from __future__ import annotations

from .server.connecting import make_safe
from .server.session import session

__all__ = ["house_key"]

# A database may have no table yet, or one of an earlier version, without the column.
_TABLE = "SELECT to_regclass('log') IS NOT NULL"
_READ = "SELECT to_jsonb(log) ->> 'worker_key' FROM log"

_NOTE = "UPDATE log SET worker_key = $1 WHERE worker_key IS NULL"


async def house_key(url: str, noted: str | None = None) -> str | None:
    """Return the key that is noted, or None; if there is none, note this one first. It is safe when this returns.

    To note one, the database must have been opened by a worker. Raise as `server.database.open_database` does.
    """
    async with session(url, "posthouse key") as (connection, _):
        if not await connection.fetchval(_TABLE):
            return None
        if noted is not None:
            await connection.execute(_NOTE, noted)
        await make_safe(connection)
        found: str | None = await connection.fetchval(_READ)
        return found
