"""The kinds of records that a store consists of, in the order in which they are moved.

Owns the form in which a record is the same in every backend: a row of its values, the key first. Which table and
columns it comes from, and how a value is stored there, is the backend's business.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from bus.model.databases import label_of

from ..message_rows import intact

__all__ = ["FLAGS", "KINDS", "MESSAGES", "Kind", "Row", "RowKey", "is_damaged"]

Row = tuple[Any, ...]
"""A record: texts, integers, flags and None. Flags are True and False, or 1 and 0, which are equal."""

RowKey = tuple[Any, ...]
"""The first values of a row, by which it is known and ordered; texts are ordered by their bytes in UTF-8."""


class Kind(msgspec.Struct, frozen=True):
    """One kind of record. `fields` are named as the columns are in the first backend."""

    name: str
    key_size: int
    fields: tuple[str, ...]

    @property
    def label(self) -> str:
        """Its name for people."""
        return label_of(self.name)

    def key(self, row: Row) -> RowKey:
        """Return the key of a row."""
        return row[: self.key_size]

    def position(self, field: str) -> int:
        """Return where a field is in a row."""
        return self.fields.index(field)


def _kind(name: str, key: str, rest: str) -> Kind:
    keys = tuple(key.split())
    return Kind(name, len(keys), (*keys, *rest.split()))


MESSAGES = _kind(
    "bot_messages",
    "seq",
    "id sender_bot_id sender_bot_name recipient_bot_id recipient_channel message_type body reply_to headers"
    " timestamp expires_at tainted priority checksum copied",
)

KINDS = (
    _kind("bots", "id", "name public_key created_at last_seen_at"),
    _kind(
        "keys",
        "public_key",
        "bot_id purpose roles label created_at created_by expires_at revoked_at replaced_by last_used_at checksum",
    ),
    _kind("bot_channels", "name", "created_at created_by_bot_id"),
    _kind("bot_subscriptions", "bot_id channel_name", "subscribed_at start_seq echo group_name pattern checksum"),
    _kind("bot_patterns", "bot_id pattern", "subscribed_at start_seq echo group_name checksum"),
    _kind("channel_groups", "channel_name name", "created_at start_seq checksum"),
    _kind("mailboxes", "id", "position unsettled floors ahead gap_from gap_to checksum"),
    _kind("dead_letters", "mailbox_id seq", "reason attempts at"),
    MESSAGES,
    _kind(
        "scheduled_messages",
        "number",
        "id sender_bot_id sender_bot_name recipient_bot_id recipient_channel message_type body reply_to headers"
        " expires_at due_at tainted priority checksum",
    ),
    _kind("chat_sessions", "id", "created_at session_type peer_bot_id opened_by_bot_id"),
    _kind("workflows", "id", "name owner_bot_id definition created_at updated_at replaced"),
    _kind(
        "workflow_runs",
        "id",
        "number workflow_id workflow_name status trigger_type trigger_payload context started_at completed_at error"
        " concurrency_key holder_bot_id fence lease_expires_at claim_id recoveries queue_place queued_at"
        " queued_until definition stopped created_by_bot_id last_holder_bot_id progress forked_from result"
        " parent_run_id not_before cleans_up cancel_by cancel_reason attributes schedule_id scheduled_at"
        " continued_as",
    ),
    _kind(
        "workflow_steps",
        "id",
        "number run_id step_id step_name status attempt idempotency_key input output error started_at completed_at",
    ),
    _kind("workflow_signals", "run_id id", "number name payload sender sent_at taken_by"),
    _kind("workflow_run_attributes", "name value started_at run_id", ""),
    _kind(
        "workflow_schedules",
        "id",
        "workflow_id schedule is_cron paused anchor next_at queued_at last_at last_run_id fired skipped error"
        " created_at created_by_bot_id",
    ),
    _kind("workflow_commits", "id", "bot_id run_id digest seqs committed_at"),
    _kind("workflow_cancellations", "run_id", "number reason cancel_by after_id last_id"),
    _kind("security_events", "id", "at event bot_id key address object detail times checksum"),
    _kind(
        "keyed_values", "revision", "store key state value write_id bot_id digest written_at expires_at checksum"
    ),
    _kind("removals", "number", "id at bot_id bot_name reference what scrubbed_at checksum"),
)
"""Each after those that it refers to. `number` is the order in which records of a kind were created."""

FLAGS = frozenset({"cleans_up", "copied", "echo", "is_cron", "paused", "stopped", "tainted"})
"""The fields that are true or false."""


def is_damaged(message: Sequence[Any]) -> bool:
    """Return True if a row of MESSAGES does not match its checksum."""
    seq, *before, body, reply_to, headers, timestamp, expires_at, tainted, priority, checksum, _ = message
    texts = (body.encode(), reply_to, headers.encode(), timestamp, expires_at)
    row = (seq, *before, *texts, tainted + 2 * priority, checksum)
    return not intact(row)
