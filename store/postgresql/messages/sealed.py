"""Mailboxes, subscriptions and groups as rows.

Owns their columns as delivery reads them. The checksum in each is that of `store.seals`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import asyncpg

from bus.model.repository import Group, MailboxState

from ...seals import mailbox_row

__all__ = [
    "BY_PATTERNS",
    "GROUPS",
    "MAILBOXES",
    "MISSING",
    "PATTERNS",
    "SUBSCRIPTIONS",
    "group_of",
    "mailbox_columns",
    "save_mailboxes",
    "save_sql",
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
    SELECT bot_id, channel_name, subscribed_at, start_seq, echo::int, group_name, checksum FROM bot_subscriptions
    WHERE pattern IS NULL"""

BY_PATTERNS = """
    SELECT bot_id, channel_name, subscribed_at, start_seq, echo::int, group_name, pattern, checksum
    FROM bot_subscriptions WHERE pattern IS NOT NULL"""
"""The subscriptions that came by a pattern: their checksums cover it."""

PATTERNS = """
    SELECT bot_id, pattern, subscribed_at, start_seq, echo::int, group_name, checksum FROM bot_patterns"""

GROUPS = "SELECT channel_name, name, start_seq, checksum FROM channel_groups"

_GROUP_MAILBOXES = "SELECT channel_name || '/' || name FROM channel_groups"
"""Their mailboxes' ids, as `group_mailbox_id` forms them."""

MISSING = {
    "group": f"""
        SELECT channel_name || '/' || group_name FROM bot_subscriptions WHERE group_name IS NOT NULL EXCEPT
        {_GROUP_MAILBOXES}""",
    "pattern": """
        SELECT pattern FROM bot_subscriptions WHERE pattern IS NOT NULL
            AND (bot_id, pattern) NOT IN (SELECT bot_id, pattern FROM bot_patterns)""",
    "mailbox": f"""
        (SELECT id FROM bots UNION {_GROUP_MAILBOXES} UNION SELECT mailbox_id FROM dead_letters)
        EXCEPT SELECT id FROM mailboxes""",
}
"""What bots, subscriptions, groups and dead letters need but is missing, unless a foreign key says so already."""


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


def group_of(row: Sequence[Any]) -> Group:
    """Read a row of GROUPS."""
    return Group(row[0], row[1], start_seq=row[2])
