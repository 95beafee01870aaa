"""Messages, channels and subscriptions in SQLite.

Owns how a message becomes a row and a row a message again, with its checksum, and the audit side
(`MessageRepository`). The broker's side is in `log`.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import aiosqlite
import msgspec

from ..errors import Conflict, NotFound, RecordDamaged
from ..records import BotMessage, BotSubscription, Channel, ChannelRecipient, DirectRecipient
from ..repository import Added, LogMessage, NewMessage
from ..values import normal_record, row_limit, same_values
from .conversations import Conversations
from .database import Database
from .reader import Reader
from .writer import Transaction

__all__ = ["COLUMNS", "SqliteMessages", "append", "fetch", "intact", "message_of"]

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

_ROWS_A_STATEMENT = 64
"""One statement with 64 rows is about twice as fast as 64 with one; more gain nothing (docs/design.md)."""

_IDS_A_STATEMENT = 500
"""Well below the 32,766 variables of a statement."""

_encode = msgspec.msgpack.Encoder().encode


def _checksum(seq: int, message: NewMessage, timestamp: str) -> int:
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
        _checksum(seq, message, timestamp),
    )


def message_of(row: Sequence[Any]) -> LogMessage:
    """Read a row of COLUMNS without looking at its checksum."""
    fields = (*row[1:10], row[11])
    return LogMessage(*fields, seq=row[0], timestamp=row[10])


def intact(row: Sequence[Any]) -> bool:
    """Tell whether a row of COLUMNS matches its checksum."""
    try:
        return bool(_checksum(row[0], message_of(row), row[10]) == row[12])
    except (TypeError, ValueError):
        return False


async def fetch(connection: aiosqlite.Connection | Reader, sql: str, parameters: Sequence[Any]) -> list[LogMessage]:
    """Read messages; raises RecordDamaged at the first that does not match its checksum."""
    rows = await connection.execute_fetchall(f"SELECT {COLUMNS} FROM bot_messages {sql}", parameters)
    for row in rows:
        if not intact(row):
            raise RecordDamaged("bot_messages", f"seq {row[0]}")
    return [message_of(row) for row in rows]


async def append(transaction: Transaction, messages: Sequence[NewMessage], timestamp: str) -> list[Added]:
    """Append messages, each once by its id, and say what became of each.

    The fast way assumes that no id is known, as is the rule; where one is, nothing of the fast way stays. (It
    deletes rather than use a savepoint: that would cost every batch two turns of the database's thread.)
    """
    first = transaction.last_seq + 1
    try:
        await _insert(
            transaction.connection,
            [_row(seq, message, timestamp) for seq, message in enumerate(messages, first)],
        )
    except sqlite3.IntegrityError:
        await transaction.connection.execute("DELETE FROM bot_messages WHERE seq >= ?", (first,))
        return await _append_unknown(transaction, messages, timestamp)
    transaction.last_seq += len(messages)
    return [Added(seq) for seq in range(first, first + len(messages))]


async def _append_unknown(transaction: Transaction, messages: Sequence[NewMessage], timestamp: str) -> list[Added]:
    known = await _known(transaction.connection, [message.id for message in messages])
    rows: list[tuple[Any, ...]] = []
    added: list[Added] = []
    for message in messages:
        first = known.get(message.id)
        if first is None:
            transaction.last_seq += 1
            known[message.id] = (transaction.last_seq, message.sender_bot_id)
            rows.append(_row(transaction.last_seq, message, timestamp))
            added.append(Added(transaction.last_seq))
        elif first[1] == message.sender_bot_id:
            added.append(Added(first[0], duplicate=True))
        else:
            added.append(Added(None))
    await _insert(transaction.connection, rows)
    return added


async def _known(connection: aiosqlite.Connection, ids: Sequence[str]) -> dict[str, tuple[int, str]]:
    known: dict[str, tuple[int, str]] = {}
    for start in range(0, len(ids), _IDS_A_STATEMENT):
        part = ids[start : start + _IDS_A_STATEMENT]
        marks = ", ".join("?" * len(part))
        sql = f"SELECT id, seq, sender_bot_id FROM bot_messages WHERE id IN ({marks})"
        known.update({row[0]: (row[1], row[2]) for row in await connection.execute_fetchall(sql, part)})
    return known


async def _insert(connection: aiosqlite.Connection, rows: list[tuple[Any, ...]]) -> None:
    whole = len(rows) - len(rows) % _ROWS_A_STATEMENT
    if whole:
        portions = (
            [value for row in rows[start : start + _ROWS_A_STATEMENT] for value in row]
            for start in range(0, whole, _ROWS_A_STATEMENT)
        )
        await connection.executemany(_INSERT + ", ".join([_VALUES] * _ROWS_A_STATEMENT), portions)
    if whole < len(rows):
        await connection.executemany(_INSERT + _VALUES, rows[whole:])


def _record(message: LogMessage) -> BotMessage:
    recipient: DirectRecipient | ChannelRecipient
    if message.recipient_bot_id is not None:
        recipient = DirectRecipient(bot_id=message.recipient_bot_id)
    else:
        recipient = ChannelRecipient(name=message.recipient_channel or "")
    return BotMessage(
        id=message.id,
        sender_bot_id=message.sender_bot_id,
        sender_bot_name=message.sender_bot_name,
        recipient=recipient,
        message_type=message.message_type,
        body=msgspec.json.decode(message.body),
        timestamp=message.timestamp,
        reply_to=message.reply_to,
    )


def _new(message: BotMessage) -> NewMessage:
    recipient = message.recipient
    return NewMessage(
        id=message.id,
        sender_bot_id=message.sender_bot_id,
        sender_bot_name=message.sender_bot_name,
        recipient_bot_id=recipient.bot_id if isinstance(recipient, DirectRecipient) else None,
        recipient_channel=recipient.name if isinstance(recipient, ChannelRecipient) else None,
        message_type=message.message_type,
        body=msgspec.json.encode(message.body),
        reply_to=message.reply_to,
        headers=b"{}",
    )


class SqliteMessages:
    """The MessageRepository over SQLite; see `store.repository` for what each method promises."""

    def __init__(self, database: Database, conversations: Conversations) -> None:
        self._database = database
        self._conversations = conversations

    def __repr__(self) -> str:
        return f"<SqliteMessages {self._database.path}>"

    async def save_message(self, message: BotMessage) -> None:
        """Append a message; the same one again changes nothing."""
        wanted = normal_record(message, f"message {message.id!r}")
        new = _new(wanted)

        async def operation(transaction: Transaction) -> None:
            [added] = await append(transaction, [new], message.timestamp)
            if added.duplicate or added.seq is None:
                [stored] = await fetch(transaction.connection, "WHERE id = ?", (message.id,))
                if not same_values(_record(stored), wanted):
                    raise Conflict(f"message {message.id!r} is stored with other contents")
            else:
                await self._conversations.open(transaction.connection, [new], message.timestamp)

        await self._database.writer.run(operation)

    async def get_messages_between(self, bot_a: str, bot_b: str, limit: int = 50) -> list[BotMessage]:
        """Give the direct messages between two bots, newest first."""
        sql = """
            WHERE seq IN (
                SELECT seq FROM (SELECT seq FROM bot_messages
                                 WHERE sender_bot_id = ?1 AND recipient_bot_id = ?2 ORDER BY seq DESC LIMIT ?3)
                UNION
                SELECT seq FROM (SELECT seq FROM bot_messages
                                 WHERE sender_bot_id = ?2 AND recipient_bot_id = ?1 ORDER BY seq DESC LIMIT ?3)
            ) ORDER BY seq DESC LIMIT ?3"""
        return self._records(await fetch(self._database.read, sql, (bot_a, bot_b, row_limit(limit))))

    async def get_channel_messages(self, channel: str, limit: int = 50) -> list[BotMessage]:
        """Give a channel's messages, newest first."""
        sql = "WHERE recipient_channel = ? ORDER BY seq DESC LIMIT ?"
        return self._records(await fetch(self._database.read, sql, (channel, row_limit(limit))))

    async def list_channels(self) -> list[Channel]:
        """List all channels by name."""
        sql = "SELECT name, created_at, created_by_bot_id FROM bot_channels ORDER BY name"
        rows = await self._database.read.execute_fetchall(sql)
        return [Channel(name=row[0], created_at=row[1], created_by_bot_id=row[2]) for row in rows]

    async def create_channel(self, channel: Channel) -> None:
        """Create a channel; one that exists stays as it is."""

        async def operation(transaction: Transaction) -> None:
            await transaction.connection.execute(
                "INSERT OR IGNORE INTO bot_channels (name, created_at, created_by_bot_id) VALUES (?, ?, ?)",
                (channel.name, channel.created_at, channel.created_by_bot_id),
            )

        await self._database.writer.run(operation)

    async def subscribe(self, subscription: BotSubscription) -> None:
        """Subscribe a bot from now on; a subscription that stands stays as it is."""

        async def operation(transaction: Transaction) -> None:
            try:
                await transaction.connection.execute(
                    "INSERT INTO bot_subscriptions (bot_id, channel_name, subscribed_at, start_seq)"
                    " VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    (
                        subscription.bot_id,
                        subscription.channel_name,
                        subscription.subscribed_at,
                        transaction.last_seq,
                    ),
                )
            except sqlite3.IntegrityError as error:
                raise NotFound("channel", subscription.channel_name) from error

        await self._database.writer.run(operation)

    async def unsubscribe(self, bot_id: str, channel_name: str) -> bool:
        """End a subscription; False where there was none."""

        async def operation(transaction: Transaction) -> bool:
            cursor = await transaction.connection.execute(
                "DELETE FROM bot_subscriptions WHERE bot_id = ? AND channel_name = ?", (bot_id, channel_name)
            )
            return cursor.rowcount > 0

        return await self._database.writer.run(operation)

    async def get_subscriptions(self, bot_id: str) -> list[BotSubscription]:
        """List a bot's subscriptions by channel."""
        sql = "SELECT channel_name, subscribed_at FROM bot_subscriptions WHERE bot_id = ? ORDER BY channel_name"
        rows = await self._database.read.execute_fetchall(sql, (bot_id,))
        return [BotSubscription(bot_id=bot_id, channel_name=row[0], subscribed_at=row[1]) for row in rows]

    async def get_channel_subscribers(self, channel_name: str) -> list[str]:
        """List the ids of a channel's subscribers."""
        sql = "SELECT bot_id FROM bot_subscriptions WHERE channel_name = ? ORDER BY bot_id"
        return [row[0] for row in await self._database.read.execute_fetchall(sql, (channel_name,))]

    @staticmethod
    def _records(messages: Iterable[LogMessage]) -> list[BotMessage]:
        return [_record(message) for message in messages]
