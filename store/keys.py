"""Bots' keys as rows.

Owns their SQL, in every backend. The checksum in each row is that of `seals`: a flipped bit could make a revoked
key valid.
"""

from __future__ import annotations

import msgspec

from bus.errors import Conflict, RecordDamaged
from bus.model.keys import Key
from bus.model.repository import AddKey, NoteKeyUse, RevokeKeys

from .seals import is_sealed, key_of, key_row
from .statements import Statements

__all__ = ["KEYS", "add_key", "note_key_use", "revoke_keys"]

_COLUMNS = (
    "public_key, bot_id, purpose, roles, label, created_at, created_by, expires_at, revoked_at, replaced_by,"
    " last_used_at, checksum"
)

KEYS = f"SELECT {_COLUMNS} FROM keys"

_INSERT = f"""
    INSERT INTO keys ({_COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
    ON CONFLICT DO NOTHING RETURNING public_key"""

_UPDATE = """
    UPDATE keys SET expires_at = ?1, revoked_at = ?2, replaced_by = ?3, last_used_at = ?4, checksum = ?5
    WHERE public_key = ?6"""

_NEWEST_OF_BOT = """
    UPDATE bots SET public_key = (
        SELECT public_key FROM keys WHERE bot_id = bots.id AND purpose <> 'enrol' AND revoked_at IS NULL
        ORDER BY created_at DESC, public_key DESC LIMIT 1
    ) WHERE id = ?1"""


async def add_key(run: Statements, change: AddKey) -> None:
    """Add a key, end the one that it replaces, and remove those to forget. Raise Conflict if it is known."""
    if change.forget:
        await run("DELETE FROM keys WHERE public_key IN [?1]", change.forget)
    if not await run(_INSERT, *key_row(change.key)):
        raise Conflict(f"key {change.key.public_key} is known already")
    if change.replaces is not None:
        if (old := await _find(run, change.replaces)) is None:
            raise Conflict(f"key {change.replaces} is not known")
        await _update(run, old, replaced_by=change.key.public_key, expires_at=change.replaced_until)
    await run(_NEWEST_OF_BOT, change.key.bot_id)


async def revoke_keys(run: Statements, change: RevokeKeys) -> None:
    """Revoke keys; those that were revoked, or removed, before are left as they are."""
    for public_key in change.public_keys:
        key = await _find(run, public_key)
        if key is not None and key.revoked_at is None:
            await _update(run, key, revoked_at=change.at)
            await run(_NEWEST_OF_BOT, key.bot_id)


async def note_key_use(run: Statements, change: NoteKeyUse) -> None:
    """Note when keys were last used; those that were removed meanwhile, or are damaged, are left out.

    After a restart they are those of all bots: so it takes two statements.
    """
    rows = map(tuple, await run(f"{KEYS} WHERE public_key IN [?1]", [*change.used_at]))
    keys = [key_of(row) for row in rows if is_sealed(row)]
    used = [msgspec.structs.replace(key, last_used_at=change.used_at[key.public_key]) for key in keys]
    await run.each(_UPDATE, [_changed(key) for key in used])


async def _update(run: Statements, key: Key, **fields: str | None) -> None:
    await run(_UPDATE, *_changed(msgspec.structs.replace(key, **fields)))


def _changed(key: Key) -> tuple[str | int | None, ...]:
    """Return the values for _UPDATE."""
    *_, checksum = key_row(key)
    return (key.expires_at, key.revoked_at, key.replaced_by, key.last_used_at, checksum, key.public_key)


async def _find(run: Statements, public_key: str) -> Key | None:
    """Return a key, or None. Raise RecordDamaged if it is not as it was stored: a change would seal that."""
    for row in await run(f"{KEYS} WHERE public_key = ?1", public_key):
        if not is_sealed(tuple(row)):
            raise RecordDamaged("keys", public_key)
        return key_of(tuple(row))
    return None
