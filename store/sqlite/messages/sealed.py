"""Mailboxes, subscriptions and groups as rows.

Owns their columns as delivery reads them, and the checksum in each (`store.seals`): a flipped bit in a position is
as bad as one in a message, and only the checksum shows it. A row without one was written before checksums existed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bus.model.repository import Group

__all__ = [
    "BY_PATTERNS",
    "GROUPS",
    "MAILBOXES",
    "MISSING",
    "PATTERNS",
    "SUBSCRIPTIONS",
    "group_of",
]

MAILBOXES = "SELECT id, position, unsettled, floors, ahead, gap_from, gap_to, checksum FROM mailboxes"

SUBSCRIPTIONS = """
    SELECT bot_id, channel_name, subscribed_at, start_seq, echo, group_name, checksum FROM bot_subscriptions
    WHERE pattern IS NULL"""

BY_PATTERNS = """
    SELECT bot_id, channel_name, subscribed_at, start_seq, echo, group_name, pattern, checksum
    FROM bot_subscriptions WHERE pattern IS NOT NULL"""
"""The subscriptions that came by a pattern: their checksums cover it."""

PATTERNS = "SELECT bot_id, pattern, subscribed_at, start_seq, echo, group_name, checksum FROM bot_patterns"

GROUPS = "SELECT channel_name, name, start_seq, checksum FROM channel_groups"

_GROUP_MAILBOXES = "SELECT channel_name || '/' || name FROM channel_groups"
"""Their mailboxes' ids, as `group_mailbox_id` forms them."""

MISSING = {
    "bot": "SELECT bot_id FROM keys WHERE bot_id NOT IN (SELECT id FROM bots)",
    "channel": """
        SELECT channel_name FROM bot_subscriptions WHERE channel_name NOT IN (SELECT name FROM bot_channels) UNION
        SELECT channel_name FROM channel_groups WHERE channel_name NOT IN (SELECT name FROM bot_channels)""",
    "group": f"""
        SELECT channel_name || '/' || group_name FROM bot_subscriptions WHERE group_name IS NOT NULL EXCEPT
        {_GROUP_MAILBOXES}""",
    "pattern": """
        SELECT pattern FROM bot_subscriptions WHERE pattern IS NOT NULL AND (bot_id, pattern) NOT IN
            (SELECT bot_id, pattern FROM bot_patterns)""",
    "mailbox": f"""
        SELECT id FROM (SELECT id FROM bots UNION {_GROUP_MAILBOXES} UNION SELECT mailbox_id FROM dead_letters)
        EXCEPT SELECT id FROM mailboxes""",
}
"""What keys, bots, subscriptions, groups and dead letters need but is missing: each selects names or ids."""


def group_of(row: Sequence[Any]) -> Group:
    """Read a row of GROUPS."""
    return Group(row[0], row[1], start_seq=row[2])
