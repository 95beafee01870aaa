"""How messages enter the log: immediately, or when they are due.

Owns the table of delayed messages, and the rule that an id is used once in both. A message that is due moves from
one to the other in one transaction, so it is always in exactly one of them, even across a crash.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

import aiosqlite

from bus.errors import RecordDamaged
from bus.model.repository import Added, Committed, LogMessage, NewMessage, Released, ReleaseDue

from ..file.reader import Reader
from ..file.writer import Transaction
from .rows import checksum, insert

__all__ = ["SCHEDULED", "Arrivals", "find_scheduled", "in_log", "is_intact_scheduled", "next_due_at"]

_COLUMNS = (
    "id, sender_bot_id, sender_bot_name, recipient_bot_id, recipient_channel, message_type,"
    " CAST(body AS BLOB), reply_to, CAST(headers AS BLOB), expires_at, due_at, checksum"
)

_INSERT = (
    "INSERT INTO scheduled_messages (id, sender_bot_id, sender_bot_name, recipient_bot_id, recipient_channel,"
    " message_type, body, reply_to, headers, expires_at, due_at, checksum)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)

_DUE = """
    SELECT rowid, LENGTH(body) FROM scheduled_messages WHERE due_at <= ? ORDER BY due_at, rowid LIMIT ?"""

_READ_DUE = f"""
    SELECT {_COLUMNS}, rowid FROM scheduled_messages WHERE rowid IN (SELECT value FROM json_each(?))
    ORDER BY due_at, rowid"""

_WITH_IDS = "WHERE id IN (SELECT value FROM json_each(?1))"

_IS_ANY_SCHEDULED = f"SELECT 1 FROM scheduled_messages {_WITH_IDS} LIMIT 1"

_FIND_IDS = f"""
    SELECT id, seq, sender_bot_id FROM bot_messages {_WITH_IDS}
    UNION ALL SELECT id, NULL, sender_bot_id FROM scheduled_messages {_WITH_IDS}"""

SCHEDULED = f"SELECT {_COLUMNS} FROM scheduled_messages"
"""All delayed messages."""

_NEXT_DUE = "SELECT MIN(due_at) FROM scheduled_messages WHERE due_at IS NOT NULL"


class Arrivals:
    """See the module. `waiting` is True if there may be delayed messages."""

    def __init__(self, *, waiting: bool) -> None:
        self.waiting = waiting

    def __repr__(self) -> str:
        return f"<Arrivals waiting={self.waiting}>"

    async def add(
        self, transaction: Transaction, messages: Sequence[NewMessage], timestamp: str, *, last: bool = False
    ) -> list[Added]:
        """Append messages or schedule them, each once by its id, and return the outcome of each.

        `last` says that the operation writes nothing more.

        The fast path assumes that no id is known; if one is, everything that it wrote is undone. (It deletes
        instead of using a savepoint, which would cost every batch two turns of the database's thread.)
        """
        plain = not any(message.due_at or message.known_only for message in messages)
        if not plain or (self.waiting and await _is_any_scheduled(transaction.connection, messages)):
            return await self._add_each(transaction, messages, timestamp)
        first = transaction.last_seq + 1
        try:
            await insert(transaction, list(enumerate(messages, first)), timestamp, last=last)
        except sqlite3.IntegrityError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_CONSTRAINT_UNIQUE:
                # A seq that is taken: what would be deleted here could be on disk already.
                raise
            await transaction.connection.execute("DELETE FROM bot_messages WHERE seq >= ?", (first,))
            return await self._add_each(transaction, messages, timestamp)
        transaction.last_seq += len(messages)
        return [Added(seq) for seq in range(first, first + len(messages))]

    async def _add_each(
        self, transaction: Transaction, messages: Sequence[NewMessage], timestamp: str
    ) -> list[Added]:
        known = await _find_ids(transaction.connection, [message.id for message in messages])
        now: list[tuple[int, NewMessage]] = []
        later: list[NewMessage] = []
        added: list[Added] = []
        for message in messages:
            if message.id in known:
                seq, sender_bot_id = known[message.id]
                if sender_bot_id != message.sender_bot_id:
                    added.append(Added(None, conflict=True))
                else:
                    added.append(Added(seq, duplicate=True, scheduled=seq is None))
            elif message.known_only:
                added.append(Added(None))
            elif message.due_at is not None:
                known[message.id] = (None, message.sender_bot_id)
                later.append(message)
                added.append(Added(None, scheduled=True))
            else:
                transaction.last_seq += 1
                known[message.id] = (transaction.last_seq, message.sender_bot_id)
                now.append((transaction.last_seq, message))
                added.append(Added(transaction.last_seq))
        await insert(transaction, now, timestamp)
        if later:
            self.waiting = True
            await transaction.connection.executemany(_INSERT, [_row(message) for message in later])
        return added

    def remember(self, answer: Any) -> None:
        """Note from a change's answer, once on disk, whether delayed messages may be waiting."""
        if isinstance(answer, Committed):
            answer = answer.added
        if isinstance(answer, Released):
            self.waiting = answer.next_due_at is not None
        elif isinstance(answer, list) and any(isinstance(item, Added) and item.scheduled for item in answer):
            self.waiting = True

    async def release(self, transaction: Transaction, change: ReleaseDue) -> Released:
        """Append what is due, the earliest first."""
        connection = transaction.connection
        found = await connection.execute_fetchall(_DUE, (change.until or change.timestamp, change.messages_max))
        rowids = _fitting(found, change.bytes_max)
        due = list(await connection.execute_fetchall(_READ_DUE, (json.dumps(rowids),)))
        messages = [_message(row) for row in due if is_intact_scheduled(row)]
        damaged = [row for row in due if not is_intact_scheduled(row)]
        numbered = list(enumerate(messages, transaction.last_seq + 1))
        transaction.last_seq += len(numbered)
        await insert(transaction, numbered, change.timestamp)
        await connection.executemany(
            "DELETE FROM scheduled_messages WHERE id = ?", [(message.id,) for message in messages]
        )
        await connection.executemany(
            # The id itself may be damaged.
            "UPDATE scheduled_messages SET due_at = NULL WHERE rowid = ?",
            [(row[12],) for row in damaged],
        )
        return Released(
            [in_log(message, seq, change.timestamp) for seq, message in numbered],
            await next_due_at(connection),
            tuple(row[0] for row in damaged),
        )


def _fitting(rows: Iterable[sqlite3.Row], bytes_max: int) -> list[int]:
    """Return the first rowids whose bodies fit into so many bytes, but at least one."""
    rowids: list[int] = []
    size_bytes = 0
    for rowid, row_bytes in rows:
        size_bytes += row_bytes
        if rowids and size_bytes > bytes_max:
            break
        rowids.append(rowid)
    return rowids


async def next_due_at(connection: aiosqlite.Connection | Reader) -> str | None:
    """Return when the first message is due, or None."""
    [[due_at]] = await connection.execute_fetchall(_NEXT_DUE)
    return None if due_at is None else str(due_at)


async def find_scheduled(connection: Reader, message_id: str) -> NewMessage | None:
    """Return a delayed message, by its id. Raise RecordDamaged if its record is damaged."""
    sql = f"SELECT {_COLUMNS} FROM scheduled_messages WHERE id = ?"
    for row in await connection.execute_fetchall(sql, (message_id,)):
        if not is_intact_scheduled(row):
            raise RecordDamaged("scheduled_messages", message_id)
        return _message(row)
    return None


async def _is_any_scheduled(connection: aiosqlite.Connection, messages: Sequence[NewMessage]) -> bool:
    ids = json.dumps([message.id for message in messages])
    return bool(list(await connection.execute_fetchall(_IS_ANY_SCHEDULED, (ids,))))


async def _find_ids(connection: aiosqlite.Connection, ids: Sequence[str]) -> dict[str, tuple[int | None, str]]:
    """Return the ids that are in use, with the message's seq (None if it is delayed) and its sender."""
    rows = await connection.execute_fetchall(_FIND_IDS, (json.dumps(ids),))
    return {row[0]: (row[1], row[2]) for row in rows}


def _row(message: NewMessage) -> tuple[Any, ...]:
    due_at = message.due_at or ""
    return (
        message.id,
        message.sender_bot_id,
        message.sender_bot_name,
        message.recipient_bot_id,
        message.recipient_channel,
        message.message_type,
        message.body.decode(),
        message.reply_to,
        message.headers.decode(),
        message.expires_at,
        due_at,
        checksum(0, message, due_at),
    )


def _message(row: Sequence[Any]) -> NewMessage:
    return NewMessage(*row[:11])


def is_intact_scheduled(row: Sequence[Any]) -> bool:
    """Return True if a row of SCHEDULED matches its checksum."""
    try:
        return bool(checksum(0, _message(row), row[10]) == row[11])
    except (TypeError, ValueError):
        return False


def in_log(message: NewMessage, seq: int, timestamp: str) -> LogMessage:
    """Return a message as it is in the log."""
    fields = {name: getattr(message, name) for name in NewMessage.__struct_fields__ if name != "due_at"}
    return LogMessage(**fields, seq=seq, timestamp=timestamp)
