"""How a message is a row of the log.

Owns the columns of `bot_messages`, the checksum over them, and the ways to put rows in and to read them back.
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
"""What `message_of` reads, in its order."""

WITH_SEQS = "WHERE seq IN (SELECT value FROM json_each(?))"
"""Those with the seqs of a JSON array. One text however many there are: each text is a statement that is kept."""

_SEPARATOR = "\x1e"
"""What no JSON has in it. A type may; then its checksum differs, or the columns do not have as many parts."""


def _joined(name: str) -> str:
    text = f"GROUP_CONCAT(COALESCE({name}, ''), CHAR({ord(_SEPARATOR)}))"
    return f"CAST({text} AS BLOB)" if name in _BYTES else text


_JOINED = f"SELECT {', '.join(map(_joined, _NAMES))} FROM (SELECT * FROM bot_messages {{}})"
"""All rows as one, which has each column's values with separators between them."""

_INSERT = (
    "INSERT INTO bot_messages (seq, id, sender_bot_id, sender_bot_name, recipient_type, recipient_bot_id,"
    " recipient_channel, message_type, body, reply_to, headers, timestamp, expires_at, checksum) VALUES "
)
_VALUES = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

_ROWS_A_STATEMENT = (1024, 64)
"""As many as there are of the largest, then of the next, then the rest in one (docs/performance/tried.md)."""

_encode = msgspec.msgpack.Encoder().encode


def checksum(seq: int, message: NewMessage, timestamp: str) -> int:
    """Return the CRC-32 over all that was stored of a message, its place included."""
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
    """Return True if a row of COLUMNS matches its checksum."""
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


async def fetch_each(
    reader: Reader, condition: str, parameters: Sequence[Any]
) -> list[tuple[int, LogMessage | None]]:
    """Read messages in the order of their seqs; None stands for one that does not match its checksum.

    All come in one row: Python's sqlite3 gives the interpreter away and takes it again for each row, and beside a
    busy loop that takes many times as long as to read it (docs/performance/tried.md). Where that row is too large,
    or one of the messages in it not as it was sent, they are read one by one, and that decides.
    """
    try:
        [joined] = await reader.execute_fetchall(_JOINED.format(condition), parameters)
    except sqlite3.DataError:  # longer than SQLite makes a value
        rows = None
    else:
        rows = _split(joined)
    if rows is not None and all(map(intact, rows)):
        return sorted(((row[0], message_of(row)) for row in rows), key=itemgetter(0))
    single = await reader.execute_fetchall(f"SELECT {COLUMNS} FROM bot_messages {condition}", parameters)
    return sorted(((row[0], message_of(row) if intact(row) else None) for row in single), key=itemgetter(0))


def _split(joined: Sequence[Any]) -> list[tuple[Any, ...]] | None:
    """Return the parts of such a row, or None if it cannot be taken apart."""
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
