"""Mailboxes, subscriptions and groups as rows.

Owns their columns as delivery reads them. The checksum in each is that of `store.seals`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import asyncpg

from bus.model.repository import AddSubscription, Group, MailboxState, Subscribed, Subscription, group_mailbox_id

from ...seals import mailbox_row, seal
from ..server.writer import Transaction

__all__ = [
    "GROUPS",
    "MAILBOXES",
    "MISSING",
    "SUBSCRIPTIONS",
    "group_of",
    "mailbox_columns",
    "save_mailboxes",
    "save_sql",
    "subscribe",
    "subscription_of",
]

_SAVE_MAILBOXES = """
    INSERT INTO mailboxes (id, position, unsettled, floors, ahead, gap_from, gap_to, checksum)
    SELECT * FROM unnest({}::text[], {}::bigint[], {}::text[], {}::text[], {}::text[], {}::bigint[], {}::bigint[],
                         {}::bigint[])
    WHERE {condition}
    ON CONFLICT (id) DO UPDATE SET
        position = excluded.position, unsettled = excluded.unsettled, floors = excluded.floors,
        ahead = excluded.ahead, gap_from = excluded.gap_from, gap_to = excluded.gap_to,
        checksum = excluded.checksum"""

MAILBOXES = "SELECT id, position, unsettled, floors, ahead, gap_from, gap_to, checksum FROM mailboxes"

SUBSCRIPTIONS = """
    SELECT bot_id, channel_name, subscribed_at, start_seq, echo::int, group_name, checksum FROM bot_subscriptions"""

GROUPS = "SELECT channel_name, name, start_seq, checksum FROM channel_groups"

_GROUP_MAILBOXES = "SELECT channel_name || '/' || name FROM channel_groups"
"""Their mailboxes' ids, as `group_mailbox_id` forms them."""

MISSING = {
    "group": f"""
        SELECT channel_name || '/' || group_name FROM bot_subscriptions WHERE group_name IS NOT NULL EXCEPT
        {_GROUP_MAILBOXES}""",
    "mailbox": f"""
        (SELECT id FROM bots UNION {_GROUP_MAILBOXES} UNION SELECT mailbox_id FROM dead_letters)
        EXCEPT SELECT id FROM mailboxes""",
}
"""What bots, subscriptions, groups and dead letters need but is missing, unless a foreign key says so already."""

_SUBSCRIBE = """
    INSERT INTO bot_subscriptions (bot_id, channel_name, subscribed_at, start_seq, echo, group_name, checksum)
    VALUES ($1, $2, $3, $4, $5, $6, $7)"""

_OPEN_GROUP = """
    INSERT INTO channel_groups (channel_name, name, created_at, start_seq, checksum) VALUES ($1, $2, $3, $4, $5)"""


def save_sql(*, first: int, condition: str = "true") -> str:
    """Return SQL that replaces the states of mailboxes; the numbers of its parameters begin at `first`."""
    return _SAVE_MAILBOXES.format(*(f"${number}" for number in range(first, first + 8)), condition=condition)


def mailbox_columns(states: Iterable[MailboxState]) -> Sequence[Sequence[Any]]:
    """Return the parameters of `save_sql` for states of mailboxes, each of which is given once."""
    return list(zip(*map(mailbox_row, states), strict=True)) or [()] * 8


_SAVE_ALL = save_sql(first=1)


async def save_mailboxes(connection: asyncpg.Connection, states: Collection[MailboxState]) -> None:
    """Replace the states of mailboxes, each of which is given once."""
    if states:
        await connection.execute(_SAVE_ALL, *mailbox_columns(states))


async def subscribe(transaction: Transaction, change: AddSubscription) -> Subscribed:
    """Subscribe a bot, unless it is subscribed."""
    connection = transaction.connection
    known = await connection.fetchrow(
        "SELECT start_seq, group_name FROM bot_subscriptions WHERE bot_id = $1 AND channel_name = $2",
        change.bot_id,
        change.channel,
    )
    if known is not None:
        return Subscribed(known[0], created=False, group=known[1])
    start_seq = transaction.last_seq if change.start_seq is None else change.start_seq
    if change.group is not None:
        start_seq = await _open_group(transaction, change, change.group, start_seq)
    values = (change.bot_id, change.channel, change.subscribed_at, start_seq)
    checksum = seal(*values, int(change.echo), change.group)
    await connection.execute(_SUBSCRIBE, *values, change.echo, change.group, checksum)
    return Subscribed(start_seq, created=True, group=change.group)


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


def subscription_of(row: Sequence[Any]) -> Subscription:
    """Read a row of SUBSCRIPTIONS."""
    return Subscription(row[0], row[1], row[2], start_seq=row[3], echo=bool(row[4]), group=row[5])


def group_of(row: Sequence[Any]) -> Group:
    """Read a row of GROUPS."""
    return Group(row[0], row[1], start_seq=row[2])
