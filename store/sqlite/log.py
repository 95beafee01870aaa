"""The broker's log in SQLite: batches in, mailbox pages out.

Owns the SQL of mailboxes, subscriptions as delivery sees them, and dead letters. How a message is a row stands
in `messages`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, assert_never

import anyio
import msgspec

from ..errors import Conflict
from ..records import Bot, Channel
from ..repository import (
    AddBot,
    AddChannel,
    AddDeadLetters,
    Added,
    AddMessages,
    AddSubscription,
    Change,
    ChannelSummary,
    DeadLetter,
    HistoryRequest,
    LogMessage,
    LogState,
    MailboxState,
    NewMessage,
    Page,
    PageRequest,
    RemoveDeadLetters,
    RemoveSubscription,
    SaveMailbox,
    SeenBot,
    Subscribed,
    Subscription,
    UnsettledState,
)
from .conversations import Conversations
from .database import Database
from .messages import COLUMNS, append, fetch, intact, message_of
from .writer import Transaction

__all__ = ["SqliteLog"]

_SOURCES_A_STATEMENT = 200
"""Sources read by one statement: SQLite joins at most 500 SELECTs."""

_ROWS_A_FETCH = 128
"""Rows that one turn of the database's thread gives: few enough to stop soon after a page's byte limit."""

_SAVE_MAILBOX = """
    INSERT INTO mailboxes (bot_id, position, unsettled, floors, ahead) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (bot_id) DO UPDATE SET
        position = excluded.position, unsettled = excluded.unsettled, floors = excluded.floors,
        ahead = excluded.ahead"""

# The head of each channel is one look into its index, whatever the length of the log.
_LOAD_CHANNELS = """
    SELECT name, created_at, created_by_bot_id,
           COALESCE((SELECT MAX(seq) FROM bot_messages WHERE recipient_channel = name), 0)
    FROM bot_channels"""

_SUMMARIES = """
    SELECT name, created_at, created_by_bot_id,
           (SELECT COUNT(*) FROM bot_messages WHERE recipient_channel = name)
    FROM bot_channels ORDER BY name"""

# The two directions of a pair are two ranges of one index; each is cut before they are merged.
_BETWEEN = """
    WHERE seq IN (
        SELECT seq FROM (SELECT seq FROM bot_messages
            WHERE sender_bot_id = ?1 AND recipient_bot_id = ?2 AND seq < ?3 ORDER BY seq DESC LIMIT ?4)
        UNION
        SELECT seq FROM (SELECT seq FROM bot_messages
            WHERE sender_bot_id = ?2 AND recipient_bot_id = ?1 AND seq < ?3 ORDER BY seq DESC LIMIT ?4)
    ) ORDER BY seq DESC LIMIT ?4"""

_CHANNEL = "WHERE recipient_channel = ? AND seq < ? ORDER BY seq DESC LIMIT ?"

# A thread is a message, what it answers up to the first of all, and whatever answers any of these. UNION drops
# what was found before, so that messages which name each other do not run for ever.
_THREAD = """
    WHERE seq IN (
        WITH RECURSIVE
            ancestors (id, reply_to) AS (
                SELECT id, reply_to FROM bot_messages WHERE id = ?1
                UNION
                SELECT m.id, m.reply_to FROM bot_messages m JOIN ancestors a ON m.id = a.reply_to
            ),
            thread (id) AS (
                SELECT id FROM ancestors
                UNION
                SELECT m.id FROM bot_messages m JOIN thread t ON m.reply_to = t.id
            )
        SELECT seq FROM bot_messages WHERE id IN (SELECT id FROM thread)
    ) AND seq < ?2 ORDER BY seq DESC LIMIT ?3"""

_SEQ_MAX = (1 << 63) - 1


class SqliteLog:
    """The MessageLog over SQLite; see `store.repository` for what each method promises."""

    def __init__(self, database: Database, conversations: Conversations) -> None:
        self._database = database
        self._conversations = conversations

    def __repr__(self) -> str:
        return f"<SqliteLog {self._database.path} last_seq={self._database.writer.last_seq}>"

    async def load(self) -> LogState:
        """Give what the broker goes on from."""
        read = self._database.read
        bots = await read.execute_fetchall("SELECT id, name, created_at, last_seen_at, public_key FROM bots")
        channels = await read.execute_fetchall(_LOAD_CHANNELS)
        subscriptions = await read.execute_fetchall(
            "SELECT bot_id, channel_name, subscribed_at, start_seq, echo FROM bot_subscriptions"
        )
        mailboxes = await read.execute_fetchall("SELECT bot_id, position, unsettled, floors, ahead FROM mailboxes")
        dead_letters = await read.execute_fetchall("SELECT bot_id, seq FROM dead_letters")
        last = list(await read.execute_fetchall("SELECT timestamp FROM bot_messages ORDER BY seq DESC LIMIT 1"))
        return LogState(
            epoch=self._database.epoch,
            last_seq=self._database.writer.last_seq,
            last_timestamp=last[0][0] if last else "",
            bots=[
                Bot(id=row[0], name=row[1], created_at=row[2], last_seen_at=row[3], public_key=row[4])
                for row in bots
            ],
            channels=[
                (Channel(name=row[0], created_at=row[1], created_by_bot_id=row[2]), row[3]) for row in channels
            ],
            subscriptions=[
                Subscription(row[0], row[1], row[2], start_seq=row[3], echo=bool(row[4])) for row in subscriptions
            ],
            mailboxes=[
                MailboxState(
                    bot_id=row[0],
                    position=row[1],
                    unsettled=msgspec.json.decode(row[2], type=tuple[UnsettledState, ...]),
                    floors=msgspec.json.decode(row[3], type=dict[str, int]),
                    ahead=msgspec.json.decode(row[4], type=tuple[int, ...]),
                )
                for row in mailboxes
            ],
            dead_letters=[(row[0], row[1]) for row in dead_letters],
        )

    async def apply(self, changes: Sequence[Change]) -> list[Any]:
        """Carry out changes in order, in one transaction."""

        async def operation(transaction: Transaction) -> list[Any]:
            return [await self._checked(transaction, change) for change in changes]

        answers = await self._database.writer.run(operation)
        for change, answer in zip(changes, answers, strict=True):
            if isinstance(change, AddMessages):
                self._conversations.remember(_stored(change.messages, answer))
        return answers

    async def _checked(self, transaction: Transaction, change: Change) -> Any:
        try:
            return await self._change(transaction, change)
        except sqlite3.IntegrityError as error:
            raise Conflict(f"{type(change).__name__} contradicts what is stored: {error}") from error

    async def _change(self, transaction: Transaction, change: Change) -> Any:
        connection = transaction.connection
        match change:
            case AddMessages():
                added = await append(transaction, change.messages, change.timestamp)
                await self._conversations.open(connection, _stored(change.messages, added), change.timestamp)
                return added
            case SaveMailbox(state):
                await connection.execute(
                    _SAVE_MAILBOX,
                    (
                        state.bot_id,
                        state.position,
                        msgspec.json.encode(state.unsettled).decode(),
                        msgspec.json.encode(state.floors).decode(),
                        msgspec.json.encode(state.ahead).decode(),
                    ),
                )
            case AddBot(bot):
                await connection.execute(
                    "INSERT INTO bots (id, name, created_at, last_seen_at, public_key) VALUES (?, ?, ?, ?, ?)",
                    (bot.id, bot.name, bot.created_at, bot.last_seen_at, bot.public_key),
                )
                await connection.execute(_SAVE_MAILBOX, (bot.id, transaction.last_seq, "[]", "{}", "[]"))
                return transaction.last_seq
            case SeenBot():
                await connection.execute(
                    "UPDATE bots SET last_seen_at = ? WHERE id = ?", (change.at, change.bot_id)
                )
            case AddChannel(channel):
                await connection.execute(
                    "INSERT OR IGNORE INTO bot_channels (name, created_at, created_by_bot_id) VALUES (?, ?, ?)",
                    (channel.name, channel.created_at, channel.created_by_bot_id),
                )
            case AddSubscription():
                return await self._subscribe(transaction, change)
            case RemoveSubscription():
                cursor = await connection.execute(
                    "DELETE FROM bot_subscriptions WHERE bot_id = ? AND channel_name = ?",
                    (change.bot_id, change.channel),
                )
                return cursor.rowcount > 0
            case AddDeadLetters(dead_letters):
                await connection.executemany(
                    "INSERT OR REPLACE INTO dead_letters (bot_id, seq, reason, attempts, at)"
                    " VALUES (?, ?, ?, ?, ?)",
                    [(dead.bot_id, dead.seq, dead.reason, dead.attempts, dead.at) for dead in dead_letters],
                )
            case RemoveDeadLetters():
                removed: list[int] = []
                for seq in change.seqs:
                    cursor = await connection.execute(
                        "DELETE FROM dead_letters WHERE bot_id = ? AND seq = ?", (change.bot_id, seq)
                    )
                    if cursor.rowcount:
                        removed.append(seq)
                return removed
            case _:
                assert_never(change)
        return None

    async def _subscribe(self, transaction: Transaction, change: AddSubscription) -> Subscribed:
        start_seq = transaction.last_seq if change.start_seq is None else change.start_seq
        cursor = await transaction.connection.execute(
            "INSERT INTO bot_subscriptions (bot_id, channel_name, subscribed_at, start_seq, echo)"
            " VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (change.bot_id, change.channel, change.subscribed_at, start_seq, change.echo),
        )
        if cursor.rowcount > 0:
            return Subscribed(start_seq, created=True)
        rows = await transaction.connection.execute_fetchall(
            "SELECT start_seq FROM bot_subscriptions WHERE bot_id = ? AND channel_name = ?",
            (change.bot_id, change.channel),
        )
        return Subscribed(next(iter(rows))[0], created=False)

    async def read_page(self, request: PageRequest) -> Page:
        """Read part of a mailbox."""
        damaged: list[int] = []
        recalled: list[LogMessage] = []
        for start in range(0, len(request.seqs), _SOURCES_A_STATEMENT):
            part = request.seqs[start : start + _SOURCES_A_STATEMENT]
            marks = ", ".join("?" * len(part))
            rows = await self._database.pages.execute_fetchall(
                f"SELECT {COLUMNS} FROM bot_messages WHERE seq IN ({marks}) ORDER BY seq", part
            )
            for row in rows:
                recalled.append(message_of(row)) if intact(row) else damaged.append(row[0])
        messages, complete = await self._follow(request, damaged)
        return Page(recalled, messages, complete, tuple(damaged))

    async def _follow(self, request: PageRequest, damaged: list[int]) -> tuple[list[LogMessage], bool]:
        seqs = await self._seqs(request, request.messages_max + 1)
        wanted = seqs[: request.messages_max]
        if not wanted:
            return [], len(seqs) <= request.messages_max
        messages: list[LogMessage] = []
        size_bytes = 0
        for start in range(0, len(wanted), _ROWS_A_FETCH):
            part = wanted[start : start + _ROWS_A_FETCH]
            marks = ", ".join("?" * len(part))
            sql = f"SELECT {COLUMNS} FROM bot_messages WHERE seq IN ({marks}) ORDER BY seq"
            for row in await self._database.pages.execute_fetchall(sql, part):
                if size_bytes >= request.bytes_max:
                    return messages, False
                if intact(row):
                    messages.append(message_of(row))
                    size_bytes += len(row[7])
                else:
                    damaged.append(row[0])
        return messages, len(seqs) <= request.messages_max

    async def _seqs(self, request: PageRequest, limit: int) -> list[int]:
        """Give the seqs that follow in the sources, in order: each source's range of its index, merged."""
        found: list[int] = []
        for start in range(0, len(request.sources), _SOURCES_A_STATEMENT):
            ranges: list[str] = []
            parameters: list[Any] = []
            for source in request.sources[start : start + _SOURCES_A_STATEMENT]:
                condition, values = _range(request, source)
                ranges.append(f"SELECT seq FROM (SELECT seq FROM bot_messages {condition} ORDER BY seq LIMIT ?)")
                parameters += (*values, limit)
            sql = " UNION ALL ".join(ranges) + " ORDER BY seq LIMIT ?"
            rows = await self._database.pages.execute_fetchall(sql, (*parameters, limit))
            found += [row[0] for row in rows]
        return sorted(found)[:limit]

    async def seq_before(self, at: str) -> int:
        """Give the last seq whose timestamp is before `at`."""
        sql = "SELECT COALESCE(MIN(seq) - 1, ?) FROM bot_messages WHERE timestamp >= ?"
        rows = await self._database.read.execute_fetchall(sql, (self._database.writer.last_seq, at))
        return int(next(iter(rows))[0])

    async def history(self, request: HistoryRequest) -> list[LogMessage]:
        """Read back a conversation, newest first."""
        before = _SEQ_MAX if request.before_seq is None else request.before_seq
        read = self._database.read
        if request.between is not None:
            return await fetch(read, _BETWEEN, (*request.between, before, request.limit))
        if request.channel is not None:
            return await fetch(read, _CHANNEL, (request.channel, before, request.limit))
        return await fetch(read, _THREAD, (request.thread, before, request.limit))

    async def find(self, message_id: str) -> LogMessage | None:
        """Give a message by its id."""
        messages = await fetch(self._database.read, "WHERE id = ?", (message_id,))
        return messages[0] if messages else None

    async def channel_summaries(self) -> list[ChannelSummary]:
        """List all channels by name."""
        rows = await self._database.read.execute_fetchall(_SUMMARIES)
        return [
            ChannelSummary(Channel(name=row[0], created_at=row[1], created_by_bot_id=row[2]), row[3])
            for row in rows
        ]

    async def backlogs(self, requests: Sequence[PageRequest]) -> list[int]:
        """Count what each mailbox has still to hand out."""
        counts: list[int] = []
        for request in requests:
            count = 0
            for source in request.sources:
                condition, values = _range(request, source)
                sql = f"SELECT COUNT(*) FROM bot_messages {condition}"
                rows = await self._database.read.execute_fetchall(sql, values)
                count += next(iter(rows))[0]
            counts.append(count)
        return counts

    async def dead_letters(self, bot_id: str | None, limit: int) -> list[tuple[DeadLetter, LogMessage | None]]:
        """List dead letters, newest first."""
        rows = await self._database.read.execute_fetchall(
            "SELECT bot_id, seq, reason, attempts, at FROM dead_letters WHERE ?1 IS NULL OR bot_id = ?1"
            " ORDER BY at DESC, seq DESC LIMIT ?2",
            (bot_id, limit),
        )
        found = [DeadLetter(*row) for row in rows]
        messages = {message.seq: message for message in await self._messages([dead.seq for dead in found])}
        return [(dead, messages.get(dead.seq)) for dead in found]

    async def _messages(self, seqs: Sequence[int]) -> list[LogMessage]:
        marks = ", ".join("?" * len(seqs))
        return await fetch(self._database.read, f"WHERE seq IN ({marks})", seqs)

    async def sizes(self) -> dict[str, int]:
        """Give the number of messages and the bytes on disk."""
        rows = await self._database.read.execute_fetchall("SELECT COUNT(*) FROM bot_messages")
        sizes = {"messages": int(next(iter(rows))[0])}
        for name, suffix in (("database_bytes", ""), ("wal_bytes", "-wal")):
            path = anyio.Path(f"{self._database.path}{suffix}")
            sizes[name] = (await path.stat()).st_size if await path.exists() else 0
        return sizes


def _range(request: PageRequest, source: tuple[str, int, bool]) -> tuple[str, tuple[Any, ...]]:
    """Give the condition, and its values, for what a mailbox wants of one source: a range of one index."""
    channel, after_seq, skip_own = source
    column = "recipient_channel" if channel else "recipient_bot_id"
    condition = f"WHERE {column} = ? AND seq > ? AND seq <= ?"
    values = (channel or request.bot_id, after_seq, request.through_seq)
    if skip_own:
        return f"{condition} AND sender_bot_id <> ?", (*values, request.bot_id)
    return condition, values


def _stored(messages: Sequence[NewMessage], added: Sequence[Added]) -> list[NewMessage]:
    """Give the messages that this change put into the log: neither repeats nor those whose id was taken."""
    return [
        message
        for message, outcome in zip(messages, added, strict=True)
        if outcome.seq is not None and not outcome.duplicate
    ]
