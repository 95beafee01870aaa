"""A log of many messages, made in a few minutes.

Owns what is in it: direct messages between a hundred bots, every pair of them in both directions, and every fifth
message on one of twenty channels. Everybody has settled everything, so that what costs time later is the log's
length and nothing else.

The store makes the file, its bots and its channels. The messages are put in beside it: without the indexes, which
are made anew at the end, and without syncs. The rows are those that the store would write, checksums included.
"""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import msgspec
import uuid_utils

from bus.model.records import BotRecord, Channel, timestamp
from bus.model.repository import AddBot, AddChannel, NewMessage
from store import open_store
from store.message_rows import checksum
from store.seals import mailbox_of, mailbox_row
from store.sqlite.messages.sealed import MAILBOXES
from store.subscriptions import SAVE_MAILBOX

from .messages import write

__all__ = ["COLUMNS", "fill", "insert"]

COLUMNS = (
    "seq, id, sender_bot_id, sender_bot_name, recipient_type, recipient_bot_id, recipient_channel, message_type,"
    " body, reply_to, headers, timestamp, expires_at, checksum"
)
"""Those of `bot_messages`."""

_WIDTH = len(COLUMNS.split(","))
_ROW = f"({', '.join('?' * _WIDTH)})"
_ROWS_A_STATEMENT = 64

_BOTS, _CHANNELS = 100, 20
_CHANNEL_EVERY = 5

_BATCH = 4096
"""Messages of one time, as of one batch of the worker."""

_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
_STEP = timedelta(seconds=30)


def insert(connection: sqlite3.Connection, values: list[Any]) -> None:
    """Insert rows, given as one flat list of values, in statements of many rows each."""
    step = _WIDTH * _ROWS_A_STATEMENT
    for start in range(0, len(values), step):
        part = values[start : start + step]
        rows = ", ".join([_ROW] * (len(part) // _WIDTH))
        connection.execute(f"INSERT INTO bot_messages ({COLUMNS}) VALUES {rows}", part)


def fill(database: Path, messages: int) -> None:
    """Make a database with so many messages."""
    bots = [(str(uuid_utils.uuid7()), f"filler-{number}") for number in range(_BOTS)]
    anyio.run(_make, database, bots)
    connection = sqlite3.connect(database, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -524288")
        indexes = connection.execute(
            "SELECT name, sql FROM sqlite_master"
            " WHERE tbl_name = 'bot_messages' AND type = 'index' AND sql IS NOT NULL"
        ).fetchall()
        for name, _ in indexes:
            connection.execute(f"DROP INDEX {name}")
        for values in _batches(bots, messages):
            connection.execute("BEGIN")
            insert(connection, values)
            connection.execute("COMMIT")
        for _, sql in indexes:
            connection.execute(sql)
        _settle(connection, messages)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()
    with database.open("rb") as file:
        os.fsync(file.fileno())  # else the first sync of whoever serves it would have all of this to write


def _settle(connection: sqlite3.Connection, seq: int) -> None:
    """Let every mailbox have settled all that came up to a seq."""
    for row in connection.execute(MAILBOXES).fetchall():
        settled = msgspec.structs.replace(mailbox_of(row), position=seq)
        connection.execute(SAVE_MAILBOX, mailbox_row(settled))


async def _make(database: Path, bots: Sequence[tuple[str, str]]) -> None:
    at = timestamp(_BEGIN)
    async with open_store(str(database)) as store:
        added = [AddBot(BotRecord(id=id, name=name, created_at=at, last_seen_at=at)) for id, name in bots]
        channels = [
            Channel(name=f"filled-{each}", created_at=at, created_by_bot_id=bots[0][0]) for each in range(20)
        ]
        await store.log.apply([*added, *(AddChannel(channel) for channel in channels)])


def _batches(bots: Sequence[tuple[str, str]], messages: int) -> Iterator[list[Any]]:
    chance = random.Random(1)
    for first in range(1, messages + 1, _BATCH):
        at = timestamp(_BEGIN + first // _BATCH * _STEP)
        seqs = range(first, min(messages, first + _BATCH - 1) + 1)
        yield [value for seq in seqs for value in _row(seq, bots, chance, at)]


def _row(seq: int, bots: Sequence[tuple[str, str]], chance: random.Random, at: str) -> tuple[Any, ...]:
    sender, place = divmod(int(chance.random() * _BOTS * _BOTS), _BOTS)
    channel = f"filled-{place % _CHANNELS}" if seq % _CHANNEL_EVERY == 0 else None
    recipient = bots[place][0] if channel is None else None
    body = write(1, seq, 0)
    message = NewMessage(str(uuid_utils.uuid7()), *bots[sender], recipient, channel, "message", body, None, b"{}")
    kind = "direct" if channel is None else "channel"
    head = (seq, message.id, *bots[sender], kind, recipient, channel, "message", body.decode())
    return (*head, None, "{}", at, None, checksum(seq, message, at))
