"""Ids in the log: a sender uses one once, and another sender's same id is another message.

Owns the column `copied`. The first message with an id has 0 there, and is in a unique index of ids alone; those of
other senders have 1, and are in a small one of ids and senders. So messages are appended as if ids were unique, and
the few that are not are put right here (docs/decisions/0042-ids-of-senders.md). If the first is removed, the next
becomes the first.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

import aiosqlite

from bus.model.repository import NewMessage, lots_of

from ..file.connection import Statement
from .rows import WITH_SEQS, insertion_of_copy, insertions

__all__ = ["append", "find_senders", "remove", "with_id"]

_PAIRS = """
    WITH pairs (id, sender) AS (
        SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?1)
    )"""

# One look-up in each index for each pair, however many senders used its id.
_FIND_SENDERS = f"""{_PAIRS}
    SELECT m.id, m.sender_bot_id, m.seq FROM pairs CROSS JOIN bot_messages m
        ON m.id = pairs.id AND m.copied = 0 AND m.sender_bot_id = sender
    UNION ALL
    SELECT m.id, m.sender_bot_id, m.seq FROM pairs CROSS JOIN bot_messages m
        ON m.id = pairs.id AND m.copied = 1 AND m.sender_bot_id = sender
    UNION ALL
    SELECT m.id, m.sender_bot_id, NULL FROM pairs CROSS JOIN scheduled_messages m
        ON m.id = pairs.id AND m.sender_bot_id = sender"""

_FIND_TAKEN = """
    SELECT id FROM bot_messages WHERE id IN (SELECT value FROM json_each(?)) AND copied = 0"""

_IS_ANY_COPIED = "SELECT 1 FROM bot_messages WHERE copied = 1 LIMIT 1"

_FIND_NEXT = f"""
    SELECT MIN(next.seq) FROM bot_messages next WHERE copied = 1
        AND id IN (SELECT id FROM bot_messages {WITH_SEQS.replace("?", "?1")} AND copied = 0)
        AND seq NOT IN (SELECT value FROM json_each(?1))
    GROUP BY id"""


def with_id(table: str, value: str) -> str:
    """Return the condition that a row of the log has an id: SQL, of which each half is a look-up in one index."""
    return f"(({table}.id = {value} AND {table}.copied = 0) OR ({table}.id = {value} AND {table}.copied = 1))"


async def find_senders(
    connection: aiosqlite.Connection, pairs: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], int | None]:
    """Return which of these ids and senders are used together, with the message's seq; None if it is delayed."""
    rows = await connection.execute_fetchall(_FIND_SENDERS, (json.dumps(pairs),))
    return {(row[0], row[1]): row[2] for row in rows}


async def append(
    connection: aiosqlite.Connection, messages: Sequence[NewMessage], first_seq: int, timestamp: str
) -> list[Statement]:
    """Return the statements that append messages, none of which its sender sent before."""
    ids = json.dumps([message.id for message in messages])
    taken = {row[0] for row in await connection.execute_fetchall(_FIND_TAKEN, (ids,))}
    marked: list[tuple[bool, int, NewMessage]] = []
    for seq, message in enumerate(messages, first_seq):
        marked.append((message.id in taken, seq, message))
        taken.add(message.id)
    statements: list[Statement] = []
    for is_copy, alike in groupby(marked, itemgetter(0)):
        found = list(alike)
        if is_copy:
            statements += [insertion_of_copy(message, seq, timestamp) for _, seq, message in found]
        else:
            statements += insertions(lots_of(message for _, _, message in found), found[0][1], timestamp)
    return statements


async def remove(connection: aiosqlite.Connection, seqs: Sequence[int]) -> int:
    """Remove messages from the log, and return how many there were."""
    written = json.dumps(seqs)
    following: list[int] = []
    if list(await connection.execute_fetchall(_IS_ANY_COPIED)):
        following = [row[0] for row in await connection.execute_fetchall(_FIND_NEXT, (written,))]
    cursor = await connection.execute(f"DELETE FROM bot_messages {WITH_SEQS}", (written,))
    if following:
        await connection.execute(f"UPDATE bot_messages SET copied = 0 {WITH_SEQS}", (json.dumps(following),))
    return cursor.rowcount
