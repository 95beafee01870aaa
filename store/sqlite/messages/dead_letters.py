"""Dead letters: what is stored of them, and how they are retried."""

from __future__ import annotations

import aiosqlite

from bus.model.repository import RemoveDeadLetters

__all__ = ["ADD_DEAD_LETTER", "remove_dead_letters"]

ADD_DEAD_LETTER = """
    INSERT OR REPLACE INTO dead_letters (mailbox_id, seq, reason, attempts, at) VALUES (?, ?, ?, ?, ?)"""


async def remove_dead_letters(connection: aiosqlite.Connection, change: RemoveDeadLetters) -> list[int]:
    """Remove dead letters, and return the seqs of those that existed, in the given order."""
    removed: list[int] = []
    for seq in change.seqs:
        cursor = await connection.execute(
            "DELETE FROM dead_letters WHERE mailbox_id = ? AND seq = ?", (change.mailbox_id, seq)
        )
        if cursor.rowcount:
            removed.append(seq)
    return removed
