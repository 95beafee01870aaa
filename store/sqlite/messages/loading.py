"""The state from which the broker resumes, read and checked at the start.

Owns which tables must be intact. A wrong position would lose or repeat messages, and a wrong name of a bot would
lose its mailbox.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from bus.errors import DatabaseDamaged, StoreFailed
from bus.model.lineage import read_earlier
from bus.model.records import BotRecord, Channel
from bus.model.repository import LogState

from ...keys import KEYS
from ...seals import is_sealed, key_of, mailbox_of, pattern_of, subscription_of
from ..file.database import Database
from ..file.reader import is_text
from ..security import read_span
from .arrivals import next_due_at
from .rows import fetch_each
from .sealed import BY_PATTERNS, GROUPS, MAILBOXES, MISSING, PATTERNS, SUBSCRIPTIONS, group_of

__all__ = ["load_state"]

T = TypeVar("T")

_BOTS = "SELECT id, name, created_at, last_seen_at, public_key FROM bots"

# The head of each channel is one lookup in its index, whatever the length of the log.
_CHANNELS = """
    SELECT name, created_at, created_by_bot_id,
           COALESCE((SELECT MAX(seq) FROM bot_messages WHERE recipient_channel = name), 0)
    FROM bot_channels"""

# The last of each, likewise: two look-ups for each bot.
_PRIORITIZED = """
    SELECT id, priority, seq FROM (
        SELECT bots.id, each.value AS priority, (
            SELECT MAX(seq) FROM bot_messages
            WHERE recipient_bot_id = bots.id AND priority = each.value AND priority <> 0
        ) AS seq
        FROM bots CROSS JOIN json_each('[-1, 1]') AS each
    ) WHERE seq IS NOT NULL"""

_DEAD_LETTERS = "SELECT mailbox_id, seq FROM dead_letters"

_SCHEDULED = """
    SELECT sender_bot_id, COUNT(*) FROM scheduled_messages WHERE due_at IS NOT NULL GROUP BY sender_bot_id"""

_LAST = "ORDER BY seq DESC LIMIT 8"

_NOT_READ = re.compile(r"error code=(\d+)")
"""How an integrity check reports SQLite's error for a page that it could not read."""

_LOADED = (
    "bots",
    "bot_channels",
    "bot_subscriptions",
    "bot_patterns",
    "channel_groups",
    "mailboxes",
    "dead_letters",
    "scheduled_messages",
    "keys",
)
"""The tables that are read in full, or through their indexes."""


async def load_state(database: Database) -> LogState:
    """Read the state. Raises DatabaseDamaged if it is damaged, and StoreFailed if it cannot be read."""
    for table in _LOADED:
        await _check_whole(database, table)
    for what, sql in MISSING.items():
        for (missing,) in await database.read.execute_fetchall(sql):
            raise _damaged(database, f"the {what} {missing!r} is needed, but missing")
    bots = await _texts(database, "bots", _BOTS)
    channels = await _texts(database, "bot_channels", _CHANNELS)
    dead_letters = await _texts(database, "dead_letters", _DEAD_LETTERS)
    subscriptions = [
        each
        for sql in (SUBSCRIPTIONS, BY_PATTERNS)
        for each in await _sealed(database, sql, "a subscription of", subscription_of)
    ]
    patterns = await _sealed(database, PATTERNS, "a subscription of", pattern_of)
    groups = await _sealed(database, GROUPS, "a group of", group_of)
    mailboxes = await _sealed(database, MAILBOXES, "the mailbox of", mailbox_of)
    keys = await _sealed(database, KEYS, "the key", key_of)
    prioritized = await database.read.execute_fetchall(_PRIORITIZED)
    scheduled = dict(map(tuple, await _texts(database, "scheduled_messages", _SCHEDULED)))
    [(earlier,)] = await database.read.execute_fetchall("SELECT earlier FROM log")
    return LogState(
        epoch=database.epoch,
        last_seq=database.writer.last_seq,
        last_timestamp=await _last_timestamp(database),
        bots=[
            BotRecord(id=row[0], name=row[1], created_at=row[2], last_seen_at=row[3], public_key=row[4])
            for row in bots
        ],
        channels=[(Channel(name=row[0], created_at=row[1], created_by_bot_id=row[2]), row[3]) for row in channels],
        subscriptions=subscriptions,
        mailboxes=mailboxes,
        dead_letters=[(row[0], row[1]) for row in dead_letters],
        groups=groups,
        patterns=patterns,
        prioritized=[(row[0], row[1], row[2]) for row in prioritized],
        scheduled=scheduled,
        next_due_at=await next_due_at(database.read),
        keys=keys,
        security=await read_span(database.read),
        earlier=read_earlier(earlier),
    )


async def _check_whole(database: Database, table: str) -> None:
    """Check that no row of a table is missing, and that its indexes agree with it.

    A checksum covers one row and not their number, and bots and channels have none.
    """
    for (finding,) in await database.read.execute_fetchall(f"PRAGMA integrity_check({table})"):
        code = _NOT_READ.search(finding)
        if code is not None and int(code[1]) & 0xFF == sqlite3.SQLITE_IOERR:
            raise StoreFailed(f"{database.path} cannot be read ({finding}); check the disk, then start again")
        if finding != "ok":
            lines = [line for line in finding.splitlines() if not line.startswith("***")]
            raise _damaged(database, f"in {table}: {'; '.join(lines)}")


async def _texts(database: Database, table: str, sql: str) -> list[Any]:
    """Read a table without checksums. Text that is not UTF-8 could not be sent."""
    rows = await database.read.execute_fetchall(sql)
    for row in rows:
        if not is_text(row):
            raise _damaged(database, f"a text in {table} is not UTF-8 ({tuple(row)!r})")
    return rows


async def _sealed(database: Database, sql: str, what: str, record_of: Callable[[Sequence[Any]], T]) -> list[T]:
    """Read a table with checksums, and check them."""
    records: list[T] = []
    for row in await database.read.execute_fetchall(sql):
        try:
            if not is_sealed(row):
                raise ValueError("the checksum differs")
            records.append(record_of(row))
        except ValueError as error:
            raise _damaged(database, f"{what} {row[0]!r} is not as it was stored ({error})") from error
    return records


async def _last_timestamp(database: Database) -> str:
    """Return the timestamp of the last intact message: times only rise, and a damaged one may be far ahead."""
    for _, message in reversed(await fetch_each(database.pages, _LAST, ())):
        if message is not None:
            return message.timestamp
    return ""


def _damaged(database: Database, what: str) -> DatabaseDamaged:
    return DatabaseDamaged(f"{database.path} is damaged: {what}; run 'posthouse check', or restore a copy")
