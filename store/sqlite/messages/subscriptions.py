"""Subscriptions to channels and to patterns, and groups.

Owns the SQL that changes them. `sealed` says how they are read.
"""

from __future__ import annotations

from collections.abc import Iterable

import aiosqlite
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

from ...seals import mailbox_row, pattern_row, seal, subscription_row
from ..file.writer import Transaction
from .sealed import SAVE_MAILBOX

__all__ = ["add_pattern", "remove_pattern", "subscribe", "subscribe_all", "unsubscribe"]

_SUBSCRIPTION = """
    SELECT bot_id, channel_name, subscribed_at, start_seq, echo, group_name, pattern FROM bot_subscriptions
    WHERE bot_id = ? AND channel_name = ?"""

_SUBSCRIBE = """
    INSERT INTO bot_subscriptions
        (bot_id, channel_name, subscribed_at, start_seq, echo, group_name, pattern, checksum)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""

_PASS = "UPDATE bot_subscriptions SET pattern = ?, checksum = ? WHERE bot_id = ? AND channel_name = ?"

_UNSUBSCRIBE = "DELETE FROM bot_subscriptions WHERE bot_id = ? AND channel_name = ? AND pattern IS NULL"

_ADD_PATTERN = """
    INSERT INTO bot_patterns (bot_id, pattern, subscribed_at, start_seq, echo, group_name, checksum)
    VALUES (?, ?, ?, ?, ?, ?, ?)"""

_OPEN_GROUP = """
    INSERT INTO channel_groups (channel_name, name, created_at, start_seq, checksum)
    VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"""


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
        start_seq = await _open_group(transaction, change, start_seq)
    added = Subscription(
        change.bot_id, change.channel, change.subscribed_at, start_seq, change.echo, change.group, change.pattern
    )
    await connection.execute(_SUBSCRIBE, subscription_row(added))
    return Subscribed(start_seq, created=True, group=change.group)


async def subscribe_all(transaction: Transaction, changes: Iterable[AddSubscription]) -> None:
    """Subscribe bots, unless they are subscribed."""
    for change in changes:
        await subscribe(transaction, change)


async def unsubscribe(connection: aiosqlite.Connection, change: RemoveSubscription) -> bool:
    """End a subscription that did not come by a pattern, or pass it to one."""
    if change.passes_to is None:
        cursor = await connection.execute(_UNSUBSCRIBE, (change.bot_id, change.channel))
        return cursor.rowcount > 0
    known = await _find(connection, change.bot_id, change.channel)
    if known is None or known.pattern is not None:
        return False
    await _pass(connection, known, change.passes_to)
    return True


async def add_pattern(transaction: Transaction, change: AddPattern) -> Subscribed:
    """Subscribe a bot to a pattern, unless it is subscribed."""
    connection = transaction.connection
    rows = await connection.execute_fetchall(
        "SELECT start_seq, group_name FROM bot_patterns WHERE bot_id = ? AND pattern = ?",
        (change.bot_id, change.pattern),
    )
    for start_seq, group in rows:
        return Subscribed(start_seq, created=False, group=group)
    start_seq = transaction.last_seq if change.start_seq is None else change.start_seq
    added = PatternSubscription(
        change.bot_id, change.pattern, change.subscribed_at, start_seq, change.echo, change.group
    )
    await connection.execute(_ADD_PATTERN, pattern_row(added))
    return Subscribed(start_seq, created=True, group=change.group)


async def remove_pattern(connection: aiosqlite.Connection, change: RemovePattern) -> bool:
    """End a subscription to a pattern, with those that came by it and are not passed to another one."""
    for channel, pattern in change.passed.items():
        known = await _find(connection, change.bot_id, channel)
        if known is not None and known.pattern == change.pattern:
            await _pass(connection, known, pattern)
    named = (change.bot_id, change.pattern)
    await connection.execute("DELETE FROM bot_subscriptions WHERE bot_id = ? AND pattern = ?", named)
    cursor = await connection.execute("DELETE FROM bot_patterns WHERE bot_id = ? AND pattern = ?", named)
    return cursor.rowcount > 0


async def _find(connection: aiosqlite.Connection, bot_id: str, channel: str) -> Subscription | None:
    for row in await connection.execute_fetchall(_SUBSCRIPTION, (bot_id, channel)):
        return Subscription(row[0], row[1], row[2], row[3], bool(row[4]), row[5], row[6])
    return None


async def _pass(connection: aiosqlite.Connection, known: Subscription, pattern: str | None) -> None:
    *_, checksum = subscription_row(replace(known, pattern=pattern))
    await connection.execute(_PASS, (pattern, checksum, known.bot_id, known.channel))


async def _open_group(transaction: Transaction, change: AddSubscription, start_seq: int) -> int:
    """Open a group and its mailbox if it does not exist, and return its start."""
    connection = transaction.connection
    checksum = seal(change.channel, change.group, start_seq)
    cursor = await connection.execute(
        _OPEN_GROUP, (change.channel, change.group, change.subscribed_at, start_seq, checksum)
    )
    if cursor.rowcount > 0:
        # A group may start beyond the end of the log; a position lies within it.
        position = min(start_seq, transaction.last_seq)
        state = MailboxState(group_mailbox_id(change.channel, change.group or ""), position)
        await connection.execute(SAVE_MAILBOX, mailbox_row(state))
        return start_seq
    [[start_seq]] = await connection.execute_fetchall(
        "SELECT start_seq FROM channel_groups WHERE channel_name = ? AND name = ?",
        (change.channel, change.group),
    )
    return start_seq
