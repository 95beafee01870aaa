"""Which messages come from outside, or answer one that does: the bit is found in the transaction that stores them.

The rule is that of SQLite's backend (docs/decisions/0050-taint.md): a reply is tainted if the message that it
answers is, and also if that message is not in the log, once any message is or was tainted.
"""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from bus.model.repository import Lot
from bus.model.tainting import in_parts, is_decided

from ..server.reader import Reader

__all__ = ["Taint", "is_any_tainted", "note_removal"]

_IS_ANY = """
    SELECT EXISTS (SELECT FROM log WHERE taint_removed)
        OR EXISTS (SELECT FROM bot_messages WHERE tainted)
        OR EXISTS (SELECT FROM scheduled_messages WHERE tainted)"""

_NOTE_REMOVED = """
    UPDATE log SET taint_removed = true
    WHERE NOT taint_removed AND EXISTS (SELECT FROM bot_messages WHERE seq = ANY($1::bigint[]) AND tainted)"""

_FIND = """
    SELECT id, bool_or(tainted) FROM (
        SELECT id, tainted FROM bot_messages WHERE id = ANY($1::text[]) AND NOT copied
        UNION ALL SELECT id, tainted FROM bot_messages WHERE id = ANY($1::text[]) AND copied
        UNION ALL SELECT id, tainted FROM scheduled_messages WHERE id = ANY($1::text[])
    ) AS found GROUP BY id"""


async def note_removal(connection: asyncpg.Connection, seqs: Sequence[int]) -> None:
    """Note for good, before messages are removed, if one of them is tainted."""
    await connection.execute(_NOTE_REMOVED, seqs)


async def is_any_tainted(reader: Reader) -> bool:
    """Return True if a message is tainted, or one was that has been removed."""
    [[found]] = await reader.fetch(_IS_ANY)
    return bool(found)


class Taint:
    """See the module. `present` is True if there may be a tainted message."""

    def __init__(self, *, present: bool) -> None:
        self.present = present

    def __repr__(self) -> str:
        return f"<Taint present={self.present}>"

    def is_decided(self, lots: Sequence[Lot]) -> bool:
        """Return True if the bits of lots are decided without looking at what they answer."""
        self.present = self.present or any(lot.tainted for lot in lots)
        return not self.present or is_decided(lots)

    async def decide(self, connection: asyncpg.Connection, lots: Sequence[Lot]) -> list[list[Lot]]:
        """Return each lot in parts, in the order of its messages, whose bits are decided."""
        if self.is_decided(lots):
            return [[lot] for lot in lots]
        parents = {reply_to for lot in lots if not lot.tainted for reply_to in lot.reply_tos or ()}
        known = dict(map(tuple, await connection.fetch(_FIND, [*parents])))
        return in_parts(lots, known)
