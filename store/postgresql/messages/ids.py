"""Ids in the log: a sender uses one once, and another sender's same id is another message.

Owns the column `copied`, which is as in SQLite's backend (docs/decisions/0042-ids-of-senders.md): the first message
with an id has false there, and those of other senders true. If the first is removed, the next becomes the first.
"""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from bus.model.repository import NewMessage, lots_of

from .rows import append

__all__ = ["all_with_id", "append_known", "find_senders", "remove", "with_id"]

_FIND_SENDERS = """
    SELECT m.id, m.sender_bot_id, m.seq FROM unnest($1::text[], $2::text[]) AS pairs (id, sender)
        JOIN bot_messages m ON m.id = pairs.id AND NOT m.copied AND m.sender_bot_id = sender
    UNION ALL
    SELECT m.id, m.sender_bot_id, m.seq FROM unnest($1::text[], $2::text[]) AS pairs (id, sender)
        JOIN bot_messages m ON m.id = pairs.id AND m.copied AND m.sender_bot_id = sender
    UNION ALL
    SELECT m.id, m.sender_bot_id, NULL FROM unnest($1::text[], $2::text[]) AS pairs (id, sender)
        JOIN scheduled_messages m ON m.id = pairs.id AND m.sender_bot_id = sender"""

_FIND_TAKEN = "SELECT id FROM bot_messages WHERE id = ANY($1::text[]) AND NOT copied"

_FIND_NEXT = """
    SELECT MIN(seq) FROM bot_messages WHERE copied AND seq <> ALL($1::bigint[])
        AND id IN (SELECT id FROM bot_messages WHERE seq = ANY($1::bigint[]) AND NOT copied)
    GROUP BY id"""


def with_id(table: str, value: str) -> str:
    """Return the condition that a row of the log has an id: SQL, of which each half is a look-up in one index."""
    return f"(({table}.id = {value} AND NOT {table}.copied) OR ({table}.id = {value} AND {table}.copied))"


def all_with_id(value: str) -> str:
    """Return the rows of the log that have an id, as SQL for a FROM clause: each half is a look-up in one index."""
    rows = f"SELECT * FROM bot_messages WHERE id = {value} AND"
    return f"({rows} NOT copied UNION ALL {rows} copied)"


async def find_senders(
    connection: asyncpg.Connection, pairs: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], int | None]:
    """Return which of these ids and senders are used together, with the message's seq; None if it is delayed."""
    ids, senders = [id for id, _ in pairs], [sender for _, sender in pairs]
    return {(row[0], row[1]): row[2] for row in await connection.fetch(_FIND_SENDERS, ids, senders)}


async def append_known(
    connection: asyncpg.Connection, messages: Sequence[NewMessage], first_seq: int, timestamp: str
) -> None:
    """Append messages, none of which its sender sent before, although other senders may have used their ids."""
    taken = {row[0] for row in await connection.fetch(_FIND_TAKEN, [message.id for message in messages])}
    copies: list[bool] = []
    for message in messages:
        copies.append(message.id in taken)
        taken.add(message.id)
    await append(connection, lots_of(messages), first_seq, timestamp, copies=copies)


async def remove(connection: asyncpg.Connection, seqs: Sequence[int]) -> int:
    """Remove messages from the log, and return how many there were."""
    following = [row[0] for row in await connection.fetch(_FIND_NEXT, seqs)]
    removed = await connection.fetch("DELETE FROM bot_messages WHERE seq = ANY($1::bigint[]) RETURNING seq", seqs)
    if following:
        await connection.execute("UPDATE bot_messages SET copied = false WHERE seq = ANY($1::bigint[])", following)
    return len(removed)
