"""How a message is stored as a row of the log.

Owns how the rows of `bot_messages` are written and read. Their checksum is that of `store.message_rows`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import chain
from operator import itemgetter
from typing import Any

import aiosqlite

from bus.errors import RecordDamaged
from bus.model.repository import LogMessage, Lot, NewMessage, lots_of

from ...message_rows import intact, marked, marks_of, message_of, own_columns
from ..file.connection import Statement
from ..file.reader import Reader

__all__ = [
    "COLUMNS",
    "WITH_SEQS",
    "fetch",
    "fetch_each",
    "fetch_joined",
    "fetch_rows",
    "insertion_of_copy",
    "insertions",
]

_MARKS = "tainted + 2 * priority"
"""What `store.message_rows` calls the marks of a message."""

_NAMES = (
    "seq", "id", "sender_bot_id", "sender_bot_name", "recipient_bot_id", "recipient_channel", "message_type",
    "body", "reply_to", "headers", "timestamp", "expires_at", _MARKS, "checksum",
)  # fmt: skip
_NUMBERS = frozenset({"seq", _MARKS, "checksum"})
_BYTES = frozenset({"body", "headers"})
_OPTIONAL = frozenset({"recipient_bot_id", "recipient_channel", "reply_to", "expires_at"})

COLUMNS = ", ".join(f"CAST({name} AS BLOB)" if name in _BYTES else name for name in _NAMES)
"""What `store.message_rows` reads, in this order."""

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
    " recipient_channel, message_type, body, reply_to, headers, timestamp, expires_at, checksum{}) VALUES "
)
_VALUES = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?{})"
_MARKED = ", tainted, priority"
"""The columns of messages that have a mark; those of others are the columns' defaults."""

_INSERT_COPY = _INSERT.format(f", copied{_MARKED}") + _VALUES.format(", 1, ?, ?")

_SHARED_ROWS = (1024, 256, 64, 16)
"""Rows of one lot in one statement; what is left, and lots with fewer, go the other way."""

_ROWS_A_STATEMENT = (1024, 64)
"""As many of the largest as there are, then of the next, then the rest in one (docs/performance/tried.md)."""


_seq = itemgetter(0)


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
    """Read messages in the order of their seqs; None stands for one that does not match its checksum."""
    rows = await fetch_rows(reader, condition, parameters)
    return [(seq, None if row is None else message_of(row)) for seq, row in rows]


async def fetch_rows(
    reader: Reader, condition: str, parameters: Sequence[Any]
) -> list[tuple[int, Sequence[Any] | None]]:
    """Read rows of COLUMNS in the order of their seqs; None stands for one that does not match its checksum.

    All are read as one row, if that can be (`fetch_joined`); row by row otherwise, which decides what is damaged.
    """
    rows = await fetch_joined(reader, condition, parameters)
    if rows is not None:
        return [(row[0], row) for row in rows]
    single = await reader.execute_fetchall(f"SELECT {COLUMNS} FROM bot_messages {condition}", parameters)
    return [(row[0], row if intact(row) else None) for row in sorted(single, key=_seq)]


async def fetch_joined(
    reader: Reader, condition: str, parameters: Sequence[Any], *, bytes_max: int | None = None
) -> list[Sequence[Any]] | None:
    """Read rows of COLUMNS, in the order of their seqs, as one row of SQLite.

    Python's sqlite3 releases and reacquires the GIL for each row, which beside a busy loop takes many times as long
    as reading it (docs/performance/tried.md). Return None if that row would be too large, or if a column of it has
    more than `bytes_max` bytes, or if a message in it does not match its checksum.
    """
    try:
        [joined] = await reader.execute_fetchall(_JOINED.format(condition), parameters, value_bytes_max=bytes_max)
    except sqlite3.DataError:
        return None
    rows = _split(joined)
    return sorted(rows, key=_seq) if rows is not None and all(map(intact, rows)) else None


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


def insertions(lots: Iterable[Lot], first_seq: int, timestamp: str) -> list[Statement]:
    """Return the statements that append lots to the log, from `first_seq` on."""
    statements: list[Statement] = []
    rows: dict[int, list[tuple[Any, ...]]] = {0: []}
    seq = first_seq
    for lot in lots:
        shared, start = _shared(lot, timestamp), 0
        own = own_columns(lot, seq, timestamp)
        are_replies, marks = lot.reply_tos is not None, marks_of(lot)
        for size in _SHARED_ROWS:
            while len(own) - start >= size:
                values = chain.from_iterable(own[start : start + size])
                sql = _insert_shared(size, are_replies=are_replies, marks=marks)
                statements.append((sql, [seq + start, *shared, *values]))
                start += size
        before, after = shared[:6], shared[6:]
        rest = zip(own[start:], lot.replies()[start:], strict=True)
        rows.setdefault(marks, []).extend(
            (at, id, *before, body, reply_to, *after, crc)
            for at, ((id, body, crc, *_), reply_to) in enumerate(rest, seq + start)
        )
        seq += len(own)
    for marks, theirs in rows.items():
        statements += _in_few(theirs, marks)
    return statements


def insertion_of_copy(message: NewMessage, seq: int, timestamp: str) -> Statement:
    """Return the statement that appends a message whose id another sender used before (`ids`)."""
    [lot] = lots_of([message])
    shared, [(id, body, crc, *_)] = _shared(lot, timestamp), own_columns(lot, seq, timestamp)
    marks = (message.tainted, message.priority)
    return _INSERT_COPY, (seq, id, *shared[:6], body, message.reply_to, *shared[6:], crc, *marks)


def _in_few(rows: Sequence[tuple[Any, ...]], marks: int) -> list[Statement]:
    """Return the insertions of rows that share nothing."""
    statements: list[Statement] = []
    start = 0
    for size in (*_ROWS_A_STATEMENT, len(rows) % _ROWS_A_STATEMENT[-1]):
        while size and len(rows) - start >= size:
            statements.append((_insert_of(size, marks), list(chain.from_iterable(rows[start : start + size]))))
            start += size
    return statements


def _shared(lot: Lot, timestamp: str) -> tuple[Any, ...]:
    """Return the columns that are the same for all messages of a lot, in their order."""
    return (
        lot.sender_bot_id,
        lot.sender_bot_name,
        "channel" if lot.recipient_bot_id is None else "direct",
        lot.recipient_bot_id,
        lot.recipient_channel,
        lot.message_type,
        lot.headers.decode(),
        timestamp,
        lot.expires_at,
    )


@cache
def _insert_of(rows: int, marks: int) -> str:
    columns, values = _marked(marks)
    return _INSERT.format(columns) + ", ".join([_VALUES.format(values)] * rows)


@cache
def _insert_shared(rows: int, *, are_replies: bool, marks: int) -> str:
    """Return an insertion of rows of one lot. What they share is bound once, which saves most of the binding."""
    columns, marked_values = _marked(marks)
    values, width = "(?1 + {}, ?{}, ?2, ?3, ?4, ?5, ?6, ?7, ?{}, {}, ?8, ?9, ?10, ?{}{})", 4 if are_replies else 3
    firsts = range(11, 11 + width * rows, width)
    return _INSERT.format(columns) + ", ".join(
        values.format(at, first, first + 1, f"?{first + 3}" if are_replies else "NULL", first + 2, marked_values)
        for at, first in enumerate(firsts)
    )


def _marked(marks: int) -> tuple[str, str]:
    """Return the columns for marks, and their values."""
    tainted, *_, priority = marked(marks)
    return (_MARKED, f", {tainted:d}, {priority}") if marks else ("", "")
