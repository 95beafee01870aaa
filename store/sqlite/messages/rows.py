"""How a message is stored as a row of the log.

Owns the columns of `bot_messages`, their checksum, and how rows are written and read.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

import aiosqlite
import msgspec

from bus.errors import RecordDamaged
from bus.model.repository import LogMessage, NewMessage

from ..file.reader import Reader
from ..file.writer import Transaction

__all__ = ["COLUMNS", "WITH_SEQS", "checksum", "fetch", "fetch_each", "insert", "intact", "message_of"]

_NAMES = (
    "seq", "id", "sender_bot_id", "sender_bot_name", "recipient_bot_id", "recipient_channel", "message_type",
    "body", "reply_to", "headers", "timestamp", "expires_at", "checksum",
)  # fmt: skip
_NUMBERS = frozenset({"seq", "checksum"})
_BYTES = frozenset({"body", "headers"})
_OPTIONAL = frozenset({"recipient_bot_id", "recipient_channel", "reply_to", "expires_at"})

COLUMNS = ", ".join(f"CAST({name} AS BLOB)" if name in _BYTES else name for name in _NAMES)
"""What `message_of` reads, in this order."""

WITH_SEQS = "WHERE seq IN (SELECT value FROM json_each(?))"
"""Rows with the seqs of a JSON array. One SQL text for any number, because each text is kept as a statement."""

_SEPARATOR = "\x1e"
"""Occurs in no JSON. A message_type may contain it; then the checksum differs, or the number of parts does."""


def _joined(name: str) -> str:
    text = f"GROUP_CONCAT(COALESCE({name}, ''), CHAR({ord(_SEPARATOR)}))"
    return f"CAST({text} AS BLOB)" if name in _BYTES else text


_JOINED = f"SELECT {', '.join(map(_joined, _NAMES))} FROM (SELECT * FROM bot_messages {{}})"
"""All rows as one row, with the values of each column joined by separators."""

_INSERT = (
    "INSERT INTO bot_messages (seq, id, sender_bot_id, sender_bot_name, recipient_type, recipient_bot_id,"
    " recipient_channel, message_type, body, reply_to, headers, timestamp, expires_at, checksum) VALUES "
)
_VALUES = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

_ROWS_A_STATEMENT = (1024, 64)
"""As many of the largest as there are, then of the next, then the rest in one (docs/performance/tried.md)."""

_encode = msgspec.msgpack.Encoder().encode


def checksum(seq: int, message: NewMessage, timestamp: str) -> int:
    """Return the CRC-32 over everything stored of a message, including its seq."""
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
    """Read a row of COLUMNS without checking its checksum."""
    fields = (*row[1:10], row[11])
    return LogMessage(*fields, seq=row[0], timestamp=row[10])


def intact(row: Sequence[Any]) -> bool:
    """Return True if a row of COLUMNS matches its checksum."""
    try:
        return bool(checksum(row[0], message_of(row), row[10]) == row[12])
    except (TypeError, ValueError):
        return False


async def fetch(connection: aiosqlite.Connection | Reader, sql: str, parameters: Sequence[Any]) -> list[LogMessage]:
    """Read messages. Raises RecordDamaged at the first that does not match its checksum."""
    rows = await connection.execute_fetchall(f"SELECT {COLUMNS} FROM bot_messages {sql}", parameters)
    for row in rows:
        if not intact(row):
            raise RecordDamaged("bot_messages", f"seq {row[0]}")
    return [message_of(row) for row in rows]


async def fetch_each(
    reader: Reader, condition: str, parameters: Sequence[Any]
) -> list[tuple[int, LogMessage | None]]:
    """Read messages in the order of their seqs; None stands for one that does not match its checksum.

    All are read as one row: Python's sqlite3 releases and reacquires the GIL for each row, which beside a busy loop
    takes many times as long as reading it (docs/performance/tried.md). If that row is too large, or a message in it
    does not match its checksum, they are read row by row, which decides.
    """
    try:
        [joined] = await reader.execute_fetchall(_JOINED.format(condition), parameters)
    except sqlite3.DataError:  # larger than SQLite's limit for a value
        rows = None
    else:
        rows = _split(joined)
    if rows is not None and all(map(intact, rows)):
        return sorted(((row[0], message_of(row)) for row in rows), key=itemgetter(0))
    single = await reader.execute_fetchall(f"SELECT {COLUMNS} FROM bot_messages {condition}", parameters)
    return sorted(((row[0], message_of(row) if intact(row) else None) for row in single), key=itemgetter(0))


def _split(joined: Sequence[Any]) -> list[tuple[Any, ...]] | None:
    """Return the parts of such a row, or None if it cannot be split."""
    if joined[0] is None:
        return []
    try:
        return list(zip(*map(_parts, _NAMES, joined), strict=True))
    except ValueError:
        return None


def _parts(name: str, values: Any) -> list[Any]:
    parts = values.split(_SEPARATOR.encode() if name in _BYTES else _SEPARATOR)
    if name in _NUMBERS:
        return [int(part) for part in parts]
    return [part or None for part in parts] if name in _OPTIONAL else parts


async def insert(
    transaction: Transaction, numbered: Sequence[tuple[int, NewMessage]], timestamp: str, *, last: bool = False
) -> None:
    """Add messages to the log under their seqs. Raises sqlite3.IntegrityError if an id exists already.

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
