"""Subscriptions to channels and to patterns, and groups.

Owns the SQL that changes them, in every backend. Each backend's `sealed` says how they are read.
"""

from __future__ import annotations

from collections.abc import Iterable

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

from .seals import mailbox_row, pattern_row, seal, subscription_row
from .statements import Statements

__all__ = ["SAVE_MAILBOX", "add_pattern", "remove_pattern", "subscribe", "subscribe_all", "unsubscribe"]

_SUBSCRIPTION = """
    SELECT subscribed_at, start_seq, echo, group_name, pattern FROM bot_subscriptions WHERE bot_id = ?1
        AND channel_name = ?2"""

_SUBSCRIBE = """
    INSERT INTO bot_subscriptions
        (bot_id, channel_name, subscribed_at, start_seq, echo, group_name, pattern, checksum)
    VALUES (?1, ?2, ?3, ?4, CAST(?5 AS int) <> 0, ?6, ?7, ?8)"""

_PASS = "UPDATE bot_subscriptions SET pattern = ?1, checksum = ?2 WHERE bot_id = ?3 AND channel_name = ?4"

_UNSUBSCRIBE = """
    DELETE FROM bot_subscriptions WHERE bot_id = ?1 AND channel_name = ?2 AND pattern IS NULL RETURNING bot_id"""

_PATTERN = "SELECT start_seq, group_name FROM bot_patterns WHERE bot_id = ?1 AND pattern = ?2"

_ADD_PATTERN = """
    INSERT INTO bot_patterns (bot_id, pattern, subscribed_at, start_seq, echo, group_name, checksum)
    VALUES (?1, ?2, ?3, ?4, CAST(?5 AS int) <> 0, ?6, ?7)"""

_REMOVE_BROUGHT = "DELETE FROM bot_subscriptions WHERE bot_id = ?1 AND pattern = ?2"

_REMOVE_PATTERN = "DELETE FROM bot_patterns WHERE bot_id = ?1 AND pattern = ?2 RETURNING bot_id"

_GROUP = "SELECT start_seq FROM channel_groups WHERE channel_name = ?1 AND name = ?2"

_OPEN_GROUP = """
    INSERT INTO channel_groups (channel_name, name, created_at, start_seq, checksum)
    VALUES (?1, ?2, ?3, ?4, ?5)"""

SAVE_MAILBOX = """
    INSERT INTO mailboxes (id, position, unsettled, floors, ahead, gap_from, gap_to, checksum)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
    ON CONFLICT (id) DO UPDATE SET
        position = excluded.position, unsettled = excluded.unsettled, floors = excluded.floors,
        ahead = excluded.ahead, gap_from = excluded.gap_from, gap_to = excluded.gap_to,
        checksum = excluded.checksum"""


async def subscribe(run: Statements, change: AddSubscription, *, last_seq: int) -> Subscribed:
    """Subscribe a bot, unless it is subscribed. The log ends with `last_seq`."""
    known = await _find(run, change.bot_id, change.channel)
    if known is not None:
        if known.pattern is not None and change.pattern is None and known.group == change.group:
            await _pass(run, known, None)
        return Subscribed(known.start_seq, created=False, group=known.group)
    start_seq = last_seq if change.start_seq is None else change.start_seq
    if change.group is not None:
        start_seq = await _open_group(run, change, change.group, start_seq, last_seq)
    added = Subscription(
        change.bot_id, change.channel, change.subscribed_at, start_seq, change.echo, change.group, change.pattern
    )
    await run(_SUBSCRIBE, *subscription_row(added))
    return Subscribed(start_seq, created=True, group=change.group)


async def subscribe_all(run: Statements, changes: Iterable[AddSubscription], *, last_seq: int) -> None:
    """Subscribe bots, unless they are subscribed."""
    for change in changes:
        await subscribe(run, change, last_seq=last_seq)


async def unsubscribe(run: Statements, change: RemoveSubscription) -> bool:
    """End a subscription that did not come by a pattern, or pass it to one."""
    if change.passes_to is None:
        return bool(await run(_UNSUBSCRIBE, change.bot_id, change.channel))
    known = await _find(run, change.bot_id, change.channel)
    if known is None or known.pattern is not None:
        return False
    await _pass(run, known, change.passes_to)
    return True


async def add_pattern(run: Statements, change: AddPattern, *, last_seq: int) -> Subscribed:
    """Subscribe a bot to a pattern, unless it is subscribed. The log ends with `last_seq`."""
    for start_seq, group in await run(_PATTERN, change.bot_id, change.pattern):
        return Subscribed(start_seq, created=False, group=group)
    start_seq = last_seq if change.start_seq is None else change.start_seq
    added = PatternSubscription(
        change.bot_id, change.pattern, change.subscribed_at, start_seq, change.echo, change.group
    )
    await run(_ADD_PATTERN, *pattern_row(added))
    return Subscribed(start_seq, created=True, group=change.group)


async def remove_pattern(run: Statements, change: RemovePattern) -> bool:
    """End a subscription to a pattern, with those that came by it and are not passed to another one."""
    for channel, pattern in change.passed.items():
        known = await _find(run, change.bot_id, channel)
        if known is not None and known.pattern == change.pattern:
            await _pass(run, known, pattern)
    await run(_REMOVE_BROUGHT, change.bot_id, change.pattern)
    return bool(await run(_REMOVE_PATTERN, change.bot_id, change.pattern))


async def _find(run: Statements, bot_id: str, channel: str) -> Subscription | None:
    for subscribed_at, start_seq, echo, group, pattern in await run(_SUBSCRIPTION, bot_id, channel):
        return Subscription(bot_id, channel, subscribed_at, start_seq, bool(echo), group, pattern)
    return None


async def _pass(run: Statements, known: Subscription, pattern: str | None) -> None:
    *_, checksum = subscription_row(replace(known, pattern=pattern))
    await run(_PASS, pattern, checksum, known.bot_id, known.channel)


async def _open_group(run: Statements, change: AddSubscription, group: str, start_seq: int, last_seq: int) -> int:
    """Open a group and its mailbox if it does not exist, and return its start."""
    for (known,) in await run(_GROUP, change.channel, group):
        return int(known)
    checksum = seal(change.channel, group, start_seq)
    await run(_OPEN_GROUP, change.channel, group, change.subscribed_at, start_seq, checksum)
    # A group may start beyond the end of the log; a position lies within it.
    state = MailboxState(group_mailbox_id(change.channel, group), min(start_seq, last_seq))
    await run(SAVE_MAILBOX, *mailbox_row(state))
    return start_seq
