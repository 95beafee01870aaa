"""Subscriptions to channels and to patterns, and groups.

Owns the SQL that changes them. `sealed` says how they are read.
"""

from __future__ import annotations

from collections.abc import Iterable

import asyncpg
from msgspec.structs import replace

from bus.model.repository import (
    AddPattern,
    AddSubscription,
    MailboxState,
    PatternSubscription,
    RemovePattern,
    RemoveSubscription,
    Subscribed,
    Subscription,
    group_mailbox_id,
)

from ...seals import pattern_row, seal, subscription_row
from ..server.writer import Transaction
from .sealed import save_mailboxes

__all__ = ["add_pattern", "remove_pattern", "subscribe", "subscribe_all", "unsubscribe"]

_SUBSCRIPTION = """
    SELECT bot_id, channel_name, subscribed_at, start_seq, echo, group_name, pattern FROM bot_subscriptions
    WHERE bot_id = $1 AND channel_name = $2"""

_SUBSCRIBE = """
    INSERT INTO bot_subscriptions
        (bot_id, channel_name, subscribed_at, start_seq, echo, group_name, pattern, checksum)
    VALUES ($1, $2, $3, $4, $5::int <> 0, $6, $7, $8)"""

_PASS = "UPDATE bot_subscriptions SET pattern = $1, checksum = $2 WHERE bot_id = $3 AND channel_name = $4"

_UNSUBSCRIBE = """
    DELETE FROM bot_subscriptions WHERE bot_id = $1 AND channel_name = $2 AND pattern IS NULL RETURNING bot_id"""

_ADD_PATTERN = """
    INSERT INTO bot_patterns (bot_id, pattern, subscribed_at, start_seq, echo, group_name, checksum)
    VALUES ($1, $2, $3, $4, $5::int <> 0, $6, $7)"""

_OPEN_GROUP = """
    INSERT INTO channel_groups (channel_name, name, created_at, start_seq, checksum) VALUES ($1, $2, $3, $4, $5)"""


async def subscribe(transaction: Transaction, change: AddSubscription) -> Subscribed:
    """Subscribe a bot, unless it is subscribed."""
    connection = transaction.connection
    known = await _find(connection, change.bot_id, change.channel)
    if known is not None:
        if known.pattern is not None and change.pattern is None and known.group == change.group:
            await _pass(connection, known, None)
        return Subscribed(known.start_seq, created=False, group=known.group)
    start_seq = transaction.last_seq if change.start_seq is None else change.start_seq
    if change.group is not None:
        start_seq = await _open_group(transaction, change, change.group, start_seq)
    added = Subscription(
        change.bot_id, change.channel, change.subscribed_at, start_seq, change.echo, change.group, change.pattern
    )
    await connection.execute(_SUBSCRIBE, *subscription_row(added))
    return Subscribed(start_seq, created=True, group=change.group)


async def subscribe_all(transaction: Transaction, changes: Iterable[AddSubscription]) -> None:
    """Subscribe bots, unless they are subscribed."""
    for change in changes:
        await subscribe(transaction, change)


async def unsubscribe(connection: asyncpg.Connection, change: RemoveSubscription) -> bool:
    """End a subscription that did not come by a pattern, or pass it to one."""
    if change.passes_to is None:
        return await connection.fetchval(_UNSUBSCRIBE, change.bot_id, change.channel) is not None
    known = await _find(connection, change.bot_id, change.channel)
    if known is None or known.pattern is not None:
        return False
    await _pass(connection, known, change.passes_to)
    return True


async def add_pattern(transaction: Transaction, change: AddPattern) -> Subscribed:
    """Subscribe a bot to a pattern, unless it is subscribed."""
    connection = transaction.connection
    known = await connection.fetchrow(
        "SELECT start_seq, group_name FROM bot_patterns WHERE bot_id = $1 AND pattern = $2",
        change.bot_id,
        change.pattern,
    )
    if known is not None:
        return Subscribed(known[0], created=False, group=known[1])
    start_seq = transaction.last_seq if change.start_seq is None else change.start_seq
    added = PatternSubscription(
        change.bot_id, change.pattern, change.subscribed_at, start_seq, change.echo, change.group
    )
    await connection.execute(_ADD_PATTERN, *pattern_row(added))
    return Subscribed(start_seq, created=True, group=change.group)


async def remove_pattern(connection: asyncpg.Connection, change: RemovePattern) -> bool:
    """End a subscription to a pattern, with those that came by it and are not passed to another one."""
    for channel, pattern in change.passed.items():
        known = await _find(connection, change.bot_id, channel)
        if known is not None and known.pattern == change.pattern:
            await _pass(connection, known, pattern)
    named = (change.bot_id, change.pattern)
    await connection.execute("DELETE FROM bot_subscriptions WHERE bot_id = $1 AND pattern = $2", *named)
    gone = await connection.fetchval(
        "DELETE FROM bot_patterns WHERE bot_id = $1 AND pattern = $2 RETURNING bot_id", *named
    )
    return gone is not None


async def _find(connection: asyncpg.Connection, bot_id: str, channel: str) -> Subscription | None:
    row = await connection.fetchrow(_SUBSCRIPTION, bot_id, channel)
    return None if row is None else Subscription(*row)


async def _pass(connection: asyncpg.Connection, known: Subscription, pattern: str | None) -> None:
    *_, checksum = subscription_row(replace(known, pattern=pattern))
    await connection.execute(_PASS, pattern, checksum, known.bot_id, known.channel)


async def _open_group(transaction: Transaction, change: AddSubscription, group: str, start_seq: int) -> int:
    """Open a group and its mailbox if it does not exist, and return its start."""
    connection = transaction.connection
    known = await connection.fetchval(
        "SELECT start_seq FROM channel_groups WHERE channel_name = $1 AND name = $2", change.channel, group
    )
    if known is not None:
        return int(known)
    checksum = seal(change.channel, group, start_seq)
    await connection.execute(_OPEN_GROUP, change.channel, group, change.subscribed_at, start_seq, checksum)
    # A group may start beyond the end of the log; a position lies within it.
    position = min(start_seq, transaction.last_seq)
    await save_mailboxes(connection, [MailboxState(group_mailbox_id(change.channel, group), position)])
    return start_seq
