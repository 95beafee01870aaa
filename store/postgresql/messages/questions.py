"""What is asked of the log: parts of it, without contents for retention, and conversations for people and bots."""

from __future__ import annotations

from collections.abc import Sequence

from bus.model.repository import HistoryRequest, LogMessage, Surveyed, SurveyRequest
from bus.model.room import Room

from ...keyed_rows import KEYS_COUNT
from ..server.reader import Reader
from .rows import fetch

__all__ = ["channel_counts", "find_ids", "history", "locate", "room", "seq_before", "sizes", "survey"]

_SURVEY = """
    SELECT seq, sender_bot_id, recipient_bot_id, recipient_channel, timestamp,
           octet_length(body) + octet_length(headers), priority
    FROM bot_messages"""

_WITH_IDS = """
    SELECT id, seq, sender_bot_id, recipient_bot_id, recipient_channel, timestamp, 0, priority FROM bot_messages
    WHERE id = ANY($1::text[]) AND NOT copied"""

# Times rise with seqs: the part of the log in which the answer lies is halved until it is one.
_SEQ_BEFORE = """
    WITH RECURSIVE part (low, high) AS (
        SELECT 0::bigint, $2::bigint
        UNION ALL
        SELECT CASE WHEN found.timestamp >= $1 THEN part.low ELSE (part.low + part.high + 1) / 2 END,
               CASE WHEN found.timestamp >= $1 THEN found.seq - 1 ELSE part.high END
        FROM part LEFT JOIN LATERAL (
            SELECT seq, timestamp FROM bot_messages
            WHERE seq > part.low AND seq <= (part.low + part.high + 1) / 2 ORDER BY seq DESC LIMIT 1
        ) AS found ON true
        WHERE part.low < part.high
    )
    SELECT low FROM part WHERE low >= high"""

# The two directions are parts of two recipients; each is limited before they are merged.
_BETWEEN = """
    WHERE seq IN (
        (SELECT seq FROM bot_messages WHERE recipient_bot_id = $2 AND sender_bot_id = $1 AND seq > $3 AND seq < $4
            ORDER BY seq {order} LIMIT $5)
        UNION
        (SELECT seq FROM bot_messages WHERE recipient_bot_id = $1 AND sender_bot_id = $2 AND seq > $3 AND seq < $4
            ORDER BY seq {order} LIMIT $5)
    ) ORDER BY seq {order} LIMIT $5"""

_CHANNEL = "WHERE recipient_channel = $1 AND seq > $2 AND seq < $3 ORDER BY seq {order} LIMIT $4"

_CHANNEL_COUNTS = """
    SELECT name, (SELECT COUNT(*) FROM bot_messages WHERE recipient_channel = name)
    FROM unnest($1::text[]) AS name"""

_SIZE = "pg_database_size(current_database())"

_SIZES = f"""
    SELECT (SELECT COUNT(*) FROM bot_messages), (SELECT COUNT(*) FROM scheduled_messages), ({KEYS_COUNT}),
           {_SIZE}"""


async def survey(reader: Reader, request: SurveyRequest) -> list[Surveyed]:
    """Return a part of the log, without contents."""
    part = f"{_SURVEY} WHERE seq > $1 AND seq <= $2"
    values = (request.after_seq, request.through_seq, request.messages_max)
    if request.channel is None:
        rows = await reader.fetch(f"{part} ORDER BY seq LIMIT $3", *values)
    else:
        sql = f"{part} AND recipient_channel = $4 ORDER BY seq LIMIT $3"
        rows = await reader.fetch(sql, *values, request.channel)
    return [Surveyed(*row) for row in rows]


async def locate(reader: Reader, seqs: Sequence[int]) -> list[Surveyed]:
    """Return who sent these messages to whom."""
    return [
        Surveyed(*row) for row in await reader.fetch(f"{_SURVEY} WHERE seq = ANY($1::bigint[]) ORDER BY seq", seqs)
    ]


async def find_ids(reader: Reader, ids: Sequence[str]) -> dict[str, Surveyed]:
    """Return the first messages with these ids, without their contents."""
    return {row[0]: Surveyed(*row[1:]) for row in map(tuple, await reader.fetch(_WITH_IDS, ids))}


async def seq_before(reader: Reader, at: str, last_seq: int) -> int:
    """Return the last seq whose timestamp is before `at`."""
    [[seq]] = await reader.fetch(_SEQ_BEFORE, at, last_seq)
    return int(seq)


async def history(reader: Reader, request: HistoryRequest, last_seq: int) -> list[LogMessage]:
    """Return a conversation up to `last_seq`, in the order that is asked for."""
    order = "DESC" if request.after_seq is None else "ASC"
    before = last_seq + 1 if request.before_seq is None else min(request.before_seq, last_seq + 1)
    part = (request.after_seq or 0, before, request.limit)
    if request.between is not None:
        return await fetch(reader, _BETWEEN.format(order=order), *request.between, *part)
    return await fetch(reader, _CHANNEL.format(order=order), request.channel, *part)


async def channel_counts(reader: Reader, names: Sequence[str]) -> dict[str, int]:
    """Return the number of messages of each channel."""
    return dict(map(tuple, await reader.fetch(_CHANNEL_COUNTS, names)))


async def sizes(reader: Reader) -> dict[str, int]:
    """Return the number of messages, in the log and scheduled, and the bytes of the database."""
    [row] = await reader.fetch(_SIZES)
    return dict(zip(("messages", "scheduled", "kv_keys", "database_bytes"), row, strict=True))


async def room(reader: Reader) -> Room:
    """Return the bytes of the database."""
    [[size]] = await reader.fetch(f"SELECT {_SIZE}")
    return Room(size)
