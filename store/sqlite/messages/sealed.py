"""Mailboxes, subscriptions and groups as rows.

Owns their columns as delivery reads them, and the checksum in each: a flipped bit in a position is as bad as one in
a message, and only the checksum shows it. A row without one was written before checksums existed.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import msgspec

from bus.model.repository import Group, MailboxState, Subscription, UnsettledState

__all__ = [
    "GROUPS",
    "MAILBOXES",
    "MISSING",
    "SAVE_MAILBOX",
    "SUBSCRIPTIONS",
    "group_of",
    "is_sealed",
    "mailbox_of",
    "mailbox_row",
    "seal",
    "subscription_of",
]

SAVE_MAILBOX = """
    INSERT INTO mailboxes (id, position, unsettled, floors, ahead, gap_from, gap_to, checksum)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET
        position = excluded.position, unsettled = excluded.unsettled, floors = excluded.floors,
        ahead = excluded.ahead, gap_from = excluded.gap_from, gap_to = excluded.gap_to,
        checksum = excluded.checksum"""

MAILBOXES = "SELECT id, position, unsettled, floors, ahead, gap_from, gap_to, checksum FROM mailboxes"

SUBSCRIPTIONS = (
    "SELECT bot_id, channel_name, subscribed_at, start_seq, echo, group_name, checksum FROM bot_subscriptions"
)

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
    "mailbox": f"""
        SELECT id FROM (SELECT id FROM bots UNION {_GROUP_MAILBOXES} UNION SELECT mailbox_id FROM dead_letters)
        EXCEPT SELECT id FROM mailboxes""",
}
"""What keys, bots, subscriptions, groups and dead letters need but is missing: each selects names or ids."""

_encode = msgspec.msgpack.Encoder().encode


def seal(*values: Any) -> int:
    """Return the CRC-32 over the values of a row, in the order in which it is read."""
    return zlib.crc32(_encode(values))


def is_sealed(row: Sequence[Any]) -> bool:
    """Return True if a row, which ends with its checksum, is as it was stored."""
    *values, checksum = row
    try:
        return checksum is None or seal(*values) == checksum
    except (TypeError, ValueError):
        return False


def mailbox_row(state: MailboxState) -> tuple[Any, ...]:
    """Return the values of SAVE_MAILBOX."""
    values = (
        state.mailbox_id,
        state.position,
        msgspec.json.encode([_written(item) for item in state.unsettled]).decode(),
        msgspec.json.encode(state.floors).decode(),
        msgspec.json.encode(state.ahead).decode(),
        *(state.gap or (None, None)),
    )
    return (*values, seal(*values))


def _written(item: UnsettledState) -> tuple[Any, ...]:
    """Return what is stored of an unsettled message: usually only the first fields differ from the defaults."""
    if item.due_at is None and not item.retried and not item.vanished:
        return (item.seq, item.attempt, item.failures)
    return msgspec.structs.astuple(item)


def mailbox_of(row: Sequence[Any]) -> MailboxState:
    """Read a row of MAILBOXES. Raises ValueError if its contents are invalid."""
    return MailboxState(
        mailbox_id=row[0],
        position=row[1],
        unsettled=msgspec.json.decode(row[2], type=tuple[UnsettledState, ...]),
        floors=msgspec.json.decode(row[3], type=dict[str, int]),
        ahead=msgspec.json.decode(row[4], type=tuple[int, ...]),
        gap=None if row[5] is None else (row[5], row[6]),
    )


def subscription_of(row: Sequence[Any]) -> Subscription:
    """Read a row of SUBSCRIPTIONS."""
    return Subscription(row[0], row[1], row[2], start_seq=row[3], echo=bool(row[4]), group=row[5])


def group_of(row: Sequence[Any]) -> Group:
    """Read a row of GROUPS."""
    return Group(row[0], row[1], start_seq=row[2])
