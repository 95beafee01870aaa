"""How a message is a row of the log.

Owns the columns of `bot_messages`, the checksum over them, and the ways to put rows in and to read them back.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from itertools import chain
from typing import Any

import aiosqlite
import msgspec

from ..errors import RecordDamaged
from ..repository import LogMessage, NewMessage
from .reader import Reader
from .writer import Transaction

__all__ = ["COLUMNS", "checksum", "fetch", "insert", "intact", "message_of"]

COLUMNS = (
    "seq, id, sender_bot_id, sender_bot_name, recipient_bot_id, recipient_channel, message_type,"
    " CAST(body AS BLOB), reply_to, CAST(headers AS BLOB), timestamp, expires_at, checksum"
)
"""What `message_of` reads, in its order."""

_INSERT = (
    "INSERT INTO bot_messages (seq, id, sender_bot_id, sender_bot_name, recipient_type, recipient_bot_id,"
    " recipient_channel, message_type, body, reply_to, headers, timestamp, expires_at, checksum) VALUES "
)
_VALUES = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

_ROWS_A_STATEMENT = (1024, 64)
"""As many as there are of the largest, then of the next, then the rest in one (docs/performance/tried.md)."""

_encode = msgspec.msgpack.Encoder().encode


def checksum(seq: int, message: NewMessage, timestamp: str) -> int:
    """Give the CRC-32 over all that was stored of a message, its place included."""
    return zlib.crc32(
        _encode(
            (
                seq,
                message.id,
                message.sender_bot_id,
                message.sender_bot_name,
                message.recipient_bot_id,
                message.recipient_channel,
                message.message_type,
                message.body,
                message.reply_to,
                message.headers,
                timestamp,
                message.expires_at,
            )
        )
    )


def _row(seq: int, message: NewMessage, timestamp: str) -> tuple[Any, ...]:
    return (
        seq,
        message.id,
        message.sender_bot_id,
        message.sender_bot_name,
        "channel" if message.recipient_bot_id is None else "direct",
        message.recipient_bot_id,
        message.recipient_channel,
        message.message_type,
        message.body.decode(),
        message.reply_to,
        message.headers.decode(),
        timestamp,
        message.expires_at,
        checksum(seq, message, timestamp),
    )


def message_of(row: Sequence[Any]) -> LogMessage:
    """Read a row of COLUMNS without looking at its checksum."""
    fields = (*row[1:10], row[11])
    return LogMessage(*fields, seq=row[0], timestamp=row[10])


def intact(row: Sequence[Any]) -> bool:
    """Tell whether a row of COLUMNS matches its checksum."""
    try:
        return bool(checksum(row[0], message_of(row), row[10]) == row[12])
    except (TypeError, ValueError):
        return False


async def fetch(connection: aiosqlite.Connection | Reader, sql: str, parameters: Sequence[Any]) -> list[LogMessage]:
    """Read messages; raises RecordDamaged at the first that does not match its checksum."""
    rows = await connection.execute_fetchall(f"SELECT {COLUMNS} FROM bot_messages {sql}", parameters)
    for row in rows:
        if not intact(row):
            raise RecordDamaged("bot_messages", f"seq {row[0]}")
    return [message_of(row) for row in rows]


async def insert(
    transaction: Transaction, numbered: Sequence[tuple[int, NewMessage]], timestamp: str, *, last: bool = False
) -> None:
    """Put messages into the log under their seqs; sqlite3.IntegrityError where an id is there already.

    `last` says that the operation writes nothing more.
    """
    rows = [_row(seq, message, timestamp) for seq, message in numbered]
    start = 0
    for size in _ROWS_A_STATEMENT:
        end = len(rows) - (len(rows) - start) % size
        if start < end:
            portions = (list(chain.from_iterable(rows[at : at + size])) for at in range(start, end, size))
            await transaction.connection.executemany(_insert_of(size), portions)
        start = end
    if start < len(rows):
        execute = transaction.execute_last if last else transaction.connection.execute
        await execute(_insert_of(len(rows) - start), list(chain.from_iterable(rows[start:])))


def _insert_of(rows: int) -> str:
    return _INSERT + ", ".join([_VALUES] * rows)
