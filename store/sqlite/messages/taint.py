"""Which messages come from outside, or answer one that does: the bit is found in the transaction that stores them.

Owns the rule for replies. The broker marks messages of external bots. A reply is tainted if the message that it
answers is, and also if that message is not in the log, so that nobody knows what it was. While no message is or was
tainted, nothing is looked up, and an unknown message taints nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import aiosqlite

from bus.model.repository import Lot
from bus.model.tainting import in_parts, is_decided

from ..file.reader import Reader
from .rows import WITH_SEQS

__all__ = ["Taint", "is_any_tainted", "note_removal"]

_IS_ANY = """
    SELECT EXISTS (SELECT 1 FROM log WHERE taint_removed = 1)
        OR EXISTS (SELECT 1 FROM bot_messages WHERE tainted = 1)
        OR EXISTS (SELECT 1 FROM scheduled_messages WHERE tainted = 1)"""

_NOTE_REMOVED = f"""
    UPDATE log SET taint_removed = 1
    WHERE taint_removed = 0 AND EXISTS (SELECT 1 FROM bot_messages {WITH_SEQS} AND tainted = 1)"""

_FIND = """
    SELECT id, tainted FROM bot_messages WHERE id IN (SELECT value FROM json_each(?1)) AND copied = 0
    UNION ALL SELECT id, tainted FROM bot_messages WHERE id IN (SELECT value FROM json_each(?1)) AND copied = 1
    UNION ALL SELECT id, tainted FROM scheduled_messages WHERE id IN (SELECT value FROM json_each(?1))"""


async def note_removal(connection: aiosqlite.Connection, seqs: Sequence[int]) -> None:
    """Note for good, before messages are removed, if one of them is tainted."""
    await connection.execute(_NOTE_REMOVED, (json.dumps(seqs),))


async def is_any_tainted(reader: Reader) -> bool:
    """Return True if a message is tainted, or one was that has been removed."""
    [[found]] = await reader.execute_fetchall(_IS_ANY, ())
    return bool(found)


class Taint:
    """See the module. `present` is True if there may be a tainted message."""

    def __init__(self, *, present: bool) -> None:
        self.present = present

    def __repr__(self) -> str:
        return f"<Taint present={self.present}>"

    def is_decided(self, lots: Sequence[Lot]) -> bool:
        """Return True if the bits of all messages are those of their lots; note whether one is set."""
        self.present = self.present or any(lot.tainted for lot in lots)
        return not self.present or is_decided(lots)

    async def decide(self, connection: aiosqlite.Connection, lots: Sequence[Lot]) -> list[list[Lot]]:
        """Return each lot in parts, in the order of its messages, whose bits are decided."""
        if self.is_decided(lots):
            return [[lot] for lot in lots]
        parents = {reply_to for lot in lots if not lot.tainted for reply_to in lot.reply_tos or ()}
        known: dict[str, bool] = {}
        for id, bit in await connection.execute_fetchall(_FIND, (json.dumps([*parents]),)):
            known[id] = known.get(id, False) or bool(bit)
        return in_parts(lots, known)
