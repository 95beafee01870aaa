"""What a log in memory knows of the sources of mailboxes, and of priorities."""

from __future__ import annotations

from collections.abc import Container, Iterable

from bus.model.priorities import priority_of_source
from bus.model.repository import LogMessage

__all__ = ["last_of_each", "wants"]


def last_of_each(messages: Iterable[LogMessage], bots: Container[str]) -> list[tuple[str, int, int]]:
    """Return the last seq of each bot's messages of a priority that is not normal."""
    last = {
        (message.recipient_bot_id or "", message.priority): message.seq
        for message in messages
        if message.priority and message.recipient_bot_id in bots
    }
    return [(bot_id, priority, seq) for (bot_id, priority), seq in last.items()]


def wants(message: LogMessage, mailbox_id: str, source: tuple[str, int, bool]) -> bool:
    """Return True if a message is of a source of a mailbox, and lies after its seq."""
    name, after_seq, skip_own = source
    if message.seq <= after_seq or (skip_own and message.sender_bot_id == mailbox_id):
        return False
    priority = priority_of_source(name)
    if priority is None and name:
        return message.recipient_channel == name
    return message.recipient_bot_id == mailbox_id and priority in (None, message.priority)
