"""How messages enter the log: immediately, or when they are due.

Owns the table of delayed messages, and the rule that a sender uses an id once in both. A message that is due moves
from one to the other in one transaction, so it is always in exactly one of them, even across a crash.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from itertools import chain, islice
from typing import Any

import aiosqlite

from bus.errors import RecordDamaged
from bus.model.arriving import appended, are_due, fitting, waits, whole
from bus.model.repository import (
    Added,
    DelayedRequest,
    Lot,
    NewMessage,
    Outcome,
    Released,
    ReleaseDue,
    outcome_of,
)

from ...budgets import Budgets
from ...message_rows import checksum, in_log, marked
from ...taint import Taint
from ..file.connection import Statement
from ..file.reader import Reader
from ..file.statements import statements_on
from ..file.writer import Transaction
from .ids import append, find_senders
from .rows import insertions

__all__ = [
    "SCHEDULED",
    "Arrivals",
    "is_any_scheduled",
    "is_intact_scheduled",
    "list_scheduled",
    "next_due_at",
    "read_scheduled",
    "schedule",
]

_COLUMNS = (
    "id, sender_bot_id, sender_bot_name, recipient_bot_id, recipient_channel, message_type,"
    " CAST(body AS BLOB), reply_to, CAST(headers AS BLOB), expires_at, due_at, tainted + 2 * priority, checksum"
)

_INSERT = (
    "INSERT INTO scheduled_messages (id, sender_bot_id, sender_bot_name, recipient_bot_id, recipient_channel,"
    " message_type, body, reply_to, headers, expires_at, due_at, tainted, priority, checksum)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)

_DUE = """
    SELECT rowid, LENGTH(body) FROM scheduled_messages WHERE due_at <= ? ORDER BY due_at, rowid LIMIT ?"""

_READ_DUE = f"""
    SELECT {_COLUMNS}, rowid FROM scheduled_messages WHERE rowid IN (SELECT value FROM json_each(?))
    ORDER BY due_at, rowid"""

_IS_ANY_SCHEDULED = """
    SELECT 1 FROM scheduled_messages WHERE id IN (SELECT value FROM json_each(?1)) LIMIT 1"""
"""Whoever sent it: then each message is looked up exactly."""

SCHEDULED = f"SELECT {_COLUMNS} FROM scheduled_messages"
"""All delayed messages."""

# A comparison of both columns would go through all that are due at the first time.
_LIST = f"""
    SELECT {_COLUMNS}, rowid AS number FROM scheduled_messages
    WHERE due_at = ?2 AND rowid > ?3 AND (?1 IS NULL OR sender_bot_id = ?1)
    UNION ALL
    SELECT {_COLUMNS}, rowid FROM scheduled_messages
    WHERE due_at > ?2 AND (?1 IS NULL OR sender_bot_id = ?1)
    ORDER BY due_at, number LIMIT ?4"""

_PLACE = "SELECT rowid FROM scheduled_messages WHERE id = ? AND sender_bot_id = ? AND due_at = ?"

_NEXT_DUE = "SELECT MIN(due_at) FROM scheduled_messages WHERE due_at IS NOT NULL"


class Arrivals:
    """See the module. `waiting` is True if there may be delayed messages."""

    def __init__(self, taint: Taint, budgets: Budgets, *, waiting: bool) -> None:
        self.taint = taint
        self.budgets = budgets
        self.waiting = waiting

    def __repr__(self) -> str:
        return f"<Arrivals waiting={self.waiting}>"

    async def add(self, transaction: Transaction, lots: Sequence[Lot], timestamp: str) -> list[Outcome]:
        """Append messages or schedule them, each id of a sender once; return the outcome of each lot.

        The fast way assumes that no sender used an id before, as is the rule; if one did, nothing of the fast way
        stays. (It deletes rather than use a savepoint: that would cost every batch two turns of the database's
        thread.)
        """
        run = statements_on(transaction.connection)
        parts = await self.budgets.count(run, await self.taint.decide(run, lots), timestamp)
        if all(len(each) == 1 for each in parts):
            return await self._add(transaction, [part for [part] in parts], timestamp)
        outcomes = iter(await self._add(transaction, [part for each in parts for part in each], timestamp))
        return [whole(each, list(islice(outcomes, len(each)))) for each in parts]

    async def _add(self, transaction: Transaction, lots: Sequence[Lot], timestamp: str) -> list[Outcome]:
        connection = transaction.connection
        transaction.body_bytes += sum(lot.size_bytes for lot in lots)
        if are_due(lots) and not (self.waiting and await _is_any_scheduled(connection, lots)):
            first_seq = transaction.last_seq + 1
            try:
                await connection.execute_all(insertions(lots, first_seq, timestamp))
            except sqlite3.IntegrityError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_CONSTRAINT_UNIQUE:
                    # A seq that is taken: then what is deleted here would be on disk already.
                    raise
                await connection.execute("DELETE FROM bot_messages WHERE seq >= ?", (first_seq,))
            else:
                transaction.last_seq += sum(map(len, lots))
                return appended(lots, first_seq)
        return await self._add_each(transaction, lots, timestamp)

    async def _add_each(self, transaction: Transaction, lots: Sequence[Lot], timestamp: str) -> list[Outcome]:
        connection = transaction.connection
        known = await find_senders(connection, [(id, lot.sender_bot_id) for lot in lots for id in lot.ids])
        now: list[NewMessage] = []
        later: list[NewMessage] = []
        added: list[Added] = []
        first_seq = transaction.last_seq + 1
        for message in chain.from_iterable(lot.messages() for lot in lots):
            key = (message.id, message.sender_bot_id)
            if key in known:
                seq = known[key]
                added.append(Added(seq, duplicate=True, scheduled=seq is None))
            elif message.known_only:
                forbidden = message.tainted and message.untainted_only
                added.append(Added(None, forbidden=forbidden, budget=message.budget))
            elif message.due_at is not None:
                known[key] = None
                later.append(message)
                added.append(Added(None, scheduled=True))
            else:
                transaction.last_seq += 1
                known[key] = transaction.last_seq
                now.append(message)
                added.append(Added(transaction.last_seq, tainted=message.tainted, budget=message.budget))
        if now:
            await connection.execute_all(await append(connection, now, first_seq, timestamp))
        if later:
            self.waiting = True
            await connection.executemany(_INSERT, [_row(message) for message in later])
        outcomes = iter(added)
        return [outcome_of(list(islice(outcomes, len(lot)))) for lot in lots]

    def remember(self, answer: Any) -> None:
        """Note from a change's answer, once on disk, whether delayed messages may be waiting."""
        if isinstance(answer, Released):
            self.waiting = answer.next_due_at is not None
            return
        if waits(answer):
            self.waiting = True

    async def release(self, transaction: Transaction, change: ReleaseDue) -> Released:
        """Append what is due, the earliest first."""
        connection = transaction.connection
        found = await connection.execute_fetchall(_DUE, (change.until or change.timestamp, change.messages_max))
        rowids = fitting(found, change.bytes_max)
        due = list(await connection.execute_fetchall(_READ_DUE, (json.dumps(rowids),)))
        intact = [row for row in due if is_intact_scheduled(row)]
        damaged = [row for row in due if not is_intact_scheduled(row)]
        messages = map(_message, intact)
        first_seq = transaction.last_seq + 1
        released = [in_log(message, seq, change.timestamp) for seq, message in enumerate(messages, first_seq)]
        transaction.last_seq += len(released)
        await connection.execute_all(await append(connection, released, first_seq, change.timestamp))
        await connection.executemany(
            "DELETE FROM scheduled_messages WHERE rowid = ?", [(row[13],) for row in intact]
        )
        await connection.executemany(
            # The id itself may be damaged.
            "UPDATE scheduled_messages SET due_at = NULL WHERE rowid = ?",
            [(row[13],) for row in damaged],
        )
        return Released(
            released,
            await next_due_at(connection),
            tuple(row[0] for row in damaged),
        )


async def schedule(connection: aiosqlite.Connection, message: NewMessage) -> None:
    """Store a message of the worker until it is due. Its id must be new: no bot sends with that sender."""
    await connection.execute(_INSERT, _row(message))


async def next_due_at(connection: aiosqlite.Connection | Reader) -> str | None:
    """Return when the first message is due, or None."""
    [[due_at]] = await connection.execute_fetchall(_NEXT_DUE)
    return None if due_at is None else str(due_at)


async def read_scheduled(connection: Reader, rowid: int) -> NewMessage | None:
    """Return a delayed message by its rowid, if it still waits. Raise RecordDamaged if its record is damaged."""
    sql = f"SELECT {_COLUMNS} FROM scheduled_messages WHERE rowid = ?"
    for row in await connection.execute_fetchall(sql, (rowid,)):
        if not is_intact_scheduled(row):
            raise RecordDamaged("scheduled_messages", str(row[0]))
        return _message(row)
    return None


async def list_scheduled(reader: Reader, request: DelayedRequest) -> list[NewMessage]:
    """Return delayed messages in the order in which they become due, but for damaged ones."""
    found: list[NewMessage] = []
    after = ("", 0) if request.after is None else await _place(reader, *request.after)
    while len(found) < request.limit:
        values = (request.sender_bot_id, *after, request.limit - len(found))
        rows = list(await reader.execute_fetchall(_LIST, values))
        found += [_message(row) for row in rows if is_intact_scheduled(row)]
        if len(rows) < values[-1]:
            break
        after = (rows[-1][10], rows[-1][13])
    return found


async def _place(reader: Reader, due_at: str, id: str, sender_bot_id: str) -> tuple[str, int]:
    """Return the place of a message, or if it does not wait any more, that of the first one that is due with it."""
    rows = await reader.execute_fetchall(_PLACE, (id, sender_bot_id, due_at))
    return due_at, next((row[0] for row in rows), 0)


def is_any_scheduled(ids: Sequence[str]) -> Statement:
    """Return the query that finds a row if a delayed message with one of these ids waits."""
    return _IS_ANY_SCHEDULED, (json.dumps(ids),)


async def _is_any_scheduled(connection: aiosqlite.Connection, lots: Iterable[Lot]) -> bool:
    query = is_any_scheduled([id for lot in lots for id in lot.ids])
    return bool(list(await connection.execute_fetchall(*query)))


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
        int(message.tainted),
        message.priority,
        checksum(0, message, due_at),
    )


def _message(row: Sequence[Any]) -> NewMessage:
    return NewMessage(*(*row[:11], False, *marked(row[11])))


def is_intact_scheduled(row: Sequence[Any]) -> bool:
    """Return True if a row of SCHEDULED matches its checksum."""
    try:
        return bool(checksum(0, _message(row), row[10]) == row[12])
    except (TypeError, ValueError):
        return False
