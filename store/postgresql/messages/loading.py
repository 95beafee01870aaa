"""The state from which the broker resumes, read and checked at the start.

Owns which tables must be intact: a wrong position would lose or repeat messages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from bus.errors import DatabaseDamaged
from bus.model.lineage import read_earlier
from bus.model.records import BotRecord, Channel
from bus.model.repository import LogState

from ...keys import KEYS
from ...seals import is_sealed, key_of, mailbox_of, pattern_of, subscription_of
from ..security import read_span
from ..server.database import Database
from .arrivals import next_due_at
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
    SELECT bots.id, priority, (
        SELECT MAX(seq) FROM bot_messages AS message
        WHERE message.recipient_bot_id = bots.id AND message.priority = of.priority AND message.priority <> 0
    ) AS seq
    FROM bots CROSS JOIN unnest(ARRAY[-1, 1]) AS of (priority)"""

_DEAD_LETTERS = "SELECT mailbox_id, seq FROM dead_letters"

_SCHEDULED = """
    SELECT sender_bot_id, COUNT(*) FROM scheduled_messages WHERE due_at IS NOT NULL GROUP BY sender_bot_id"""

_END = "SELECT last_seq, last_timestamp, earlier FROM log_end CROSS JOIN log"


async def load_state(database: Database) -> LogState:
    """Read the state. Raises DatabaseDamaged if it is damaged, and StoreFailed if it cannot be read."""
    fetch = database.read.fetch
    for what, sql in MISSING.items():
        for (missing,) in await fetch(sql):
            raise _damaged(database, f"the {what} {missing!r} is needed, but missing")
    [(last_seq, last_timestamp, earlier)] = await fetch(_END)
    return LogState(
        epoch=database.epoch,
        last_seq=last_seq,
        last_timestamp=last_timestamp,
        bots=[
            BotRecord(id=row[0], name=row[1], created_at=row[2], last_seen_at=row[3], public_key=row[4])
            for row in await fetch(_BOTS)
        ],
        channels=[
            (Channel(name=row[0], created_at=row[1], created_by_bot_id=row[2]), row[3])
            for row in await fetch(_CHANNELS)
        ],
        subscriptions=[
            each
            for sql in (SUBSCRIPTIONS, BY_PATTERNS)
            for each in await _sealed(database, sql, "a subscription of", subscription_of)
        ],
        patterns=await _sealed(database, PATTERNS, "a subscription of", pattern_of),
        mailboxes=await _sealed(database, MAILBOXES, "the mailbox of", mailbox_of),
        dead_letters=[(row[0], row[1]) for row in await fetch(_DEAD_LETTERS)],
        groups=await _sealed(database, GROUPS, "a group of", group_of),
        prioritized=[tuple(row) for row in await fetch(_PRIORITIZED) if row[2] is not None],
        scheduled=dict(map(tuple, await fetch(_SCHEDULED))),
        next_due_at=await next_due_at(database.read),
        keys=await _sealed(database, KEYS, "the key", key_of),
        security=await read_span(database.read),
        earlier=read_earlier(earlier),
    )


async def _sealed(database: Database, sql: str, what: str, record_of: Callable[[Sequence[Any]], T]) -> list[T]:
    """Read a table with checksums, and check them."""
    records: list[T] = []
    for row in map(tuple, await database.read.fetch(sql)):
        try:
            if not is_sealed(row):
                raise ValueError("the checksum differs")
            records.append(record_of(row))
        except ValueError as error:
            raise _damaged(database, f"{what} {row[0]!r} is not as it was stored ({error})") from error
    return records


def _damaged(database: Database, what: str) -> DatabaseDamaged:
    return DatabaseDamaged(f"{database.url} is damaged: {what}; restore a copy")
