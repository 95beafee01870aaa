"""Bots' keys as rows.

Owns their SQL, and the checksum in each row: a flipped bit could make a revoked key valid.
"""

from __future__ import annotations

import json

import aiosqlite
import msgspec

from bus.errors import Conflict, RecordDamaged
from bus.model.keys import Key
from bus.model.repository import AddKey, NoteKeyUse, RevokeKeys

from ...seals import is_sealed, key_of, key_row

__all__ = ["KEYS", "add_key", "note_key_use", "revoke_keys"]

_COLUMNS = (
    "public_key, bot_id, purpose, roles, label, created_at, created_by, expires_at, revoked_at, replaced_by,"
    " last_used_at, checksum"
)

KEYS = f"SELECT {_COLUMNS} FROM keys"

_INSERT = f"INSERT INTO keys ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"

_UPDATE = """
    UPDATE keys SET expires_at = ?, revoked_at = ?, replaced_by = ?, last_used_at = ?, checksum = ?
    WHERE public_key = ?"""

_NEWEST_OF_BOT = """
    UPDATE bots SET public_key = (
        SELECT public_key FROM keys WHERE bot_id = bots.id AND purpose != 'enrol' AND revoked_at IS NULL
        ORDER BY created_at DESC, public_key DESC LIMIT 1
    ) WHERE id = ?"""


async def add_key(connection: aiosqlite.Connection, change: AddKey) -> None:
    """Add a key, end the one that it replaces, and remove those to forget. Raise Conflict if it is known."""
    for forgotten in change.forget:
        await connection.execute("DELETE FROM keys WHERE public_key = ?", (forgotten,))
    if (await connection.execute(_INSERT, key_row(change.key))).rowcount < 1:
        raise Conflict(f"key {change.key.public_key} is known already")
    if change.replaces is not None:
        if (old := await _find(connection, change.replaces)) is None:
            raise Conflict(f"key {change.replaces} is not known")
        await _update(connection, old, replaced_by=change.key.public_key, expires_at=change.replaced_until)
    await connection.execute(_NEWEST_OF_BOT, (change.key.bot_id,))


async def revoke_keys(connection: aiosqlite.Connection, change: RevokeKeys) -> None:
    """Revoke keys; those that were revoked, or removed, before are left as they are."""
    for public_key in change.public_keys:
        key = await _find(connection, public_key)
        if key is not None and key.revoked_at is None:
            await _update(connection, key, revoked_at=change.at)
            await connection.execute(_NEWEST_OF_BOT, (key.bot_id,))


async def note_key_use(connection: aiosqlite.Connection, change: NoteKeyUse) -> None:
    """Note when keys were last used; those that were removed meanwhile, or are damaged, are left out.

    After a restart they are those of all bots: so it takes two statements.
    """
    sql = f"{KEYS} WHERE public_key IN (SELECT value FROM json_each(?))"
    rows = await connection.execute_fetchall(sql, (json.dumps([*change.used_at]),))
    keys = [key_of(tuple(row)) for row in rows if is_sealed(tuple(row))]
    used = [msgspec.structs.replace(key, last_used_at=change.used_at[key.public_key]) for key in keys]
    await connection.executemany(_UPDATE, [_changed(key) for key in used])


async def _update(connection: aiosqlite.Connection, key: Key, **fields: str | None) -> None:
    await connection.execute(_UPDATE, _changed(msgspec.structs.replace(key, **fields)))


def _changed(key: Key) -> tuple[str | int | None, ...]:
    """Return the values for _UPDATE."""
    *_, checksum = key_row(key)
    return (key.expires_at, key.revoked_at, key.replaced_by, key.last_used_at, checksum, key.public_key)


async def _find(connection: aiosqlite.Connection, public_key: str) -> Key | None:
    """Return a key, or None. Raise RecordDamaged if it is not as it was stored: a change would seal that."""
    for row in await connection.execute_fetchall(f"{KEYS} WHERE public_key = ?", (public_key,)):
        if not is_sealed(tuple(row)):
            raise RecordDamaged("keys", public_key)
        return key_of(tuple(row))
    return None
