"""Which message an id means, and which messages are its thread.

An id belongs to its sender, so several senders may have used one. Owns which of their messages is found, and which
of them a reply belongs to (docs/protocol.md#one-id-of-several-senders).
"""

from __future__ import annotations

from typing import Any

import asyncpg

from bus.model.repository import FindRequest, NewMessage

from ..server.reader import Reader
from .arrivals import read_scheduled
from .ids import all_with_id, with_id
from .rows import fetch

__all__ = ["find_message", "find_thread"]

_FIND = f"""
    SELECT seq, waiting FROM (
        SELECT seq, NULL::bigint AS waiting,
               CASE WHEN sender_bot_id = $3::text THEN 0
                    WHEN recipient_bot_id = $3 OR recipient_channel = ANY($4::text[]) THEN 1
                    ELSE 2 END AS place
        FROM bot_messages WHERE {with_id("bot_messages", "$1")} AND ($2::text IS NULL OR sender_bot_id = $2)
        UNION ALL
        SELECT NULL, number, CASE WHEN sender_bot_id = $3::text THEN 0 ELSE 3 END
        FROM scheduled_messages WHERE id = $1 AND ($2::text IS NULL OR sender_bot_id = $2)
    ) AS found ORDER BY place, seq, waiting LIMIT 1"""

# A reply belongs to the message with that id of the bot that it was sent to; to those on its channel; or, if there
# are none of these, to all with that id.
_BELONGS = f"""
    (
        {{reply}}.recipient_bot_id = {{asked}}.sender_bot_id
        OR {{reply}}.recipient_channel = {{asked}}.recipient_channel
        OR NOT EXISTS (
            SELECT FROM {all_with_id("{asked}.id")} AS other
            WHERE other.sender_bot_id = {{reply}}.recipient_bot_id
                OR other.recipient_channel = {{reply}}.recipient_channel))"""

# With a LIMIT or an OFFSET, PostgreSQL looks these up for one row after another. It would otherwise take a thread
# for longer than it is, and read the whole log to join it.
_ASKED = f"""LATERAL (
    SELECT asked.* FROM {all_with_id("chain.reply_to")} AS asked
    WHERE {_BELONGS.format(reply="chain", asked="asked")} {{}})"""
_REPLIES = f"""LATERAL (
    SELECT reply.* FROM bot_messages AS reply
    WHERE reply.reply_to = thread.id AND {_BELONGS.format(reply="reply", asked="thread")} OFFSET 0)"""

_COLUMNS = "seq, id, sender_bot_id, recipient_bot_id, recipient_channel, reply_to"

# A thread is a message, its chain of ancestors, and all replies to any of these. Where a message of the chain
# belongs to several, all of them are in the thread, and the chain goes on from the first: so an id that is used
# again hides nothing, and brings in no other thread. UNION drops rows that were found before, so that messages that
# refer to each other do not recurse forever.
_THREAD = f"""
    WITH RECURSIVE
        chain ({_COLUMNS}) AS (
            SELECT {_COLUMNS} FROM bot_messages WHERE seq = $1
            UNION
            SELECT first.seq, first.id, first.sender_bot_id, first.recipient_bot_id, first.recipient_channel,
                   first.reply_to
            FROM chain CROSS JOIN {_ASKED.format("ORDER BY asked.seq LIMIT 1")} AS first
        ),
        thread (seq, id, sender_bot_id, recipient_channel) AS (
            SELECT seq, id, sender_bot_id, recipient_channel FROM chain
            UNION
            SELECT asked.seq, asked.id, asked.sender_bot_id, asked.recipient_channel
            FROM chain CROSS JOIN {_ASKED.format("OFFSET 0")} AS asked
            UNION
            SELECT reply.seq, reply.id, reply.sender_bot_id, reply.recipient_channel
            FROM thread CROSS JOIN {_REPLIES} AS reply
        )
    SELECT DISTINCT seq FROM thread WHERE seq < $2 ORDER BY seq DESC LIMIT $3"""


async def find_message(reader: Reader, request: FindRequest) -> NewMessage | None:
    """Return the message that is meant: a LogMessage, or a NewMessage if it is delayed. Raise RecordDamaged."""
    while True:
        rows = await reader.fetch(_FIND, *_values(request))
        if not rows:
            return None
        [[seq, waiting]] = rows
        message: NewMessage | None
        if seq is None:
            message = await read_scheduled(reader, waiting)
        else:
            message = next(iter(await fetch(reader, "WHERE seq = $1", seq)), None)
        if message is not None:
            return message
        # It was moved into the log, or removed, since it was found.


async def find_thread(
    reader: Reader | asyncpg.Connection, request: FindRequest, before_seq: int, limit: int
) -> list[int]:
    """Return the seqs of the thread of the message that is meant, newest first; none if it is not in the log."""
    rows = await reader.fetch(_FIND, *_values(request))
    if not rows or rows[0][0] is None:
        return []
    return [row[0] for row in await reader.fetch(_THREAD, rows[0][0], before_seq, limit)]


def _values(request: FindRequest) -> tuple[Any, ...]:
    return request.id, request.sender_bot_id, request.asker_bot_id, list(request.asker_channels)
