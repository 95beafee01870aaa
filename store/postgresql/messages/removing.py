"""Dead letters and retention: what leaves a mailbox for good, and what leaves the log."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import asyncpg

from bus.model.repository import AddDeadLetters, DeadLetter, RemoveDeadLetters, RemoveMessages

from ...taint import note_removal
from ..server.reader import Reader
from ..server.statements import statements_on
from ..server.writer import Transaction
from .ids import remove
from .rows import escaped, unescaped

__all__ = [
    "add_dead_letters",
    "find_dead_letters",
    "read_dead_letters",
    "remove_dead_letters",
    "remove_messages",
]

_ADD = """
    INSERT INTO dead_letters (mailbox_id, seq, reason, attempts, at) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (mailbox_id, seq) DO UPDATE SET
        reason = excluded.reason, attempts = excluded.attempts, at = excluded.at"""

_REMOVE = "DELETE FROM dead_letters WHERE mailbox_id = $1 AND seq = ANY($2::bigint[]) RETURNING seq"

_READ = """
    SELECT mailbox_id, seq, reason, attempts, at FROM dead_letters WHERE $1::text IS NULL OR mailbox_id = $1
    ORDER BY at DESC, seq DESC LIMIT $2 OFFSET $3"""

_FIND = """
    SELECT mailbox_id, seq, reason, attempts, at FROM dead_letters
    WHERE mailbox_id = ANY($1::text[]) AND seq = $2"""


async def add_dead_letters(connection: asyncpg.Connection, change: AddDeadLetters) -> None:
    """Store messages that a mailbox gave up on; their reasons are whatever a bot said."""
    rows = [
        (dead.mailbox_id, dead.seq, escaped(dead.reason), dead.attempts, dead.at) for dead in change.dead_letters
    ]
    await connection.executemany(_ADD, rows)


async def remove_dead_letters(connection: asyncpg.Connection, change: RemoveDeadLetters) -> list[int]:
    """Remove dead letters, and return the seqs of those that existed, in the given order."""
    removed = {row[0] for row in await connection.fetch(_REMOVE, change.mailbox_id, change.seqs)}
    return [seq for seq in dict.fromkeys(change.seqs) if seq in removed]


async def read_dead_letters(
    reader: Reader, mailbox_id: str | None, limit: int, offset: int
) -> Sequence[DeadLetter]:
    """List dead letters, newest first."""
    return _dead_letters(await reader.fetch(_READ, mailbox_id, limit, offset))


async def find_dead_letters(reader: Reader, seq: int, mailbox_ids: Sequence[str]) -> Sequence[DeadLetter]:
    """Return what is recorded of a message in mailboxes of which it is a dead letter."""
    return _dead_letters(await reader.fetch(_FIND, mailbox_ids, seq))


def _dead_letters(rows: Iterable[Sequence[Any]]) -> list[DeadLetter]:
    return [DeadLetter(row[0], row[1], unescaped(row[2]), row[3], row[4]) for row in rows]


async def remove_messages(transaction: Transaction, change: RemoveMessages) -> int:
    """Remove messages from the log, but for the last one, and return how many there were."""
    seqs = [seq for seq in change.seqs if seq < transaction.last_seq]
    await note_removal(statements_on(transaction.connection), seqs)
    return await remove(transaction.connection, seqs)
